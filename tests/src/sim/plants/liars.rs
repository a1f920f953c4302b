//! Relays that lie to devices, while the core behind them is honest.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{GroupId, LogSeq, RosterSeq, decode};
use mortise_protocol::wire::{
    ClientToRelay, InboxItem, LogRecord, Push, RecordBody, RelayToClient, Request, Response,
};

use crate::world::{Liar, PersonId, World};

/// Who is lied to.
fn is_victim(who: PersonId) -> bool {
    who.0 % 3 == 2
}

fn records_in(frame: &mut RelayToClient) -> Option<(GroupId, &mut Vec<LogRecord>)> {
    match frame {
        RelayToClient::Push(Push::Records { group, records }) => Some((*group, records)),
        _ => None,
    }
}

fn is_message(record: &LogRecord) -> bool {
    matches!(
        decode(record.payload.as_slice()),
        Ok(RecordBody::Message(_))
    )
}

/// Tells everybody that records carry the fence from before the newest order.
pub(super) struct LowersFence;

impl Liar for LowersFence {
    fn answer(&mut self, _: PersonId, frame: &mut RelayToClient) -> bool {
        if let Some((_, records)) = records_in(frame) {
            for record in records.iter_mut().filter(|r| r.fence.0 > 0) {
                record.fence = RosterSeq(0);
            }
        }
        true
    }
}

/// Swaps two messages of one epoch, for victims.
#[derive(Default)]
pub(super) struct Swaps {
    /// What stands in whose place, once decided.
    swapped: BTreeMap<(GroupId, LogSeq), LogRecord>,
    waiting: BTreeMap<(PersonId, GroupId), LogRecord>,
}

impl Liar for Swaps {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if !is_victim(to) {
            return true;
        }
        let Some((group, records)) = records_in(frame) else {
            return true;
        };
        for n in 1..records.len() {
            let both = is_message(&records[n - 1]) && is_message(&records[n]);
            if both && records[n - 1].epoch == records[n].epoch {
                swap(records, n);
            }
        }
        // A record that comes alone is kept back until the next one can go before it.
        if records.len() == 1 && is_message(&records[0]) {
            let record = records[0].clone();
            match self.waiting.remove(&(to, group)) {
                None => {
                    self.waiting.insert((to, group), record);
                    return false;
                }
                Some(earlier)
                    if earlier.seq.next() == record.seq && earlier.epoch == record.epoch =>
                {
                    *records = vec![earlier, record];
                    swap(records, 1);
                    self.swapped
                        .insert((group, records[0].seq), records[0].clone());
                }
                Some(_) => {}
            }
        }
        true
    }
}

/// Swaps the contents of two neighbours.
fn swap(records: &mut [LogRecord], n: usize) {
    let payload = records[n - 1].payload.clone();
    records[n - 1].payload = records[n].payload.clone();
    records[n].payload = payload;
}

/// Withholds one message per group from victims, and moves all later records of the epoch up.
#[derive(Default)]
pub(super) struct Withholds {
    gone: BTreeMap<(PersonId, GroupId), LogSeq>,
}

impl Liar for Withholds {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        if let Request::Subscribe { group, after, .. } = &mut frame.request
            && let Some(gone) = self.gone.get(&(from, *group))
            && *after >= *gone
        {
            *after = after.next();
        }
        true
    }

    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if !is_victim(to) {
            return true;
        }
        let Some((group, records)) = records_in(frame) else {
            return true;
        };
        if let Some(first) = records.iter().find(|r| is_message(r) && r.seq.0 > 4) {
            self.gone.entry((to, group)).or_insert(first.seq);
        }
        if let Some(gone) = self.gone.get(&(to, group)) {
            records.retain(|r| r.seq != *gone);
            for record in records.iter_mut().filter(|r| r.seq > *gone) {
                record.seq = LogSeq(record.seq.0 - 1);
            }
        }
        true
    }
}

/// Shows victims an earlier message of the group in place of a new one.
#[derive(Default)]
pub(super) struct TwoLogs {
    earlier: BTreeMap<GroupId, LogRecord>,
}

impl Liar for TwoLogs {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        let Some((group, records)) = records_in(frame) else {
            return true;
        };
        for record in records.iter_mut().filter(|r| is_message(r)) {
            match self.earlier.get(&group) {
                Some(earlier) if is_victim(to) && earlier.seq < record.seq => {
                    record.payload = earlier.payload.clone();
                }
                _ => {
                    self.earlier.insert(group, record.clone());
                }
            }
        }
        true
    }
}

/// Keeps the connections of removed devices, and copies to them what their colleagues get.
#[derive(Default)]
pub(super) struct ServesRemoved {
    kept: BTreeSet<PersonId>,
}

impl Liar for ServesRemoved {
    fn closes(&mut self, who: PersonId) -> bool {
        self.kept.insert(who);
        false
    }

    fn also_to(&mut self, _: PersonId, frame: &RelayToClient) -> Option<PersonId> {
        match frame {
            RelayToClient::Push(Push::Records { .. }) => self.kept.first().copied(),
            _ => None,
        }
    }
}

/// Swallows commits from the first order on.
#[derive(Default)]
pub(super) struct DropsRemovals {
    ordered: bool,
}

impl Liar for DropsRemovals {
    fn question(&mut self, _: PersonId, frame: &mut ClientToRelay) -> bool {
        let Request::Submit(submission) = &frame.request else {
            return true;
        };
        let commit = matches!(
            decode(submission.payload.as_slice()),
            Ok(RecordBody::Commit(_))
        );
        !(self.ordered && commit)
    }

    fn answer(&mut self, _: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Push(Push::RosterEntry { positions, .. }) = frame {
            self.ordered |= !positions.is_empty();
        }
        true
    }
}

/// Shows victims a roster that ends before the first order.
pub(super) struct HidesOrder;

impl Liar for HidesOrder {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        !is_victim(to)
            || !matches!(
                frame,
                RelayToClient::Push(Push::RosterEntry { .. })
                    | RelayToClient::Response {
                        response: Response::Roster { .. },
                        ..
                    }
            )
    }
}

/// Throws away a message now and then, and acknowledges it all the same.
#[derive(Default)]
pub(super) struct AcksUnstored {
    seen: u64,
    owed: BTreeMap<PersonId, Vec<ClientToRelay>>,
    heads: BTreeMap<GroupId, LogSeq>,
}

impl Liar for AcksUnstored {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        forget_earlier_life(&mut self.owed, from, frame);
        let Request::Submit(submission) = &frame.request else {
            return true;
        };
        let body = decode(submission.payload.as_slice());
        if !matches!(body, Ok(RecordBody::Message(_))) {
            return true;
        }
        self.seen += 1;
        if self.seen.is_multiple_of(7) {
            self.owed.entry(from).or_default().push(frame.clone());
            // The question becomes one whose answer can be turned into the acknowledgement.
            frame.request = Request::FetchSlots;
        }
        true
    }

    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if let Some((group, records)) = records_in(frame)
            && let Some(last) = records.last()
        {
            self.heads.insert(group, last.seq);
        }
        acknowledge(&mut self.owed, &self.heads, to, frame);
        true
    }
}

/// A device that says Hello numbers its questions anew.
fn forget_earlier_life(
    owed: &mut BTreeMap<PersonId, Vec<ClientToRelay>>,
    from: PersonId,
    frame: &ClientToRelay,
) {
    if matches!(frame.request, Request::Hello { .. }) {
        owed.remove(&from);
    }
}

/// Turns the answer to a swallowed question into an acknowledgement.
fn acknowledge(
    owed: &mut BTreeMap<PersonId, Vec<ClientToRelay>>,
    heads: &BTreeMap<GroupId, LogSeq>,
    to: PersonId,
    frame: &mut RelayToClient,
) {
    let RelayToClient::Response { id, response } = frame else {
        return;
    };
    let mine = owed.get(&to).into_iter().flatten().find(|q| q.id == *id);
    if let Some(Request::Submit(submission)) = mine.map(|q| &q.request) {
        let seq = heads.get(&submission.group).copied().unwrap_or_default();
        *response = Response::Appended {
            seq: seq.next(),
            fence: RosterSeq(0),
        };
    }
}

/// Swallows records of a kind, and acknowledges them.
pub(super) struct Swallows {
    is_one: fn(&RecordBody) -> bool,
    owed: BTreeMap<PersonId, Vec<ClientToRelay>>,
}

impl Swallows {
    pub(super) fn attestations() -> Self {
        Self::all(|body| matches!(body, RecordBody::Attestation(_)))
    }

    /// Restarts that say whose commit they go back behind.
    pub(super) fn repairs() -> Self {
        Self::all(|body| match body {
            RecordBody::Restart(restart) => restart.statement.cause.culprit().is_some(),
            _ => false,
        })
    }

    fn all(is_one: fn(&RecordBody) -> bool) -> Self {
        let owed = BTreeMap::new();
        Self { is_one, owed }
    }
}

impl Liar for Swallows {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        forget_earlier_life(&mut self.owed, from, frame);
        let Request::Submit(submission) = &frame.request else {
            return true;
        };
        let body = decode(submission.payload.as_slice());
        if body.is_ok_and(|body| (self.is_one)(&body)) {
            self.owed.entry(from).or_default().push(frame.clone());
            frame.request = Request::FetchSlots;
        }
        true
    }

    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        acknowledge(&mut self.owed, &BTreeMap::new(), to, frame);
        true
    }
}

/// Brings every device the first Welcome that it was brought, again and again.
#[derive(Default)]
pub(super) struct ReplaysWelcomes {
    first: BTreeMap<PersonId, InboxItem>,
}

impl Liar for ReplaysWelcomes {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Response { response, .. } = frame
            && let Response::Inbox { items, .. } = response
            && let Some(last) = items.last().cloned()
        {
            let first = self.first.entry(to).or_insert_with(|| last.clone());
            let seq = last.seq + 1;
            items.push(InboxItem {
                seq,
                ..first.clone()
            });
        }
        true
    }
}

/// Changes the last byte of every message for victims.
pub(super) struct ChangesBytes;

impl Liar for ChangesBytes {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if let Some((_, records)) = records_in(frame)
            && is_victim(to)
        {
            for record in records.iter_mut().filter(|r| is_message(r)) {
                let mut payload = record.payload.as_slice().to_vec();
                if let Some(last) = payload.last_mut() {
                    *last ^= 1;
                }
                record.payload = payload.into();
            }
        }
        true
    }
}

/// Adds a record of no meaning to every page for victims.
pub(super) struct InventsRecords;

impl Liar for InventsRecords {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if let Some((_, records)) = records_in(frame)
            && is_victim(to)
            && let Some(last) = records.last().cloned()
        {
            records.push(LogRecord {
                seq: last.seq.next(),
                payload: vec![3, 1, 2, 3].into(),
                ..last
            });
        }
        true
    }
}

/// Sends what it pushes to others to somebody of another organisation, too.
struct ServesNeighbour(PersonId);

impl Liar for ServesNeighbour {
    fn also_to(&mut self, _: PersonId, frame: &RelayToClient) -> Option<PersonId> {
        let is_records = matches!(frame, RelayToClient::Push(Push::Records { .. }));
        is_records.then_some(self.0)
    }
}

/// Where there is another organisation, its owner is sent what is not theirs.
pub(super) fn serve_neighbours(world: &mut World) {
    let org = world.people[0].engine().org();
    let other = world.people.iter().position(|p| p.engine().org() != org);
    if let Some(other) = other {
        world.liar = Some(Box::new(ServesNeighbour(PersonId(other))));
    }
}
