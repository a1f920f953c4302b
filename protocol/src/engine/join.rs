//! Welcomes: a group is joined only by the rules, on a roster that reaches as far as its last commit (REQ-053, REQ-093).

use std::collections::BTreeMap;

use super::inbound::{roster_seq_of, write_history};
use super::rows::{self, GROUPS, GroupRow, GroupStatus, ORDERS, OrderRow};
use super::state::{State, groups_of};
use super::{Alarm, EngineError, Event, HistoryKind};
use crate::group::validate;
use crate::group::{Group, GroupError, JoinedGroup, MlsProvider, Violation, is_allowed_suite};
use crate::identity::{GroupId, LogSeq, RosterSeq, decode};
use crate::store::Tx;
use crate::wire::aad::PrivateHeader;
use crate::wire::log::{CommitEntry, LogCursor, entry_hash};
use crate::wire::{InboxItem, RecordBody};

impl State {
    pub(super) fn handle_inbox(
        &mut self,
        tx: &Tx<'_>,
        items: &[InboxItem],
        more: bool,
    ) -> Result<(), EngineError> {
        let mut held_up = false;
        for item in items {
            if item.seq <= self.inbox_cursor {
                continue;
            }
            let body = decode::<RecordBody>(item.entry.payload.as_slice());
            let s = body
                .as_ref()
                .ok()
                .and_then(roster_seq_of)
                .unwrap_or_default();
            let needs = s.max(item.entry.fence);
            if needs > self.roster.head().seq {
                if let Some(link) = &mut self.link {
                    link.need_roster = link.need_roster.max(needs);
                }
                held_up = true;
                break;
            }
            if self.is_before_removal(tx, item)? {
                if let Some(link) = &mut self.link {
                    link.inbox_behind = Some((item.group, item.entry.seq));
                }
                held_up = true;
                break;
            }
            let inner = Tx::new(tx);
            match self.follow_welcome(&inner, item, body.ok(), s) {
                Ok((joined, opened)) => {
                    let (group, adder) = (joined.group, joined.adder);
                    let predecessor = group.policy().predecessor;
                    self.groups.insert(item.group, group);
                    let is_refused = match predecessor {
                        Some(p) => self.handle_successor(&inner, item.group, &adder, p, s)?,
                        None => false,
                    };
                    if is_refused {
                        // Somebody else's successor was named first: this one is nothing to anybody.
                        drop(inner);
                        self.groups.remove(&item.group);
                        self.set_inbox_cursor(tx, item.seq)?;
                        continue;
                    }
                    tx.absorb(inner.into_batch()?);
                    let who = None;
                    let event = write_history(tx, item.group, &item.entry, who, opened)?;
                    if !self.is_candidate(tx, item.group)? {
                        self.event(Event::Joined { group: item.group });
                    }
                    self.event(event);
                    self.dirty.insert(item.group);
                }
                Err(GroupError::Violation(violation)) => {
                    drop(inner);
                    self.alarm(Alarm::Refused {
                        group: item.group,
                        seq: item.entry.seq,
                        device: None,
                        violation,
                    });
                    self.ask_again(tx, item.group)?;
                }
                Err(error) => return Err(error.into()),
            }
            self.set_inbox_cursor(tx, item.seq)?;
        }
        if let Some(link) = &mut self.link {
            // One more question tells the relay what has been dealt with.
            link.inbox_waiting |= held_up || more || !items.is_empty();
        }
        if items.is_empty() {
            self.dirty.extend(self.unsettled.iter().copied());
            self.dirty.extend(groups_of(tx, rows::RESYNCS)?);
        }
        Ok(())
    }

    fn is_candidate(&self, tx: &Tx<'_>, group: GroupId) -> Result<bool, EngineError> {
        let row: Option<GroupRow> = rows::load(tx, GROUPS, &group.0)?;
        Ok(row.is_some_and(|row| row.is_candidate))
    }

    /// Whether the log must be followed first: a member that was removed and added again learns of both in order.
    fn is_before_removal(&self, tx: &Tx<'_>, item: &InboxItem) -> Result<bool, EngineError> {
        let held: Option<GroupRow> = rows::load(tx, GROUPS, &item.group.0)?;
        Ok(held.is_some_and(|row| is_behind(&row, item.entry.seq)))
    }

    /// Lets the inbox be read again once the log that it waits for has been followed.
    pub(super) fn release_inbox(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        if let Some((group, seq)) = link.inbox_behind {
            let held: Option<GroupRow> = rows::load(tx, GROUPS, &group.0)?;
            if !held.is_some_and(|row| is_behind(&row, seq)) {
                link.inbox_behind = None;
            }
        }
        Ok(())
    }

    /// Opens a Welcome and checks all that it leads into; drop the transaction to refuse it.
    fn follow_welcome(
        &mut self,
        tx: &Tx<'_>,
        item: &InboxItem,
        body: Option<RecordBody>,
        s: RosterSeq,
    ) -> Result<(JoinedGroup, HistoryKind), GroupError> {
        let Some(RecordBody::Commit(entry)) = body else {
            return Err(Violation::MalformedRecord.into());
        };
        let header =
            PrivateHeader::parse(entry.commit.as_slice()).map_err(|_| Violation::BadHeader)?;
        if header.group != item.group || header.epoch != item.entry.epoch {
            return Err(Violation::BadHeader.into());
        }
        if s < item.entry.fence {
            return Err(Violation::BehindFence.into());
        }
        if !self.is_on_chain(s, header.aad.roster_hash) {
            return Err(Violation::RosterFork.into());
        }
        let held: Option<GroupRow> = rows::load(tx, GROUPS, &item.group.0)
            .map_err(|_| GroupError::Mls("read a group's row"))?;
        let is_member = held
            .as_ref()
            .is_some_and(|row| row.status != GroupStatus::Removed);
        let held = match held {
            Some(row) => self
                .last_held(tx, item.group, row)
                .map_err(|_| GroupError::Mls("read what was held of a group"))?,
            None => None,
        };
        if is_member && held.is_none() {
            return Err(Violation::WelcomeUnasked.into());
        }
        let crypto = self.crypto.clone();
        let joined = Group::join(&MlsProvider::new(&crypto, tx), item.welcome.as_slice())?;
        let group = &joined.group;
        let me = self.identity.device;
        let leads_here = group.id() == Some(item.group)
            && group.epoch() == item.entry.epoch.next()
            && is_allowed_suite(group.suite())
            && group.leaves().iter().any(|l| l.device == me);
        if !leads_here {
            return Err(Violation::BadHeader.into());
        }
        self.check_entry(item.group, item.entry.epoch, &entry, &joined.adder)?;
        if group.access_key(&crypto)?.public() != entry.next_access_key {
            return Err(Violation::WrongAccessKey.into());
        }
        let me = self.identity.user;
        validate::check_joined_tree(&self.roster, s, &joined.adder, me, group.leaves())?;
        if let Some(held) = &held {
            self.check_resync(held, &joined)?;
            check_same_log(&held.row, item)?;
        }
        self.write_joined(tx, item, group, joined.added, s)
            .map_err(|_| GroupError::Mls("write a group's row"))?;
        let opened = match &held {
            Some(held) => self
                .finish_resync(tx, item, held, group.policy())
                .map_err(|_| GroupError::Mls("end a resync"))?,
            None => HistoryKind::Opened,
        };
        Ok((joined, opened))
    }

    fn check_entry(
        &self,
        group: GroupId,
        epoch: crate::identity::Epoch,
        entry: &CommitEntry,
        adder: &validate::Leaf,
    ) -> Result<(), Violation> {
        if entry.device != adder.device {
            return Err(Violation::BadEntrySignature);
        }
        entry
            .verify(group, epoch, &adder.key)
            .map_err(|_| Violation::BadEntrySignature)
    }

    fn write_joined(
        &mut self,
        tx: &Tx<'_>,
        item: &InboxItem,
        group: &Group,
        added: usize,
        s: RosterSeq,
    ) -> Result<(), EngineError> {
        let epoch = group.epoch();
        let mut row = GroupRow {
            name: group.policy().name.clone(),
            retention_days: group.policy().retention_days,
            warm_at_ms: self.first_warming_ms(group, added),
            suite: group.suite(),
            status: GroupStatus::Active,
            cursor: item.entry.seq,
            epoch,
            entry_hash: entry_hash(item.group, epoch, item.entry.payload.as_slice()),
            log_count: 0,
            log_hash: item.log_hash,
            fence: item.entry.fence,
            commit_s: s,
            old_leaf_s: BTreeMap::new(),
            floor_seq: LogSeq(0),
            floor_fence: RosterSeq(0),
            ends_at: None,
            refresh_at_ms: self.next_refresh_ms(group.leaves().len()),
            predecessor: group.policy().predecessor.map(|p| p.group),
            is_candidate: false,
            resynced_ms: 0,
        };
        for space in [rows::LOG_HASHES, rows::LEAF_S] {
            for (key, _) in tx.scan(space, &item.group.0)? {
                tx.delete(space, key);
            }
        }
        let start = cursor_of(item);
        self.open_epoch(tx, item.group, &mut row, start);
        rows::put(tx, GROUPS, item.group.0, &row)?;
        // Orders since that commit are answered for here too.
        for order in self.roster.orders().iter().filter(|order| order.seq > s) {
            let key = rows::key(item.group, order.seq.0);
            let owed = OrderRow {
                existed: item.entry.fence < order.seq,
                ..OrderRow::default()
            };
            rows::put(tx, ORDERS, key, &owed)?;
        }
        Ok(())
    }
}

/// The cursor at the commit that a Welcome came with: it goes on from the hash that the relay names (REQ-390).
fn cursor_of(item: &InboxItem) -> LogCursor {
    let before = LogCursor {
        count: 0,
        hash: item.log_hash,
    };
    before.opens(item.entry.record_id(), item.entry.fence)
}

/// A device that has read the log up to a Welcome's commit has a hash of its own there (REQ-390).
fn check_same_log(held: &GroupRow, item: &InboxItem) -> Result<(), Violation> {
    let differs = match held.cursor {
        at if at == item.entry.seq => held.log_hash != cursor_of(item).hash,
        at if at.next() == item.entry.seq => held.log_hash != item.log_hash,
        // What lies between was never shown to this device.
        _ => false,
    };
    if differs {
        return Err(Violation::LogFork);
    }
    Ok(())
}

/// Whether this device is still to learn what became of it before the record at `seq`.
fn is_behind(row: &GroupRow, seq: LogSeq) -> bool {
    row.status == GroupStatus::Active && row.cursor < seq
}
