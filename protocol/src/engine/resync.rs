//! Resync: a device whose state of a group leads nowhere asks the others, and one of them lets it in anew
//! (REQ-156 to REQ-158).
//!
//! This module must never take a Welcome that was not asked for, and never hide what was missed.

use rand::RngCore as _;

use super::election::{Election, turns};
use super::link::{Asked, Link};
use super::outbound::Work;
use super::rows::{
    self, GROUPS, GroupRow, GroupStatus, INTENTS, OUTBOX, OutboxKind, OutboxRow, RESYNCS, ResyncRow,
};
use super::state::{Chore, State};
use super::{CommandError, EngineError, Event, HistoryKind, IntentId};
use crate::group::validate::Leaf;
use crate::group::{
    Changes, GroupPolicy, JoinedGroup, MlsProvider, Resync, Violation, make_resync_key_package,
    read_key_package,
};
use crate::identity::{DeviceId, GroupId, Hash};
use crate::roster::Role;
use crate::store::Tx;
use crate::wire::{InboxItem, Request};

/// How much later each next of those who may answer does so, ms.
const TURN_MS: u64 = 300;
/// How much longer an answer is left to others by a device that the asker does not know, ms (REQ-157).
const STRANGER_MS: u64 = 8_000;
/// How long a question waits after the second answer in a row that could not be taken, ms; it doubles with each further one.
const REFUSED_MS: u64 = 4_000;
/// No question waits longer, ms.
const MAX_REFUSED_MS: u64 = 3_600_000;
/// After this time a question is asked anew with a fresh KeyPackage, ms.
const STALE_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// A group as this device last held it.
pub(super) struct LastHeld {
    pub(super) row: GroupRow,
    asked_at_ms: u64,
    /// Its members and policy, where they are still known.
    tree: Option<(Vec<Leaf>, GroupPolicy)>,
}

impl State {
    pub(super) fn command_resync(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        group: GroupId,
    ) -> Result<Result<(), CommandError>, EngineError> {
        let Some((group, mut row)) = self.newest_of(tx, group)? else {
            return Ok(Err(CommandError::UnknownGroup));
        };
        match row.status {
            GroupStatus::Active | GroupStatus::Halted(_) | GroupStatus::Stopped(_) => {}
            _ => return Ok(Err(row.closed().unwrap_or(CommandError::ContinuedWithout))),
        }
        if resync_row(tx, group)?.is_none() {
            self.ask_resync(tx, group, &mut row)?;
        }
        // A question that is open already is put once more: with another one, an answer to it would not be taken.
        if let Some(mut asked) = resync_row(tx, group)? {
            asked.intents.push(id.0);
            asked.not_before_ms = 0;
            rows::put(tx, RESYNCS, group.0, &asked)?;
        }
        if let Some(link) = &mut self.link {
            link.resyncs.remove(&group);
        }
        self.dirty.insert(group);
        Ok(Ok(()))
    }

    /// Writes down that this device wants to be let in anew; it is asked for whenever there is a connection.
    pub(super) fn ask_resync(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &mut GroupRow,
    ) -> Result<(), EngineError> {
        let before = resync_row(tx, group)?;
        // Each question is later than the one before, whatever the clock says.
        let earlier = row
            .resynced_ms
            .max(before.as_ref().map_or(0, |b| b.asked_at_ms));
        let asked_at_ms = self.now_ms.max(earlier + 1);
        let resync = Resync::new(group, row.entry_hash, asked_at_ms);
        let (crypto, identity) = (self.crypto.clone(), self.identity.clone());
        let provider = MlsProvider::new(&crypto, tx);
        let key_package =
            make_resync_key_package(&provider, &identity.me(), row.suite, &resync, self.now_ms)
                .map_err(|_| EngineError::Bug("make a KeyPackage"))?;
        let asked = ResyncRow {
            asked_at_ms,
            key_package,
            made_at_ms: self.now_ms,
            refused: before.as_ref().map_or(0, |b| b.refused),
            not_before_ms: 0,
            intents: before.map(|b| b.intents).unwrap_or_default(),
        };
        rows::put(tx, RESYNCS, group.0, &asked)?;
        row.resynced_ms = asked_at_ms;
        rows::put(tx, GROUPS, group.0, row)?;
        if let Some(link) = &mut self.link {
            link.resyncs.remove(&group);
        }
        self.dirty.insert(group);
        Ok(())
    }

    /// Puts an open question to the relay, once on each connection; returns whether there is one.
    pub(super) fn send_resync(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &mut GroupRow,
    ) -> Result<bool, EngineError> {
        let Some(asked) = resync_row(tx, group)? else {
            return Ok(false);
        };
        if self.now_ms > asked.made_at_ms + STALE_MS {
            self.ask_resync(tx, group, row)?;
            self.dirty.remove(&group);
            return self.send_resync(tx, group, row);
        }
        if self.link.as_ref().is_some_and(|link| link.clock_is_off) {
            // The others would refuse the lifetime that this clock gives it (REQ-159).
            return Ok(true);
        }
        let far_ms = self.now_ms.saturating_add(STALE_MS);
        if asked.made_at_ms > far_ms {
            // Made while the clock was far ahead.
            self.ask_resync(tx, group, row)?;
            self.dirty.remove(&group);
            return self.send_resync(tx, group, row);
        }
        if asked.not_before_ms > self.now_ms {
            let chore = (group, Chore::AskResync);
            self.chores.insert(chore, asked.not_before_ms);
            return Ok(true);
        }
        // The inbox may hold what ends the question: it goes first.
        let is_read = |link: &Link| !link.inbox_waiting && !link.asks_inbox();
        let link = self.online().filter(|link| is_read(link));
        if link.is_some_and(|link| link.resyncs.insert(group)) {
            let key_package = asked.key_package.into();
            self.ask(
                Asked::Resync { group },
                Request::AskResync { group, key_package },
            );
        }
        Ok(true)
    }

    /// The relay has the question.
    pub(super) fn handle_resync_stored(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
    ) -> Result<(), EngineError> {
        if let Some(mut asked) = resync_row(tx, group)? {
            let answered = std::mem::take(&mut asked.intents);
            if !answered.is_empty() {
                rows::put(tx, RESYNCS, group.0, &asked)?;
            }
            self.tell_resynced(answered);
        }
        Ok(())
    }

    fn tell_resynced(&mut self, intents: Vec<u64>) {
        for id in intents.into_iter().map(IntentId) {
            self.event(Event::Done { id });
        }
    }

    /// The question has no use any more: it is answered, or the group has ended.
    pub(super) fn end_resync(&mut self, tx: &Tx<'_>, group: GroupId) -> Result<(), EngineError> {
        if let Some(asked) = resync_row(tx, group)? {
            tx.delete(RESYNCS, group.0);
            self.tell_resynced(asked.intents);
        }
        Ok(())
    }

    /// The device will not be let in anew: whoever asked for it is told why.
    pub(super) fn fail_resync(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        error: &CommandError,
    ) -> Result<(), EngineError> {
        if let Some(asked) = resync_row(tx, group)? {
            tx.delete(RESYNCS, group.0);
            for id in asked.intents.into_iter().map(IntentId) {
                let error = error.clone();
                self.event(Event::Failed { id, error });
            }
        }
        Ok(())
    }

    /// A colleague's device asks; who answers is decided when the group is looked at.
    pub(super) fn handle_resync_asked(
        &mut self,
        group: GroupId,
        device: DeviceId,
        key_package: &[u8],
    ) {
        if device != self.identity.device {
            let asked = (key_package.to_vec(), None);
            self.resyncs_asked.insert((group, device), asked);
            self.dirty.insert(group);
        }
    }

    /// Lets in anew who asked for it (REQ-157); returns whether a commit for that is on its way.
    pub(super) fn answer_resyncs(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
    ) -> Result<bool, EngineError> {
        let all = (work.id, DeviceId([0; 16]))..=(work.id, DeviceId([0xff; 16]));
        let asked: Vec<_> = self
            .resyncs_asked
            .range(all)
            .map(|(k, v)| (*k, v.clone()))
            .collect();
        for ((group, device), (bytes, due)) in asked {
            if let Some(at) = due.filter(|at| *at > self.now_ms) {
                self.restart_at.insert(group, at);
                continue;
            }
            let package = read_key_package(&self.crypto, work.row.suite, self.now_ms, &bytes);
            let package = package.ok().filter(|p| self.may_resync(work, device, p));
            let Some(package) = package else {
                self.resyncs_asked.remove(&(group, device));
                continue;
            };
            if due.is_none() {
                let entry = package.resync.map_or(Hash([0; 32]), |r| r.entry_hash);
                let is_known = rows::was_in(tx, group, entry)?;
                let at = self.now_ms + self.resync_delay_ms(work, device, is_known);
                if at > self.now_ms {
                    self.resyncs_asked
                        .insert((group, device), (bytes, Some(at)));
                    self.restart_at.insert(group, at);
                    continue;
                }
            }
            let changes = Changes {
                removes: vec![device],
                adds: vec![package],
                ..Changes::default()
            };
            self.commit(tx, work, None, changes)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether a KeyPackage is by a member that is still admitted, for this group, and newer than its leaf (REQ-157).
    fn may_resync(
        &self,
        work: &Work<'_>,
        device: DeviceId,
        package: &crate::group::ReadKeyPackage,
    ) -> bool {
        let leaf = work.group.leaves().iter().find(|l| l.device == device);
        let before = work.group.resync_of(device).map_or(0, |r| r.asked_at_ms);
        let is_same = leaf.is_some_and(|leaf| {
            package.credential.device == device
                && package.credential.user == leaf.user
                && package.credential.org == leaf.org
                && package.key == leaf.key
        });
        let asks_here = package
            .resync
            .is_some_and(|r| r.group == work.id && r.asked_at_ms > before);
        let is_guest = self.roster.role(self.identity.user) == Some(Role::Guest);
        let leaves = leaf.is_some_and(|leaf| work.group.leavers().contains(leaf));
        is_same && asks_here && !leaves && self.roster.is_admitted(device) && !is_guest
    }

    /// How long this device leaves the answer to others, ms.
    fn resync_delay_ms(&mut self, work: &Work<'_>, asker: DeviceId, is_known: bool) -> u64 {
        let leaves = work.group.leaves().iter();
        let able = leaves
            .map(|l| l.device)
            .filter(|device| *device != asker && self.roster.is_admitted(*device));
        let me = self.identity.device;
        let before = Election::Resync.before(work.id, work.row.epoch.0, me, able);
        // Who came later than the asker's last epoch is nobody whose Welcome it can take (REQ-158).
        let stranger_ms = if is_known { 0 } else { STRANGER_MS };
        stranger_ms + turns(before, 20) * TURN_MS + u64::from(self.rng.next_u32() % 50)
    }

    /// What this device last held of a group that a Welcome leads into again, if it asked for that (REQ-158).
    pub(super) fn last_held(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: GroupRow,
    ) -> Result<Option<LastHeld>, EngineError> {
        let Some(asked) = resync_row(tx, group)? else {
            return Ok(None);
        };
        let tree = if row.status == GroupStatus::Removed {
            None
        } else {
            let state = self.take_group(tx, group).ok();
            state.map(|state| (state.leaves().to_vec(), state.policy().clone()))
        };
        Ok(Some(LastHeld {
            row,
            asked_at_ms: asked.asked_at_ms,
            tree,
        }))
    }

    /// Checks that a Welcome answers the question that was asked (REQ-158).
    pub(super) fn check_resync(
        &self,
        held: &LastHeld,
        joined: &JoinedGroup,
    ) -> Result<(), Violation> {
        let mine = joined.group.resync_of(self.identity.device);
        let is_answer = mine.is_some_and(|r| r.asked_at_ms == held.asked_at_ms);
        let knows_adder = held
            .tree
            .as_ref()
            .is_none_or(|(leaves, _)| leaves.contains(&joined.adder));
        if is_answer && knows_adder {
            Ok(())
        } else {
            Err(Violation::WelcomeUnasked)
        }
    }

    /// This device is in again: what it missed is said, and what it had not sent is sent anew.
    pub(super) fn finish_resync(
        &mut self,
        tx: &Tx<'_>,
        item: &InboxItem,
        held: &LastHeld,
        policy: &GroupPolicy,
    ) -> Result<HistoryKind, EngineError> {
        let group = item.group;
        self.end_resync(tx, group)?;
        for (number, outbox) in rows::of_group::<OutboxRow>(tx, OUTBOX, group)? {
            let is_message = outbox.kind == OutboxKind::Message;
            if is_message && !outbox.acked {
                // It may be in the log, among what was missed: the relay is asked before it is said anew.
                if let Some(link) = &mut self.link {
                    link.sent.remove(&outbox.record_id);
                }
                continue;
            }
            tx.delete(OUTBOX, rows::key(group, number));
            match outbox.intent {
                // The relay has it in the log, where the others have read it.
                Some(intent) if is_message => tx.delete(INTENTS, rows::key(group, intent)),
                Some(intent) => self.set_in_flight(tx, group, intent, false)?,
                None => {}
            }
        }
        self.restart_at.remove(&group);
        if let Some(link) = &mut self.link {
            link.subs.remove(&group);
            link.resyncs.remove(&group);
        }
        let policy_changed = held
            .tree
            .as_ref()
            .is_some_and(|(_, before)| before != policy);
        Ok(HistoryKind::Gap {
            from: held.row.cursor.next().min(item.entry.seq),
            to: item.entry.seq,
            policy_changed,
        })
    }

    /// The Welcome that came does not answer the question: it is asked anew, and somebody else may answer.
    pub(super) fn ask_again(&mut self, tx: &Tx<'_>, group: GroupId) -> Result<(), EngineError> {
        let row: Option<GroupRow> = rows::load(tx, GROUPS, &group.0)?;
        match row {
            Some(mut row) if resync_row(tx, group)?.is_some() => {
                self.ask_resync(tx, group, &mut row)?;
                self.back_off(tx, group)
            }
            _ => Ok(()),
        }
    }

    /// Each answer costs the group a commit: who cannot take any does not ask on and on.
    fn back_off(&self, tx: &Tx<'_>, group: GroupId) -> Result<(), EngineError> {
        let Some(mut asked) = resync_row(tx, group)? else {
            return Ok(());
        };
        asked.refused = asked.refused.saturating_add(1);
        if let Some(doublings) = asked.refused.checked_sub(2) {
            let wait_ms = REFUSED_MS << doublings.min(16);
            asked.not_before_ms = self.now_ms + wait_ms.min(MAX_REFUSED_MS);
        }
        rows::put(tx, RESYNCS, group.0, &asked)
    }
}

pub(super) fn resync_row(tx: &Tx<'_>, group: GroupId) -> Result<Option<ResyncRow>, EngineError> {
    rows::load(tx, RESYNCS, &group.0)
}
