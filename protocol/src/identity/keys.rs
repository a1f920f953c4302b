//! Signature and sealing keys as newtypes that wipe themselves and never print.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};
use zeroize::Zeroizing;

use super::{DeviceId, OrgId, hash, labelled, verify_strict};

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
        verify_strict(&self.0, &labelled(label, content), &sig.0)
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
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    /// What is derived from the seed, once; AWS-LC wipes it.
    pair: Ed25519KeyPair,
}

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
    ///
    /// # Panics
    /// When there is no memory for it.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            seed: Zeroizing::new(*seed),
            pair: Ed25519KeyPair::from_seed_unchecked(seed).expect("32 octets are a seed"),
        }
    }

    /// The seed, for the encrypted store only.
    #[must_use]
    pub fn dangerous_seed(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs labelled content (REQ-001).
    #[must_use]
    pub fn sign(&self, label: &str, content: &[u8]) -> Signature {
        self.sign_as_is(&labelled(label, content))
    }

    /// Signs bytes that carry a label of their own: MLS's, or TLS's.
    #[must_use]
    pub fn sign_as_is(&self, bytes: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
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
        let key = ed25519_dalek::SigningKey::from_bytes(&self.0.seed);
        x25519_dalek::StaticSecret::from(key.to_scalar_bytes())
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

    /// RFC 8032 §5.1.6: of one seed, both libraries make the same key and the same signatures.
    #[test]
    fn a_seed_has_one_key_and_one_signature() {
        use ed25519_dalek::Signer as _;
        for n in 0..32 {
            let ours = key(n);
            let other = ed25519_dalek::SigningKey::from_bytes(&ours.dangerous_seed());
            let message = vec![7; usize::try_from(n).expect("small")];
            assert_eq!(ours.public().0, other.verifying_key().to_bytes());
            let signature = other.sign(&message).to_bytes();
            assert_eq!(ours.sign_as_is(&message).0, signature);
        }
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
