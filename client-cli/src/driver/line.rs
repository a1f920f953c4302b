//! The line to the relay: off, waiting to dial, dialling, or up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mortise_protocol::identity::{Hash, SigningKey};
use mortise_protocol::wire::RelayToClient;
use tokio::time::Instant;

use crate::transport::{self, Connection, Traffic, TransportError};

type Dialing = Pin<Box<dyn Future<Output = Result<Connection, TransportError>> + Send>>;

/// Where the line stands.
pub(super) enum Line {
    /// Nobody dials.
    Off,
    /// Until then.
    Waiting(Instant),
    /// An attempt is under way.
    Dialing(Dialing),
    /// Connected.
    Up(Connection),
}

/// What happened on the line.
pub(super) enum LineEvent {
    /// The wait is over.
    Redial,
    /// The attempt succeeded.
    Connected(Connection),
    /// The attempt failed.
    Failed(TransportError),
    /// A frame came in.
    Frame(RelayToClient),
    /// The connection ended.
    Ended(TransportError),
}

impl Line {
    /// Begins an attempt.
    pub(super) fn dial(address: String, pin: Hash, key: Arc<SigningKey>, within: Duration) -> Self {
        Self::Dialing(Box::pin(async move {
            transport::connect(&address, pin, key, within).await
        }))
    }

    /// What the connection, if there is one, has cost so far.
    pub(super) fn traffic(&self) -> Traffic {
        match self {
            Self::Up(connection) => connection.traffic(),
            Self::Off | Self::Waiting(_) | Self::Dialing(_) => Traffic::default(),
        }
    }

    /// A frame that is here already, if there is one.
    pub(super) fn ready(&mut self) -> Option<RelayToClient> {
        match self {
            Self::Up(connection) => connection.ready(),
            Self::Off | Self::Waiting(_) | Self::Dialing(_) => None,
        }
    }

    /// The next thing that happens; never, while it is off. Cancel-safe.
    pub(super) async fn next(&mut self) -> LineEvent {
        match self {
            Self::Off => std::future::pending().await,
            Self::Waiting(until) => {
                tokio::time::sleep_until(*until).await;
                LineEvent::Redial
            }
            Self::Dialing(attempt) => match attempt.await {
                Ok(connection) => LineEvent::Connected(connection),
                Err(error) => LineEvent::Failed(error),
            },
            Self::Up(connection) => match connection.recv().await {
                Some(frame) => LineEvent::Frame(frame),
                None => LineEvent::Ended(connection.end()),
            },
        }
    }
}
