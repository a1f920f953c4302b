//! What an order does on the relay, who is told, and how far every group is with it (REQ-061 to REQ-065).

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{DeviceId, Epoch, GroupId, OrgId, RosterSeq, hash};
use mortise_protocol::roster::{Applied, Order, Role, Roster};
use mortise_protocol::store::{Reader as _, StoreError};
use mortise_protocol::wire::log::Verdict;
use mortise_protocol::wire::{
    GroupState, GroupStatus, OrderGroupState, OrderPosition, Push, Refusal, Response,
};

use super::ConnId;
use super::connections::Subscription;
use super::layout::{self, GROUPS, GroupRecord, ORDERED, OrderedRecord};
use super::turn::{Answer, Caller, Turn};

/// Roles that may see how far groups are.
const MAY_ASK: [Role; 4] = [Role::Owner, Role::Admin, Role::Supervisor, Role::Auditor];

impl Turn<'_> {
    /// In the order's own transaction: everything that waits for its devices goes, and so do they (REQ-062).
    pub(super) fn execute(&mut self, org: OrgId, order: &Order) -> Result<(), StoreError> {
        let mut closed: u32 = 0;
        for &device in &order.devices {
            self.delete_key_packages(org, device)?;
            self.delete_inbox(org, device)?;
            self.delete_slots(org, device)?;
            self.delete_resyncs(org, device)?;
            self.delete_checkpoint(org, device);
            closed = closed.saturating_add(self.disconnect(org, device));
        }
        let at_ms = self.now_ms;
        let key = layout::of_org(org, order.seq.0);
        layout::save(self.tx, ORDERED, key, &OrderedRecord { at_ms, closed });
        Ok(())
    }

    /// Pushes an entry to every admitted connection; an order with where its groups stand, and what closes groups with
    /// where those end (REQ-061).
    pub(super) fn announce(
        &mut self,
        org: OrgId,
        entry: &[u8],
        applied: &Applied,
    ) -> Result<(), StoreError> {
        let listeners: Vec<ConnId> = self
            .connections
            .of_org(org)
            .into_iter()
            .map(|(_, conn)| conn)
            .filter(|conn| self.caller(*conn).is_some())
            .collect();
        let mut positions = self.positions(applied, &listeners)?;
        for conn in listeners {
            let push = Push::RosterEntry {
                entry: entry.to_vec().into(),
                positions: positions.remove(&conn).unwrap_or_default(),
            };
            self.push(conn, push);
        }
        Ok(())
    }

    /// For each listener, the head of every log that it subscribes to and that the entry concerns, and whether it is asked to
    /// go first.
    fn positions(
        &self,
        applied: &Applied,
        listeners: &[ConnId],
    ) -> Result<BTreeMap<ConnId, Vec<OrderPosition>>, StoreError> {
        let order = applied.order.as_ref().map(|order| order.seq);
        let groups: BTreeSet<GroupId> = listeners
            .iter()
            .flat_map(|conn| self.connections.groups_of(*conn))
            .filter(|group| order.is_some() || applied.closed_groups.contains(group))
            .collect();
        let keys: Vec<_> = groups.iter().map(|group| group.0.to_vec()).collect();
        self.tx.prefetch(GROUPS, &keys)?;
        let mut positions: BTreeMap<ConnId, Vec<OrderPosition>> = BTreeMap::new();
        for group in groups {
            let head: GroupRecord = layout::load_existing(self.tx, GROUPS, &group.0)?;
            let mut subscribers = self.connections.subscribers(group).to_vec();
            // Who was removed with the epoch it has read learns nothing of what came after.
            subscribers.retain(|(_, subscription)| !subscription.awaits_restart);
            let leased = order.and_then(|order| lease(group, order, head.head_epoch, &subscribers));
            for (conn, _) in subscribers {
                positions.entry(conn).or_default().push(OrderPosition {
                    group,
                    seq: head.head_seq,
                    lease: (leased == Some(conn)).into(),
                });
            }
        }
        Ok(positions)
    }

    /// A row for every group that is older than the order (REQ-065).
    pub(super) fn order_status(&mut self, caller: &Caller, order: RosterSeq) -> Answer {
        self.require_watcher(caller, order)?;
        let ordered = self.ordered(caller.org, order)?;
        let roster = self.roster(caller.org)?;
        let groups = self.states_of(caller.org, order)?;
        Ok(Response::OrderStatus {
            appended_at_ms: ordered.at_ms,
            closed: ordered.closed,
            groups: groups
                .into_iter()
                // Nothing is ever sent again in a group whose log has ended.
                .filter(|row| row.state != GroupState::Ended)
                .map(|row| status(roster, row))
                .collect(),
        })
    }

    /// Only some roles may see how far groups are, and only of an order.
    pub(super) fn require_watcher(&self, caller: &Caller, order: RosterSeq) -> Result<(), Refusal> {
        let roster = self.roster(caller.org)?;
        let role = roster.role(caller.user);
        if !role.is_some_and(|role| MAY_ASK.contains(&role)) {
            return Err(Refusal::Forbidden);
        }
        roster.order(order).ok_or(Refusal::UnknownOrder)?;
        Ok(())
    }
}

/// One row, from what was attested: the first times count (REQ-179).
fn status(roster: &Roster, row: OrderGroupState) -> GroupStatus {
    let user = |device| roster.device(device).map(|d| d.user);
    let first = row.attested.first();
    let rotated = row.attested.iter().find(|a| a.verdict == Verdict::Rotated);
    let second = row
        .attested
        .iter()
        .find(|a| first.is_some_and(|first| user(a.device) != user(first.device)));
    let mut attested_by: Vec<DeviceId> = Vec::new();
    for attested in &row.attested {
        if !attested_by.contains(&attested.device) {
            attested_by.push(attested.device);
        }
    }
    attested_by.sort_unstable();
    GroupStatus {
        group: row.group,
        state: row.state,
        attested_by,
        at_ms: first.map_or(0, |a| a.at_ms),
        rotated_at_ms: rotated.map_or(0, |a| a.opened_at_ms),
        confirmed_at_ms: second.map_or(0, |a| a.at_ms),
    }
}

/// Which subscriber is asked to commit the removal first: another one for every group and order (REQ-063).
///
/// Only who has proven the newest epoch's key can: the others may be out of the group.
fn lease(
    group: GroupId,
    order: RosterSeq,
    head_epoch: Epoch,
    subscribers: &[(ConnId, Subscription)],
) -> Option<ConnId> {
    let able: Vec<ConnId> = subscribers
        .iter()
        .filter(|(_, subscription)| subscription.epoch == head_epoch)
        .map(|(conn, _)| *conn)
        .collect();
    let digest = hash("removal lease", &layout::of_group(group, order.0)).0;
    let number = digest
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let pick = number.checked_rem(able.len() as u64)?;
    able.get(usize::try_from(pick).ok()?).copied()
}
