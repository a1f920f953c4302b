//! The other stack's cryptography: its own for suite 0x0001, and its own with another KEM for 0x004F.
//!
//! mls-rs has no suite 0x004F: its hybrid has private code points and other parameters. What the suite asks for beyond
//! 0x0001 is one KEM (X-Wing, draft-ietf-mls-pq-ciphersuites), so HPKE's key schedule, the AEAD, hash and signatures stay
//! mls-rs's own, and the KEM alone is the one that openmls's provider has.

use hpke_rs_crypto::types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use hpke_rs_crypto::{HpkeCrypto, error::Error as KemError};
use hpke_rs_rust_crypto::HpkeRustCrypto;
use mls_rs::error::IntoAnyError;
use mls_rs::{CipherSuite, CipherSuiteProvider, CryptoProvider};
use mls_rs_core::crypto::{
    HpkeCiphertext, HpkePsk, HpkePublicKey, HpkeSecretKey, SignaturePublicKey, SignatureSecretKey,
};
use mls_rs_crypto_hpke::context::{ContextR, ContextS};
use mls_rs_crypto_hpke::dhkem::DhKem;
use mls_rs_crypto_hpke::hpke::HpkeError;
use mls_rs_crypto_rustcrypto::aead::Aead;
use mls_rs_crypto_rustcrypto::ecdh::Ecdh;
use mls_rs_crypto_rustcrypto::kdf::Kdf;
use mls_rs_crypto_rustcrypto::{RustCryptoCipherSuite, RustCryptoError, RustCryptoProvider};
use mls_rs_crypto_traits::{KemResult, KemType};
use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};
use zeroize::Zeroizing;

/// The KEM of suite 0x004F, by its HPKE identifier 0x647a.
const X_WING: KemAlgorithm = KemAlgorithm::XWingDraft06;
/// An X-Wing secret key is the seed that it is derived from, bytes.
const X_WING_SEED_BYTES: usize = 32;
/// An X-Wing public key, bytes: ML-KEM-768's, then X25519's.
const X_WING_PUBLIC_BYTES: usize = 1_184 + 32;

/// What mls-rs may use: one suite, since a leaf names no other (REQ-081).
#[derive(Clone, Copy, Debug)]
pub struct OneSuite(CipherSuite);

impl OneSuite {
    /// This suite; `None` if it is not one of section 10.1.
    #[must_use]
    pub fn new(suite: u16) -> Option<Self> {
        matches!(suite, SUITE_CLASSICAL | SUITE_HYBRID).then(|| Self(CipherSuite::new(suite)))
    }

    /// As mls-rs names it.
    #[must_use]
    pub fn id(self) -> CipherSuite {
        self.0
    }
}

impl CryptoProvider for OneSuite {
    type CipherSuiteProvider = Suite;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        vec![self.0]
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<Suite> {
        if suite != self.0 {
            return None;
        }
        // All of 0x004F but its KEM is that of 0x0001.
        let classical = CipherSuite::CURVE25519_AES128;
        if suite == classical {
            let provider = RustCryptoProvider::new();
            return provider
                .cipher_suite_provider(suite)
                .map(|inner| Suite::Classical(Box::new(inner)));
        }
        let (kdf, aead) = (Kdf::new(classical)?, Aead::new(classical)?);
        let inner = RustCryptoCipherSuite::new(classical, XWing, kdf, aead)?;
        Some(Suite::Hybrid(suite, Box::new(inner)))
    }
}

/// X-Wing, as HPKE uses a KEM.
#[derive(Clone, Copy, Debug)]
pub struct XWing;

/// X-Wing could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("X-Wing: {0:?}")]
pub struct XWingError(KemError);

impl From<KemError> for XWingError {
    fn from(error: KemError) -> Self {
        Self(error)
    }
}

impl IntoAnyError for XWingError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

fn key_pair((public, secret): (Vec<u8>, Vec<u8>)) -> (HpkeSecretKey, HpkePublicKey) {
    (secret.into(), public.into())
}

impl KemType for XWing {
    type Error = XWingError;

    fn kem_id(&self) -> u16 {
        X_WING as u16
    }

    fn generate_deterministic(
        &self,
        seed: &[u8],
    ) -> Result<(HpkeSecretKey, HpkePublicKey), XWingError> {
        Ok(key_pair(HpkeRustCrypto::kem_key_gen_derand(X_WING, seed)?))
    }

    fn generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), XWingError> {
        let mut random = HpkeRustCrypto::prng();
        Ok(key_pair(HpkeRustCrypto::kem_key_gen(X_WING, &mut random)?))
    }

    fn public_key_validate(&self, key: &HpkePublicKey) -> Result<(), XWingError> {
        if key.len() == X_WING_PUBLIC_BYTES {
            Ok(())
        } else {
            Err(KemError::KemInvalidPublicKey.into())
        }
    }

    fn encap(&self, remote_key: &HpkePublicKey) -> Result<KemResult, XWingError> {
        let mut random = HpkeRustCrypto::prng();
        let (secret, enc) = HpkeRustCrypto::kem_encaps(X_WING, remote_key, &mut random)?;
        Ok(KemResult::new(secret, enc))
    }

    fn decap(
        &self,
        enc: &[u8],
        secret_key: &HpkeSecretKey,
        _local_public: &HpkePublicKey,
    ) -> Result<Vec<u8>, XWingError> {
        Ok(HpkeRustCrypto::kem_decaps(X_WING, enc, secret_key)?)
    }

    fn seed_length_for_derive(&self) -> usize {
        X_WING_SEED_BYTES
    }
}

fn derive_x_wing(ikm: &[u8]) -> Done<(HpkeSecretKey, HpkePublicKey)> {
    let (kdf, aead) = (KdfAlgorithm::HkdfSha256, AeadAlgorithm::Aes128Gcm);
    let hpke = hpke_rs::Hpke::<HpkeRustCrypto>::new(hpke_rs::Mode::Base, X_WING, kdf, aead);
    let pair = hpke.derive_key_pair(ikm).map_err(|_| {
        let error = XWingError(KemError::KemInvalidSecretKey).into_any_error();
        RustCryptoError::HpkeError(HpkeError::KemError(error))
    })?;
    let (secret, public) = pair.into_keys();
    Ok((
        secret.as_slice().to_vec().into(),
        public.as_slice().to_vec().into(),
    ))
}

type With<K> = Box<RustCryptoCipherSuite<K, Kdf, Aead>>;

/// One suite at work.
#[derive(Clone)]
pub enum Suite {
    /// 0x0001, all of it mls-rs's own.
    Classical(With<DhKem<Ecdh, Kdf>>),
    /// 0x004F: the same with X-Wing, under its own number.
    Hybrid(CipherSuite, With<XWing>),
}

/// Calls the same method on whichever it is.
macro_rules! pass_on {
    ($self:ident, $method:ident ( $($argument:expr),* )) => {
        match $self {
            Suite::Classical(inner) => CipherSuiteProvider::$method(&**inner, $($argument),*),
            Suite::Hybrid(_, inner) => CipherSuiteProvider::$method(&**inner, $($argument),*),
        }
    };
}

type Secret = Zeroizing<Vec<u8>>;
type Done<T> = Result<T, RustCryptoError>;

impl CipherSuiteProvider for Suite {
    type Error = RustCryptoError;
    type HpkeContextS = ContextS<Kdf, Aead>;
    type HpkeContextR = ContextR<Kdf, Aead>;

    fn cipher_suite(&self) -> CipherSuite {
        match self {
            Self::Classical(inner) => inner.cipher_suite(),
            Self::Hybrid(suite, _) => *suite,
        }
    }

    fn hash(&self, data: &[u8]) -> Done<Vec<u8>> {
        pass_on!(self, hash(data))
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Done<Vec<u8>> {
        pass_on!(self, mac(key, data))
    }

    fn aead_seal(
        &self,
        key: &[u8],
        data: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Done<Vec<u8>> {
        pass_on!(self, aead_seal(key, data, aad, nonce))
    }

    fn aead_open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Done<Secret> {
        pass_on!(self, aead_open(key, ciphertext, aad, nonce))
    }

    fn aead_key_size(&self) -> usize {
        pass_on!(self, aead_key_size())
    }

    fn aead_nonce_size(&self) -> usize {
        pass_on!(self, aead_nonce_size())
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Done<Secret> {
        pass_on!(self, kdf_extract(salt, ikm))
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Done<Secret> {
        pass_on!(self, kdf_expand(prk, info, len))
    }

    fn kdf_extract_size(&self) -> usize {
        pass_on!(self, kdf_extract_size())
    }

    fn hpke_seal(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
    ) -> Done<HpkeCiphertext> {
        pass_on!(self, hpke_seal(remote_key, info, aad, pt))
    }

    fn hpke_seal_psk(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
        psk: HpkePsk<'_>,
    ) -> Done<HpkeCiphertext> {
        pass_on!(self, hpke_seal_psk(remote_key, info, aad, pt, psk))
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Done<Secret> {
        pass_on!(
            self,
            hpke_open(ciphertext, local_secret, local_public, info, aad)
        )
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Done<Secret> {
        pass_on!(
            self,
            hpke_open_psk(ciphertext, local_secret, local_public, info, aad, psk)
        )
    }

    fn hpke_setup_s(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
    ) -> Done<(Vec<u8>, Self::HpkeContextS)> {
        pass_on!(self, hpke_setup_s(remote_key, info))
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
    ) -> Done<Self::HpkeContextR> {
        pass_on!(
            self,
            hpke_setup_r(kem_output, local_secret, local_public, info)
        )
    }

    fn kem_derive(&self, ikm: &[u8]) -> Done<(HpkeSecretKey, HpkePublicKey)> {
        match self {
            Self::Classical(inner) => inner.kem_derive(ikm),
            // mls-rs's HPKE derives as DHKEM does, with HKDF first; X-Wing's DeriveKeyPair is SHAKE256 of the input.
            Self::Hybrid(..) => derive_x_wing(ikm),
        }
    }

    fn kem_generate(&self) -> Done<(HpkeSecretKey, HpkePublicKey)> {
        pass_on!(self, kem_generate())
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Done<()> {
        pass_on!(self, kem_public_key_validate(key))
    }

    fn random_bytes(&self, out: &mut [u8]) -> Done<()> {
        pass_on!(self, random_bytes(out))
    }

    fn signature_key_generate(&self) -> Done<(SignatureSecretKey, SignaturePublicKey)> {
        pass_on!(self, signature_key_generate())
    }

    fn signature_key_derive_public(
        &self,
        secret_key: &SignatureSecretKey,
    ) -> Done<SignaturePublicKey> {
        pass_on!(self, signature_key_derive_public(secret_key))
    }

    fn sign(&self, secret_key: &SignatureSecretKey, data: &[u8]) -> Done<Vec<u8>> {
        pass_on!(self, sign(secret_key, data))
    }

    fn verify(&self, public_key: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Done<()> {
        pass_on!(self, verify(public_key, signature, data))
    }
}
