"""Labels, hashes and signatures: section 3 of the spec (REQ-001)."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .structures import Labelled

PREFIX = b"Mortise 1.0 "
FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
EDWARDS_D = -121665 * pow(121666, -1, FIELD) % FIELD


def sha256(data):
    return hashlib.sha256(data).digest()


def labelled(label, content):
    return Labelled.encode({"label": PREFIX + label.encode(), "content": content})


def hash_with_label(label, content):
    return sha256(labelled(label, content))


class SigningKey:
    """An Ed25519 key from its 32-byte seed; also the X25519 key with the same scalar (REQ-013)."""

    def __init__(self, seed):
        self._key, self._seed = Ed25519PrivateKey.from_private_bytes(seed), seed
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, message):
        return self._key.sign(message)

    def sign_with_label(self, label, content):
        return self.sign(labelled(label, content))

    def x25519(self):
        return X25519PrivateKey.from_private_bytes(hashlib.sha512(self._seed).digest()[:32])


def _decompress(encoded):
    """The affine point of an encoding (RFC 8032, section 5.1.3), or None where there is none."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, (number & (1 << 255) - 1) % FIELD
    u, v = (y * y - 1) % FIELD, (EDWARDS_D * y * y + 1) % FIELD
    x = u * pow(v, 3, FIELD) * pow(u * pow(v, 7, FIELD), (FIELD - 5) // 8, FIELD) % FIELD
    if v * x * x % FIELD == -u % FIELD:
        x = x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    if v * x * x % FIELD != u:
        return None
    return (FIELD - x if x & 1 != sign else x), y


def _double(point):
    x, y = point
    z = EDWARDS_D * x * x * y * y % FIELD
    return (
        2 * x * y * pow(1 + z, -1, FIELD) % FIELD,
        (y * y + x * x) * pow(1 - z, -1, FIELD) % FIELD,
    )


def is_small_order(encoded):
    """Whether eight times the point is the neutral element; what is no point counts as such."""
    point = _decompress(encoded)
    for _ in range(3):
        point = point and _double(point)
    return point is None or (point[0] % FIELD, point[1] % FIELD) == (0, 1)


def verify(public, message, signature):
    """Strict Ed25519: reduced S, no small order, and the equation without the cofactor, which OpenSSL uses."""
    if int.from_bytes(signature[32:], "little") >= ORDER:
        return False
    if is_small_order(public) or is_small_order(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def verify_with_label(public, label, content, signature):
    return verify(public, labelled(label, content), signature)


def same_key(public):
    """The form in which two keys that differ in the sign bit only are one (REQ-014)."""
    return public[:31] + bytes([public[31] & 0x7F])


def montgomery(edwards):
    """The X25519 form u = (1 + y) / (1 - y) of a key in Edwards form."""
    y = int.from_bytes(same_key(edwards), "little") % FIELD
    u = (1 + y) * pow(1 - y, -1, FIELD) % FIELD
    return X25519PublicKey.from_public_bytes(u.to_bytes(32, "little"))
