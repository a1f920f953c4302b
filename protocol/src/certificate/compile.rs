//! Making a certificate from what the relay and the members have stated.

use std::collections::BTreeSet;

use super::excerpt::excerpt;
use super::verify::verify;
use super::{
    CERTIFICATE_VERSION, Certificate, CertificateError, CertificateTbs, ChainItem, DisclosedTree,
    LABEL,
};
use crate::identity::{DeviceId, RosterSeq, SigningKey, encode};
use crate::roster::Roster;
use crate::wire::{Attestation, OrderGroupState, Receipt, SignedOrderState};

/// What a certificate is made of, besides the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What the relay states.
    pub state: SignedOrderState,
    /// Every group of the order's set, by ascending id.
    pub groups: Vec<OrderGroupState>,
    /// The attestations that the rows name, in the same order.
    pub attestations: Vec<Attestation>,
    /// Members' receipts, in any order; one that says nothing about this order is left out.
    pub receipts: Vec<Receipt>,
    /// Whole trees, to be disclosed.
    pub trees: Vec<DisclosedTree>,
}

/// Who makes a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Maker<'a> {
    /// The roster as this device knows it; the relay's state may name an earlier head of it.
    pub roster: &'a Roster,
    /// Its signed entries, oldest first.
    pub entries: &'a [Vec<u8>],
    /// This device's MLS signature key.
    pub key: &'a SigningKey,
    /// The clock, ms since 1970.
    pub now_ms: u64,
}

/// Makes a certificate, and verifies it as a stranger would (REQ-176).
///
/// With `disclose` every entry of the roster is shown, and the trees are in it.
///
/// # Errors
/// [`CertificateError`]: what the relay or a member has stated does not hold.
pub fn compile(
    maker: Maker<'_>,
    evidence: Evidence,
    disclose: bool,
) -> Result<Vec<u8>, CertificateError> {
    let state = evidence.state.state;
    let head = usize::try_from(state.head.seq.0).unwrap_or(usize::MAX);
    let entries = maker
        .entries
        .get(..head)
        .ok_or(CertificateError::OtherState)?;
    let mut receipts = evidence.receipts;
    receipts.retain(|r| r.statement.order_hash == state.order_hash);
    receipts.sort_by_key(|r| (r.statement.group, r.statement.device));
    receipts.dedup_by_key(|r| (r.statement.group, r.statement.device));
    let device = maker.key.public().device_id();
    let signers = signers(&evidence.attestations, &receipts, device);
    let tbs = CertificateTbs {
        version: CERTIFICATE_VERSION,
        org: maker.roster.org(),
        chain: chain(&maker, entries, &signers, state.order_seq, disclose)?,
        state: evidence.state,
        groups: evidence.groups,
        attestations: evidence.attestations,
        receipts,
        trees: if disclose { evidence.trees } else { Vec::new() },
        at_ms: maker.now_ms,
        device,
    };
    let signature = maker.key.sign(LABEL, &encode(&tbs));
    let bytes = encode(&Certificate { tbs, signature });
    verify(&bytes, maker.roster.org())?;
    Ok(bytes)
}

fn signers(
    attestations: &[Attestation],
    receipts: &[Receipt],
    maker: DeviceId,
) -> BTreeSet<DeviceId> {
    let attesters = attestations.iter().map(|a| a.statement.device);
    let receivers = receipts.iter().map(|r| r.statement.device);
    attesters.chain(receivers).chain([maker]).collect()
}

fn chain(
    maker: &Maker<'_>,
    entries: &[Vec<u8>],
    signers: &BTreeSet<DeviceId>,
    order: RosterSeq,
    disclose: bool,
) -> Result<Vec<ChainItem>, CertificateError> {
    if disclose {
        let all = entries
            .iter()
            .map(|entry| ChainItem::Shown(entry.clone().into()));
        return Ok(all.collect());
    }
    excerpt(maker.roster, entries, signers, order)
        .map_err(|reason| CertificateError::Chain { seq: order, reason })
}
