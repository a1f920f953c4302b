//! What other nodes of the same relay have written: this node takes it over and tells its connections (REQ-303).
//!
//! It reads the store and writes nothing to it. What it must never do is decide: another node has.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{DeviceId, Epoch, GroupId, LogSeq, OrgId, RosterSeq};
use mortise_protocol::roster::Applied;
use mortise_protocol::store::{Reader as _, Space, Store, StoreError, Tx};
use mortise_protocol::wire::{LogRecord, Push, limits};

use super::connections::Subscription;
use super::layout::{
    self, CHECKPOINTS, EPOCHS, EpochRecord, GROUPS, GroupRecord, INBOX, INBOX_NEXT,
    InboxNextRecord, LOG, RESYNCS, ROSTER, SLOTS, of_device, of_group, of_org, of_resync,
};
use super::turn::Turn;
use super::{CloseReason, ConnId, Core, StreamId};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

/// Bytes of an organisation's or a group's id.
const ID_BYTES: usize = 32;
/// Entries that are read at a time.
pub(super) const PAGE: usize = 256;
/// Records that are read at a time; each may be as large as a commit.
const RECORDS: u64 = 16;
/// Bytes that one turn pushes of a log; the rest is for the next turn.
const MAX_FOLLOWED_BYTES: usize = 4 * limits::MAX_PAGE_BYTES;

/// Where there is something new in the store. It is a hint: it may be late, come twice, or be about nothing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, TlsSerialize, TlsDeserialize, TlsSize,
)]
#[repr(u8)]
pub enum Moved {
    /// An organisation's roster has this entry.
    Roster(OrgId, RosterSeq),
    /// A group's log has this record.
    Log(OrgId, GroupId, LogSeq),
    /// A Welcome waits for a device.
    Inbox(OrgId, DeviceId),
    /// A slot of the directory key waits for a device.
    Slots(OrgId, DeviceId),
    /// An owner's or admin's device has made a checkpoint.
    Checkpoint(OrgId, DeviceId),
    /// A device has asked to be let into a group anew.
    Resync(OrgId, GroupId, DeviceId),
}

impl Moved {
    /// Whose it is.
    #[must_use]
    pub fn org(&self) -> OrgId {
        match self {
            Self::Roster(org, _)
            | Self::Log(org, _, _)
            | Self::Inbox(org, _)
            | Self::Slots(org, _)
            | Self::Checkpoint(org, _)
            | Self::Resync(org, _, _) => *org,
        }
    }

    /// What a row that was written in an organisation is to others, if anything.
    ///
    /// Of many rows of one log the last is enough: the caller keeps the greatest of each.
    #[must_use]
    pub fn of_row(org: OrgId, space: Space, key: &[u8]) -> Option<Self> {
        let number = || key.last_chunk().map(|tail| u64::from_be_bytes(*tail));
        let group = || key.first_chunk().copied().map(GroupId);
        let device_at = |at: usize| {
            let id = key.get(at..)?.first_chunk().copied();
            id.map(DeviceId)
        };
        match space {
            ROSTER => Some(Self::Roster(org, RosterSeq(number()?))),
            LOG => Some(Self::Log(org, group()?, LogSeq(number()?))),
            INBOX => Some(Self::Inbox(org, device_at(ID_BYTES)?)),
            SLOTS => Some(Self::Slots(org, device_at(ID_BYTES)?)),
            CHECKPOINTS => Some(Self::Checkpoint(org, device_at(ID_BYTES)?)),
            RESYNCS => Some(Self::Resync(org, group()?, device_at(ID_BYTES)?)),
            _ => None,
        }
    }
}

impl Turn<'_> {
    /// Takes over what another node has written.
    pub(super) fn follow(&mut self, moved: &Moved) -> Result<(), StoreError> {
        match *moved {
            Moved::Roster(org, _) => self.follow_roster(org),
            Moved::Log(_, group, _) => self.follow_log(group),
            Moved::Inbox(org, device) => {
                self.push_to_device(org, device, &Push::InboxWaiting);
                Ok(())
            }
            Moved::Slots(org, device) => {
                self.push_to_device(org, device, &Push::SlotsWaiting);
                Ok(())
            }
            Moved::Checkpoint(org, device) => self.follow_checkpoint(org, device),
            Moved::Resync(_, group, device) => self.follow_resync(group, device),
        }
    }

    /// Applies every entry that this node has not seen, by the one function that validates; removed devices are
    /// disconnected and everybody is told, as on the node that took the entry (REQ-300).
    fn follow_roster(&mut self, org: OrgId) -> Result<(), StoreError> {
        let told = self.rosters.told(org);
        loop {
            let next = self.rosters.expect(org).head().seq.next();
            let from = of_org(org, next.0);
            let page = self.tx.scan_from(ROSTER, &org.0, &from, PAGE)?;
            for (_, row) in &page {
                let entry = layout::read_bytes(row)?;
                let applied = self.rosters.apply(org, entry);
                let applied = applied.map_err(|_| StoreError::Corrupt {
                    reason: "a roster entry that another node has stored does not validate",
                })?;
                let head = self.rosters.expect(org).head().seq;
                if head > told {
                    self.follow_entry(org, entry, &applied)?;
                }
            }
            if page.len() < PAGE {
                break;
            }
        }
        self.rosters.drop_empty(org);
        Ok(())
    }

    fn follow_entry(
        &mut self,
        org: OrgId,
        entry: &[u8],
        applied: &Applied,
    ) -> Result<(), StoreError> {
        let devices = applied.order.iter().flat_map(|order| &order.devices);
        for &device in devices {
            self.disconnect(org, device);
        }
        self.announce(org, entry, applied)
    }

    /// Closes every connection of a device that an order names (REQ-062); how many there were.
    pub(super) fn disconnect(&mut self, org: OrgId, device: DeviceId) -> u32 {
        let mut closed: u32 = 0;
        let record = self
            .rosters
            .at(org)
            .and_then(|roster| roster.device(device));
        let key = record.map(|record| record.transport_key);
        for conn in key.map_or_else(Vec::new, |key| self.connections.of_key(org, key)) {
            self.connections.remove(conn);
            self.outbox.close(conn, CloseReason::Removed);
            closed = closed.saturating_add(1);
        }
        closed
    }

    /// Pushes what subscribers have not been pushed yet, within their credit and what their epoch's key opens.
    fn follow_log(&mut self, group: GroupId) -> Result<(), StoreError> {
        let Some(head) = layout::load::<GroupRecord>(self.tx, GROUPS, &group.0)? else {
            return Ok(());
        };
        let ends = self.ends_of_epochs(group, &head)?;
        let is_behind = |subscription: &Subscription| {
            let end = ends.get(&subscription.epoch);
            subscription.takes() && end.is_some_and(|(last, _)| subscription.next_seq <= *last)
        };
        let behind = self.connections.subscribers(group).iter();
        let behind = behind.filter(|(_, subscription)| is_behind(subscription));
        let Some(first) = behind.map(|(_, subscription)| subscription.next_seq).min() else {
            return self.follow_restarts(group, &head);
        };
        let mut seq = first;
        let mut bytes = 0;
        while seq <= head.head_seq {
            if bytes > MAX_FOLLOWED_BYTES {
                self.connections.note_unfinished(head.org, group);
                return Ok(());
            }
            self.prefetch_log(group, (first, seq), head.head_seq)?;
            let record = layout::load_log(self.tx, group, seq)?;
            bytes += record.payload.as_slice().len();
            self.push_missed(group, &record, &ends);
            seq = seq.next();
        }
        self.follow_restarts(group, &head)
    }

    /// The last record that each subscribed epoch's key opens, and whether the epoch is closed.
    fn ends_of_epochs(
        &self,
        group: GroupId,
        head: &GroupRecord,
    ) -> Result<BTreeMap<Epoch, (LogSeq, bool)>, StoreError> {
        let mut ends = BTreeMap::new();
        for (_, subscription) in self.connections.subscribers(group) {
            let epoch = subscription.epoch;
            if ends.contains_key(&epoch) {
                continue;
            }
            let next = of_group(group, epoch.next().0);
            let closing: Option<EpochRecord> = layout::load(self.tx, EPOCHS, &next)?;
            let last = closing.map_or(head.head_seq, |next| next.opening_seq);
            ends.insert(epoch, (last, closing.is_some()));
        }
        Ok(ends)
    }

    fn push_missed(
        &mut self,
        group: GroupId,
        record: &LogRecord,
        ends: &BTreeMap<Epoch, (LogSeq, bool)>,
    ) {
        let mut to: Vec<(ConnId, StreamId)> = Vec::new();
        for (conn, subscription) in self.connections.subscribers_mut(group) {
            let Some((last, closed)) = ends.get(&subscription.epoch) else {
                continue;
            };
            if !subscription.takes() || subscription.next_seq != record.seq || record.seq > *last {
                continue;
            }
            to.push((conn, subscription.stream));
            subscription.credit -= 1;
            subscription.next_seq = record.seq.next();
            subscription.awaits_restart = *closed && record.seq == *last;
        }
        self.outbox.broadcast_record(to, group, record);
    }

    /// Who has read its epoch to the end is still to see the Restarts that name it (REQ-150).
    fn follow_restarts(&mut self, group: GroupId, head: &GroupRecord) -> Result<(), StoreError> {
        if !bool::from(head.restarted) {
            return Ok(());
        }
        let waiting = self.connections.subscribers(group).iter();
        let waiting: Vec<_> = waiting
            .filter(|(_, subscription)| subscription.awaits_restart)
            .copied()
            .collect();
        for (conn, mut subscription) in waiting {
            self.push_restarts(conn, group, subscription.epoch, head, &mut subscription)?;
            self.connections.subscribe(conn, group, subscription);
        }
        Ok(())
    }

    /// Says, for every so many from the first on, which records of a log are read next.
    pub(super) fn prefetch_log(
        &self,
        group: GroupId,
        (first, seq): (LogSeq, LogSeq),
        last: LogSeq,
    ) -> Result<(), StoreError> {
        if (seq.0 - first.0) % RECORDS != 0 {
            return Ok(());
        }
        let end = last.0.min(seq.0.saturating_add(RECORDS - 1));
        let keys: Vec<_> = (seq.0..=end).map(|n| of_group(group, n)).collect();
        self.tx.prefetch(LOG, &keys)
    }

    fn follow_checkpoint(&mut self, org: OrgId, device: DeviceId) -> Result<(), StoreError> {
        let key = of_device(org, device);
        let Some(record) =
            layout::load::<super::checkpoints::CheckpointRecord>(self.tx, CHECKPOINTS, &key)?
        else {
            return Ok(());
        };
        let checkpoint = record.checkpoint;
        for (_, conn) in self.connections.of_org(org) {
            let caller = self.caller(conn);
            if caller.is_some_and(|caller| caller.device != device) {
                self.push(conn, Push::Checkpoint { checkpoint });
            }
        }
        Ok(())
    }

    fn follow_resync(&mut self, group: GroupId, device: DeviceId) -> Result<(), StoreError> {
        let row = layout::load_bytes(self.tx, RESYNCS, &of_resync(group, device))?;
        let head: Option<GroupRecord> = layout::load(self.tx, GROUPS, &group.0)?;
        let (Some(key_package), Some(head)) = (row, head) else {
            return Ok(());
        };
        self.push_resync_asked(group, &head, device, None, &key_package.into());
        Ok(())
    }
}

impl Subscription {
    /// Whether records are pushed to it in order.
    fn takes(&self) -> bool {
        self.credit > 0 && !self.pulls && !self.awaits_restart
    }
}

impl Core {
    /// Groups of which there was more to push than one turn pushes.
    pub fn take_unfinished(&mut self) -> Vec<Moved> {
        let groups = self.connections.take_unfinished().into_iter();
        let endless = LogSeq(u64::MAX);
        groups
            .map(|(org, group)| Moved::Log(org, group, endless))
            .collect()
    }

    /// Whether a hint is about anything that this core's connections wait for.
    #[must_use]
    pub fn waits_for(&self, moved: &Moved) -> bool {
        match *moved {
            Moved::Roster(org, seq) => {
                self.rosters.told(org) < seq && self.connections.orgs().contains(&org)
            }
            Moved::Log(_, group, seq) => {
                let subscribers = self.connections.subscribers(group);
                subscribers.iter().any(|(_, s)| s.next_seq <= seq)
            }
            Moved::Inbox(org, device) | Moved::Slots(org, device) => {
                let roster = self.rosters.at(org);
                let record = roster.and_then(|roster| roster.device(device));
                record.is_some_and(|r| !self.connections.of_key(org, r.transport_key).is_empty())
            }
            Moved::Checkpoint(org, _) => self.connections.orgs().contains(&org),
            Moved::Resync(_, group, _) => !self.connections.subscribers(group).is_empty(),
        }
    }

    /// What this core's connections wait for and the store has: for when hints were lost.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn find_moved(&mut self, store: &dyn Store) -> Result<Vec<Moved>, StoreError> {
        let tx = Tx::new(store);
        let mut found = self.moved_rosters(&tx)?;
        found.extend(self.moved_logs(&tx)?);
        found.extend(self.moved_inboxes(&tx)?);
        Ok(found)
    }

    fn moved_rosters(&self, tx: &Tx<'_>) -> Result<Vec<Moved>, StoreError> {
        let orgs: BTreeSet<OrgId> = self.connections.orgs();
        let mut found = Vec::new();
        for org in orgs {
            let next = self.rosters.told(org).next();
            if tx.get(ROSTER, &of_org(org, next.0))?.is_some() {
                found.push(Moved::Roster(org, next));
            }
        }
        Ok(found)
    }

    fn moved_logs(&self, tx: &Tx<'_>) -> Result<Vec<Moved>, StoreError> {
        let groups: Vec<GroupId> = self.connections.groups().collect();
        let keys: Vec<_> = groups.iter().map(|group| group.0.to_vec()).collect();
        tx.prefetch(GROUPS, &keys)?;
        let mut found = Vec::new();
        for group in groups {
            let Some(head) = layout::load::<GroupRecord>(tx, GROUPS, &group.0)? else {
                continue;
            };
            let is_behind = |(_, subscription): &(ConnId, Subscription)| {
                subscription.next_seq <= head.head_seq
                    && (subscription.takes()
                        || subscription.awaits_restart && bool::from(head.restarted))
            };
            if self.connections.subscribers(group).iter().any(is_behind) {
                found.push(Moved::Log(head.org, group, head.head_seq));
            }
        }
        Ok(found)
    }

    fn moved_inboxes(&mut self, tx: &Tx<'_>) -> Result<Vec<Moved>, StoreError> {
        let mut devices = BTreeSet::new();
        for org in self.connections.orgs() {
            let Some(roster) = self.rosters.at(org) else {
                continue;
            };
            for (key, _) in self.connections.of_org(org) {
                devices.extend(
                    roster
                        .device_by_transport_key(&key)
                        .map(|(id, _)| (org, id)),
                );
            }
        }
        let keys: Vec<_> = devices.iter().map(|(o, d)| of_device(*o, *d)).collect();
        tx.prefetch(INBOX_NEXT, &keys)?;
        let mut found = Vec::new();
        let before = std::mem::take(&mut self.inboxes);
        for (at, key) in devices.into_iter().zip(keys) {
            let next = layout::load::<InboxNextRecord>(tx, INBOX_NEXT, &key)?;
            let next = next.map_or(0, |record| record.next);
            if next > before.get(&at).copied().unwrap_or(0) {
                found.push(Moved::Inbox(at.0, at.1));
            }
            self.inboxes.insert(at, next);
        }
        Ok(found)
    }
}
