//! This provider and openmls's stock one compute the same.

use hpke_rs_crypto::HpkeCrypto as _;
use hpke_rs_crypto::types::KemAlgorithm;
use hpke_rs_rust_crypto::HpkeRustCrypto;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, HpkeAeadType, HpkeCiphertext, HpkeConfig, HpkeKdfType,
    HpkeKemType, SignatureScheme,
};
use rand::RngCore as _;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::Crypto;
use super::hpke::FastHpke;

const SEED: u64 = 0x0370;
const ROUNDS: usize = 40;

/// The KEMs of both suites, and one that is no suite of ours.
const KEMS: [HpkeKemType; 3] = [
    HpkeKemType::DhKem25519,
    HpkeKemType::XWingKemDraft6,
    HpkeKemType::DhKemP256,
];

fn with(kem: HpkeKemType) -> HpkeConfig {
    HpkeConfig(kem, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128)
}

fn bytes(rng: &mut ChaCha12Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Both suites' HPKE: the same keys of the same secrets, and each opens what the other sealed. One that is no suite of
/// ours goes to the stock provider.
#[test]
fn hpke_is_the_stock_providers() {
    let (ours, stock) = (Crypto::default(), RustCrypto::default());
    let mut rng = ChaCha12Rng::seed_from_u64(SEED);
    for kem in KEMS {
        for round in 0..ROUNDS {
            let ikm = bytes(&mut rng, 32);
            let keys = ours.derive_hpke_keypair(with(kem), &ikm).expect("derive");
            let same = stock.derive_hpke_keypair(with(kem), &ikm).expect("derive");
            assert_eq!(keys.public, same.public);
            assert_eq!(&*keys.private, &*same.private);
            let (info, aad) = (bytes(&mut rng, round), bytes(&mut rng, round % 7));
            let text = bytes(&mut rng, 3 * round);
            let sealed = ours.hpke_seal(with(kem), &keys.public, &info, &aad, &text);
            let sealed = sealed.expect("seal");
            let opened = stock.hpke_open(with(kem), &sealed, &keys.private, &info, &aad);
            assert_eq!(opened.expect("the stock provider opens ours"), text);
            let sealed = stock.hpke_seal(with(kem), &keys.public, &info, &aad, &text);
            let mut sealed = sealed.expect("seal");
            let opened = ours.hpke_open(with(kem), &sealed, &keys.private, &info, &aad);
            assert_eq!(opened.expect("we open the stock provider's"), text);
            damage(&mut sealed, round);
            let both = [
                ours.hpke_open(with(kem), &sealed, &keys.private, &info, &aad),
                stock.hpke_open(with(kem), &sealed, &keys.private, &info, &aad),
            ];
            assert!(both.iter().all(Result::is_err), "round {round}: {both:?}");
        }
    }
}

/// Flips one bit of the encapsulated key or of the ciphertext.
fn damage(sealed: &mut HpkeCiphertext, round: usize) {
    let part = if round.is_multiple_of(2) {
        &mut sealed.kem_output
    } else {
        &mut sealed.ciphertext
    };
    let mut bytes = part.as_slice().to_vec();
    let at = round % bytes.len();
    bytes[at] ^= 1;
    *part = bytes.into();
}

/// X-Wing's parts: key generation and encapsulation are those of the other library, bit for bit.
#[test]
fn x_wing_is_the_same_kem() {
    const X_WING: KemAlgorithm = KemAlgorithm::XWingDraft06;
    let mut rng = ChaCha12Rng::seed_from_u64(SEED + 1);
    for _ in 0..ROUNDS {
        let seed = bytes(&mut rng, 32);
        let (public, secret) = FastHpke::kem_key_gen_derand(X_WING, &seed).expect("keys");
        let same = HpkeRustCrypto::kem_key_gen_derand(X_WING, &seed).expect("keys");
        assert_eq!((&public, &secret), (&same.0, &same.1));
        let (shared, ciphertext) =
            FastHpke::kem_encaps(X_WING, &public, &mut FastHpke::prng()).expect("encapsulate");
        let other = HpkeRustCrypto::kem_decaps(X_WING, &ciphertext, &secret).expect("open");
        assert_eq!(shared, other);
        // A ciphertext that was never made decapsulates to the same nonsense: implicit rejection.
        let nonsense = bytes(&mut rng, ciphertext.len());
        assert_eq!(
            FastHpke::kem_decaps(X_WING, &nonsense, &secret).ok(),
            HpkeRustCrypto::kem_decaps(X_WING, &nonsense, &secret).ok()
        );
    }
}

/// Half a key of small order: X-Wing takes it (its security stands on ML-KEM then), whichever library is asked.
#[test]
fn x_wing_takes_the_same_keys() {
    const X_WING: KemAlgorithm = KemAlgorithm::XWingDraft06;
    let (public, secret) = FastHpke::kem_key_gen_derand(X_WING, &[5; 32]).expect("keys");
    let mut odd = public.clone();
    odd[1_184..].fill(0);
    let taken = |key: &[u8]| {
        let ours = FastHpke::kem_encaps(X_WING, key, &mut FastHpke::prng());
        let stock = HpkeRustCrypto::kem_encaps(X_WING, key, &mut HpkeRustCrypto::prng());
        assert_eq!(ours.is_ok(), stock.is_ok());
    };
    taken(&odd);
    let (_, mut ciphertext) =
        FastHpke::kem_encaps(X_WING, &public, &mut FastHpke::prng()).expect("encapsulate");
    ciphertext[1_088..].fill(0);
    assert_eq!(
        FastHpke::kem_decaps(X_WING, &ciphertext, &secret).ok(),
        HpkeRustCrypto::kem_decaps(X_WING, &ciphertext, &secret).ok()
    );
    // Coefficients that are not reduced, against a rule of ML-KEM's.
    let mut odd = public;
    odd[..3].fill(0xFF);
    taken(&odd);
    assert!(FastHpke::kem_decaps(X_WING, &ciphertext[1..], &secret).is_err());
}

/// A key of small order, and keys of the wrong length, are refused by both.
#[test]
fn bad_keys_are_refused_alike() {
    let (ours, stock) = (Crypto::default(), RustCrypto::default());
    let mut rng = ChaCha12Rng::seed_from_u64(SEED + 2);
    for kem in [HpkeKemType::DhKem25519, HpkeKemType::XWingKemDraft6] {
        let long = bytes(&mut rng, 2_000);
        for key in [&[0; 32][..], &[1; 31], &long, &[]] {
            assert!(ours.hpke_seal(with(kem), key, b"", b"", b"x").is_err());
            assert!(stock.hpke_seal(with(kem), key, b"", b"", b"x").is_err());
        }
    }
}

/// A signature that holds, and one that does not, for a key, a message and a signature of any length.
#[test]
fn signatures_are_judged_alike() {
    let (ours, stock) = (Crypto::default(), RustCrypto::default());
    let mut rng = ChaCha12Rng::seed_from_u64(SEED + 3);
    for scheme in [
        SignatureScheme::ED25519,
        SignatureScheme::ECDSA_SECP256R1_SHA256,
    ] {
        for round in 0..ROUNDS {
            let (secret, public) = ours.signature_key_gen(scheme).expect("keys");
            let text = bytes(&mut rng, round);
            let signature = ours.sign(scheme, &text, &secret).expect("sign");
            let mut cases = vec![(public.clone(), signature.clone())];
            let mut other = signature.clone();
            other[round % signature.len()] ^= 1;
            cases.push((public.clone(), other));
            let mut other = public.clone();
            other[round % public.len()] ^= 1;
            cases.push((other, signature.clone()));
            cases.push((public[1..].to_vec(), signature.clone()));
            cases.push((public.clone(), signature[1..].to_vec()));
            for (nth, (key, signature)) in cases.iter().enumerate() {
                let here = ours.verify_signature(scheme, &text, key, signature);
                let there = stock.verify_signature(scheme, &text, key, signature);
                assert_eq!(here.is_ok(), there.is_ok(), "round {round}, case {nth}");
                assert_eq!(here.is_ok(), nth == 0);
            }
        }
    }
}

/// AES-128-GCM: the same octets out, and nothing opens that was touched.
#[test]
fn the_aead_is_the_same() {
    let (ours, stock) = (Crypto::default(), RustCrypto::default());
    let mut rng = ChaCha12Rng::seed_from_u64(SEED + 4);
    for alg in [AeadType::Aes128Gcm, AeadType::Aes256Gcm] {
        for round in 0..ROUNDS {
            let (key, nonce) = (bytes(&mut rng, alg.key_size()), bytes(&mut rng, 12));
            let (text, aad) = (bytes(&mut rng, 5 * round), bytes(&mut rng, round));
            let sealed = ours.aead_encrypt(alg, &key, &text, &nonce, &aad);
            let mut sealed = sealed.expect("seal");
            let same = stock.aead_encrypt(alg, &key, &text, &nonce, &aad);
            assert_eq!(sealed, same.expect("seal"));
            let opened = ours.aead_decrypt(alg, &key, &sealed, &nonce, &aad);
            assert_eq!(opened.expect("open"), text);
            let at = round % sealed.len();
            sealed[at] ^= 1;
            let opened = ours.aead_decrypt(alg, &key, &sealed, &nonce, &aad);
            assert_eq!(opened, Err(CryptoError::AeadDecryptionError));
            assert!(
                ours.aead_decrypt(alg, &key[1..], &sealed, &nonce, &aad)
                    .is_err()
            );
            let short = &sealed[..round % 16];
            assert!(ours.aead_decrypt(alg, &key, short, &nonce, &aad).is_err());
        }
    }
    // The stock provider panics at a nonce of another length.
    let refused = ours.aead_decrypt(AeadType::Aes128Gcm, &[1; 16], &[0; 32], &[0; 11], b"");
    assert_eq!(refused, Err(CryptoError::AeadDecryptionError));
}

/// What is supported is what the stock provider supports, both suites of ours among it.
#[test]
fn the_same_suites_are_supported() {
    let (ours, stock) = (Crypto::default(), RustCrypto::default());
    assert_eq!(
        ours.supported_ciphersuites(),
        stock.supported_ciphersuites()
    );
    for suite in [super::super::SUITE_CLASSICAL, super::super::SUITE_HYBRID] {
        let suite = Ciphersuite::try_from(suite).expect("a suite");
        assert!(ours.supports(suite).is_ok());
    }
}
