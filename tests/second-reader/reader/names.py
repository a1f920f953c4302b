"""Sealed profiles and slots: section 7 of the spec."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from .keys import hash_with_label, labelled, montgomery
from .structures import PredecessorAad, SlotInfo

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
ENC_BYTES = 32


def commitment(directory_key):
    return hash_with_label("directory key", directory_key)


def seal_profile(directory_key, generation, org, user, name, nonce):
    named = generation.to_bytes(8, "big")
    return named + nonce + AESGCM(directory_key).encrypt(nonce, name.encode(), org + user + named)


def open_profile(directory_key, org, user, profile):
    """The name, or None for a profile that does not open with this key (REQ-030)."""
    named, nonce, sealed = profile[:8], profile[8:20], profile[20:]
    if len(nonce) < 12:
        return None
    try:
        return AESGCM(directory_key).decrypt(nonce, sealed, org + user + named).decode()
    except (InvalidTag, UnicodeDecodeError):
        return None


def _predecessor_aad(org, generation):
    return labelled("directory predecessor", PredecessorAad.encode({"org": org, "generation": generation}))


def seal_predecessor(directory_key, org, generation, before, nonce):
    """REQ-101: the key before, under the new one of this generation."""
    return nonce + AESGCM(directory_key).encrypt(nonce, before, _predecessor_aad(org, generation))


def open_predecessor(directory_key, org, generation, predecessor, committed):
    """The key before, or None where it does not open or is another one."""
    try:
        key = AESGCM(directory_key).decrypt(
            predecessor[:12], predecessor[12:], _predecessor_aad(org, generation)
        )
    except (InvalidTag, ValueError):
        return None
    return key if len(key) == 32 and commitment(key) == committed else None


def _info(org, device, generation):
    label = b"Mortise 1.0 directory slot"
    return SlotInfo.encode({"label": label, "org": org, "device": device, "generation": generation})


def seal_slot(directory_key, generation, org, device, filler, seal_key):
    sealed = SUITE.encrypt(directory_key, montgomery(seal_key), info=_info(org, device, generation))
    return {
        "device": device,
        "filler": filler,
        "generation": generation,
        "enc": sealed[:ENC_BYTES],
        "ciphertext": sealed[ENC_BYTES:],
    }


def open_slot(slot, org, private, committed):
    """The directory key, or None where the slot does not open or holds another key (REQ-031)."""
    info = _info(org, slot["device"], slot["generation"])
    try:
        key = SUITE.decrypt(slot["enc"] + slot["ciphertext"], private, info=info)
    except (InvalidTag, ValueError):
        return None
    return key if len(key) == 32 and commitment(key) == committed else None
