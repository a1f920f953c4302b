//! How long a group's history is kept on this device (REQ-122).

use super::rows::{self, GroupRow, HISTORY};
use super::state::{Chore, State};
use super::{EngineError, HistoryRecord};
use crate::identity::GroupId;
use crate::store::Tx;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Lines that are deleted in one step at most.
const MAX_LINES: usize = 256;

impl State {
    /// Deletes lines that are older than the group keeps them, and says when to look again.
    pub(super) fn prune_history(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &GroupRow,
    ) -> Result<(), EngineError> {
        let chore = (id, Chore::Prune);
        let Some(days) = row.retention_days else {
            self.chores.remove(&chore);
            return Ok(());
        };
        if self.chores.get(&chore).is_some_and(|at| *at > self.now_ms) {
            return Ok(());
        }
        let kept_ms = u64::from(days) * DAY_MS;
        let mut next_ms = self.now_ms + DAY_MS;
        let mut deleted = 0;
        for (key, line) in tx.scan_from(HISTORY, &id.0, &id.0, MAX_LINES)? {
            let line: HistoryRecord = rows::from_bytes(&line)?;
            let ends_ms = line.at_ms.saturating_add(kept_ms);
            if ends_ms > self.now_ms {
                next_ms = next_ms.min(ends_ms);
                break;
            }
            tx.delete(HISTORY, key);
            deleted += 1;
        }
        if deleted == MAX_LINES {
            next_ms = self.now_ms + 1;
        }
        self.chores.insert(chore, next_ms);
        Ok(())
    }
}
