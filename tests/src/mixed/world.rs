//! An organisation whose devices run one stack or the other, on a real relay over QUIC.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mortise_client::machine::now_ms;
use mortise_protocol::engine::{CommandKind, Event, PinChoice};
use mortise_protocol::identity::{DeviceId, GroupId, LogSeq, UserId};
use mortise_protocol::roster::Role;
use mortise_relay::data_dir::DataDir;
use mortise_relay::{Relay, RelayConfig, RunningRelay};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::actor::{Manner, OtherDevice};
use super::group::{CommandId, Standing, Wish};
use super::peer::OurDevice;
use super::view::{GroupLook, View};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A device of either stack.
#[derive(Debug)]
pub enum Stack {
    /// openmls, in the product.
    Ours(OurDevice),
    /// mls-rs.
    Other(OtherDevice),
}

/// A device, and whether it is meant to be online.
#[derive(Debug)]
pub struct Member {
    /// Its stack.
    pub stack: Stack,
    /// Whether it is meant to be connected.
    pub online: bool,
}

impl Member {
    /// Whose it is.
    #[must_use]
    pub fn user(&self) -> UserId {
        match &self.stack {
            Stack::Ours(device) => device.user,
            Stack::Other(device) => device.user,
        }
    }

    /// Which it is.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        match &self.stack {
            Stack::Ours(device) => device.device,
            Stack::Other(device) => device.device,
        }
    }

    /// Whether its stack is mls-rs.
    #[must_use]
    pub fn is_other(&self) -> bool {
        matches!(self.stack, Stack::Other(_))
    }

    /// What can be seen of it.
    #[must_use]
    pub fn view(&self) -> View {
        match &self.stack {
            Stack::Ours(device) => device.view(),
            Stack::Other(device) => device.view(),
        }
    }
}

/// The organisation.
#[derive(Debug)]
pub struct World {
    relay: RunningRelay,
    dir: TempDir,
    /// The first has founded it.
    pub members: Vec<Member>,
    /// Every group that was made.
    pub groups: Vec<GroupId>,
    /// Whom the founder has put out.
    pub gone: Vec<UserId>,
    suite: u16,
    changed: Arc<watch::Sender<u64>>,
    last_command: AtomicU64,
}

impl World {
    /// Starts a relay, on which a device of ours founds an organisation.
    ///
    /// # Errors
    /// When any of it fails.
    pub async fn found(suite: u16) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("mortise-mixed-")
            .tempdir()?;
        let data = dir.path().join("relay");
        DataDir::init(&data, "127.0.0.1:0".parse()?, None)?;
        let relay = Relay::start(RelayConfig::new(data)).await?;
        let claim = relay.claim_link().await?;
        let changed = Arc::new(watch::channel(0).0);
        let path = dir.path().join("device-0.db");
        let founder = OurDevice::found(&claim, suite, path, Arc::clone(&changed)).await?;
        Ok(Self {
            relay,
            dir,
            members: vec![Member {
                stack: Stack::Ours(founder),
                online: true,
            }],
            groups: Vec::new(),
            gone: Vec::new(),
            suite,
            changed,
            last_command: AtomicU64::new(0),
        })
    }

    /// The suite of the organisation's groups.
    #[must_use]
    pub fn suite(&self) -> u16 {
        self.suite
    }

    fn founder(&self) -> anyhow::Result<&OurDevice> {
        match self.members.first().map(|member| &member.stack) {
            Some(Stack::Ours(device)) => Ok(device),
            _ => bail!("nobody has founded the organisation"),
        }
    }

    /// Has the founder do something.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn administer(&self, kind: CommandKind) -> anyhow::Result<Event> {
        self.founder()?.command(kind, PATIENCE).await
    }

    /// The founder puts a user out of the organisation.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn offboard(&mut self, user: UserId) -> anyhow::Result<()> {
        self.administer(CommandKind::RemoveUser { user }).await?;
        self.gone.push(user);
        for number in 0..self.members.len() {
            if self.members[number].user() == user {
                self.go(number, false).await?;
            }
        }
        Ok(())
    }

    /// A further device, of the other stack, for the user of a device of ours; its number.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn add_device(&mut self, number: usize, manner: Manner) -> anyhow::Result<usize> {
        let Stack::Ours(device) = &self.members[number].stack else {
            bail!("a device of the other stack invites nobody");
        };
        let kind = CommandKind::InviteDevice {
            expires_at_ms: now_ms() + 3_600_000,
            pin: PinChoice::Policy,
        };
        let link = self.link(device.command(kind, PATIENCE).await?)?;
        let changed = Arc::clone(&self.changed);
        let device = OtherDevice::join(&link, manner, changed).await?;
        self.members.push(Member {
            stack: Stack::Other(device),
            online: true,
        });
        Ok(self.members.len() - 1)
    }

    async fn invite(&self, kind: CommandKind) -> anyhow::Result<String> {
        self.link(self.administer(kind).await?)
    }

    /// The link of an invitation.
    fn link(&self, event: Event) -> anyhow::Result<String> {
        let Event::Invited { link, .. } = event else {
            bail!("not an invitation: {event:?}");
        };
        let (address, key) = (
            self.relay.local_addr().to_string(),
            self.relay.fingerprint(),
        );
        Ok(link.to_text(&address, key).to_string())
    }

    /// A new user with a device of this stack; its number.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn add_user(&mut self, role: Role, other: Option<Manner>) -> anyhow::Result<usize> {
        let kind = CommandKind::InviteUser {
            name: format!("user {}", self.members.len()),
            role,
            expires_at_ms: now_ms() + 3_600_000,
            pin: PinChoice::Policy,
        };
        let link = self.invite(kind).await?;
        let changed = Arc::clone(&self.changed);
        let stack = match other {
            Some(manner) => Stack::Other(OtherDevice::join(&link, manner, changed).await?),
            None => {
                let path = self
                    .dir
                    .path()
                    .join(format!("device-{}.db", self.members.len()));
                Stack::Ours(OurDevice::join(&link, path, changed).await?)
            }
        };
        self.members.push(Member {
            stack,
            online: true,
        });
        Ok(self.members.len() - 1)
    }

    /// Connects a device, or takes it off.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn go(&mut self, number: usize, online: bool) -> anyhow::Result<()> {
        let member = self.members.get_mut(number).context("no such device")?;
        member.online = online;
        match &mut member.stack {
            Stack::Ours(device) => device.go(online).await,
            Stack::Other(device) => device.go(online).await,
        }
    }

    /// Has a device create a group with these users.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn create(&mut self, number: usize, users: Vec<UserId>) -> anyhow::Result<GroupId> {
        let name = format!("group {}", self.groups.len());
        let group = match &self.members[number].stack {
            Stack::Ours(device) => device.create(&name, users, PATIENCE).await?,
            Stack::Other(device) => {
                let command = self.next_command();
                let group = device.create(command, &name, users).await?;
                self.outcome(number, command).await??;
                group
            }
        };
        self.groups.push(group);
        Ok(group)
    }

    /// Has a device do something in a group; the error within is that of the rules, the one outside is a fault.
    ///
    /// # Errors
    /// When nothing comes of it.
    pub async fn wish(
        &self,
        number: usize,
        group: GroupId,
        wish: Wish,
    ) -> anyhow::Result<Result<(), String>> {
        match &self.members[number].stack {
            Stack::Other(device) => {
                let command = self.next_command();
                device.wish(command, group, wish).await?;
                Ok(self
                    .outcome(number, command)
                    .await?
                    .map_err(|e| e.to_string()))
            }
            Stack::Ours(device) => {
                for kind in commands(group, wish) {
                    if let Err(error) = device.command(kind, PATIENCE).await {
                        return Ok(Err(format!("{error:#}")));
                    }
                }
                Ok(Ok(()))
            }
        }
    }

    fn next_command(&self) -> CommandId {
        self.last_command.fetch_add(1, Ordering::Relaxed)
    }

    async fn outcome(
        &self,
        number: usize,
        command: CommandId,
    ) -> anyhow::Result<anyhow::Result<()>> {
        let found = self
            .wait("the outcome of a wish", |members| {
                let view = members.get(number)?.view();
                view.outcomes.get(&command).cloned()
            })
            .await?;
        Ok(found.map_err(anyhow::Error::msg))
    }

    /// Waits, for any change, until `look` finds something.
    ///
    /// # Errors
    /// After [`PATIENCE`], with what is seen by then.
    pub async fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&[Member]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut news = self.changed.subscribe();
        let until = Instant::now() + PATIENCE;
        loop {
            news.borrow_and_update();
            if let Some(found) = look(&self.members) {
                return Ok(found);
            }
            let changed = timeout_at(until, news.changed()).await;
            ensure!(
                changed.is_ok_and(|changed| changed.is_ok()),
                "nothing came of: {what}\n{}",
                self.describe()
            );
        }
    }

    /// Waits until everybody who is online is done, and all agree on every group.
    ///
    /// # Errors
    /// As [`World::wait`]; or what must not happen has.
    pub async fn settle(&self) -> anyhow::Result<()> {
        self.wait("everybody settles", |members| {
            let failed = members.iter().any(|m| !m.view().faults.is_empty());
            (failed || is_settled(members, &self.groups, &self.gone)).then_some(())
        })
        .await?;
        self.check_faults()
    }

    /// Looks whether something has happened that must not.
    ///
    /// # Errors
    /// If so.
    pub fn check_faults(&self) -> anyhow::Result<()> {
        for (number, member) in self.members.iter().enumerate() {
            let faults = member.view().faults;
            let stack = if member.is_other() {
                "mls-rs"
            } else {
                "openmls"
            };
            ensure!(
                faults.is_empty(),
                "device {number} ({stack}): {}\n{}",
                faults.join("; "),
                self.describe()
            );
        }
        Ok(())
    }

    /// What is seen of everybody, for a failure.
    fn describe(&self) -> String {
        let mut text = String::new();
        for (number, member) in self.members.iter().enumerate() {
            let view = member.view();
            text += &format!(
                "  device {number} {}: online {}, settled {}, expelled {}, faults {:?}\n",
                if member.is_other() {
                    "mls-rs"
                } else {
                    "openmls"
                },
                member.online,
                view.settled,
                view.expelled,
                view.faults
            );
            for (nth, group) in self.groups.iter().enumerate() {
                if let Some(look) = view.groups.get(group) {
                    let authenticator = look.authenticator.iter().take(4);
                    let short: String = authenticator.map(|b| format!("{b:02x}")).collect();
                    text += &format!(
                        "    group {nth}: {:?}, epoch {}, {short}, {} members\n",
                        look.standing,
                        look.epoch,
                        look.members.len()
                    );
                }
            }
        }
        text
    }

    /// Ends it in good order.
    pub async fn close(self) {
        for member in self.members {
            if let Stack::Ours(mut device) = member.stack {
                // What is wrong with a store shows elsewhere.
                let _ = device.go(false).await;
            }
        }
        self.relay.shutdown().await;
    }
}

/// What a wish is for an engine.
fn commands(group: GroupId, wish: Wish) -> Vec<CommandKind> {
    match wish {
        Wish::Text(text) => vec![CommandKind::SendText { group, text }],
        Wish::Leave => vec![CommandKind::LeaveGroup { group }],
        Wish::Attest(_) => Vec::new(),
        Wish::Commit {
            add,
            remove,
            policy,
        } => {
            let add = (!add.is_empty()).then_some(CommandKind::AddMembers { group, users: add });
            let remove = remove
                .into_iter()
                .map(|user| CommandKind::RemoveMember { group, user });
            let change = policy
                .into_iter()
                .map(|change| CommandKind::ChangeGroup { group, change });
            add.into_iter().chain(remove).chain(change).collect()
        }
    }
}

/// Whether all who are online are done, and hold the same epoch of every group, without those who are gone.
fn is_settled(members: &[Member], groups: &[GroupId], gone: &[UserId]) -> bool {
    let here = members
        .iter()
        .filter(|member| member.online && !gone.contains(&member.user()));
    let here: Vec<(DeviceId, View)> = here.map(|m| (m.device(), m.view())).collect();
    here.iter().all(|(_, view)| view.settled)
        && groups.iter().all(|group| shows_all(&here, *group))
        && groups.iter().all(|group| agree(&here, *group, gone))
}

/// Whether all who are in a group, by their own word or by another's, hold the same epoch of it.
fn agree(here: &[(DeviceId, View)], group: GroupId, gone: &[UserId]) -> bool {
    let looks: BTreeMap<DeviceId, &GroupLook> = here
        .iter()
        .filter_map(|(device, view)| Some((*device, view.groups.get(&group)?)))
        .filter(|(_, look)| look.standing == Standing::Active)
        .collect();
    let Some(first) = looks.values().next() else {
        return true;
    };
    let same = |look: &&GroupLook| look == first;
    let is_here = |device: &DeviceId| here.iter().any(|(known, _)| known == device);
    first.members.iter().all(|(device, user)| {
        !gone.contains(user) && (!is_here(device) || looks.contains_key(device))
    }) && looks.values().all(same)
}

/// Whether everybody shows every text of the epochs that they were in.
fn shows_all(here: &[(DeviceId, View)], group: GroupId) -> bool {
    let texts = |view: &View| view.texts.get(&group).cloned().unwrap_or_default();
    let all = here.iter().flat_map(|(_, view)| texts(view));
    let all: BTreeSet<(u64, LogSeq)> = all.map(|line| (line.epoch, line.seq)).collect();
    here.iter().all(|(_, view)| {
        let shown: BTreeSet<LogSeq> = texts(view).iter().map(|line| line.seq).collect();
        all.iter().all(|(epoch, seq)| {
            let was_there = view.epochs.contains_key(&(group, *epoch));
            !was_there || shown.contains(seq)
        })
    })
}
