//! What keeps names from the relay: profiles sealed under the directory key, and that key sealed to devices.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use hpke_rs::{Hpke, HpkePrivateKey, HpkePublicKey, Mode};
use hpke_rs_rust_crypto::HpkeRustCrypto;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};
use zeroize::{Zeroize, Zeroizing};

use super::{
    DeviceId, Hash, OrgId, RosterSeq, SealPublicKey, SealSecret, UserId, encode, hash, labelled,
};

/// A sealed thing that does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Wrong key, wrong owner, or changed bytes.
    #[error("the sealed value does not open with this key")]
    DoesNotOpen,
    /// The recipient's key is not valid.
    #[error("the recipient's sealing key is not valid")]
    BadKey,
}

/// The key under which an organisation's names are sealed. Wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectoryKey([u8; 32]);

impl Drop for DirectoryKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for DirectoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectoryKey(secret)")
    }
}

/// How long a directory key is when it is sealed under the next one: nonce, key, tag; bytes (REQ-101).
pub const WRAPPED_KEY_BYTES: usize = 12 + 32 + 16;

/// A profile under a directory key: `generation[8] || nonce[12] || AES-256-GCM`, bound to organisation, user and
/// generation (REQ-030).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct SealedProfile(pub VLByteVec);

impl SealedProfile {
    /// The roster entry that named the directory key which it is sealed under; `None` if it is too short to be one.
    #[must_use]
    pub fn generation(&self) -> Option<RosterSeq> {
        let bytes = self.0.as_slice().first_chunk::<8>()?;
        Some(RosterSeq(u64::from_be_bytes(*bytes)))
    }
}

fn profile_aad(org: OrgId, user: UserId, generation: RosterSeq) -> Vec<u8> {
    [&org.0[..], &user.0, &generation.0.to_be_bytes()].concat()
}

fn predecessor_aad(org: OrgId, generation: RosterSeq) -> Vec<u8> {
    let content = [&org.0[..], &generation.0.to_be_bytes()].concat();
    labelled("directory predecessor", &content)
}

impl DirectoryKey {
    /// Draws a key.
    pub fn random(rng: &mut dyn RngCore) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// What the roster commits to, so that a device can tell the right key (REQ-031).
    #[must_use]
    pub fn commitment(&self) -> Hash {
        hash("directory key", &self.0)
    }

    /// The key's bytes, for the encrypted store only.
    #[must_use]
    pub fn dangerous_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    /// The key that was stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&self.0).into())
    }

    /// Seals with a fresh nonce, which comes first.
    fn seal(&self, rng: &mut dyn RngCore, msg: &[u8], aad: &[u8]) -> Vec<u8> {
        let mut nonce = [0; 12];
        rng.fill_bytes(&mut nonce);
        let sealed = self
            .cipher()
            .encrypt(&nonce.into(), Payload { msg, aad })
            .expect("a name or a key is far below AES-GCM's limit");
        [&nonce[..], &sealed].concat()
    }

    fn open(&self, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, msg) = sealed
            .split_first_chunk::<12>()
            .ok_or(SealError::DoesNotOpen)?;
        self.cipher()
            .decrypt(nonce.into(), Payload { msg, aad })
            .map_err(|_| SealError::DoesNotOpen)
    }

    /// Seals a user's display name; `generation` is the roster entry that names this key.
    ///
    /// # Panics
    /// Never: AES-GCM fails only above 2^36 bytes.
    pub fn seal_profile(
        &self,
        rng: &mut dyn RngCore,
        generation: RosterSeq,
        org: OrgId,
        user: UserId,
        name: &str,
    ) -> SealedProfile {
        let aad = profile_aad(org, user, generation);
        let sealed = self.seal(rng, name.as_bytes(), &aad);
        SealedProfile([&generation.0.to_be_bytes()[..], &sealed].concat().into())
    }

    /// Opens a user's display name, if this key is of the generation that the profile names.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn open_profile(
        &self,
        org: OrgId,
        user: UserId,
        sealed: &SealedProfile,
    ) -> Result<String, SealError> {
        let (generation, rest) = sealed
            .0
            .as_slice()
            .split_first_chunk::<8>()
            .ok_or(SealError::DoesNotOpen)?;
        let aad = profile_aad(org, user, RosterSeq(u64::from_be_bytes(*generation)));
        let name = self.open(rest, &aad)?;
        String::from_utf8(name).map_err(|_| SealError::DoesNotOpen)
    }

    /// Seals the key before this one, so that who has this one can open every earlier profile (REQ-101).
    ///
    /// `generation` is this key's. [`WRAPPED_KEY_BYTES`] long.
    ///
    /// # Panics
    /// Never: AES-GCM fails only above 2^36 bytes.
    pub fn wrap_predecessor(
        &self,
        rng: &mut dyn RngCore,
        org: OrgId,
        generation: RosterSeq,
        predecessor: &Self,
    ) -> Vec<u8> {
        self.seal(rng, &predecessor.0, &predecessor_aad(org, generation))
    }

    /// Opens the key before this one, and accepts it only if the roster committed to it (REQ-101).
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn unwrap_predecessor(
        &self,
        org: OrgId,
        generation: RosterSeq,
        wrapped: &[u8],
        commitment: Hash,
    ) -> Result<Self, SealError> {
        let opened = Zeroizing::new(self.open(wrapped, &predecessor_aad(org, generation))?);
        Self::committed(&opened, commitment)
    }

    /// The key with these bytes, if it is the one that the roster commits to.
    fn committed(bytes: &[u8], commitment: Hash) -> Result<Self, SealError> {
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| SealError::DoesNotOpen)?;
        let key = Self(bytes);
        if key.commitment() == commitment {
            Ok(key)
        } else {
            Err(SealError::DoesNotOpen)
        }
    }
}

/// The directory key, sealed by one device (`filler`) to another (REQ-031).
#[derive(
    Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TlsSerialize, TlsDeserialize, TlsSize,
)]
pub struct Slot {
    /// Whom it is for.
    pub device: DeviceId,
    /// Who filled it.
    pub filler: DeviceId,
    /// The roster entry that named the directory key in it.
    pub generation: RosterSeq,
    /// HPKE's encapsulated key (RFC 9180, DHKEM X25519).
    pub enc: VLByteVec,
    /// HPKE's ciphertext over the 32-byte directory key.
    pub ciphertext: VLByteVec,
}

fn hpke() -> Hpke<HpkeRustCrypto> {
    use hpke_rs::hpke_types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
    Hpke::new(
        Mode::Base,
        KemAlgorithm::DhKem25519,
        KdfAlgorithm::HkdfSha256,
        AeadAlgorithm::Aes128Gcm,
    )
}

fn slot_info(org: OrgId, device: DeviceId, generation: RosterSeq) -> Vec<u8> {
    #[derive(TlsSerialize, TlsSize)]
    struct Info {
        label: VLByteVec,
        org: OrgId,
        device: DeviceId,
        generation: RosterSeq,
    }
    encode(&Info {
        label: VLByteVec::from(b"Mortise 1.0 directory slot".to_vec()),
        org,
        device,
        generation,
    })
}

/// Seals the directory key of a generation to a device.
///
/// # Errors
/// [`SealError::BadKey`].
pub fn seal_slot(
    org: OrgId,
    (device, to): (DeviceId, SealPublicKey),
    filler: DeviceId,
    generation: RosterSeq,
    key: &DirectoryKey,
) -> Result<Slot, SealError> {
    let sealed = seal_to(to, &slot_info(org, device, generation), &key.0)?;
    Ok(Slot {
        device,
        filler,
        generation,
        enc: sealed.enc,
        ciphertext: sealed.ciphertext,
    })
}

/// Opens a slot and accepts it only if it holds the key that the roster commits to for the slot's generation (REQ-031).
///
/// # Errors
/// [`SealError::DoesNotOpen`].
pub fn open_slot(
    org: OrgId,
    slot: &Slot,
    secret: &SealSecret,
    commitment: Hash,
) -> Result<DirectoryKey, SealError> {
    let info = slot_info(org, slot.device, slot.generation);
    let opened = open_hpke(secret, &info, &slot.enc, &slot.ciphertext)?;
    DirectoryKey::committed(&opened, commitment)
}

/// Something sealed to one device by HPKE (RFC 9180), in the mode and suite of REQ-031.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Sealed {
    /// HPKE's encapsulated key.
    pub enc: VLByteVec,
    /// HPKE's ciphertext.
    pub ciphertext: VLByteVec,
}

impl Sealed {
    /// Both parts together, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.enc.as_slice().len() + self.ciphertext.as_slice().len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Seals to a device; `info` says what it is for, and must be the same when it is opened.
///
/// # Errors
/// [`SealError::BadKey`].
pub fn seal_to(to: SealPublicKey, info: &[u8], plain: &[u8]) -> Result<Sealed, SealError> {
    let to = to.x25519().map_err(|_| SealError::BadKey)?;
    let (enc, ciphertext) = hpke()
        .seal(
            &HpkePublicKey::new(to.as_bytes().to_vec()),
            info,
            &[],
            plain,
            None,
            None,
            None,
        )
        .map_err(|_| SealError::BadKey)?;
    Ok(Sealed {
        enc: enc.into(),
        ciphertext: ciphertext.into(),
    })
}

/// Opens what was sealed to this device for `info`.
///
/// # Errors
/// [`SealError::DoesNotOpen`].
pub fn open_sealed(
    secret: &SealSecret,
    info: &[u8],
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    open_hpke(secret, info, &sealed.enc, &sealed.ciphertext)
}

fn open_hpke(
    secret: &SealSecret,
    info: &[u8],
    enc: &VLByteVec,
    ciphertext: &VLByteVec,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    hpke()
        .open(
            enc.as_slice(),
            &HpkePrivateKey::new(secret.x25519().to_bytes().to_vec()),
            info,
            &[],
            ciphertext.as_slice(),
            None,
            None,
            None,
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::DoesNotOpen)
}

#[cfg(test)]
mod tests {
    use super::super::SigningKey;
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    const ORG: OrgId = OrgId([1; 32]);

    /// REQ-030: a profile opens for its own user only, and never changed.
    #[test]
    fn profiles_are_bound_to_their_user() {
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(1);
        let key = DirectoryKey::random(&mut rng);
        let (ann, bob) = (UserId([1; 16]), UserId([2; 16]));
        let sealed = key.seal_profile(&mut rng, RosterSeq(3), ORG, ann, "Ann");
        assert_eq!(sealed.generation(), Some(RosterSeq(3)));
        assert_eq!(key.open_profile(ORG, ann, &sealed), Ok("Ann".into()));
        assert!(key.open_profile(ORG, bob, &sealed).is_err());
        let other = DirectoryKey::random(&mut rng);
        assert!(other.open_profile(ORG, ann, &sealed).is_err());
        let mut bytes = sealed.0.as_slice().to_vec();
        bytes[7] = 4;
        let moved = SealedProfile(bytes.into());
        assert!(key.open_profile(ORG, ann, &moved).is_err());
    }

    /// REQ-101: who has a key opens the one before it, and nothing else passes for it.
    #[test]
    fn a_key_opens_its_predecessor() {
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(3);
        let (old, new) = (
            DirectoryKey::random(&mut rng),
            DirectoryKey::random(&mut rng),
        );
        let wrapped = new.wrap_predecessor(&mut rng, ORG, RosterSeq(1), &old);
        assert_eq!(wrapped.len(), WRAPPED_KEY_BYTES);
        let commitment = old.commitment();
        let open = |key: &DirectoryKey, org, generation, commitment| {
            key.unwrap_predecessor(org, RosterSeq(generation), &wrapped, commitment)
        };
        assert_eq!(open(&new, ORG, 1, commitment), Ok(old.clone()));
        assert!(open(&old, ORG, 1, commitment).is_err());
        assert!(open(&new, OrgId([2; 32]), 1, commitment).is_err());
        assert!(open(&new, ORG, 2, commitment).is_err());
        assert!(open(&new, ORG, 1, new.commitment()).is_err());
    }

    /// REQ-031: a slot opens for its device, and only with the key that the roster names.
    #[test]
    fn slots_open_for_their_device_and_the_right_key() {
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(2);
        let key = DirectoryKey::random(&mut rng);
        let secret = SealSecret::new(SigningKey::generate(&mut rng));
        let (device, filler) = (DeviceId([1; 16]), DeviceId([2; 16]));
        let slot =
            seal_slot(ORG, (device, secret.public()), filler, RosterSeq(2), &key).expect("seal");
        assert_eq!(
            open_slot(ORG, &slot, &secret, key.commitment()),
            Ok(key.clone())
        );
        assert!(open_slot(ORG, &slot, &secret, Hash([0; 32])).is_err());
        let other = SealSecret::new(SigningKey::generate(&mut rng));
        assert!(open_slot(ORG, &slot, &other, key.commitment()).is_err());
        let moved = Slot {
            generation: RosterSeq(1),
            ..slot
        };
        assert!(open_slot(ORG, &moved, &secret, key.commitment()).is_err());
    }
}
