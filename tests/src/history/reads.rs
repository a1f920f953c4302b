//! What devices were shown, and what honest ones made of it.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{DeviceId, GroupId, LogSeq, RosterSeq};

use super::check::{Fault, Rule, Tally};
use super::rules::{place, senders};
use super::value::{FinalRecord, History, Kind, Question, Reply};

/// Every device is shown the one log, and a removed one nothing of what came after its order (REQ-044, REQ-062).
pub(super) fn check_deliveries(history: &History) -> Result<(), Fault> {
    for delivery in &history.deliveries {
        let found = history.record(delivery.group, delivery.seq);
        let same = |r: &FinalRecord| (r.record, r.fence) == (delivery.record, delivery.fence);
        if !found.is_some_and(same) {
            return Err(Fault::new(Rule::OneLog, format!("{delivery:?}")));
        }
        let burned = history.burned_at(delivery.client);
        if burned.is_some_and(|order| delivery.fence >= order) {
            return Err(Fault::new(
                Rule::RemovedIsServedNothing,
                format!("{delivery:?}"),
            ));
        }
    }
    let acknowledged = acknowledged_orders(history);
    for call in &history.calls {
        let granted = matches!(call.reply, Reply::Subscribed { .. });
        let order = history.burned_at(call.client);
        let late = order.and_then(|order| acknowledged.get(&order));
        if granted && late.is_some_and(|acked| *acked < call.invoked) {
            return Err(Fault::new(
                Rule::RemovedIsServedNothing,
                format!("{call:?}"),
            ));
        }
    }
    Ok(())
}

/// When each order was acknowledged.
fn acknowledged_orders(history: &History) -> BTreeMap<RosterSeq, u64> {
    let mut acknowledged = BTreeMap::new();
    for call in &history.calls {
        if let (Question::AppendRoster { seq, .. }, Reply::RosterAppended { .. }, Some(at)) =
            (call.question, &call.reply, call.returned)
        {
            acknowledged.entry(seq).or_insert(at);
        }
    }
    acknowledged
}

/// No message of an honest device stands where a removed one reads, and no honest device accepts one that does
/// (REQ-083, REQ-091).
pub(super) fn check_trees(history: &History, tally: &mut Tally) -> Result<(), Fault> {
    let senders = senders(history);
    let mut stale: BTreeSet<(GroupId, LogSeq)> = BTreeSet::new();
    for (group, log) in &history.logs {
        for record in log.iter().filter(|record| record.kind == Kind::Message) {
            let Some(reader) = removed_reader(history, *group, record) else {
                continue;
            };
            let by = senders.get(&(*group, record.record));
            let lies = by.is_some_and(|by| by.iter().any(|d| history.liars.contains(d)));
            if !lies {
                let detail = format!("{}: {reader:?} reads it", place(*group, record.seq));
                return Err(Fault::new(Rule::NoMessageForTheRemoved, detail));
            }
            stale.insert((*group, record.seq));
            tally.stale_by_liars += 1;
        }
    }
    let mut known: BTreeMap<(GroupId, LogSeq), bool> = BTreeMap::new();
    for judgement in &history.judgements {
        let at = (judgement.group, judgement.seq);
        if stale.contains(&at) {
            if judgement.accepted {
                return Err(Fault::new(Rule::StaleIsRefused, format!("{judgement:?}")));
            }
            tally.stale_judged += 1;
        }
        if *known.entry(at).or_insert(judgement.accepted) != judgement.accepted {
            return Err(Fault::new(Rule::JudgedAlike, format!("{judgement:?}")));
        }
    }
    Ok(())
}

/// A device of the epoch's tree that the record's own fence has removed.
fn removed_reader(history: &History, group: GroupId, record: &FinalRecord) -> Option<DeviceId> {
    let tree = history.trees.get(&(group, record.epoch))?;
    let removed = |device: &&DeviceId| {
        let order = history.burned_at(**device);
        order.is_some_and(|order| order <= record.fence)
    };
    tree.iter().find(removed).copied()
}
