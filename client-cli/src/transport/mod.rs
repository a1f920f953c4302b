//! The connection from a device to its relay: QUIC, TLS 1.3, frames.
//!
//! [`connect`] opens it; [`Connection::send`] routes a frame to its stream, [`Connection::recv`] yields
//! what comes back, from all streams through one bounded queue. Nothing here retries: the driver decides
//! when to connect again. This module must never interpret a frame beyond choosing its stream.

mod dial;
mod error;
mod streams;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use mortise_protocol::identity::{Hash, SigningKey};
use mortise_protocol::wire::{ClientToRelay, CloseCode, ConnectionBinding, RelayToClient, log};

pub use error::TransportError;
use streams::Streams;

/// How long [`Connection::close`] waits for the goodbye to be delivered.
const GOODBYE: Duration = Duration::from_secs(2);

/// Connects to the relay at `address` (`host:port`), whose key must have the fingerprint `pin`, as the
/// device with the transport key `key`.
///
/// All addresses of the host are tried, each a little after the one before; the first that answers wins.
///
/// # Errors
/// [`TransportError`]; with several addresses, the most telling one.
pub async fn connect(
    address: &str,
    pin: Hash,
    key: Arc<SigningKey>,
    timeout: Duration,
) -> Result<Connection, TransportError> {
    let (endpoint, quic) = dial::dial(address, pin, key, timeout).await?;
    let mut binding = ConnectionBinding([0; 32]);
    quic.export_keying_material(&mut binding.0, log::BINDING_LABEL, b"")
        .map_err(|_| TransportError::Handshake {
            reason: "TLS exported no keying material".into(),
        })?;
    Ok(Connection {
        streams: Streams::spawn(quic.clone()),
        endpoint,
        quic,
        binding,
    })
}

/// What has crossed the network, in UDP payload bytes: acknowledgements, retransmissions and handshakes included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To the relay, bytes.
    pub sent: u64,
    /// From the relay, bytes.
    pub received: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    streams: Streams,
    endpoint: quinn::Endpoint,
    quic: quinn::Connection,
    binding: ConnectionBinding,
}

impl Connection {
    /// What access proofs on this connection are bound to (REQ-052).
    #[must_use]
    pub fn binding(&self) -> ConnectionBinding {
        self.binding
    }

    /// Queues a frame for its stream; never waits.
    ///
    /// `Hello` and `Subscribe` share the live stream, `CreateGroup` and `Submit` the submit stream; each keeps
    /// its order. Every other request has a stream of its own, and no order. Nothing may be sent before `Hello`,
    /// and only unary requests may overtake its answer.
    ///
    /// # Errors
    /// [`TransportError::Backlogged`] when too much is queued already; why the connection ended, when it has.
    pub fn send(&self, frame: &ClientToRelay) -> Result<(), TransportError> {
        match self.streams.send(frame) {
            Err(_) if self.quic.close_reason().is_some() => Err(self.end()),
            result => result,
        }
    }

    /// The next frame from the relay, or `None` when the connection has ended: see [`Connection::end`].
    ///
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Option<RelayToClient> {
        self.streams.recv().await
    }

    /// A frame from the relay that is here already, if there is one.
    pub fn ready(&mut self) -> Option<RelayToClient> {
        self.streams.ready()
    }

    /// What this connection has cost so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let stats = self.quic.stats();
        Traffic {
            sent: stats.udp_tx.bytes,
            received: stats.udp_rx.bytes,
        }
    }

    /// Why the connection ended.
    #[must_use]
    pub fn end(&self) -> TransportError {
        self.streams
            .fault()
            .or_else(|| self.quic.close_reason().map(TransportError::from))
            .unwrap_or(TransportError::ClosedHere)
    }

    /// Says goodbye and waits, briefly, until the relay has heard it.
    pub async fn close(self) {
        let code = quinn::VarInt::from_u32(0);
        debug_assert_eq!(code.into_inner(), CloseCode::NORMAL.0);
        self.quic.close(code, b"");
        // Whether it was heard changes nothing: the relay would time the connection out.
        let _ = tokio::time::timeout(GOODBYE, self.endpoint.wait_idle()).await;
    }
}
