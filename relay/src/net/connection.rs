//! One connection: handshake, streams, and the reasons to end it.
//!
//! One task per connection, owned by the endpoint's set and aborted with it; its streams are served by the same task.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mortise_protocol::wire::{CloseCode, limits};
use quinn::{Connecting, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, error};

use super::committer::{Event, Intake};
use super::endpoint::WINDOW_ADMITTED;
use super::outbox::{Outbox, OutboxLimits, Total};
use super::stream::{Shared, close_code, serve};
use super::tls;
use crate::core::ConnId;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a device that is closed for a reason has to take what explains it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection needs from the endpoint.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) intake: Intake,
    pub(super) outbox: OutboxLimits,
    pub(super) total: Total,
    pub(super) unadmitted_timeout: Duration,
}

/// Completes the handshake and serves the connection until it ends; `handshaking` is released in between.
pub(super) async fn run(
    connecting: Connecting,
    conn: ConnId,
    context: Context,
    handshaking: Option<OwnedSemaphorePermit>,
) {
    let quic = match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(quic)) => quic,
        Ok(Err(reason)) => return debug!(conn = conn.0, %reason, "handshake failed"),
        Err(_) => return debug!(conn = conn.0, "handshake timed out"),
    };
    drop(handshaking);
    let Some((transport_key, binding)) = tls::peer(&quic) else {
        // The verifier let nothing else through: this is a bug here, not the peer's.
        error!(conn = conn.0, "a connection without a raw public key");
        return quic.close(close_code(CloseCode::MALFORMED), b"");
    };
    let outbox = Outbox::new(context.outbox, context.total.clone());
    let shared = Shared {
        conn,
        outbox: Arc::clone(&outbox),
        intake: context.intake.clone(),
        inbound: Arc::new(Semaphore::new(limits::MAX_FRAME_BYTES_UNADMITTED)),
    };
    let connected = Event::Connected {
        conn,
        transport_key,
        binding,
        outbox: Arc::clone(&outbox),
    };
    if context.intake.send(connected).await.is_err() {
        return quic.close(close_code(CloseCode::SHUTTING_DOWN), b"");
    }
    debug!(conn = conn.0, "connected");
    let ended = drive(&quic, &shared, context.unadmitted_timeout).await;
    if let Some(code) = ended {
        debug!(conn = conn.0, %code, "closing");
        quic.close(close_code(code), b"");
    }
    debug!(conn = conn.0, "disconnected");
    // Fails only when the relay is shutting down, and the committer with it.
    let _ = context.intake.send(Event::Disconnected { conn }).await;
}

/// Serves streams until the connection is to be closed, with the code, or is gone.
async fn drive(quic: &quinn::Connection, shared: &Shared, patience: Duration) -> Option<CloseCode> {
    let mut streams = FuturesUnordered::new();
    let mut admitted = false;
    let too_late = tokio::time::sleep(patience);
    tokio::pin!(too_late);
    loop {
        // Biased: an order to close comes before any new work.
        tokio::select! {
            biased;
            () = shared.outbox.changed() => {
                if let Some(closing) = shared.outbox.closing() {
                    if closing.flush {
                        // The streams' queues have ended; what is in them goes out, to a peer that takes it.
                        let drain = async { while streams.next().await.is_some() {} };
                        let _ = tokio::time::timeout(FLUSH_TIMEOUT, drain).await;
                    }
                    return Some(closing.code);
                }
                if shared.outbox.is_admitted() && !admitted {
                    admitted = true;
                    quic.set_receive_window(VarInt::from_u32(WINDOW_ADMITTED));
                    let more = limits::MAX_FRAME_BYTES - limits::MAX_FRAME_BYTES_UNADMITTED;
                    shared.inbound.add_permits(more);
                }
            }
            () = &mut too_late, if !admitted => return Some(CloseCode::TIMEOUT),
            Some(()) = streams.next() => {}
            opened = quic.accept_bi() => match opened {
                Ok((send, recv)) => streams.push(serve(shared.clone(), send, recv)),
                Err(_) => return None,
            },
        }
    }
}
