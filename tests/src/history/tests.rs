//! The fence under fire, and a checker that is no ornament: planted bugs are caught, each by the promise that it breaks.

use std::sync::OnceLock;

use mortise_protocol::group::SUITE_CLASSICAL;
use mortise_protocol::identity::{DeviceId, GroupId, Hash, LogSeq, RosterSeq};
use mortise_protocol::wire::Refusal;

use super::{Call, FinalRecord, History, Kind, Question, Reply, Rule, Tally, check, fire};
use crate::sim::plants::Plant;
use crate::world::{Template, wall_clock_ms};

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| Template::found(wall_clock_ms(), SUITE_CLASSICAL))
}

/// REQ-055, REQ-060, REQ-061, REQ-062, REQ-083, REQ-091: members behind, cut off, restarting and speaking at the very
/// instant of an order: once it is acknowledged, nothing from an honest device enters an epoch that the leaver reads,
/// and what a liar puts there is accepted by nobody.
#[test]
fn the_fence_holds_under_fire() {
    let mut all = Tally::default();
    for seed in 1..=3 {
        let history = fire::run(seed, template(), None);
        let tally = check(&history).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        println!("seed {seed}: {tally:?}");
        all.orders += tally.orders;
        all.refused_behind += tally.refused_behind;
        all.refused_removed += tally.refused_removed;
        all.stale_by_liars += tally.stale_by_liars;
        all.stale_judged += tally.stale_judged;
    }
    assert_eq!(all.orders, 6);
    assert!(all.refused_behind > 0 && all.refused_removed > 0, "{all:?}");
    assert!(all.stale_by_liars > 0 && all.stale_judged > 0, "{all:?}");
}

/// A history that keeps every promise, to be spoilt.
fn good() -> History {
    static GOOD: OnceLock<History> = OnceLock::new();
    GOOD.get_or_init(|| fire::run(1, template(), None)).clone()
}

/// Bugs planted in the running world: a relay, its disk or the way to its clients do not keep what they promise. Each
/// breaks one of these promises in one of these seeds.
#[test]
fn bugs_planted_in_the_world_are_caught() {
    use Rule::{AcknowledgedIsThere, FenceHolds, Linearizable, OneLog, RemovedIsServedNothing};
    let planted: [(Plant, &[Rule]); 10] = [
        (
            Plant::RelayLosesLastBatch,
            &[AcknowledgedIsThere, OneLog, Linearizable],
        ),
        (
            Plant::RelayStampsOldFence,
            &[FenceHolds, AcknowledgedIsThere],
        ),
        (Plant::LiarLowersFence, &[OneLog]),
        (Plant::LiarSwapsRecords, &[OneLog]),
        (Plant::LiarWithholdsMessage, &[OneLog]),
        (Plant::LiarShowsTwoLogs, &[OneLog]),
        (Plant::LiarServesRemoved, &[RemovedIsServedNothing]),
        (Plant::LiarAcksUnstored, &[AcknowledgedIsThere]),
        (Plant::LiarChangesBytes, &[OneLog]),
        (Plant::LiarInventsRecords, &[OneLog]),
    ];
    for (plant, expected) in planted {
        let install: fire::Plant<'_> = &|world| plant.install(world);
        let mut faults = (1..=6).map(|seed| check(&fire::run(seed, template(), Some(install))));
        let caught = faults.find_map(Result::err);
        let rule = caught.as_ref().map(|fault| fault.rule);
        let fits = rule.is_some_and(|rule| expected.contains(&rule));
        assert!(fits, "{plant:?}: {caught:?} instead of {expected:?}");
    }
}

/// What a multi-node relay with a bug would leave behind: a good history, spoilt in one place.
type Spoil = fn(&mut History);

/// Every promise is broken at least once, and the checker names the one that is.
#[test]
fn histories_of_faulty_relays_are_caught() {
    assert!(check(&good()).is_ok());
    let spoils: [(&str, Spoil, Rule); 20] = [
        (
            "a sequence number is drawn twice and one is lost",
            lose_a_record,
            Rule::Gapless,
        ),
        ("a record is stored twice", store_twice, Rule::Once),
        (
            "two nodes take a commit for one epoch",
            two_commits,
            Rule::OneCommitPerEpoch,
        ),
        (
            "a log goes on after its end",
            go_on_after_the_end,
            Rule::NothingAfterTheEnd,
        ),
        (
            "a node stamps a fence from before",
            fence_falls,
            Rule::FenceHolds,
        ),
        (
            "a node stamps a fence that no order raised",
            fence_of_no_order,
            Rule::FenceHolds,
        ),
        (
            "the fence is not compared with s",
            based_behind,
            Rule::BasedOnFence,
        ),
        (
            "admission is looked at when a device connects, and then no more",
            removed_writes,
            Rule::SenderAdmitted,
        ),
        ("a record comes from nowhere", from_nowhere, Rule::Sent),
        (
            "an answer names another record's place",
            wrong_place,
            Rule::AcknowledgedIsThere,
        ),
        (
            "an entry is acknowledged and lost",
            lost_entry,
            Rule::AcknowledgedIsThere,
        ),
        (
            "what was refused is stored",
            refused_and_stored,
            Rule::RefusedIsNowhere,
        ),
        (
            "a refusal speaks of an entry to come",
            refused_for_the_future,
            Rule::RefusalIsTrue,
        ),
        (
            "an order is acknowledged before every node has it",
            order_acked_early,
            Rule::Linearizable,
        ),
        (
            "a node numbers what came first last",
            numbered_wrongly,
            Rule::Linearizable,
        ),
        (
            "a log's end is read from a node that lags",
            stale_read,
            Rule::Linearizable,
        ),
        (
            "a subscription outlives its device",
            served_after_removal,
            Rule::RemovedIsServedNothing,
        ),
        (
            "an honest device sends into an epoch that the leaver reads",
            reader_in_the_tree,
            Rule::NoMessageForTheRemoved,
        ),
        (
            "an honest device shows what a liar sent there",
            liar_believed,
            Rule::StaleIsRefused,
        ),
        (
            "two devices judge one message differently",
            judged_differently,
            Rule::JudgedAlike,
        ),
    ];
    for (name, spoil, expected) in spoils {
        let mut history = good();
        spoil(&mut history);
        let fault = check(&history).err();
        let rule = fault.as_ref().map(|fault| fault.rule);
        assert_eq!(rule, Some(expected), "{name}: {fault:?}");
    }
}

/// The longest log, and where its newest part begins.
fn longest(history: &History) -> (GroupId, usize) {
    let longest = history.logs.iter().max_by_key(|(_, log)| log.len());
    let (group, _) = longest.expect("a log");
    let old = history.logs_before.get(group).map_or(0, |seq| seq.0);
    (*group, usize::try_from(old).expect("a length"))
}

/// A record among the new ones of the longest log.
fn find(history: &History, wanted: impl Fn(&FinalRecord) -> bool) -> (GroupId, usize) {
    let (group, old) = longest(history);
    let log = &history.logs[&group];
    let at = (old..log.len()).find(|at| wanted(&log[*at]));
    (group, at.expect("such a record"))
}

fn log(history: &mut History, group: GroupId) -> &mut Vec<FinalRecord> {
    history.logs.get_mut(&group).expect("a log")
}

fn first_order(history: &History) -> RosterSeq {
    let mut orders = history.orders().map(|(seq, _)| seq);
    let first = orders.find(|seq| *seq > history.roster_before);
    first.expect("an order")
}

fn lose_a_record(history: &mut History) {
    let (group, at) = find(history, |r| r.kind == Kind::Message);
    log(history, group).remove(at);
}

fn store_twice(history: &mut History) {
    let (group, at) = find(history, |r| r.kind == Kind::Message);
    let log = log(history, group);
    let mut again = log[at].clone();
    again.seq = LogSeq(log.len() as u64 + 1);
    again.epoch = log.last().expect("a record").epoch;
    log.push(again);
}

fn two_commits(history: &mut History) {
    let (group, at) = find(history, |r| r.kind == Kind::Commit);
    let log = log(history, group);
    log[at + 1].kind = Kind::Commit;
    log[at + 1].epoch = log[at].epoch;
}

fn go_on_after_the_end(history: &mut History) {
    let (group, at) = find(history, |r| r.kind == Kind::Message);
    log(history, group)[at].kind = Kind::Restart;
}

fn fence_falls(history: &mut History) {
    let order = first_order(history);
    let (group, at) = find(history, |r| r.fence == order);
    log(history, group)[at + 1].fence = RosterSeq(0);
}

fn fence_of_no_order(history: &mut History) {
    let order = first_order(history);
    let (group, at) = find(history, |r| r.fence == order);
    log(history, group)[at].fence = RosterSeq(order.0 - 1);
    let row = usize::try_from(order.0 - 2).expect("a row");
    assert!(history.roster[row].order.is_none());
}

fn based_behind(history: &mut History) {
    let order = first_order(history);
    let (group, at) = find(history, |r| r.fence == order && r.kind == Kind::Message);
    log(history, group)[at].based_on = RosterSeq(order.0 - 1);
}

/// Everybody who has submitted a record becomes somebody else.
fn sent_by(history: &mut History, record: Hash, device: Option<DeviceId>) {
    let of_record =
        |call: &Call| matches!(call.question, Question::Append { record: r, .. } if r == record);
    match device {
        None => history.calls.retain(|call| !of_record(call)),
        Some(device) => {
            let calls = history.calls.iter_mut().filter(|call| of_record(call));
            calls.for_each(|call| call.client = device);
        }
    }
}

fn removed_writes(history: &mut History) {
    let order = first_order(history);
    let (group, at) = find(history, |r| r.fence >= order);
    let record = history.logs[&group][at].record;
    let row = history.entry(order).and_then(|row| row.order.clone());
    let gone = row.and_then(|devices| devices.first().copied());
    sent_by(history, record, gone);
}

fn from_nowhere(history: &mut History) {
    let (group, at) = find(history, |r| r.kind == Kind::Message);
    let record = history.logs[&group][at].record;
    sent_by(history, record, None);
}

/// A call that was answered so.
fn call(history: &mut History, wanted: impl Fn(&Call) -> bool) -> &mut Call {
    let found = history.calls.iter_mut().find(|call| wanted(call));
    found.expect("such a call")
}

fn wrong_place(history: &mut History) {
    let found = call(history, |c| matches!(c.reply, Reply::Appended { .. }));
    if let Reply::Appended { seq, .. } = &mut found.reply {
        *seq = seq.next();
    }
}

fn lost_entry(history: &mut History) {
    let found = call(history, |c| matches!(c.reply, Reply::RosterAppended { .. }));
    if let Question::AppendRoster { entry, .. } = &mut found.question {
        *entry = Hash([0; 32]);
    }
}

fn refused_and_stored(history: &mut History) {
    let (group, at) = find(history, |r| r.kind == Kind::Message);
    let record = history.logs[&group][at].record;
    for call in &mut history.calls {
        if matches!(call.question, Question::Append { record: r, .. } if r == record) {
            call.reply = Reply::Refused(Refusal::AccessDenied);
        }
    }
}

fn refused_for_the_future(history: &mut History) {
    let behind = |c: &Call| matches!(c.reply, Reply::Refused(Refusal::RosterBehind { .. }));
    let found = call(history, behind);
    if let Reply::Refused(Refusal::RosterBehind { head_seq, .. }) = &mut found.reply {
        *head_seq = RosterSeq(head_seq.0 + 1_000);
    }
}

/// The order's answer comes before something that was sent later and stamped with the fence from before it.
fn order_acked_early(history: &mut History) {
    let order = first_order(history);
    let (group, old) = longest(history);
    let under = |r: &FinalRecord| r.fence < order;
    let last = history.logs[&group][old..].iter().rfind(|r| under(r));
    let record = last.expect("a record").record;
    let sent = call(
        history,
        |c| matches!(c.question, Question::Append { record: r, .. } if r == record),
    );
    let sent = sent.invoked;
    let of_order =
        |c: &Call| matches!(c.question, Question::AppendRoster { seq, .. } if seq == order);
    let order = call(history, |c| {
        of_order(c) && matches!(c.reply, Reply::RosterAppended { .. })
    });
    order.invoked = order.invoked.min(sent - 2);
    order.returned = Some(sent - 1);
}

/// The newest record of all is numbered before an older one.
fn numbered_wrongly(history: &mut History) {
    let (group, at) = find(history, |r| r.kind == Kind::Message);
    let record = history.logs[&group][at].record;
    let end = history
        .calls
        .iter()
        .map(|c| c.invoked)
        .max()
        .expect("calls");
    for call in &mut history.calls {
        if matches!(call.question, Question::Append { record: r, .. } if r == record) {
            call.invoked = end + 1;
            call.returned = Some(end + 2);
        }
    }
}

fn stale_read(history: &mut History) {
    let read = |c: &Call| matches!(c.reply, Reply::Subscribed { head_seq, .. } if head_seq.0 > 8);
    let last = history.calls.iter_mut().rfind(|c| read(c)).expect("a read");
    if let Reply::Subscribed { head_seq, .. } = &mut last.reply {
        *head_seq = LogSeq(head_seq.0 - 6);
    }
}

fn served_after_removal(history: &mut History) {
    let order = first_order(history);
    let row = history.entry(order).and_then(|row| row.order.clone());
    let gone = row
        .and_then(|devices| devices.first().copied())
        .expect("a device");
    let late = history.deliveries.iter_mut().find(|d| d.fence >= order);
    late.expect("a delivery").client = gone;
}

fn reader_in_the_tree(history: &mut History) {
    let order = first_order(history);
    let row = history.entry(order).and_then(|row| row.order.clone());
    let gone = row
        .and_then(|devices| devices.first().copied())
        .expect("a device");
    let liars = history.liars.clone();
    let honest = |history: &History, record: Hash| {
        let of =
            |c: &&Call| matches!(c.question, Question::Append { record: r, .. } if r == record);
        history
            .calls
            .iter()
            .filter(of)
            .all(|c| !liars.contains(&c.client))
    };
    let (group, at) = find(history, |r| {
        r.fence >= order && r.kind == Kind::Message && honest(history, r.record)
    });
    let epoch = history.logs[&group][at].epoch;
    history
        .trees
        .entry((group, epoch))
        .or_default()
        .insert(gone);
}

fn liar_believed(history: &mut History) {
    let refused = history.judgements.iter_mut().find(|j| !j.accepted);
    refused.expect("something that was refused").accepted = true;
}

fn judged_differently(history: &mut History) {
    let accepted = history.judgements.iter_mut().find(|j| j.accepted);
    accepted.expect("something that was accepted").accepted = false;
}
