//! The client: a state machine from [`Input`] through one transaction to [`Output`].
//!
//! Inputs: [`Engine::handle`]. Outputs: what it returns, in order, after its transaction is durable (REQ-090).
//! Getters: everything else. It must never do anything on an acknowledgement but mark the outbox: only
//! the order of the log moves a group (REQ-088).

mod admission;
mod api;
mod candidate;
mod certificates;
mod checkpoints;
mod clock;
mod compared;
mod devices;
mod directory;
mod duties;
mod election;
mod identity;
mod inbound;
mod join;
mod leave;
mod link;
mod names;
mod outbound;
mod policy;
mod pursue;
mod receipts;
mod restart;
mod resync;
mod retention;
mod room;
mod roster_commands;
mod roster_jobs;
mod roster_sync;
mod rows;
mod state;
mod warm;

pub use admission::{Admission, AdmissionError, AdmissionStep};
pub use api::{
    Alarm, Command, CommandError, CommandKind, Event, GroupStatusView, GroupView, HistoryKind,
    HistoryRecord, Input, IntentId, InviteLink, MemberView, OrderGroup, Output, PinChoice,
    PolicyChange, WhoMayAdd,
};
pub use certificates::CertificationError;
pub use compared::Compared;
pub use identity::{DeviceKeys, Identity, has_identity, load_identity, save_identity};

use std::sync::Arc;

use rand::RngCore;

use crate::group::GroupError;
use crate::identity::{DeviceId, GroupId, Hash, LogSeq, OrgId, SigningKey, UserId};
use crate::roster::{OrgPolicy, Roster};
use crate::store::{Store, StoreError, Tx, commit};
use crate::wire::Refusal;
use rows::{GROUPS, GroupRow, GroupStatus, HISTORY, ROSTER};
use state::State;

/// Where the relay is, and the key that it must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// `host:port`.
    pub address: String,
    /// SHA-256 of the SubjectPublicKeyInfo of its certificate.
    pub key: Hash,
}

/// What stops an engine's step; nothing of the step has happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is not what was written.
    #[error("stored state is damaged: {row}")]
    Damaged {
        /// Which part, without its content.
        row: &'static str,
    },
    /// The store was written by another version, in a layout that this one does not read.
    #[error(
        "stored in layout {found} by another version of this program; this one has layout {known}"
    )]
    OtherSchema {
        /// The store's; 0 before layouts were numbered.
        found: u32,
        /// This version's.
        known: u32,
    },
    /// The store holds no identity: found an organisation or join one first.
    #[error("this profile belongs to no organisation yet")]
    NoIdentity,
    /// A defect of this program.
    #[error("a defect: could not {0}")]
    Bug(&'static str),
}

impl From<GroupError> for EngineError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Mls(what) => Self::Bug(what),
            GroupError::NotAMember => Self::Bug("use a group after removal"),
            GroupError::Violation(_) => Self::Damaged {
                row: "a group's state",
            },
        }
    }
}

/// A device.
pub struct Engine<S: Store> {
    store: S,
    state: State,
    /// The last step failed: memory may be ahead of the store.
    torn: bool,
}

impl<S: Store> std::fmt::Debug for Engine<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({:?})", self.state.identity.device)
    }
}

impl<S: Store> Engine<S> {
    /// Opens a device on a store that holds its identity.
    ///
    /// # Errors
    /// [`EngineError::NoIdentity`], or what the store says.
    pub fn open(store: S, rng: Box<dyn RngCore + Send>) -> Result<Self, EngineError> {
        let state = State::load(&store, rng)?;
        Ok(Self {
            store,
            state,
            torn: false,
        })
    }

    /// Takes one input in one transaction; the outputs may be acted upon, since all that explains them is durable.
    ///
    /// # Errors
    /// [`EngineError`]: nothing has happened, and the next step starts from what is stored, without a connection.
    pub fn handle(&mut self, now_ms: u64, input: Input) -> Result<Vec<Output>, EngineError> {
        self.handle_all(now_ms, [input])
    }

    /// Takes inputs that have come in while another was worked on, in order and in one transaction.
    ///
    /// # Errors
    /// As [`Engine::handle`]; of all of them, nothing has happened.
    pub fn handle_all(
        &mut self,
        now_ms: u64,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<Vec<Output>, EngineError> {
        if self.torn {
            self.state.reload(&self.store)?;
            self.torn = false;
        }
        self.state.now_ms = now_ms;
        let batch = {
            let tx = Tx::new(&self.store);
            let step = self.state.step(&tx, inputs);
            // openmls does not pass on why it could not read: a store's failure is nobody else's fault.
            match tx.failure() {
                Some(failure) => Err(failure.into()),
                None => step.and_then(|()| Ok(tx.into_batch()?)),
            }
        };
        let done = batch.and_then(|batch| Ok(commit(&mut self.store, &batch)?));
        match done {
            Ok(()) => Ok(std::mem::take(&mut self.state.out)),
            Err(error) => {
                self.torn = true;
                Err(error)
            }
        }
    }

    /// A fresh id for a command.
    pub fn next_intent(&mut self) -> IntentId {
        self.state.next_intent += 1;
        IntentId(self.state.next_intent)
    }

    /// The store, for a driver that closes down.
    pub fn into_store(self) -> S {
        self.store
    }

    /// The store, for a test that plans its failure.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The organisation.
    pub fn org(&self) -> OrgId {
        self.state.identity.org
    }

    /// Whose device.
    pub fn user(&self) -> UserId {
        self.state.identity.user
    }

    /// Which device.
    pub fn device(&self) -> DeviceId {
        self.state.identity.device
    }

    /// The key for the connection's TLS.
    pub fn transport_key(&self) -> Arc<SigningKey> {
        self.state.identity.transport.clone()
    }

    /// Where the relay is.
    pub fn relay(&self) -> &RelayAddress {
        &self.state.identity.relay
    }

    /// The roster as far as it is known here.
    pub fn roster(&self) -> &Roster {
        &self.state.roster
    }

    /// What the organisation has decided for everybody; `None` before the roster is here (REQ-100).
    pub fn policy(&self) -> Option<&OrgPolicy> {
        self.state.roster.policy()
    }

    /// Every admitted device that `device` let in, directly or not, of whatever user.
    ///
    /// `CommandKind::RevokeDevice` revokes those of the device's own user with it, if it is asked to.
    pub fn enrolled_by(&self, device: DeviceId) -> Vec<DeviceId> {
        let roster = &self.state.roster;
        let mut enrolled = roster.enrolled_transitively(device);
        enrolled.retain(|id| roster.is_admitted(*id));
        enrolled
    }

    /// The admitted devices that go with `device` when what it enrolled is revoked too: those of the same user (REQ-109).
    pub fn revoked_with(&self, device: DeviceId) -> Vec<DeviceId> {
        self.state.enrolled_for_same_user(device)
    }

    /// How long ago an owner or admin last stated the roster's newest entry, ms; `None` if never (REQ-105).
    pub fn checkpoint_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.state.fresh.age_ms(now_ms)
    }

    /// The signed roster entries, oldest first.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn roster_entries(&self) -> Result<Vec<Vec<u8>>, EngineError> {
        let rows = self.store.range(ROSTER, &[], &[], usize::MAX)?;
        Ok(rows.into_iter().map(|(_, entry)| entry).collect())
    }

    /// A user's name, once the directory can be read.
    pub fn name_of(&self, user: UserId) -> Option<String> {
        self.state.name_of(user)
    }

    /// Whether everything that the relay had has been dealt with and nothing waits to be sent.
    pub fn is_synced(&self) -> bool {
        self.state.is_synced()
    }

    /// Whether all is dealt with but what the relay has no room for: waiting longer changes nothing.
    pub fn waits_for_room_only(&self) -> bool {
        self.state.waits_for_room_only()
    }

    /// Why the relay does not talk to this device at present, if it has said so.
    pub fn turned_away(&self) -> Option<&Refusal> {
        self.state.turned_away()
    }

    /// Whether this device was removed, suspended or revoked.
    pub fn is_expelled(&self) -> bool {
        self.state.expelled
    }

    /// What convicted the relay in this session: it is not talked to any more.
    pub fn distrusts_relay(&self) -> Option<&Alarm> {
        self.state.distrusts_relay.as_ref()
    }

    /// The number that two people compare aloud (REQ-018); `None` for an unknown user.
    pub fn safety_number(&self, other: UserId) -> Option<String> {
        compared::number_of(&self.state.roster, self.user(), other)
    }

    /// When that number was compared with a user, and whether it has changed since (REQ-018).
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn compared(&self, other: UserId) -> Result<Option<Compared>, EngineError> {
        compared::compared_with(&self.store, other)
    }

    /// Every group that this device knows.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn groups(&mut self) -> Result<Vec<GroupView>, EngineError> {
        let tx = Tx::new(&self.store);
        let mut views = Vec::new();
        for (key, value) in tx.scan(GROUPS, &[])? {
            let id = GroupId(key.try_into().map_err(|_| EngineError::Damaged {
                row: "a group's id",
            })?);
            let row: GroupRow = rows::from_bytes(&value)?;
            if row.is_candidate {
                continue;
            }
            let (successor, is_left) = match &row.status {
                GroupStatus::Continued(successor) => (Some(*successor), true),
                status => (None, *status == GroupStatus::Removed),
            };
            let mut view = GroupView {
                id,
                name: row.name,
                suite: row.suite,
                epoch: row.epoch.0,
                status: match row.status {
                    GroupStatus::Creating | GroupStatus::Active => GroupStatusView::Active,
                    GroupStatus::Removed => GroupStatusView::Removed,
                    GroupStatus::Stopped(why) => GroupStatusView::Stopped(why),
                    GroupStatus::Halted(fault) => GroupStatusView::Stopped(fault.reason),
                    GroupStatus::Continued(successor) => GroupStatusView::Continued { successor },
                },
                members: Vec::new(),
                admins: Vec::new(),
                topic: String::new(),
                who_may_add: WhoMayAdd::Members,
                retention_days: None,
                epoch_authenticator: Vec::new(),
                predecessor: row.predecessor,
                successor,
            };
            let closed = self.state.roster.closed_at(id).is_some();
            let is_held = matches!(
                view.status,
                GroupStatusView::Active | GroupStatusView::Stopped(_)
            );
            if closed && is_held {
                view.status = GroupStatusView::Closed;
            }
            if !is_left {
                let group = self.state.take_group(&tx, id)?;
                view.members = group
                    .leaves()
                    .iter()
                    .map(|l| MemberView {
                        device: l.device,
                        user: l.user,
                        key: l.key,
                    })
                    .collect();
                let policy = group.policy();
                view.admins.clone_from(&policy.admins);
                view.topic.clone_from(&policy.topic);
                view.who_may_add = policy.who_may_add;
                view.retention_days = policy.retention_days;
                view.epoch_authenticator = group.epoch_authenticator();
                self.state.groups.insert(id, group);
            }
            views.push(view);
        }
        Ok(views)
    }

    /// Lines of a group's history after `after`, oldest first.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn messages(
        &self,
        group: GroupId,
        after: LogSeq,
        limit: usize,
    ) -> Result<Vec<HistoryRecord>, EngineError> {
        let from = rows::key(group, after.0.saturating_add(1));
        self.store
            .range(HISTORY, &group.0, &from, limit)?
            .iter()
            .map(|(_, value)| rows::from_bytes(value))
            .collect()
    }
}
