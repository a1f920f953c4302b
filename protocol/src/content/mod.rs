//! What is inside an application message: a subset of draft-ietf-mimi-content, as CBOR (REQ-095).
//!
//! This module must never be given anything but decrypted bytes, and never guess: what it does not
//! know is shown as unsupported.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

/// The media type of plain text.
const TEXT: &str = "text/plain;charset=utf-8";
/// `disposition: render`.
const RENDER: u8 = 1;
/// `cardinality: single`.
const SINGLE: u8 = 1;

/// Content that is not a message of the form that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message's content does not decode")]
pub struct ContentError;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Well-formed, of a kind that this version does not show.
    Unsupported,
}

/// `mimiContent`: salt, replaces, topicId, expires, inReplyTo, extensions, nestedPart.
#[derive(Serialize, Deserialize)]
struct MimiContent(
    ByteArray<16>,
    Option<ByteBuf>,
    ByteBuf,
    Option<(bool, u32)>,
    Option<ByteBuf>,
    std::collections::BTreeMap<i64, ByteBuf>,
    NestedPart,
);

/// A single part: disposition, language, cardinality, contentType, content.
#[derive(Serialize, Deserialize)]
struct NestedPart(u8, String, u8, String, ByteBuf);

/// Encodes a text message; `salt` is random and makes equal texts different messages.
///
/// # Panics
/// Never: writing CBOR into memory cannot fail.
#[must_use]
pub fn encode_text(salt: [u8; 16], text: &str) -> Vec<u8> {
    let content = MimiContent(
        ByteArray::new(salt),
        None,
        ByteBuf::new(),
        None,
        None,
        std::collections::BTreeMap::new(),
        NestedPart(
            RENDER,
            String::new(),
            SINGLE,
            TEXT.into(),
            ByteBuf::from(text.as_bytes()),
        ),
    );
    let mut bytes = Vec::new();
    ciborium::into_writer(&content, &mut bytes).expect("writing into memory cannot fail");
    bytes
}

/// Decodes a message's content and refuses trailing bytes.
///
/// # Errors
/// [`ContentError`].
pub fn decode(bytes: &[u8]) -> Result<Content, ContentError> {
    let mut rest = bytes;
    let value: ciborium::Value = ciborium::from_reader(&mut rest).map_err(|_| ContentError)?;
    if !rest.is_empty() {
        return Err(ContentError);
    }
    let Ok(MimiContent(.., part)) = value.deserialized::<MimiContent>() else {
        return Ok(Content::Unsupported);
    };
    let NestedPart(disposition, _, SINGLE, media, body) = part else {
        return Ok(Content::Unsupported);
    };
    if disposition != RENDER || media != TEXT {
        return Ok(Content::Unsupported);
    }
    String::from_utf8(body.into_vec())
        .map(Content::Text)
        .map_err(|_| ContentError)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-095: text reads back, and the array has the draft's seven elements.
    #[test]
    fn text_reads_back() {
        let bytes = encode_text([7; 16], "grüß dich");
        assert_eq!(decode(&bytes), Ok(Content::Text("grüß dich".into())));
        assert_eq!(bytes[..2], [0x87, 0x50], "array(7), bytes(16)");
        assert_ne!(bytes, encode_text([8; 16], "grüß dich"));
    }

    #[test]
    fn garbage_is_refused_and_other_kinds_are_unsupported() {
        let bytes = encode_text([7; 16], "x");
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(ContentError));
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(ContentError));
        assert_eq!(decode(&[0x80]), Ok(Content::Unsupported));
    }
}
