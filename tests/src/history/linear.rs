//! The order of everything: whether each call can be given one moment between its invocation and its answer such that
//! the roster and every log are in order, each record under the fence of its moment.
//!
//! The final logs say in which order each object's calls took effect, so nothing is searched: every call is given the
//! earliest moment that its own invocation and whatever must come before it allow (a longest path in a graph without
//! cycles). The history is linearizable exactly if no call's earliest moment is after its answer.

use std::collections::BTreeMap;

use mortise_protocol::identity::{Epoch, GroupId, Hash, LogSeq, RosterSeq};
use mortise_protocol::wire::Refusal;

use super::check::{Fault, Rule, Tally};
use super::rules::place;
use super::value::{Call, FinalRecord, History, Kind, Question, Reply};

/// An earliest moment, and what holds it up.
#[derive(Clone, Debug, Default)]
struct Point {
    at: u64,
    because: String,
}

impl Point {
    /// Not before this call was sent.
    fn of(call: &Call) -> Self {
        Self {
            at: call.invoked,
            because: format!("{:?} of {:?}", call.question, call.client),
        }
    }

    fn after(&mut self, other: &Self) {
        if other.at > self.at {
            *self = other.clone();
        }
    }

    fn check(
        &self,
        rule: Rule,
        returned: Option<u64>,
        what: impl FnOnce() -> String,
    ) -> Result<(), Fault> {
        match returned {
            Some(returned) if self.at > returned => {
                let (at, because) = (self.at, &self.because);
                let detail = format!(
                    "{} was answered at {returned}, before {at}: {because}",
                    what()
                );
                Err(Fault::new(rule, detail))
            }
            _ => Ok(()),
        }
    }
}

/// When something that took effect was first sent and first confirmed.
struct Span<'a> {
    first: &'a Call,
    confirmed: Option<u64>,
}

/// Who read a record, of which epoch, and the rule that this is held against.
type Read<'a> = (&'a Call, Epoch, Rule);

/// What was read at which place: there, and before whatever came next.
#[derive(Default)]
struct Reads<'a> {
    of_log: BTreeMap<(GroupId, LogSeq), Vec<Read<'a>>>,
    of_roster: BTreeMap<RosterSeq, Vec<&'a Call>>,
}

/// Checks that the history is linearizable (REQ-055, REQ-060, REQ-061).
pub(super) fn check_order(history: &History, tally: &mut Tally) -> Result<(), Fault> {
    let mut order = Order {
        history,
        spans: spans(history),
        entries: entry_spans(history),
        reads: reads(history),
        roster: vec![Point::default()],
        logs: BTreeMap::new(),
        next: BTreeMap::new(),
        newest: Point::default(),
    };
    let orders: Vec<RosterSeq> = history.orders().map(|(seq, _)| seq).collect();
    let mut fence = RosterSeq(0);
    for next in orders.iter().copied().map(Some).chain([None]) {
        let last = next.map_or(history.roster.len() as u64, |next| next.0 - 1);
        order.entries_up_to(RosterSeq(last))?;
        order.records_under(fence, tally)?;
        if let Some(next) = next {
            order.entry(next)?;
            tally.orders += usize::from(next > history.roster_before);
            fence = next;
        }
    }
    order.reads_from_nowhere()
}

fn widen<'a, K: Ord>(spans: &mut BTreeMap<K, Span<'a>>, key: K, call: &'a Call) {
    let done = matches!(
        call.reply,
        Reply::Appended { .. } | Reply::RosterAppended { .. }
    );
    let confirmed = call.returned.filter(|_| done);
    let span = spans.entry(key).or_insert(Span {
        first: call,
        confirmed,
    });
    if call.invoked < span.first.invoked {
        span.first = call;
    }
    span.confirmed = span.confirmed.into_iter().chain(confirmed).min();
}

fn spans(history: &History) -> BTreeMap<(GroupId, Hash), Span<'_>> {
    let mut spans = BTreeMap::new();
    for call in &history.calls {
        if let Question::Append { group, record } = call.question {
            widen(&mut spans, (group, record), call);
        }
    }
    spans
}

fn entry_spans(history: &History) -> BTreeMap<(RosterSeq, Hash), Span<'_>> {
    let mut spans = BTreeMap::new();
    for call in &history.calls {
        if let Question::AppendRoster { seq, entry } = call.question {
            widen(&mut spans, (seq, entry), call);
        }
    }
    spans
}

fn reads(history: &History) -> Reads<'_> {
    let mut reads = Reads::default();
    for call in &history.calls {
        let (Question::Append { group, .. } | Question::Subscribe { group, .. }) = call.question
        else {
            if let Reply::Refused(Refusal::RosterConflict { head }) = &call.reply {
                reads.of_roster.entry(head.seq).or_default().push(call);
            }
            continue;
        };
        match &call.reply {
            Reply::Subscribed {
                head_seq,
                head_epoch,
            } => {
                let read = (call, *head_epoch, Rule::Linearizable);
                reads
                    .of_log
                    .entry((group, *head_seq))
                    .or_default()
                    .push(read);
            }
            Reply::Refused(Refusal::WrongEpoch {
                head_epoch,
                head_seq,
            }) => {
                let read = (call, *head_epoch, Rule::RefusalIsTrue);
                reads
                    .of_log
                    .entry((group, *head_seq))
                    .or_default()
                    .push(read);
            }
            Reply::Refused(Refusal::RosterBehind { head_seq, .. }) => {
                reads.of_roster.entry(*head_seq).or_default().push(call);
            }
            _ => {}
        }
    }
    reads
}

struct Order<'a> {
    history: &'a History,
    spans: BTreeMap<(GroupId, Hash), Span<'a>>,
    entries: BTreeMap<(RosterSeq, Hash), Span<'a>>,
    reads: Reads<'a>,
    /// The earliest moments of entries, from entry 0, which is none.
    roster: Vec<Point>,
    /// The earliest moment of each log's newest record so far, with the epoch after it.
    logs: BTreeMap<GroupId, (Point, Epoch)>,
    /// Which record of each log comes next.
    next: BTreeMap<GroupId, usize>,
    /// The latest of all earliest moments of records so far: an order comes after every record without its fence.
    newest: Point,
}

impl Order<'_> {
    fn entries_up_to(&mut self, last: RosterSeq) -> Result<(), Fault> {
        while (self.roster.len() as u64) <= last.0 {
            self.entry(RosterSeq(self.roster.len() as u64))?;
        }
        Ok(())
    }

    /// The entry at the roster's end.
    fn entry(&mut self, seq: RosterSeq) -> Result<(), Fault> {
        let Some(row) = self.history.entry(seq) else {
            return Ok(());
        };
        let span = self.entries.get(&(seq, row.entry));
        let mut point = span.map_or_else(Point::default, |span| Point::of(span.first));
        if let Some(before) = self.roster.last() {
            point.after(before);
        }
        if row.order.is_some() {
            point.after(&self.newest);
        }
        let confirmed = span.and_then(|span| span.confirmed);
        point.check(Rule::Linearizable, confirmed, || {
            format!("roster entry {seq}")
        })?;
        // Whoever read the roster's end before this entry, read it before now.
        for read in self
            .reads
            .of_roster
            .remove(&RosterSeq(seq.0 - 1))
            .unwrap_or_default()
        {
            let mut moment = Point::of(read);
            if let Some(before) = self.roster.last() {
                moment.after(before);
            }
            moment.check(Rule::RefusalIsTrue, read.returned, || format!("{read:?}"))?;
            point.after(&moment);
        }
        point.check(Rule::Linearizable, confirmed, || {
            format!("roster entry {seq}")
        })?;
        self.roster.push(point);
        Ok(())
    }

    /// All records that were appended under one fence.
    fn records_under(&mut self, fence: RosterSeq, tally: &mut Tally) -> Result<(), Fault> {
        let mut newest = self.newest.clone();
        for (group, log) in &self.history.logs {
            let mut next = self.next.get(group).copied().unwrap_or(0);
            while let Some(record) = log.get(next).filter(|record| record.fence <= fence) {
                let point = self.record(*group, record)?;
                newest.after(&point);
                let watched = !self.history.is_old(*group, record.seq);
                tally.appends += usize::from(watched);
                tally.commits += usize::from(watched && record.kind == Kind::Commit);
                next += 1;
            }
            self.next.insert(*group, next);
        }
        self.newest = newest;
        Ok(())
    }

    fn record(&mut self, group: GroupId, record: &FinalRecord) -> Result<Point, Fault> {
        let span = self.spans.get(&(group, record.record));
        let mut point = span.map_or_else(Point::default, |span| Point::of(span.first));
        let (before, epoch) = self.logs.remove(&group).unwrap_or_default();
        point.after(&before);
        for based in [record.fence, record.based_on] {
            let index = usize::try_from(based.0).unwrap_or(usize::MAX);
            if let Some(entry) = self.roster.get(index) {
                point.after(entry);
            }
        }
        let earlier = LogSeq(record.seq.0 - 1);
        for (read, head_epoch, rule) in self
            .reads
            .of_log
            .remove(&(group, earlier))
            .unwrap_or_default()
        {
            let moment = read_at(read, &before, (head_epoch, epoch), rule)?;
            point.after(&moment);
        }
        let confirmed = span.and_then(|span| span.confirmed);
        point.check(Rule::Linearizable, confirmed, || place(group, record.seq))?;
        let epoch = match record.kind {
            Kind::Commit => epoch.next(),
            _ => epoch,
        };
        self.logs.insert(group, (point.clone(), epoch));
        Ok(point)
    }

    /// Reads at the logs' and the roster's very ends; any other is of a place that does not exist.
    fn reads_from_nowhere(mut self) -> Result<(), Fault> {
        for ((group, seq), found) in std::mem::take(&mut self.reads.of_log) {
            let (last, epoch) = self.logs.get(&group).cloned().unwrap_or_default();
            let exists = self
                .history
                .logs
                .get(&group)
                .is_some_and(|log| log.len() as u64 == seq.0);
            for (read, head_epoch, rule) in found {
                if !exists {
                    return Err(Fault::new(
                        rule,
                        format!("{read:?}: there is no such record"),
                    ));
                }
                read_at(read, &last, (head_epoch, epoch), rule)?;
            }
        }
        for (seq, found) in &self.reads.of_roster {
            let last = self.roster.last().cloned().unwrap_or_default();
            for read in found {
                if seq.0 != self.history.roster.len() as u64 {
                    let detail = format!("{read:?}: there is no such entry");
                    return Err(Fault::new(Rule::RefusalIsTrue, detail));
                }
                last.check(Rule::RefusalIsTrue, read.returned, || format!("{read:?}"))?;
            }
        }
        Ok(())
    }
}

/// The earliest moment of a read of a log's end, which must name the epoch that the log was in.
fn read_at(read: &Call, head: &Point, epochs: (Epoch, Epoch), rule: Rule) -> Result<Point, Fault> {
    let mut moment = Point::of(read);
    moment.after(head);
    moment.check(rule, read.returned, || format!("{read:?}"))?;
    if epochs.0 != epochs.1 {
        let detail = format!("{read:?}: the log was in epoch {}", epochs.1);
        return Err(Fault::new(rule, detail));
    }
    Ok(moment)
}
