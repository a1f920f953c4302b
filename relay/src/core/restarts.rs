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

    /// Remembers who could not confirm the epoch that a commit opens: its committer's user, and whom it brought.
    pub(super) fn await_confirmation(&mut self, caller: &Caller, submission: &Submission) {
        let welcomed = submission.welcomes.iter().flat_map(|w| w.devices.clone());
        let record = UnconfirmedRecord {
            committer: caller.user,
            welcomed: welcomed.collect(),
        };
        let key = of_group(submission.group, submission.epoch.next().0);
        layout::save(self.tx, UNCONFIRMED, key, &record);
    }

    /// Takes note of a valid proof of an epoch's key: the first by somebody who has it by the commit's own working
    /// confirms the epoch (REQ-151). Returns whether `record` has changed; the caller saves it.
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
        let mut rows = Vec::new();
        for (key, row) in self.tx.scan(UNCONFIRMED, &group.0)? {
            if u64::from_be_bytes(layout::key_tail(&key)?) > epoch.0 {
                continue;
            }
            let unconfirmed: UnconfirmedRecord = layout::read(&row)?;
            // Whoever made one of these epochs, or came in by one, says nothing about what led there.
            if unconfirmed.committer == caller.user || unconfirmed.welcomed.contains(&caller.device)
            {
                return Ok(false);
            }
            rows.push(key);
        }
        for key in rows {
            self.tx.delete(UNCONFIRMED, key);
        }
        record.confirmed = epoch;
        Ok(true)
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
