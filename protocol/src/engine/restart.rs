//! Restart: how a conversation goes on in another group when its log cannot (REQ-150 to REQ-155).
//!
//! This module must never give up a message: what was intended for the group that ends is intended for its successor.

use std::collections::BTreeSet;

use rand::RngCore as _;

use super::election::{Election, turns};
use super::inbound::{Inbound, Refused, write_line};
use super::outbound::Work;
use super::rows::{
    self, Fault, FaultKind, GROUPS, GroupRow, GroupStatus, INTENTS, Intent, IntentRow, OUTBOX,
    OutboxKind, OutboxRow, PARENTS, ParentRow, RESTARTS, RestartRow,
};
use super::state::State;
use super::{CommandError, EngineError, Event, HistoryKind, HistoryRecord, IntentId};
use crate::group::validate::{self, Leaf};
use crate::group::{Group, GroupPolicy, MlsProvider, Predecessor, Violation};
use crate::identity::{DeviceId, GroupId, RosterSeq, UserId};
use crate::store::Tx;
use crate::wire::restart::{Restart, RestartCause, RestartStatement};
use crate::wire::{RecordBody, Refusal};

/// How long a private fault waits for others to confirm the epoch, ms (REQ-154).
pub(super) const CONFIRMATION_MS: u64 = 2_000;
/// How much later each next of those who may restart tries it, ms.
const TURN_MS: u64 = 800;
/// How long after a restart that came to nothing another is tried, ms.
pub(super) const RETRY_MS: u64 = 2_000;
/// Members without a say that a device remembers of the epoch before.
const MAX_REMEMBERED: usize = 16;

/// Members as the rules for a Restart see them.
fn members_of(leaves: &[Leaf]) -> Vec<(DeviceId, UserId)> {
    leaves.iter().map(|l| (l.device, l.user)).collect()
}

/// Keeps what it takes to judge a Restart that goes back to the epoch which ends now.
pub(super) fn remember_parent(
    tx: &Tx<'_>,
    group: GroupId,
    row: &GroupRow,
    state: &Group,
    committer: DeviceId,
) -> Result<(), EngineError> {
    let admins = state.policy().admins.clone();
    let (mut members, others): (Vec<_>, Vec<_>) = members_of(state.leaves())
        .into_iter()
        .partition(|(_, user)| admins.contains(user));
    members.extend(others.into_iter().take(MAX_REMEMBERED));
    let parent = ParentRow {
        epoch: row.epoch,
        entry_hash: row.entry_hash,
        committer,
        admins,
        members,
    };
    rows::put(tx, PARENTS, group.0, &parent)
}

impl State {
    /// What a refused record does to the group; `None` when it just goes on, or when the relay itself is convicted.
    pub(super) fn fault_of(
        &self,
        group: GroupId,
        row: &GroupRow,
        body: Option<&RecordBody>,
        violation: Violation,
    ) -> Option<Fault> {
        let body = body?;
        if !self.is_signed(group, row, body) {
            return None;
        }
        let (culprit, kind) = match (body, violation) {
            // The relay checks these itself: it would not have let them pass.
            (
                _,
                Violation::FenceFell
                | Violation::FenceMissed
                | Violation::RosterFork
                | Violation::BadHeader,
            ) => return None,
            // Nor what came after the group was closed: its sender may not have heard of that (REQ-102).
            (_, Violation::GroupClosed) if row.ends_at.is_some_and(|end| row.cursor > end) => {
                return None;
            }
            (RecordBody::Commit(entry), Violation::MlsRefused) => {
                (entry.device, FaultKind::Private)
            }
            (RecordBody::Commit(entry), _) => (entry.device, FaultKind::Public),
            // Who refuses to end the group, where the log says that it has ended, continues it elsewhere.
            (RecordBody::Restart(restart), _)
                if restart.statement.group == group && row.status == GroupStatus::Active =>
            {
                (restart.statement.device, FaultKind::FalseRestart)
            }
            _ => return None,
        };
        Some(Fault {
            reason: violation.to_string(),
            culprit,
            kind,
            since_ms: self.now_ms,
            confirmed: false,
        })
    }

    /// Whether a record that would accuse somebody is theirs: a relay can write any name on anything (REQ-163).
    fn is_signed(&self, group: GroupId, row: &GroupRow, body: &RecordBody) -> bool {
        let key_of = |device| Some(self.roster.device(device)?.mls_signature_key);
        match body {
            RecordBody::Commit(entry) => {
                key_of(entry.device).is_some_and(|key| entry.verify(group, row.epoch, &key).is_ok())
            }
            RecordBody::Restart(restart) => {
                key_of(restart.statement.device).is_some_and(|key| restart.verify(&key).is_ok())
            }
            RecordBody::Create { .. } | RecordBody::Message(_) | RecordBody::Attestation(_) => true,
        }
    }

    /// The log has gone on with something that nobody should follow.
    pub(super) fn halt(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &mut GroupRow,
        fault: Fault,
    ) -> Result<(), EngineError> {
        // The epoch is closed: what was not met in it never will be.
        self.drop_lost(tx, group, row)?;
        row.status = GroupStatus::Halted(fault);
        self.forget_timers(group);
        Ok(())
    }

    /// Nothing is due in this group any more.
    pub(super) fn forget_timers(&mut self, group: GroupId) {
        for timers in [&mut self.duties, &mut self.refresh_at, &mut self.restart_at] {
            timers.remove(&group);
        }
        self.attest_at.retain(|(id, _), _| *id != group);
        self.chores.retain(|(id, _), _| *id != group);
        self.claims.remove(&group);
        self.leases.remove(&group);
    }

    /// The device's command to continue a group elsewhere.
    pub(super) fn command_restart(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        group: GroupId,
    ) -> Result<Result<(), CommandError>, EngineError> {
        let Some((group, row)) = self.newest_of(tx, group)? else {
            return Ok(Err(CommandError::UnknownGroup));
        };
        let is_stopped = match &row.status {
            GroupStatus::Active => false,
            GroupStatus::Halted(fault) => fault.stopped().is_some(),
            _ => return Ok(Err(row.closed().unwrap_or(CommandError::ContinuedWithout))),
        };
        let state = self.take_group(tx, group)?;
        let may = self.may_continue(&state);
        self.groups.insert(group, state);
        if !may {
            return Ok(Err(CommandError::NotGroupAdmin));
        }
        let mut restart = self.restart_row(tx, group)?.unwrap_or_default();
        restart.intents.push(id.0);
        rows::put(tx, RESTARTS, group.0, &restart)?;
        if is_stopped {
            self.restart_stopped(tx, group, row, restart)?;
        }
        self.dirty.insert(group);
        Ok(Ok(()))
    }

    /// Continues a group whose log is beyond repair: there is no Restart to append, the Welcomes say it themselves
    /// (REQ-155).
    fn restart_stopped(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        mut row: GroupRow,
        restart: RestartRow,
    ) -> Result<(), EngineError> {
        let state = self.take_group(tx, group)?;
        let (successor, _) = self.open_successor(tx, group, &row, &state)?;
        self.groups.insert(group, state);
        rows::put(tx, RESTARTS, group.0, &restart)?;
        let reason = RestartCause::Requested.text().to_owned();
        self.continue_in(tx, group, &mut row, successor, reason)
    }

    pub(super) fn restart_row(
        &self,
        tx: &Tx<'_>,
        group: GroupId,
    ) -> Result<Option<RestartRow>, EngineError> {
        rows::load(tx, RESTARTS, &group.0)
    }

    /// The newest group of the conversation that this device is in, from this one on; none if the groups name each other in
    /// a circle, as only somebody who lies can make them.
    pub(super) fn newest_of(
        &self,
        tx: &Tx<'_>,
        group: GroupId,
    ) -> Result<Option<(GroupId, GroupRow)>, EngineError> {
        let Some(row) = rows::load::<GroupRow>(tx, GROUPS, &group.0)? else {
            return Ok(None);
        };
        let mut newest = (group, row);
        let mut met = BTreeSet::from([group]);
        while let GroupStatus::Continued(successor) = newest.1.status {
            if !met.insert(successor) {
                return Ok(None);
            }
            match rows::load::<GroupRow>(tx, GROUPS, &successor.0)? {
                Some(row) => newest = (successor, row),
                None => break,
            }
        }
        Ok(Some(newest))
    }

    /// Continues an intact group when a group admin wants it; returns whether that is under way.
    pub(super) fn pursue_restart(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
    ) -> Result<bool, EngineError> {
        let Some(restart) = self.restart_row(tx, work.id)? else {
            return Ok(false);
        };
        if restart.leads_back(work.row) {
            self.lead_back(tx, work, restart)?;
            return Ok(true);
        }
        if !self.may_continue(work.group) {
            // The right to it was lost while it was under way.
            self.fail_restart(tx, work.id, &CommandError::NotGroupAdmin)?;
            return Ok(false);
        }
        if restart.intents.is_empty() {
            // What called for it is mended.
            self.give_up_successor(tx, work.id)?;
            return Ok(false);
        }
        self.advance_restart(
            tx,
            work.id,
            work.row,
            work.group,
            restart,
            RestartCause::Requested,
        )?;
        Ok(true)
    }

    /// Whether this device may end an intact group for another: others judge it by the same rule (REQ-152).
    fn may_continue(&self, group: &Group) -> bool {
        let head = self.roster.head().seq;
        let members = members_of(group.leaves());
        let able = validate::restarters(&self.roster, head, &members, &group.policy().admins, None);
        able.contains(&self.identity.device)
    }

    /// A halted group: waits for the Restart of somebody who may, and makes one when it is this device's turn.
    pub(super) fn pump_halted(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &mut GroupRow,
    ) -> Result<(), EngineError> {
        self.unsettled.insert(id);
        let head = self.roster.head().seq;
        let GroupStatus::Halted(fault) = row.status.clone() else {
            return Ok(());
        };
        if row.is_candidate && self.restart_row(tx, id)?.is_some_and(|r| r.leads_back(row)) {
            // It has lost, and now it leads nowhere: nobody else is in it for good.
            return self.forget_group(tx, id);
        }
        match self.online() {
            Some(link) if link.need_roster.max(link.relay_head) <= head => {}
            _ => return Ok(()),
        }
        let group = self.take_group(tx, id)?;
        let done = self.repair(tx, id, row, &group, fault);
        self.groups.insert(id, group);
        done
    }

    fn repair(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &mut GroupRow,
        group: &Group,
        fault: Fault,
    ) -> Result<(), EngineError> {
        let access_key = group.access_key(&self.crypto)?;
        let settles_at = match fault.kind {
            FaultKind::Private => fault.since_ms + CONFIRMATION_MS,
            FaultKind::Public | FaultKind::FalseRestart => fault.since_ms,
        };
        let Some(link) = self.link.as_mut() else {
            return Ok(());
        };
        let sub = link.subs.get(&id).filter(|sub| sub.epoch == row.epoch);
        let answer = sub.and_then(|sub| sub.confirmed);
        let is_asked = sub.is_some_and(|sub| sub.asked);
        let is_early = self.now_ms < settles_at;
        match answer {
            Some((confirmed, _)) if confirmed > row.epoch => {
                return self.handle_confirmed(tx, id, row, fault);
            }
            // An answer from before the time was up says nothing about it.
            Some((_, at)) if is_early || at >= settles_at => {}
            _ if is_asked => return Ok(()),
            _ => {
                if link.may_catch_up(id) {
                    self.subscribe(id, row, &access_key);
                }
                return Ok(());
            }
        }
        if is_early {
            self.restart_at.insert(id, settles_at);
            return Ok(());
        }
        if self.roster.closed_at(id).is_some() {
            // A Restart that is in the log from before is followed all the same, whenever it comes (REQ-102).
            self.unsettled.remove(&id);
            return self.fail_intents(tx, id, &CommandError::GroupClosed);
        }
        self.take_turn(tx, id, row, group, &fault)
    }

    /// Whose record has halted a group, if any has.
    fn culprit_of(&self, row: &GroupRow) -> Option<UserId> {
        match &row.status {
            GroupStatus::Halted(fault) => Some(self.roster.device(fault.culprit)?.user),
            _ => None,
        }
    }

    /// Restarts when it is this device's turn (REQ-152).
    fn take_turn(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &GroupRow,
        group: &Group,
        fault: &Fault,
    ) -> Result<(), EngineError> {
        let culprit = self.culprit_of(row);
        let members = members_of(group.leaves());
        let head = self.roster.head().seq;
        let admins = &group.policy().admins;
        let able = validate::restarters(&self.roster, head, &members, admins, culprit);
        if !able.contains(&self.identity.device) {
            return Ok(());
        }
        let due = match self.restart_at.get(&id) {
            Some(at) => *at,
            None => {
                let me = self.identity.device;
                let able = able.iter().copied();
                let before = Election::Restart.before(id, row.epoch.0, me, able);
                self.now_ms + turns(before, 30) * TURN_MS + u64::from(self.rng.next_u32() % 50)
            }
        };
        self.restart_at.insert(id, due);
        if due > self.now_ms {
            return Ok(());
        }
        let culprit = fault.culprit;
        let cause = match fault.kind {
            FaultKind::Public | FaultKind::Private => RestartCause::FaultyCommit { culprit },
            FaultKind::FalseRestart => RestartCause::FalseRestart { culprit },
        };
        let restart = self.restart_row(tx, id)?.unwrap_or_default();
        self.advance_restart(tx, id, row, group, restart, cause)
    }

    /// One step on the way: the successor, its members, the Restart that names it (REQ-153).
    fn advance_restart(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &GroupRow,
        group: &Group,
        mut restart: RestartRow,
        cause: RestartCause,
    ) -> Result<(), EngineError> {
        let access_key = group.access_key(&self.crypto)?;
        if restart.submitted {
            return self.send_outbox(tx, id, row, Some(&access_key)).map(drop);
        }
        let Some((successor, filling)) = restart.successor else {
            restart.successor = Some(self.open_successor(tx, id, row, group)?);
            return rows::put(tx, RESTARTS, id.0, &restart);
        };
        match rows::load::<GroupRow>(tx, GROUPS, &successor.0)?.map(|row| row.status) {
            Some(GroupStatus::Active) if self.continues(tx, successor, id, row)? => {}
            Some(GroupStatus::Creating) => return Ok(()),
            // It came to nothing, or was made of an epoch that is over; another one is made.
            _ => return self.give_up_successor(tx, id),
        }
        if tx.get(INTENTS, &rows::key(successor, filling))?.is_some() {
            return Ok(());
        }
        self.submit_restart(tx, id, row, restart, cause)?;
        self.send_outbox(tx, id, row, Some(&access_key)).map(drop)
    }

    /// Whether a successor was made of a group's present epoch: whoever was taken out since then must not come back in it.
    fn continues(
        &mut self,
        tx: &Tx<'_>,
        successor: GroupId,
        id: GroupId,
        row: &GroupRow,
    ) -> Result<bool, EngineError> {
        let state = self.take_group(tx, successor)?;
        let present = Predecessor {
            group: id,
            epoch: row.epoch,
            entry_hash: row.entry_hash,
        };
        let continues = state.policy().predecessor == Some(present);
        self.groups.insert(successor, state);
        Ok(continues)
    }

    /// Writes down the Restart that names the group of `restart`.
    pub(super) fn submit_restart(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &GroupRow,
        mut restart: RestartRow,
        cause: RestartCause,
    ) -> Result<(), EngineError> {
        let Some((successor, _)) = restart.successor else {
            return Ok(());
        };
        restart.submitted = true;
        rows::put(tx, RESTARTS, id.0, &restart)?;
        let head = self.roster.head();
        let statement = RestartStatement {
            group: id,
            parent_epoch: row.epoch,
            parent_entry_hash: row.entry_hash,
            cause,
            successor,
            roster_seq: head.seq,
            roster_hash: head.hash,
            device: self.identity.device,
        };
        let body = RecordBody::Restart(Restart::sign(statement, &self.identity.mls));
        let outbox = OutboxRow::new(OutboxKind::Restart, None, row.epoch, &body);
        self.put_outbox(tx, id, &outbox)
    }

    /// Makes the successor: the same policy, everybody but the culprit (REQ-153). Returns it and the intent that fills it.
    fn open_successor(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &GroupRow,
        group: &Group,
    ) -> Result<(GroupId, u64), EngineError> {
        let culprit = self.culprit_of(row);
        let me = self.identity.user;
        let mut admins = group.policy().admins.clone();
        admins.retain(|user| Some(*user) != culprit);
        if !admins.contains(&me) {
            admins.push(me);
        }
        let policy = GroupPolicy {
            admins,
            predecessor: Some(Predecessor {
                group: id,
                epoch: row.epoch,
                entry_hash: row.entry_hash,
            }),
            ..group.policy().clone()
        };
        // Who has asked to leave is not brought along.
        let leavers = group.leavers();
        let users = group
            .leaves()
            .iter()
            .filter(|l| self.roster.is_admitted(l.device) && Some(l.user) != culprit)
            .filter(|l| !leavers.contains(l))
            .map(|l| l.user)
            .collect();
        let successor = GroupId::random(&mut self.rng);
        let number = rows::INTERNAL + rows::next_number(tx, "internal intent")?;
        self.open_group(tx, IntentId(number), successor, policy)?;
        let fill = IntentRow {
            intent: Intent::Add { users },
            in_flight: false,
        };
        rows::put(tx, INTENTS, rows::key(successor, number), &fill)?;
        self.dirty.insert(successor);
        Ok((successor, number))
    }

    /// The Restart is not in the log: it is made again, or somebody else's counts.
    pub(super) fn unsubmit_restart(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
    ) -> Result<(), EngineError> {
        let Some(mut restart) = self.restart_row(tx, group)? else {
            return Ok(());
        };
        restart.submitted = false;
        rows::put(tx, RESTARTS, group.0, &restart)
    }

    /// The relay did not take the Restart.
    pub(super) fn handle_restart_refused(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        refusal: &Refusal,
    ) -> Result<(), EngineError> {
        // Whatever it was, the log has more to say: it is asked again.
        if let Some(link) = &mut self.link {
            link.subs.remove(&group);
        }
        let lost = matches!(
            refusal,
            Refusal::WrongEpoch { .. } | Refusal::GroupRestarted { .. }
        );
        let row = rows::load::<GroupRow>(tx, GROUPS, &group.0)?;
        let restart = self.restart_row(tx, group)?;
        if let (Some(row), Some(restart)) = (row, restart)
            && restart.leads_back(&row)
        {
            return if lost {
                Ok(())
            } else {
                self.forget_group(tx, group)
            };
        }
        if !lost {
            return self.fail_restart(tx, group, &CommandError::Refused(refusal.clone()));
        }
        self.give_up_successor(tx, group)
    }

    /// Others have gone on from what this device does not follow (REQ-154).
    fn handle_confirmed(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &mut GroupRow,
        mut fault: Fault,
    ) -> Result<(), EngineError> {
        self.restart_at.remove(&id);
        self.give_up_successor(tx, id)?;
        self.restart_at.remove(&id);
        let is_private = fault.kind == FaultKind::Private;
        fault.confirmed = true;
        row.status = GroupStatus::Halted(fault);
        rows::put(tx, GROUPS, id.0, row)?;
        if is_private {
            return self.ask_resync(tx, id, row);
        }
        self.dirty.insert(id);
        Ok(())
    }

    /// A Restart in the log: the first one of somebody who may is followed (REQ-152).
    pub(super) fn follow_restart(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        restart: &Restart,
    ) -> Result<(), Refused> {
        let said = &restart.statement;
        let refused = |violation| Refused::Rule(violation, Some(said.device));
        let known = self.roster.device(said.device).cloned();
        let restarter = known.ok_or_else(|| refused(Violation::BadRestart))?;
        if said.group != inbound.group
            || said.parent_epoch != inbound.record.epoch
            || said.successor == inbound.group
            || said.roster_seq < inbound.record.fence
            || !self.is_on_chain(said.roster_seq, said.roster_hash)
            || restart.verify(&restarter.mls_signature_key).is_err()
        {
            return Err(refused(Violation::BadRestart));
        }
        let state = self.take_group(tx, inbound.group)?;
        let entitled = self.may_restart(tx, inbound, &state, said);
        self.groups.insert(inbound.group, state);
        if !entitled? {
            return Err(refused(Violation::RestartNotAllowed));
        }
        let who = Some((said.device, restarter.user));
        let reason = said.cause.text().to_owned();
        let kind = HistoryKind::Continued {
            successor: said.successor,
            reason,
        };
        self.end_in(tx, inbound.group, inbound.row, said.successor)?;
        if !inbound.row.has_lost() {
            inbound.history(tx, who, kind)?;
        }
        Ok(())
    }

    /// Whether a Restart is by somebody who may, as seen from what this device has followed (REQ-152).
    fn may_restart(
        &self,
        tx: &Tx<'_>,
        inbound: &Inbound<'_>,
        state: &Group,
        said: &RestartStatement,
    ) -> Result<bool, EngineError> {
        let row = &*inbound.row;
        let members = members_of(state.leaves());
        let admins = &state.policy().admins;
        let roster = &self.roster;
        let judge = |members: &[_], admins: &[_], culprit: Option<UserId>| {
            validate::restarters(roster, said.roster_seq, members, admins, culprit)
                .contains(&said.device)
        };
        if (said.parent_epoch, said.parent_entry_hash) == (row.epoch, row.entry_hash) {
            // What this device has not seen go wrong, only a group admin may leave behind.
            return Ok(judge(&members, admins, self.culprit_of(row)));
        }
        // It goes back behind a commit that this device has followed: only if that has left the restarter in.
        let is_behind = said.parent_epoch < row.epoch;
        if !is_behind || !members.iter().any(|(device, _)| *device == said.device) {
            return Ok(false);
        }
        let parent: Option<ParentRow> = rows::load(tx, PARENTS, &inbound.group.0)?;
        let parent = parent.filter(|parent| {
            (parent.epoch, parent.entry_hash) == (said.parent_epoch, said.parent_entry_hash)
        });
        Ok(match (parent, said.cause.culprit()) {
            (Some(parent), Some(culprit)) if parent.committer == culprit => {
                let culprit = roster.device(culprit).map(|d| d.user);
                judge(&parent.members, &parent.admins, culprit)
            }
            _ => judge(&members, admins, None),
        })
    }

    /// Ends the group here: nothing more is read or sent, what was wanted moves on.
    fn end_in(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &mut GroupRow,
        successor: GroupId,
    ) -> Result<(), EngineError> {
        for (number, outbox) in rows::of_group::<OutboxRow>(tx, OUTBOX, group)? {
            self.drop_outbox(tx, group, number, &outbox)?;
        }
        row.status = GroupStatus::Continued(successor);
        let restart = self.restart_row(tx, group)?.unwrap_or_default();
        self.drop_candidates(tx, group, Some(successor))?;
        tx.delete(RESTARTS, group.0);
        tx.delete(PARENTS, group.0);
        let crypto = self.crypto.clone();
        let state = self.take_group(tx, group)?;
        state.delete(&MlsProvider::new(&crypto, tx))?;
        self.forget_timers(group);
        // To be let in anew is of no use any more.
        self.end_resync(tx, group)?;
        if !row.has_lost() {
            self.tell_continued(&restart, group, successor);
        }
        self.promote(tx, group, successor)?;
        self.dirty.insert(group);
        if let Some(link) = &mut self.link {
            link.inbox_waiting = true;
        }
        Ok(())
    }

    /// Tells the user, and each command that asked for it.
    fn tell_continued(&mut self, restart: &RestartRow, group: GroupId, successor: GroupId) {
        let asked = restart.intents.iter().map(|id| Some(IntentId(*id)));
        let nobody = restart.intents.is_empty().then_some(None);
        for id in asked.chain(nobody) {
            self.event(Event::GroupContinued {
                id,
                group,
                successor,
            });
        }
    }

    /// Ends a group without a record that says so.
    pub(super) fn continue_in(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &mut GroupRow,
        successor: GroupId,
        reason: String,
    ) -> Result<(), EngineError> {
        self.end_in(tx, group, row, successor)?;
        rows::put(tx, GROUPS, group.0, row)?;
        let seq = row.cursor.next();
        let line = HistoryRecord {
            seq,
            at_ms: self.now_ms,
            device: None,
            user: None,
            epoch: row.epoch.0,
            kind: HistoryKind::Continued { successor, reason },
        };
        let event = write_line(tx, group, &line)?;
        self.event(event);
        Ok(())
    }

    /// A group that goes on elsewhere: what is still wanted of it moves there.
    pub(super) fn pump_continued(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        successor: GroupId,
    ) -> Result<(), EngineError> {
        self.unsettled.remove(&id);
        let wanted = rows::of_group::<IntentRow>(tx, INTENTS, id)?;
        if wanted.is_empty() {
            return Ok(());
        }
        if rows::load::<GroupRow>(tx, GROUPS, &successor.0)?.is_some() {
            let Some((newest, _)) = self.newest_of(tx, successor)? else {
                return self.fail_intents(tx, id, &CommandError::ContinuedWithout);
            };
            for (number, row) in wanted {
                tx.delete(INTENTS, rows::key(id, number));
                let row = IntentRow {
                    in_flight: false,
                    ..row
                };
                rows::put(tx, INTENTS, rows::key(newest, number), &row)?;
            }
            self.dirty.insert(newest);
            return Ok(());
        }
        // The Welcome was in the inbox before the Restart was in the log: an empty inbox means that there is none.
        match self.online() {
            Some(link) if !link.inbox_waiting && !link.asks_inbox() => {
                self.fail_intents(tx, id, &CommandError::ContinuedWithout)
            }
            _ => {
                self.unsettled.insert(id);
                Ok(())
            }
        }
    }

    /// A Welcome into a group that continues one which is held here (REQ-153, REQ-155). Returns whether it is refused
    /// because the log has named another.
    pub(super) fn handle_successor(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        adder: &Leaf,
        predecessor: Predecessor,
        s: RosterSeq,
    ) -> Result<bool, EngineError> {
        let old = predecessor.group;
        let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &old.0)? else {
            return Ok(false);
        };
        match row.status.clone() {
            GroupStatus::Continued(successor) => {
                self.dirty.insert(old);
                Ok(successor != id)
            }
            GroupStatus::Halted(fault) if fault.stopped().is_some() => {
                if self.is_way_out(tx, &row, adder, predecessor, s)? {
                    let reason = RestartCause::Requested.text().to_owned();
                    self.continue_in(tx, old, &mut row, id, reason)?;
                }
                Ok(false)
            }
            GroupStatus::Active | GroupStatus::Halted(_) => {
                if let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &id.0)? {
                    row.is_candidate = true;
                    rows::put(tx, GROUPS, id.0, &row)?;
                }
                Ok(false)
            }
            GroupStatus::Creating | GroupStatus::Removed | GroupStatus::Stopped(_) => Ok(false),
        }
    }

    /// Whether a Welcome leads out of a group that is stopped for good: an admin of its last good epoch went ahead.
    fn is_way_out(
        &mut self,
        tx: &Tx<'_>,
        row: &GroupRow,
        adder: &Leaf,
        predecessor: Predecessor,
        s: RosterSeq,
    ) -> Result<bool, EngineError> {
        if (predecessor.epoch, predecessor.entry_hash) != (row.epoch, row.entry_hash) {
            return Ok(false);
        }
        let state = self.take_group(tx, predecessor.group)?;
        let culprit = self.culprit_of(row);
        let members = members_of(state.leaves());
        let admins = &state.policy().admins;
        let able = validate::restarters(&self.roster, s, &members, admins, culprit);
        let is_admin = state.policy().is_admin(adder.user);
        self.groups.insert(predecessor.group, state);
        Ok(is_admin && able.contains(&adder.device))
    }
}
