//! Collecting what a certificate is made of, and making it (REQ-176).

use std::collections::BTreeSet;

use super::link::Asked;
use super::rows::{self, GROUPS, GroupRow, GroupStatus, ORDER_SETS, ORDERS, OrderRow};
use super::state::State;
use super::{CommandError, Engine, EngineError, Event, IntentId};
use crate::certificate::{self, CertificateError, DisclosedTree, Evidence, Maker};
use crate::group::validate;
use crate::identity::{DeviceId, GroupId, Hash, RosterSeq};
use crate::store::{Store, Tx};
use crate::wire::log::Verdict;
use crate::wire::{
    Attestation, OrderGroupState, Receipt, ReceiptStatement, Refusal, Request, SealedReceipt,
    SignedOrderState, open_receipt,
};

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificationError {
    /// The relay's statement leaves out a group that this device knows (REQ-172).
    #[error("the relay's statement leaves out {} of your groups", groups.len())]
    Omitted {
        /// Which.
        groups: Vec<GroupId>,
    },
    /// The relay has shown this device another set of groups before (REQ-172).
    #[error("the relay has made two different statements about the groups of this order")]
    TwoSets,
    /// What was stated does not hold.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The store failed, or a defect.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl State {
    pub(super) fn collect_evidence(&mut self, id: IntentId, order: RosterSeq) {
        if self.online().is_some() {
            self.ask(Asked::OrderState { id }, Request::OrderState { order });
        } else {
            let error = CommandError::Refused(Refusal::HelloFirst);
            self.event(Event::Failed { id, error });
        }
    }

    pub(super) fn handle_order_state(
        &mut self,
        id: IntentId,
        state: Box<SignedOrderState>,
        groups: Vec<OrderGroupState>,
        attestations: Vec<Attestation>,
    ) {
        let order = state.state.order_seq;
        let evidence = Evidence {
            state: *state,
            groups,
            attestations,
            receipts: Vec::new(),
            trees: Vec::new(),
        };
        self.collections.insert(id, evidence);
        self.fetch_receipts(id, order, (GroupId([0; 32]), DeviceId([0; 16])));
    }

    fn fetch_receipts(&mut self, id: IntentId, order: RosterSeq, after: (GroupId, DeviceId)) {
        let request = Request::FetchReceipts {
            order,
            after_group: after.0,
            after_device: after.1,
        };
        self.ask(Asked::FetchReceipts { id }, request);
    }

    /// A page of receipts; what does not open, or has a wrong signature, says nothing.
    pub(super) fn handle_receipts(&mut self, id: IntentId, page: &[SealedReceipt], more: bool) {
        let opened: Vec<Receipt> = page.iter().filter_map(|sealed| self.open(sealed)).collect();
        let Some(evidence) = self.collections.get_mut(&id) else {
            return;
        };
        evidence.receipts.extend(opened);
        let order = evidence.state.state.order_seq;
        match page.last().filter(|_| more) {
            Some(last) => self.fetch_receipts(id, order, (last.id.group, last.id.device)),
            None => {
                if let Some(evidence) = self.collections.remove(&id) {
                    let evidence = Box::new(evidence);
                    self.event(Event::Evidence { id, evidence });
                }
            }
        }
    }

    fn open(&self, sealed: &SealedReceipt) -> Option<Receipt> {
        let me = self.identity.device;
        let copy = sealed.copies.iter().find(|copy| copy.recipient == me)?;
        let org = self.identity.org;
        let receipt = open_receipt(org, sealed.id, copy, &self.identity.seal).ok()?;
        let signer = self.roster.device(receipt.statement.device)?;
        receipt.verify(&signer.mls_signature_key).ok()?;
        Some(receipt)
    }
}

impl<S: Store> Engine<S> {
    /// Makes a certificate of what was collected, verified as a stranger would.
    ///
    /// With `disclose` it shows the whole roster, and the trees of the groups that this device is in.
    ///
    /// # Errors
    /// [`CertificationError`].
    pub fn certificate(
        &mut self,
        now_ms: u64,
        mut evidence: Evidence,
        disclose: bool,
    ) -> Result<Vec<u8>, CertificationError> {
        let state = evidence.state.state;
        let ids: BTreeSet<GroupId> = evidence.groups.iter().map(|row| row.group).collect();
        self.check_set(state.order_seq, state.set_root, &ids)?;
        if disclose {
            self.disclose(now_ms, &mut evidence)?;
        }
        let entries = self.roster_entries()?;
        let identity = self.state.identity.clone();
        let maker = Maker {
            roster: &self.state.roster,
            entries: &entries,
            key: &identity.mls,
            now_ms,
        };
        Ok(certificate::compile(maker, evidence, disclose)?)
    }

    /// Compares an order's set with what this device knows: its own groups, and what the relay has shown it (REQ-172).
    ///
    /// # Errors
    /// [`CertificationError::Omitted`], `TwoSets`, or what the store says.
    pub fn check_set(
        &self,
        order: RosterSeq,
        set_root: Hash,
        groups: &BTreeSet<GroupId>,
    ) -> Result<(), CertificationError> {
        let tx = Tx::new(&self.store);
        let mut omitted = Vec::new();
        for group in self.state.group_ids(&tx)? {
            let row = rows::load::<OrderRow>(&tx, ORDERS, &rows::key(group, order.0))?;
            if row.is_some_and(|row| row.existed) && !groups.contains(&group) {
                omitted.push(group);
            }
        }
        if !omitted.is_empty() {
            return Err(CertificationError::Omitted { groups: omitted });
        }
        let shown = rows::load::<Hash>(&tx, ORDER_SETS, &order.0.to_be_bytes())?;
        if shown.is_some_and(|shown| shown != set_root) {
            return Err(CertificationError::TwoSets);
        }
        Ok(())
    }

    /// Adds the trees of this device's groups as they are now, each with a receipt of its own that names it.
    fn disclose(&mut self, now_ms: u64, evidence: &mut Evidence) -> Result<(), EngineError> {
        let me = self.device();
        let ids: Vec<GroupId> = evidence.groups.iter().map(|row| row.group).collect();
        for group in ids {
            if let Some((receipt, tree)) = self.disclosed(now_ms, evidence, group)? {
                evidence
                    .receipts
                    .retain(|r| (r.statement.group, r.statement.device) != (group, me));
                evidence.receipts.push(receipt);
                evidence.trees.push(tree);
            }
        }
        Ok(())
    }

    fn disclosed(
        &mut self,
        now_ms: u64,
        evidence: &Evidence,
        id: GroupId,
    ) -> Result<Option<(Receipt, DisclosedTree)>, EngineError> {
        let tx = Tx::new(&self.store);
        let row: Option<GroupRow> = rows::load(&tx, GROUPS, &id.0)?;
        let Some(row) = row.filter(|row| row.status == GroupStatus::Active) else {
            return Ok(None);
        };
        let state = evidence.state.state;
        let owed = rows::load::<OrderRow>(&tx, ORDERS, &rows::key(id, state.order_seq.0))?;
        let group = self.state.take_group(&tx, id)?;
        let head = self.state.roster.head().seq;
        let clean = validate::stale_leaves(&self.state.roster, group.leaves(), head)
            .next()
            .is_none();
        let (tree_hash, transcript_hash) = group.context_hashes();
        let tree = group.ratchet_tree();
        self.state.groups.insert(id, group);
        if !clean {
            return Ok(None);
        }
        let statement = ReceiptStatement {
            org: self.state.identity.org,
            order_seq: state.order_seq,
            order_hash: state.order_hash,
            group: id,
            epoch: row.epoch,
            entry_hash: row.entry_hash,
            tree_hash: tree_hash.into(),
            confirmed_transcript_hash: transcript_hash.into(),
            verdict: if owed.is_some_and(|owed| owed.rotated) {
                Verdict::Rotated
            } else {
                Verdict::Clean
            },
            set_root: state.set_root,
            device: self.state.identity.device,
            at_ms: now_ms,
        };
        let receipt = Receipt::sign(statement, &self.state.identity.mls);
        let tree = DisclosedTree {
            group: id,
            ratchet_tree: tree?.into(),
        };
        Ok(Some((receipt, tree)))
    }
}
