//! Successors that their predecessor's log has not named: hidden, and ended by who made them when they lose (REQ-153, REQ-161).
//!
//! This module must never leave a group behind in which somebody could speak to nobody.

use super::outbound::Work;
use super::restart::RETRY_MS;
use super::rows::{
    self, GROUPS, GroupRow, GroupStatus, INTENTS, IntentRow, OUTBOX, PARENTS, RESTARTS, RESYNCS,
    RestartRow,
};
use super::state::State;
use super::{CommandError, EngineError, Event, IntentId};
use crate::group::{Group, MlsProvider};
use crate::identity::GroupId;
use crate::store::Tx;
use crate::wire::restart::RestartCause;

impl GroupRow {
    /// Whether this is a hidden successor whose log has named its predecessor: it has lost.
    pub(super) fn has_lost(&self) -> bool {
        match self.status {
            GroupStatus::Continued(next) => self.is_candidate && Some(next) == self.predecessor,
            _ => false,
        }
    }
}

impl RestartRow {
    /// Whether it leads from a successor that has lost back to its predecessor.
    pub(super) fn leads_back(&self, row: &GroupRow) -> bool {
        let named = self.successor.map(|(group, _)| group);
        named.is_some() && named == row.predecessor
    }
}

impl State {
    /// The predecessor's log has named this group: from now on it is shown.
    pub(super) fn promote(
        &mut self,
        tx: &Tx<'_>,
        predecessor: GroupId,
        successor: GroupId,
    ) -> Result<(), EngineError> {
        let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &successor.0)? else {
            return Ok(());
        };
        if row.is_candidate && row.predecessor == Some(predecessor) {
            row.is_candidate = false;
            rows::put(tx, GROUPS, successor.0, &row)?;
            self.event(Event::Joined { group: successor });
        }
        self.dirty.insert(successor);
        Ok(())
    }

    /// Whoever is out of a group never reads what its log names: what says that it continues it is a group like others,
    /// but for what this device has made itself and can end.
    pub(super) fn release_candidates(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
    ) -> Result<(), EngineError> {
        let own = self.own_successor(tx, group)?;
        for id in self.candidates_of(tx, group, None)? {
            if Some(id) == own {
                self.retire(tx, group, id)?;
            } else {
                self.promote(tx, group, id)?;
            }
        }
        Ok(())
    }

    /// Forgets the groups that wanted to continue this one, but for the one that does.
    pub(super) fn drop_candidates(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        but: Option<GroupId>,
    ) -> Result<(), EngineError> {
        let own = self.own_successor(tx, group)?;
        for id in self.candidates_of(tx, group, but)? {
            if Some(id) == own {
                self.retire(tx, group, id)?;
            } else {
                self.forget_group(tx, id)?;
            }
        }
        Ok(())
    }

    fn candidates_of(
        &self,
        tx: &Tx<'_>,
        group: GroupId,
        but: Option<GroupId>,
    ) -> Result<Vec<GroupId>, EngineError> {
        let mut candidates = Vec::new();
        for id in self.group_ids(tx)? {
            let row = rows::load::<GroupRow>(tx, GROUPS, &id.0)?;
            let is_one = |row: GroupRow| {
                row.is_candidate && row.predecessor == Some(group) && Some(id) != but
            };
            if row.is_some_and(is_one) {
                candidates.push(id);
            }
        }
        Ok(candidates)
    }

    /// The successor that this device has made for a group.
    fn own_successor(&self, tx: &Tx<'_>, group: GroupId) -> Result<Option<GroupId>, EngineError> {
        let restart = self.restart_row(tx, group)?;
        Ok(restart.and_then(|r| r.successor).map(|(id, _)| id))
    }

    /// Gives up the successor that was made here; the wish for one stays.
    pub(super) fn give_up_successor(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
    ) -> Result<(), EngineError> {
        let Some(restart) = self.restart_row(tx, group)? else {
            return Ok(());
        };
        if let Some((successor, _)) = restart.successor {
            self.retire(tx, group, successor)?;
        }
        self.restart_at.insert(group, self.now_ms + RETRY_MS);
        if restart.intents.is_empty() {
            tx.delete(RESTARTS, group.0);
            return Ok(());
        }
        let restart = RestartRow {
            intents: restart.intents,
            ..RestartRow::default()
        };
        rows::put(tx, RESTARTS, group.0, &restart)
    }

    /// There will be no successor: whoever asked for one is told why.
    pub(super) fn fail_restart(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        error: &CommandError,
    ) -> Result<(), EngineError> {
        let Some(restart) = self.restart_row(tx, group)? else {
            return Ok(());
        };
        if let Some((successor, _)) = restart.successor {
            self.retire(tx, group, successor)?;
        }
        tx.delete(RESTARTS, group.0);
        for id in restart.intents.into_iter().map(IntentId) {
            let error = error.clone();
            self.event(Event::Failed { id, error });
        }
        Ok(())
    }

    /// Ends a hidden successor that this device has made: its log will name the predecessor (REQ-161).
    fn retire(
        &mut self,
        tx: &Tx<'_>,
        predecessor: GroupId,
        id: GroupId,
    ) -> Result<(), EngineError> {
        let row = rows::load::<GroupRow>(tx, GROUPS, &id.0)?;
        let is_hidden = |row: &GroupRow| row.is_candidate && row.predecessor == Some(predecessor);
        let Some(row) = row.filter(is_hidden) else {
            return Ok(());
        };
        if !matches!(row.status, GroupStatus::Creating | GroupStatus::Active) {
            return self.forget_group(tx, id);
        }
        if self.restart_row(tx, id)?.is_some() {
            return Ok(());
        }
        for (number, _) in rows::of_group::<IntentRow>(tx, INTENTS, id)? {
            tx.delete(INTENTS, rows::key(id, number));
        }
        self.claims.remove(&id);
        let restart = RestartRow {
            successor: Some((predecessor, 0)),
            ..RestartRow::default()
        };
        rows::put(tx, RESTARTS, id.0, &restart)?;
        self.dirty.insert(id);
        Ok(())
    }

    /// One step of ending a successor that has lost.
    pub(super) fn lead_back(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        restart: RestartRow,
    ) -> Result<(), EngineError> {
        if !work.group.policy().is_admin(self.identity.user) {
            // Somebody has taken it over: it is theirs.
            return self.end_membership(tx, work);
        }
        if restart.submitted {
            return Ok(());
        }
        self.submit_restart(tx, work.id, work.row, restart, RestartCause::Requested)?;
        let access_key = work.group.access_key(&self.crypto)?;
        self.send_outbox(tx, work.id, work.row, Some(&access_key))
            .map(drop)
    }

    /// Forgets all that is stored of a group.
    pub(super) fn forget_group(&mut self, tx: &Tx<'_>, id: GroupId) -> Result<(), EngineError> {
        let crypto = self.crypto.clone();
        let provider = MlsProvider::new(&crypto, tx);
        let state = match self.groups.remove(&id) {
            Some(state) => Some(state),
            // Of a group that has ended there is none.
            None => Group::load(&provider, id)?,
        };
        if let Some(state) = state {
            state.delete(&provider)?;
        }
        for space in [
            INTENTS,
            OUTBOX,
            PARENTS,
            RESTARTS,
            RESYNCS,
            rows::HISTORY,
            rows::ORDERS,
            rows::LOG_HASHES,
            rows::EPOCHS,
            rows::LEAF_S,
            GROUPS,
        ] {
            for (key, _) in tx.scan(space, &id.0)? {
                tx.delete(space, key);
            }
        }
        self.forget_timers(id);
        self.unsettled.remove(&id);
        Ok(())
    }
}
