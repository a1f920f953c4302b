//! The sequential part: each log by itself, and each answer against the log.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{DeviceId, Epoch, GroupId, Hash, LogSeq, RosterSeq};
use mortise_protocol::wire::Refusal;

use super::check::{Fault, Rule, Tally};
use super::value::{FinalRecord, History, Kind, Question, Reply};

/// Every log by itself (REQ-055, REQ-060).
pub(super) fn check_logs(history: &History) -> Result<(), Fault> {
    let senders = senders(history);
    for (group, log) in &history.logs {
        let mut walk = Walk::default();
        for record in log {
            walk.step(history, *group, record)?;
            if history.is_old(*group, record.seq) {
                continue;
            }
            let at = || place(*group, record.seq);
            let Some(by) = senders.get(&(*group, record.record)) else {
                return Err(Fault::new(Rule::Sent, at()));
            };
            let admitted = |device: &DeviceId| {
                let burned = history.burned_at(*device);
                burned.is_none_or(|order| order > record.fence)
            };
            if !by.iter().any(admitted) {
                let detail = format!("{}: by {by:?}, fence {}", at(), record.fence);
                return Err(Fault::new(Rule::SenderAdmitted, detail));
            }
        }
    }
    Ok(())
}

/// Who has submitted a record.
pub(super) fn senders(history: &History) -> BTreeMap<(GroupId, Hash), BTreeSet<DeviceId>> {
    let mut senders: BTreeMap<_, BTreeSet<DeviceId>> = BTreeMap::new();
    for call in &history.calls {
        if let Question::Append { group, record } = call.question {
            senders
                .entry((group, record))
                .or_default()
                .insert(call.client);
        }
    }
    senders
}

pub(super) fn place(group: GroupId, seq: LogSeq) -> String {
    format!("{group:?} at {seq}")
}

/// A log, read from its beginning.
#[derive(Default)]
struct Walk {
    seq: LogSeq,
    epoch: Epoch,
    fence: RosterSeq,
    opening_based_on: RosterSeq,
    ended: bool,
    seen: BTreeSet<Hash>,
}

impl Walk {
    fn step(
        &mut self,
        history: &History,
        group: GroupId,
        record: &FinalRecord,
    ) -> Result<(), Fault> {
        let fault = |rule, why: String| {
            let detail = format!("{}: {why}", place(group, record.seq));
            Err(Fault::new(rule, detail))
        };
        if record.seq != self.seq.next() || (self.seq == LogSeq(0)) != (record.kind == Kind::Create)
        {
            return fault(
                Rule::Gapless,
                format!("{:?} after {}", record.kind, self.seq),
            );
        }
        if !self.seen.insert(record.record) {
            return fault(Rule::Once, "appended before".into());
        }
        let restart = record.kind == Kind::Restart;
        if self.ended && !restart {
            return fault(Rule::NothingAfterTheEnd, format!("{:?}", record.kind));
        }
        // A Restart may name an earlier parent (REQ-150).
        if record.epoch != self.epoch && !(restart && record.epoch < self.epoch) {
            let why = format!("of epoch {} in epoch {}", record.epoch, self.epoch);
            return fault(Rule::OneCommitPerEpoch, why);
        }
        let is_order = |seq| history.entry(seq).is_some_and(|row| row.order.is_some());
        if record.fence < self.fence || (record.fence > RosterSeq(0) && !is_order(record.fence)) {
            let why = format!("fence {} after {}", record.fence, self.fence);
            return fault(Rule::FenceHolds, why);
        }
        let head = RosterSeq(history.roster.len() as u64);
        let least = record.fence.max(self.opening_based_on);
        let created = record.kind == Kind::Create;
        if !created && !restart && !(least..=head).contains(&record.based_on) {
            let why = format!("based on {}, at least {least}", record.based_on);
            return fault(Rule::BasedOnFence, why);
        }
        if restart && record.based_on < record.fence {
            return fault(Rule::BasedOnFence, format!("based on {}", record.based_on));
        }
        if record.kind == Kind::Commit {
            self.epoch = self.epoch.next();
            self.opening_based_on = record.based_on;
        }
        (self.seq, self.fence) = (record.seq, record.fence);
        self.ended |= restart;
        Ok(())
    }
}

/// What was answered, against what is there in the end.
pub(super) fn check_answers(history: &History, tally: &mut Tally) -> Result<(), Fault> {
    let mut places: BTreeMap<(GroupId, Hash), &FinalRecord> = BTreeMap::new();
    for (group, log) in &history.logs {
        places.extend(log.iter().map(|record| ((*group, record.record), record)));
    }
    let accepted = maybe_accepted(history);
    for call in &history.calls {
        let fault = |rule| Err(Fault::new(rule, format!("{call:?}")));
        match (call.question, &call.reply) {
            (Question::Append { group, record }, Reply::Appended { seq, fence }) => {
                let found = places.get(&(group, record));
                if found.is_none_or(|found| (found.seq, found.fence) != (*seq, *fence)) {
                    return fault(Rule::AcknowledgedIsThere);
                }
            }
            (Question::Append { group, record }, Reply::Refused(refusal)) => {
                count(refusal, tally);
                let there = places.contains_key(&(group, record));
                if there && !accepted.contains(&(group, record)) {
                    return fault(Rule::RefusedIsNowhere);
                }
                let burned = history.burned_at(call.client);
                if *refusal == Refusal::NotAdmitted && burned.is_none() {
                    return fault(Rule::RefusalIsTrue);
                }
            }
            (Question::AppendRoster { seq, entry }, Reply::RosterAppended { .. })
                if history.entry(seq).is_none_or(|row| row.entry != entry) =>
            {
                return fault(Rule::AcknowledgedIsThere);
            }
            _ => {}
        }
    }
    check_entries(history)
}

/// Records that some call was not refused for: sent again, the second call may be refused.
fn maybe_accepted(history: &History) -> BTreeSet<(GroupId, Hash)> {
    let calls = history.calls.iter();
    calls
        .filter(|call| !matches!(call.reply, Reply::Refused(_)))
        .filter_map(|call| match call.question {
            Question::Append { group, record } => Some((group, record)),
            _ => None,
        })
        .collect()
}

fn count(refusal: &Refusal, tally: &mut Tally) {
    match refusal {
        Refusal::RosterBehind { .. } => tally.refused_behind += 1,
        Refusal::WrongEpoch { .. } => tally.refused_epoch += 1,
        Refusal::NotAdmitted => tally.refused_removed += 1,
        _ => {}
    }
}

/// Every new entry of the roster was sent by somebody.
fn check_entries(history: &History) -> Result<(), Fault> {
    let sent: BTreeSet<(RosterSeq, Hash)> = history
        .calls
        .iter()
        .filter_map(|call| match call.question {
            Question::AppendRoster { seq, entry } => Some((seq, entry)),
            _ => None,
        })
        .collect();
    let rows = (1..).map(RosterSeq).zip(&history.roster);
    for (seq, row) in rows.filter(|(seq, _)| *seq > history.roster_before) {
        if !sent.contains(&(seq, row.entry)) {
            return Err(Fault::new(Rule::Sent, format!("roster entry {seq}")));
        }
    }
    Ok(())
}
