//! Verifying a certificate: from the root key's fingerprint alone, offline, by every rule that a member applies.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AttestationFault, CERTIFICATE_VERSION, Certificate, CertificateError, CertificateTbs,
    ChainItem, LABEL, MAX_CERTIFICATE_BYTES, ReceiptFault,
};
use crate::group::ReadTree;
use crate::group::validate::Leaf;
use crate::identity::{
    DeviceId, Epoch, GroupId, Hash, OrgId, RosterSeq, Signature, UserId, decode, encode,
};
use crate::roster::{EntrySigner, Order, Roster, RosterError, SignedEntry};
use crate::wire::log::Verdict;
use crate::wire::{
    Attestation, Attested, GroupState, OrderGroupState, OrderState, Receipt, chain_hash, set_tree,
    state_tree,
};

/// What a certificate shows once it is verified: who stated what.
#[derive(Clone, Debug)]
pub struct VerifiedCertificate {
    /// The roster as far as it is shown.
    pub roster: Roster,
    /// How many entries are hidden.
    pub hidden: usize,
    /// The order.
    pub order: Order,
    /// Who signed it.
    pub ordered_by: EntrySigner,
    /// What the relay states.
    pub state: OrderState,
    /// Every group of the set.
    pub groups: Vec<VerifiedGroup>,
    /// Who made the certificate.
    pub maker: DeviceId,
    /// When, by the maker's clock, ms since 1970.
    pub at_ms: u64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedGroup {
    /// Which.
    pub group: GroupId,
    /// How it stands, as the relay states.
    pub state: GroupState,
    /// Who says so.
    pub witnesses: Vec<Witness>,
    /// Who is in the disclosed tree.
    pub tree: Option<Vec<Leaf>>,
}

impl VerifiedGroup {
    /// Whether devices of two users vouch for it.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        let users: BTreeSet<UserId> = self.witnesses.iter().map(|w| w.user).collect();
        users.len() > 1
    }
}

/// What a witness left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WitnessKind {
    /// An attestation, in the group's log.
    Attestation,
    /// A receipt, sealed to owners and auditors.
    Receipt,
}

/// One device's statement about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Of what kind.
    pub kind: WitnessKind,
    /// Who.
    pub device: DeviceId,
    /// Whose device.
    pub user: UserId,
    /// What.
    pub verdict: Verdict,
    /// About which epoch.
    pub epoch: Epoch,
    /// When: of an attestation by the relay's clock, of a receipt by the device's; ms since 1970.
    pub at_ms: u64,
}

/// Verifies a certificate of the organisation whose root key has this fingerprint (REQ-178).
///
/// # Errors
/// [`CertificateError`].
pub fn verify(bytes: &[u8], root: OrgId) -> Result<VerifiedCertificate, CertificateError> {
    let certificate = parse(bytes)?;
    let tbs = &certificate.tbs;
    if tbs.org != root {
        return Err(CertificateError::WrongRoot { org: tbs.org });
    }
    let (roster, hidden) = read_chain(tbs)?;
    check_maker(tbs, &certificate.signature, &roster)?;
    let ordered_by = signer_of(tbs)?;
    let order = check_state(&tbs.state.state, &tbs.state, &roster)?;
    check_groups(tbs)?;
    let mut groups = check_attestations(tbs, &roster)?;
    add_receipts(tbs, &roster, &mut groups)?;
    check_agreement(tbs)?;
    add_trees(tbs, &order, &mut groups)?;
    Ok(VerifiedCertificate {
        roster,
        hidden,
        order,
        ordered_by,
        state: tbs.state.state,
        groups,
        maker: tbs.device,
        at_ms: tbs.at_ms,
    })
}

fn parse(bytes: &[u8]) -> Result<Certificate, CertificateError> {
    match bytes.first() {
        Some(&version) if version != CERTIFICATE_VERSION => {
            Err(CertificateError::WrongVersion { version })
        }
        Some(_) if bytes.len() <= MAX_CERTIFICATE_BYTES => {
            decode(bytes).map_err(|_| CertificateError::Malformed)
        }
        _ => Err(CertificateError::Malformed),
    }
}

/// Replays the roster, each entry judged on what is known before it.
fn read_chain(tbs: &CertificateTbs) -> Result<(Roster, usize), CertificateError> {
    let mut roster = Roster::new(tbs.org);
    let mut hidden = 0;
    for item in &tbs.chain {
        let seq = roster.head().seq.next();
        let taken = match item {
            ChainItem::Shown(entry) => roster.apply(entry.as_slice()).map(drop),
            ChainItem::Hidden(hash) => {
                hidden += 1;
                roster.pass_over(*hash)
            }
        };
        taken.map_err(|reason| CertificateError::Chain { seq, reason })?;
    }
    if roster.root_key().is_none() {
        let reason = RosterError::GenesisShape;
        let seq = RosterSeq(1);
        return Err(CertificateError::Chain { seq, reason });
    }
    Ok((roster, hidden))
}

fn check_maker(
    tbs: &CertificateTbs,
    signature: &Signature,
    roster: &Roster,
) -> Result<(), CertificateError> {
    let device = tbs.device;
    let record = roster.device(device).filter(|record| record.is_admitted());
    record
        .and_then(|r| {
            r.mls_signature_key
                .verify(LABEL, &encode(tbs), signature)
                .ok()
        })
        .ok_or(CertificateError::Maker { device })
}

/// Who signed the order's entry.
fn signer_of(tbs: &CertificateTbs) -> Result<EntrySigner, CertificateError> {
    let seq = tbs.state.state.order_seq;
    let index = seq.0.checked_sub(1).and_then(|at| usize::try_from(at).ok());
    match index.and_then(|at| tbs.chain.get(at)) {
        Some(ChainItem::Shown(entry)) => SignedEntry::parse(entry.as_slice())
            .map(|entry| entry.tbs().signer)
            .map_err(|reason| CertificateError::Chain { seq, reason }),
        _ => Err(CertificateError::NotAnOrder { seq }),
    }
}

fn check_state(
    state: &OrderState,
    signed: &crate::wire::SignedOrderState,
    roster: &Roster,
) -> Result<Order, CertificateError> {
    let seq = state.order_seq;
    let order = roster
        .order(seq)
        .ok_or(CertificateError::NotAnOrder { seq })?;
    let same = (state.org, state.order_hash, state.head)
        == (roster.org(), order.entry_hash, roster.head())
        && state.chain == chain_hash(roster.hashes().iter().copied());
    if !same {
        return Err(CertificateError::OtherState);
    }
    let key = roster.statement_key();
    key.and_then(|key| signed.verify(&key).ok())
        .ok_or(CertificateError::RelaySignature)?;
    Ok(order.clone())
}

/// The rows are those under the signed roots, in order, each following from what it names.
fn check_groups(tbs: &CertificateTbs) -> Result<(), CertificateError> {
    let state = &tbs.state.state;
    let ids: Vec<GroupId> = tbs.groups.iter().map(|row| row.group).collect();
    let ascending = ids.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending
        || usize::try_from(state.count) != Ok(ids.len())
        || set_tree(&ids).root() != state.set_root
        || state_tree(&tbs.groups).root() != state.root
    {
        return Err(CertificateError::Groups);
    }
    let bad = tbs.groups.iter().find(|row| !follows(row));
    bad.map_or(Ok(()), |row| {
        Err(CertificateError::Row { group: row.group })
    })
}

fn follows(row: &OrderGroupState) -> bool {
    let rotated = row.attested.iter().any(|a| a.verdict == Verdict::Rotated);
    match row.state {
        GroupState::Sealed => row.attested.is_empty(),
        GroupState::Rotated => rotated,
        GroupState::Clean => !rotated && !row.attested.is_empty(),
        GroupState::Ended => true,
    }
}

fn check_attestations(
    tbs: &CertificateTbs,
    roster: &Roster,
) -> Result<Vec<VerifiedGroup>, CertificateError> {
    let mut attestations = tbs.attestations.iter();
    let mut groups = Vec::new();
    for row in &tbs.groups {
        let mut witnesses = Vec::new();
        for attested in &row.attested {
            let attestation = attestations
                .next()
                .ok_or(CertificateError::AttestationCount)?;
            let (group, device) = (row.group, attested.device);
            let user = check_attestation(tbs, roster, row.group, attested, attestation).map_err(
                |fault| CertificateError::Attestation {
                    group,
                    device,
                    fault,
                },
            )?;
            witnesses.push(Witness {
                kind: WitnessKind::Attestation,
                device,
                user,
                verdict: attested.verdict,
                epoch: attested.epoch,
                at_ms: attested.at_ms,
            });
        }
        groups.push(VerifiedGroup {
            group: row.group,
            state: row.state,
            witnesses,
            tree: None,
        });
    }
    if attestations.next().is_some() {
        return Err(CertificateError::AttestationCount);
    }
    Ok(groups)
}

/// Whose attestation it is (REQ-064).
fn check_attestation(
    tbs: &CertificateTbs,
    roster: &Roster,
    group: GroupId,
    attested: &Attested,
    attestation: &Attestation,
) -> Result<UserId, AttestationFault> {
    let said = &attestation.statement;
    let state = &tbs.state.state;
    let same = (said.group, said.order_seq, said.order_hash)
        == (group, state.order_seq, state.order_hash)
        && (said.device, said.verdict, said.epoch, said.entry_hash)
            == (
                attested.device,
                attested.verdict,
                attested.epoch,
                attested.entry_hash,
            )
        && said.roster_seq >= state.order_seq
        && roster.hash_at(said.roster_seq) == Some(said.roster_hash);
    if !same {
        return Err(AttestationFault::Other);
    }
    let record = roster
        .device(said.device)
        .filter(|d| d.is_admitted_at(said.roster_seq));
    let record = record.ok_or(AttestationFault::Signer)?;
    attestation
        .verify(&record.mls_signature_key, &attested.access_key)
        .map_err(|_| AttestationFault::Signature)?;
    Ok(record.user)
}

fn add_receipts(
    tbs: &CertificateTbs,
    roster: &Roster,
    groups: &mut [VerifiedGroup],
) -> Result<(), CertificateError> {
    let mut before = None;
    for receipt in &tbs.receipts {
        let said = &receipt.statement;
        let (group, device) = (said.group, said.device);
        let refused = |fault| CertificateError::Receipt {
            group,
            device,
            fault,
        };
        if before.replace((group, device)) >= Some((group, device)) {
            return Err(refused(ReceiptFault::Order));
        }
        let user = check_receipt(tbs, roster, receipt).map_err(refused)?;
        let place = groups.binary_search_by_key(&group, |g| g.group);
        let row = place.ok().and_then(|place| groups.get_mut(place));
        let row = row.ok_or_else(|| refused(ReceiptFault::Other))?;
        row.witnesses.push(Witness {
            kind: WitnessKind::Receipt,
            device,
            user,
            verdict: said.verdict,
            epoch: said.epoch,
            at_ms: said.at_ms,
        });
    }
    Ok(())
}

/// Whose receipt it is (REQ-174).
fn check_receipt(
    tbs: &CertificateTbs,
    roster: &Roster,
    receipt: &Receipt,
) -> Result<UserId, ReceiptFault> {
    let said = &receipt.statement;
    let state = &tbs.state.state;
    let same = (said.org, said.order_seq, said.order_hash)
        == (state.org, state.order_seq, state.order_hash);
    if !same {
        return Err(ReceiptFault::Other);
    }
    let stays = |revoked: Option<RosterSeq>| revoked.is_none_or(|at| at > state.order_seq);
    let record = roster.device(said.device).filter(|d| stays(d.revoked));
    let record = record.ok_or(ReceiptFault::Signer)?;
    receipt
        .verify(&record.mls_signature_key)
        .map_err(|_| ReceiptFault::Signature)?;
    if said.set_root != state.set_root {
        return Err(ReceiptFault::OtherSet);
    }
    Ok(record.user)
}

/// The GroupContext's tree hash and transcript hash, by epoch of a group.
type States<'a> = BTreeMap<(GroupId, Epoch), (&'a [u8], &'a [u8])>;

/// Statements about one epoch of one group name the same entry, tree and transcript.
fn check_agreement(tbs: &CertificateTbs) -> Result<(), CertificateError> {
    let mut entries: BTreeMap<(GroupId, Epoch), Hash> = BTreeMap::new();
    let mut trees = States::new();
    let attested = tbs.attestations.iter().map(|a| {
        let said = &a.statement;
        (said.group, said.epoch, said.entry_hash)
    });
    let received = tbs.receipts.iter().map(|r| {
        let said = &r.statement;
        (said.group, said.epoch, said.entry_hash)
    });
    for (group, epoch, entry) in attested.chain(received) {
        if *entries.entry((group, epoch)).or_insert(entry) != entry {
            return Err(CertificateError::Contradiction { group });
        }
    }
    for said in tbs.receipts.iter().map(|r| &r.statement) {
        let state = (
            said.tree_hash.as_slice(),
            said.confirmed_transcript_hash.as_slice(),
        );
        let group = said.group;
        if *trees.entry((group, said.epoch)).or_insert(state) != state {
            return Err(CertificateError::Contradiction { group });
        }
    }
    Ok(())
}

/// Disclosed trees are whole, are those of the receipts of their epoch, and hold nobody whom the order put out.
fn add_trees(
    tbs: &CertificateTbs,
    order: &Order,
    groups: &mut [VerifiedGroup],
) -> Result<(), CertificateError> {
    let mut before = None;
    for tree in &tbs.trees {
        let group = tree.group;
        let refused = |reason| CertificateError::Tree { group, reason };
        if before.replace(group) >= Some(group) {
            return Err(refused("is there twice, or out of order"));
        }
        let read = ReadTree::read(tree.ratchet_tree.as_slice());
        let read = read.ok_or_else(|| refused("is damaged"))?;
        let named =
            tbs.receipts.iter().map(|r| &r.statement).any(|said| {
                said.group == group && said.tree_hash.as_slice() == &read.tree_hash.0[..]
            });
        if !named {
            return Err(refused("is not one that a receipt names"));
        }
        if read
            .leaves
            .iter()
            .any(|leaf| order.devices.contains(&leaf.device))
        {
            return Err(refused("holds a leaf of those who were put out"));
        }
        let place = groups.binary_search_by_key(&group, |g| g.group);
        let row = place.ok().and_then(|place| groups.get_mut(place));
        row.ok_or_else(|| refused("is of a group that is not in the set"))?
            .tree = Some(read.leaves);
    }
    Ok(())
}
