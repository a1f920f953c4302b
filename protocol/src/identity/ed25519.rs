//! Strict verification of Ed25519 signatures (RFC 8032 §5.1.7), as fast as the machine can.
//!
//! Every verifier must give the same answer, so one definition decides: `verify_strict` of ed25519-dalek, which also
//! refuses keys and commitments of small order. AWS-LC checks the same equation in half the time, but looks at neither;
//! it is asked only where those extra rules, and the ways in which libraries read an encoding that is not canonical,
//! cannot matter. This module must never accept what `verify_strict` would not.

use std::sync::LazyLock;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::KeyError;

/// Octets of a key, and of each half of a signature.
const HALF: usize = 32;

/// Checks `signature` by `key` over exactly these bytes.
///
/// # Errors
/// [`KeyError::BadKey`] for a key that is no point, or one of small order; else [`KeyError::BadSignature`].
pub(crate) fn verify_strict(
    key: &[u8; HALF],
    message: &[u8],
    signature: &[u8; 2 * HALF],
) -> Result<(), KeyError> {
    #[cfg(feature = "simulation")]
    return super::memo::signature((key, message, signature), || {
        verify(key, message, signature)
    });
    #[cfg(not(feature = "simulation"))]
    verify(key, message, signature)
}

fn verify(key: &[u8; HALF], message: &[u8], signature: &[u8; 2 * HALF]) -> Result<(), KeyError> {
    let is_plain = signature
        .first_chunk()
        .is_some_and(|commitment| is_plain(key) && is_plain(commitment));
    if is_plain
        && UnparsedPublicKey::new(&ED25519, key)
            .verify(message, signature)
            .is_ok()
    {
        return Ok(());
    }
    // Rare: an encoding that calls for a closer look, or a signature that does not hold.
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|_| KeyError::BadKey)?;
    if key.is_weak() {
        return Err(KeyError::BadKey);
    }
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature))
        .map_err(|_| KeyError::BadSignature)
}

/// The y coordinates of the eight points whose order divides the cofactor, without the sign of x.
static SMALL_ORDER: LazyLock<Vec<[u8; HALF]>> = LazyLock::new(|| {
    let points = curve25519_dalek::constants::EIGHT_TORSION;
    let mut all: Vec<_> = points.iter().map(|p| unsigned(&p.compress().0)).collect();
    all.sort_unstable();
    all.dedup();
    all
});

/// Whether an encoding is canonical, should it be of a point at all, and not of one of small order.
fn is_plain(encoding: &[u8; HALF]) -> bool {
    let y = unsigned(encoding);
    // y is below the field's prime, 2^255 - 19, unless all octets but the lowest are at their largest.
    let is_reduced = y[0] < 0xED || y[1..HALF - 1].iter().any(|o| *o != 0xFF) || y[31] != 0x7F;
    is_reduced && !SMALL_ORDER.contains(&y)
}

fn unsigned(encoding: &[u8; HALF]) -> [u8; HALF] {
    let mut y = *encoding;
    y[HALF - 1] &= 0x7F;
    y
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
    use rand::RngCore as _;
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    /// What every verifier must say.
    fn reference(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(key).is_ok_and(|key| {
            let signature = ed25519_dalek::Signature::from_bytes(signature);
            key.verify_strict(message, &signature).is_ok()
        })
    }

    /// Encodings with something odd about them: small order, not reduced, x = 0 with a sign, no point at all.
    fn oddities() -> Vec<[u8; 32]> {
        let points = curve25519_dalek::constants::EIGHT_TORSION;
        let mut all: Vec<[u8; 32]> = points.iter().map(|p| p.compress().0).collect();
        for low in 0xEC..=0xFF {
            let mut y = [0xFF; 32];
            (y[0], y[31]) = (low, 0x7F);
            all.push(y);
        }
        all.extend((0..8).map(|low| {
            let mut y = [0; 32];
            y[0] = low;
            y
        }));
        let signed = all.clone().into_iter().map(|mut y| {
            y[31] ^= 0x80;
            y
        });
        all.extend(signed);
        all
    }

    /// REQ-001: honest signatures, damaged ones and odd encodings are judged as by `verify_strict`.
    #[test]
    fn both_libraries_agree() {
        let mut rng = ChaCha12Rng::seed_from_u64(0x5160);
        let mut accepted = 0;
        for round in 0..400_usize {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            let signer = SigningKey::from_bytes(&seed);
            let mut message = vec![0; round];
            rng.fill_bytes(&mut message);
            let (mut key, mut signature) = (
                signer.verifying_key().to_bytes(),
                signer.sign(&message).to_bytes(),
            );
            if round % 4 == 1 {
                signature[round % 64] ^= 1 << (round % 8);
            }
            if round % 4 == 2 {
                key[round % 32] ^= 1 << (round % 8);
            }
            let here = verify_strict(&key, &message, &signature).is_ok();
            assert_eq!(here, reference(&key, &message, &signature), "round {round}");
            accepted += usize::from(here);
        }
        assert_eq!(accepted, 200);
    }

    /// REQ-001: every pair of odd key and odd commitment, with a response of zero and with a real one. With some of
    /// these, the bare equation holds.
    #[test]
    fn odd_encodings_are_refused_alike() {
        let signer = SigningKey::from_bytes(&[7; 32]);
        let real = signer.sign(b"m").to_bytes();
        let mut holds_without_the_rules = 0;
        for key in oddities()
            .into_iter()
            .chain([signer.verifying_key().to_bytes()])
        {
            for commitment in oddities() {
                for response in [[0; 32], real[32..].try_into().expect("32 octets")] {
                    let signature: [u8; 64] = [commitment, response]
                        .concat()
                        .try_into()
                        .expect("64 octets");
                    let here = verify_strict(&key, b"m", &signature).is_ok();
                    assert_eq!(here, reference(&key, b"m", &signature));
                    let bare = UnparsedPublicKey::new(&ED25519, key);
                    holds_without_the_rules += usize::from(bare.verify(b"m", &signature).is_ok());
                }
            }
        }
        assert!(holds_without_the_rules > 0, "the rules are put to the test");
    }
}
