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

use super::{DeviceId, Hash, OrgId, SealPublicKey, SealSecret, UserId, encode, hash};

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

/// A profile under the directory key: `nonce[12] || AES-256-GCM`, bound to organisation and user (REQ-030).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct SealedProfile(pub VLByteVec);

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

    /// Seals a user's display name.
    ///
    /// # Panics
    /// Never: AES-GCM fails only above 2^36 bytes.
    pub fn seal_profile(
        &self,
        rng: &mut dyn RngCore,
        org: OrgId,
        user: UserId,
        name: &str,
    ) -> SealedProfile {
        let mut nonce = [0; 12];
        rng.fill_bytes(&mut nonce);
        let aad = [&org.0[..], &user.0].concat();
        let payload = Payload {
            msg: name.as_bytes(),
            aad: &aad,
        };
        let sealed = self
            .cipher()
            .encrypt(&nonce.into(), payload)
            .expect("a name is far below AES-GCM's limit");
        SealedProfile([&nonce[..], &sealed].concat().into())
    }

    /// Opens a user's display name.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn open_profile(
        &self,
        org: OrgId,
        user: UserId,
        sealed: &SealedProfile,
    ) -> Result<String, SealError> {
        let (nonce, msg) = sealed
            .0
            .as_slice()
            .split_first_chunk::<12>()
            .ok_or(SealError::DoesNotOpen)?;
        let aad = [&org.0[..], &user.0].concat();
        let name = self
            .cipher()
            .decrypt(nonce.into(), Payload { msg, aad: &aad })
            .map_err(|_| SealError::DoesNotOpen)?;
        String::from_utf8(name).map_err(|_| SealError::DoesNotOpen)
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

fn slot_info(org: OrgId, device: DeviceId) -> Vec<u8> {
    #[derive(TlsSerialize, TlsSize)]
    struct Info {
        label: VLByteVec,
        org: OrgId,
        device: DeviceId,
    }
    encode(&Info {
        label: VLByteVec::from(b"Mortise 1.0 directory slot".to_vec()),
        org,
        device,
    })
}

/// Seals the directory key to a device.
///
/// # Errors
/// [`SealError::BadKey`].
pub fn seal_slot(
    org: OrgId,
    device: DeviceId,
    to: SealPublicKey,
    filler: DeviceId,
    key: &DirectoryKey,
) -> Result<Slot, SealError> {
    let to = to.x25519().map_err(|_| SealError::BadKey)?;
    let (enc, ciphertext) = hpke()
        .seal(
            &HpkePublicKey::new(to.as_bytes().to_vec()),
            &slot_info(org, device),
            &[],
            &key.0,
            None,
            None,
            None,
        )
        .map_err(|_| SealError::BadKey)?;
    Ok(Slot {
        device,
        filler,
        enc: enc.into(),
        ciphertext: ciphertext.into(),
    })
}

/// Opens a slot and accepts it only if it holds the key that the roster commits to (REQ-031).
///
/// # Errors
/// [`SealError::DoesNotOpen`].
pub fn open_slot(
    org: OrgId,
    slot: &Slot,
    secret: &SealSecret,
    commitment: Hash,
) -> Result<DirectoryKey, SealError> {
    let opened = hpke()
        .open(
            slot.enc.as_slice(),
            &HpkePrivateKey::new(secret.x25519().to_bytes().to_vec()),
            &slot_info(org, slot.device),
            &[],
            slot.ciphertext.as_slice(),
            None,
            None,
            None,
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::DoesNotOpen)?;
    let bytes = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| SealError::DoesNotOpen)?;
    let key = DirectoryKey(bytes);
    if key.commitment() == commitment {
        Ok(key)
    } else {
        Err(SealError::DoesNotOpen)
    }
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
        let sealed = key.seal_profile(&mut rng, ORG, ann, "Ann");
        assert_eq!(key.open_profile(ORG, ann, &sealed), Ok("Ann".into()));
        assert!(key.open_profile(ORG, bob, &sealed).is_err());
        let other = DirectoryKey::random(&mut rng);
        assert!(other.open_profile(ORG, ann, &sealed).is_err());
    }

    /// REQ-031: a slot opens for its device, and only with the key that the roster names.
    #[test]
    fn slots_open_for_their_device_and_the_right_key() {
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(2);
        let key = DirectoryKey::random(&mut rng);
        let secret = SealSecret::new(SigningKey::generate(&mut rng));
        let (device, filler) = (DeviceId([1; 16]), DeviceId([2; 16]));
        let slot = seal_slot(ORG, device, secret.public(), filler, &key).expect("seal");
        assert_eq!(
            open_slot(ORG, &slot, &secret, key.commitment()),
            Ok(key.clone())
        );
        assert!(open_slot(ORG, &slot, &secret, Hash([0; 32])).is_err());
        let other = SealSecret::new(SigningKey::generate(&mut rng));
        assert!(open_slot(ORG, &slot, &other, key.commitment()).is_err());
    }
}
