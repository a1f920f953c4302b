"""Founding, inviting, joining and names with the real relay: sections 5 to 8 of the spec."""

import os

import pytest

from reader import names
from reader.connection import Refusal
from reader.device import entry, genesis, now_ms
from reader.invitations import invitation_key, read_link
from reader.keys import SigningKey
from reader.organisation import DAY_MS, Person, found, invite, join
from reader.roster import CODES, Refused, Roster
from reader.structures import ENTRY_LIMIT


async def refused(awaited, code, **fields):
    with pytest.raises(Refusal) as caught:
        await awaited
    assert caught.value.code == code, caught.value.fields
    for name, value in fields.items():
        assert caught.value.fields[name] == value


def founding(person, statement_key):
    """A Genesis of another organisation."""
    return genesis(SigningKey(os.urandom(32)), statement_key, 1, os.urandom(32), person.user, b"", person.device)


def test_a_genesis_names_the_relays_statement_key(relay, run):
    """Section 6: the token is not spent on one that does not."""

    async def conversation():
        link = read_link("claim", relay.claim())
        stranger = Person(bytes(32), os.urandom(16), "Eve")
        await stranger.connect(relay, link["relay_key"])
        wrong, right = founding(stranger, os.urandom(32)), founding(stranger, link["statement_key"])
        ask = stranger.connection.ask
        await refused(
            ask("found", claim_token=link["token"], entry=wrong), "ROSTER_RULE", rule=CODES["GenesisShape"]
        )
        await ask("found", claim_token=link["token"], entry=right)

    run(conversation())


def test_an_organisation_is_founded_once(relay, run):
    """Section 6, REQ-010, REQ-024; repeated bytes get the answer that they got."""

    async def conversation():
        owner = await found(relay, "Ann")
        ask, link = owner.connection.ask, owner.link
        again = await ask("found", claim_token=link["token"], entry=owner.genesis)
        assert again["head"] == owner.head()
        page = await ask("fetch_roster", after=0)
        assert page["entries"] == [owner.genesis]
        stranger = Person(owner.org, os.urandom(16), "Eve")
        await stranger.connect(relay, link["relay_key"])
        hello = await stranger.hello()
        assert hello["admitted"] == "no" and hello["statement_key"] == link["statement_key"]
        other = founding(stranger, link["statement_key"])
        for token in (os.urandom(32), link["token"]):
            await refused(stranger.connection.ask("found", claim_token=token, entry=other), "CLAIM_TOKEN")
        await refused(stranger.connection.ask("fetch_roster", after=0), "NOT_ADMITTED")
        await refused(stranger.connection.ask("fetch_slots"), "NOT_ADMITTED")

    run(conversation())


def test_somebody_is_invited_and_joins(relay, run):
    """REQ-020, REQ-021, REQ-022, REQ-030, REQ-031, REQ-054."""

    async def conversation():
        owner = await found(relay, "Ann")
        text = await invite(owner, "member", "Bob")
        bob = await join(relay, text, "Bob")
        assert bob.head()["seq"] == 3 and bob.roster.is_admitted(bob.id)
        owner.take((await owner.pushed_entry(bob.admission))["entry"])
        await bob.pushed_entry(bob.admission)
        again = await bob.connection.ask("append_roster", entry=bob.admission, slots=[])
        assert again["head"] == bob.head()

        assert (await owner.connection.ask("fetch_slotless"))["devices"] == [bob.id]
        slot = owner.slot_for(bob.id)
        assert (await owner.connection.ask("put_slots", slots=[slot]))["type"] == "done"
        assert (await bob.connection.push())["type"] == "slots_waiting"
        waiting = (await bob.connection.ask("fetch_slots"))["slots"]
        assert waiting == [slot]
        key = bob.open_slots(waiting)
        assert key == owner.directory_key
        assert (await owner.connection.ask("fetch_slotless"))["devices"] == []
        shown = {names.open_profile(key, bob.org, user, u.profile) for user, u in bob.roster.users.items()}
        assert shown == {"Ann", "Bob"}

    run(conversation())


def test_an_invitation_is_redeemed_once(relay, run):
    """REQ-022, REQ-015: replayed, and on a head that is not the head."""

    async def conversation():
        owner = await found(relay, "Ann")
        text = await invite(owner, "member", "Bob")
        bob = await join(relay, text, "Bob")
        link = read_link("join", text)
        thief = Person(link["org"], link["user"], "Eve")
        await thief.connect(relay, link["relay_key"])
        hello = await thief.hello()
        key = invitation_key(link["invitation"], link["secret"])
        signer = {"type": "invitation", "invitation": link["invitation"]}
        add = thief.device.add_device(thief.org, thief.user)
        stale = entry(key, signer, thief.org, owner.head(), [add])
        await refused(
            thief.connection.ask("append_roster", entry=stale, slots=[]), "ROSTER_CONFLICT", head=bob.head()
        )
        late = entry(key, signer, thief.org, hello["head"], [add])
        await refused(
            thief.connection.ask("append_roster", entry=late, slots=[]), "ROSTER_RULE", rule=CODES["InvitationUsed"]
        )

    run(conversation())


def _broken(data):
    return data[:-1] + bytes([data[-1] ^ 1])


REFUSED_ENTRIES = {
    "TooLarge": lambda bob, ann: bytes(ENTRY_LIMIT + 1),
    "WrongVersion": lambda bob, ann: b"\x02" + bob.sign({"type": "remove_user", "user": bob.user})[1:],
    "Malformed": lambda bob, ann: bob.sign({"type": "remove_user", "user": bob.user}) + b"\0",
    "NoOps": lambda bob, ann: bob.sign(),
    "BadSignature": lambda bob, ann: _broken(bob.sign({"type": "remove_user", "user": bob.user})),
    "Forbidden": lambda bob, ann: bob.sign({"type": "remove_user", "user": ann.user}),
    "UnknownUser": lambda bob, ann: bob.sign({"type": "remove_user", "user": bytes(16)}),
    "UnknownDevice": lambda bob, ann: bob.sign({"type": "revoke_device", "device": bytes(16)}),
}


@pytest.mark.parametrize("rule", REFUSED_ENTRIES)
def test_the_relay_refuses_what_the_reader_refuses(relay, run, rule):
    """Section 5.3: the same entry, the same number."""

    async def conversation():
        ann = await found(relay, "Ann")
        bob = await join(relay, await invite(ann, "member", "Bob"), "Bob")
        data = REFUSED_ENTRIES[rule](bob, ann)
        await refused(bob.connection.ask("append_roster", entry=data, slots=[]), "ROSTER_RULE", rule=CODES[rule])
        with pytest.raises(Refused, match=rule):
            bob.roster.apply(data)

    run(conversation())


def test_the_relay_refuses_an_entry_of_another_time(relay, run):
    """REQ-022, REQ-047."""

    async def conversation():
        ann = await found(relay, "Ann")
        op = {"type": "set_profile", "user": ann.user, "profile": ann.sealed(ann.user, "Anna")}
        late = ann.sign(op, issued_at_ms=now_ms() - DAY_MS)
        await refused(ann.connection.ask("append_roster", entry=late, slots=[]), "CLOCK")

    run(conversation())


def test_a_long_roster_comes_in_pages_and_verifies(relay, run):
    """Section 15: 256 entries in one answer."""

    async def conversation():
        ann = await found(relay, "Ann")
        for number in range(300):
            profile = ann.sealed(ann.user, f"Ann {number}")
            await ann.order({"type": "set_profile", "user": ann.user, "profile": profile})
        first = await ann.connection.ask("fetch_roster", after=0)
        assert len(first["entries"]) == 256 and first["head"] == ann.head()
        again = Person(ann.org, ann.user, "Ann")
        again.connection = ann.connection
        assert await again.sync() == ann.head() and again.head() == ann.head()

    run(conversation())


def test_a_pin_goes_with_a_link(relay, run):
    """REQ-104: a wrong PIN is a wrong signature, and uses nothing up."""

    async def conversation():
        owner = await found(relay, "Ann")
        text = await invite(owner, "member", "Bob", pin="ABCD-2345")
        with pytest.raises(Refusal, match=str(CODES["BadSignature"])):
            await join(relay, text, "Bob", pin="ABCD-2346")
        bob = await join(relay, text, "Bob", pin="abcd 2345")
        assert bob.roster.is_admitted(bob.id)

    run(conversation())


def test_an_order_brings_a_new_directory_key(relay, run):
    """REQ-101, REQ-031: the slots come with the entry; the old key leads nowhere, the new one back."""

    async def conversation():
        ann = await found(relay, "Ann")
        bob = await join(relay, await invite(ann, "member", "Bob"), "Bob")
        await ann.sync()
        cy = await join(relay, await invite(ann, "admin", "Cy"), "Cy")
        await ann.sync()
        before, generation = ann.directory_key, ann.roster.seq + 1
        ops = {"type": "remove_user", "user": bob.user}, ann.rotation(before)
        slot = ann.slot_for(cy.id, generation=generation)
        ask, other = ann.connection.ask, ann.slot_for(cy.id, generation=generation - 1)
        await refused(ask("append_roster", entry=ann.sign(*ops), slots=[other]), "MALFORMED")
        await refused(ask("append_roster", entry=ann.sign(ops[0]), slots=[slot]), "MALFORMED")
        await ann.order(*ops, slots=[slot])
        assert await bob.connection.close_code() == "REMOVED"

        await cy.sync()
        assert cy.generation() == generation
        key = cy.open_slots((await cy.connection.ask("fetch_slots"))["slots"])
        assert key == ann.directory_key
        first = cy.roster.directory[1]
        assert names.open_predecessor(key, cy.org, generation, ops[1]["predecessor"], first) == before
        assert (await ask("fetch_slotless"))["devices"] == []

    run(conversation())


def test_checkpoints_are_taken_pushed_and_given(relay, run):
    """REQ-105."""

    async def conversation():
        ann = await found(relay, "Ann")
        bob = await join(relay, await invite(ann, "member", "Bob"), "Bob")
        await ann.sync()
        ask = ann.connection.ask
        await refused(bob.connection.ask("put_checkpoint", checkpoint=bob.checkpoint()), "FORBIDDEN")
        forked = ann.checkpoint(head={"seq": 1, "hash": os.urandom(32)})
        for bad in (forked, bob.checkpoint()):
            with pytest.raises(Refusal):
                await ask("put_checkpoint", checkpoint=bad)
        await refused(ask("put_checkpoint", checkpoint=ann.checkpoint(issued_at_ms=0)), "CLOCK")
        good = ann.checkpoint()
        assert (await ask("put_checkpoint", checkpoint=good))["type"] == "done"
        while (push := await bob.connection.push())["type"] != "checkpoint":
            pass
        assert push["checkpoint"] == good
        assert (await bob.connection.ask("fetch_checkpoints"))["checkpoints"] == [good]

    run(conversation())


def test_a_policy_names_this_relay(relay, run):
    """REQ-100."""

    async def conversation():
        ann = await found(relay, "Ann")
        policy = {**ann.roster.policy, "type": "set_policy", "staleness": "block"}
        foreign = {**policy, "statement_key": SigningKey(os.urandom(32)).public}
        await refused(
            ann.connection.ask("append_roster", entry=ann.sign(foreign), slots=[]),
            "ROSTER_RULE",
            rule=CODES["ForeignStatementKey"],
        )
        await ann.order(policy)
        assert ann.roster.policy["staleness"] == "block"

    run(conversation())


def test_the_root_key_makes_a_new_owner(relay, run):
    """REQ-103, REQ-054: by a device that is not admitted yet."""

    async def conversation():
        ann = await found(relay, "Ann")
        gil = Person(ann.org, os.urandom(16), "Gil")
        await gil.connect(relay, ann.link["relay_key"])
        hello = await gil.hello()
        gil.directory_key, generation = os.urandom(32), hello["head"]["seq"] + 1
        profile = names.seal_profile(
            gil.directory_key, generation, gil.org, gil.user, "Gil", os.urandom(12)
        )
        commitment = names.commitment(gil.directory_key)
        ops = [
            {"type": "recover"},
            {"type": "add_user", "user": gil.user, "role": "owner", "profile": profile},
            gil.device.add_device(gil.org, gil.user),
            {"type": "rotate_directory_key", "commitment": commitment, "predecessor": b""},
        ]
        data = entry(ann.root, {"type": "root"}, gil.org, hello["head"], ops)
        await gil.connection.ask("append_roster", entry=data, slots=[])
        await gil.sync()
        assert gil.roster.users[gil.user].role == "owner" and gil.roster.is_admitted(gil.id)

    run(conversation())


def test_a_member_may_not_flood_the_roster(relay, run):
    """REQ-107, section 15."""

    async def conversation():
        ann = await found(relay, "Ann")
        bob = await join(relay, await invite(ann, "member", "Bob"), "Bob")
        bob.directory_key = ann.directory_key
        op = {"type": "set_profile", "user": bob.user, "profile": bob.sealed(bob.user, "Bob")}
        with pytest.raises(Refusal) as caught:
            for _ in range(21):
                await bob.order(op)
        assert caught.value.code == "RATE_LIMITED" and 0 < caught.value.fields["retry_after_ms"] <= 60_000

    run(conversation())


def test_a_roster_of_another_root_is_refused():
    """REQ-010: nothing but the id needs to be trusted."""
    data = founding(Person(bytes(32), os.urandom(16), "Eve"), os.urandom(32))
    with pytest.raises(Refused, match="RootKeyMismatch|WrongOrg"):
        Roster(os.urandom(32)).apply(data)
