//! AES-128-GCM from AWS-LC, for openmls and for HPKE.
//!
//! Keys and nonces come from the key schedules that call: each is used once. This module must never choose one.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Octets of the tag that ends a ciphertext.
const TAG: usize = 16;

fn key_and_nonce(key: &[u8], nonce: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let key = UnboundKey::new(&AES_128_GCM, key).ok()?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    Some((LessSafeKey::new(key), nonce))
}

/// The ciphertext with its tag; `None` for a key or a nonce of the wrong length.
pub(super) fn seal(key: &[u8], nonce: &[u8], aad: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let (key, nonce) = key_and_nonce(key, nonce)?;
    let mut sealed = Vec::with_capacity(text.len() + TAG);
    sealed.extend_from_slice(text);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed)
        .ok()?;
    Some(sealed)
}

/// The plaintext; `None` if it does not open.
pub(super) fn open(key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (key, nonce) = key_and_nonce(key, nonce)?;
    let mut text = sealed.to_vec();
    let length = key
        .open_in_place(nonce, Aad::from(aad), &mut text)
        .ok()?
        .len();
    text.truncate(length);
    Some(text)
}
