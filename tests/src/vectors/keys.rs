//! Labels, identifiers, strict signatures and safety numbers: section 3, REQ-010, REQ-012, REQ-018.

use mortise_protocol::identity::{
    PublicKey, SealSecret, Signature, SigningKey, UserId, hash, labelled, safety_number,
};
use serde_json::{Value, json};

use super::{hex, unhex};

const LABEL: &str = "access";
const CONTENT: &[u8] = b"what is signed";

pub(super) fn vectors() -> Value {
    json!({
        "labelled": (["", "what is signed", &"x".repeat(64), &"y".repeat(16_384)].map(labelled_case)),
        "identifiers": ([1_u8, 2, 3].map(identifiers)),
        "sealing_keys": ([4_u8, 5].map(sealing_key)),
        "signatures": signatures(),
        "safety_numbers": safety_numbers(),
    })
}

fn labelled_case(content: &str) -> Value {
    let seed = [7; 32];
    let key = SigningKey::from_seed(&seed);
    json!({
        "label": LABEL,
        "content": hex(content),
        "labelled": hex(labelled(LABEL, content.as_bytes())),
        "hash": hex(hash(LABEL, content.as_bytes()).0),
        "seed": hex(seed),
        "public_key": hex(key.public().0),
        "signature": hex(key.sign(LABEL, content.as_bytes()).0),
    })
}

fn identifiers(number: u8) -> Value {
    let key = SigningKey::from_seed(&[number; 32]).public();
    json!({
        "public_key": hex(key.0),
        "organisation_id": hex(key.org_id().0),
        "device_id": hex(key.device_id().0),
    })
}

fn sealing_key(number: u8) -> Value {
    let seed = [number; 32];
    let secret = SealSecret::new(SigningKey::from_seed(&seed));
    let x25519 = secret.public().x25519().expect("a good key");
    json!({
        "seed": hex(seed),
        "edwards_public_key": hex(secret.public().0.0),
        "x25519_private_key": hex(secret.x25519().to_bytes()),
        "x25519_public_key": hex(x25519.as_bytes()),
    })
}

/// Signatures that every verifier must decide alike (REQ-001).
fn signatures() -> Value {
    let key = SigningKey::from_seed(&[7; 32]);
    let public = key.public();
    let good = key.sign(LABEL, CONTENT);
    let case = |name: &str, key: PublicKey, signature: Signature, valid: bool| {
        json!({
            "name": name,
            "public_key": hex(key.0),
            "label": LABEL,
            "content": hex(CONTENT),
            "signature": hex(signature.0),
            "valid": valid,
        })
    };
    let mut changed = good;
    changed.0[0] ^= 1;
    let other = SigningKey::from_seed(&[8; 32]);
    let unlabelled = key.sign_as_is(CONTENT);
    let (small_key, small) = small_order();
    let (mixed_key, mixed) = cofactored();
    json!([
        case("good", public, good, true),
        case("one bit of R changed", public, changed, false),
        case("by another key", other.public(), good, false),
        case(
            "over the content without the label",
            public,
            unlabelled,
            false
        ),
        case("S not reduced: S + L", public, unreduced(good), false),
        case("key of small order", small_key, small, false),
        case("holds with the cofactor only", mixed_key, mixed, false),
    ])
}

/// The group's order, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn unreduced(mut signature: Signature) -> Signature {
    let mut carry = 0_u16;
    for (byte, order) in signature.0[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    signature
}

/// The neutral element: with it as key and as R, and S = 0, the equation holds for every message.
const NEUTRAL: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

fn small_order() -> (PublicKey, Signature) {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&NEUTRAL);
    (PublicKey(NEUTRAL), Signature(signature))
}

/// A key `11 B + T` with T of order 8, and an `(R, S)` for it with `8SB = 8R + 8kA`, but not `SB = R + kA`.
///
/// No code of the product can make it; computed once, for this label and content.
const COFACTOR_KEY: &str = "c891dd2fc0ca87a7460193895e046a914c11b66fdffa8e6b7c3ba83138499c70";
const COFACTOR_SIGNATURE: &str = "df5c2eadc44c6d94a19a9aa118afe5ac3193d26401f76251f522ff042dfbcb92\
                                  e6e4fa3a8ed1501b0b3b0f619f477d50b23c18a86d10d9f01aa629d99f0bae02";

fn cofactored() -> (PublicKey, Signature) {
    (
        PublicKey(unhex(COFACTOR_KEY)),
        Signature(unhex(COFACTOR_SIGNATURE)),
    )
}

fn safety_numbers() -> Value {
    let side = |user: u8, keys: &[u8]| {
        let keys: Vec<PublicKey> = keys
            .iter()
            .map(|n| SigningKey::from_seed(&[*n; 32]).public())
            .collect();
        (UserId([user; 16]), keys)
    };
    let pairs = [
        (side(1, &[11]), side(2, &[12])),
        (side(2, &[12]), side(1, &[11])),
        (side(1, &[11, 13, 14]), side(2, &[12])),
        (side(1, &[]), side(2, &[12])),
    ];
    pairs
        .iter()
        .map(|(a, b)| {
            let shown = |(user, keys): &(UserId, Vec<PublicKey>)| {
                let keys: Vec<String> = keys.iter().map(|key| hex(key.0)).collect();
                json!({ "user": hex(user.0), "mls_signature_keys": keys })
            };
            json!({
                "one": shown(a),
                "other": shown(b),
                "number": safety_number((a.0, &a.1), (b.0, &b.1)),
            })
        })
        .collect()
}
