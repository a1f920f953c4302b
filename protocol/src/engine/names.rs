//! Names that a recovery has cut off: sealed again under the newest key by whoever still has an older one (REQ-103).
//!
//! This module must never put an older name in the place of a newer one: what another change has overtaken is dropped,
//! and owed anew if it is still owed.

use zeroize::Zeroizing;

use super::roster_jobs::{RosterJob, Rotation};
use super::state::State;
use super::{EngineError, IntentId};
use crate::identity::{RosterSeq, UserId};
use crate::roster::{MAX_OPS, Op, Operation, Target, UserRecord, check_authority};
use crate::store::Tx;

/// How long an administrator's device leaves the names of others to themselves, ms, and within which span after that it
/// seals them.
const OTHERS_DELAY_MS: u64 = 600_000;
/// Names that one entry seals: a rotation has a place beside them.
const MAX_NAMES: usize = MAX_OPS - 1;

impl State {
    /// Seals what only an older key opens: one's own name at once, others' some time later.
    pub(super) fn owe_names(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        if self.cut().is_none() || !self.is_admitted() || self.newest_directory_key().is_none() {
            self.directory.names_at = None;
            return Ok(());
        }
        self.owe_own_name(tx)?;
        self.owe_others_names(tx)
    }

    /// The newest key that no other leads back from, but for the first.
    fn cut(&self) -> Option<RosterSeq> {
        let later = self.roster.directory().iter().skip(1);
        let newest = later.rev().find(|d| !d.opens_predecessor());
        newest.map(|d| d.since)
    }

    /// Whether nobody comes from the newest key to the one that a profile is sealed under.
    fn is_cut_off(&self, generation: Option<RosterSeq>) -> bool {
        self.cut().zip(generation).is_some_and(|(cut, at)| at < cut)
    }

    fn owe_own_name(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let me = self.identity.user;
        let generation = self
            .roster
            .user(me)
            .map(|record| record.profile.generation());
        if !self.is_cut_off(generation.flatten()) || self.renames(me) {
            return Ok(());
        }
        let Some(op) = self.sealed_anew(me) else {
            return Ok(());
        };
        self.add_names(tx, vec![op])
    }

    /// An administrator's device looks after those who do not come back.
    fn owe_others_names(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let owed = match self.administers() && self.online().is_some() {
            true => self.others_cut_off(),
            false => Vec::new(),
        };
        if owed.is_empty() {
            self.directory.names_at = None;
            return Ok(());
        }
        self.directory.names_at = self.left_to_others(self.directory.names_at, OTHERS_DELAY_MS);
        if self.directory.names_at.is_some() {
            return Ok(());
        }
        let ops = owed.into_iter().take(MAX_NAMES);
        let ops = ops.filter_map(|user| self.sealed_anew(user)).collect();
        self.add_names(tx, ops)
    }

    /// Others whose names this device can open, the newest key does not, and the authority table gives to this user.
    fn others_cut_off(&self) -> Vec<UserId> {
        let me = self.identity.user;
        let may = |user: UserId| {
            let roles = self.roster.role(me).zip(self.roster.role(user));
            roles.is_some_and(|(mine, theirs)| {
                check_authority(mine, Operation::SetProfile, Target::Role(theirs))
            })
        };
        let is_owed = |user: UserId, record: &UserRecord| {
            user != me
                && !record.is_removed()
                && self.is_cut_off(record.profile.generation())
                && may(user)
                && !self.renames(user)
                && self.open_name(user, &record.profile).is_some()
        };
        let users = self.roster.users();
        users
            .filter(|(user, record)| is_owed(*user, record))
            .map(|(user, _)| user)
            .collect()
    }

    fn sealed_anew(&mut self, user: UserId) -> Option<Op> {
        let name = self.name_of(user).map(Zeroizing::new)?;
        let profile = self.seal_name(user, &name)?;
        Some(Op::SetProfile { user, profile })
    }

    fn add_names(&mut self, tx: &Tx<'_>, ops: Vec<Op>) -> Result<(), EngineError> {
        if ops.is_empty() {
            return Ok(());
        }
        let job = RosterJob::new(IntentId(0), ops, Rotation::IfStale, None);
        let job = self.own_job(job);
        self.add_job(tx, job)
    }

    /// Whether a change by the device itself seals a name that somebody has sealed meanwhile.
    pub(super) fn is_moot(&self, ops: &[Op]) -> bool {
        ops.iter().any(|op| {
            let Op::SetProfile { user, .. } = op else {
                return false;
            };
            let record = self.roster.user(*user);
            !record.is_some_and(|r| self.is_cut_off(r.profile.generation()))
        })
    }
}
