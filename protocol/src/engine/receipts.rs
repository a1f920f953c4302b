//! What a member asks of the relay and leaves for owners and auditors after an order: proof that its groups are in
//! the relay's set (REQ-172), and a receipt (REQ-174, REQ-175).
//!
//! Nobody waits for any of this, and nothing else depends on it.

use std::collections::BTreeSet;

use super::link::{Asked, is_busy};
use super::outbound::Work;
use super::rows::{self, FoundRow, ORDER_SETS, ORDERS, OrderRow};
use super::state::State;
use super::{Alarm, EngineError};
use crate::identity::{DeviceId, GroupId, Hash, RosterSeq, SealPublicKey};
use crate::roster::Role;
use crate::store::Tx;
use crate::wire::log::Verdict;
use crate::wire::{Receipt, ReceiptStatement, Refusal, Request, SealedReceipt, SignedOrderSet};

/// What is done once on a connection for a group and an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Proof,
    Receipt,
}

impl State {
    /// The group as it is now, for a receipt.
    pub(super) fn found(&self, work: &Work<'_>, rotated: bool) -> FoundRow {
        let (tree_hash, transcript_hash) = work.group.context_hashes();
        FoundRow {
            epoch: work.row.epoch,
            entry_hash: work.row.entry_hash,
            tree_hash,
            transcript_hash,
            rotated,
            at_ms: self.now_ms,
        }
    }

    /// Asks for what is not proven yet, and leaves the receipts that are due.
    pub(super) fn give_receipts(
        &mut self,
        tx: &Tx<'_>,
        work: &Work<'_>,
    ) -> Result<(), EngineError> {
        if self.is_rotating() {
            self.receipts_due.insert(work.id);
            return Ok(());
        }
        for (number, row) in rows::of_group::<OrderRow>(tx, ORDERS, work.id)? {
            let order = RosterSeq(number);
            match row.proven {
                None if row.existed => self.ask_proof(work.id, order),
                Some(set_root) if !row.receipted => {
                    if let Some(found) = row.found {
                        self.send_receipt(work.id, order, set_root, found);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether somebody is being removed from any of this device's groups: until others have done it or its own turn has
    /// come, the processors are needed for that.
    fn is_rotating(&self) -> bool {
        self.duties.values().any(|at| *at > self.now_ms)
    }

    /// The groups that receipts are due for, once nothing has to be rotated any more.
    pub(super) fn take_receipts_due(&mut self) -> BTreeSet<GroupId> {
        if self.is_rotating() {
            BTreeSet::new()
        } else {
            std::mem::take(&mut self.receipts_due)
        }
    }

    fn once(&mut self, group: GroupId, order: RosterSeq, step: Step) -> bool {
        self.online()
            .is_some_and(|link| link.evidence.insert((group, order, step)))
    }

    /// The relay could not now: it is asked again when something happens in the group.
    pub(super) fn again(&mut self, group: GroupId, order: RosterSeq, step: Step) {
        if let Some(link) = self.online() {
            link.evidence.remove(&(group, order, step));
        }
    }

    fn ask_proof(&mut self, group: GroupId, order: RosterSeq) {
        if self.once(group, order, Step::Proof) {
            let asked = Asked::OrderProof { group, order };
            self.ask(asked, Request::OrderProof { order, group });
        }
    }

    fn send_receipt(&mut self, group: GroupId, order: RosterSeq, set_root: Hash, found: FoundRow) {
        let Some(order_hash) = self.roster.hash_at(order) else {
            return;
        };
        if !self.once(group, order, Step::Receipt) {
            return;
        }
        let statement = ReceiptStatement {
            org: self.identity.org,
            order_seq: order,
            order_hash,
            group,
            epoch: found.epoch,
            entry_hash: found.entry_hash,
            tree_hash: found.tree_hash.into(),
            confirmed_transcript_hash: found.transcript_hash.into(),
            verdict: if found.rotated {
                Verdict::Rotated
            } else {
                Verdict::Clean
            },
            set_root,
            device: self.identity.device,
            at_ms: found.at_ms,
        };
        let receipt = Receipt::sign(statement, &self.identity.mls);
        let receipt = SealedReceipt::seal(&receipt, &self.receipt_readers());
        let asked = Asked::PutReceipt { group, order };
        self.ask(asked, Request::PutReceipt { receipt });
    }

    /// Whom receipts are sealed to: owners' devices, then auditors' (REQ-175).
    fn receipt_readers(&self) -> Vec<(DeviceId, SealPublicKey)> {
        let of = |role| {
            let holds = move |(_, d): &(DeviceId, &crate::roster::DeviceRecord)| {
                d.is_admitted() && self.roster.role(d.user) == Some(role)
            };
            self.roster.devices().filter(holds)
        };
        let readers = of(Role::Owner).chain(of(Role::Auditor));
        readers.map(|(id, device)| (id, device.seal_key)).collect()
    }

    /// The relay's proof that a group is in an order's set; what does not hold is alarmed (REQ-172).
    pub(super) fn handle_order_proof(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        order: RosterSeq,
        signed: &SignedOrderSet,
        (index, path): (u32, &[Hash]),
    ) -> Result<(), EngineError> {
        let set = &signed.set;
        let known = self.roster.order(order).map(|o| o.entry_hash);
        let holds = (set.org, set.order_seq, Some(set.order_hash))
            == (self.identity.org, order, known)
            && self
                .roster
                .statement_key()
                .is_some_and(|key| signed.verify(&key).is_ok());
        if !holds || !signed.includes(group, index, path) {
            self.alarm(Alarm::OmittedGroup { group, order });
            return Ok(());
        }
        if !self.keeps_set(tx, order, set.root)? {
            self.alarm(Alarm::TwoSets { order });
            return Ok(());
        }
        let key = rows::key(group, order.0);
        if let Some(mut row) = rows::load::<OrderRow>(tx, ORDERS, &key)? {
            row.proven = Some(set.root);
            rows::put(tx, ORDERS, key, &row)?;
            self.dirty.insert(group);
        }
        Ok(())
    }

    /// Whether this is the set that was shown for the order before; the first one is remembered.
    fn keeps_set(&self, tx: &Tx<'_>, order: RosterSeq, root: Hash) -> Result<bool, EngineError> {
        let key = order.0.to_be_bytes();
        if let Some(before) = rows::load::<Hash>(tx, ORDER_SETS, &key)? {
            return Ok(before == root);
        }
        rows::put(tx, ORDER_SETS, key, &root)?;
        Ok(true)
    }

    /// Only a relay that hides the group says that it does not know it: what it had before the order is here.
    pub(super) fn handle_proof_refused(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        order: RosterSeq,
        refusal: &Refusal,
    ) -> Result<(), EngineError> {
        let row = rows::load::<OrderRow>(tx, ORDERS, &rows::key(group, order.0))?;
        if is_passing(refusal) {
            self.again(group, order, Step::Proof);
        }
        let existed = row.is_some_and(|row| row.existed);
        let denies = matches!(refusal, Refusal::UnknownGroup | Refusal::UnknownOrder);
        if existed && denies {
            self.alarm(Alarm::OmittedGroup { group, order });
        }
        Ok(())
    }

    /// The relay has this device's receipt, or needs no more.
    pub(super) fn handle_receipt_kept(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        order: RosterSeq,
    ) -> Result<(), EngineError> {
        let key = rows::key(group, order.0);
        if let Some(mut row) = rows::load::<OrderRow>(tx, ORDERS, &key)? {
            row.receipted = true;
            rows::put(tx, ORDERS, key, &row)?;
        }
        Ok(())
    }
}

/// Whether the relay may answer otherwise later: the epoch has just changed, or it has no room.
pub(super) fn is_passing(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::AccessDenied) || is_busy(refusal)
}
