//! A device that is online: a real engine on the client's driver, and what it has seen when.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use mortise_client::driver::{Link, Session};
use mortise_client::machine::system_rng;
use mortise_protocol::engine::{CommandKind, Engine, Event, save_identity};
use mortise_protocol::identity::GroupId;
use tokio::sync::broadcast;

use crate::bench::sample::now_us;
use crate::bench::worker::{Fixture, open_store};

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How long what was asked of a device may take.
const ANSWER: Duration = Duration::from_secs(300);

/// What a device has seen; times in microseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Per group, when this device was in it.
    pub(super) joined: BTreeMap<GroupId, u64>,
    /// Per group, when the first line came since [`Device::forget`].
    pub(super) first_line: BTreeMap<GroupId, u64>,
    /// When it learnt that it was removed.
    pub(super) expelled_us: Option<u64>,
    /// When it lost its connection, each time.
    pub(super) drops: Vec<(u64, String)>,
    /// What must not happen.
    pub(super) failures: Vec<String>,
}

/// A device that is online.
pub(super) struct Device {
    number: usize,
    session: Session,
    seen: Arc<Mutex<Seen>>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // What is in there is whole at every moment.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// Opens its store in `dir` and starts its session.
    pub(super) fn start(number: usize, fixture: &Fixture, dir: &Path) -> anyhow::Result<Self> {
        let mut store = open_store(dir, number)?;
        let identity = fixture.identity(number)?.context("no keys")?;
        save_identity(&mut store, &identity)?;
        let engine = Engine::open(store, Box::new(system_rng()))?;
        let session = Session::start(engine, CONNECT, false);
        let seen = Arc::default();
        let events = session.take_events().context("events were taken")?;
        tokio::spawn(watch_events(events, Arc::clone(&seen)));
        tokio::spawn(watch_link(session.status(), Arc::clone(&seen)));
        Ok(Self {
            number,
            session,
            seen,
        })
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Forgets which lines have come.
    pub(super) fn forget(&self) {
        self.seen().first_line.clear();
    }

    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        let settled = self.session.wait_synced(ANSWER).await;
        settled.with_context(|| format!("device {}", self.number))
    }

    pub(super) async fn close(&self) {
        self.session.close().await;
    }

    /// UDP payload bytes sent and received.
    pub(super) async fn traffic(&self) -> anyhow::Result<(u64, u64)> {
        let traffic = self.session.traffic().await?;
        Ok((traffic.sent, traffic.received))
    }

    /// Has the engine do something until it says what is asked for; that, when the command was on its way, and when the
    /// answer was here.
    pub(super) async fn ask<T>(
        &self,
        kind: CommandKind,
        mut answer: impl FnMut(Event) -> Option<T>,
    ) -> anyhow::Result<(T, u64, u64)> {
        let mut pending = self.session.command(kind).await?;
        let sent_us = now_us();
        loop {
            let event = pending.next("the bench's command", ANSWER).await?;
            if let Some(answer) = answer(event) {
                return Ok((answer, sent_us, now_us()));
            }
        }
    }

    /// Creates a group and adds its members.
    pub(super) async fn create(
        &self,
        name: String,
        members: Vec<mortise_protocol::identity::UserId>,
    ) -> anyhow::Result<GroupId> {
        let mut created = None;
        let kind = CommandKind::CreateGroup { name, members };
        let (group, _, _) = self
            .ask(kind, |event| match event {
                Event::GroupCreated { group, .. } => {
                    created = Some(group);
                    None
                }
                Event::Done { .. } => Some(created),
                _ => None,
            })
            .await?;
        let group = group.context("done before it was created")?;
        self.seen().joined.insert(group, now_us());
        Ok(group)
    }

    /// Fails if anything happened that must not.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self.seen().failures.first() {
            Some(why) => bail!("device {}: {why}", self.number),
            None => Ok(()),
        }
    }
}

async fn watch_events(mut events: broadcast::Receiver<Event>, seen: Arc<Mutex<Seen>>) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let missed = format!("{missed} events were missed");
                lock(&seen).failures.push(missed);
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let now = now_us();
        let mut seen = lock(&seen);
        match event {
            Event::Joined { group } => drop(seen.joined.insert(group, now)),
            Event::Message { group, .. } => {
                seen.first_line.entry(group).or_insert(now);
            }
            Event::Expelled => seen.expelled_us = Some(now),
            Event::Alarm(alarm) => seen.failures.push(alarm.to_string()),
            Event::Failed { error, .. } => seen.failures.push(error.to_string()),
            _ => {}
        }
    }
}

async fn watch_link(
    mut status: tokio::sync::watch::Receiver<mortise_client::driver::Status>,
    seen: Arc<Mutex<Seen>>,
) {
    let mut was_up = false;
    loop {
        {
            let now = status.borrow_and_update();
            if was_up && let Link::Down(why) = &now.link {
                lock(&seen).drops.push((now_us(), why.to_string()));
            }
            was_up = now.link == Link::Up;
            if let Some(fault) = &now.fault {
                lock(&seen).failures.push(format!("{fault:?}"));
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
