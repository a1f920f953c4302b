//! What an order does on the relay, who is told, and how far every group is with it (REQ-061 to REQ-065).

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{DeviceId, Epoch, GroupId, OrgId, RosterSeq, hash};
use mortise_protocol::roster::{Order, Role};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::log::Verdict;
use mortise_protocol::wire::{GroupState, GroupStatus, OrderPosition, Push, Refusal, Response};

use super::connections::Subscription;
use super::layout::{
    self, ATTESTATIONS, AttestationKey, AttestedRecord, GROUPS, GroupRecord, ORG_GROUPS,
    OrgGroupRecord, of_org,
};
use super::turn::{Answer, Caller, Turn};
use super::{CloseReason, ConnId};

/// Roles that may see how far groups are.
const MAY_ASK: [Role; 4] = [Role::Owner, Role::Admin, Role::Supervisor, Role::Auditor];

impl Turn<'_> {
    /// In the order's own transaction: everything that waits for its devices goes, and so do they (REQ-062).
    pub(super) fn execute(&mut self, org: OrgId, order: &Order) -> Result<(), StoreError> {
        for &device in &order.devices {
            self.delete_key_packages(org, device)?;
            self.delete_inbox(org, device)?;
            self.delete_slots(org, device)?;
            self.delete_resyncs(org, device)?;
            self.delete_checkpoint(org, device);
            let key = self
                .rosters
                .at(org)
                .and_then(|roster| roster.device(device))
                .map(|record| record.transport_key);
            for conn in key.map_or_else(Vec::new, |key| self.connections.of_key(org, key)) {
                self.connections.remove(conn);
                self.outbox.close(conn, CloseReason::Removed);
            }
        }
        Ok(())
    }

    /// Pushes an entry to every admitted connection; an order with where its groups stand (REQ-061).
    pub(super) fn announce(
        &mut self,
        org: OrgId,
        entry: &[u8],
        order: Option<&Order>,
    ) -> Result<(), StoreError> {
        let listeners: Vec<ConnId> = self
            .connections
            .of_org(org)
            .into_iter()
            .map(|(_, conn)| conn)
            .filter(|conn| self.caller(*conn).is_some())
            .collect();
        let mut positions = match order {
            Some(order) => self.positions(order.seq, &listeners)?,
            None => BTreeMap::new(),
        };
        for conn in listeners {
            let push = Push::RosterEntry {
                entry: entry.to_vec().into(),
                positions: positions.remove(&conn).unwrap_or_default(),
            };
            self.push(conn, push);
        }
        Ok(())
    }

    /// For each listener, the head of every log that it subscribes to, and whether it is asked to go first.
    fn positions(
        &self,
        order: RosterSeq,
        listeners: &[ConnId],
    ) -> Result<BTreeMap<ConnId, Vec<OrderPosition>>, StoreError> {
        let groups: BTreeSet<GroupId> = listeners
            .iter()
            .flat_map(|conn| self.connections.groups_of(*conn))
            .collect();
        let mut positions: BTreeMap<ConnId, Vec<OrderPosition>> = BTreeMap::new();
        for group in groups {
            let head: GroupRecord = layout::load_existing(self.tx, GROUPS, &group.0)?;
            let mut subscribers = self.connections.subscribers(group).to_vec();
            // Who was removed with the epoch it has read learns nothing of what came after.
            subscribers.retain(|(_, subscription)| !subscription.awaits_restart);
            let leased = lease(group, order, head.head_epoch, &subscribers);
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
        let roster = self.roster(caller.org)?;
        if !roster
            .role(caller.user)
            .is_some_and(|r| MAY_ASK.contains(&r))
        {
            return Err(Refusal::Forbidden.into());
        }
        if roster.order(order).is_none() {
            return Err(Refusal::UnknownOrder.into());
        }
        let mut attested = self.attested(caller.org, order)?;
        let mut groups = Vec::new();
        for (key, row) in self.tx.scan(ORG_GROUPS, &caller.org.0)? {
            let group = GroupId(layout::key_tail(&key)?);
            let created: OrgGroupRecord = layout::read(&row)?;
            // A later group was created under the order's fence: clean by construction.
            let record: GroupRecord = layout::load_existing(self.tx, GROUPS, &group.0)?;
            // Nor is anything ever sent again in a group whose log has ended.
            if created.created_fence < order && !bool::from(record.restarted) {
                groups.push(attested.remove(&group).unwrap_or_else(|| sealed(group)));
            }
        }
        Ok(Response::OrderStatus { groups })
    }

    /// The groups that anybody has attested about an order.
    fn attested(
        &self,
        org: OrgId,
        order: RosterSeq,
    ) -> Result<BTreeMap<GroupId, GroupStatus>, StoreError> {
        let mut groups: BTreeMap<GroupId, GroupStatus> = BTreeMap::new();
        for (key, row) in self.tx.scan(ATTESTATIONS, &of_org(org, order.0))? {
            let AttestationKey {
                group,
                device,
                verdict,
            } = AttestationKey::read(&key)?;
            let AttestedRecord { at_ms } = layout::read(&row)?;
            let status = groups.entry(group).or_insert_with(|| sealed(group));
            count(status, device, verdict, at_ms);
        }
        Ok(groups)
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

fn sealed(group: GroupId) -> GroupStatus {
    GroupStatus {
        group,
        state: GroupState::Sealed,
        attested_by: Vec::new(),
        at_ms: 0,
    }
}

/// Counts one attestation: rotated outweighs clean, and the first one's time stays.
fn count(status: &mut GroupStatus, device: DeviceId, verdict: Verdict, at_ms: u64) {
    status.state = match (verdict, status.state) {
        (Verdict::Rotated, _) | (_, GroupState::Rotated) => GroupState::Rotated,
        (Verdict::Clean, _) => GroupState::Clean,
    };
    let first = status.attested_by.is_empty();
    status.at_ms = if first {
        at_ms
    } else {
        status.at_ms.min(at_ms)
    };
    if !status.attested_by.contains(&device) {
        status.attested_by.push(device);
    }
}
