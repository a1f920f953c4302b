//! Disks that lose or alter what they are given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mortise_protocol::identity::{RosterSeq, decode, encode};
use mortise_protocol::roster::{Op, SignedEntry};
use mortise_protocol::store::{Space, Write};
use mortise_protocol::wire::LogRecord;
use mortise_relay::core::layout::{self, INBOX, LOG, RECORD_IDS, ROSTER};

use crate::world::World;

/// The engine's tables (`protocol/src/engine/rows.rs`).
pub(super) const GROUPS: Space = Space(0x22);
pub(super) const LOG_HASHES: Space = Space(0x23);
pub(super) const OUTBOX: Space = Space(0x24);
pub(super) const INTENTS: Space = Space(0x25);
pub(super) const HISTORY: Space = Space(0x26);
const ORDERS: Space = Space(0x27);
const RESYNCS: Space = Space(0x2F);

pub(super) fn forget_duplicates(world: &mut World) {
    world.disk.tamper_with(Box::new(|writes| {
        writes.retain(|w| w.space != RECORD_IDS);
    }));
}

pub(super) fn forget_inboxes(world: &mut World) {
    world.disk.tamper_with(Box::new(|writes| {
        writes.retain(|w| w.space != INBOX || w.value.is_none());
    }));
}

/// A record that follows an order within the relay's life carries the fence of the order before it.
pub(super) fn stamp_old_fence(world: &mut World) {
    let newest = Arc::new(AtomicU64::new(0));
    world.disk.tamper_with(Box::new(move |writes| {
        for write in writes.iter().filter(|w| w.space == ROSTER) {
            if let Some(seq) = order_in(write) {
                newest.store(seq, Ordering::Relaxed);
            }
        }
        let order = newest.load(Ordering::Relaxed);
        for write in writes.iter_mut().filter(|w| w.space == LOG) {
            let Some(value) = &mut write.value else {
                continue;
            };
            if let Ok(mut record) = decode::<LogRecord>(&value[1..])
                && order > 0
                && record.fence.0 >= order
            {
                record.fence = RosterSeq(order - 1);
                *value = [&[layout::ROW_VERSION], &encode(&record)[..]].concat();
            }
        }
    }));
}

/// The seq of the entry that is written, if it is an order.
fn order_in(write: &Write) -> Option<u64> {
    let entry = SignedEntry::parse(write.value.as_ref()?.get(1..)?).ok()?;
    let ops = entry.tbs().ops.as_slice();
    let order = ops
        .iter()
        .any(|op| matches!(op, Op::RemoveUser { .. } | Op::RevokeDevice { .. }));
    order.then_some(entry.tbs().seq.0)
}

/// One member's disk loses what is written to a table, but not what is deleted there.
pub(super) fn client_forgets(world: &mut World, space: Space) {
    for person in world.people.iter_mut().skip(2).step_by(2) {
        let mut seen = 0_u64;
        let disk = person.engine_mut().store_mut();
        disk.tamper_with(Box::new(move |writes| {
            writes.retain(|write| {
                let hit = write.space == space && write.value.is_some();
                seen += u64::from(hit);
                // Now and then only: a bug that shows at once is no test of the model.
                !hit || !seen.is_multiple_of(5)
            });
        }));
    }
}

/// Every other member's disk lies about fsync.
pub(super) fn clients_lose_last_batch(world: &mut World) {
    for person in world.people.iter_mut().step_by(2) {
        person.engine_mut().store_mut().keep_before();
    }
}

pub(super) fn clients_forget_orders(world: &mut World) {
    clients_forget_all(world, ORDERS);
}

pub(super) fn clients_forget_resyncs(world: &mut World) {
    clients_forget_all(world, RESYNCS);
}

fn clients_forget_all(world: &mut World, space: Space) {
    for person in &mut world.people {
        let disk = person.engine_mut().store_mut();
        disk.tamper_with(Box::new(move |writes| {
            writes.retain(|w| w.space != space || w.value.is_none());
        }));
    }
}

/// The first field of what an order asks of a group is whether it was rotated.
pub(super) fn clients_claim_rotation(world: &mut World) {
    for person in &mut world.people {
        let disk = person.engine_mut().store_mut();
        disk.tamper_with(Box::new(|writes| {
            for write in writes.iter_mut().filter(|w| w.space == ORDERS) {
                if let Some(rotated) = write.value.as_mut().and_then(|v| v.get_mut(1)) {
                    *rotated = 1;
                }
            }
        }));
    }
}
