//! What the engine holds in memory, and the step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::RngCore;

use super::checkpoints::Freshness;
use super::devices::Absent;
use super::directory::Directory;
use super::link::Link;
use super::policy::too_long;
use super::pursue::Claim;
use super::room::Told;
use super::roster_jobs::RosterJob;
use super::rows::{
    self, GROUPS, GroupRow, INTENTS, Intent, IntentRow, META, ROSTER, ROSTER_INTENTS,
};
use super::{
    Alarm, Command, CommandError, CommandKind, EngineError, Event, Identity, Input, IntentId,
    Output,
};
use crate::certificate::Evidence;
use crate::content;
use crate::group::{Crypto, Group, GroupPolicy, Me, MlsProvider};
use crate::identity::{DeviceId, Epoch, GroupId, Hash, RosterSeq, UserId};
use crate::roster::{Head, Roster};
use crate::store::{Reader, Space, Tx};
use crate::wire::limits;

/// The longest text, bytes: what fits a record after encryption and padding.
const MAX_TEXT_BYTES: usize = limits::MAX_APPLICATION_BYTES - 1_024;

const NEXT_INTENT: &[u8] = b"next intent";
const STOCKED_SUITE: &[u8] = b"stocked suite";
/// Work that a device comes back to by itself, without anybody waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chore {
    /// To add this user's other devices.
    OwnDevices,
    /// To delete old history.
    Prune,
    /// To warm the tree.
    Warm,
    /// To ask once more to be let in anew.
    AskResync,
}

pub(super) struct State {
    pub(super) rng: Box<dyn RngCore + Send>,
    pub(super) crypto: Arc<Crypto>,
    pub(super) identity: Arc<Identity>,
    pub(super) directory: Directory,
    pub(super) fresh: Freshness,
    pub(super) roster: Roster,
    /// Groups in memory; an entry is taken out while it is worked on, so that a failure drops it.
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) claims: BTreeMap<GroupId, Claim>,
    pub(super) roster_jobs: VecDeque<RosterJob>,
    /// The relay takes no change of the roster before, but an administrator's order; ms since 1970 (REQ-107).
    pub(super) append_after_ms: u64,
    pub(super) link: Option<Link>,
    /// When this device commits a removal if nobody else has, ms since 1970.
    pub(super) duties: BTreeMap<GroupId, u64>,
    /// At which epoch and roster a group's tree was found clean.
    pub(super) clean_at: BTreeMap<GroupId, (Epoch, RosterSeq)>,
    /// When this device attests if not enough others have, ms since 1970.
    pub(super) attest_at: BTreeMap<(GroupId, RosterSeq), u64>,
    /// When this device's leaves are due for new keys, ms since 1970.
    pub(super) refresh_at: BTreeMap<GroupId, u64>,
    /// When other work is due, ms since 1970.
    pub(super) chores: BTreeMap<(GroupId, Chore), u64>,
    /// Devices of this user that had no KeyPackage when they were to be added.
    pub(super) absent: BTreeMap<GroupId, Absent>,
    /// When the newest record of a group came in, ms since 1970.
    pub(super) heard_at: BTreeMap<GroupId, u64>,
    /// Groups whose removal the relay asked this device to commit first.
    pub(super) leases: BTreeSet<GroupId>,
    /// Groups whose proofs and receipts wait until no group has to be rotated.
    pub(super) receipts_due: BTreeSet<GroupId>,
    /// Groups to look at before the step ends.
    pub(super) dirty: BTreeSet<GroupId>,
    /// Groups that wait for something.
    pub(super) unsettled: BTreeSet<GroupId>,
    /// When this device looks again at a group that has to be repaired, ms since 1970.
    pub(super) restart_at: BTreeMap<GroupId, u64>,
    /// Who asks which group to be let in anew: the KeyPackage, and when this device answers, ms since 1970.
    pub(super) resyncs_asked: BTreeMap<(GroupId, DeviceId), (Vec<u8>, Option<u64>)>,
    /// Evidence about orders that is being collected.
    pub(super) collections: BTreeMap<IntentId, Evidence>,
    /// When refused submissions are tried again, ms since 1970.
    pub(super) retry_at: Option<u64>,
    /// The newest Welcome that was dealt with.
    pub(super) inbox_cursor: u64,
    pub(super) next_intent: u64,
    /// The suite that this device has put KeyPackages on the relay for.
    pub(super) stocked_suite: Option<u16>,
    pub(super) next_request: u64,
    pub(super) now_ms: u64,
    /// Up to when timers that fell due were looked at, ms since 1970.
    pub(super) looked_ms: u64,
    pub(super) expelled: bool,
    /// The relay was convicted of showing two rosters: nothing is sent any more.
    pub(super) distrusts_relay: Option<super::Alarm>,
    pub(super) was_synced: bool,
    pub(super) told: Told,
    pub(super) out: Vec<Output>,
}

impl State {
    pub(super) fn load(
        store: &dyn Reader,
        rng: Box<dyn RngCore + Send>,
    ) -> Result<Self, EngineError> {
        let mut identity = Identity::load(store)?.ok_or(EngineError::NoIdentity)?;
        let directory = {
            let tx = Tx::new(store);
            Directory::load(&tx, identity.directory.take())?
        };
        let mut this = Self {
            rng,
            crypto: Arc::new(Crypto::default()),
            roster: Roster::new(identity.org),
            identity: Arc::new(identity),
            directory,
            fresh: Freshness::default(),
            groups: BTreeMap::new(),
            claims: BTreeMap::new(),
            roster_jobs: VecDeque::new(),
            append_after_ms: 0,
            link: None,
            duties: BTreeMap::new(),
            clean_at: BTreeMap::new(),
            attest_at: BTreeMap::new(),
            refresh_at: BTreeMap::new(),
            chores: BTreeMap::new(),
            absent: BTreeMap::new(),
            heard_at: BTreeMap::new(),
            leases: BTreeSet::new(),
            receipts_due: BTreeSet::new(),
            dirty: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            restart_at: BTreeMap::new(),
            resyncs_asked: BTreeMap::new(),
            collections: BTreeMap::new(),
            retry_at: None,
            inbox_cursor: 0,
            next_intent: 0,
            stocked_suite: None,
            next_request: 0,
            now_ms: 0,
            looked_ms: 0,
            expelled: false,
            distrusts_relay: None,
            was_synced: false,
            told: Told::default(),
            out: Vec::new(),
        };
        this.read_stored(store)?;
        Ok(this)
    }

    /// Forgets all that is in memory and starts from what is stored.
    pub(super) fn reload(&mut self, store: &dyn Reader) -> Result<(), EngineError> {
        let mut fresh = Self::load(store, Box::new(Unset))?;
        std::mem::swap(&mut fresh.rng, &mut self.rng);
        fresh.next_request = self.next_request;
        fresh.next_intent = fresh.next_intent.max(self.next_intent);
        fresh.out.push(Output::Reconnect);
        *self = fresh;
        Ok(())
    }

    /// Reads the chain whose signatures were verified when it came in: it must end where it ended then, or something
    /// in it is not what was verified.
    fn read_roster(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        const DAMAGED: EngineError = EngineError::Damaged { row: "the roster" };
        for (_, entry) in tx.scan(ROSTER, &[])? {
            self.roster.replay(&entry).map_err(|_| DAMAGED)?;
        }
        let head = self.roster.head();
        let verified = rows::load::<(RosterSeq, Hash)>(tx, META, rows::VERIFIED_HEAD)?;
        if head != Head::EMPTY && verified != Some((head.seq, head.hash)) {
            return Err(DAMAGED);
        }
        Ok(())
    }

    fn read_stored(&mut self, store: &dyn Reader) -> Result<(), EngineError> {
        let tx = Tx::new(store);
        self.read_roster(&tx)?;
        self.fresh = Freshness::load(&tx)?;
        self.next_intent = rows::load(&tx, META, NEXT_INTENT)?.unwrap_or(0);
        for (_, value) in tx.scan(INTENTS, &[])? {
            let _: IntentRow = rows::from_bytes(&value)?;
        }
        for (key, value) in tx.scan(ROSTER_INTENTS, &[])? {
            let id = rows::number(&key)?;
            self.roster_jobs.push_back(RosterJob::restore(
                IntentId(id),
                &rows::from_bytes(&value)?,
            )?);
        }
        self.stocked_suite = rows::load(&tx, META, STOCKED_SUITE)?;
        self.inbox_cursor = rows::load(&tx, META, b"inbox cursor")?.unwrap_or(0);
        self.dirty = self.group_ids(&tx)?.into_iter().collect();
        self.expelled = self.roster.device(self.identity.device).is_some() && !self.is_admitted();
        Ok(())
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.roster.is_admitted(self.identity.device)
    }

    pub(super) fn group_ids(&self, tx: &Tx<'_>) -> Result<Vec<GroupId>, EngineError> {
        groups_of(tx, GROUPS)
    }

    pub(super) fn event(&mut self, event: Event) {
        // Nobody waits for what the engine wanted of itself.
        let id = match &event {
            Event::Done { id }
            | Event::Failed { id, .. }
            | Event::Appended { id, .. }
            | Event::Delayed { id, .. }
            | Event::GroupCreated { id, .. } => Some(*id),
            _ => None,
        };
        if id.is_some_and(|id| id.0 >= rows::INTERNAL) {
            return;
        }
        self.out.push(Output::Event(event));
    }

    pub(super) fn alarm(&mut self, alarm: Alarm) {
        self.event(Event::Alarm(alarm));
    }

    /// Takes a group out of memory, or loads it; put it back when the work on it has succeeded.
    pub(super) fn take_group(&mut self, tx: &Tx<'_>, id: GroupId) -> Result<Group, EngineError> {
        if let Some(group) = self.groups.remove(&id) {
            return Ok(group);
        }
        Group::load(&MlsProvider::new(&self.crypto, tx), id)?.ok_or(EngineError::Damaged {
            row: "a group's MLS state",
        })
    }

    /// Remembers that no later command may have an id up to this one.
    pub(super) fn store_next_intent(&self, tx: &Tx<'_>) -> Result<(), EngineError> {
        rows::put(tx, META, NEXT_INTENT, &self.next_intent)
    }

    /// Remembers which suite this device has KeyPackages for.
    pub(super) fn store_stocked_suite(
        &mut self,
        tx: &Tx<'_>,
        suite: u16,
    ) -> Result<(), EngineError> {
        self.stocked_suite = Some(suite);
        rows::put(tx, META, STOCKED_SUITE, &suite)
    }

    /// What has come in, in order, and then whatever can be done.
    pub(super) fn step(
        &mut self,
        tx: &Tx<'_>,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<(), EngineError> {
        for input in inputs {
            match input {
                Input::Connected(binding) => self.handle_connected(binding),
                Input::Disconnected => self.handle_disconnected(tx)?,
                Input::Frame(frame) => self.handle_frame(tx, frame)?,
                Input::Tick => self.handle_tick(tx)?,
                Input::Command(command) => self.handle_command(tx, command)?,
            }
        }
        self.pump(tx)
    }

    /// Does whatever can be done now, and says when to look again.
    fn pump(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        // A timer may fall due while frames keep coming: the wake that was asked for it counts no more.
        self.look_at_due(self.looked_ms);
        self.looked_ms = self.now_ms;
        self.release_inbox(tx)?;
        self.pump_link();
        self.pump_directory(tx)?;
        self.pump_roster(tx)?;
        self.pump_freshness();
        // Work on one group may make another dirty, never the same one again without an input.
        while let Some(group) = self
            .dirty
            .pop_first()
            .or_else(|| self.link.as_mut()?.next_waiting())
        {
            self.pump_group(tx, group)?;
        }
        for group in self.take_receipts_due() {
            self.pump_group(tx, group)?;
        }
        if let Some(wake) = self.next_wake() {
            self.out.push(Output::Wake(wake));
        }
        let synced = self.is_synced();
        if synced && !self.was_synced {
            self.event(Event::Synced);
        }
        self.was_synced = synced;
        Ok(())
    }

    fn next_wake(&self) -> Option<u64> {
        let link = self.link.as_ref()?;
        let now = self.now_ms;
        // What is due already waits for something else than time.
        let duties = self.group_timers().map(|(_, at)| at);
        let duties = duties.chain(self.directory.rotate_at);
        let duties = duties.chain(self.directory.fill_at);
        let duties = duties.chain(self.directory.names_at);
        [
            link.next_deadline(),
            duties.filter(|at| *at > now).min(),
            self.retry_at,
            self.next_job_at(),
            self.next_freshness_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.is_up_to_date() && self.unsettled.is_empty()
    }

    /// Whether nothing is on its way or left to look at, but for groups that wait for something.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.roster_jobs.is_empty()
            && self.dirty.is_empty()
            && self
                .link
                .as_ref()
                .is_some_and(|link| link.is_quiet() && link.relay_head <= self.roster.head().seq)
    }

    /// Every timer of a group, ms since 1970.
    fn group_timers(&self) -> impl Iterator<Item = (GroupId, u64)> {
        let duties = self.duties.iter().chain(&self.refresh_at);
        let duties = duties.chain(&self.restart_at);
        let attest = self.attest_at.iter().map(|((group, _), at)| (group, at));
        let chores = self.chores.iter().map(|((group, _), at)| (group, at));
        let all = duties.chain(attest).chain(chores);
        all.map(|(group, at)| (*group, *at))
    }

    /// Groups with a timer that fell due after `since_ms` are looked at in this step.
    fn look_at_due(&mut self, since_ms: u64) {
        let now = self.now_ms;
        let due = self
            .group_timers()
            .filter(|(_, at)| since_ms < *at && *at <= now);
        let groups: Vec<_> = due.map(|(group, _)| group).collect();
        self.dirty.extend(groups);
    }

    fn handle_tick(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let now = self.now_ms;
        if self.link.as_ref().is_some_and(|l| l.is_overdue(now)) {
            // Everything that was asked is asked again on the next connection.
            self.out.push(Output::Reconnect);
            return self.handle_disconnected(tx);
        }
        self.look_at_due(0);
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.dirty.extend(self.unsettled.iter().copied());
            if let Some(link) = &mut self.link {
                link.forget_refused();
            }
        }
        Ok(())
    }

    fn handle_command(&mut self, tx: &Tx<'_>, command: Command) -> Result<(), EngineError> {
        let id = command.id;
        self.next_intent = self.next_intent.max(id.0);
        self.store_next_intent(tx)?;
        let outcome = if self.expelled {
            Err(CommandError::Expelled)
        } else {
            self.accept_command(tx, command)?
        };
        if let Err(error) = outcome {
            self.event(Event::Failed { id, error });
        }
        Ok(())
    }

    fn accept_command(
        &mut self,
        tx: &Tx<'_>,
        Command { id, kind }: Command,
    ) -> Result<Result<(), CommandError>, EngineError> {
        match kind {
            CommandKind::CreateGroup { name, members } => {
                if let Some(error) = self.unknown_user(&members) {
                    return Ok(Err(error));
                }
                self.create_group(tx, id, name, members)?;
            }
            CommandKind::AddMembers { group, users } => {
                if let Some(error) = self.unknown_user(&users) {
                    return Ok(Err(error));
                }
                let users = users.into_iter().collect();
                return self.intend(tx, id, group, Intent::Add { users });
            }
            CommandKind::RemoveMember { group, user } => {
                if user == self.identity.user {
                    return Ok(Err(CommandError::LeaveInstead));
                }
                return self.intend(tx, id, group, Intent::Remove { user });
            }
            CommandKind::LeaveGroup { group } => {
                return self.intend(tx, id, group, Intent::Leave { told: false });
            }
            CommandKind::ChangeGroup { group, change } => {
                if let Some(error) = too_long(&change) {
                    return Ok(Err(error));
                }
                return self.intend(tx, id, group, Intent::Change { change });
            }
            CommandKind::SendText { group, text } => {
                if text.len() > MAX_TEXT_BYTES {
                    return Ok(Err(CommandError::TooLong {
                        length: text.len(),
                        limit: MAX_TEXT_BYTES,
                    }));
                }
                if let Some(error) = self.refuses_stale() {
                    return Ok(Err(error));
                }
                let mut salt = [0; 16];
                self.rng.fill_bytes(&mut salt);
                let content = content::encode_text(salt, &text);
                return self.intend(tx, id, group, Intent::Send { content });
            }
            CommandKind::RestartGroup { group } => return self.command_restart(tx, id, group),
            CommandKind::ResyncGroup { group } => return self.command_resync(tx, id, group),
            CommandKind::MarkCompared { user } => {
                let done = self.mark_compared(tx, user)?;
                if done.is_ok() {
                    self.event(Event::Done { id });
                }
                return Ok(done);
            }
            CommandKind::OrderStatus { order } => self.ask_order_status(id, order),
            CommandKind::CollectEvidence { order } => self.collect_evidence(id, order),
            roster => return self.roster_command(tx, id, roster),
        }
        Ok(Ok(()))
    }

    fn unknown_user(&self, users: &[UserId]) -> Option<CommandError> {
        users
            .iter()
            .any(|u| self.roster.user(*u).is_none_or(|r| r.is_removed()))
            .then_some(CommandError::UnknownUser)
    }

    /// Writes down what is wanted of a group, before anything is done about it.
    fn intend(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        group: GroupId,
        intent: Intent,
    ) -> Result<Result<(), CommandError>, EngineError> {
        let Some((group, row)) = self.newest_of(tx, group)? else {
            return Ok(Err(CommandError::UnknownGroup));
        };
        if let Some(error) = row.closed() {
            return Ok(Err(error));
        }
        if self.roster.closed_at(group).is_some() {
            return Ok(Err(CommandError::GroupClosed));
        }
        if self.wants_to_leave(tx, group)? {
            return Ok(Err(CommandError::Leaving));
        }
        rows::put(
            tx,
            INTENTS,
            rows::key(group, id.0),
            &IntentRow {
                intent,
                in_flight: false,
            },
        )?;
        self.tell_delayed(tx, group)?;
        self.dirty.insert(group);
        Ok(Ok(()))
    }

    fn create_group(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        name: String,
        members: Vec<UserId>,
    ) -> Result<(), EngineError> {
        let group = GroupId::random(&mut self.rng);
        let policy = GroupPolicy::new(name, self.identity.user);
        self.open_group(tx, id, group, policy)?;
        let mut users: BTreeSet<UserId> = members.into_iter().collect();
        users.insert(self.identity.user);
        rows::put(
            tx,
            INTENTS,
            rows::key(group, id.0),
            &IntentRow {
                intent: Intent::Add { users },
                in_flight: false,
            },
        )?;
        self.dirty.insert(group);
        Ok(())
    }
}

impl Identity {
    pub(super) fn me(&self) -> Me<'_> {
        Me {
            org: self.org,
            user: self.user,
            device: self.device,
            key: &self.mls,
        }
    }
}

impl GroupRow {
    /// Why nothing can be sent here any more, if so.
    pub(super) fn closed(&self) -> Option<CommandError> {
        match &self.status {
            rows::GroupStatus::Removed => Some(CommandError::NotAMember),
            rows::GroupStatus::Stopped(reason) => Some(CommandError::Stopped {
                reason: reason.clone(),
            }),
            rows::GroupStatus::Halted(fault) => {
                fault.stopped().map(|reason| CommandError::Stopped {
                    reason: reason.to_owned(),
                })
            }
            rows::GroupStatus::Creating
            | rows::GroupStatus::Active
            | rows::GroupStatus::Continued(_) => None,
        }
    }
}

/// The groups that have a row in a space that is keyed by group.
pub(super) fn groups_of(tx: &Tx<'_>, space: Space) -> Result<Vec<GroupId>, EngineError> {
    let id = |key: Vec<u8>| {
        let row = "a group's id";
        key.try_into()
            .map(GroupId)
            .map_err(|_| EngineError::Damaged { row })
    };
    let rows = tx.scan(space, &[])?.into_iter();
    rows.map(|(key, _)| id(key)).collect()
}

/// Stands where the randomness comes from while a state is loaded, which draws none.
struct Unset;

impl RngCore for Unset {
    fn next_u32(&mut self) -> u32 {
        unreachable!("loading draws no randomness")
    }
    fn next_u64(&mut self) -> u64 {
        unreachable!("loading draws no randomness")
    }
    fn fill_bytes(&mut self, _: &mut [u8]) {
        unreachable!("loading draws no randomness")
    }
}
