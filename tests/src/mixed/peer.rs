//! A device of the product: its engine and its driver, on a store of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mortise_client::driver::{Link, Session};
use mortise_client::machine::{now_ms, system_rng};
use mortise_client::transport;
use mortise_protocol::engine::{
    Admission, AdmissionStep, CommandKind, Engine, Event, GroupStatusView, HistoryKind,
    save_identity,
};
use mortise_protocol::identity::{ClaimLink, DeviceId, GroupId, JoinLink, LogSeq, UserId};
use mortise_protocol::store::SqliteStore;
use rusqlite::Connection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::group::Standing;
use super::view::{GroupLook, Line, View};

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How long catching up may take.
const SYNC: Duration = Duration::from_secs(60);
/// Lines of history in one look.
const LINES: usize = 4_096;

/// A device of the product.
#[derive(Debug)]
pub struct OurDevice {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub device: DeviceId,
    path: PathBuf,
    session: Option<Arc<Session>>,
    view: Arc<watch::Sender<View>>,
    changed: Arc<watch::Sender<u64>>,
    watcher: Option<JoinHandle<()>>,
}

impl Drop for OurDevice {
    fn drop(&mut self) {
        self.stop_watching();
    }
}

fn open(path: &Path) -> anyhow::Result<SqliteStore> {
    let connection = Connection::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(SqliteStore::new(connection)?)
}

impl OurDevice {
    /// Founds the organisation.
    ///
    /// # Errors
    /// When the relay does not let it.
    pub async fn found(
        claim: &ClaimLink,
        suite: u16,
        path: PathBuf,
        changed: Arc<watch::Sender<u64>>,
    ) -> anyhow::Result<Self> {
        let (admission, _) =
            Admission::found(claim, "the founder", suite, &mut system_rng(), now_ms());
        Self::admit(admission, path, changed).await
    }

    /// Enters by an invitation.
    ///
    /// # Errors
    /// When the relay does not let it in.
    pub async fn join(
        link: &str,
        path: PathBuf,
        changed: Arc<watch::Sender<u64>>,
    ) -> anyhow::Result<Self> {
        let link = JoinLink::parse(link)?;
        let admission = tokio::task::block_in_place(|| Admission::join(link, &mut system_rng()));
        Self::admit(admission, path, changed).await
    }

    async fn admit(
        mut admission: Admission,
        path: PathBuf,
        changed: Arc<watch::Sender<u64>>,
    ) -> anyhow::Result<Self> {
        let mut store = open(&path)?;
        save_identity(&mut store, admission.identity())?;
        let relay = admission.identity().relay.clone();
        let key = admission.transport_key();
        let mut line = transport::connect(&relay.address, relay.key, key, CONNECT).await?;
        let mut frames = admission.start();
        loop {
            for frame in frames.drain(..) {
                line.send(&frame)?;
            }
            let Some(frame) = line.recv().await else {
                bail!("admission: {}", line.end());
            };
            match admission.handle_frame(now_ms(), frame)? {
                AdmissionStep::Wait => {}
                AdmissionStep::Send(more) => frames = more,
                AdmissionStep::Admitted => break,
            }
        }
        save_identity(&mut store, admission.identity())?;
        line.close().await;
        let (user, device) = (admission.identity().user, admission.identity().device);
        let mut this = Self {
            user,
            device,
            path,
            session: None,
            view: Arc::new(watch::channel(View::default()).0),
            changed,
            watcher: None,
        };
        drop(store);
        this.go(true).await?;
        Ok(this)
    }

    /// What can be seen of it now.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Its session, while it is online.
    ///
    /// # Errors
    /// When it is offline.
    pub fn session(&self) -> anyhow::Result<Arc<Session>> {
        self.session.clone().context("this device is offline")
    }

    /// Starts it, or stops it as a program is stopped.
    ///
    /// # Errors
    /// When its store does not open.
    pub async fn go(&mut self, online: bool) -> anyhow::Result<()> {
        if online && self.session.is_none() {
            let engine = Engine::open(open(&self.path)?, Box::new(system_rng()))?;
            let session = Arc::new(Session::start(engine, CONNECT, false));
            let watcher = Watcher {
                session: Arc::clone(&session),
                view: Arc::clone(&self.view),
                changed: Arc::clone(&self.changed),
            };
            self.watcher = Some(tokio::spawn(watcher.run()));
            session.wait_synced(SYNC).await?;
            self.session = Some(session);
        } else if !online && let Some(session) = self.session.take() {
            self.stop_watching();
            session.close().await;
            self.view.send_modify(|view| view.settled = true);
        }
        Ok(())
    }

    fn stop_watching(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
    }

    /// Hands a command to the engine and waits for the event by which it is answered.
    ///
    /// # Errors
    /// What the engine says, or nothing within `within`.
    pub async fn command(&self, kind: CommandKind, within: Duration) -> anyhow::Result<Event> {
        let mut pending = self.session()?.command(kind).await?;
        loop {
            let event = pending.next("a command of the script", within).await?;
            match event {
                Event::Delayed { .. } | Event::GroupCreated { .. } => {}
                event => return Ok(event),
            }
        }
    }

    /// Creates a group; returns when it and its members are in the log.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn create(
        &self,
        name: &str,
        members: Vec<UserId>,
        within: Duration,
    ) -> anyhow::Result<GroupId> {
        let name = name.to_owned();
        let kind = CommandKind::CreateGroup { name, members };
        let mut pending = self.session()?.command(kind).await?;
        let mut made = None;
        loop {
            match pending.next("a new group", within).await? {
                Event::GroupCreated { group, .. } => made = Some(group),
                Event::Done { .. } | Event::Appended { .. } => {
                    return made.context("the group is there, and was not created");
                }
                _ => {}
            }
        }
    }
}

/// Looks at a session whenever something has happened to it.
struct Watcher {
    session: Arc<Session>,
    view: Arc<watch::Sender<View>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Watcher {
    async fn run(self) {
        let Some(mut events) = self.session.take_events() else {
            return;
        };
        let mut status = self.session.status();
        loop {
            if let Err(error) = self.look().await {
                self.view
                    .send_modify(|view| view.faults.push(format!("{error:#}")));
                return;
            }
            self.changed.send_modify(|count| *count += 1);
            // Either is only the news that there is something to look at.
            tokio::select! {
                event = events.recv() => match event {
                    Ok(Event::Alarm(alarm)) => self.view.send_modify(|view| {
                        view.faults.push(alarm.to_string());
                    }),
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(_) => return,
                },
                changed = status.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn look(&self) -> anyhow::Result<()> {
        let groups = self.session.query(|engine| engine.groups()).await??;
        let ids: Vec<GroupId> = groups.iter().map(|group| group.id).collect();
        let read = move |engine: &mut mortise_client::driver::ClientEngine| {
            let read = |id| Ok((id, engine.messages(id, LogSeq(0), LINES)?));
            ids.into_iter()
                .map(read)
                .collect::<Result<Vec<_>, mortise_protocol::engine::EngineError>>()
        };
        let histories = self.session.query(read).await??;
        let status = self.session.status().borrow().clone();
        self.view.send_modify(|view| {
            view.settled = status.expelled || (status.synced && status.link == Link::Up);
            view.expelled = status.expelled;
            view.faults
                .extend(status.fault.map(|fault| format!("{fault:?}")));
            for group in groups {
                let standing = match group.status {
                    GroupStatusView::Active => Standing::Active,
                    GroupStatusView::Removed => Standing::Removed,
                    GroupStatusView::Closed => Standing::Closed,
                    GroupStatusView::Stopped(_) | GroupStatusView::Continued { .. } => {
                        Standing::Halted
                    }
                };
                if standing == Standing::Active {
                    let epoch = (group.id, group.epoch);
                    view.epochs.insert(epoch, group.epoch_authenticator.clone());
                }
                let look = GroupLook {
                    standing,
                    epoch: group.epoch,
                    authenticator: group.epoch_authenticator,
                    members: group.members.iter().map(|m| (m.device, m.user)).collect(),
                    admins: group.admins.into_iter().collect(),
                };
                view.groups.insert(group.id, look);
            }
            for (id, lines) in histories {
                let texts = lines.into_iter().filter_map(|line| match line.kind {
                    HistoryKind::Text(text) => Some(Line {
                        seq: line.seq,
                        epoch: line.epoch,
                        device: line.device?,
                        text,
                    }),
                    _ => None,
                });
                view.texts.insert(id, texts.collect());
            }
        });
        Ok(())
    }
}
