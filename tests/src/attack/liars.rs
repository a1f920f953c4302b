//! What a relay's operator does between the core and the devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mortise_protocol::identity::{
    GroupId, LogSeq, OrgId, PublicKey, RosterSeq, SigningKey, decode,
};
use mortise_protocol::wire::{
    ClientToRelay, LogRecord, OrderSet, Push, RecordBody, RelayToClient, Request, Response,
    RosterHead, SignedOrderSet, set_tree,
};

use crate::world::{Liar, PersonId};

/// Drops every commit that members send: nobody rotates.
pub(super) struct DropsCommits;

impl Liar for DropsCommits {
    fn question(&mut self, _: PersonId, frame: &mut ClientToRelay) -> bool {
        let Request::Submit(submission) = &frame.request else {
            return true;
        };
        let body = decode(submission.payload.as_slice());
        !matches!(body, Ok(RecordBody::Commit(_)))
    }
}

/// Keeps an order, and all that came after it, from one member; and answers as if all were well.
pub(super) struct Withholds {
    pub(super) victim: PersonId,
    /// The roster that the victim is shown.
    pub(super) head: RosterHead,
    /// What is kept from the victim: everything from this fence on.
    pub(super) from: RosterSeq,
    /// Lets one record pass.
    pub(super) lets_through: Arc<AtomicBool>,
}

impl Liar for Withholds {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if to != self.victim {
            return true;
        }
        match frame {
            RelayToClient::Push(Push::RosterEntry { .. } | Push::Checkpoint { .. }) => false,
            RelayToClient::Push(Push::Records { records, .. }) => {
                let passes = self.lets_through.load(Ordering::Relaxed);
                records.retain(|record| passes || record.fence < self.from);
                !records.is_empty()
            }
            RelayToClient::Response { response, .. } => {
                self.rewrite(response);
                true
            }
            RelayToClient::Push(_) => true,
        }
    }
}

impl Withholds {
    fn rewrite(&self, response: &mut Response) {
        match response {
            Response::Hello { head, .. } => *head = self.head,
            Response::Roster { entries, head } => {
                entries.clear();
                *head = self.head;
            }
            Response::Checkpoints { checkpoints } => checkpoints.clear(),
            _ => {}
        }
    }
}

/// Shows one member a record that nobody has appended, in the midst of a log, and numbers the rest anew.
pub(super) struct Inserts {
    pub(super) victim: PersonId,
    pub(super) group: GroupId,
    pub(super) record: LogRecord,
}

impl Liar for Inserts {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        if let Request::Subscribe { group, after, .. } = &mut frame.request
            && from == self.victim
            && *group == self.group
            && *after >= self.record.seq
        {
            *after = LogSeq(after.0 - 1);
        }
        true
    }

    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if to != self.victim {
            return true;
        }
        match frame {
            RelayToClient::Push(Push::Records { group, records }) if *group == self.group => {
                let at = self.record.seq;
                let is_here = records.iter().any(|record| record.seq == at);
                for record in records.iter_mut().filter(|record| record.seq >= at) {
                    record.seq = record.seq.next();
                }
                if is_here {
                    records.push(self.record.clone());
                    records.sort_by_key(|record| record.seq);
                }
            }
            RelayToClient::Response {
                response:
                    Response::Subscribed {
                        head_seq,
                        last_readable,
                        ..
                    },
                ..
            } => {
                *head_seq = head_seq.next();
                *last_readable = last_readable.next();
            }
            _ => {}
        }
        true
    }
}

/// Shows one member an earlier message in the place of every later one.
pub(super) struct TwoLogs {
    pub(super) victim: PersonId,
    pub(super) group: GroupId,
    pub(super) instead: LogRecord,
    /// Which record is shown otherwise.
    pub(super) at: LogSeq,
}

impl Liar for TwoLogs {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Push(Push::Records { group, records }) = frame
            && to == self.victim
            && *group == self.group
        {
            for record in records.iter_mut().filter(|record| record.seq == self.at) {
                record.payload = self.instead.payload.clone();
            }
        }
        true
    }
}

/// Hands out one KeyPackage for every other.
pub(super) struct SwapsPackages {
    pub(super) package: Vec<u8>,
}

impl Liar for SwapsPackages {
    fn answer(&mut self, _: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Response { response, .. } = frame
            && let Response::KeyPackages { packages } = response
        {
            for package in packages {
                package.key_package = self.package.clone().into();
            }
        }
        true
    }
}

/// Signs a set of an order's groups that leaves out every group there is.
pub(super) struct LeavesOut {
    pub(super) org: OrgId,
    pub(super) statement_key: PublicKey,
    /// Whether anybody was shown it.
    pub(super) shown: Arc<AtomicBool>,
}

impl Liar for LeavesOut {
    fn answer(&mut self, _: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Response { response, .. } = frame
            && let Response::OrderProof { set, index, path } = response
        {
            let key = SigningKey::from_seed(&[9; 32]);
            assert_eq!(key.public(), self.statement_key, "the relay's own key");
            let other = GroupId([0x11; 32]);
            let false_set = OrderSet {
                org: self.org,
                count: 1,
                root: set_tree(&[other]).root(),
                ..set.set
            };
            *set = SignedOrderSet::sign(false_set, &key);
            (*index, *path) = (0, Vec::new());
            self.shown.store(true, Ordering::Relaxed);
        }
        true
    }
}
