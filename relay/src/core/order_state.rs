//! What the relay states about an order over its signature: the set of groups, once for all, and how each stands
//! (REQ-171 to REQ-173).
//!
//! It states what is in its logs and nothing else. The set of an order never changes, so that two of them convict it.

use std::collections::BTreeMap;

use mortise_protocol::identity::{GroupId, OrgId, RosterSeq, decode};
use mortise_protocol::roster::Order;
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::log::{RecordBody, Verdict};
use mortise_protocol::wire::merkle::MerkleTree;
use mortise_protocol::wire::{
    Attestation, Attested, GroupState, OrderGroupState, OrderSet, OrderState, Refusal, Response,
    SignedOrderSet, SignedOrderState, chain_hash, limits, set_tree, state_tree,
};

use super::layout::{
    self, ATTESTATIONS, AttestationKey, AttestedRecord, EPOCHS, EpochRecord, GROUPS, GroupRecord,
    ORDERED, ORG_GROUPS, OrderedRecord, OrgGroupRecord, of_group, of_org, of_receipt,
};
use super::turn::{Answer, Caller, Turn};

/// Orders whose sets are kept in memory: proofs are asked for when an order is fresh.
const CACHED: usize = 8;

/// The sets of recent orders with their trees, so that a proof costs no reading.
#[derive(Debug, Default)]
pub(super) struct OrderSets {
    sets: BTreeMap<(OrgId, RosterSeq), KnownSet>,
}

impl OrderSets {
    /// After a batch that was not written: what it had made of the store may be wrong.
    pub(super) fn forget(&mut self) {
        self.sets.clear();
    }

    fn keep(&mut self, key: (OrgId, RosterSeq), set: KnownSet) {
        if self.sets.len() >= CACHED {
            self.sets.pop_first();
        }
        self.sets.insert(key, set);
    }
}

#[derive(Debug)]
struct KnownSet {
    signed: SignedOrderSet,
    groups: Vec<GroupId>,
    tree: MerkleTree,
}

impl Turn<'_> {
    /// Everything that a certificate needs of the relay (REQ-173).
    pub(super) fn order_state(&mut self, caller: &Caller, order: RosterSeq) -> Answer {
        self.require_watcher(caller, order)?;
        let groups = self.states_of(caller.org, order)?;
        let mut attestations = Vec::new();
        for row in &groups {
            attestations.extend(self.attestations_of(caller.org, order, row.group)?);
        }
        let ordered = self.ordered(caller.org, order)?;
        let roster = self.roster(caller.org)?;
        let known = roster.order(order).ok_or(Refusal::UnknownOrder)?;
        let ids: Vec<GroupId> = groups.iter().map(|row| row.group).collect();
        let state = OrderState {
            org: caller.org,
            order_seq: order,
            order_hash: known.entry_hash,
            appended_at_ms: ordered.at_ms,
            closed: ordered.closed,
            head: roster.head(),
            chain: chain_hash(roster.hashes().iter().copied()),
            count: count_of(&ids)?,
            set_root: set_tree(&ids).root(),
            root: state_tree(&groups).root(),
            at_ms: self.now_ms,
        };
        Ok(Response::OrderState {
            state: Box::new(SignedOrderState::sign(state, &self.config.statement_key)),
            groups,
            attestations: attestations.into_iter().map(|(_, said)| said).collect(),
        })
    }

    /// Proves to a subscriber that its group is in the order's set (REQ-172).
    pub(super) fn order_proof(
        &mut self,
        caller: &Caller,
        order: RosterSeq,
        group: GroupId,
    ) -> Answer {
        if !self.connections.groups_of(caller.conn).contains(&group) {
            return Err(Refusal::AccessDenied.into());
        }
        let known = self.roster(caller.org)?.order(order);
        let known = known.ok_or(Refusal::UnknownOrder)?.clone();
        let key = (caller.org, order);
        if !self.order_sets.sets.contains_key(&key) {
            let set = self.make_set(caller.org, &known)?;
            self.order_sets.keep(key, set);
        }
        let set = self
            .order_sets
            .sets
            .get(&key)
            .ok_or(Refusal::UnknownOrder)?;
        let place = set.groups.binary_search(&group);
        let index = place.map_err(|_| Refusal::UnknownGroup)?;
        Ok(Response::OrderProof {
            set: set.signed,
            index: u32::try_from(index).map_err(|_| Refusal::UnknownGroup)?,
            path: set.tree.path(index).unwrap_or_default(),
        })
    }

    fn make_set(&self, org: OrgId, order: &Order) -> Result<KnownSet, super::turn::Failure> {
        let groups = self.set_of(org, order.seq)?;
        let tree = set_tree(&groups);
        let set = OrderSet {
            org,
            order_seq: order.seq,
            order_hash: order.entry_hash,
            count: count_of(&groups)?,
            root: tree.root(),
        };
        Ok(KnownSet {
            signed: SignedOrderSet::sign(set, &self.config.statement_key),
            groups,
            tree,
        })
    }

    /// When an order was carried out.
    pub(super) fn ordered(
        &self,
        org: OrgId,
        order: RosterSeq,
    ) -> Result<OrderedRecord, StoreError> {
        layout::load_existing(self.tx, ORDERED, &of_org(org, order.0))
    }

    /// Every group that existed when the order was appended, by ascending id; for ever the same (REQ-171).
    fn set_of(&self, org: OrgId, order: RosterSeq) -> Result<Vec<GroupId>, StoreError> {
        let mut groups = Vec::new();
        for (key, row) in self.tx.scan(ORG_GROUPS, &org.0)? {
            let created: OrgGroupRecord = layout::read(&row)?;
            // A later group was created under the order's fence: clean by construction.
            if created.created_fence < order {
                groups.push(GroupId(layout::key_tail(&key)?));
            }
        }
        Ok(groups)
    }

    /// How each group of the set stands.
    pub(super) fn states_of(
        &self,
        org: OrgId,
        order: RosterSeq,
    ) -> Result<Vec<OrderGroupState>, StoreError> {
        let groups = self.set_of(org, order)?.into_iter();
        groups
            .map(|group| self.state_of(org, order, group))
            .collect()
    }

    fn state_of(
        &self,
        org: OrgId,
        order: RosterSeq,
        group: GroupId,
    ) -> Result<OrderGroupState, StoreError> {
        let record: GroupRecord = layout::load_existing(self.tx, GROUPS, &group.0)?;
        let head = self.epoch_of(group, record.head_epoch.0)?;
        let attested = self.attestations_of(org, order, group)?;
        let attested: Vec<Attested> = attested.into_iter().map(|(row, _)| row).collect();
        let roster = self.rosters.at(org);
        let is_closed = roster.is_some_and(|roster| roster.closed_at(group).is_some());
        let is_ended = bool::from(record.restarted) || (is_closed && attested.is_empty());
        Ok(OrderGroupState {
            group,
            state: judge(is_ended, &attested),
            epoch: record.head_epoch,
            entry_hash: head.entry_hash,
            attested,
        })
    }

    fn epoch_of(&self, group: GroupId, epoch: u64) -> Result<EpochRecord, StoreError> {
        layout::load_existing(self.tx, EPOCHS, &of_group(group, epoch))
    }

    /// The first attestations about an order in a group's log, in its order.
    fn attestations_of(
        &self,
        org: OrgId,
        order: RosterSeq,
        group: GroupId,
    ) -> Result<Vec<(Attested, Attestation)>, StoreError> {
        let mut known = Vec::new();
        for (key, row) in self.tx.scan(ATTESTATIONS, &of_receipt(org, order, group))? {
            let record: AttestedRecord = layout::read(&row)?;
            known.push((record.seq, AttestationKey::read(&key)?, record.at_ms));
        }
        known.sort_by_key(|(seq, ..)| *seq);
        known.truncate(limits::MAX_ATTESTED);
        let mut attested = Vec::new();
        for (seq, key, at_ms) in known {
            let record = layout::load_log(self.tx, group, seq)?;
            let Ok(RecordBody::Attestation(attestation)) = decode(record.payload.as_slice()) else {
                return Err(layout::DAMAGED);
            };
            let epoch = self.epoch_of(group, record.epoch.0)?;
            let opening = layout::load_log(self.tx, group, epoch.opening_seq)?;
            let row = Attested {
                device: key.device,
                verdict: key.verdict,
                epoch: record.epoch,
                entry_hash: epoch.entry_hash,
                access_key: epoch.access_key,
                opened_at_ms: opening.at_ms,
                at_ms,
            };
            attested.push((row, attestation));
        }
        Ok(attested)
    }
}

/// Rotated outweighs clean; a log that has ended needs neither, nor does a group that takes nothing more.
fn judge(ended: bool, attested: &[Attested]) -> GroupState {
    if ended {
        GroupState::Ended
    } else if attested.iter().any(|a| a.verdict == Verdict::Rotated) {
        GroupState::Rotated
    } else if attested.is_empty() {
        GroupState::Sealed
    } else {
        GroupState::Clean
    }
}

fn count_of(groups: &[GroupId]) -> Result<u32, Refusal> {
    u32::try_from(groups.len()).map_err(|_| Refusal::TooLarge {
        limit: u64::from(u32::MAX),
    })
}
