//! Who reads what: an epoch's key opens that epoch's records, and live records go to who waits for them (REQ-056).

use mortise_protocol::identity::{Epoch, GroupId, LogSeq};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::log::{AccessProof, Purpose};
use mortise_protocol::wire::{LogRecord, Refusal, Response, limits};

use super::ConnId;
use super::append::access_proven;
use super::connections::Subscription;
use super::layout::{self, EPOCHS, EpochRecord, GROUPS, of_group};
use super::restarts::Place;
use super::turn::{Answer, Caller, Turn};

/// Records of a backlog that are read at a time: more than a few, and no page's worth of the largest.
const RECORDS_AT_A_TIME: usize = 64;

impl Turn<'_> {
    /// Answers where epoch and log end, pushes a page of what the epoch's key opens, and waits for more.
    pub(super) fn subscribe(
        &mut self,
        caller: &Caller,
        group: GroupId,
        epoch: Epoch,
        after: LogSeq,
        credit: u32,
        proof: &AccessProof,
    ) -> Answer {
        let mut head = self.group_of(caller, group)?.ok_or(Refusal::UnknownGroup)?;
        let opened: EpochRecord = layout::load(self.tx, EPOCHS, &of_group(group, epoch.0))?
            .ok_or(Refusal::AccessDenied)?;
        let binding = &caller.binding;
        let conn = caller.conn;
        let is_known = self
            .connections
            .has_proven(conn, group, epoch, Purpose::Read, proof);
        // As in the append rule: a known proof of the same entry is one of the same key.
        let is_known = is_known && proof.entry_hash == opened.entry_hash;
        if !is_known && !access_proven(proof, &opened, binding, group, epoch, Purpose::Read) {
            return Err(Refusal::AccessDenied.into());
        }
        self.connections
            .note_proof(conn, group, epoch, Purpose::Read, proof);
        if self.confirm(caller, group, epoch, &mut head)? {
            layout::save(self.tx, GROUPS, group.0, &head);
        }
        let closing: Option<EpochRecord> =
            layout::load(self.tx, EPOCHS, &of_group(group, epoch.next().0))?;
        let last_readable = closing.map_or(head.head_seq, |next| next.opening_seq);
        let mut subscription = Subscription {
            epoch,
            next_seq: after.next().max(opened.opening_seq),
            credit: credit.min(limits::MAX_CREDIT),
            stream: self.stream_of(caller.conn).ok_or(Refusal::HelloFirst)?,
            awaits_restart: false,
            pulls: false,
        };
        self.push_backlog(caller.conn, group, &mut subscription, last_readable)?;
        if closing.is_some() && subscription.next_seq > last_readable {
            subscription.awaits_restart = true;
            self.push_restarts(caller.conn, group, epoch, &head, &mut subscription)?;
        }
        // Questions overtake each other: a late one about an older epoch must not end what a newer one began.
        let earlier = self.connections.subscription(caller.conn, group);
        let is_late = earlier.is_some_and(|earlier| earlier.epoch > epoch);
        let is_over = subscription.awaits_restart && epoch < head.confirmed;
        match (is_late, is_over) {
            (true, _) => {}
            (false, true) => self.connections.unsubscribe(caller.conn, group),
            (false, false) => self.connections.subscribe(caller.conn, group, subscription),
        }
        if epoch == head.head_epoch {
            self.push_resyncs(caller.conn, group)?;
        }
        Ok(Response::Subscribed {
            head_seq: head.head_seq,
            head_epoch: head.head_epoch,
            last_readable,
            confirmed_epoch: head.confirmed,
        })
    }

    /// Pushes from the cursor on: within credit, range and page, but one record at least.
    fn push_backlog(
        &mut self,
        conn: ConnId,
        group: GroupId,
        subscription: &mut Subscription,
        last_readable: LogSeq,
    ) -> Result<(), StoreError> {
        let mut bytes = 0;
        while subscription.credit > 0 && subscription.next_seq <= last_readable {
            let left = last_readable.0 - subscription.next_seq.0 + 1;
            let left = usize::try_from(left.min(u64::from(subscription.credit)));
            let count = left.unwrap_or(RECORDS_AT_A_TIME).min(RECORDS_AT_A_TIME);
            for record in layout::load_logs(self.tx, group, subscription.next_seq, count)? {
                let size = record.payload.as_slice().len();
                if bytes > 0 && bytes + size > limits::MAX_PAGE_BYTES {
                    subscription.pulls = true;
                    return Ok(());
                }
                bytes += size;
                subscription.credit -= 1;
                subscription.next_seq = subscription.next_seq.next();
                self.push_record(conn, group, record);
            }
        }
        Ok(())
    }

    /// Pushes a new record to every subscriber that waits for exactly this one and has credit.
    pub(super) fn push_live(&mut self, group: GroupId, record: &LogRecord, place: Place) {
        let mut to = Vec::new();
        for (conn, subscription) in self.connections.subscribers_mut(group) {
            // A position is in one epoch only; that the epoch is compared too keeps a mistake above from being a leak.
            let waits = match place {
                Place::EndsLog => {
                    let at_parent = subscription.epoch == record.epoch;
                    subscription.awaits_restart && at_parent
                        || !subscription.awaits_restart && subscription.next_seq == record.seq
                }
                Place::InEpoch | Place::ClosesEpoch => {
                    subscription.epoch == record.epoch && subscription.next_seq == record.seq
                }
            };
            if !waits || subscription.credit == 0 {
                continue;
            }
            to.push((conn, subscription.stream));
            // Who has read the closing commit waits for nothing more of this epoch than a Restart (REQ-150).
            subscription.awaits_restart |= place == Place::ClosesEpoch;
            subscription.credit -= 1;
            subscription.next_seq = record.seq.next();
        }
        self.outbox.broadcast_record(to, group, record);
    }

    pub(super) fn push_record(&mut self, conn: ConnId, group: GroupId, record: LogRecord) {
        if let Some(stream) = self.stream_of(conn) {
            self.outbox.push_record(conn, stream, group, record);
        }
    }
}
