//! Members' receipts about an order: kept sealed, given to those who can open them (REQ-175).

use mortise_protocol::identity::{DeviceId, GroupId, RosterSeq};
use mortise_protocol::wire::{Flag, Refusal, Response, SealedReceipt, limits};
use tls_codec::Size as _;

use super::layout::{self, ORG_GROUPS, OrgGroupRecord, RECEIPTS, of_org, of_org_group, of_receipt};
use super::turn::{Answer, Caller, Turn};

impl Turn<'_> {
    /// Keeps a receipt: the first of a device counts, and the first few of a group.
    pub(super) fn put_receipt(&mut self, caller: &Caller, receipt: &SealedReceipt) -> Answer {
        let id = receipt.id;
        if id.device != caller.device || !receipt.is_within_limits() {
            return Err(Refusal::Malformed.into());
        }
        // Who subscribes has proven that it is a member.
        if !self.connections.groups_of(caller.conn).contains(&id.group) {
            return Err(Refusal::AccessDenied.into());
        }
        let roster = self.roster(caller.org)?;
        roster.order(id.order).ok_or(Refusal::UnknownOrder)?;
        let created: Option<OrgGroupRecord> =
            layout::load(self.tx, ORG_GROUPS, &of_org_group(caller.org, id.group))?;
        if created.is_none_or(|row| row.created_fence >= id.order) {
            return Err(Refusal::UnknownGroup.into());
        }
        let group = of_receipt(caller.org, id.order, id.group);
        let key = [&group[..], &id.device.0].concat();
        if self.tx.get(RECEIPTS, &key)?.is_some() {
            return Ok(Response::Done);
        }
        if self.tx.scan(RECEIPTS, &group)?.len() >= limits::MAX_RECEIPTS {
            let limit = limits::MAX_RECEIPTS as u64;
            return Err(Refusal::TooLarge { limit }.into());
        }
        layout::save(self.tx, RECEIPTS, key, receipt);
        Ok(Response::Done)
    }

    /// A page of the receipts that are sealed to the caller, by group and signer.
    pub(super) fn fetch_receipts(
        &mut self,
        caller: &Caller,
        order: RosterSeq,
        after: (GroupId, DeviceId),
    ) -> Answer {
        let roster = self.roster(caller.org)?;
        roster.order(order).ok_or(Refusal::UnknownOrder)?;
        let (mut receipts, mut bytes, mut more) = (Vec::new(), 0, false);
        for (_, row) in self.tx.scan(RECEIPTS, &of_org(caller.org, order.0))? {
            let mut receipt: SealedReceipt = layout::read(&row)?;
            receipt
                .copies
                .retain(|copy| copy.recipient == caller.device);
            let place = (receipt.id.group, receipt.id.device);
            if place <= after || receipt.copies.is_empty() {
                continue;
            }
            bytes += receipt.tls_serialized_len();
            if !receipts.is_empty() && bytes > limits::MAX_PAGE_BYTES {
                more = true;
                break;
            }
            receipts.push(receipt);
        }
        Ok(Response::Receipts {
            receipts,
            more: Flag::from(more),
        })
    }
}
