"""An organisation as its devices act it out: founding, inviting, joining, as section 6 says step by step."""

import os

from . import names
from .connection import Refusal, open_connection
from .device import DeviceKeys, entry, genesis, now_ms
from .invitations import invitation_key, pin_characters, read_link, write_link
from .keys import SigningKey
from .roster import Roster, checkpoint, entry_hash, organisation_id

SUITE = 0x004F
DAY_MS = 24 * 60 * 60 * 1000


class Person:
    """A user's one device, connected, with the roster that it verified itself."""

    def __init__(self, org, user, name):
        self.org, self.user, self.name = org, user, name
        self.device, self.roster, self.connection = DeviceKeys(), Roster(org), None
        self.directory_key, self.entries = None, []

    @property
    def id(self):
        return self.device.id

    def head(self):
        return {"seq": self.roster.seq, "hash": self.roster.hash}

    def take(self, data):
        self.roster.apply(data)
        self.entries.append(data)

    async def connect(self, relay, pin):
        """A connection of this device; another one replaces nothing of the state."""
        self.connection = await open_connection(relay.address, pin, self.device.tls)

    async def hello(self):
        return await self.connection.live("hello", org=self.org, roster_seq=self.roster.seq)

    async def sync(self):
        """Fetches the roster from the head that is held, page by page, verifying each entry."""
        while True:
            page = await self.connection.ask("fetch_roster", after=self.roster.seq)
            if not page["entries"]:
                return page["head"]
            for data in page["entries"]:
                self.take(data)

    def sign(self, *ops, head=None, issued_at_ms=None):
        signer = {"type": "device", "device": self.id}
        return entry(self.device.mls, signer, self.org, head or self.head(), list(ops), issued_at_ms)

    async def order(self, *ops, slots=()):
        """Signs and appends an entry, takes it into the own roster, and meets it among the pushes."""
        data = self.sign(*ops)
        answer = await self.connection.ask("append_roster", entry=data, slots=list(slots))
        self.take(data)
        assert answer["head"] == self.head()
        await self.pushed_entry(data)
        return data

    async def pushed_entry(self, data):
        """The push of this entry; entries that are pushed before it are passed over."""
        while True:
            push = await self.connection.push()
            if push["type"] == "roster_entry" and push["entry"] == data:
                return push

    def sealed(self, user, name):
        """A name under the newest directory key, which this device holds."""
        return names.seal_profile(self.directory_key, self.generation(), self.org, user, name, os.urandom(12))

    def generation(self):
        return max(self.roster.directory, default=1)

    def slot_for(self, device, key=None, generation=None):
        """A slot of the newest directory key, or of one that is about to be named."""
        seal_key = self.roster.devices[device].keys["seal_key"]
        return names.seal_slot(
            key or self.directory_key, generation or self.generation(), self.org, device, self.id, seal_key
        )

    def open_slots(self, slots):
        """The newest directory key from the first slot that holds it."""
        committed, private = self.roster.directory[self.generation()], self.device.seal.x25519()
        opened = (names.open_slot(slot, self.org, private, committed) for slot in slots)
        return next((key for key in opened if key), None)

    def rotation(self, before):
        """A RotateDirectoryKey for the next entry, after `before`; the new key is this device's from now on."""
        self.directory_key = os.urandom(32)
        generation = self.roster.seq + 1
        sealed = names.seal_predecessor(self.directory_key, self.org, generation, before, os.urandom(12))
        return {
            "type": "rotate_directory_key",
            "commitment": names.commitment(self.directory_key),
            "predecessor": sealed,
        }

    def checkpoint(self, head=None, issued_at_ms=None):
        """REQ-105."""
        at = now_ms() if issued_at_ms is None else issued_at_ms
        return checkpoint(self.org, head or self.head(), at, self.id, self.device.mls)


async def found(relay, name):
    """The first owner, connected and admitted, by a claim link of the relay's."""
    link = read_link("claim", relay.claim())
    assert link["relay_key"] == relay.pin
    root, user = SigningKey(os.urandom(32)), os.urandom(16)
    owner = Person(organisation_id(root.public), user, name)
    owner.link, owner.root, owner.directory_key = link, root, os.urandom(32)
    commitment = names.commitment(owner.directory_key)
    owner.genesis = genesis(
        root, link["statement_key"], SUITE, commitment, user, owner.sealed(user, name), owner.device
    )
    await owner.connect(relay, link["relay_key"])
    answer = await owner.connection.ask("found", claim_token=link["token"], entry=owner.genesis)
    owner.take(owner.genesis)
    assert answer["head"] == owner.head()
    hello = await owner.hello()
    assert (hello["admitted"], hello["head"]) == ("yes", owner.head())
    return owner


async def invite(host, role, name, lifetime_ms=DAY_MS, pin=""):
    """A new user and the link for them, in one entry."""
    user, invitation, secret = os.urandom(16), os.urandom(16), os.urandom(32)
    pinned = host.head()
    await host.order(
        {"type": "add_user", "user": user, "role": role, "profile": host.sealed(user, name)},
        {
            "type": "invite",
            "invitation": invitation,
            "user": user,
            "key": invitation_key(invitation, secret, pin_characters(pin) if pin else b"").public,
            "expires_at_ms": now_ms() + lifetime_ms,
        },
    )
    return write_link(
        "join",
        {
            "version": 1,
            "relay": b"127.0.0.1:4433",
            "relay_key": host.link["relay_key"],
            "org": host.org,
            "pin_seq": pinned["seq"],
            "pin_hash": pinned["hash"],
            "user": user,
            "invitation": invitation,
            "secret": secret,
            "needs_pin": "yes" if pin else "no",
        },
    )


async def join(relay, text, name, pin=""):
    """Section 6, steps 1 to 5."""
    link = read_link("join", text)
    person = Person(link["org"], link["user"], name)
    person.link = link
    assert link["needs_pin"] == ("yes" if pin else "no")
    key = invitation_key(link["invitation"], link["secret"], pin_characters(pin) if pin else b"")
    await person.connect(relay, link["relay_key"])
    hello = await person.hello()
    assert hello["admitted"] == "no"
    pinned = await person.connection.ask("fetch_roster", after=link["pin_seq"] - 1)
    assert entry_hash(pinned["entries"][0]) == link["pin_hash"]
    signer = {"type": "invitation", "invitation": link["invitation"]}
    add_device, head = person.device.add_device(link["org"], link["user"]), hello["head"]
    while True:
        person.admission = entry(key, signer, link["org"], head, [add_device])
        try:
            await person.connection.ask("append_roster", entry=person.admission, slots=[])
            break
        except Refusal as refusal:
            if refusal.code != "ROSTER_CONFLICT":
                raise
            head = refusal.fields["head"]
    await person.sync()
    assert person.roster.hashes[link["pin_seq"] - 1] == link["pin_hash"]
    assert person.roster.hashes[head["seq"] - 1] == head["hash"]
    assert person.entries[head["seq"]] == person.admission
    return person
