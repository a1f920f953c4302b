"""A device's keys, and the roster entries that it signs: sections 3, 5 and 6 of the spec."""

import os
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .keys import SigningKey
from .roster import NO_HASH, device_id, organisation_id, possession, sign_entry


def now_ms():
    return time.time_ns() // 1_000_000


class DeviceKeys:
    """REQ-013: three keys of its own."""

    def __init__(self):
        self.mls, self.seal = SigningKey(os.urandom(32)), SigningKey(os.urandom(32))
        seed = os.urandom(32)
        self.transport, self.tls = SigningKey(seed), Ed25519PrivateKey.from_private_bytes(seed)
        self.id = device_id(self.mls.public)

    def add_device(self, org, user):
        """The AddDevice operation with its three proofs."""
        op = {
            "type": "add_device",
            "user": user,
            "mls_signature_key": self.mls.public,
            "transport_key": self.transport.public,
            "seal_key": self.seal.public,
        }
        content = possession(org, op)
        for name, key in (("mls", self.mls), ("transport", self.transport), ("seal", self.seal)):
            op[name + "_proof"] = key.sign_with_label("device possession", content)
        return op


def entry(key, signer, org, head, ops, issued_at_ms=None):
    """An entry on `head`, a RosterHead or None for Genesis."""
    tbs = {
        "version": 1,
        "org": org,
        "seq": head["seq"] + 1 if head else 1,
        "prev_hash": head["hash"] if head else NO_HASH,
        "issued_at_ms": now_ms() if issued_at_ms is None else issued_at_ms,
        "signer": signer,
        "ops": ops,
    }
    return sign_entry(key, tbs)


def genesis(root, statement_key, suite, directory_commitment, user, profile, device):
    org = organisation_id(root.public)
    ops = [
        {
            "type": "genesis",
            "root_key": root.public,
            "statement_key": statement_key,
            "suite": suite,
            "directory_commitment": directory_commitment,
        },
        {"type": "add_user", "user": user, "role": "owner", "profile": profile},
        device.add_device(org, user),
    ]
    return entry(root, {"type": "root"}, org, None, ops)
