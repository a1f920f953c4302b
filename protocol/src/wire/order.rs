//! What the relay states about an order: which groups there were, and how each stands (REQ-171 to REQ-173).
//!
//! Both statements are signed with the relay's statement key, so that they count without the relay. Nothing here
//! decides what is true; it says who states what.

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

use super::log::Verdict;
use super::merkle::{self, MerkleTree};
use super::{GroupState, RosterHead};
use crate::identity::{
    DeviceId, Epoch, GroupId, Hash, KeyError, OrgId, PublicKey, RosterSeq, Signature, SigningKey,
    encode, hash,
};

const SET_LABEL: &str = "order set";
const STATE_LABEL: &str = "order state";
const CHAIN_LABEL: &str = "roster chain";

/// Which groups the organisation had when the order was appended: said once, and never otherwise (REQ-171).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct OrderSet {
    /// The organisation.
    pub org: OrgId,
    /// The order's seq in the roster.
    pub order_seq: RosterSeq,
    /// The order's entry hash.
    pub order_hash: Hash,
    /// How many groups.
    pub count: u32,
    /// The Merkle root over their ids, in ascending order.
    pub root: Hash,
}

/// An [`OrderSet`] with the relay's signature, label `order set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct SignedOrderSet {
    /// What is stated.
    pub set: OrderSet,
    /// By the relay's statement key.
    pub signature: Signature,
}

impl SignedOrderSet {
    /// Signs a set.
    #[must_use]
    pub fn sign(set: OrderSet, statement_key: &SigningKey) -> Self {
        let signature = statement_key.sign(SET_LABEL, &encode(&set));
        Self { set, signature }
    }

    /// Checks the relay's signature.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(&self, statement_key: &PublicKey) -> Result<(), KeyError> {
        statement_key.verify(SET_LABEL, &encode(&self.set), &self.signature)
    }

    /// Whether the set holds this group at `index`, by an audit path.
    #[must_use]
    pub fn includes(&self, group: GroupId, index: u32, path: &[Hash]) -> bool {
        let (index, count) = (u64::from(index), u64::from(self.set.count));
        merkle::is_included(&self.set.root, merkle::leaf(&group.0), index, count, path)
    }
}

/// The tree of [`OrderSet::root`]; the ids must be in ascending order.
#[must_use]
pub fn set_tree(groups: &[GroupId]) -> MerkleTree {
    MerkleTree::over(groups.iter().map(|group| &group.0[..]))
}

/// One attestation as the relay knows it (REQ-064).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Attested {
    /// Who attested.
    pub device: DeviceId,
    /// What.
    pub verdict: Verdict,
    /// The epoch that was looked at.
    pub epoch: Epoch,
    /// Its opening entry.
    pub entry_hash: Hash,
    /// The public half of its access key.
    pub access_key: PublicKey,
    /// When that epoch was opened, relay's clock, ms since 1970.
    pub opened_at_ms: u64,
    /// When the attestation was appended, relay's clock, ms since 1970.
    pub at_ms: u64,
}

/// How one group stands with regard to an order: a leaf of the state's tree (REQ-173).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct OrderGroupState {
    /// The group.
    pub group: GroupId,
    /// How it stands.
    pub state: GroupState,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Its opening entry.
    pub entry_hash: Hash,
    /// In the order of the log; the first ones, if there are more than a limit.
    pub attested: Vec<Attested>,
}

/// How every group of an order's set stands, at one time (REQ-173).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct OrderState {
    /// The organisation.
    pub org: OrgId,
    /// The order's seq in the roster.
    pub order_seq: RosterSeq,
    /// The order's entry hash.
    pub order_hash: Hash,
    /// When the relay appended the order, relay's clock, ms since 1970: from then on it is the fence.
    pub appended_at_ms: u64,
    /// How many connections of the order's devices it closed with that.
    pub closed: u32,
    /// The roster's newest entry now.
    pub head: RosterHead,
    /// The hashes of all entries up to it, see [`chain_hash`].
    pub chain: Hash,
    /// How many groups, as in the [`OrderSet`].
    pub count: u32,
    /// The root of the [`OrderSet`].
    pub set_root: Hash,
    /// The Merkle root over the encoded [`OrderGroupState`]s, by ascending group id.
    pub root: Hash,
    /// Now, relay's clock, ms since 1970.
    pub at_ms: u64,
}

/// An [`OrderState`] with the relay's signature, label `order state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct SignedOrderState {
    /// What is stated.
    pub state: OrderState,
    /// By the relay's statement key.
    pub signature: Signature,
}

impl SignedOrderState {
    /// Signs a state.
    #[must_use]
    pub fn sign(state: OrderState, statement_key: &SigningKey) -> Self {
        let signature = statement_key.sign(STATE_LABEL, &encode(&state));
        Self { state, signature }
    }

    /// Checks the relay's signature.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(&self, statement_key: &PublicKey) -> Result<(), KeyError> {
        statement_key.verify(STATE_LABEL, &encode(&self.state), &self.signature)
    }
}

/// The tree of [`OrderState::root`]; the groups must be in ascending order.
#[must_use]
pub fn state_tree(groups: &[OrderGroupState]) -> MerkleTree {
    MerkleTree::new(groups.iter().map(|g| merkle::leaf(&encode(g))).collect())
}

/// The hash over the hashes of a roster's entries, in order (REQ-173).
#[must_use]
pub fn chain_hash(hashes: impl IntoIterator<Item = Hash>) -> Hash {
    let all: Vec<u8> = hashes.into_iter().flat_map(|hash| hash.0).collect();
    hash(CHAIN_LABEL, &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(groups: &[GroupId], key: &SigningKey) -> SignedOrderSet {
        let set = OrderSet {
            org: OrgId([1; 32]),
            order_seq: RosterSeq(4),
            order_hash: Hash([2; 32]),
            count: u32::try_from(groups.len()).expect("few"),
            root: set_tree(groups).root(),
        };
        SignedOrderSet::sign(set, key)
    }

    /// REQ-171: the set is signed, and holds the groups that it was made of and no other.
    #[test]
    fn a_set_holds_its_groups_and_no_other() {
        let key = SigningKey::from_seed(&[3; 32]);
        let groups: Vec<GroupId> = (1..8).map(|n| GroupId([n; 32])).collect();
        let signed = set(&groups, &key);
        assert_eq!(signed.verify(&key.public()), Ok(()));
        let tree = set_tree(&groups);
        for (index, group) in (0_u32..).zip(&groups) {
            let path = tree.path(index as usize).expect("path");
            assert!(signed.includes(*group, index, &path));
            assert!(!signed.includes(GroupId([9; 32]), index, &path));
        }
        let mut other = signed;
        other.set.count -= 1;
        assert!(other.verify(&key.public()).is_err());
    }

    /// REQ-173: a set is not a state, even with the same bytes before the signature.
    #[test]
    fn the_labels_differ() {
        let key = SigningKey::from_seed(&[3; 32]);
        let signed = set(&[], &key);
        let wrong = key.sign(STATE_LABEL, &encode(&signed.set));
        let forged = SignedOrderSet {
            signature: wrong,
            ..signed
        };
        assert!(forged.verify(&key.public()).is_err());
    }

    /// REQ-173: order and number of the entries are in the chain's hash.
    #[test]
    fn the_chain_is_hashed_in_order() {
        let (a, b) = (Hash([1; 32]), Hash([2; 32]));
        assert_ne!(chain_hash([a, b]), chain_hash([b, a]));
        assert_ne!(chain_hash([a]), chain_hash([a, a]));
    }
}
