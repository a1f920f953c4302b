//! The one kind of message that this version shows: a single part of text that is rendered.

use ciborium::Value;

/// `disposition: render`.
const RENDER: u8 = 1;
/// `cardinality: single`.
const SINGLE: u8 = 1;
/// Elements of a `mimiContent`, and of a `NestedPart` that is a single part.
const MESSAGE_FIELDS: usize = 7;
const PART_FIELDS: usize = 5;
/// Bytes of a salt, and of a message's id.
const SALT_BYTES: usize = 16;
const MESSAGE_ID_BYTES: usize = 32;
/// Bytes of a text that names an extension (draft-ietf-mimi-content-08, data model).
const MAX_NAME_BYTES: usize = 255;
/// Integers that name an extension: those that a double represents, 2^53 excluded on both sides.
const MAX_NAME_INTEGER: u64 = (1 << 53) - 1;
/// How deep arrays, maps and tags may lie in one another, the map of extensions included.
const MAX_EXTENSION_DEPTH: u8 = 4;

/// The media types that are shown, as they stand in the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `text/plain;charset=utf-8`.
    Plain,
    /// `text/markdown;variant=GFM-MIMI`: shown as it was typed.
    Markdown,
}

impl MediaType {
    const ALL: [Self; 2] = [Self::Plain, Self::Markdown];

    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "text/plain;charset=utf-8",
            Self::Markdown => "text/markdown;variant=GFM-MIMI",
        }
    }
}

/// A text message: all of a `mimiContent` that has neither `replaces` nor `expires`, whose one part is rendered text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextMessage {
    /// What makes equal texts different messages; 16 bytes.
    pub salt: [u8; SALT_BYTES],
    /// The topic; empty when there is none.
    pub topic: Vec<u8>,
    /// The id of the message that this one answers.
    pub in_reply_to: Option<[u8; MESSAGE_ID_BYTES]>,
    /// The language of the text (RFC 5646); empty when it is not said.
    pub language: String,
    /// How the text is marked up.
    pub media_type: MediaType,
    /// The text.
    pub text: String,
    /// Carried along and not interpreted: who sent a message is what MLS says, whatever an extension claims.
    extensions: Vec<(Value, Value)>,
}

impl TextMessage {
    /// A plain text that answers nothing.
    #[must_use]
    pub fn plain(salt: [u8; SALT_BYTES], text: &str) -> Self {
        Self {
            salt,
            topic: Vec::new(),
            in_reply_to: None,
            language: String::new(),
            media_type: MediaType::Plain,
            text: text.to_owned(),
            extensions: Vec::new(),
        }
    }

    /// The message as a `mimiContent` (REQ-095): the very bytes that it was decoded from, if it was.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        super::write(&Value::Array(vec![
            bytes(&self.salt),
            Value::Null,
            bytes(&self.topic),
            Value::Null,
            self.in_reply_to.map_or(Value::Null, |id| bytes(&id)),
            Value::Map(self.extensions.clone()),
            Value::Array(vec![
                RENDER.into(),
                self.language.clone().into(),
                SINGLE.into(),
                self.media_type.as_str().into(),
                bytes(self.text.as_bytes()),
            ]),
        ]))
    }

    /// Reads an item; `None` when it is anything but a text message.
    pub(super) fn read(value: Value) -> Option<Self> {
        let fields: [Value; MESSAGE_FIELDS] = value.into_array().ok()?.try_into().ok()?;
        let [
            salt,
            replaces,
            topic,
            expires,
            in_reply_to,
            extensions,
            part,
        ] = fields;
        // An edit that is shown beside what it edits, or a message that outlives its time, would be a wrong rendering.
        if !replaces.is_null() || !expires.is_null() {
            return None;
        }
        let in_reply_to = match in_reply_to {
            Value::Null => None,
            id => Some(array(id)?),
        };
        let part: [Value; PART_FIELDS] = part.into_array().ok()?.try_into().ok()?;
        let [disposition, language, cardinality, media_type, content] = part;
        if disposition != Value::from(RENDER) || cardinality != Value::from(SINGLE) {
            return None;
        }
        let media_type = media_type.into_text().ok()?;
        Some(Self {
            salt: array(salt)?,
            topic: topic.into_bytes().ok()?,
            in_reply_to,
            language: language.into_text().ok()?,
            media_type: MediaType::ALL
                .into_iter()
                .find(|known| known.as_str() == media_type)?,
            text: String::from_utf8(content.into_bytes().ok()?).ok()?,
            extensions: read_extensions(extensions)?,
        })
    }
}

fn array<const N: usize>(value: Value) -> Option<[u8; N]> {
    value.into_bytes().ok()?.try_into().ok()
}

/// The map of extensions; `None` when it breaks the draft's data model.
fn read_extensions(value: Value) -> Option<Vec<(Value, Value)>> {
    if !is_within(&value, MAX_EXTENSION_DEPTH) {
        return None;
    }
    let entries = value.into_map().ok()?;
    entries
        .iter()
        .all(|(name, _)| is_name(name))
        .then_some(entries)
}

fn is_name(name: &Value) -> bool {
    match name {
        Value::Integer(number) => i128::from(*number).unsigned_abs() <= MAX_NAME_INTEGER.into(),
        Value::Text(text) => (1..=MAX_NAME_BYTES).contains(&text.len()),
        _ => false,
    }
}

/// Whether arrays, maps and tags lie at most `depth` deep in one another.
fn is_within(value: &Value, depth: u8) -> bool {
    let below = |inner: &Value| depth > 0 && is_within(inner, depth - 1);
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(below),
        Value::Map(entries) => depth > 0 && entries.iter().all(|(k, v)| below(k) && below(v)),
        Value::Tag(_, inner) => below(inner),
        _ => true,
    }
}
