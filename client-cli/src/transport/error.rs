//! What can go wrong between this device and its relay, told apart so that a person knows what to do.

use data_encoding::HEXLOWER;
use mortise_protocol::identity::Hash;
use mortise_protocol::wire::{CloseCode, FrameError};

/// Why there is no connection, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The relay's name has no address.
    #[error("cannot resolve the relay's address {address}: {reason}")]
    Resolve {
        /// What was asked for.
        address: String,
        /// What the resolver said.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer from the relay at {address} within {after_ms} ms")]
    Unreachable {
        /// What was tried.
        address: String,
        /// How long, ms.
        after_ms: u64,
    },
    /// The server holds another key than the one that the link pinned (REQ-002): never continue.
    #[error(
        "the relay at this address has key {}…, not {}… as pinned: this is another server, or somebody is in between",
        short(.actual), short(.expected)
    )]
    WrongFingerprint {
        /// The pin.
        expected: Hash,
        /// SHA-256 of the SubjectPublicKeyInfo that the server showed.
        actual: Hash,
    },
    /// The server does not speak this version of the protocol (ALPN).
    #[error("the server at this address does not speak mortise/1")]
    ProtocolMismatch,
    /// The relay takes no more connections now.
    #[error("the relay is full and takes no more connections now")]
    Refused,
    /// The TLS or QUIC handshake failed in another way.
    #[error("the handshake with the relay failed: {reason}")]
    Handshake {
        /// What the library said; holds no keys.
        reason: String,
    },
    /// The relay closed the connection, and said why (REQ-049).
    #[error("the relay closed the connection: {code}")]
    Closed {
        /// Why.
        code: CloseCode,
    },
    /// This side closed the connection.
    #[error("the connection was closed on this side")]
    ClosedHere,
    /// The connection died.
    #[error("the connection to the relay was lost: {reason}")]
    Lost {
        /// What the library said.
        reason: String,
    },
    /// The relay sent what no relay may send.
    #[error("the relay broke the protocol: {reason}")]
    BadRelay {
        /// What it did.
        reason: &'static str,
    },
    /// The relay announced a frame over the limit.
    #[error("the relay broke the protocol: {0}")]
    Frame(#[from] FrameError),
    /// Too much waits to be sent; nothing was queued.
    #[error("too much is waiting to be sent to the relay")]
    Backlogged,
    /// This machine has no usable socket.
    #[error("cannot open a network socket: {reason}")]
    Local {
        /// What the system said.
        reason: String,
    },
}

fn short(hash: &Hash) -> String {
    HEXLOWER.encode(&hash.0[..4])
}

/// TLS alert `no_application_protocol` as a QUIC transport error (RFC 9001 §4.8).
const NO_APPLICATION_PROTOCOL: u64 = 0x0100 + 120;

impl From<quinn::ConnectionError> for TransportError {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::ApplicationClosed(close) => Self::Closed {
                code: CloseCode(close.error_code.into_inner()),
            },
            E::LocallyClosed => Self::ClosedHere,
            E::ConnectionClosed(close) => from_code(close.error_code, || close.to_string()),
            E::TransportError(error) => from_code(error.code, || error.to_string()),
            E::VersionMismatch => Self::ProtocolMismatch,
            other => Self::Lost {
                reason: other.to_string(),
            },
        }
    }
}

fn from_code(code: quinn::TransportErrorCode, text: impl Fn() -> String) -> TransportError {
    match u64::from(code) {
        NO_APPLICATION_PROTOCOL => TransportError::ProtocolMismatch,
        code if code == u64::from(quinn::TransportErrorCode::CONNECTION_REFUSED) => {
            TransportError::Refused
        }
        // Crypto errors: a TLS alert by either side.
        0x0100..=0x01ff => TransportError::Handshake { reason: text() },
        _ => TransportError::Lost { reason: text() },
    }
}

impl From<quinn::WriteError> for TransportError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => error.into(),
            quinn::WriteError::Stopped(_) => Self::BadRelay {
                reason: "it stopped reading a stream",
            },
            _ => Self::BadRelay {
                reason: "a stream ended early",
            },
        }
    }
}

impl From<quinn::ReadExactError> for TransportError {
    fn from(error: quinn::ReadExactError) -> Self {
        match error {
            quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => {
                error.into()
            }
            _ => Self::BadRelay {
                reason: "a stream ended inside a frame",
            },
        }
    }
}
