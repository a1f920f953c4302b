//! What leaves this device: duties first, then what the user wants, each written down before it is sent.

use std::collections::BTreeSet;

use super::inbound::roster_seq_of;
use super::link::{Asked, CREDIT, is_busy};
use super::rows::{
    self, Fault, GROUPS, GroupRow, GroupStatus, INTENTS, Intent, IntentRow, ORDERS, OUTBOX,
    OrderRow, OutboxKind, OutboxRow,
};
use super::state::{Chore, State};
use super::{CommandError, EngineError, Event, IntentId};
use crate::group::{Changes, Group, GroupPolicy, MlsProvider};
use crate::identity::{Epoch, GroupId, Hash, LogSeq, RosterSeq, SigningKey, decode};
use crate::store::Tx;
use crate::wire::aad::AuthenticatedData;
use crate::wire::log::{CommitEntry, LogCursor, entry_hash};
use crate::wire::{AccessProof, Purpose, RecordBody, Refusal, Request, Submission, WelcomeFor};

/// Messages of one group that may be on their way at once.
const WINDOW: usize = 16;

/// A group while it is worked on.
pub(super) struct Work<'a> {
    pub(super) id: GroupId,
    pub(super) row: &'a mut GroupRow,
    pub(super) group: &'a mut Group,
    /// Records in the outbox that the relay has not acknowledged.
    pub(super) open: usize,
}
impl State {
    /// Creates a group here; the relay hears of it when the connection allows.
    pub(super) fn open_group(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        group_id: GroupId,
        policy: GroupPolicy,
    ) -> Result<(), EngineError> {
        let crypto = self.crypto.clone();
        let identity = self.identity.clone();
        let suite = self.roster.suite().unwrap_or(crate::group::SUITE_HYBRID);
        let provider = MlsProvider::new(&crypto, tx);
        let group = Group::create(&provider, &identity.me(), group_id, suite, &policy)?;
        let body = RecordBody::Create {
            access_key: group.access_key(&crypto)?.public(),
        };
        let outbox = OutboxRow::new(OutboxKind::Create, Some(id.0), Epoch(0), &body);
        let row = GroupRow {
            name: policy.name,
            retention_days: policy.retention_days,
            warm_at_ms: 0,
            suite,
            status: GroupStatus::Creating,
            cursor: LogSeq(0),
            epoch: Epoch(0),
            entry_hash: entry_hash(group_id, Epoch(0), &outbox.payload),
            log_count: 0,
            log_hash: Hash([0; 32]),
            fence: RosterSeq(0),
            commit_s: self.roster.head().seq,
            old_leaf_s: std::collections::BTreeMap::new(),
            floor_seq: LogSeq(0),
            floor_fence: RosterSeq(0),
            ends_at: None,
            refresh_at_ms: self.next_refresh_ms(1),
            is_candidate: policy.predecessor.is_some(),
            resynced_ms: 0,
            predecessor: policy.predecessor.map(|p| p.group),
        };
        rows::put(tx, GROUPS, group_id.0, &row)?;
        self.groups.insert(group_id, group);
        self.put_outbox(tx, group_id, &outbox)
    }

    pub(super) fn put_outbox(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &OutboxRow,
    ) -> Result<(), EngineError> {
        let number = rows::next_number(tx, "outbox")?;
        rows::put(tx, OUTBOX, rows::key(group, number), row)
    }

    /// Does whatever can be done for one group now.
    pub(super) fn pump_group(&mut self, tx: &Tx<'_>, id: GroupId) -> Result<(), EngineError> {
        let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &id.0)? else {
            return Ok(());
        };
        self.prune_history(tx, id, &row)?;
        let asks = self.send_resync(tx, id, &mut row)?;
        match &row.status {
            GroupStatus::Halted(Fault {
                confirmed: true, ..
            })
            | GroupStatus::Stopped(_)
                if self.roster.closed_at(id).is_some() =>
            {
                self.unsettled.remove(&id);
                return self.fail_intents(tx, id, &CommandError::GroupClosed);
            }
            // What is wanted waits for the answer.
            GroupStatus::Stopped(_) | GroupStatus::Removed if asks => {
                self.unsettled.insert(id);
                return Ok(());
            }
            // The same; but as long as nobody has gone on from what halted the group, nobody can answer.
            GroupStatus::Halted(fault) if asks && fault.confirmed => {
                self.unsettled.insert(id);
                return Ok(());
            }
            GroupStatus::Halted(fault) if fault.stopped().is_none() => {
                return self.pump_halted(tx, id, &mut row);
            }
            GroupStatus::Continued(_) if row.has_lost() => {
                return self.forget_group(tx, id);
            }
            GroupStatus::Continued(successor) => {
                return self.pump_continued(tx, id, *successor);
            }
            _ => {}
        }
        if let Some(error) = row.closed() {
            self.unsettled.remove(&id);
            self.duties.remove(&id);
            self.chores.remove(&(id, Chore::OwnDevices));
            self.chores.remove(&(id, Chore::Warm));
            return self.fail_intents(tx, id, &error);
        }
        self.unsettled.insert(id);
        if self.online().is_none() {
            return Ok(());
        }
        if row.status == GroupStatus::Creating {
            return self.send_outbox(tx, id, &row, None).map(drop);
        }
        let mut group = self.take_group(tx, id)?;
        let work = Work {
            id,
            row: &mut row,
            group: &mut group,
            open: 0,
        };
        let settled = self.work_on(tx, work)?;
        // Whoever fills a successor goes on with its predecessor.
        if row.is_candidate {
            self.dirty.extend(row.predecessor);
        }
        if row.status == GroupStatus::Removed {
            group.delete(&MlsProvider::new(&self.crypto, tx))?;
        } else {
            self.groups.insert(id, group);
        }
        if settled {
            self.unsettled.remove(&id);
        }
        Ok(())
    }

    /// Returns whether nothing is left to do or to wait for.
    fn work_on(&mut self, tx: &Tx<'_>, mut work: Work<'_>) -> Result<bool, EngineError> {
        let access_key = work.group.access_key(&self.crypto)?;
        if !self.is_caught_up(&work, &access_key) {
            return Ok(false);
        }
        if self.roster.closed_at(work.id).is_some() {
            self.duties.remove(&work.id);
            return self.wind_up(tx, &work, &access_key);
        }
        let outbox = self.send_outbox(tx, work.id, work.row, Some(&*access_key))?;
        if outbox.iter().any(|(_, o)| o.kind == OutboxKind::Commit) {
            return Ok(false);
        }
        let head = self.roster.head().seq;
        if self
            .link
            .as_ref()
            .is_none_or(|l| l.need_roster.max(l.relay_head) > head)
        {
            return Ok(false);
        }
        let open = || outbox.iter().filter(|(_, o)| !o.acked).map(|(_, o)| o);
        work.open = open().count();
        // An acknowledgement and the record itself come on streams of their own: until both are here, its sender cannot
        // read what it has sent.
        let unread = outbox.iter().any(|(_, o)| o.acked);
        if work.group.is_leaving() {
            return self.await_removal(tx, &mut work);
        }
        if self.must_rotate(tx, &mut work)? {
            return Ok(false);
        }
        if self.answer_resyncs(tx, &mut work)? {
            return Ok(false);
        }
        if self.pursue_restart(tx, &mut work)? {
            return Ok(false);
        }
        let is_held = |o: &OutboxRow| {
            let link = self.link.as_ref();
            link.is_some_and(|link| link.refused.contains(&o.record_id))
        };
        let window =
            if open().any(|o| is_older(o, head) || is_held(o)) || self.stale_block().is_some() {
                // What the relay has not taken yet goes first (REQ-322). And `s` never falls per leaf: what is undecided
                // could still enter the log after what is made now.
                0
            } else {
                WINDOW.saturating_sub(work.open)
            };
        let idle = self.pursue_intents(tx, &mut work, window)?;
        if work.row.status != GroupStatus::Active || work.group.is_leaving() {
            return Ok(false);
        }
        let attested = self.attest(tx, &mut work)?;
        self.give_receipts(tx, &work)?;
        let settled = idle && attested && self.add_own_devices(tx, &mut work)?;
        if settled && work.open == 0 {
            self.refresh(tx, &mut work)?;
        }
        if settled && work.open == 0 {
            self.warm(tx, &mut work)?;
        }
        Ok(settled && work.open == 0 && !unread)
    }

    /// Whether the cursor has reached the end of the log; asks for what is missing.
    fn is_caught_up(&mut self, work: &Work<'_>, access_key: &SigningKey) -> bool {
        let (id, row) = (work.id, &*work.row);
        let head = self.roster.head().seq;
        // Records that need a newer roster come again when it is here: asking before that would be asking for ever.
        let Some(link) = self.link.as_mut().filter(|l| l.need_roster <= head) else {
            return false;
        };
        let sub = link.subs.get_mut(&id).filter(|sub| sub.epoch == row.epoch);
        let Some(sub) = sub else {
            if link.may_catch_up(id) {
                self.subscribe(id, row, access_key);
            }
            return false;
        };
        let at_end = sub
            .ends
            .is_some_and(|(epoch, last)| epoch == row.epoch && row.cursor >= last);
        if at_end {
            sub.deadline = u64::MAX;
        }
        // A page has ended before the log did, or the credit is running out.
        if !sub.asked && ((sub.got_records && !at_end) || sub.credit < CREDIT / 2) {
            self.subscribe(id, row, access_key);
        }
        at_end
    }

    /// Sends what is in the outbox and was not sent on this connection; returns all that is in it.
    pub(super) fn send_outbox(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &GroupRow,
        access_key: Option<&SigningKey>,
    ) -> Result<Vec<(u64, OutboxRow)>, EngineError> {
        let rows = rows::of_group::<OutboxRow>(tx, OUTBOX, id)?;
        for (_, outbox) in &rows {
            self.send_record(id, row, access_key, outbox);
        }
        Ok(rows)
    }

    fn send_record(
        &mut self,
        id: GroupId,
        row: &GroupRow,
        access_key: Option<&SigningKey>,
        outbox: &OutboxRow,
    ) {
        let Some(link) = &mut self.link else { return };
        let is_due = outbox.epoch == row.epoch || outbox.is_left_from(row.epoch);
        if outbox.acked || !is_due || !link.sent.insert(outbox.record_id) {
            return;
        }
        let record = outbox.record_id;
        let payload = outbox.payload.clone().into();
        let request = match (outbox.kind, access_key) {
            (OutboxKind::Create, _) => Request::CreateGroup { group: id, payload },
            (_, Some(key)) => Request::Submit(Submission {
                group: id,
                epoch: outbox.epoch,
                payload,
                welcomes: outbox
                    .welcome
                    .iter()
                    .map(|(devices, welcome)| WelcomeFor {
                        devices: devices.clone(),
                        welcome: welcome.to_vec().into(),
                    })
                    .collect(),
                proof: AccessProof::sign(
                    key,
                    &link.binding,
                    id,
                    outbox.epoch,
                    row.entry_hash,
                    Purpose::Append,
                ),
            }),
            (_, None) => return,
        };
        self.ask(Asked::Submit { group: id, record }, request);
    }

    pub(super) fn aad(&self, row: &GroupRow) -> Vec<u8> {
        let head = self.roster.head();
        AuthenticatedData::new(head.seq, head.hash, row.log_cursor()).to_bytes()
    }

    /// Makes a commit, writes it down, sends it. Nothing is merged before it is met in the log (REQ-088).
    pub(super) fn commit(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        intent: Option<u64>,
        mut changes: Changes,
    ) -> Result<(), EngineError> {
        self.settle_policy(work, &mut changes)?;
        let crypto = self.crypto.clone();
        let identity = self.identity.clone();
        let provider = MlsProvider::new(&crypto, tx);
        let added: Vec<_> = changes.adds.iter().map(|a| a.credential.device).collect();
        let aad = self.aad(work.row);
        let out = work.group.commit(&provider, &identity.me(), aad, changes)?;
        let entry = CommitEntry::sign(
            work.id,
            work.row.epoch,
            out.commit,
            out.next_access_key,
            &identity.mls,
        );
        let body = RecordBody::Commit(entry);
        let row = OutboxRow {
            welcome: out.welcome.map(|w| (added, serde_bytes::ByteBuf::from(w))),
            ..OutboxRow::new(OutboxKind::Commit, intent, work.row.epoch, &body)
        };
        self.submit(tx, work, &row)
    }

    pub(super) fn submit(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        row: &OutboxRow,
    ) -> Result<(), EngineError> {
        self.put_outbox(tx, work.id, row)?;
        let key = work.group.access_key(&self.crypto)?;
        work.open += 1;
        self.send_record(work.id, work.row, Some(&key), row);
        Ok(())
    }

    pub(super) fn set_in_flight(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        in_flight: bool,
    ) -> Result<(), EngineError> {
        let key = rows::key(group, number);
        if let Some(mut row) = rows::load::<IntentRow>(tx, INTENTS, &key)? {
            row.in_flight = in_flight;
            rows::put(tx, INTENTS, key, &row)?;
        }
        Ok(())
    }

    /// The relay has the record: the outbox is marked, and nothing else (REQ-088).
    pub(super) fn handle_appended(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        record: Hash,
        seq: LogSeq,
        fence: RosterSeq,
    ) -> Result<(), EngineError> {
        self.dirty.insert(group);
        let Some((number, mut outbox)) = rows::find_outbox(tx, group, || record)? else {
            return Ok(());
        };
        if outbox.kind == OutboxKind::Create {
            return self.handle_created(tx, group, number, &outbox, seq, fence);
        }
        self.tell_appended(tx, &outbox, group, seq)?;
        outbox.acked = true;
        if self.settle_left(tx, group, number, &outbox)? {
            return Ok(());
        }
        if let Some(link) = &mut self.link {
            link.sent.remove(&record);
        }
        rows::put(tx, OUTBOX, rows::key(group, number), &outbox)?;
        Ok(())
    }

    /// What was on its way when this device was let in anew is in the log, among what it missed (REQ-158); returns whether it
    /// was that.
    fn settle_left(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        outbox: &OutboxRow,
    ) -> Result<bool, EngineError> {
        let row = rows::load::<GroupRow>(tx, GROUPS, &group.0)?;
        let is_left = row.is_some_and(|row| outbox.is_left_from(row.epoch) && row.resynced_ms > 0);
        if is_left {
            tx.delete(OUTBOX, rows::key(group, number));
            if let Some(intent) = outbox.intent {
                tx.delete(INTENTS, rows::key(group, intent));
            }
        }
        Ok(is_left)
    }

    /// Tells the user, once: the answer and the record itself come in either order.
    pub(super) fn tell_appended(
        &mut self,
        tx: &Tx<'_>,
        outbox: &OutboxRow,
        group: GroupId,
        seq: LogSeq,
    ) -> Result<(), EngineError> {
        if let Some(id) = outbox.intent.filter(|_| !outbox.acked).map(IntentId) {
            self.event(Event::Appended { id, group, seq });
            self.note_told(tx, group, outbox)?;
        }
        Ok(())
    }

    fn handle_created(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        outbox: &OutboxRow,
        seq: LogSeq,
        fence: RosterSeq,
    ) -> Result<(), EngineError> {
        tx.delete(OUTBOX, rows::key(group, number));
        let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &group.0)? else {
            return Ok(());
        };
        row.status = GroupStatus::Active;
        row.cursor = seq;
        row.fence = fence;
        let start = LogCursor::created(row.entry_hash, fence);
        self.open_epoch(tx, group, &mut row, start);
        rows::put(tx, GROUPS, group.0, &row)?;
        if let Some(id) = outbox.intent.map(IntentId) {
            self.event(Event::GroupCreated { id, group });
        }
        Ok(())
    }

    /// Puts the cursor at the opening entry of the epoch that `row` names.
    pub(super) fn open_epoch(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &mut GroupRow,
        start: LogCursor,
    ) {
        row.set_log_cursor(start);
        tx.put(rows::LOG_HASHES, rows::key(group, 0), row.log_hash.0);
        rows::remember_epoch(tx, group, row);
    }

    pub(super) fn handle_submit_refused(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        record: Hash,
        refusal: Refusal,
    ) -> Result<(), EngineError> {
        self.dirty.insert(group);
        let Some((number, outbox)) = rows::find_outbox(tx, group, || record)? else {
            return Ok(());
        };
        let row = rows::load::<GroupRow>(tx, GROUPS, &group.0)?;
        if !is_busy(&refusal) && row.is_some_and(|row| outbox.is_left_from(row.epoch)) {
            // Not in the log, and its epoch is over.
            return self.drop_outbox(tx, group, number, &outbox);
        }
        match refusal {
            Refusal::Storage => {
                // Kept, and tried again: the relay may find room.
                if let Some(link) = &mut self.link {
                    link.refused.insert(record);
                }
                return self.wait_for_room(tx, group);
            }
            Refusal::RateLimited { retry_after_ms } => {
                // Kept too: the same bytes in the same order, when the relay takes more (REQ-322).
                if let Some(link) = &mut self.link {
                    link.refused.insert(record);
                }
                self.unsettled.insert(group);
                self.retry_after(retry_after_ms);
                return Ok(());
            }
            Refusal::RosterBehind { head_seq, .. } => {
                if let Some(link) = &mut self.link {
                    link.relay_head = link.relay_head.max(head_seq);
                }
            }
            refusal if outbox.kind == OutboxKind::Restart => {
                self.drop_outbox(tx, group, number, &outbox)?;
                return self.handle_restart_refused(tx, group, &refusal);
            }
            // Its entry is on the way; a relay that has none has lied.
            Refusal::GroupClosed if self.roster.closed_at(group).is_none() => {
                let next = self.roster.head().seq.next();
                if let Some(link) = &mut self.link {
                    link.need_roster = link.need_roster.max(next);
                }
            }
            Refusal::WrongEpoch { .. } | Refusal::GroupRestarted { .. } => {
                // The log says whether the record is in it: when its epoch ends without it, it is wanted again. On the
                // relay's word alone it would be made, and read, twice.
                if let Some(link) = &mut self.link {
                    link.subs.remove(&group);
                }
                return Ok(());
            }
            Refusal::RosterFork => {
                let seq = self.roster.head().seq;
                self.distrust(super::Alarm::RosterFork { seq });
            }
            refusal if outbox.kind == OutboxKind::Create => {
                tx.delete(OUTBOX, rows::key(group, number));
                return self.stop_group(tx, group, &refusal.to_string());
            }
            Refusal::AccessDenied | Refusal::UnknownGroup => {
                self.drop_outbox(tx, group, number, &outbox)?;
                return self.stop_group(tx, group, &refusal.to_string());
            }
            refusal => {
                // What was given up meanwhile has had its answer.
                let intent = outbox
                    .intent
                    .map(|number| (number, rows::key(group, number)));
                if let Some((number, key)) = intent
                    && tx.get(INTENTS, &key)?.is_some()
                {
                    self.fail_intent(tx, group, number, CommandError::Refused(refusal));
                }
            }
        }
        self.drop_outbox(tx, group, number, &outbox)
    }

    /// The record is definitely not in the log: what it was for is wanted again (REQ-089).
    pub(super) fn drop_outbox(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        outbox: &OutboxRow,
    ) -> Result<(), EngineError> {
        tx.delete(OUTBOX, rows::key(group, number));
        if let Some(intent) = outbox.intent {
            self.set_in_flight(tx, group, intent, false)?;
        }
        match outbox.kind {
            OutboxKind::Commit => {
                let mut state = self.take_group(tx, group)?;
                if state.has_pending_commit() {
                    let crypto = self.crypto.clone();
                    state.drop_pending_commit(&MlsProvider::new(&crypto, tx))?;
                }
                self.groups.insert(group, state);
            }
            OutboxKind::Attestation(order) => {
                let key = rows::key(group, order.0);
                if let Some(mut row) = rows::load::<OrderRow>(tx, ORDERS, &key)? {
                    row.attested = false;
                    rows::put(tx, ORDERS, key, &row)?;
                }
            }
            OutboxKind::Restart => self.unsubmit_restart(tx, group)?,
            OutboxKind::Leave => {
                let crypto = self.crypto.clone();
                let mut state = self.take_group(tx, group)?;
                state.drop_own_leave(&MlsProvider::new(&crypto, tx))?;
                self.groups.insert(group, state);
            }
            OutboxKind::Create | OutboxKind::Message => {}
        }
        Ok(())
    }

    /// A closed group takes nothing new; what was on its way gets its answer, and may be in the log already (REQ-102).
    fn wind_up(
        &mut self,
        tx: &Tx<'_>,
        work: &Work<'_>,
        access_key: &SigningKey,
    ) -> Result<bool, EngineError> {
        let outbox = rows::of_group::<OutboxRow>(tx, OUTBOX, work.id)?;
        let on_its_way: BTreeSet<u64> = outbox.iter().filter_map(|(_, o)| o.intent).collect();
        for (number, row) in rows::of_group::<IntentRow>(tx, INTENTS, work.id)? {
            match row.intent {
                Intent::Leave { told: true } => tx.delete(INTENTS, rows::key(work.id, number)),
                _ if row.in_flight || on_its_way.contains(&number) => {}
                _ => self.fail_intent(tx, work.id, number, CommandError::GroupClosed),
            }
        }
        self.fail_resync(tx, work.id, &CommandError::GroupClosed)?;
        if self.restart_row(tx, work.id)?.is_some_and(|r| !r.submitted) {
            self.fail_restart(tx, work.id, &CommandError::GroupClosed)?;
        }
        let outbox = self.send_outbox(tx, work.id, work.row, Some(access_key))?;
        Ok(outbox.is_empty())
    }

    /// The messages that the relay has acknowledged and the log has not brought yet.
    fn said(&self, tx: &Tx<'_>, group: GroupId) -> Result<BTreeSet<u64>, EngineError> {
        let rows = rows::of_group::<OutboxRow>(tx, OUTBOX, group)?;
        let said = rows
            .into_iter()
            .filter(|(_, row)| row.acked && row.kind == OutboxKind::Message);
        Ok(said.filter_map(|(_, row)| row.intent).collect())
    }

    /// Nothing that is wanted of this group can be done any more.
    pub(super) fn fail_intents(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        error: &CommandError,
    ) -> Result<(), EngineError> {
        let said = self.said(tx, group)?;
        for (number, row) in rows::of_group::<IntentRow>(tx, INTENTS, group)? {
            match (row.intent, error) {
                (Intent::Leave { told }, CommandError::NotAMember) => {
                    tx.delete(INTENTS, rows::key(group, number));
                    self.finish_leave(number, told);
                }
                (Intent::Leave { told: true }, _) => tx.delete(INTENTS, rows::key(group, number)),
                // The user was told that it is in the log.
                _ if said.contains(&number) => tx.delete(INTENTS, rows::key(group, number)),
                _ => self.fail_intent(tx, group, number, error.clone()),
            }
        }
        for (number, _) in rows::of_group::<OutboxRow>(tx, OUTBOX, group)? {
            tx.delete(OUTBOX, rows::key(group, number));
        }
        self.fail_restart(tx, group, error)?;
        self.fail_resync(tx, group, error)
    }
}

/// Whether a message was made on an older roster than `head`.
fn is_older(outbox: &OutboxRow, head: RosterSeq) -> bool {
    outbox.kind == OutboxKind::Message
        && decode(&outbox.payload)
            .ok()
            .and_then(|body| roster_seq_of(&body))
            .is_some_and(|s| s < head)
}
