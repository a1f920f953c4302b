//! What is inside a message: section 10.5.

use mortise_protocol::content::{Content, decode, encode_text};
use serde_json::{Value, json};

use super::hex;

const SALT: [u8; 16] = [0x5a; 16];

pub(super) fn vectors() -> Value {
    let texts = ["", "hello", "Grüße, 陳 🗝", &"long ".repeat(60)];
    json!({
        "texts": texts.map(|text| json!({
            "salt": hex(SALT),
            "text": text,
            "content": hex(encode_text(SALT, text)),
        })),
        "decided": decided(),
    })
}

/// `unsupported` is accepted and shown as such; `BAD_CONTENT` is refused.
fn decided() -> Value {
    let good = encode_text(SALT, "hello");
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let last = good.len() - 1;
    // Where the nested part's disposition stands: array, salt, null, empty, null, null, empty map, array.
    let part = 1 + 17 + 1 + 1 + 1 + 1 + 1 + 1;
    let cases = [
        ("another disposition", with(part, 2)),
        ("another cardinality", with(part + 2, 2)),
        ("another media type", with(part + 5, b'T')),
        ("a number", vec![0]),
        ("an empty array", vec![0x80]),
        ("nothing", Vec::new()),
        ("cut", good[..last].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
        ("text that is not UTF-8", with(last, 0xff)),
        ("not CBOR", vec![0xff]),
    ];
    cases
        .into_iter()
        .map(|(name, bytes)| {
            let decision = match decode(&bytes) {
                Ok(Content::Text(_)) => "text",
                Ok(_) => "unsupported",
                Err(_) => "BAD_CONTENT",
            };
            json!({ "name": name, "content": hex(bytes), "decision": decision })
        })
        .collect()
}
