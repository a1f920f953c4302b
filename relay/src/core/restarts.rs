//! How a log ends, and which of its epochs somebody other than their committer has proven (REQ-150, REQ-151).

use mortise_protocol::identity::{Epoch, GroupId, LogSeq};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::Submission;

use super::ConnId;
use super::append::LogEnd;
use super::connections::Subscription;
use super::layout::{
    self, GroupRecord, RESTARTS, RestartRecord, UNCONFIRMED, UnconfirmedRecord, of_group,
};
use super::turn::{Caller, Turn};

/// What a new record does to the epoch that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Others of the epoch follow.
    InEpoch,
    /// It closes the epoch.
    ClosesEpoch,
    /// It is a Restart.
    EndsLog,
}

impl Turn<'_> {
    /// Whether a log has ended, as far as this caller is concerned.
    pub(super) fn end_of(
        &self,
        caller: &Caller,
        group: GroupId,
        record: &GroupRecord,
    ) -> Result<Option<LogEnd>, StoreError> {
        let mut end: Option<LogEnd> = None;
        for (seq, restart) in self.restarts_of(group, record)? {
            let end = end.get_or_insert(LogEnd {
                seq,
                by_appender: false,
            });
            end.by_appender |= restart.device == caller.device;
        }
        Ok(end)
    }

    fn restarts_of(
        &self,
        group: GroupId,
        record: &GroupRecord,
    ) -> Result<Vec<(LogSeq, RestartRecord)>, StoreError> {
        if !bool::from(record.restarted) {
            return Ok(Vec::new());
        }
        let rows = self.tx.scan(RESTARTS, &group.0)?;
        rows.iter()
            .map(|(key, row)| {
                let seq = u64::from_be_bytes(layout::key_tail(key)?);
                Ok((LogSeq(seq), layout::read(row)?))
            })
            .collect()
    }

    /// Takes note of a Restart that was accepted.
    pub(super) fn write_restart(&mut self, caller: &Caller, submission: &Submission, seq: LogSeq) {
        let restart = RestartRecord {
            parent: submission.epoch,
            device: caller.device,
        };
        layout::save(
            self.tx,
            RESTARTS,
            of_group(submission.group, seq.0),
            &restart,
        );
    }

    /// Remembers who cannot confirm the epoch that a commit opens: its committer's user, and whom it brought.
    ///
    /// Before its first commit only the creator was in the group: nobody else could go back behind it.
    pub(super) fn await_confirmation(
        &mut self,
        caller: &Caller,
        submission: &Submission,
        record: &mut GroupRecord,
    ) {
        let epoch = submission.epoch.next();
        if submission.epoch == Epoch(0) {
            record.confirmed = epoch;
            return;
        }
        let welcomed = submission.welcomes.iter().flat_map(|w| w.devices.clone());
        let unconfirmed = UnconfirmedRecord {
            committer: caller.user,
            welcomed: welcomed.collect(),
        };
        let key = of_group(submission.group, epoch.0);
        layout::save(self.tx, UNCONFIRMED, key, &unconfirmed);
    }

    /// Takes note of a valid proof of an epoch's key: it confirms, oldest first, every epoch up to this one that
    /// somebody else has opened, unless the device came in by the working of one of them (REQ-151).
    ///
    /// Returns whether `record` has changed; the caller saves it.
    pub(super) fn confirm(
        &mut self,
        caller: &Caller,
        group: GroupId,
        epoch: Epoch,
        record: &mut GroupRecord,
    ) -> Result<bool, StoreError> {
        if epoch <= record.confirmed {
            return Ok(false);
        }
        let mut rows: Vec<(Vec<u8>, Epoch, UnconfirmedRecord)> = Vec::new();
        for (key, row) in self.tx.scan(UNCONFIRMED, &group.0)? {
            let number = Epoch(u64::from_be_bytes(layout::key_tail(&key)?));
            if number <= epoch {
                rows.push((key, number, layout::read(&row)?));
            }
        }
        // Whoever came in by one of these epochs says nothing about it, nor about those before it.
        let is_brought = |row: &UnconfirmedRecord| row.welcomed.contains(&caller.device);
        if rows.iter().any(|(_, _, row)| is_brought(row)) {
            return Ok(false);
        }
        let others = rows
            .into_iter()
            .take_while(|(_, _, row)| row.committer != caller.user);
        let before = record.confirmed;
        for (key, number, _) in others {
            self.tx.delete(UNCONFIRMED, key);
            record.confirmed = number;
        }
        Ok(record.confirmed > before)
    }

    /// Pushes the Restarts that name this epoch as their parent, to somebody who has read the epoch to its end.
    pub(super) fn push_restarts(
        &mut self,
        conn: ConnId,
        group: GroupId,
        epoch: Epoch,
        record: &GroupRecord,
        subscription: &mut Subscription,
    ) -> Result<(), StoreError> {
        for (seq, restart) in self.restarts_of(group, record)? {
            let is_wanted = restart.parent == epoch && subscription.next_seq <= seq;
            if is_wanted && subscription.credit > 0 {
                subscription.next_seq = seq.next();
                subscription.credit -= 1;
                let record = layout::load_log(self.tx, group, seq)?;
                self.push_record(conn, group, record);
            }
        }
        Ok(())
    }
}
