"""A group's log as a device sees it that has no MLS: the access keys are made up, the messages' insides are noise."""

import os

from .keys import SigningKey
from .logs import LogCursor, attest, commit_entry, entry_hash, private_message, prove, record_id, restart
from .presentation import Malformed
from .structures import AuthenticatedData, GroupPolicy, RecordBody


class Group:
    """The epochs that this device holds keys of, and the cursor in the newest."""

    def __init__(self, group):
        self.id, self.epoch, self.epochs, self.head_seq = group, -1, {}, 0

    def open_epoch(self, key, payload, fence):
        """At the Create record, or the commit that leads to the epoch."""
        self.epoch += 1
        self.epochs[self.epoch] = key, entry_hash(self.id, self.epoch, payload)
        if self.epoch == 0:
            self.cursor = LogCursor.created(self.epochs[0][1], fence)
        else:
            self.cursor.open(payload, fence)

    def proof(self, connection, purpose, epoch=None):
        epoch = self.epoch if epoch is None else epoch
        key, entry = self.epochs[epoch]
        return prove(key, connection.binding(), self.id, epoch, entry, purpose)

    def authenticated_data(self, person, **changes):
        fields = {
            "version": 1,
            "roster_seq": person.roster.seq,
            "roster_hash": person.roster.hash,
            "log_count": self.cursor.count,
            "log_hash": self.cursor.hash,
        }
        return AuthenticatedData.encode({**fields, **changes})

    def message(self, person, epoch=None, content_type="application", **changes):
        """A message record's payload."""
        epoch = self.epoch if epoch is None else epoch
        data = self.authenticated_data(person, **changes)
        mls = private_message(self.id, epoch, content_type, data, os.urandom(48))
        return RecordBody.encode({"type": "message", "message": mls})

    def commit(self, person, next_key, **changes):
        """A commit record's payload."""
        data = self.authenticated_data(person, **changes)
        mls = private_message(self.id, self.epoch, "commit", data, os.urandom(48))
        body = commit_entry(person.device.mls, person.id, self.id, self.epoch, mls, next_key.public)
        return RecordBody.encode(body)

    def attestation(self, person, order_seq, verdict, **changes):
        key, entry = self.epochs[self.epoch]
        hashes = person.roster.hashes
        statement = {
            "order_seq": order_seq,
            "order_hash": hashes[order_seq - 1],
            "group": self.id,
            "entry_hash": entry,
            "epoch": self.epoch,
            "roster_seq": person.roster.seq,
            "roster_hash": person.roster.hash,
            "verdict": verdict,
            "device": person.id,
        }
        return attest({**statement, **changes}, person.device.mls, key)

    def restart(self, person, successor, **changes):
        """A Restart record's payload, of the present epoch and without a culprit."""
        statement = {
            "group": self.id,
            "parent_epoch": self.epoch,
            "parent_entry_hash": self.epochs[self.epoch][1],
            "cause": {"type": "requested"},
            "successor": successor,
            "roster_seq": person.roster.seq,
            "roster_hash": person.roster.hash,
            "device": person.id,
        }
        return restart({**statement, **changes}, person.device.mls)

    async def submit(self, person, payload, epoch=None, welcomes=(), proof=None):
        epoch = self.epoch if epoch is None else epoch
        return await person.connection.submit(
            "submit",
            group=self.id,
            epoch=epoch,
            payload=payload,
            welcomes=list(welcomes),
            proof=proof or self.proof(person.connection, "append", epoch),
        )

    async def subscribe(self, person, epoch=None, after=0, credit=100, proof=None):
        epoch = self.epoch if epoch is None else epoch
        return await person.connection.live(
            "subscribe",
            group=self.id,
            epoch=epoch,
            after=after,
            credit=credit,
            proof=proof or self.proof(person.connection, "read", epoch),
        )

    async def read(self, person, count):
        """The next `count` records that are pushed for this group; passes over other pushes."""
        records = []
        while len(records) < count:
            push = await person.connection.push()
            if push["type"] == "records" and push["group"] == self.id:
                records += push["records"]
        return records

    def met(self, record):
        """A further record of the present epoch that was read from the log."""
        self.cursor.add(record["payload"], record["fence"])
        return record_id(record["payload"])


def read_policy(data):
    """REQ-094: a GroupPolicy of version 1 in its one encoding, or Malformed."""
    policy = GroupPolicy.decode(data)
    try:
        for name in ("name", "topic"):
            policy[name].decode()
    except UnicodeDecodeError as error:
        raise Malformed("not_utf8") from error
    if len(set(policy["admins"])) != len(policy["admins"]):
        raise Malformed("an admin twice")
    if policy["left"] != sorted(set(policy["left"])):
        raise Malformed("order of those who left")
    return policy


async def create(person):
    """A new group with a made-up access key for epoch 0, opened by the answer's fence."""
    group, key = Group(os.urandom(32)), SigningKey(os.urandom(32))
    payload = RecordBody.encode({"type": "create", "access_key": key.public})
    answer = await person.connection.submit("create_group", group=group.id, payload=payload)
    assert answer["seq"] == 1
    group.created = payload
    group.open_epoch(key, payload, answer["fence"])
    return group
