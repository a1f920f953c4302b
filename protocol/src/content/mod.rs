//! What is inside an application message: a subset of draft-ietf-mimi-content-08, as CBOR (REQ-095).
//!
//! This module must never be given anything but decrypted bytes, and never guess: what it does not
//! know is shown as unsupported.

mod canonical;
#[cfg(test)]
mod tests;
mod text;

pub use text::{MediaType, TextMessage};

use ciborium::Value;

/// Content that is not one CBOR item in the deterministic encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message's content does not decode")]
pub struct ContentError;

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A text to show.
    Text(TextMessage),
    /// Well-formed, of a kind that this version does not show.
    Unsupported,
}

/// Encodes a plain text message; `salt` is random and makes equal texts different messages.
#[must_use]
pub fn encode_text(salt: [u8; 16], text: &str) -> Vec<u8> {
    TextMessage::plain(salt, text).encode()
}

/// Decodes a message's content; refuses trailing bytes and every encoding but the deterministic one (REQ-140).
///
/// # Errors
/// [`ContentError`].
pub fn decode(bytes: &[u8]) -> Result<Content, ContentError> {
    let mut rest = bytes;
    let value: Value = ciborium::from_reader(&mut rest).map_err(|_| ContentError)?;
    // Only one encoding of an item is its deterministic one: what we would write is what must be there.
    if !rest.is_empty() || !canonical::keys_are_sorted(&value) || write(&value) != bytes {
        return Err(ContentError);
    }
    Ok(TextMessage::read(value).map_or(Content::Unsupported, Content::Text))
}

/// The encoding of an item: definite lengths, everything in its shortest form, maps in the order that they have.
fn write(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("writing into memory cannot fail");
    bytes
}
