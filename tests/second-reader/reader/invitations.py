"""Invitations' keys and links: section 6 of the spec."""

import base64

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from .keys import SigningKey, sha256
from .presentation import Malformed
from .structures import ClaimLink, JoinLink

KINDS = {"join": ("mortise://join/", JoinLink), "claim": ("mortise://claim/", ClaimLink)}


def pin_characters(typed):
    """REQ-104: a PIN as somebody types it, to the eight characters that count."""
    pin = typed.upper().translate({ord(c): None for c in " -\t\r\n"}).encode()
    if len(pin) != 8 or set(pin) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"):
        raise ValueError("not a PIN")
    return pin


def invitation_key(invitation, secret, pin=b""):
    """REQ-021, REQ-104."""
    seed = Argon2id(salt=invitation, length=32, iterations=3, lanes=1, memory_cost=65_536).derive(secret + pin)
    return SigningKey(seed)


class BadLink(Exception):
    """A text that is not a whole link of this version. `reason`: Scheme, Version or Damaged."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def write_link(kind, link):
    prefix, structure = KINDS[kind]
    encoded = structure.encode(link)
    return prefix + base64.urlsafe_b64encode(encoded + sha256(encoded)[:4]).decode().rstrip("=")


def read_link(kind, text):
    """REQ-020: the version first, then the 4 bytes of hash, then the rest."""
    prefix, structure = KINDS[kind]
    if not text.startswith(prefix):
        raise BadLink("Scheme")
    body = text[len(prefix) :]
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise BadLink("Damaged") from error
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != body:
        raise BadLink("Damaged")  # not the one encoding of these bytes: padded, or with bits left over
    if data[:1] not in (b"", b"\1"):
        raise BadLink("Version")
    if sha256(data[:-4])[:4] != data[-4:]:
        raise BadLink("Damaged")
    try:
        return structure.decode(data[:-4])
    except Malformed as error:
        raise BadLink("Damaged") from error
