//! The relay's disk, watched: its roster, its logs, its fences.

use mortise_protocol::identity::{DeviceId, GroupId, Hash, LogSeq, RosterSeq, decode};
use mortise_protocol::store::{MemoryStore, Write};
use mortise_protocol::wire::aad::{ContentType, PrivateHeader};
use mortise_protocol::wire::{InboxItem, LogRecord, RecordBody};
use mortise_relay::core::layout::{LOG, ORG_GROUPS, ROSTER, WELCOMES};

use super::Broken;
use super::model::{Departed, Logged, Model, RecordKind};
use crate::world::{PersonId, World, log_cursor_after};

impl Model {
    /// One batch that is durable now.
    pub(super) fn watch_relay(&mut self, world: &mut World, batch: &[Write]) -> Result<(), Broken> {
        let fence_before = self.roster.fence();
        let org = self.org;
        let is_ours = |write: &&Write| write.key.starts_with(&org.0);
        let groups = batch.iter().filter(|w| w.space == ORG_GROUPS);
        let groups = groups.filter(is_ours);
        self.own_groups
            .extend(groups.filter_map(|w| Some(GroupId(*w.key.last_chunk()?))));
        for write in batch.iter().filter(|w| w.space == ROSTER).filter(is_ours) {
            self.watch_entry(world, write)?;
        }
        self.watch_logs(batch, fence_before)?;
        for write in batch.iter().filter(|w| w.space == WELCOMES) {
            self.keep_welcome(write);
        }
        Ok(())
    }

    /// Keeps a Welcome for whoever tries to open it later.
    fn keep_welcome(&mut self, write: &Write) {
        let key = write.key.as_slice();
        let (Some(group), Some(value)) = (key.first_chunk(), &write.value) else {
            return;
        };
        let group = GroupId(*group);
        if !self.own_groups.contains(&group) {
            return;
        }
        let seq = key
            .get(32..40)
            .and_then(|k| k.first_chunk())
            .map(|k| u64::from_be_bytes(*k));
        let index = seq.and_then(|seq| usize::try_from(seq).ok()?.checked_sub(1));
        let entry = index.and_then(|i| self.logs.get(&group)?.split_at_checked(i));
        if let (Some((before, [entry, ..])), Some(welcome)) = (entry, value.get(1..)) {
            let item = InboxItem {
                seq: self.welcomes.len() as u64 + 1_000_000,
                group,
                welcome: welcome.to_vec().into(),
                entry: entry.record.clone(),
                log_hash: before.last().map_or(Hash([0; 32]), |l| l.cursor.hash),
            };
            self.welcomes.push(item);
        }
    }

    fn watch_logs(&mut self, batch: &[Write], fence_before: RosterSeq) -> Result<(), Broken> {
        for write in batch.iter().filter(|w| w.space == LOG) {
            let Some((group, seq, record)) = read_record(write) else {
                return Err(Broken::new(
                    "the relay's log is readable",
                    "a row does not decode",
                ));
            };
            if !self.own_groups.contains(&group) {
                continue;
            }
            // In a batch that holds an order, records from before it may carry the fence from before it.
            if record.fence < fence_before || record.fence > self.roster.fence() {
                return Err(Broken::new(
                    "every record carries the fence in force",
                    format!(
                        "{group:?} at {seq}: {} instead of {fence_before}",
                        record.fence
                    ),
                ));
            }
            self.watch_record(group, seq, record)?;
        }
        Ok(())
    }

    fn watch_entry(&mut self, world: &mut World, write: &Write) -> Result<(), Broken> {
        let bytes = write.value.as_ref().and_then(|v| v.get(1..));
        let applied = self.roster.apply(bytes.unwrap_or_default()).map_err(|e| {
            Broken::new(
                "the roster is one chain",
                format!("at {}: {e}", self.roster.head().seq),
            )
        })?;
        let entry = bytes.unwrap_or_default().to_vec();
        self.entries.insert(applied.seq, entry);
        self.count("roster entries");
        let Some(order) = applied.order else {
            return Ok(());
        };
        self.count("orders");
        for i in 0..world.people.len() {
            let person = &mut world.people[i];
            if person.is_in() && order.devices.contains(&person.device()) {
                let store = person.engine_mut().store_mut().snapshot();
                let gone = Departed {
                    order: order.seq,
                    who: PersonId(i),
                    store,
                    control: self.control(world, PersonId(i), &order.devices),
                };
                self.departed.insert(world.people[i].device(), gone);
            }
        }
        Ok(())
    }

    /// What somebody who stays and shares a group with the leaver has stored.
    fn control(
        &self,
        world: &mut World,
        gone: PersonId,
        devices: &[DeviceId],
    ) -> Option<MemoryStore> {
        let groups = self
            .held
            .iter()
            .filter(|((p, _), h)| *p == gone && h.active);
        let groups: Vec<GroupId> = groups.map(|((_, g), _)| *g).collect();
        let stays = self.held.iter().find(|((p, g), h)| {
            h.active && groups.contains(g) && !devices.contains(&world.people[p.0].device())
        });
        let ((who, _), _) = stays?;
        let who = who.0;
        Some(world.people[who].engine_mut().store_mut().snapshot())
    }

    fn watch_record(
        &mut self,
        group: GroupId,
        seq: LogSeq,
        record: LogRecord,
    ) -> Result<(), Broken> {
        let kind = match decode::<RecordBody>(record.payload.as_slice()) {
            Ok(RecordBody::Create { .. }) => RecordKind::Create,
            Ok(RecordBody::Commit(_)) => RecordKind::Commit,
            Ok(RecordBody::Message(message)) => kind_of(message.as_slice()),
            Ok(RecordBody::Restart(_)) => RecordKind::Restart,
            Ok(RecordBody::Attestation(_)) => {
                self.count("attestations");
                RecordKind::Attestation
            }
            Err(_) => {
                return Err(Broken::new(
                    "the relay's log is readable",
                    format!("{group:?} at {seq}"),
                ));
            }
        };
        let log = self.logs.entry(group).or_default();
        let place = format!("{group:?} at {seq}");
        if log.len() as u64 + 1 != seq.0 {
            return Err(Broken::new(
                "a log has no gaps and no second version",
                place,
            ));
        }
        let id = record.record_id();
        if log.iter().any(|earlier| earlier.id == id) {
            return Err(Broken::new(
                "nothing twice",
                format!("{place}: appended before"),
            ));
        }
        if log
            .last()
            .is_some_and(|last| last.record.fence > record.fence)
        {
            return Err(Broken::new("a group's fence never falls", place));
        }
        let before = log.last().map(|last| last.cursor);
        let cursor = log_cursor_after(group, before, &record);
        if self.villainy.is_none() && !names_a_cursor(log, &record) {
            return Err(Broken::new("whoever speaks has read this log", place));
        }
        log.push(Logged {
            id,
            record,
            kind,
            cursor,
        });
        Ok(())
    }

    /// No message of an honest device stands in an epoch whose tree holds a device that the message's fence revokes. Who
    /// lies about the roster that it knows can put one there, since the relay sees no tree; nobody takes it (REQ-083).
    pub(super) fn check_fences(&self) -> Result<(), Broken> {
        for (group, log) in &self.logs {
            for logged in log.iter().filter(|l| l.kind == RecordKind::Message) {
                let record = &logged.record;
                if self.is_crime(*group, record.seq) {
                    continue;
                }
                let Some(tree) = self.tree(*group, record.epoch.0) else {
                    continue;
                };
                let stale = tree.iter().find(|device| {
                    self.departed
                        .get(device)
                        .is_some_and(|gone| gone.order <= record.fence)
                });
                if let Some(device) = stale {
                    return Err(Broken::new(
                        "no message in an epoch that holds a removed device",
                        format!("{group:?} at {}: {device:?}", record.seq),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Devices have read only texts of epochs whose tree holds them.
    pub(super) fn check_reads(&self) -> Result<(), Broken> {
        for (group, epoch, device) in &self.reads {
            let tree = self.tree(*group, *epoch);
            if tree.is_some_and(|tree| !tree.contains(device)) {
                return Err(Broken::new(
                    "nobody reads what they must not",
                    format!("{device:?} in {group:?}, epoch {epoch}"),
                ));
            }
        }
        Ok(())
    }
}

/// Whether what a message says of the log is a cursor of its epoch (REQ-086); what is no MLS message says nothing.
fn names_a_cursor(log: &[Logged], record: &LogRecord) -> bool {
    let header = match decode::<RecordBody>(record.payload.as_slice()) {
        Ok(RecordBody::Commit(entry)) => PrivateHeader::parse(entry.commit.as_slice()),
        Ok(RecordBody::Message(message)) => PrivateHeader::parse(message.as_slice()),
        _ => return true,
    };
    let Ok(aad) = header.map(|header| header.aad) else {
        return false;
    };
    let opening = log.iter().rposition(|l| l.cursor.count == 0).unwrap_or(0);
    let mut cursors = log[opening..].iter().map(|l| l.cursor);
    cursors.any(|cursor| (cursor.count, cursor.hash) == (aad.log_count, aad.log_hash))
}

/// A message with something to read, or a member's wish to leave.
fn kind_of(message: &[u8]) -> RecordKind {
    match PrivateHeader::parse(message).map(|header| header.content_type) {
        Ok(ContentType::Proposal) => RecordKind::Leave,
        _ => RecordKind::Message,
    }
}

fn read_record(write: &Write) -> Option<(GroupId, LogSeq, LogRecord)> {
    let group = GroupId(*write.key.first_chunk()?);
    let seq = LogSeq(u64::from_be_bytes(*write.key.last_chunk()?));
    let record = decode(write.value.as_ref()?.get(1..)?).ok()?;
    Some((group, seq, record))
}
