"""Sealed profiles and slots: section 7 of the spec."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from .keys import hash_with_label, montgomery
from .structures import SlotInfo

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
ENC_BYTES = 32


def commitment(directory_key):
    return hash_with_label("directory key", directory_key)


def seal_profile(directory_key, org, user, name, nonce):
    return nonce + AESGCM(directory_key).encrypt(nonce, name.encode(), org + user)


def open_profile(directory_key, org, user, profile):
    """The name, or None for a profile that does not open (REQ-030)."""
    if len(profile) < 12:
        return None
    try:
        return AESGCM(directory_key).decrypt(profile[:12], profile[12:], org + user).decode()
    except (InvalidTag, UnicodeDecodeError):
        return None


def _info(org, device):
    return SlotInfo.encode({"label": b"Mortise 1.0 directory slot", "org": org, "device": device})


def seal_slot(directory_key, org, device, filler, seal_key):
    sealed = SUITE.encrypt(directory_key, montgomery(seal_key), info=_info(org, device))
    return {
        "device": device,
        "filler": filler,
        "enc": sealed[:ENC_BYTES],
        "ciphertext": sealed[ENC_BYTES:],
    }


def open_slot(slot, org, private, committed):
    """The directory key, or None where the slot does not open or holds another key (REQ-031)."""
    try:
        key = SUITE.decrypt(slot["enc"] + slot["ciphertext"], private, info=_info(org, slot["device"]))
    except (InvalidTag, ValueError):
        return None
    return key if len(key) == 32 and commitment(key) == committed else None
