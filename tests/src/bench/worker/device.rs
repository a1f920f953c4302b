//! One device of many: its store, its session, and what it has seen when.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use mortise_client::driver::{Link, Session};
use mortise_client::machine::{now_ms, system_rng};
use mortise_client::transport;
use mortise_protocol::engine::{
    Admission, AdmissionStep, CommandKind, Engine, Event, HistoryKind, Identity, PinChoice,
    save_identity,
};
use mortise_protocol::identity::{GroupId, JoinLink, LogSeq};
use mortise_protocol::roster::Role;
use mortise_protocol::store::SqliteStore;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::protocol::{Answer, Fixture, Line, What};
use super::store;
use crate::bench::sample::now_us;

/// How long one attempt to connect may take: the machine is busy.
const CONNECT: Duration = Duration::from_secs(20);
/// How long what was asked of a device may take.
const ANSWER: Duration = Duration::from_secs(900);
/// Lines of history in one look.
const LINES: usize = 1_000;

/// What a device has seen so far; times in microseconds since 1970.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SeenDevice {
    /// When it was started.
    pub started_us: Option<u64>,
    /// When it was up to date for the first time.
    pub synced_us: Option<u64>,
    /// When it began to redeem an invitation, and when it was admitted.
    pub admission_us: Option<(u64, u64)>,
    /// When it was in the group.
    pub joined_us: Option<u64>,
    /// When it learnt that it was removed.
    pub expelled_us: Option<u64>,
    /// The newest record that its history shows.
    pub last_seq: u64,
    /// Each record that its history shows, and when.
    pub seen: Vec<(u64, u64)>,
    /// What came of what it was asked to do.
    pub answers: Vec<Answer>,
    /// What must not happen.
    pub failures: Vec<String>,
    /// How often its connection was lost.
    pub drops: u32,
    /// Why, the last time.
    pub last_drop: Option<String>,
}

/// One device.
pub(super) struct Device {
    number: usize,
    dir: PathBuf,
    fixture: Arc<Fixture>,
    seen: Mutex<SeenDevice>,
    session: Mutex<Option<Arc<Session>>>,
    group: Mutex<Option<GroupId>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    pub(super) fn new(number: usize, dir: &Path, fixture: Arc<Fixture>) -> Self {
        Self {
            number,
            dir: dir.to_owned(),
            fixture,
            seen: Mutex::default(),
            session: Mutex::default(),
            group: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, SeenDevice> {
        lock(&self.seen)
    }

    fn session(&self) -> anyhow::Result<Arc<Session>> {
        let session = lock(&self.session).clone();
        session.with_context(|| format!("device {} does not run", self.number))
    }

    fn open_store(&self) -> anyhow::Result<SqliteStore> {
        store::open(&self.dir, self.number)
    }

    /// What the fixture admitted; none for who joins by a link.
    fn identity(&self) -> anyhow::Result<Option<Identity>> {
        self.fixture.identity(self.number)
    }

    /// Starts its session, once.
    pub(super) fn start(self: &Arc<Self>) -> anyhow::Result<()> {
        if lock(&self.session).is_some() {
            return Ok(());
        }
        let mut store = self.open_store()?;
        if let Some(identity) = self.identity()? {
            save_identity(&mut store, &identity)?;
        }
        let engine = Engine::open(store, Box::new(system_rng()))?;
        self.seen().started_us = Some(now_us());
        let session = Arc::new(Session::start(engine, CONNECT, false));
        let events = session.take_events().context("events were taken")?;
        *lock(&self.session) = Some(Arc::clone(&session));
        tokio::spawn(Arc::clone(self).watch_events(events));
        tokio::spawn(Arc::clone(self).watch_status(session));
        Ok(())
    }

    /// Starts it, and waits until it is up to date.
    pub(super) async fn start_and_settle(self: &Arc<Self>) {
        let outcome = async {
            self.start()?;
            self.session()?.wait_synced(ANSWER).await?;
            anyhow::Ok(())
        };
        if let Err(error) = outcome.await {
            self.seen().failures.push(format!("{error:#}"));
        }
    }

    async fn watch_events(self: Arc<Self>, mut events: broadcast::Receiver<Event>) {
        loop {
            match events.recv().await {
                Ok(event) => self.note(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let missed = format!("{missed} events were missed");
                    self.seen().failures.push(missed);
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn note(&self, event: Event) {
        let now = now_us();
        let mut seen = self.seen();
        match event {
            Event::Joined { group } => {
                *lock(&self.group) = Some(group);
                seen.joined_us.get_or_insert(now);
            }
            Event::Message { seq, .. } => {
                seen.last_seq = seen.last_seq.max(seq.0);
                seen.seen.push((seq.0, now));
            }
            Event::Expelled => {
                seen.expelled_us.get_or_insert(now);
            }
            Event::Alarm(alarm) => seen.failures.push(alarm.to_string()),
            Event::Failed { error, .. } => seen.failures.push(error.to_string()),
            _ => {}
        }
    }

    async fn watch_status(self: Arc<Self>, session: Arc<Session>) {
        let mut status = session.status();
        drop(session);
        let mut was_up = false;
        loop {
            {
                let now = status.borrow_and_update();
                let mut seen = self.seen();
                if now.synced {
                    seen.synced_us.get_or_insert_with(now_us);
                }
                if was_up && let Link::Down(reason) = &now.link {
                    seen.drops += 1;
                    seen.last_drop = Some(reason.to_string());
                }
                was_up = now.link == Link::Up;
                if let Some(fault) = &now.fault {
                    seen.failures.push(format!("{fault:?}"));
                }
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Redeems an invitation, as the client does: the same admission, the same connection, Argon2id included.
    pub(super) async fn join(&self, link: &str) {
        if let Err(error) = self.admit(link).await {
            self.seen().failures.push(format!("{error:#}"));
        }
    }

    async fn admit(&self, link: &str) -> anyhow::Result<()> {
        let asked = now_us();
        let link = JoinLink::parse(link)?;
        let mut admission =
            tokio::task::block_in_place(|| Admission::join(link, &mut system_rng()));
        let mut store = self.open_store()?;
        save_identity(&mut store, admission.identity())?;
        let relay = admission.identity().relay.clone();
        let key = admission.transport_key();
        let mut connection = transport::connect(&relay.address, relay.key, key, CONNECT).await?;
        for frame in admission.start() {
            connection.send(&frame)?;
        }
        loop {
            let Some(frame) = connection.recv().await else {
                bail!("admission: {}", connection.end());
            };
            match admission.handle_frame(now_ms(), frame)? {
                AdmissionStep::Wait => {}
                AdmissionStep::Send(frames) => {
                    save_identity(&mut store, admission.identity())?;
                    for frame in frames {
                        connection.send(&frame)?;
                    }
                }
                AdmissionStep::Admitted => break,
            }
        }
        save_identity(&mut store, admission.identity())?;
        self.seen().admission_us = Some((asked, now_us()));
        connection.close().await;
        Ok(())
    }

    /// Does something, and keeps what comes of it.
    pub(super) async fn carry_out(&self, what: What) {
        if let Err(error) = self.try_carry_out(what).await {
            self.seen().failures.push(format!("{error:#}"));
        }
    }

    async fn try_carry_out(&self, what: What) -> anyhow::Result<()> {
        let session = self.session()?;
        let last = what.last_answer();
        let kind = self.command(what)?;
        let asked_us = now_us();
        let mut pending = session.command(kind).await?;
        loop {
            let event = pending.next("the bench's command", ANSWER).await?;
            let at_us = now_us();
            let Some(mut answer) = self.answer_of(&event).await? else {
                continue;
            };
            (answer.asked_us, answer.at_us) = (asked_us, at_us);
            let done = answer.what == last;
            self.seen().answers.push(answer);
            if done {
                return Ok(());
            }
        }
    }

    fn command(&self, what: What) -> anyhow::Result<CommandKind> {
        let group = || lock(&self.group).context("this device is in no group");
        Ok(match what {
            What::Invite { name } => CommandKind::InviteUser {
                name,
                role: Role::Member,
                expires_at_ms: now_ms() + 3_600_000,
                pin: PinChoice::Policy,
            },
            What::Create { users } => CommandKind::CreateGroup {
                name: "everybody".into(),
                members: users,
            },
            What::Send { text } => CommandKind::SendText {
                group: group()?,
                text,
            },
            What::RemoveUser { user } => CommandKind::RemoveUser { user },
            What::OrderStatus { order } => CommandKind::OrderStatus {
                order: mortise_protocol::identity::RosterSeq(order),
            },
        })
    }

    async fn answer_of(&self, event: &Event) -> anyhow::Result<Option<Answer>> {
        let answer = |what: &str, number: u64| Answer {
            what: what.into(),
            asked_us: 0,
            at_us: 0,
            number,
            text: String::new(),
            user: None,
        };
        Ok(match event {
            Event::Invited { user, link, .. } => {
                let (address, key) = (self.fixture.relay.as_str(), self.fixture.relay_key);
                Some(Answer {
                    text: link.to_text(address, key).to_string(),
                    user: Some(*user),
                    ..answer("invited", 0)
                })
            }
            Event::GroupCreated { group, .. } => {
                *lock(&self.group) = Some(*group);
                Some(answer("created", 0))
            }
            Event::Appended { seq, .. } => Some(answer("appended", seq.0)),
            Event::Done { .. } => Some(answer("done", 0)),
            Event::Ordered { order, .. } => Some(answer("ordered", order.0)),
            Event::OrderStatus { groups, .. } => {
                let rows = groups
                    .iter()
                    .map(|g| format!("{:?} by {}", g.state, g.attested_by.len()));
                Some(Answer {
                    text: rows.collect::<Vec<_>>().join(", "),
                    ..answer("status", 0)
                })
            }
            _ => None,
        })
    }

    pub(super) fn look(&self, after: u64) -> SeenDevice {
        let mut copy = self.seen().clone();
        copy.seen.retain(|(seq, _)| *seq > after);
        copy
    }

    /// Lines of its history.
    pub(super) async fn lines(&self, after: u64) -> anyhow::Result<Vec<Line>> {
        let Some(group) = *lock(&self.group) else {
            return Ok(Vec::new());
        };
        let lines = self
            .session()?
            .query(move |engine| engine.messages(group, LogSeq(after), LINES))
            .await??;
        let line = |l: &mortise_protocol::engine::HistoryRecord| Line {
            seq: l.seq.0,
            at_ms: l.at_ms,
            kind: kind_of(&l.kind).into(),
        };
        Ok(lines.iter().map(line).collect())
    }

    /// The epoch and its authenticator, if it is in the group.
    pub(super) async fn state(&self) -> anyhow::Result<Option<(u64, Vec<u8>)>> {
        let Ok(session) = self.session() else {
            return Ok(None);
        };
        if self.seen().expelled_us.is_some() {
            return Ok(None);
        }
        let views = session.query(|engine| engine.groups()).await??;
        let view = views
            .into_iter()
            .find(|view| view.status == mortise_protocol::engine::GroupStatusView::Active);
        Ok(view.map(|view| (view.epoch, view.epoch_authenticator)))
    }

    /// UDP payload bytes sent and received.
    pub(super) async fn traffic(&self) -> anyhow::Result<(u64, u64)> {
        let Ok(session) = self.session() else {
            return Ok((0, 0));
        };
        let traffic = session.traffic().await?;
        Ok((traffic.sent, traffic.received))
    }
}

impl What {
    /// The answer after which nothing more comes.
    fn last_answer(&self) -> &'static str {
        match self {
            Self::Invite { .. } => "invited",
            Self::Create { .. } => "done",
            Self::Send { .. } => "appended",
            Self::RemoveUser { .. } => "ordered",
            Self::OrderStatus { .. } => "status",
        }
    }
}

fn kind_of(kind: &HistoryKind) -> &'static str {
    match kind {
        HistoryKind::Text(_) => "text",
        HistoryKind::Opened => "opened",
        HistoryKind::Added(_) => "added",
        HistoryKind::Removed(_) => "removed",
        HistoryKind::Rotated { .. } => "rotated",
        HistoryKind::Refreshed => "refreshed",
        HistoryKind::Refused(_) => "refused",
        _ => "other",
    }
}
