"""Group logs and orders with the real relay, as far as they go without MLS: sections 8, 9 and 11 of the spec."""

import os

import pytest

from reader.certificates import MerkleTree
from reader.connection import Closed
from reader.group import Group, create
from reader.keys import SigningKey, verify_with_label
from reader.logs import private_message, prove, read_header, restart_holds
from reader.organisation import found, invite, join
from reader.structures import MESSAGE_LIMIT, OrderState, RecordBody
from test_roster_conversation import refused


async def two(relay):
    """Ann, an owner, and Bob, a member; both hold the same roster."""
    ann = await found(relay, "Ann")
    bob = await join(relay, await invite(ann, "member", "Bob"), "Bob")
    await ann.sync()
    for person in (ann, bob):
        await person.pushed_entry(bob.admission)
    return ann, bob


def mirror(group):
    """The same group on another device: without MLS, the keys are handed over."""
    other = Group(group.id)
    other.epoch, other.epochs, other.cursor = group.epoch, dict(group.epochs), group.cursor
    return other


def test_a_record_reaches_a_second_connection_at_once(relay, run):
    """REQ-045, REQ-052, REQ-055, REQ-056, REQ-060: Submit, Subscribe, a live push, and the cursor after it."""

    async def conversation():
        ann, bob = await two(relay)
        group = await create(ann)
        here = await group.subscribe(bob)
        assert here == {"type": "subscribed", "head_seq": 1, "head_epoch": 0, "last_readable": 1, "confirmed_epoch": 0}
        (record,) = await group.read(bob, 1)
        assert record["payload"] == group.created and (record["seq"], record["fence"]) == (1, 0)
        payload = group.message(ann)
        answer = await group.submit(ann, payload)
        assert (answer["seq"], answer["fence"]) == (2, 0)
        (record,) = await group.read(bob, 1)
        assert record["payload"] == payload and (record["seq"], record["epoch"]) == (2, 0)
        data = read_header(RecordBody.decode(record["payload"]), group.id, 0)
        assert (data["log_count"], data["log_hash"]) == (0, group.cursor.hash)
        group.met(record)
        assert (await group.submit(ann, group.message(ann)))["seq"] == 3
        assert await group.submit(ann, payload) == answer, "the same bytes, the same answer"
        assert len(await group.read(bob, 1)) == 1

    run(conversation())


def test_refusals_of_a_submission(relay, run):
    """REQ-055 step by step, REQ-046, REQ-047."""

    async def conversation():
        ann, bob = await two(relay)
        group = await create(ann)
        other = await create(bob)
        key, entry = group.epochs[0]
        binding = ann.connection.binding()
        submit, message = group.submit, group.message

        stranger = mirror(group)
        stranger.id = os.urandom(32)
        await refused(stranger.submit(ann, message(ann)), "UNKNOWN_GROUP")
        await refused(submit(ann, message(ann), proof=group.proof(bob.connection, "append")), "ACCESS_DENIED")
        await refused(submit(ann, message(ann), proof=group.proof(ann.connection, "read")), "ACCESS_DENIED")
        forged = prove(SigningKey(os.urandom(32)), binding, group.id, 0, entry, "append")
        await refused(submit(ann, message(ann), proof=forged), "ACCESS_DENIED")
        elsewhere = prove(key, binding, group.id, 0, other.epochs[0][1], "append")
        await refused(submit(ann, message(ann), proof=elsewhere), "ACCESS_DENIED")
        future = prove(key, binding, group.id, 7, entry, "append")
        await refused(submit(ann, message(ann, epoch=7), epoch=7, proof=future), "ACCESS_DENIED")

        await refused(submit(ann, other.message(ann)), "MALFORMED")
        await refused(submit(ann, message(ann, epoch=1)), "MALFORMED")
        await refused(submit(ann, message(ann, content_type="commit")), "MALFORMED")
        bare = private_message(group.id, 0, "application", b"")
        await refused(submit(ann, RecordBody.encode({"type": "message", "message": bare})), "MALFORMED")
        create_again = RecordBody.encode({"type": "create", "access_key": os.urandom(32)})
        await refused(submit(ann, create_again), "MALFORMED")
        await refused(submit(ann, message(ann) + b"\0"), "MALFORMED")
        welcome = {"devices": [bob.id], "welcome": b"w"}
        await refused(submit(ann, message(ann), welcomes=[welcome]), "MALFORMED")
        long = private_message(group.id, 0, "application", group.authenticated_data(ann), bytes(MESSAGE_LIMIT))
        payload = b"\x03" + (0x80000000 | len(long)).to_bytes(4, "big") + long
        await refused(submit(ann, payload), "TOO_LARGE", limit=MESSAGE_LIMIT)

        await refused(submit(ann, message(ann, roster_seq=99)), "ROSTER_FORK")
        await refused(submit(ann, message(ann, roster_hash=os.urandom(32))), "ROSTER_FORK")
        assert (await submit(ann, message(ann)))["seq"] == 2, "nothing of this was appended"

    run(conversation())


def test_a_closed_group_takes_nothing(relay, run):
    """REQ-102: what is there stays readable."""

    async def conversation():
        ann, _ = await two(relay)
        group = await create(ann)
        await ann.order({"type": "close_group", "group": group.id})
        await refused(group.submit(ann, group.message(ann)), "GROUP_CLOSED")
        await group.subscribe(ann)
        assert len(await group.read(ann, 1)) == 1

    run(conversation())


def test_a_restart_ends_a_log(relay, run):
    """REQ-150: nothing comes after it but Restarts of other devices."""

    async def conversation():
        ann, bob = await two(relay)
        group = await create(ann)
        await group.subscribe(bob)
        await group.read(bob, 1)
        forged = group.restart(ann, os.urandom(32), parent_entry_hash=os.urandom(32))
        await refused(group.submit(ann, forged), "MALFORMED")
        await refused(group.submit(bob, group.restart(ann, os.urandom(32))), "MALFORMED")
        ending = group.restart(ann, os.urandom(32))
        answer = await group.submit(ann, ending)
        (record,) = await group.read(bob, 1)
        assert (record["seq"], record["payload"]) == (answer["seq"], ending)
        assert restart_holds(record["payload"], ann.device.mls.public)
        await refused(group.submit(ann, group.message(ann)), "GROUP_RESTARTED", seq=answer["seq"])
        second = group.restart(ann, os.urandom(32))
        await refused(group.submit(ann, second), "GROUP_RESTARTED", seq=answer["seq"])
        assert (await group.submit(bob, group.restart(bob, os.urandom(32))))["seq"] == answer["seq"] + 1

    run(conversation())


def test_a_question_for_a_resync_reaches_the_members(relay, run):
    """REQ-156: at once, and whoever subscribes later."""

    async def conversation():
        ann, bob = await two(relay)
        group = await create(ann)
        await group.subscribe(ann)
        question = {"group": group.id, "key_package": os.urandom(64)}
        assert (await bob.connection.ask("ask_resync", **question))["type"] == "done"
        asked = {"type": "resync_asked", "device": bob.id, **question}
        for _ in range(2):
            while (push := await ann.connection.push())["type"] != "resync_asked":
                pass
            assert push == asked
            await group.subscribe(ann)

    run(conversation())


def test_a_group_is_created_once(relay, run):
    """REQ-055: GROUP_EXISTS, unless the same device sends the same payload again."""

    async def conversation():
        ann, bob = await two(relay)
        group = await create(ann)
        submit = ann.connection.submit
        again = await submit("create_group", group=group.id, payload=group.created)
        assert again["seq"] == 1
        other = RecordBody.encode({"type": "create", "access_key": SigningKey(os.urandom(32)).public})
        await refused(submit("create_group", group=group.id, payload=other), "GROUP_EXISTS")
        await refused(
            bob.connection.submit("create_group", group=group.id, payload=group.created), "GROUP_EXISTS"
        )

    run(conversation())


def test_a_commit_opens_an_epoch_with_a_key_of_its_own(relay, run):
    """REQ-050, REQ-051, REQ-053, REQ-056: the old key reads up to the closing commit; the Welcome waits for Bob."""

    async def conversation():
        ann, bob = await two(relay)
        group = await create(ann)
        next_key = SigningKey(os.urandom(32))
        forged = group.commit(bob, next_key)
        await refused(group.submit(ann, forged), "MALFORMED")
        payload = group.commit(ann, next_key)
        appended = await group.submit(ann, payload, welcomes=[{"devices": [bob.id], "welcome": b"welcome"}])
        await refused(
            group.submit(ann, group.message(ann)), "WRONG_EPOCH", head_epoch=1, head_seq=appended["seq"]
        )
        before = group.cursor.hash
        group.open_epoch(next_key, payload, appended["fence"])
        assert (await group.submit(ann, group.message(ann)))["seq"] == 3

        assert (await bob.connection.push())["type"] == "inbox_waiting"
        inbox = await bob.connection.ask("fetch_inbox", after=0)
        (item,) = inbox["items"]
        assert (item["group"], item["welcome"], item["entry"]["payload"]) == (group.id, b"welcome", payload)
        assert item["log_hash"] == before
        assert (await bob.connection.ask("fetch_inbox", after=item["seq"]))["items"] == []

        there = await group.subscribe(bob, epoch=0)
        assert (there["head_seq"], there["head_epoch"], there["last_readable"]) == (3, 1, 2)
        assert [r["seq"] for r in await group.read(bob, 2)] == [1, 2]
        await group.subscribe(bob, epoch=1)
        assert [r["seq"] for r in await group.read(bob, 2)] == [2, 3]
        wrong = prove(group.epochs[0][0], bob.connection.binding(), group.id, 1, group.epochs[1][1], "read")
        await refused(group.subscribe(bob, epoch=1, proof=wrong), "ACCESS_DENIED")

    run(conversation())


def test_credit_bounds_what_is_pushed(relay, run):
    """REQ-056: no record beyond the credit, and the rest with the next Subscribe."""

    async def conversation():
        ann, bob = await two(relay)
        group = await create(ann)
        for _ in range(4):
            await group.submit(ann, group.message(ann))
        await group.subscribe(bob, credit=2)
        assert [r["seq"] for r in await group.read(bob, 2)] == [1, 2]
        await group.submit(ann, group.message(ann))
        await bob.connection.ask("fetch_slots")
        assert bob.connection.pushes.empty()
        await group.subscribe(bob, after=2, credit=100)
        assert [r["seq"] for r in await group.read(bob, 4)] == [3, 4, 5, 6]

    run(conversation())


def test_an_order_expels_fences_and_is_attested(relay, run):
    """REQ-019, REQ-049, REQ-060 to REQ-065: the main promise, seen from outside."""

    async def conversation():
        ann, bob = await two(relay)
        text = await invite(ann, "auditor", "Cy")
        cy = await join(relay, text, "Cy")
        await ann.sync()
        await bob.sync()
        group = await create(ann)
        await group.subscribe(cy)
        await group.read(cy, 1)
        before = group.message(ann)

        order = await ann.order({"type": "remove_user", "user": bob.user})
        assert await bob.connection.close_code() == "REMOVED"
        await bob.connect(relay, ann.link["relay_key"])
        assert (await bob.hello())["admitted"] == "no"

        push = await cy.pushed_entry(order)
        assert [(p["group"], p["seq"], p["lease"]) for p in push["positions"]] == [(group.id, 1, "yes")]
        await cy.sync()
        assert cy.roster.fence == ann.roster.seq and not cy.roster.is_admitted(bob.id)

        fence = cy.roster.fence
        await refused(group.submit(ann, before), "ROSTER_BEHIND", at_least=fence, head_seq=fence)
        status = await cy.connection.ask("order_status", order=fence)
        nobody = {"attested_by": [], "at_ms": 0, "rotated_at_ms": 0, "confirmed_at_ms": 0}
        assert status["groups"] == [{"group": group.id, "state": "sealed", **nobody}]
        assert status["appended_at_ms"] > 0 and status["closed"] == 1

        await refused(group.submit(cy, group.attestation(cy, fence - 1, "clean")), "UNKNOWN_ORDER")
        forged = group.attestation(ann, fence, "clean")
        await refused(group.submit(cy, forged), "MALFORMED")
        wrong = group.attestation(cy, fence, "clean", entry_hash=os.urandom(32))
        await refused(group.submit(cy, wrong), "MALFORMED")
        answer = await group.submit(cy, group.attestation(cy, fence, "clean"))
        assert answer["fence"] == fence
        (row,) = (await ann.connection.ask("order_status", order=fence))["groups"]
        assert (row["state"], row["attested_by"]) == ("clean", [cy.id])
        evidence = await ann.connection.ask("order_state", order=fence)
        ids = [state["group"] for state in evidence["groups"]]
        signed, key = evidence["state"], ann.roster.policy["statement_key"]
        assert ids == [group.id] and signed["state"]["set_root"] == MerkleTree(ids).root()
        assert verify_with_label(key, "order state", OrderState.encode(signed["state"]), signed["signature"])
        (record,) = await group.read(cy, 1)
        assert RecordBody.decode(record["payload"])["statement"]["verdict"] == "clean"

    run(conversation())


def test_order_status_is_for_those_who_watch_over_it(relay, run):
    """REQ-065."""

    async def conversation():
        ann, bob = await two(relay)
        text = await invite(ann, "member", "Cy")
        cy = await join(relay, text, "Cy")
        await ann.sync()
        await ann.order({"type": "suspend_user", "user": bob.user})
        await refused(cy.connection.ask("order_status", order=ann.roster.fence), "FORBIDDEN")
        await refused(ann.connection.ask("order_status", order=1), "UNKNOWN_ORDER")

    run(conversation())


def test_key_packages_are_given_once_and_the_last_resort_always(relay, run):
    """Section 8: stock, claim, KeyPackagesLow."""

    async def conversation():
        ann, bob = await two(relay)
        stock = [os.urandom(32) for _ in range(5)]
        await bob.connection.ask("publish_key_packages", suite=0x4F, one_time=stock, last_resort=b"last")
        claim = {"suite": 0x4F, "devices": [bob.id, bytes(16)]}
        given = []
        for _ in range(7):
            answer = await ann.connection.ask("claim_key_packages", **claim)
            ((device, package),) = [(p["device"], p["key_package"]) for p in answer["packages"]]
            assert device == bob.id
            given.append(package)
        assert sorted(given[:5]) == sorted(stock) and given[5:] == [b"last", b"last"]
        assert await bob.connection.push() == {"type": "key_packages_low", "left": 4}

    run(conversation())


def test_a_relay_that_stops_says_so(own_relay, run):
    """REQ-049."""

    async def conversation():
        ann = await found(own_relay, "Ann")
        own_relay.stop()
        assert await ann.connection.close_code() == "SHUTTING_DOWN"
        with pytest.raises(Closed, match="SHUTTING_DOWN"):
            await ann.connection.ask("fetch_slots")

    run(conversation())
