//! The relay on the network: a QUIC endpoint, one task per connection, one committer.
//!
//! `endpoint` takes connections, `connection` owns one, `stream` reads and writes frames, `outbox` bounds what
//! waits for a device, `committer` owns the core and the store. This module must never decide who may do what:
//! it carries questions to the core and answers back.

pub(crate) mod committer;
mod connection;
mod endpoint;
pub(crate) mod outbox;
pub(crate) mod reset;
mod stream;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mortise_protocol::wire::CloseCode;
use tokio::task::JoinSet;

pub use committer::Stopped;
pub use outbox::OutboxLimits;
use outbox::Total;

use committer::Intake;
use connection::Context;
use reset::ResetKeys;

/// How long devices have to hear that the relay shuts down.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why the relay is not on the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The TLS provider lacks the suite that QUIC begins with: a bug of this build.
    #[error("this build's TLS provider lacks TLS_AES_128_GCM_SHA256")]
    NoInitialSuite,
}

/// What the network side is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) max_connections: usize,
    pub(crate) outbox: OutboxLimits,
    pub(crate) unadmitted_timeout: Duration,
}

/// The endpoint and the task that owns its connections. Dropping it ends them without a goodbye.
#[derive(Debug)]
pub(crate) struct Listener {
    endpoint: quinn::Endpoint,
    local_addr: SocketAddr,
    accepting: JoinSet<()>,
}

impl Listener {
    /// Binds and begins to take connections. Must be called inside a tokio runtime.
    pub(crate) fn start(
        tls: rustls::ServerConfig,
        reset: ResetKeys,
        config: &NetConfig,
        intake: Intake,
    ) -> Result<Self, NetError> {
        let endpoint = endpoint::bind(tls, reset, config.listen)?;
        let local_addr = endpoint.local_addr().map_err(|error| NetError::Bind {
            address: config.listen,
            error,
        })?;
        let context = Context {
            intake,
            outbox: config.outbox,
            total: Total::default(),
            unadmitted_timeout: config.unadmitted_timeout,
        };
        let mut accepting = JoinSet::new();
        accepting.spawn(endpoint::accept(
            endpoint.clone(),
            context,
            config.max_connections,
        ));
        Ok(Self {
            endpoint,
            local_addr,
            accepting,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Tells every device, and lets go of the intake.
    pub(crate) async fn shutdown(mut self) {
        self.endpoint
            .close(stream::close_code(CloseCode::SHUTTING_DOWN), b"");
        // Who has not heard it by then finds out by itself.
        let heard = async {
            self.endpoint.wait_idle().await;
            self.accepting.join_next().await
        };
        let _ = tokio::time::timeout(GOODBYE, heard).await;
        self.accepting.shutdown().await;
    }
}
