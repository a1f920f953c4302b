//! Changes of the roster on their way: written down, signed, sent, signed again after a lost race, and told of.
//!
//! One is in flight at a time, orders first. A job is stored with what was signed for it, so that after a crash the
//! device knows its own entry when it meets it in the chain (REQ-108).

use std::collections::VecDeque;

use tls_codec::VLByteVec;
use zeroize::Zeroize as _;

use super::link::Asked;
use super::rows::{self, InviteRow, ROSTER_INTENTS, RosterIntentRow, SignedRow};
use super::state::State;
use super::{CommandError, EngineError, Event, IntentId, InviteLink};
use crate::identity::{
    DirectoryKey, Hash, InvitationId, InvitationSecret, JoinLink, Pin, UserId, decode, encode,
};
use crate::roster::{
    EntrySigner, MAX_ISSUE_SKEW_MS, Op, RosterError, RotateDirectoryKey, SignedEntry, sign_entry,
};
use crate::store::Tx;
use crate::wire::{Refusal, Request, RosterHead};

/// How long the device's own duties wait for room on the relay's disk, ms.
const NO_ROOM_MS: u64 = 5_000;

/// Whether a change brings a new directory key in the same entry (REQ-101).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Rotation {
    /// No.
    No,
    /// An order: if this device holds the present key and stays itself.
    IfHeld,
    /// A name: if an order is newer than the key, lest whom it named read the name.
    IfStale,
    /// It is what is wanted.
    Always,
}

/// A change of the roster; one at a time is on its way.
pub(super) struct RosterJob {
    id: IntentId,
    /// The device's own duty: nobody is told.
    own: bool,
    ops: Vec<Op>,
    rotation: Rotation,
    invite: Option<Invite>,
    /// What was signed last.
    signed: Option<Signed>,
    pub(super) in_flight: bool,
}

/// An invitation's secret part, which the chain does not show.
pub(super) struct Invite {
    pub(super) user: UserId,
    pub(super) invitation: InvitationId,
    pub(super) secret: InvitationSecret,
    pub(super) pin: Option<Pin>,
}

struct Signed {
    entry: SignedEntry,
    /// The head that it follows.
    parent: RosterHead,
    /// The directory key that it names.
    key: Option<DirectoryKey>,
}

impl Signed {
    fn row(&self) -> SignedRow {
        SignedRow {
            entry: self.entry.bytes().to_vec(),
            parent_seq: self.parent.seq,
            parent_hash: self.parent.hash,
            key: self.key.as_ref().map(|key| *key.dangerous_bytes()),
        }
    }
}

impl RosterJob {
    pub(super) fn new(
        id: IntentId,
        ops: Vec<Op>,
        rotation: Rotation,
        invite: Option<Invite>,
    ) -> Self {
        Self {
            id,
            own: false,
            ops,
            rotation,
            invite,
            signed: None,
            in_flight: false,
        }
    }

    pub(super) fn restore(id: IntentId, row: &RosterIntentRow) -> Result<Self, EngineError> {
        let damaged = EngineError::Damaged {
            row: "a roster intent",
        };
        let Ok(ops) = decode(&row.ops) else {
            return Err(damaged);
        };
        let signed = match &row.signed {
            Some(signed) => {
                let Ok(entry) = SignedEntry::parse(&signed.entry) else {
                    return Err(damaged);
                };
                Some(Signed {
                    entry,
                    parent: RosterHead {
                        seq: signed.parent_seq,
                        hash: signed.parent_hash,
                    },
                    key: signed.key.map(DirectoryKey::from_bytes),
                })
            }
            None => None,
        };
        let invite = match &row.invite {
            Some(invite) => Some(Invite {
                user: invite.user,
                invitation: invite.invitation,
                secret: InvitationSecret::from_bytes(invite.secret),
                pin: invite
                    .pin
                    .map(Pin::from_bytes)
                    .transpose()
                    .map_err(|_| damaged)?,
            }),
            None => None,
        };
        Ok(Self {
            own: row.own,
            signed,
            ..Self::new(id, ops, row.rotation, invite)
        })
    }

    fn row(&self) -> RosterIntentRow {
        RosterIntentRow {
            ops: encode(&self.ops),
            own: self.own,
            rotation: self.rotation,
            invite: self.invite.as_ref().map(|invite| InviteRow {
                user: invite.user,
                invitation: invite.invitation,
                secret: *invite.secret.dangerous_bytes(),
                pin: invite.pin.as_ref().map(|pin| *pin.dangerous_bytes()),
            }),
            signed: self.signed.as_ref().map(Signed::row),
        }
    }

    fn is_order(&self) -> bool {
        self.ops.iter().any(Op::is_order)
    }

    fn names_somebody(&self) -> bool {
        self.ops
            .iter()
            .any(|op| matches!(op, Op::AddUser { .. } | Op::SetProfile { .. }))
    }
}

impl State {
    /// Makes a job the device's own duty, with an id that no command has.
    pub(super) fn own_job(&mut self, mut job: RosterJob) -> RosterJob {
        self.next_intent += 1;
        job.id = IntentId(self.next_intent);
        job.own = true;
        job
    }

    /// Whether the device itself is already about to name a new directory key.
    pub(super) fn rotates_by_itself(&self) -> bool {
        self.roster_jobs
            .iter()
            .any(|job| job.rotation == Rotation::Always)
    }

    /// Whether the device itself is already about to change this user's name.
    pub(super) fn renames(&self, who: UserId) -> bool {
        let ops = self.roster_jobs.iter().flat_map(|job| &job.ops);
        ops.into_iter()
            .any(|op| matches!(op, Op::SetProfile { user, .. } if *user == who))
    }

    pub(super) fn add_job(&mut self, tx: &Tx<'_>, job: RosterJob) -> Result<(), EngineError> {
        rows::put(tx, ROSTER_INTENTS, job_key(job.id), &job.row())?;
        self.store_next_intent(tx)?;
        self.roster_jobs.push_back(job);
        Ok(())
    }

    /// Completes the jobs that the chain contains, and signs and sends the next one.
    pub(super) fn pump_roster(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        self.settle_jobs(tx)?;
        while !self.roster_jobs.iter().any(|job| job.in_flight) && self.may_append() {
            let Some(at) = self.next_job() else { break };
            self.send_job(tx, at)?;
        }
        Ok(())
    }

    /// When jobs that wait for the relay's leave may be tried again, ms since 1970.
    pub(super) fn next_job_at(&self) -> Option<u64> {
        let waits = self.append_after_ms > self.now_ms && !self.roster_jobs.is_empty();
        waits.then_some(self.append_after_ms)
    }

    /// Tells of what is in the chain; what another entry took the place of is signed again.
    fn settle_jobs(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let head = self.roster.head();
        let mut at = 0;
        while let Some(job) = self.roster_jobs.get_mut(at) {
            match &job.signed {
                Some(signed)
                    if self.roster.hash_at(signed.parent.seq.next())
                        == Some(signed.entry.hash()) =>
                {
                    self.finish_job(tx, at)?;
                    continue;
                }
                Some(signed) if signed.parent != head => {
                    job.signed = None;
                    job.in_flight = false;
                }
                _ => {}
            }
            at += 1;
        }
        self.drop_moot_rotations(tx);
        self.drop_moot_names(tx);
        Ok(())
    }

    /// Somebody else has sealed what this device was going to seal by itself: an older name must not replace a newer one.
    fn drop_moot_names(&mut self, tx: &Tx<'_>) {
        let is_moot = |this: &Self, job: &RosterJob| {
            job.own && job.signed.is_none() && this.is_moot(&job.ops)
        };
        let jobs = std::mem::take(&mut self.roster_jobs);
        let (moot, rest): (VecDeque<_>, _) = jobs.into_iter().partition(|job| is_moot(self, job));
        self.roster_jobs = rest;
        for job in moot {
            tx.delete(ROSTER_INTENTS, job_key(job.id));
        }
    }

    /// Somebody else has named the key that this device was going to name by itself.
    fn drop_moot_rotations(&mut self, tx: &Tx<'_>) {
        if self.roster.directory_is_stale() {
            return;
        }
        self.roster_jobs.retain(|job| {
            let moot = job.own && job.rotation == Rotation::Always && job.signed.is_none();
            if moot {
                tx.delete(ROSTER_INTENTS, job_key(job.id));
            }
            !moot
        });
    }

    fn may_append(&self) -> bool {
        let known = self.roster.head().seq;
        let current = self
            .link
            .as_ref()
            .is_some_and(|link| link.hello && link.relay_head <= known);
        current && !self.expelled && self.distrusts_relay.is_none()
    }

    /// The job to be sent now: orders first, since nothing may keep them waiting.
    fn next_job(&self) -> Option<usize> {
        let may = self.append_after_ms <= self.now_ms;
        let exempt = |job: &RosterJob| job.is_order() && !job.own && self.administers();
        let ready = |job: &RosterJob| (may || exempt(job)) && !self.must_wait(job);
        let orders = self
            .roster_jobs
            .iter()
            .position(|j| j.is_order() && ready(j));
        orders.or_else(|| self.roster_jobs.iter().position(ready))
    }

    /// Whether a job needs a directory key that is not here, or is not fit to seal a new name under.
    fn must_wait(&self, job: &RosterJob) -> bool {
        let held = self.newest_directory_key().is_some();
        match job.rotation {
            Rotation::No | Rotation::IfHeld => false,
            Rotation::Always => !held,
            Rotation::IfStale => !held || (self.roster.directory_is_stale() && !self.administers()),
        }
    }

    fn brings_key(&self, job: &RosterJob) -> bool {
        match job.rotation {
            Rotation::No => false,
            Rotation::Always => true,
            Rotation::IfStale => self.roster.directory_is_stale(),
            Rotation::IfHeld => self.newest_directory_key().is_some() && !self.ends_me(&job.ops),
        }
    }

    /// Whether these operations burn this device, which then must not choose the key of those who stay.
    fn ends_me(&self, ops: &[Op]) -> bool {
        let me = &self.identity;
        ops.iter().any(|op| match op {
            Op::RemoveUser { user } | Op::SuspendUser { user } => *user == me.user,
            Op::RevokeDevice { device } => *device == me.device,
            _ => false,
        })
    }

    fn send_job(&mut self, tx: &Tx<'_>, at: usize) -> Result<(), EngineError> {
        let Some(mut job) = self.roster_jobs.remove(at) else {
            return Ok(());
        };
        let signed = match job.signed.take() {
            Some(signed) => signed,
            None => self.sign_job(&job),
        };
        let checked = self.roster.check(signed.entry.bytes());
        let burned = match checked {
            Ok(checked) => checked.applied().order.as_ref().map(|o| o.devices.clone()),
            Err(error) => return self.fail_job(tx, &job, roster_error(&error)),
        };
        let generation = signed.entry.tbs().seq;
        let slots = match &signed.key {
            Some(key) => self.slots_for_all(key, generation, &burned.unwrap_or_default()),
            None => Vec::new(),
        };
        let asked = Asked::AppendRoster {
            entry: signed.entry.hash(),
        };
        let entry = VLByteVec::from(signed.entry.bytes().to_vec());
        job.signed = Some(signed);
        job.in_flight = true;
        // What leaves is known again after a crash (REQ-108).
        rows::put(tx, ROSTER_INTENTS, job_key(job.id), &job.row())?;
        self.roster_jobs.insert(at, job);
        self.ask(asked, Request::AppendRoster { entry, slots });
        Ok(())
    }

    /// Signs a job's operations on the head, with a new directory key if there is to be one.
    fn sign_job(&mut self, job: &RosterJob) -> Signed {
        let parent = self.roster.head();
        let mut ops = job.ops.clone();
        let held = self.newest_directory_key();
        let key = held.filter(|_| self.brings_key(job)).map(|predecessor| {
            let generation = parent.seq.next();
            let key = DirectoryKey::random(&mut self.rng);
            let org = self.identity.org;
            let wrapped = key.wrap_predecessor(&mut self.rng, org, generation, &predecessor);
            let rotation = Op::RotateDirectoryKey(RotateDirectoryKey {
                commitment: key.commitment(),
                predecessor: wrapped.into(),
            });
            ops.insert(0, rotation);
            key
        });
        if job.names_somebody() {
            self.seal_again(&mut ops, key.as_ref().map(|key| (parent.seq.next(), key)));
        }
        let identity = self.identity.clone();
        let entry = sign_entry(
            identity.org,
            parent,
            self.now_ms,
            EntrySigner::Device(identity.device),
            &identity.mls,
            ops,
        );
        Signed { entry, parent, key }
    }

    fn finish_job(&mut self, tx: &Tx<'_>, at: usize) -> Result<(), EngineError> {
        let Some(job) = self.roster_jobs.remove(at) else {
            return Ok(());
        };
        tx.delete(ROSTER_INTENTS, job_key(job.id));
        let Some(Signed { parent, .. }) = job.signed else {
            return Ok(());
        };
        if job.own {
            return Ok(());
        }
        let seq = parent.seq.next();
        let event = if let Some(invite) = job.invite {
            let link = JoinLink {
                relay: self.identity.relay.address.clone(),
                relay_key: self.identity.relay.key,
                org: self.identity.org,
                pin_seq: parent.seq,
                pin_hash: parent.hash,
                user: invite.user,
                invitation: invite.invitation,
                secret: invite.secret,
                needs_pin: invite.pin.is_some(),
            };
            Event::Invited {
                id: job.id,
                user: invite.user,
                link: InviteLink::new(link),
                pin: invite.pin,
            }
        } else if self.roster.order(seq).is_some() {
            Event::Ordered {
                id: job.id,
                order: seq,
            }
        } else {
            Event::Done { id: job.id }
        };
        self.event(event);
        Ok(())
    }

    fn fail_job(
        &mut self,
        tx: &Tx<'_>,
        job: &RosterJob,
        error: CommandError,
    ) -> Result<(), EngineError> {
        tx.delete(ROSTER_INTENTS, job_key(job.id));
        if !job.own {
            self.event(Event::Failed { id: job.id, error });
        }
        Ok(())
    }

    /// Keeps the directory key that an entry of this device names, now that the entry is in the chain.
    pub(super) fn hold_own_key(&mut self, tx: &Tx<'_>, entry: Hash) -> Result<(), EngineError> {
        let job = self.job_of(entry).and_then(|at| self.roster_jobs.get(at));
        let key = job.and_then(|job| job.signed.as_ref()?.key.clone());
        match key {
            Some(key) => self.hold_directory_key(tx, key),
            None => Ok(()),
        }
    }

    /// Where the job with this entry stands in the queue.
    fn job_of(&self, entry: Hash) -> Option<usize> {
        self.roster_jobs.iter().position(|job| {
            let signed = job.signed.as_ref();
            signed.is_some_and(|signed| signed.entry.hash() == entry)
        })
    }

    pub(super) fn handle_roster_appended(
        &mut self,
        tx: &Tx<'_>,
        head: RosterHead,
    ) -> Result<(), EngineError> {
        self.note_head(head);
        // The answer may be to an earlier attempt, signed against another head.
        let job = self
            .job_of(head.hash)
            .and_then(|at| self.roster_jobs.get(at));
        let entry = job
            .and_then(|job| job.signed.as_ref())
            .map(|signed| signed.entry.bytes().to_vec());
        match entry {
            Some(bytes) => self.apply_entry(tx, &bytes),
            None => Ok(()),
        }
    }

    pub(super) fn handle_roster_refused(
        &mut self,
        tx: &Tx<'_>,
        entry: Hash,
        refusal: Refusal,
    ) -> Result<(), EngineError> {
        if let Refusal::RosterConflict { head } = refusal {
            self.note_head(head);
        }
        let now_ms = self.now_ms;
        let Some(at) = self.job_of(entry) else {
            // An earlier attempt; the one that counts has its own answer coming.
            return Ok(());
        };
        let Some(job) = self.roster_jobs.get_mut(at) else {
            return Ok(());
        };
        let issued_at_ms = job
            .signed
            .as_ref()
            .map_or(now_ms, |signed| signed.entry.tbs().issued_at_ms);
        match refusal {
            Refusal::RosterConflict { head } => {
                job.in_flight = false;
                if job.signed.as_ref().is_some_and(|s| s.parent == head) {
                    job.signed = None;
                }
                Ok(())
            }
            Refusal::RateLimited { retry_after_ms } => {
                job.in_flight = false;
                self.append_after_ms = now_ms.saturating_add(retry_after_ms.max(1));
                Ok(())
            }
            // Signed long ago, before this device was offline: the relay has it nowhere, and takes a new one.
            Refusal::Clock { .. } if issued_at_ms.abs_diff(now_ms) >= MAX_ISSUE_SKEW_MS / 2 => {
                job.in_flight = false;
                job.signed = None;
                Ok(())
            }
            // What nobody waits for is done when there is room.
            Refusal::Storage if job.own => {
                job.in_flight = false;
                self.append_after_ms = now_ms.saturating_add(NO_ROOM_MS);
                Ok(())
            }
            refusal => match self.roster_jobs.remove(at) {
                Some(job) => self.fail_job(tx, &job, CommandError::Refused(refusal)),
                None => Ok(()),
            },
        }
    }
}

impl Drop for InviteRow {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.pin.zeroize();
    }
}

impl Drop for SignedRow {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn roster_error(error: &RosterError) -> CommandError {
    CommandError::Roster(error.to_string())
}

fn job_key(id: IntentId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}
