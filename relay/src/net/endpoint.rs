//! The QUIC endpoint: transport limits, admission of new connections, Retry under load.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use mortise_protocol::wire::limits;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AckFrequencyConfig, Endpoint, ServerConfig, TokioRuntime, TransportConfig,
    ValidationTokenConfig, VarInt,
};
use rustix::net::sockopt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, error, info};

use super::NetError;
use super::connection::{Context, run};
use super::reset::ResetKeys;
use crate::core::ConnId;

/// What one stream may have in flight towards the relay, bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// What all streams of somebody who is not admitted may have in flight, bytes.
const WINDOW_UNADMITTED: u32 = 2 * 64 * 1024;
/// What all streams of an admitted device may have in flight: no stream that waits can starve another.
pub(super) const WINDOW_ADMITTED: u32 = (limits::MAX_STREAMS + 2) * STREAM_WINDOW;
/// What is in flight towards one device, bytes; the rest waits in its outbox.
const SEND_WINDOW: u64 = 4 * 1024 * 1024;
/// What the system is asked to buffer for the socket in each direction, bytes.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;
/// Devices are asked to acknowledge one packet in so many (draft-ietf-quic-ack-frequency), or after their usual delay.
const ACK_EVERY: u32 = 10;
/// A connection without a sign of life is dead after this, ms.
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// Connection attempts that wait to be looked at.
const MAX_INCOMING: usize = 1_024;
/// What one attempt, and all of them, may buffer before it is looked at, bytes.
const INCOMING_BYTES: u64 = 64 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 16 * 1024 * 1024;
/// Handshakes at once before a peer must prove its address with a Retry.
const MAX_UNVALIDATED_HANDSHAKES: usize = 64;

/// Binds the endpoint.
pub(super) fn bind(
    tls: rustls::ServerConfig,
    reset: ResetKeys,
    listen: SocketAddr,
) -> Result<Endpoint, NetError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| NetError::NoInitialSuite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    // Nothing that a device keeps tells an observer that it is back (REQ-004).
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .validation_token_config(tokens)
        .transport_config(Arc::new(transport()))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    let bound = socket(listen).and_then(|socket| {
        let endpoint = reset.endpoint_config();
        Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime))
    });
    bound.map_err(|error| NetError::Bind {
        address: listen,
        error,
    })
}

/// One socket serves everybody: with the system's usual buffers a burst of acknowledgements is lost.
fn socket(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(listen)?;
    // Beyond the system's limit only a privileged process is heard; the second call takes what the limit allows.
    let asked = sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER))
        .and_then(|()| sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER));
    if let Err(error) = asked {
        debug!(%error, "the socket keeps its buffers");
    }
    let given = sockopt::socket_recv_buffer_size(&socket)?;
    if given < SOCKET_BUFFER {
        info!(
            given,
            asked = SOCKET_BUFFER,
            "a small receive buffer: see net.core.rmem_max"
        );
    }
    Ok(socket)
}

fn transport() -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY - 1));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW_UNADMITTED))
        .send_window(SEND_WINDOW)
        .ack_frequency_config(Some(acknowledgements))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()));
    transport
}

/// Takes connections until the endpoint is closed. Dropping the future ends every connection.
pub(super) async fn accept(endpoint: Endpoint, context: Context, max_connections: usize) {
    let mut connections = JoinSet::new();
    let unvalidated = Arc::new(Semaphore::new(MAX_UNVALIDATED_HANDSHAKES));
    let mut next = 0;
    loop {
        // Biased: room is made before it is asked for.
        let incoming = tokio::select! {
            biased;
            Some(ended) = connections.join_next() => {
                if ended.is_err() {
                    error!("a connection's task failed");
                }
                continue;
            }
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming,
                None => break,
            },
        };
        if connections.len() >= max_connections {
            debug!("full: a connection was refused");
            incoming.refuse();
            continue;
        }
        let handshaking = Arc::clone(&unvalidated).try_acquire_owned().ok();
        if handshaking.is_none() && !incoming.remote_address_validated() {
            // Fails only for an address that is validated, and this one is not.
            let _ = incoming.retry();
            continue;
        }
        match incoming.accept() {
            Ok(connecting) => {
                next += 1;
                connections.spawn(run(connecting, ConnId(next), context.clone(), handshaking));
            }
            Err(reason) => debug!(%reason, "a connection attempt failed"),
        }
    }
    while connections.join_next().await.is_some() {}
}
