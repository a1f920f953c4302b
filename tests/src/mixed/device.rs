//! The other stack's device: a state machine from frames and wishes to frames, as sections 8 to 13 ask for it.
//!
//! Inputs: [`Device::connected`], [`Device::disconnected`], [`Device::handle_frame`], [`Device::wish`],
//! [`Device::create_group`], [`Device::tick`]. Outputs: [`Device::take_frames`], [`Device::take_outcomes`].
//! Reading the log is in `log.rs`, what is sent and when in `turn.rs`. It keeps everything in memory: a process that ends
//! is no part of what is tested with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail, ensure};
use mls_rs::ExtensionList;
use mortise_protocol::group::GroupPolicy;
use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, OrgId, RosterSeq, SigningKey, UserId, encode,
};
use mortise_protocol::roster::{Applied, Roster};
use mortise_protocol::wire::log::entry_hash;
use mortise_protocol::wire::{
    AccessProof, ClientToRelay, ConnectionBinding, Flag, InboxItem, OrderPosition, Purpose, Push,
    RecordBody, Refusal, RelayToClient, Request, RequestId, Response,
};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

use super::crypto::OneSuite;
use super::group::{Claim, CommandId, Held, Standing, Todo, Wish};
use super::rules::Leaf;
use super::stack::{self, MlsClient, SharedRoster};

/// One-time KeyPackages in a full stock.
const STOCK: u32 = 12;
/// How many records the relay may push before it is asked again.
const CREDIT: u32 = 256;

/// What a device is, from the beginning.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) org: OrgId,
    pub(super) user: UserId,
    pub(super) mls: Arc<SigningKey>,
    /// The entry that the link pins, and the device's own.
    pub(super) pins: Vec<(RosterSeq, Hash)>,
    pub(super) suite: OneSuite,
    /// Whether commits that only add have a path.
    pub(super) always_path: bool,
    /// How long others may do what nobody was asked to do, ms.
    pub(super) patience_ms: u64,
    pub(super) seed: u64,
}

/// What came of a wish.
pub(super) type Outcome = Result<(), String>;

/// What a question was for.
pub(super) enum Asked {
    Hello,
    Roster,
    Claim(GroupId),
    Create(GroupId),
    Submit(GroupId, Hash),
    Subscribe(GroupId, Epoch),
    Inbox,
    Other,
}

/// A device.
pub(super) struct Device {
    pub(super) me: Leaf,
    pub(super) key: Arc<SigningKey>,
    pub(super) roster: SharedRoster,
    pub(super) client: MlsClient,
    pub(super) suite: OneSuite,
    pub(super) groups: BTreeMap<GroupId, Held>,
    pub(super) now_ms: u64,
    pub(super) patience_ms: u64,
    pub(super) rng: StdRng,
    pub(super) expelled: bool,
    /// Own commits that were met in a log.
    pub(super) commits: u64,
    /// What must not happen: a record that was refused, an answer that nobody asked for.
    pub(super) faults: Vec<String>,
    pub(super) outcomes: Vec<(CommandId, Outcome)>,
    binding: Option<ConnectionBinding>,
    /// Whether the roster's head was reached on this connection.
    up_to_date: bool,
    pins: Vec<(RosterSeq, Hash)>,
    asked: BTreeMap<RequestId, Asked>,
    last_id: u64,
    frames: Vec<ClientToRelay>,
    inbox: VecDeque<InboxItem>,
    inbox_done: u64,
}

impl Device {
    pub(super) fn new(setup: Setup) -> Self {
        let roster: SharedRoster = Arc::new(Mutex::new(Roster::new(setup.org)));
        let me = Leaf {
            org: setup.org,
            user: setup.user,
            device: setup.mls.public().device_id(),
            key: setup.mls.public(),
        };
        let client = stack::client(
            setup.suite,
            &me,
            &setup.mls,
            Arc::clone(&roster),
            setup.always_path,
        );
        Self {
            me,
            key: setup.mls,
            roster,
            client,
            suite: setup.suite,
            groups: BTreeMap::new(),
            now_ms: 0,
            patience_ms: setup.patience_ms,
            rng: StdRng::seed_from_u64(setup.seed),
            expelled: false,
            commits: 0,
            faults: Vec::new(),
            outcomes: Vec::new(),
            binding: None,
            up_to_date: false,
            pins: setup.pins,
            asked: BTreeMap::new(),
            last_id: 0,
            frames: Vec::new(),
            inbox: VecDeque::new(),
            inbox_done: 0,
        }
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_frames(&mut self) -> Vec<ClientToRelay> {
        std::mem::take(&mut self.frames)
    }

    pub(super) fn take_outcomes(&mut self) -> Vec<(CommandId, Outcome)> {
        std::mem::take(&mut self.outcomes)
    }

    /// A connection is up (section 13.4).
    pub(super) fn connected(&mut self, binding: ConnectionBinding) {
        self.binding = Some(binding);
        let (org, roster_seq) = (self.me.org, self.roster().head().seq);
        self.ask(Request::Hello { org, roster_seq }, Asked::Hello);
    }

    /// It is gone; what was asked on it may be asked again (REQ-089).
    pub(super) fn disconnected(&mut self) {
        self.binding = None;
        self.up_to_date = false;
        self.asked.clear();
        self.frames.clear();
        self.last_id = 0;
        self.inbox.clear();
        for held in self.groups.values_mut() {
            held.subscribed = None;
            held.positions.clear();
            held.backlog.clear();
            if held.claim == Claim::Asked {
                held.claim = Claim::None;
            }
        }
    }

    pub(super) fn ask(&mut self, request: Request, what: Asked) {
        if self.binding.is_none() {
            return;
        }
        self.last_id += 1;
        let id = RequestId(self.last_id);
        self.asked.insert(id, what);
        self.frames.push(ClientToRelay { id, request });
    }

    /// Whether a frame of this connection may go out that needs a roster which is up to date.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.binding.is_some() && self.up_to_date && !self.expelled
    }

    /// Proves that the epoch's access key is held (REQ-052).
    pub(super) fn proof(
        &self,
        held: &Held,
        epoch: Epoch,
        purpose: Purpose,
    ) -> anyhow::Result<AccessProof> {
        let binding = self.binding.as_ref().context("no connection")?;
        let key = held.access_key()?;
        Ok(AccessProof::sign(
            &key,
            binding,
            held.id,
            epoch,
            held.opening,
            purpose,
        ))
    }

    /// Asks for something in a group; what comes of it is an outcome with this number.
    pub(super) fn wish(&mut self, command: CommandId, group: GroupId, wish: Wish) {
        let todo = Todo {
            command: Some(command),
            wish,
        };
        match self.groups.get_mut(&group) {
            Some(held) if matches!(held.standing, Standing::Active | Standing::Creating) => {
                held.todo.push_back(todo);
            }
            _ => self
                .outcomes
                .push((command, Err("not a member of the group".into()))),
        }
        self.take_turns();
    }

    /// Creates a group with these users (sections 9.4, 10.1).
    pub(super) fn create_group(
        &mut self,
        command: CommandId,
        name: &str,
        users: Vec<UserId>,
    ) -> anyhow::Result<GroupId> {
        let id = GroupId::random(&mut self.rng);
        let policy = GroupPolicy::new(name.to_owned(), self.me.user);
        let mls = self.client.create_group_with_id(
            id.0.to_vec(),
            stack::context_extensions(&policy)?,
            ExtensionList::new(),
            None,
        )?;
        let access_key = stack::access_key(&mls)?.public();
        let payload = encode(&RecordBody::Create { access_key });
        let opening = entry_hash(id, Epoch(0), &payload);
        let mut held = Held::new(id, mls, opening)?;
        let policy = Vec::new();
        held.todo.push_back(Todo {
            command: Some(command),
            wish: Wish::Commit {
                add: users,
                remove: Vec::new(),
                policy,
            },
        });
        self.groups.insert(id, held);
        let payload = payload.into();
        let request = Request::CreateGroup { group: id, payload };
        self.ask(request, Asked::Create(id));
        Ok(id)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.take_turns();
    }

    /// When something is due, ms since 1970.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        let since = self.groups.values().filter_map(|held| held.duty_since_ms);
        // What is overdue waits for something else than time.
        since
            .map(|since| since + self.patience_ms)
            .filter(|due| *due > self.now_ms)
            .min()
    }

    /// A frame came in.
    pub(super) fn handle_frame(&mut self, now_ms: u64, frame: RelayToClient) {
        self.now_ms = now_ms;
        let done = match frame {
            RelayToClient::Response { id, response } => match self.asked.remove(&id) {
                Some(asked) => self.handle_response(asked, response),
                None => Err(anyhow::anyhow!("an answer to nothing")),
            },
            RelayToClient::Push(push) => self.handle_push(push),
        };
        if let Err(error) = done {
            self.faults.push(format!("{error:#}"));
        }
        self.take_turns();
    }

    fn handle_response(&mut self, asked: Asked, response: Response) -> anyhow::Result<()> {
        match (asked, response) {
            (Asked::Submit(group, record), response) => self.submitted(group, record, response),
            (
                Asked::Hello,
                Response::Hello {
                    admitted,
                    key_packages_left,
                    inbox_waiting: _,
                    ..
                },
            ) => {
                if admitted == Flag::No {
                    self.expel();
                    return Ok(());
                }
                self.fetch_roster();
                self.stock_up(key_packages_left)
            }
            (Asked::Roster, Response::Roster { entries, head }) => {
                for entry in &entries {
                    self.apply(entry.as_slice(), &[])?;
                }
                if self.roster().head().seq < head.seq && !entries.is_empty() {
                    self.fetch_roster();
                } else {
                    self.reached_head()?;
                }
                Ok(())
            }
            (Asked::Roster, Response::Refused(Refusal::NotAdmitted)) => {
                self.expel();
                Ok(())
            }
            (Asked::Claim(group), Response::KeyPackages { packages }) => {
                if let Some(held) = self.groups.get_mut(&group) {
                    let here = packages
                        .into_iter()
                        .map(|p| (p.device, p.key_package.into()));
                    held.claim = Claim::Here(here.collect());
                }
                Ok(())
            }
            (Asked::Create(group), Response::Appended { .. }) => self.subscribe(group),
            (Asked::Subscribe(group, epoch), Response::Subscribed { last_readable, .. }) => {
                if let Some(held) = self.groups.get_mut(&group)
                    && held.epoch() == epoch
                {
                    held.last_readable = last_readable;
                }
                Ok(())
            }
            (Asked::Inbox, Response::Inbox { items, more }) => {
                for item in items {
                    let known = self.inbox.back().map_or(self.inbox_done, |last| last.seq);
                    if item.seq > known {
                        self.inbox.push_back(item);
                    }
                }
                self.read_inbox()?;
                if more == Flag::Yes {
                    self.fetch_inbox();
                }
                Ok(())
            }
            (_, Response::Refused(_)) if self.expelled => Ok(()),
            (Asked::Other, Response::Done) => Ok(()),
            (_, response) => bail!("an answer that does not fit: {response:?}"),
        }
    }

    fn handle_push(&mut self, push: Push) -> anyhow::Result<()> {
        match push {
            Push::RosterEntry { entry, positions } => {
                self.roster_entry(entry.as_slice(), &positions)
            }
            Push::KeyPackagesLow { left } => self.stock_up(left),
            Push::Records { group, records } => self.records(group, records),
            Push::InboxWaiting => {
                self.fetch_inbox();
                Ok(())
            }
            // Names, checkpoints and questions of others are nothing to this device.
            Push::SlotsWaiting | Push::Checkpoint { .. } | Push::ResyncAsked { .. } => Ok(()),
        }
    }

    /// The roster is older than the relay's: nothing is sent before it was fetched.
    pub(super) fn lag(&mut self) {
        self.up_to_date = false;
        self.fetch_roster();
    }

    pub(super) fn fetch_roster(&mut self) {
        let waiting = self.asked.values().any(|a| matches!(a, Asked::Roster));
        if !waiting {
            let after = self.roster().head().seq;
            self.ask(Request::FetchRoster { after }, Asked::Roster);
        }
    }

    fn fetch_inbox(&mut self) {
        let after = self.inbox_done;
        self.ask(Request::FetchInbox { after }, Asked::Inbox);
    }

    /// An entry was pushed: the next one, or one before which some are missing.
    fn roster_entry(&mut self, entry: &[u8], positions: &[OrderPosition]) -> anyhow::Result<()> {
        let seq = mortise_protocol::roster::SignedEntry::parse(entry)
            .map(|entry| entry.tbs().seq)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let head = self.roster().head().seq;
        if seq == head.next() {
            self.apply(entry, positions)?;
            self.read_all()
        } else if seq > head {
            self.lag();
            Ok(())
        } else {
            Ok(())
        }
    }

    fn apply(&mut self, entry: &[u8], positions: &[OrderPosition]) -> anyhow::Result<()> {
        let applied = self.roster().apply(entry);
        let applied = applied.map_err(|error| anyhow::anyhow!("the roster: {error}"))?;
        let pinned = self
            .pins
            .iter()
            .all(|(seq, hash)| *seq != applied.seq || *hash == applied.hash);
        ensure!(
            pinned,
            "the roster is not the one that the invitation was made on"
        );
        self.take_order(&applied, positions);
        for group in &applied.closed_groups {
            self.abandon(*group, Standing::Closed, "the group is closed");
        }
        Ok(())
    }

    /// Nothing more is done in a group.
    pub(super) fn abandon(&mut self, group: GroupId, standing: Standing, why: &str) {
        let Some(held) = self.groups.get_mut(&group) else {
            return;
        };
        held.standing = standing;
        held.duty_since_ms = None;
        let sent = held.sent.take().and_then(|sent| sent.todo);
        let all = sent.into_iter().chain(std::mem::take(&mut held.todo));
        let commands = all.filter_map(|todo| todo.command);
        self.outcomes
            .extend(commands.map(|command| (command, Err(why.to_owned()))));
    }

    /// This device is not admitted any more.
    pub(super) fn expel(&mut self) {
        self.expelled = true;
        let groups: Vec<_> = self.groups.keys().copied().collect();
        for group in groups {
            self.abandon(group, Standing::Removed, "not admitted any more");
        }
    }

    /// An order: what this device owes the groups that it is in (REQ-061, REQ-064).
    fn take_order(&mut self, applied: &Applied, positions: &[OrderPosition]) {
        let Some(order) = &applied.order else { return };
        if order.devices.contains(&self.me.device) {
            self.expel();
        }
        for held in self.groups.values_mut() {
            if held.standing == Standing::Active {
                held.owed.insert(order.seq, false);
            }
            let position = positions.iter().find(|p| p.group == held.id);
            held.positions.extend(position.map(|p| (p.seq, order.seq)));
        }
    }

    fn reached_head(&mut self) -> anyhow::Result<()> {
        if !self.roster().is_admitted(self.me.device) {
            self.expel();
            return Ok(());
        }
        if !self.up_to_date {
            self.up_to_date = true;
            self.fetch_inbox();
            let groups: Vec<_> = self.groups.keys().copied().collect();
            for group in groups {
                self.subscribe(group)?;
                self.submit_again(group)?;
            }
        }
        self.read_inbox()?;
        self.read_all()
    }

    /// Subscribes to the epoch that is held (REQ-056).
    pub(super) fn subscribe(&mut self, group: GroupId) -> anyhow::Result<()> {
        let Some(held) = self.groups.get(&group) else {
            return Ok(());
        };
        let open = matches!(held.standing, Standing::Active | Standing::Creating);
        if !open || !self.is_up_to_date() {
            return Ok(());
        }
        let (epoch, after) = (held.epoch(), held.seq);
        let proof = self.proof(held, epoch, Purpose::Read)?;
        let request = Request::Subscribe {
            group,
            epoch,
            after,
            credit: CREDIT,
            proof,
        };
        self.ask(request, Asked::Subscribe(group, epoch));
        if let Some(held) = self.groups.get_mut(&group) {
            held.subscribed = Some(epoch);
        }
        Ok(())
    }

    /// Refills the stock of KeyPackages (REQ-092).
    fn stock_up(&mut self, left: u32) -> anyhow::Result<()> {
        if left >= STOCK / 2 || self.expelled {
            return Ok(());
        }
        let mut one_time = Vec::new();
        for _ in left..STOCK {
            one_time.push(stack::key_package(&self.client, false, self.now_ms)?.into());
        }
        let request = Request::PublishKeyPackages {
            suite: self.suite.id().into(),
            one_time,
            last_resort: stack::key_package(&self.client, true, self.now_ms)?.into(),
        };
        self.ask(request, Asked::Other);
        Ok(())
    }

    /// Deals with the Welcomes for which the roster is here (REQ-093).
    pub(super) fn read_inbox(&mut self) -> anyhow::Result<()> {
        while let Some(item) = self.inbox.front() {
            // Who was removed and added again while away meets both in their order: the log comes first.
            let held = self.groups.get(&item.group);
            let follows =
                |held: &Held| held.standing == Standing::Active && held.seq < item.entry.seq;
            if held.is_some_and(follows) {
                return Ok(());
            }
            if super::log::based_on(&item.entry)? > self.roster().head().seq {
                self.fetch_roster();
                return Ok(());
            }
            let Some(item) = self.inbox.pop_front() else {
                break;
            };
            self.inbox_done = item.seq;
            if let Err(error) = self.join(&item) {
                self.faults
                    .push(format!("a Welcome was refused: {error:#}"));
            }
            if self.inbox.is_empty() {
                self.fetch_inbox();
            }
        }
        Ok(())
    }

    /// Sixteen random bytes, for the salt of a message.
    pub(super) fn salt(&mut self) -> [u8; 16] {
        let mut salt = [0; 16];
        self.rng.fill_bytes(&mut salt);
        salt
    }

    /// The admitted devices of these users that have no leaf in the group.
    pub(super) fn missing(&self, held: &Held, users: &[UserId]) -> Vec<DeviceId> {
        let roster = self.roster();
        let devices = users.iter().flat_map(|user| roster.devices_of(*user));
        let devices = devices.map(|(device, _)| device);
        devices.filter(|d| held.tree.leaf(*d).is_none()).collect()
    }
}
