//! A modified client on the leaver's keys: it subscribes to everything and never hangs up by itself.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mortise_client::machine::now_ms;
use mortise_client::transport::{TransportError, connect};
use mortise_protocol::engine::{Engine, Input, Output};
use mortise_protocol::identity::{GroupId, LogSeq, RosterSeq};
use mortise_protocol::store::SqliteStore;
use mortise_protocol::wire::{CloseCode, Push, RelayToClient, Request, Response};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);

/// What came over the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The relay has accepted a subscription.
    Subscribed,
    /// A record of a group.
    Record {
        /// The group.
        group: GroupId,
        /// Its position.
        seq: LogSeq,
        /// The fence that it was appended under.
        fence: RosterSeq,
    },
    /// The line is dead.
    Closed(TransportError),
}

/// An open line.
#[derive(Debug)]
pub struct Tap {
    heard: Vec<(Instant, Heard)>,
    incoming: Receiver<(Instant, Heard)>,
    task: JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tap {
    /// Connects as the device that `engine` is, and waits until its `groups` subscriptions stand.
    ///
    /// # Errors
    /// When the relay does not let it in: it must, while the device is admitted.
    pub fn open(
        runtime: &Runtime,
        engine: Engine<SqliteStore>,
        groups: usize,
    ) -> anyhow::Result<Self> {
        let (tx, incoming) = channel();
        let mut this = Self {
            heard: Vec::new(),
            incoming,
            task: runtime.spawn(listen(engine, tx)),
        };
        this.wait(|heard| {
            let subscribed = heard.iter().filter(|(_, h)| *h == Heard::Subscribed);
            subscribed.count() >= groups
        })
        .context("tap the leaver's groups before the removal")?;
        Ok(this)
    }

    /// Waits until this many groups have brought a record: the control.
    ///
    /// # Errors
    /// When they have not in time.
    pub fn hears_groups(&mut self, groups: usize) -> anyhow::Result<usize> {
        let distinct = |heard: &[(Instant, Heard)]| {
            let ids = heard.iter().filter_map(|(_, h)| match h {
                Heard::Record { group, .. } => Some(*group),
                _ => None,
            });
            ids.collect::<std::collections::BTreeSet<_>>().len()
        };
        self.wait(|heard| distinct(heard) >= groups)
            .context("hear every group before the removal")?;
        Ok(distinct(&self.heard))
    }

    /// Waits for the end of the line: when it came, and why.
    ///
    /// # Errors
    /// When it was not cut in time.
    pub fn closed(&mut self) -> anyhow::Result<(Instant, TransportError)> {
        let find = |heard: &[(Instant, Heard)]| {
            heard.iter().find_map(|(at, h)| match h {
                Heard::Closed(error) => Some((*at, error.clone())),
                _ => None,
            })
        };
        self.wait(|heard| find(heard).is_some())
            .context("the leaver's second connection was not cut")?;
        find(&self.heard).context("the end of the line")
    }

    /// Records that were appended under an order, and came nevertheless.
    #[must_use]
    pub fn leaked(&self, order: RosterSeq) -> usize {
        let late = |h: &Heard| matches!(h, Heard::Record { fence, .. } if *fence >= order);
        self.heard.iter().filter(|(_, h)| late(h)).count()
    }

    /// Whether it was cut because an order named the device.
    #[must_use]
    pub fn is_removal(error: &TransportError) -> bool {
        matches!(error, TransportError::Closed { code } if *code == CloseCode::REMOVED)
    }

    fn wait(&mut self, done: impl Fn(&[(Instant, Heard)]) -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while !done(&self.heard) {
            let left = until.saturating_duration_since(Instant::now());
            match self.incoming.recv_timeout(left) {
                Ok(heard) => self.heard.push(heard),
                Err(RecvTimeoutError::Timeout) => bail!("nothing in time"),
                Err(RecvTimeoutError::Disconnected) => bail!("the line is dead"),
            }
        }
        Ok(())
    }
}

async fn listen(mut engine: Engine<SqliteStore>, heard: Sender<(Instant, Heard)>) {
    let say = |what| heard.send((Instant::now(), what)).is_ok();
    let relay = engine.relay().clone();
    let key = engine.transport_key();
    let mut connection = match connect(&relay.address, relay.key, key, PATIENCE).await {
        Ok(connection) => connection,
        Err(error) => {
            say(Heard::Closed(error));
            return;
        }
    };
    let mut input = Some(Input::Connected(connection.binding()));
    loop {
        let outputs = input.take().map(|input| engine.handle(now_ms(), input));
        for output in outputs.into_iter().flatten().flatten() {
            // It listens and changes nothing: the honest device has the same keys.
            if let Output::Send(frame) = output
                && matches!(
                    frame.request,
                    Request::Hello { .. } | Request::Subscribe { .. }
                )
            {
                // A line that is dead says so below.
                let _ = connection.send(&frame);
            }
        }
        let Some(frame) = connection.recv().await else {
            say(Heard::Closed(connection.end()));
            return;
        };
        if !report(&frame, say) {
            return;
        }
        input = Some(Input::Frame(frame));
    }
}

/// Whether anybody still listens.
fn report(frame: &RelayToClient, say: impl Fn(Heard) -> bool) -> bool {
    match frame {
        RelayToClient::Response {
            response: Response::Subscribed { .. },
            ..
        } => say(Heard::Subscribed),
        RelayToClient::Push(Push::Records { group, records }) => records.iter().all(|record| {
            say(Heard::Record {
                group: *group,
                seq: record.seq,
                fence: record.fence,
            })
        }),
        _ => true,
    }
}
