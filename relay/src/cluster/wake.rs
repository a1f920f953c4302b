//! Hints between nodes over NATS core: "this log has a record with that seq". Lossy, and never believed.
//!
//! A hint makes a node look into the database, and nothing else; whoever can write to the NATS server can make nodes
//! look. What is lost is found by looking now and then: more often while NATS is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event as NatsEvent, Subscriber};
use futures_util::StreamExt as _;
use mortise_protocol::identity::{PublicKey, decode, encode, hash};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::core::Moved;
use crate::net::committer::{Event, Intake};

/// Messages that wait to be sent; more are dropped.
const MAX_WAITING: usize = 1_024;
/// Hints in one message.
const MAX_HINTS: usize = 256;
/// How often a node looks by itself.
const LOOK: Duration = Duration::from_secs(1);
/// How often it looks while nobody can tell it anything.
const LOOK_ALONE: Duration = Duration::from_millis(100);

/// Why there are no wake-ups.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WakeError {
    /// The address does not parse.
    #[error("the address of the NATS server does not parse: it looks like nats://host:4222")]
    Address,
}

/// The way out for hints.
#[derive(Clone, Debug)]
pub(crate) struct Wakes {
    out: mpsc::Sender<Vec<u8>>,
}

/// Hints that are still to be carried; [`Carrier::start`] begins.
pub(crate) struct Carrier {
    waiting: mpsc::Receiver<Vec<u8>>,
    address: async_nats::ServerAddr,
    subject: String,
}

impl Wakes {
    /// For the nodes of the relay with this statement key.
    ///
    /// # Errors
    /// [`WakeError::Address`].
    pub(crate) fn new(address: &str, relay: PublicKey) -> Result<(Self, Carrier), WakeError> {
        let address = address.parse().map_err(|_| WakeError::Address)?;
        let (out, waiting) = mpsc::channel(MAX_WAITING);
        let id = hash("relay's nodes", &relay.0).0;
        let subject = format!("mortise.{}", data_encoding::HEXLOWER.encode(&id[..16]));
        let carrier = Carrier {
            waiting,
            address,
            subject,
        };
        Ok((Self { out }, carrier))
    }

    /// Never waits: a hint for which there is no room is lost.
    pub(crate) fn send(&self, moved: Vec<Moved>) {
        for some in moved.chunks(MAX_HINTS) {
            drop(self.out.try_send(encode(&some.to_vec())));
        }
    }
}

impl Carrier {
    /// Carries hints both ways, and has the committer look, until the tasks are dropped.
    pub(crate) fn start(self, intake: Intake, tasks: &mut JoinSet<()>) {
        let is_connected = Arc::new(AtomicBool::new(false));
        tasks.spawn(look(intake.clone(), Some(Arc::clone(&is_connected))));
        tasks.spawn(self.carry(intake, is_connected));
    }

    async fn carry(self, intake: Intake, is_connected: Arc<AtomicBool>) {
        let options = ConnectOptions::new()
            .name("mortise-relay")
            .no_echo()
            .retry_on_initial_connect()
            .reconnect_delay_callback(|tries| Duration::from_millis((tries as u64 * 50).min(1_000)))
            .event_callback(move |event| note(event, Arc::clone(&is_connected)));
        let client = match options.connect(self.address).await {
            Ok(client) => client,
            Err(error) => {
                warn!(%error, "no NATS server: nodes find out by looking");
                return;
            }
        };
        match client.subscribe(self.subject.clone()).await {
            Ok(incoming) => exchange(&client, incoming, self.subject, self.waiting, &intake).await,
            Err(error) => warn!(%error, "no hints from other nodes: they are found by looking"),
        }
    }
}

async fn note(event: NatsEvent, is_connected: Arc<AtomicBool>) {
    match event {
        NatsEvent::Connected => {
            info!("connected to NATS");
            is_connected.store(true, Ordering::Relaxed);
        }
        NatsEvent::Disconnected | NatsEvent::Closed => {
            warn!("NATS is away: nodes find out by looking");
            is_connected.store(false, Ordering::Relaxed);
        }
        _ => {}
    }
}

async fn exchange(
    client: &Client,
    mut incoming: Subscriber,
    subject: String,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    intake: &Intake,
) {
    loop {
        // Biased: what was written here is told before what others tell is looked at.
        tokio::select! {
            biased;
            out = waiting.recv() => match out {
                Some(hints) => drop(client.publish(subject.clone(), hints.into()).await),
                None => return,
            },
            message = incoming.next() => match message {
                Some(message) => {
                    let hints: Vec<Moved> = decode(&message.payload).unwrap_or_default();
                    if intake.send(Event::Moved(hints)).await.is_err() {
                        return;
                    }
                }
                None => return,
            },
        }
    }
}

/// Has the committer look for what was not told; without NATS that is the only way.
pub(crate) async fn look(intake: Intake, is_connected: Option<Arc<AtomicBool>>) {
    loop {
        let told = is_connected
            .as_ref()
            .is_some_and(|c| c.load(Ordering::Relaxed));
        tokio::time::sleep(if told { LOOK } else { LOOK_ALONE }).await;
        if intake.send(Event::Look).await.is_err() {
            return;
        }
    }
}
