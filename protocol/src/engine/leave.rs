//! Leaving a group (REQ-123, REQ-124): this device asks, and others carry it out.

use super::inbound::write_line;
use super::outbound::Work;
use super::rows::{
    self, GROUPS, GroupStatus, HISTORY, INTENTS, Intent, IntentRow, OutboxKind, OutboxRow,
};
use super::state::State;
use super::{EngineError, Event, HistoryKind, HistoryRecord, IntentId};
use crate::group::{Changes, MlsProvider};
use crate::identity::GroupId;
use crate::store::Tx;
use crate::wire::RecordBody;

impl State {
    /// Takes the user's other devices out of the group, then asks for this one's removal, in each epoch anew.
    ///
    /// Returns whether the intents after this one have to wait.
    pub(super) fn pursue_leave(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        number: u64,
        told: bool,
    ) -> Result<bool, EngineError> {
        let me = &self.identity;
        let own = work.group.leaves().iter().filter(|l| l.user == me.user);
        let others: Vec<_> = own
            .map(|l| l.device)
            .filter(|device| *device != me.device)
            .collect();
        if work.open > 0 {
            // What was said before is said; it could not be encrypted again once the leave is.
            return Ok(true);
        }
        if !others.is_empty() {
            let changes = Changes {
                removes: others,
                ..Changes::default()
            };
            self.commit(tx, work, None, changes)?;
        } else if work.group.leaves().len() == 1 {
            self.end_membership(tx, work)?;
        } else {
            self.propose_leave(tx, work, number, told)?;
        }
        Ok(true)
    }

    fn propose_leave(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        number: u64,
        told: bool,
    ) -> Result<(), EngineError> {
        let crypto = self.crypto.clone();
        let identity = self.identity.clone();
        let aad = self.aad(work.row);
        let provider = MlsProvider::new(&crypto, tx);
        let message = work.group.propose_leave(&provider, &identity.me(), aad)?;
        let body = RecordBody::Message(message.into());
        let intent = (!told).then_some(number);
        let row = OutboxRow::new(OutboxKind::Leave, intent, work.row.epoch, &body);
        self.submit(tx, work, &row)
    }

    /// Waits for somebody to carry out this device's leave; it neither sends nor commits any more in this epoch.
    ///
    /// Returns whether nothing is left that this device could do.
    pub(super) fn await_removal(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
    ) -> Result<bool, EngineError> {
        self.duties.remove(&work.id);
        self.leases.remove(&work.id);
        if work.open > 0 {
            return Ok(false);
        }
        let leavers = work.group.leavers();
        let stays = work
            .group
            .leaves()
            .iter()
            .any(|l| self.roster.is_admitted(l.device) && !leavers.contains(l));
        if !stays {
            // Everybody has asked, and nobody is left to carry it out.
            self.end_membership(tx, work)?;
        }
        Ok(true)
    }

    /// Ends the membership here, when there is nobody else: the caller drops the group's keys.
    pub(super) fn end_membership(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
    ) -> Result<(), EngineError> {
        work.row.status = GroupStatus::Removed;
        rows::put(tx, GROUPS, work.id.0, work.row)?;
        self.release_candidates(tx, work.id)?;
        let key = rows::key(work.id, work.row.cursor.0);
        if tx.get(HISTORY, &key)?.is_none() {
            let line = HistoryRecord {
                seq: work.row.cursor,
                at_ms: self.now_ms,
                device: Some(self.identity.device),
                user: Some(self.identity.user),
                epoch: work.row.epoch.0,
                kind: HistoryKind::Left(vec![self.identity.user]),
            };
            let event = write_line(tx, work.id, &line)?;
            self.event(event);
        }
        self.dirty.insert(work.id);
        Ok(())
    }

    /// The user was told that the leave is in the log: once is enough, in however many epochs it is asked for.
    pub(super) fn note_told(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        outbox: &OutboxRow,
    ) -> Result<(), EngineError> {
        if let (OutboxKind::Leave, Some(number)) = (outbox.kind, outbox.intent) {
            let row = IntentRow {
                intent: Intent::Leave { told: true },
                in_flight: false,
            };
            rows::put(tx, INTENTS, rows::key(group, number), &row)?;
        }
        Ok(())
    }

    /// Whether this device's user has asked to leave the group.
    pub(super) fn wants_to_leave(&self, tx: &Tx<'_>, group: GroupId) -> Result<bool, EngineError> {
        let intents = rows::of_group::<IntentRow>(tx, INTENTS, group)?;
        let leaves = |(_, row): &(u64, IntentRow)| matches!(row.intent, Intent::Leave { .. });
        Ok(intents.iter().any(leaves))
    }

    /// The leave came to its end without the log: the command has its answer all the same.
    pub(super) fn finish_leave(&mut self, number: u64, told: bool) {
        if !told {
            let id = IntentId(number);
            self.event(Event::Done { id });
        }
    }
}
