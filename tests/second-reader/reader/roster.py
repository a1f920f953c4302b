"""The roster: entries decided by sections 5 and 6 of the spec, and the state that they lead to."""

import copy
from dataclasses import dataclass, field

from .authority import ALONE, WITH_ORDER, is_demotion, may
from .keys import hash_with_label, same_key, verify_with_label
from .presentation import Malformed
from .structures import (
    ENTRY_LIMIT,
    OPS_LIMIT,
    PROFILE_LIMIT,
    Checkpoint,
    CheckpointTbs,
    DevicePossession,
    EntryTbs,
    RosterEntry,
)

SIGNATURE_BYTES = 64
MINUTE_MS = 60 * 1000
DAY_MS = 24 * 60 * MINUTE_MS
CLOCK_TOLERANCE_MS = 10 * MINUTE_MS
SUITES = (0x0001, 0x004F)
PREDECESSOR_BYTES = 60
ORDERS = ("suspend_user", "remove_user", "revoke_device")
NO_HASH = bytes(32)

CODES = {
    "TooLarge": 0x0201,
    "WrongVersion": 0x0202,
    "Malformed": 0x0203,
    "UnknownOp": 0x0204,
    "NoOps": 0x0205,
    "TooManyOps": 0x0206,
    "ProfileTooLarge": 0x0207,
    "WrongOrg": 0x0208,
    "Conflict": 0x0210,
    "IssueTime": 0x0211,
    "BadSignature": 0x0220,
    "SignerUnknown": 0x0221,
    "SignerNotAdmitted": 0x0222,
    "RecoverShape": 0x0234,
    "BadPolicy": 0x0280,
    "ForeignStatementKey": 0x0281,
    "RotationShape": 0x0282,
    "GroupClosed": 0x0283,
    "GenesisShape": 0x0230,
    "RootKeyMismatch": 0x0231,
    "GenesisAgain": 0x0232,
    "RootSignsGenesisOnly": 0x0233,
    "Forbidden": 0x0240,
    "AddDeviceNeedsInvitation": 0x0241,
    "UnknownUser": 0x0250,
    "UserExists": 0x0251,
    "UserRemoved": 0x0252,
    "AlreadySuspended": 0x0253,
    "LastOwner": 0x0254,
    "OneUserPerOrder": 0x0255,
    "SuccessorShape": 0x0256,
    "KeyReused": 0x0260,
    "PossessionNotProven": 0x0261,
    "UnknownDevice": 0x0262,
    "DeviceRevoked": 0x0263,
    "InvitationUnknown": 0x0270,
    "InvitationExists": 0x0271,
    "InvitationUsed": 0x0272,
    "InvitationCancelled": 0x0273,
    "InvitationVoided": 0x0274,
    "InvitationExpired": 0x0275,
    "InvitationScope": 0x0276,
}


class Refused(Exception):
    """An entry that breaks a rule; `name` is of the table in section 5.3."""

    def __init__(self, name):
        super().__init__(name)
        self.name, self.code = name, CODES[name]


def refuse_if(condition, name):
    if condition:
        raise Refused(name)


@dataclass
class User:
    role: str
    profile: bytes
    status: str = "active"
    successor: bytes | None = None


@dataclass
class Device:
    user: bytes
    keys: dict
    added: int
    burned: int | None = None


@dataclass
class Invitation:
    user: bytes
    key: bytes
    expires_at_ms: int
    issuer_user: bytes
    issuer_device: bytes
    state: str = "open"


def organisation_id(root_key):
    return hash_with_label("organisation id", root_key)


def device_id(mls_signature_key):
    return hash_with_label("device id", mls_signature_key)[:16]


def entry_hash(entry):
    return hash_with_label("roster entry hash", entry)


def possession(org, op):
    names = DevicePossession.fields.keys() - {"org"}
    return DevicePossession.encode({"org": org, **{name: op[name] for name in names}})


def sign_entry(key, tbs):
    encoded = EntryTbs.encode(tbs)
    return encoded + key.sign_with_label("roster entry", encoded)


def decode_entry(data):
    """The EntryTbs of an entry, or Refused: everything that takes no state."""
    refuse_if(len(data) > ENTRY_LIMIT, "TooLarge")
    try:
        tbs = RosterEntry.decode(data)["tbs"]
    except Malformed as error:
        raise Refused({"wrong_version": "WrongVersion", "unknown_op": "UnknownOp"}.get(error.reason, "Malformed"))
    refuse_if(not tbs["ops"], "NoOps")
    refuse_if(len(tbs["ops"]) > OPS_LIMIT, "TooManyOps")
    refuse_if(any(len(op.get("profile", b"")) > PROFILE_LIMIT for op in tbs["ops"]), "ProfileTooLarge")
    return tbs


@dataclass
class Roster:
    """The state after the entry at `seq`. `org` is known beforehand, from a link, or comes with Genesis."""

    org: bytes | None = None
    seq: int = 0
    hash: bytes = NO_HASH
    fence: int = 0
    policy: dict | None = None
    directory: dict = field(default_factory=dict)
    closed_groups: set = field(default_factory=set)
    root_key: bytes | None = None
    users: dict = field(default_factory=dict)
    devices: dict = field(default_factory=dict)
    invitations: dict = field(default_factory=dict)
    used_keys: set = field(default_factory=set)
    hashes: list = field(default_factory=list)
    _subject: bytes | None = None
    _is_order: bool = False
    _rotated: bool = False

    def apply(self, data, now_ms=None):
        """Takes an entry, all of it or nothing. With `now_ms` it decides as the relay does (REQ-022)."""
        tbs = decode_entry(data)
        after = copy.deepcopy(self)
        after._decide(tbs, data, now_ms)
        after.seq, after.hash = tbs["seq"], entry_hash(data)
        after.hashes.append(after.hash)
        self.__dict__.update(after.__dict__)
        return tbs

    def is_admitted(self, device):
        return device in self.devices and self.devices[device].burned is None

    def _decide(self, tbs, data, now_ms):
        if self.seq:
            refuse_if(tbs["org"] != self.org, "WrongOrg")
        refuse_if((tbs["seq"], tbs["prev_hash"]) != (self.seq + 1, self.hash), "Conflict")
        if now_ms is not None:
            refuse_if(abs(tbs["issued_at_ms"] - now_ms) > CLOCK_TOLERANCE_MS, "IssueTime")
        if self.seq == 0:
            return self._genesis(tbs, data)
        self._check_signature(tbs, data)
        self._subject, self._rotated = None, False
        self._is_order = any(op["type"] in ORDERS for op in tbs["ops"])
        if tbs["signer"]["type"] == "root":
            return self._recover(tbs)
        if tbs["signer"]["type"] == "invitation":
            return self._redeem(tbs)
        for at, op in enumerate(tbs["ops"]):
            self._next = tbs["ops"][at + 1] if at + 1 < len(tbs["ops"]) else None
            self._apply_signed_by_device(op, tbs["signer"]["device"], tbs["seq"])
        # Who goes must not choose the key of those who stay.
        refuse_if(self._rotated and not self.is_admitted(tbs["signer"]["device"]), "RotationShape")
        return None

    def _recover(self, tbs):
        """REQ-103."""
        ops, kinds = tbs["ops"], [op["type"] for op in tbs["ops"]]
        refuse_if("recover" not in kinds, "RootSignsGenesisOnly")
        refuse_if(kinds != ["recover", "add_user", "add_device", "rotate_directory_key"], "RecoverShape")
        _, owner, device, rotation = ops
        refuse_if(owner["role"] != "owner" or owner["user"] != device["user"], "RecoverShape")
        refuse_if(rotation["predecessor"], "RecoverShape")
        self._new_user(owner)
        self._add_device(device, tbs["seq"])
        self._name_directory_key(rotation["commitment"], tbs["seq"])

    def _name_directory_key(self, commitment, seq):
        refuse_if(commitment in self.directory.values(), "RotationShape")
        self.directory[seq] = commitment
        self._rotated = True

    def _check_signature(self, tbs, data):
        signer = tbs["signer"]
        if signer["type"] == "root":
            key = self.root_key
        elif signer["type"] == "device":
            refuse_if(signer["device"] not in self.devices, "SignerUnknown")
            key = self.devices[signer["device"]].keys["mls_signature_key"]
        else:
            refuse_if(signer["invitation"] not in self.invitations, "InvitationUnknown")
            key = self.invitations[signer["invitation"]].key
        self._verify(key, data)

    @staticmethod
    def _verify(key, data):
        covered, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        refuse_if(not verify_with_label(key, "roster entry", covered, signature), "BadSignature")

    def _genesis(self, tbs, data):
        ops = tbs["ops"]
        shape = [op["type"] for op in ops] == ["genesis", "add_user", "add_device"]
        refuse_if(tbs["signer"]["type"] != "root" or not shape, "GenesisShape")
        genesis, owner, device = ops
        refuse_if(owner["role"] != "owner" or owner["user"] != device["user"], "GenesisShape")
        org = organisation_id(genesis["root_key"])
        refuse_if(org != (self.org or org), "RootKeyMismatch")
        refuse_if(tbs["org"] != org, "RootKeyMismatch" if self.org is None else "WrongOrg")
        self._verify(genesis["root_key"], data)
        self.org, self.root_key = org, genesis["root_key"]
        self.policy = {
            "version": 1,
            "suite": genesis["suite"],
            "pin_required": "no",
            "staleness": "warn",
            "staleness_limit_ms": DAY_MS,
            "statement_key": genesis["statement_key"],
        }
        self.directory = {1: genesis["directory_commitment"]}
        self._use_keys(genesis["root_key"], genesis["statement_key"])
        self.users[owner["user"]] = User("owner", owner["profile"])
        self._add_device(device, tbs["seq"])

    def _use_keys(self, *keys):
        for key in map(same_key, keys):
            refuse_if(key in self.used_keys, "KeyReused")
            self.used_keys.add(key)

    def _add_device(self, op, seq):
        keys = {name: op[name] for name in ("mls_signature_key", "transport_key", "seal_key")}
        device = device_id(op["mls_signature_key"])
        content = possession(self.org, op)
        for key, proof in zip(keys.values(), (op["mls_proof"], op["transport_proof"], op["seal_proof"])):
            proven = verify_with_label(key, "device possession", content, proof)
            refuse_if(not proven, "PossessionNotProven")
        self._use_keys(*keys.values())
        refuse_if(device in self.devices, "KeyReused")
        self.devices[device] = Device(op["user"], keys, seq)

    def _redeem(self, tbs):
        invitation = self.invitations[tbs["signer"]["invitation"]]
        self._must_be_open(invitation)
        refuse_if(tbs["issued_at_ms"] >= invitation.expires_at_ms, "InvitationExpired")
        scope = [(op["type"], op.get("user")) for op in tbs["ops"]]
        refuse_if(scope != [("add_device", invitation.user)], "InvitationScope")
        self._add_device(tbs["ops"][0], tbs["seq"])
        invitation.state = "used"
        self.users[invitation.user].status = "active"

    @staticmethod
    def _must_be_open(invitation):
        names = {"used": "InvitationUsed", "cancelled": "InvitationCancelled", "voided": "InvitationVoided"}
        if invitation.state != "open":
            raise Refused(names[invitation.state])

    def _apply_signed_by_device(self, op, signer, seq):
        refuse_if(not self.is_admitted(signer), "SignerNotAdmitted")
        actor = self.devices[signer].user
        refuse_if(self.users[actor].status != "active", "SignerNotAdmitted")
        refuse_if(op["type"] == "genesis", "GenesisAgain")
        refuse_if(op["type"] == "add_device", "AddDeviceNeedsInvitation")
        refuse_if(op["type"] == "recover", "RecoverShape")
        getattr(self, "_" + op["type"])(op, actor, signer, seq)

    def _allow(self, actor, operation, user):
        """The user, if the actor may do this to them."""
        refuse_if(user not in self.users, "UnknownUser")
        refuse_if(self.users[user].status == "removed", "UserRemoved")
        target = "own" if user == actor else self.users[user].role
        refuse_if(not may(self.users[actor].role, operation, target), "Forbidden")
        return self.users[user]

    def _about(self, user):
        """REQ-019: an entry has one subject."""
        refuse_if(self._subject not in (None, user), "OneUserPerOrder")
        self._subject = user

    def _add_user(self, op, actor, _signer, _seq):
        refuse_if(not may(self.users[actor].role, "add_user", op["role"]), "Forbidden")
        self._new_user(op)

    def _new_user(self, op):
        if op["user"] in self.users:
            raise Refused("UserRemoved" if self.users[op["user"]].status == "removed" else "UserExists")
        self.users[op["user"]] = User(op["role"], op["profile"])

    def _set_profile(self, op, actor, _signer, _seq):
        user = self._allow(actor, "set_profile", op["user"])
        user.profile = op["profile"]

    def _set_role(self, op, actor, _signer, _seq):
        user = self._allow(actor, "set_role", op["user"])
        refuse_if(not may(self.users[actor].role, "set_role", op["role"]), "Forbidden")
        old, user.role = user.role, op["role"]
        if is_demotion(old, op["role"]):
            self._void(lambda i: op["user"] in (i.user, i.issuer_user))
        elif old != op["role"]:
            self._void(lambda i: i.user == op["user"] and not self._could_still_issue(i))
        self._keep_an_owner(old == "owner")

    def _could_still_issue(self, invitation):
        own = invitation.user == invitation.issuer_user
        target = "own" if own else self.users[invitation.user].role
        return may(self.users[invitation.issuer_user].role, "invite", target)

    def _suspend_user(self, op, actor, _signer, seq):
        user = self._allow(actor, "suspend_user", op["user"])
        self._about(op["user"])
        refuse_if(user.status == "suspended", "AlreadySuspended")
        self._expel(op["user"], "suspended", seq)

    def _remove_user(self, op, actor, _signer, seq):
        self._allow(actor, "remove_user", op["user"])
        self._about(op["user"])
        self._expel(op["user"], "removed", seq)

    def _name_successor(self, op, actor, _signer, _seq):
        """REQ-391."""
        self._allow(actor, "remove_user", op["user"])
        successor = self.users.get(op["successor"])
        belongs = successor is not None and successor.status == "active" and op["successor"] != op["user"]
        follows = self._next == {"type": "remove_user", "user": op["user"]}
        refuse_if(not belongs or not follows, "SuccessorShape")
        self.users[op["user"]].successor = op["successor"]

    def _expel(self, user, status, seq):
        self.users[user].status, self.fence = status, seq
        for device in self.devices.values():
            if device.user == user and device.burned is None:
                device.burned = seq
        self._keep_an_owner(self.users[user].role == "owner")
        self._void(lambda i: user in (i.user, i.issuer_user))

    def _revoke_device(self, op, actor, _signer, seq):
        refuse_if(op["device"] not in self.devices, "UnknownDevice")
        device = self.devices[op["device"]]
        self._allow(actor, "revoke_device", device.user)
        refuse_if(device.burned is not None, "DeviceRevoked")
        device.burned = self.fence = seq
        self._keep_an_owner(self.users[device.user].role == "owner")
        self._void(lambda i: i.issuer_device == op["device"])

    def _invite(self, op, actor, signer, _seq):
        self._allow(actor, "invite", op["user"])
        refuse_if(op["invitation"] in self.invitations, "InvitationExists")
        self._use_keys(op["key"])
        self.invitations[op["invitation"]] = Invitation(op["user"], op["key"], op["expires_at_ms"], actor, signer)

    def _cancel_invite(self, op, actor, _signer, _seq):
        refuse_if(op["invitation"] not in self.invitations, "InvitationUnknown")
        invitation = self.invitations[op["invitation"]]
        own = actor in (invitation.user, invitation.issuer_user)
        self._allow(actor, "cancel_invite", actor if own else invitation.user)
        self._must_be_open(invitation)
        invitation.state = "cancelled"

    def _set_policy(self, op, actor, _signer, _seq):
        """REQ-100."""
        refuse_if(not may(self.users[actor].role, "set_policy", ALONE), "Forbidden")
        limit = op["staleness_limit_ms"]
        refuse_if(op["version"] != 1 or op["suite"] not in SUITES, "BadPolicy")
        refuse_if(not 20 * MINUTE_MS <= limit <= 365 * DAY_MS, "BadPolicy")
        if op["statement_key"] != self.policy["statement_key"]:
            self._use_keys(op["statement_key"])
        self.policy = {name: value for name, value in op.items() if name != "type"}

    def _rotate_directory_key(self, op, actor, _signer, seq):
        """REQ-101."""
        target = WITH_ORDER if self._is_order else ALONE
        refuse_if(not may(self.users[actor].role, "rotate_directory_key", target), "Forbidden")
        refuse_if(self._rotated or len(op["predecessor"]) != PREDECESSOR_BYTES, "RotationShape")
        self._name_directory_key(op["commitment"], seq)

    def _close_group(self, op, actor, _signer, _seq):
        """REQ-102."""
        refuse_if(not may(self.users[actor].role, "close_group", ALONE), "Forbidden")
        refuse_if(op["group"] in self.closed_groups, "GroupClosed")
        self.closed_groups.add(op["group"])

    def _void(self, concerns):
        for invitation in self.invitations.values():
            if invitation.state == "open" and concerns(invitation):
                invitation.state = "voided"

    def _keep_an_owner(self, lost_one):
        """REQ-017."""
        admitted = {device.user for device in self.devices.values() if device.burned is None}
        left = [u for u in admitted if self.users[u].role == "owner" and self.users[u].status == "active"]
        refuse_if(lost_one and not left, "LastOwner")


def checkpoint(org, head, issued_at_ms, device, key):
    """REQ-105: signed by a device's MLS signature key."""
    tbs = {"org": org, "head": head, "issued_at_ms": issued_at_ms, "device": device}
    return {"tbs": tbs, "signature": key.sign_with_label("checkpoint", CheckpointTbs.encode(tbs))}


def checkpoint_fault(data, chain):
    """Why a checkpoint says nothing: Signer, Beyond, Fork; None where it holds.

    `chain` is the rosters after each entry, by seq, from the empty one on.
    """
    value = Checkpoint.decode(data)
    tbs, head = value["tbs"], value["tbs"]["head"]
    at = chain[min(head["seq"], len(chain) - 1)]
    device = at.devices.get(tbs["device"])
    if tbs["org"] != at.org or device is None or device.burned is not None:
        return "Signer"
    if at.users[device.user].role not in ("owner", "admin"):
        return "Signer"
    covered, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    if not verify_with_label(device.keys["mls_signature_key"], "checkpoint", covered, signature):
        return "Signer"
    if head["seq"] >= len(chain):
        return "Beyond"
    return None if at.hash == head["hash"] else "Fork"


def safety_value(user, mls_signature_keys):
    return hash_with_label("safety number", user + b"".join(sorted(mls_signature_keys)))


def safety_number(one, other):
    """REQ-018; each side is `(user, keys)`."""
    groups = []
    for value in sorted((safety_value(*one), safety_value(*other))):
        for at in range(0, 30, 5):
            groups.append(f"{int.from_bytes(value[at : at + 5], 'big') % 100_000:05d}")
    return " ".join(groups)
