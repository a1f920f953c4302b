//! The primitives under HPKE: X25519 and AES-128-GCM from AWS-LC, X-Wing from libcrux, the rest from hpke-rs's RustCrypto provider.
//!
//! What is defined by HPKE, DHKEM and X-Wing stays in hpke-rs and libcrux; here are only the operations that they ask
//! for. What libcrux does not take, the stock provider decides: both take the same. This module must never accept a shared
//! secret of zeros from X25519 alone (RFC 9180 §7.1.4): AWS-LC refuses it.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use hpke_rs_crypto::error::Error;
use hpke_rs_crypto::types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use hpke_rs_crypto::{HpkeCrypto, HpkeTestRng, TryCryptoRng, TryRng};
use hpke_rs_libcrux::HpkeLibcrux;
use hpke_rs_rust_crypto::HpkeRustCrypto;
use zeroize::Zeroize;

use super::aead;

const X_WING: KemAlgorithm = KemAlgorithm::XWingDraft06;
/// Octets of an X-Wing public key and ciphertext (draft-connolly-cfrg-xwing-kem-06 §5.1).
const X_WING_PUBLIC: usize = 1_216;
const X_WING_CIPHERTEXT: usize = 1_120;

/// The provider of hpke-rs that has the fastest of each.
#[derive(Debug)]
pub(super) struct FastHpke;

/// The stock generator, seeded by the operating system when it is first used: hpke-rs makes two for every operation.
#[derive(Default)]
pub(super) struct LazyPrng(Option<<HpkeLibcrux as HpkeCrypto>::HpkePrng>);

impl LazyPrng {
    fn seeded(&mut self) -> &mut <HpkeLibcrux as HpkeCrypto>::HpkePrng {
        self.0.get_or_insert_with(HpkeLibcrux::prng)
    }
}

impl Zeroize for LazyPrng {
    fn zeroize(&mut self) {
        if let Some(prng) = &mut self.0 {
            prng.zeroize();
        }
    }
}

impl TryRng for LazyPrng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.seeded().try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.seeded().try_next_u64()
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        self.seeded().try_fill_bytes(dst)
    }
}

impl TryCryptoRng for LazyPrng {}

impl HpkeTestRng for LazyPrng {
    type Error = <<HpkeLibcrux as HpkeCrypto>::HpkePrng as HpkeTestRng>::Error;

    fn try_fill_test_bytes(&mut self, dest: &mut [u8]) -> Result<(), Self::Error> {
        self.seeded().try_fill_test_bytes(dest)
    }

    fn seed(&mut self, seed: &[u8]) {
        self.seeded().seed(seed);
    }
}

fn x25519_key(secret: &[u8]) -> Result<PrivateKey, Error> {
    PrivateKey::from_private_key(&X25519, secret).map_err(|_| Error::KemInvalidSecretKey)
}

impl HpkeCrypto for FastHpke {
    type HpkePrng = LazyPrng;

    fn name() -> String {
        "AWS-LC, libcrux, RustCrypto".into()
    }

    fn supports_kdf(alg: KdfAlgorithm) -> Result<(), Error> {
        HpkeRustCrypto::supports_kdf(alg)
    }

    fn supports_kem(alg: KemAlgorithm) -> Result<(), Error> {
        match alg {
            KemAlgorithm::DhKem25519 => Ok(()),
            other => HpkeLibcrux::supports_kem(other),
        }
    }

    fn supports_aead(alg: AeadAlgorithm) -> Result<(), Error> {
        HpkeRustCrypto::supports_aead(alg)
    }

    fn prng() -> Self::HpkePrng {
        LazyPrng::default()
    }

    fn kdf_extract(alg: KdfAlgorithm, salt: &[u8], ikm: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kdf_extract(alg, salt, ikm)
    }

    fn kdf_expand(
        alg: KdfAlgorithm,
        prk: &[u8],
        info: &[u8],
        output_size: usize,
    ) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kdf_expand(alg, prk, info, output_size)
    }

    fn dh(alg: KemAlgorithm, pk: &[u8], sk: &[u8]) -> Result<Vec<u8>, Error> {
        let KemAlgorithm::DhKem25519 = alg else {
            return Err(Error::UnknownKemAlgorithm);
        };
        let theirs = UnparsedPublicKey::new(&X25519, pk);
        agree(
            &x25519_key(sk)?,
            theirs,
            Error::KemInvalidPublicKey,
            |secret| Ok(secret.to_vec()),
        )
    }

    fn secret_to_public(alg: KemAlgorithm, sk: &[u8]) -> Result<Vec<u8>, Error> {
        let KemAlgorithm::DhKem25519 = alg else {
            return Err(Error::UnknownKemAlgorithm);
        };
        let public = x25519_key(sk)?.compute_public_key();
        let public = public.map_err(|_| Error::KemInvalidSecretKey)?;
        Ok(public.as_ref().to_vec())
    }

    fn kem_key_gen(
        alg: KemAlgorithm,
        prng: &mut Self::HpkePrng,
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        HpkeLibcrux::kem_key_gen(alg, prng.seeded())
    }

    fn kem_key_gen_derand(alg: KemAlgorithm, seed: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
        HpkeLibcrux::kem_key_gen_derand(alg, seed)
    }

    fn kem_encaps(
        alg: KemAlgorithm,
        pk_r: &[u8],
        prng: &mut Self::HpkePrng,
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        // libcrux 0.0.9 cuts a key in two before it looks at its length.
        if alg == X_WING
            && pk_r.len() == X_WING_PUBLIC
            && let Ok(encapsulated) = HpkeLibcrux::kem_encaps(alg, pk_r, prng.seeded())
        {
            return Ok(encapsulated);
        }
        HpkeRustCrypto::kem_encaps(alg, pk_r, &mut HpkeRustCrypto::prng())
    }

    fn kem_decaps(alg: KemAlgorithm, ct: &[u8], sk_r: &[u8]) -> Result<Vec<u8>, Error> {
        if alg == X_WING
            && ct.len() == X_WING_CIPHERTEXT
            && let Ok(secret) = HpkeLibcrux::kem_decaps(alg, ct, sk_r)
        {
            return Ok(secret);
        }
        HpkeRustCrypto::kem_decaps(alg, ct, sk_r)
    }

    fn dh_validate_sk(alg: KemAlgorithm, sk: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::dh_validate_sk(alg, sk)
    }

    fn aead_seal(
        alg: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        msg: &[u8],
    ) -> Result<Vec<u8>, Error> {
        match alg {
            AeadAlgorithm::Aes128Gcm => {
                aead::seal(key, nonce, aad, msg).ok_or(Error::AeadInvalidNonce)
            }
            _ => HpkeRustCrypto::aead_seal(alg, key, nonce, aad, msg),
        }
    }

    fn aead_open(
        alg: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        msg: &[u8],
    ) -> Result<Vec<u8>, Error> {
        match alg {
            AeadAlgorithm::Aes128Gcm => {
                aead::open(key, nonce, aad, msg).ok_or(Error::AeadOpenError)
            }
            _ => HpkeRustCrypto::aead_open(alg, key, nonce, aad, msg),
        }
    }
}
