//! The cryptography that openmls computes with.
//!
//! [`Crypto`] is openmls's own provider, with the costly parts taken from elsewhere: Ed25519 (see
//! `identity::ed25519`) and AES-GCM from AWS-LC, HPKE on [`Hpke`]'s primitives. Everything else, and all randomness, is the stock provider's. Both must
//! compute the same: the RFC 9420 test vectors run on this one, and a property test holds it against the stock one.
//! This module must never compose primitives itself.

mod aead;
mod hpke;
#[cfg(test)]
mod tests;

use hpke_rs::HpkeError;
use hpke_rs_crypto::types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use openmls_rust_crypto::{RandError, RustCrypto};
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::random::OpenMlsRand;
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeAeadType, HpkeCiphertext,
    HpkeConfig, HpkeKdfType, HpkeKemType, HpkeKeyPair, KemOutput, SignatureScheme,
};
use tls_codec::SecretVLBytes;

use self::hpke::FastHpke;
use crate::identity::{KeyError, verify_strict};

/// openmls's cryptography and randomness.
#[derive(Debug, Default)]
pub struct Crypto {
    stock: RustCrypto,
}

/// HPKE (RFC 9180) of one configuration, in base mode; `None` for one that no suite of ours has.
fn hpke_of(HpkeConfig(kem, kdf, aead): &HpkeConfig) -> Option<hpke_rs::Hpke<FastHpke>> {
    let kem = match kem {
        HpkeKemType::DhKem25519 => KemAlgorithm::DhKem25519,
        HpkeKemType::XWingKemDraft6 => KemAlgorithm::XWingDraft06,
        _ => return None,
    };
    let (HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128) = (kdf, aead) else {
        return None;
    };
    Some(hpke_rs::Hpke::new(
        hpke_rs::Mode::Base,
        kem,
        KdfAlgorithm::HkdfSha256,
        AeadAlgorithm::Aes128Gcm,
    ))
}

/// Tells an input that is wrong from a library that failed, as the stock provider does.
fn explain(error: HpkeError) -> CryptoError {
    match error {
        HpkeError::InvalidInput => CryptoError::InvalidLength,
        _ => CryptoError::CryptoLibraryError,
    }
}

impl OpenMlsCrypto for Crypto {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        self.stock.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.stock.supported_ciphersuites()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.stock.hkdf_extract(hash_type, salt, ikm)
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.stock.hmac(hash_type, key, message)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.stock.hkdf_expand(hash_type, prk, info, okm_len)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.stock.hash(hash_type, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        match alg {
            AeadType::Aes128Gcm => {
                aead::seal(key, nonce, aad, data).ok_or(CryptoError::CryptoLibraryError)
            }
            _ => self.stock.aead_encrypt(alg, key, data, nonce, aad),
        }
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        match alg {
            AeadType::Aes128Gcm => {
                aead::open(key, nonce, aad, ct_tag).ok_or(CryptoError::AeadDecryptionError)
            }
            _ => self.stock.aead_decrypt(alg, key, ct_tag, nonce, aad),
        }
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.stock.signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let (SignatureScheme::ED25519, Ok(key), Ok(signature)) =
            (alg, pk.try_into(), signature.try_into())
        else {
            return self.stock.verify_signature(alg, data, pk, signature);
        };
        verify_strict(key, data, signature).map_err(|error| match error {
            KeyError::BadKey => CryptoError::CryptoLibraryError,
            KeyError::BadSignature => CryptoError::InvalidSignature,
        })
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.stock.sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        let Some(mut hpke) = hpke_of(&config) else {
            return self.stock.hpke_seal(config, pk_r, info, aad, ptxt);
        };
        let (kem_output, ciphertext) = hpke
            .seal(&pk_r.into(), info, aad, ptxt, None, None, None)
            .map_err(explain)?;
        Ok(HpkeCiphertext {
            kem_output: kem_output.into(),
            ciphertext: ciphertext.into(),
        })
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let Some(hpke) = hpke_of(&config) else {
            return self.stock.hpke_open(config, input, sk_r, info, aad);
        };
        let (enc, ciphertext) = (input.kem_output.as_slice(), input.ciphertext.as_slice());
        hpke.open(enc, &sk_r.into(), info, aad, ciphertext, None, None, None)
            .map_err(|_| CryptoError::HpkeDecryptionError)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        // Only external commits export from HPKE, and they are switched off.
        self.stock.hpke_setup_sender_and_export(
            config,
            pk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.stock.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        let Some(hpke) = hpke_of(&config) else {
            return self.stock.derive_hpke_keypair(config, ikm);
        };
        let (private, public) = hpke.derive_key_pair(ikm).map_err(explain)?.into_keys();
        Ok(HpkeKeyPair {
            private: private.as_slice().into(),
            public: public.as_slice().into(),
        })
    }
}

impl OpenMlsRand for Crypto {
    type Error = RandError;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], Self::Error> {
        self.stock.random_array()
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, Self::Error> {
        self.stock.random_vec(len)
    }
}
