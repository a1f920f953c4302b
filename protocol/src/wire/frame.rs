//! The length prefix of a frame.

use tls_codec::Serialize;

use crate::identity::encode;

/// Bytes of the length prefix.
pub const FRAME_HEADER_BYTES: usize = 4;

/// A frame that is refused by its length alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than this side accepts now.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// What the peer announced, bytes.
        length: usize,
        /// What is accepted, bytes.
        limit: usize,
    },
    /// No body.
    #[error("an empty frame")]
    Empty,
}

/// A value as a frame: `uint32 length; opaque body[length]` (REQ-040).
///
/// # Panics
/// Never within the limits: no value of this protocol reaches 2^32 bytes.
#[must_use]
pub fn encode_frame<T: Serialize>(value: &T) -> Vec<u8> {
    let body = encode(value);
    let length = u32::try_from(body.len()).expect("no value within the limits is that long");
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// The length of the body that follows, checked before anything is allocated (REQ-040).
///
/// # Errors
/// [`FrameError`].
pub fn decode_frame_length(
    header: [u8; FRAME_HEADER_BYTES],
    limit: usize,
) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    match length {
        0 => Err(FrameError::Empty),
        length if length > limit => Err(FrameError::TooLarge { length, limit }),
        length => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-040: the limit is accepted, one more is not.
    #[test]
    fn lengths_are_checked_at_the_limit() {
        assert_eq!(decode_frame_length(10_u32.to_be_bytes(), 10), Ok(10));
        assert_eq!(
            decode_frame_length(11_u32.to_be_bytes(), 10),
            Err(FrameError::TooLarge {
                length: 11,
                limit: 10
            })
        );
        assert_eq!(decode_frame_length([0; 4], 10), Err(FrameError::Empty));
    }

    #[test]
    fn a_frame_is_its_length_and_its_body() {
        assert_eq!(encode_frame(&0x0102_u16), [0, 0, 0, 2, 1, 2]);
    }
}
