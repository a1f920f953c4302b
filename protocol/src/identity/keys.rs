//! Signature and sealing keys as newtypes that wipe themselves and never print.

use std::fmt;

use ed25519_dalek::Signer as _;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};
use zeroize::Zeroizing;

use super::{DeviceId, OrgId, hash, labelled};

/// A key or a signature that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a point of the curve, or one of small order.
    #[error("not a valid public key")]
    BadKey,
    /// The signature is not by this key over this content.
    #[error("the signature does not verify")]
    BadSignature,
}

/// An Ed25519 public key (RFC 8032), 32 bytes.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    TlsSerialize,
    TlsDeserialize,
    TlsSize,
)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// An Ed25519 signature, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl PublicKey {
    fn dalek(&self) -> Result<ed25519_dalek::VerifyingKey, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| KeyError::BadKey)?;
        if key.is_weak() {
            return Err(KeyError::BadKey);
        }
        Ok(key)
    }

    /// Checks a signature over labelled content (REQ-001); strict, so that every verifier agrees.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(&self, label: &str, content: &[u8], sig: &Signature) -> Result<(), KeyError> {
        let message = labelled(label, content);
        let verify = || {
            self.dalek()?
                .verify_strict(&message, &ed25519_dalek::Signature::from_bytes(&sig.0))
                .map_err(|_| KeyError::BadSignature)
        };
        #[cfg(feature = "simulation")]
        return super::memo::signature((&self.0, &message, &sig.0), verify);
        #[cfg(not(feature = "simulation"))]
        verify()
    }

    /// The device that has this MLS signature key (REQ-012).
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        let mut id = [0; 16];
        id.copy_from_slice(&hash("device id", &self.0).0[..16]);
        DeviceId(id)
    }

    /// The organisation that has this root key (REQ-010).
    #[must_use]
    pub fn org_id(&self) -> OrgId {
        OrgId(hash("organisation id", &self.0).0)
    }
}

/// An Ed25519 secret key. Wiped on drop; no `Clone`, no `Serialize`, redacted `Debug`.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(secret)")
    }
}

impl SigningKey {
    /// Draws a new key.
    pub fn generate(rng: &mut dyn RngCore) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(&seed)
    }

    /// The key of a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, for the encrypted store only.
    #[must_use]
    pub fn dangerous_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs labelled content (REQ-001).
    #[must_use]
    pub fn sign(&self, label: &str, content: &[u8]) -> Signature {
        self.sign_as_is(&labelled(label, content))
    }

    /// Signs bytes that carry a label of their own: MLS's, or TLS's.
    #[must_use]
    pub fn sign_as_is(&self, bytes: &[u8]) -> Signature {
        let signature = self.0.sign(bytes).to_bytes();
        #[cfg(feature = "simulation")]
        super::memo::signed((&self.public().0, bytes, &signature));
        Signature(signature)
    }
}

/// The public half of a sealing key, in Edwards form; HPKE uses its Montgomery form (REQ-013).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    TlsSerialize,
    TlsDeserialize,
    TlsSize,
)]
pub struct SealPublicKey(pub PublicKey);

impl SealPublicKey {
    /// The X25519 public key that HPKE encrypts to.
    ///
    /// # Errors
    /// [`KeyError::BadKey`] when the bytes are no point, or one of small order.
    pub fn x25519(&self) -> Result<x25519_dalek::PublicKey, KeyError> {
        Ok(self.0.dalek()?.to_montgomery().to_bytes().into())
    }
}

/// An X25519 secret key (RFC 7748) that can also prove that it is held (REQ-013).
///
/// Kept as the Ed25519 key with the same scalar; it signs one thing in its life, the proof in `AddDevice`.
pub struct SealSecret(SigningKey);

impl fmt::Debug for SealSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealSecret(secret)")
    }
}

impl SealSecret {
    /// Wraps the key that was made or stored.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self(key)
    }

    /// The signature key with the same scalar.
    #[must_use]
    pub fn proving_key(&self) -> &SigningKey {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> SealPublicKey {
        SealPublicKey(self.0.public())
    }

    /// The X25519 secret that HPKE decrypts with.
    #[must_use]
    pub fn x25519(&self) -> x25519_dalek::StaticSecret {
        x25519_dalek::StaticSecret::from(self.0.0.to_scalar_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    fn key(seed: u64) -> SigningKey {
        SigningKey::generate(&mut rand_chacha::ChaCha12Rng::seed_from_u64(seed))
    }

    /// REQ-001: a signature under one label says nothing under another.
    #[test]
    fn signatures_are_bound_to_label_content_and_key() {
        let k = key(1);
        let sig = k.sign("a", b"x");
        assert_eq!(k.public().verify("a", b"x", &sig), Ok(()));
        for (who, label, content) in [
            (k.public(), "b", &b"x"[..]),
            (k.public(), "a", b"y"),
            (key(2).public(), "a", b"x"),
        ] {
            assert_eq!(
                who.verify(label, content, &sig),
                Err(KeyError::BadSignature)
            );
        }
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let sig = key(1).sign("a", b"x");
        assert_eq!(
            PublicKey(identity).verify("a", b"x", &sig),
            Err(KeyError::BadKey)
        );
    }

    /// REQ-013: the two forms of a sealing key are one key.
    #[test]
    fn both_forms_of_a_sealing_key_agree() {
        let secret = SealSecret::new(key(3));
        let from_secret = x25519_dalek::PublicKey::from(&secret.x25519());
        assert_eq!(secret.public().x25519(), Ok(from_secret));
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", key(1)), "SigningKey(secret)");
        assert_eq!(
            format!("{:?}", SealSecret::new(key(1))),
            "SealSecret(secret)"
        );
    }
}
