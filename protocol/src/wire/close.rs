//! Why a connection ends: the application error codes of QUIC's CONNECTION_CLOSE (REQ-049).

use std::fmt;

/// An application close code (RFC 9000 §19.19). Codes that this version does not know are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u64);

impl CloseCode {
    /// The side that closes is done.
    pub const NORMAL: Self = Self(0);
    /// An order named this device; it is not admitted any more.
    pub const REMOVED: Self = Self(1);
    /// The peer read too slowly; the device reconnects and pulls from its cursor.
    pub const TOO_SLOW: Self = Self(2);
    /// The peer broke the framing or the protocol.
    pub const MALFORMED: Self = Self(3);
    /// The peer was not admitted in time.
    pub const TIMEOUT: Self = Self(4);
    /// The relay is shutting down; the device reconnects later.
    pub const SHUTTING_DOWN: Self = Self(5);
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::NORMAL => "NORMAL",
            Self::REMOVED => "REMOVED",
            Self::TOO_SLOW => "TOO_SLOW",
            Self::MALFORMED => "MALFORMED",
            Self::TIMEOUT => "TIMEOUT",
            Self::SHUTTING_DOWN => "SHUTTING_DOWN",
            Self(other) => return write!(f, "code {other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-049: the codes are what the specification says, each once.
    #[test]
    fn the_codes_are_the_specified_ones() {
        let codes = [
            CloseCode::NORMAL,
            CloseCode::REMOVED,
            CloseCode::TOO_SLOW,
            CloseCode::MALFORMED,
            CloseCode::TIMEOUT,
            CloseCode::SHUTTING_DOWN,
        ];
        assert_eq!(codes.map(|code| code.0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(CloseCode::REMOVED.to_string(), "REMOVED");
        assert_eq!(CloseCode(99).to_string(), "code 99");
    }
}
