"""Group logs without MLS: section 9, and the attestations of section 11."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from .keys import hash_with_label, sha256, verify_with_label
from .presentation import Malformed
from .structures import (
    AccessTbs,
    AttestationStatement,
    AuthenticatedData,
    ChainInput,
    CommitEntryTbs,
    EntryHashInput,
    KdfLabel,
    PrivateMessage,
    RecordBody,
    RestartStatement,
)

MLS_EXPORTER_LABEL = b"mortise relay access"
EXPORTER_LABEL = b"EXPORTER-mortise-access"


def record_id(payload):
    """REQ-042."""
    return sha256(payload)


def entry_hash(group, epoch, payload):
    """REQ-043."""
    return hash_with_label(
        "entry", EntryHashInput.encode({"group": group, "epoch": epoch, "payload_hash": sha256(payload)})
    )


def chain(previous, record, fence):
    return hash_with_label(
        "log", ChainInput.encode({"previous": previous, "record": record, "fence": fence})
    )


@dataclass
class LogCursor:
    """REQ-044."""

    hash: bytes
    count: int = 0

    @classmethod
    def created(cls, entry, fence):
        """At the Create record of this entry hash."""
        return cls(chain(entry, entry, fence))

    def open(self, payload, fence):
        """At the commit that opens the next epoch: the hash goes on."""
        self.hash, self.count = chain(self.hash, record_id(payload), fence), 0

    def add(self, payload, fence):
        self.hash, self.count = chain(self.hash, record_id(payload), fence), self.count + 1


def _expand_with_label(secret, label, context):
    """RFC 9420, section 8, for SHA-256 and 32 bytes of output."""
    info = KdfLabel.encode({"length": 32, "label": b"MLS 1.0 " + label, "context": context})
    return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(secret)


def access_key_seed(exporter_secret, group):
    """REQ-050, from an epoch's exporter_secret: MLS-Exporter of RFC 9420, section 8.5."""
    derived = _expand_with_label(exporter_secret, MLS_EXPORTER_LABEL, b"")
    return _expand_with_label(derived, b"exported", sha256(group))


def access_tbs(binding, group, epoch, entry, purpose):
    return AccessTbs.encode(
        {"binding": binding, "group": group, "epoch": epoch, "entry_hash": entry, "purpose": purpose}
    )


def prove(key, binding, group, epoch, entry, purpose):
    """REQ-052."""
    return {
        "entry_hash": entry,
        "signature": key.sign_with_label("access", access_tbs(binding, group, epoch, entry, purpose)),
    }


def proof_holds(proof, public, binding, group, epoch, entry, purpose):
    return proof["entry_hash"] == entry and verify_with_label(
        public, "access", access_tbs(binding, group, epoch, entry, purpose), proof["signature"]
    )


def private_message(group, epoch, content_type, authenticated_data, sealed=bytes(48)):
    """A PrivateMessage whose public header is right and whose secret part is not MLS at all."""
    return PrivateMessage.encode(
        {
            "version": "mls10",
            "wire_format": "mls_private_message",
            "group_id": group,
            "epoch": epoch,
            "content_type": content_type,
            "authenticated_data": authenticated_data,
            "encrypted_sender_data": bytes(28),
            "ciphertext": sealed,
        }
    )


def read_header(record, group, epoch):
    """The AuthenticatedData of a commit or message record, or Malformed: what REQ-046 asks."""
    return check_header(record["type"], record["commit" if record["type"] == "commit" else "message"], group, epoch)


def check_header(record_type, message, group, epoch):
    header = PrivateMessage.decode(message)
    if header["wire_format"] != "mls_private_message":
        raise Malformed("bad_header", "not a PrivateMessage")
    if (header["group_id"], header["epoch"]) != (group, epoch):
        raise Malformed("bad_header", "another group or epoch")
    allowed = ("commit",) if record_type == "commit" else ("application", "proposal")
    if header["content_type"] not in allowed:
        raise Malformed("bad_header", "content type")
    return AuthenticatedData.decode(header["authenticated_data"])


def commit_entry(key, device, group, epoch, commit, next_access_key):
    """REQ-051: a CommitEntry's record body."""
    tbs = commit_tbs(group, epoch, commit, next_access_key, device)
    return {
        "type": "commit",
        "commit": commit,
        "next_access_key": next_access_key,
        "device": device,
        "signature": key.sign_with_label("commit entry", tbs),
    }


def commit_tbs(group, epoch, commit, next_access_key, device):
    return CommitEntryTbs.encode(
        {
            "group": group,
            "epoch": epoch,
            "commit_hash": sha256(commit),
            "next_access_key": next_access_key,
            "device": device,
        }
    )


def commit_entry_holds(body, public, group, epoch):
    tbs = commit_tbs(group, epoch, body["commit"], body["next_access_key"], body["device"])
    return verify_with_label(public, "commit entry", tbs, body["signature"])


def attest(statement, device_key, epoch_key):
    """REQ-064: an attestation's record payload."""
    encoded = AttestationStatement.encode(statement)
    return RecordBody.encode(
        {
            "type": "attestation",
            "statement": statement,
            "device_signature": device_key.sign_with_label("attestation", encoded),
            "access_signature": epoch_key.sign_with_label("attestation access", encoded),
        }
    )


def restart(statement, device_key):
    """REQ-150: a Restart's record payload."""
    signature = device_key.sign_with_label("restart", RestartStatement.encode(statement))
    return RecordBody.encode({"type": "restart", "statement": statement, "signature": signature})


def restart_holds(payload, device_public):
    return verify_with_label(device_public, "restart", payload[1:-64], payload[-64:])


def attestation_holds(payload, device_public, epoch_public):
    """Over the bytes as received: a record's payload is its type, the statement, and two signatures."""
    statement, device_signature, access_signature = payload[1:-128], payload[-128:-64], payload[-64:]
    return verify_with_label(
        device_public, "attestation", statement, device_signature
    ) and verify_with_label(epoch_public, "attestation access", statement, access_signature)
