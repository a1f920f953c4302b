//! What the log of a group brings: every record through the rules, in log order, in one transaction (REQ-087, REQ-090).

use std::collections::BTreeSet;

use super::restart::remember_parent;
use super::rows::{
    self, GROUPS, GroupRow, GroupStatus, HISTORY, INTENTS, LEAF_S, LOG_HASHES, ORDERS, OUTBOX,
    OrderRow, OutboxKind, OutboxRow,
};
use super::state::{Chore, State};
use super::warm::Warmth;
use super::{Alarm, CommandError, EngineError, Event, HistoryKind, HistoryRecord};
use crate::content::{self, Content};
use crate::group::validate::{self, Leaf};
use crate::group::{
    Group, GroupError, GroupPolicy, LeaveProposal, MlsProvider, Opened, StagedChange, Violation,
};
use crate::identity::{DeviceId, GroupId, RosterSeq, UserId, decode};
use crate::store::Tx;
use crate::wire::LogRecord;
use crate::wire::RecordBody;
use crate::wire::aad::{ContentType, PrivateHeader};
use crate::wire::log::{Attestation, CommitEntry, entry_hash};

/// Why a record is not followed.
pub(super) enum Refused {
    /// It breaks a rule; by whom, if known.
    Rule(Violation, Option<DeviceId>),
    /// This side failed; the whole step is undone.
    Engine(EngineError),
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<crate::store::StoreError> for Refused {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<Violation> for Refused {
    fn from(violation: Violation) -> Self {
        Self::Rule(violation, None)
    }
}

impl From<GroupError> for Refused {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Violation(violation) => Self::Rule(violation, None),
            other => Self::Engine(other.into()),
        }
    }
}

/// A group as it was seen before or after a commit.
struct Seen {
    leaves: Vec<Leaf>,
    leavers: Vec<Leaf>,
    policy: GroupPolicy,
}

impl Seen {
    fn of(state: &Group) -> Self {
        Self {
            leaves: state.leaves().to_vec(),
            leavers: state.leavers(),
            policy: state.policy().clone(),
        }
    }

    /// What the commit that led from here to `after` changed.
    fn changed<'a>(&'a self, after: &'a Self) -> Changed<'a> {
        Changed {
            gone: without(&self.leaves, &after.leaves),
            added: without(&after.leaves, &self.leaves),
            before: self,
            after,
        }
    }
}

/// The leaves that are here and not there.
fn without(here: &[Leaf], there: &[Leaf]) -> Vec<Leaf> {
    let there: BTreeSet<_> = there.iter().map(|leaf| leaf.device).collect();
    let leaves = here.iter().filter(|leaf| !there.contains(&leaf.device));
    leaves.copied().collect()
}

/// What a commit changed.
struct Changed<'a> {
    before: &'a Seen,
    after: &'a Seen,
    gone: Vec<Leaf>,
    added: Vec<Leaf>,
}

impl Changed<'_> {
    /// Tells what the commit did to the tree, which is now as in `state`.
    fn note_warmth(&self, engine: &mut State, row: &mut GroupRow, state: &Group, by: DeviceId) {
        let added: Vec<_> = self.added.iter().map(|leaf| leaf.device).collect();
        // Only a commit that does nothing but add needs no path.
        let commit = Warmth {
            committer: by,
            has_path: added.is_empty() || !self.gone.is_empty(),
            added: &added,
        };
        engine.note_warmth(row, state, &commit);
    }
}

/// What to do with the records after this one.
enum Next {
    Go,
    /// They cannot be followed now; they are asked for again.
    Stop,
}

/// A record while it is looked at.
pub(super) struct Inbound<'a> {
    pub(super) group: GroupId,
    pub(super) record: &'a LogRecord,
    pub(super) row: &'a mut GroupRow,
    /// What was learnt, for the user.
    pub(super) events: Vec<Event>,
}

impl Inbound<'_> {
    pub(super) fn history(
        &mut self,
        tx: &Tx<'_>,
        who: Option<(DeviceId, UserId)>,
        kind: HistoryKind,
    ) -> Result<(), EngineError> {
        self.events
            .push(write_history(tx, self.group, self.record, who, kind)?);
        Ok(())
    }
}

/// Writes a line of history and returns the event that announces it.
pub(super) fn write_history(
    tx: &Tx<'_>,
    group: GroupId,
    record: &LogRecord,
    who: Option<(DeviceId, UserId)>,
    kind: HistoryKind,
) -> Result<Event, EngineError> {
    let line = HistoryRecord {
        seq: record.seq,
        at_ms: record.at_ms,
        device: who.map(|(device, _)| device),
        user: who.map(|(_, user)| user),
        epoch: record.epoch.0,
        kind,
    };
    write_line(tx, group, &line)
}

/// The same, of a line that no record has brought.
pub(super) fn write_line(
    tx: &Tx<'_>,
    group: GroupId,
    line: &HistoryRecord,
) -> Result<Event, EngineError> {
    rows::put(tx, HISTORY, rows::key(group, line.seq.0), line)?;
    Ok(Event::Message {
        group,
        seq: line.seq,
    })
}

impl State {
    pub(super) fn handle_records(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        records: &[LogRecord],
    ) -> Result<(), EngineError> {
        let now = self.now_ms;
        if let Some(sub) = self.link.as_mut().and_then(|l| l.subs.get_mut(&group)) {
            let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
            sub.credit = sub.credit.saturating_sub(count);
            sub.got_records = true;
            if sub.deadline != u64::MAX {
                sub.deadline = now + 10_000;
            }
        }
        for record in records {
            match self.handle_record(tx, group, record)? {
                Next::Go => {}
                Next::Stop => {
                    if let Some(link) = &mut self.link {
                        link.subs.remove(&group);
                    }
                    break;
                }
            }
        }
        self.dirty.insert(group);
        Ok(())
    }

    fn handle_record(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        record: &LogRecord,
    ) -> Result<Next, EngineError> {
        let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &group.0)? else {
            return Ok(Next::Stop);
        };
        if record.seq <= row.cursor {
            return Ok(Next::Go);
        }
        let body = decode::<RecordBody>(record.payload.as_slice());
        match &row.status {
            GroupStatus::Active => {}
            // Between the closing commit and a Restart lies what only a later key opens (REQ-150).
            GroupStatus::Halted(_) if matches!(body, Ok(RecordBody::Restart(_))) => {}
            _ => return Ok(Next::Go),
        }
        if record.seq != row.cursor.next() && row.status == GroupStatus::Active {
            return Ok(Next::Stop);
        }
        // A halted group's cursor does not show what was skipped: the Restart that counts may be what waits for the roster.
        let postponed = self.link.as_ref().and_then(|l| l.postponed_at.get(&group));
        if postponed.is_some_and(|at| row.cursor < *at && *at < record.seq) {
            return Ok(Next::Stop);
        }
        let needs = record.fence.max(row.floor(record.seq)).max(match &body {
            Ok(body) => roster_seq_of(body).unwrap_or_default(),
            Err(_) => RosterSeq(0),
        });
        if needs > self.roster.head().seq {
            // The roster comes first; the record is asked for again when it is here.
            if let Some(link) = &mut self.link {
                link.need_roster = link.need_roster.max(needs);
                link.postponed_at.entry(group).or_insert(record.seq);
            }
            return Ok(Next::Stop);
        }
        if let Some(link) = &mut self.link {
            link.postponed_at.remove(&group);
        }
        let before = row.clone();
        let inner = Tx::new(tx);
        let mut inbound = Inbound {
            group,
            record,
            row: &mut row,
            events: Vec::new(),
        };
        let outcome = match body {
            Ok(body) => self.follow(&inner, &mut inbound, &body),
            Err(_) => Err(Violation::MalformedRecord.into()),
        };
        let events = std::mem::take(&mut inbound.events);
        match outcome {
            Ok(()) => {
                tx.absorb(inner.into_batch()?);
                self.heard_at.insert(group, self.now_ms);
                let same_epoch = before.epoch == row.epoch;
                self.pass(tx, group, record, &mut row, same_epoch)?;
                events.into_iter().for_each(|event| self.event(event));
            }
            Err(Refused::Rule(violation, device)) => {
                drop(inner);
                self.groups.remove(&group);
                row = before.clone();
                self.refuse(tx, group, record, &mut row, violation, device)?;
            }
            Err(Refused::Engine(error)) => return Err(error),
        }
        let stopped = row.status != before.status;
        rows::put(tx, GROUPS, group.0, &row)?;
        Ok(if stopped { Next::Stop } else { Next::Go })
    }

    /// Moves the cursor past a record, and the log hash unless the record has opened an epoch, which moved it.
    fn pass(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        record: &LogRecord,
        row: &mut GroupRow,
        same_epoch: bool,
    ) -> Result<(), EngineError> {
        row.cursor = record.seq;
        row.fence = row.fence.max(record.fence);
        if same_epoch {
            let cursor = row.log_cursor().after(record.record_id(), record.fence);
            row.set_log_cursor(cursor);
            let key = rows::key(group, u64::from(cursor.count));
            tx.put(LOG_HASHES, key, cursor.hash.0);
        }
        Ok(())
    }

    /// Records a refusal: the cursor passes, the MLS state stays byte-identical (REQ-087).
    fn refuse(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        record: &LogRecord,
        row: &mut GroupRow,
        violation: Violation,
        device: Option<DeviceId>,
    ) -> Result<(), EngineError> {
        self.pass(tx, group, record, row, true)?;
        if let Some((number, outbox)) = rows::find_outbox(tx, group, || record.record_id())? {
            // It was ours, and nobody follows it: what it was for is wanted again (REQ-089).
            self.drop_outbox(tx, group, number, &outbox)?;
        }
        let who = device.and_then(|d| Some((d, self.roster.device(d)?.user)));
        let body = decode::<RecordBody>(record.payload.as_slice());
        let fault = self.fault_of(group, row, body.as_ref().ok(), violation);
        let kind = match &fault {
            Some(fault) => HistoryKind::Faulty {
                device: fault.culprit,
                reason: violation.to_string(),
            },
            None => HistoryKind::Refused(violation.to_string()),
        };
        let who = fault.as_ref().map_or(who, |fault| {
            Some((fault.culprit, self.roster.device(fault.culprit)?.user))
        });
        let event = write_history(tx, group, record, who, kind)?;
        self.event(event);
        self.alarm(Alarm::Refused {
            group,
            seq: record.seq,
            device: device.or(fault.as_ref().map(|fault| fault.culprit)),
            violation,
        });
        if let Some(fault) = fault {
            return self.halt(tx, group, row, fault);
        }
        let is_commit = matches!(
            decode::<RecordBody>(record.payload.as_slice()),
            Ok(RecordBody::Commit(_))
        );
        if is_commit {
            // Only a relay that lies serves such a record: the log that it shows leads nowhere.
            row.status = GroupStatus::Stopped(violation.to_string());
        }
        Ok(())
    }

    fn follow(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        body: &RecordBody,
    ) -> Result<(), Refused> {
        let (record, row) = (inbound.record, &*inbound.row);
        if record.fence < row.fence {
            return Err(Violation::FenceFell.into());
        }
        let floor = row.floor(record.seq);
        if record.fence < floor && self.roster.order(floor).is_some() {
            return Err(Violation::FenceMissed.into());
        }
        let closed = self.roster.closed_at(inbound.group);
        let is_past = row.ends_at.is_some_and(|end| record.seq > end);
        if is_past || closed.is_some_and(|at| roster_seq_of(body) >= Some(at)) {
            return Err(Violation::GroupClosed.into());
        }
        if let RecordBody::Restart(restart) = body {
            return self.follow_restart(tx, inbound, restart);
        }
        if record.epoch != row.epoch {
            return Err(Violation::BadHeader.into());
        }
        if let Some((number, outbox)) = rows::find_outbox(tx, inbound.group, || record.record_id())?
        {
            return self.follow_own(tx, inbound, number, &outbox, body);
        }
        match body {
            RecordBody::Create { .. } | RecordBody::Restart(_) => {
                Err(Violation::ForbiddenContent.into())
            }
            RecordBody::Message(message) => self.follow_message(tx, inbound, message.as_slice()),
            RecordBody::Commit(entry) => self.follow_commit(tx, inbound, entry),
            RecordBody::Attestation(attestation) => {
                self.follow_attestation(tx, inbound, attestation)
            }
        }
    }

    /// A record of this device: now, and not earlier, it counts (REQ-088).
    fn follow_own(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        number: u64,
        outbox: &OutboxRow,
        body: &RecordBody,
    ) -> Result<(), Refused> {
        let group = inbound.group;
        // What everybody else refuses does not count for its sender either.
        match body {
            RecordBody::Message(message) => {
                self.check_header(tx, inbound, message.as_slice())?;
            }
            RecordBody::Commit(entry) => {
                self.check_header(tx, inbound, entry.commit.as_slice())?;
            }
            RecordBody::Create { .. } | RecordBody::Attestation(_) | RecordBody::Restart(_) => {}
        }
        tx.delete(OUTBOX, rows::key(group, number));
        self.tell_appended(tx, outbox, group, inbound.record.seq)?;
        let me = (self.identity.device, self.identity.user);
        if let Some(s) = roster_seq_of(body) {
            rows::put(tx, LEAF_S, rows::leaf_key(group, me.0), &s)?;
        }
        match outbox.kind {
            OutboxKind::Create | OutboxKind::Restart => Err(Violation::ForbiddenContent.into()),
            OutboxKind::Attestation(_) | OutboxKind::Leave => Ok(()),
            OutboxKind::Message => {
                if let Some(intent) = outbox.intent {
                    tx.delete(INTENTS, rows::key(group, intent));
                }
                let plaintext = outbox.plaintext.as_ref().map_or(&[][..], |p| p);
                let kind = history_of(plaintext).unwrap_or(HistoryKind::OwnUnknown);
                inbound.history(tx, Some(me), kind)?;
                Ok(())
            }
            OutboxKind::Commit => {
                if let Some(intent) = outbox.intent {
                    self.set_in_flight(tx, group, intent, false)?;
                }
                let RecordBody::Commit(_) = body else {
                    return Err(Violation::MalformedRecord.into());
                };
                let crypto = self.crypto.clone();
                let mut state = self.take_group(tx, group)?;
                let before = Seen::of(&state);
                remember_parent(tx, inbound.group, inbound.row, &state, me.0)?;
                state.merge_pending(&MlsProvider::new(&crypto, tx))?;
                let after = Seen::of(&state);
                let s = roster_seq_of(body).unwrap_or_default();
                self.enter_epoch(tx, inbound, &state, s)?;
                let changed = before.changed(&after);
                changed.note_warmth(self, inbound.row, &state, me.0);
                Self::forget_leaves(tx, inbound, &changed.gone)?;
                self.groups.insert(group, state);
                if let Some(intent) = outbox.intent {
                    self.handle_change_met(tx, group, intent, &after.leaves)?;
                }
                self.tell_change(tx, inbound, s, me, &changed)
            }
        }
    }

    /// The rules that every MLS message obeys, before it is opened.
    fn check_header(
        &self,
        tx: &Tx<'_>,
        inbound: &Inbound<'_>,
        message: &[u8],
    ) -> Result<PrivateHeader, Refused> {
        let header = PrivateHeader::parse(message).map_err(|_| Violation::BadHeader)?;
        if header.group != inbound.group || header.epoch != inbound.row.epoch {
            return Err(Violation::BadHeader.into());
        }
        let aad = &header.aad;
        if aad.roster_seq < inbound.record.fence {
            return Err(Violation::BehindFence.into());
        }
        if aad.roster_seq < inbound.row.commit_s {
            return Err(Violation::RosterSeqFell.into());
        }
        if !self.is_on_chain(aad.roster_seq, aad.roster_hash) {
            return Err(Violation::RosterFork.into());
        }
        let key = rows::key(inbound.group, u64::from(aad.log_count));
        let ours = tx.get(LOG_HASHES, &key)?;
        if ours.as_deref() != Some(&aad.log_hash.0[..]) {
            return Err(Violation::LogFork.into());
        }
        Ok(header)
    }

    /// `s` never falls per leaf (REQ-084).
    fn check_leaf(
        tx: &Tx<'_>,
        inbound: &Inbound<'_>,
        leaf: &Leaf,
        s: RosterSeq,
    ) -> Result<(), Refused> {
        let key = rows::leaf_key(inbound.group, leaf.device);
        let last: Option<RosterSeq> = rows::load(tx, LEAF_S, &key)?;
        let old = inbound.row.old_leaf_s.get(&leaf.device).copied();
        if Some(s) < last.max(old) {
            return Err(Refused::Rule(Violation::RosterSeqFell, Some(leaf.device)));
        }
        rows::put(tx, LEAF_S, key, &s)?;
        Ok(())
    }

    /// Leaves that are gone begin anew if they come back; what an older version has kept is kept as it is kept now.
    fn forget_leaves(
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        gone: &[Leaf],
    ) -> Result<(), EngineError> {
        for (device, s) in std::mem::take(&mut inbound.row.old_leaf_s) {
            let key = rows::leaf_key(inbound.group, device);
            if tx.get(LEAF_S, &key)?.is_none() {
                rows::put(tx, LEAF_S, key, &s)?;
            }
        }
        for leaf in gone {
            tx.delete(LEAF_S, rows::leaf_key(inbound.group, leaf.device));
        }
        Ok(())
    }

    fn follow_message(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        message: &[u8],
    ) -> Result<(), Refused> {
        let header = self.check_header(tx, inbound, message)?;
        let crypto = self.crypto.clone();
        let mut state = self.take_group(tx, inbound.group)?;
        let opened = state.open(&MlsProvider::new(&crypto, tx), message)?;
        let s = header.aad.roster_seq;
        let (sender, bytes) = match (header.content_type, opened) {
            (ContentType::Application, Opened::Application { sender, bytes }) => (sender, bytes),
            (ContentType::Proposal, Opened::Leave(leave)) => {
                return self.follow_leave(tx, inbound, state, *leave, s);
            }
            _ => return Err(Violation::ForbiddenContent.into()),
        };
        let known = (inbound.row.epoch, s);
        // The tree of an epoch does not change, and neither does the roster up to `s`.
        let is_clean = self.clean_at.get(&inbound.group) == Some(&known);
        let tree = if is_clean { &[] } else { state.leaves() };
        validate::check_application(&self.roster, s, &sender, tree)
            .map_err(|v| Refused::Rule(v, Some(sender.device)))?;
        self.clean_at.insert(inbound.group, known);
        Self::check_leaf(tx, inbound, &sender, s)?;
        let kind =
            history_of(&bytes).ok_or(Refused::Rule(Violation::BadContent, Some(sender.device)))?;
        inbound.history(tx, Some((sender.device, sender.user)), kind)?;
        if std::mem::take(&mut inbound.row.is_candidate) {
            // Somebody speaks in it, for whom it is a group like others: so it is for everybody (REQ-153).
            let group = inbound.group;
            inbound.events.push(Event::Joined { group });
        }
        self.groups.insert(inbound.group, state);
        Ok(())
    }

    /// A member asks to be removed: the next commit made here carries it out (REQ-123, REQ-124).
    fn follow_leave(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        mut state: Group,
        leave: LeaveProposal,
        s: RosterSeq,
    ) -> Result<(), Refused> {
        let leaver = leave.leaver;
        validate::check_leave(&self.roster, s, &leaver, state.leaves(), &state.leavers())
            .map_err(|v| Refused::Rule(v, Some(leaver.device)))?;
        Self::check_leaf(tx, inbound, &leaver, s)?;
        let crypto = self.crypto.clone();
        state.keep_leave(&MlsProvider::new(&crypto, tx), leave)?;
        self.groups.insert(inbound.group, state);
        Ok(())
    }

    fn follow_commit(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        entry: &CommitEntry,
    ) -> Result<(), Refused> {
        let header = self.check_header(tx, inbound, entry.commit.as_slice())?;
        if header.content_type != ContentType::Commit {
            return Err(Violation::BadHeader.into());
        }
        let group = inbound.group;
        let s = header.aad.roster_seq;
        let crypto = self.crypto.clone();
        let provider = MlsProvider::new(&crypto, tx);
        // Ours has lost the race; what it was for is wanted again.
        self.drop_lost(tx, group, inbound.row)?;
        let mut state = self.take_group(tx, group)?;
        let Opened::Commit(change) = state.open(&provider, entry.commit.as_slice())? else {
            return Err(Violation::BadHeader.into());
        };
        let committer = change.committer;
        self.check_change(&state, inbound, entry, s, &change)
            .map_err(|v| Refused::Rule(v, Some(committer.device)))?;
        Self::check_leaf(tx, inbound, &committer, s)?;
        let removes_me = change.removes_me;
        let me = self.identity.device;
        if removes_me && !change.adds.iter().any(|leaf| leaf.device == me) {
            // Whoever took this device out did not mean to let it in anew.
            self.fail_resync(tx, group, &CommandError::NotAMember)?;
        }
        let before = Seen::of(&state);
        remember_parent(tx, group, inbound.row, &state, committer.device)?;
        state.merge(&provider, *change)?;
        let after = Seen::of(&state);
        let who = (committer.device, committer.user);
        let changed = before.changed(&after);
        Self::forget_leaves(tx, inbound, &changed.gone)?;
        if removes_me {
            inbound.row.status = GroupStatus::Removed;
            state.delete(&provider)?;
            self.release_candidates(tx, group)?;
            return self.tell_change(tx, inbound, s, who, &changed);
        }
        self.enter_epoch(tx, inbound, &state, s)?;
        changed.note_warmth(self, inbound.row, &state, who.0);
        self.groups.insert(group, state);
        self.tell_change(tx, inbound, s, who, &changed)
    }

    fn check_change(
        &self,
        state: &Group,
        inbound: &Inbound<'_>,
        entry: &CommitEntry,
        s: RosterSeq,
        change: &StagedChange,
    ) -> Result<(), Violation> {
        if entry.device != change.committer.device {
            return Err(Violation::BadEntrySignature);
        }
        entry
            .verify(inbound.group, inbound.row.epoch, &change.committer.key)
            .map_err(|_| Violation::BadEntrySignature)?;
        validate::check_commit(
            &self.roster,
            &change.view(s, state.leaves(), state.policy()),
        )?;
        match change.next_access_key {
            Some(key) if key != entry.next_access_key => Err(Violation::WrongAccessKey),
            _ => Ok(()),
        }
    }

    /// Gives up what was sent in the epoch that ends and was not met in the log (REQ-089).
    pub(super) fn drop_lost(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &GroupRow,
    ) -> Result<(), EngineError> {
        for (number, outbox) in rows::of_group::<OutboxRow>(tx, OUTBOX, group)? {
            if outbox.epoch <= row.epoch && !outbox.is_left_from(row.epoch) {
                self.drop_outbox(tx, group, number, &outbox)?;
            }
        }
        Ok(())
    }

    /// The record has opened the next epoch.
    fn enter_epoch(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        state: &Group,
        s: RosterSeq,
    ) -> Result<(), EngineError> {
        let group = inbound.group;
        self.drop_lost(tx, group, inbound.row)?;
        for (key, _) in tx.scan(LOG_HASHES, &group.0)? {
            tx.delete(LOG_HASHES, key);
        }
        let row = &mut *inbound.row;
        row.epoch = row.epoch.next();
        row.entry_hash = entry_hash(group, row.epoch, inbound.record.payload.as_slice());
        row.commit_s = s;
        row.name.clone_from(&state.policy().name);
        if row.retention_days != state.policy().retention_days {
            row.retention_days = state.policy().retention_days;
            self.chores.remove(&(group, Chore::Prune));
        }
        let record = inbound.record;
        let start = row.log_cursor().opens(record.record_id(), record.fence);
        self.open_epoch(tx, group, row, start);
        if let Some(link) = &mut self.link {
            link.subs.remove(&group);
        }
        Ok(())
    }

    /// Writes down what a commit has changed, for the user and for the orders that it answers.
    fn tell_change(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        s: RosterSeq,
        who: (DeviceId, UserId),
        changed: &Changed<'_>,
    ) -> Result<(), Refused> {
        let (before, after) = (changed.before, changed.after);
        let mut rotated: Option<(RosterSeq, Vec<UserId>)> = None;
        let (mut removed, mut left) = (Vec::new(), Vec::new());
        for leaf in &changed.gone {
            let order = self.roster.device(leaf.device).and_then(|d| d.revoked);
            match order.filter(|order| *order <= s) {
                Some(order) => {
                    let (last, users) = rotated.get_or_insert_with(|| (order, Vec::new()));
                    *last = order.max(*last);
                    users.push(leaf.user);
                    let key = rows::key(inbound.group, order.0);
                    if let Some(mut row) = rows::load::<OrderRow>(tx, ORDERS, &key)? {
                        row.rotated = true;
                        rows::put(tx, ORDERS, key, &row)?;
                        if who.0 == self.identity.device {
                            self.attest_at.insert((inbound.group, order), self.now_ms);
                        }
                    }
                }
                None if before.leavers.contains(leaf) => left.push(leaf.user),
                None => removed.push(leaf.user),
            }
        }
        // Who is out, or in by another way, has no open question.
        for leaf in changed.gone.iter().chain(&changed.added) {
            self.resyncs_asked.remove(&(inbound.group, leaf.device));
        }
        let added: Vec<_> = changed.added.iter().map(|leaf| leaf.user).collect();
        let changes = after.policy.changes_since(&before.policy);
        let kind = if let Some((order, mut users)) = rotated {
            users.dedup();
            HistoryKind::Rotated { order, users, left }
        } else if !left.is_empty() {
            HistoryKind::Left(left)
        } else if !removed.is_empty() {
            removed.dedup();
            HistoryKind::Removed(removed)
        } else if !added.is_empty() {
            HistoryKind::Added(added)
        } else if !changes.is_empty() {
            HistoryKind::Changed(changes)
        } else {
            HistoryKind::Refreshed
        };
        inbound.history(tx, Some(who), kind)?;
        Ok(())
    }

    fn follow_attestation(
        &mut self,
        tx: &Tx<'_>,
        inbound: &mut Inbound<'_>,
        attestation: &Attestation,
    ) -> Result<(), Refused> {
        let said = &attestation.statement;
        let refused = || Refused::Rule(Violation::BadAttestation, Some(said.device));
        let row = &*inbound.row;
        if said.group != inbound.group
            || said.epoch != row.epoch
            || said.entry_hash != row.entry_hash
            || said.roster_seq < inbound.record.fence
            || !self.is_on_chain(said.roster_seq, said.roster_hash)
        {
            return Err(refused());
        }
        let order = self
            .roster
            .order(said.order_seq)
            .filter(|o| o.entry_hash == said.order_hash)
            .ok_or_else(refused)?
            .clone();
        let state = self.take_group(tx, inbound.group)?;
        let access_key = state.access_key(&self.crypto)?.public();
        let member = state.leaves().iter().find(|l| l.device == said.device);
        let member = *member.ok_or_else(refused)?;
        if attestation.verify(&member.key, &access_key).is_err()
            || !self
                .roster
                .device_admitted_at(member.device, said.roster_seq)
        {
            return Err(refused());
        }
        // What everybody in the epoch can see contradicts it by name.
        let contradicted = state
            .leaves()
            .iter()
            .any(|l| order.devices.contains(&l.device));
        self.groups.insert(inbound.group, state);
        if contradicted {
            inbound.events.push(Event::Alarm(Alarm::FalseAttestation {
                group: inbound.group,
                device: said.device,
                order: said.order_seq,
            }));
            return Ok(());
        }
        let key = rows::key(inbound.group, said.order_seq.0);
        if let Some(mut row) = rows::load::<OrderRow>(tx, ORDERS, &key)?
            && member.user != self.identity.user
        {
            row.seen.insert(member.user);
            rows::put(tx, ORDERS, key, &row)?;
        }
        Ok(())
    }
}

/// The sender's roster head, if the record has one.
pub(super) fn roster_seq_of(body: &RecordBody) -> Option<RosterSeq> {
    let header = |message: &[u8]| Some(PrivateHeader::parse(message).ok()?.aad.roster_seq);
    match body {
        RecordBody::Create { .. } => None,
        RecordBody::Message(message) => header(message.as_slice()),
        RecordBody::Commit(entry) => header(entry.commit.as_slice()),
        RecordBody::Attestation(attestation) => Some(attestation.statement.roster_seq),
        RecordBody::Restart(restart) => Some(restart.statement.roster_seq),
    }
}

fn history_of(content: &[u8]) -> Option<HistoryKind> {
    Some(match content::decode(content).ok()? {
        Content::Text(message) => HistoryKind::Text(message.text),
        Content::Unsupported => HistoryKind::Unsupported,
    })
}
