//! What is inside a message: section 10.5.

use mortise_protocol::content::{Content, MediaType, TextMessage, decode, encode_text};
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

fn good_markdown() -> Vec<u8> {
    let mut message = TextMessage::plain(SALT, "*hello*");
    message.media_type = MediaType::Markdown;
    message.encode()
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
    // Where the map of extensions stands.
    let map = 1 + 17 + 1 + 1 + 1 + 1;
    // With a byte string in the place of a null.
    let replacing = |at: usize, head: &[u8], length: usize| {
        [&good[..at], head, &vec![0x1d; length], &good[at + 1..]].concat()
    };
    // Where the nested part's disposition stands: array, salt, null, empty, null, null, empty map, array.
    let part = 1 + 17 + 1 + 1 + 1 + 1 + 1 + 1;
    let cases = [
        ("another disposition", with(part, 2)),
        ("another cardinality", with(part + 2, 2)),
        ("another media type", with(part + 5, b'T')),
        ("an edit", replacing(1 + 17, &[0x58, 32], 32)),
        ("an answer", replacing(1 + 17 + 2, &[0x58, 32], 32)),
        (
            "an answer to an id of 31 bytes",
            replacing(1 + 17 + 2, &[0x58, 31], 31),
        ),
        ("Markdown", good_markdown()),
        (
            "an extension",
            [&good[..map], &[0xa1, 0x01, 0x02], &good[map + 1..]].concat(),
        ),
        (
            "an extension named by a float",
            [&good[..map], &[0xa1, 0xf9, 0x3c, 0, 0x02], &good[map + 1..]].concat(),
        ),
        (
            "an extension four arrays deep",
            [
                &good[..map],
                &[0xa1, 0x01, 0x81, 0x81, 0x81, 0x81, 0x01],
                &good[map + 1..],
            ]
            .concat(),
        ),
        (
            "extensions in another order",
            [
                &good[..map],
                &[0xa2, 0x02, 0x02, 0x01, 0x02],
                &good[map + 1..],
            ]
            .concat(),
        ),
        (
            "an extension twice",
            [
                &good[..map],
                &[0xa2, 0x01, 0x02, 0x01, 0x02],
                &good[map + 1..],
            ]
            .concat(),
        ),
        (
            "a length in two bytes for one",
            [&[0x98, 7], &good[1..]].concat(),
        ),
        (
            "an array of indefinite length",
            [&[0x9f], &good[1..], &[0xff]].concat(),
        ),
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
