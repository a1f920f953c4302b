//! Whether the keys of a tree can be used: a key that nothing can be sealed to keeps everybody from committing.
//!
//! RFC 9180 §7.1.4 has whoever seals refuse a shared secret of zeros, which every point of small order leads to, and a KEM refuses
//! a key of another form. RFC 9420 has nobody look before: a member whose leaf, or whose part of the tree, had such a key could
//! not be sealed to, and so not be removed by a path over it. This module must never say more of a key than that.

use openmls::group::PublicGroup;
use openmls::prelude::{Ciphersuite, LeafNode, LeafNodeIndex, ParentNodeIndex};
use openmls_traits::crypto::OpenMlsCrypto as _;
use tls_codec::{Deserialize as _, Serialize, VLByteVec};

use super::Crypto;
use super::validate::Violation;

/// Seals something to the key (REQ-431).
///
/// # Errors
/// [`Violation::UnusableKey`].
pub(super) fn check(crypto: &Crypto, suite: Ciphersuite, key: &[u8]) -> Result<(), Violation> {
    let sealed = crypto.hpke_seal(suite.hpke_config(), key, &[], &[], &[]);
    sealed.map(drop).map_err(|_| Violation::UnusableKey)
}

/// The same for a leaf's key.
pub(super) fn check_leaf(
    crypto: &Crypto,
    suite: Ciphersuite,
    leaf: &LeafNode,
) -> Result<(), Violation> {
    check_first(crypto, suite, leaf.encryption_key())
}

/// The same for the parents that a leaf is under: what its commit has set.
pub(super) fn check_path(
    crypto: &Crypto,
    group: &PublicGroup,
    leaf: LeafNodeIndex,
) -> Result<(), Violation> {
    check_parents(crypto, group, |parent| is_above(parent, leaf))
}

/// The same for every key of a tree.
pub(super) fn check_tree(crypto: &Crypto, group: &PublicGroup) -> Result<(), Violation> {
    for (_, leaf) in group.treesync().full_leaves() {
        check_leaf(crypto, group.ciphersuite(), leaf)?;
    }
    check_parents(crypto, group, |_| true)
}

fn check_parents(
    crypto: &Crypto,
    group: &PublicGroup,
    which: impl Fn(ParentNodeIndex) -> bool,
) -> Result<(), Violation> {
    for (index, parent) in group.treesync().full_parents() {
        if which(index) {
            check_first(crypto, group.ciphersuite(), parent)?;
        }
    }
    Ok(())
}

/// openmls gives the bytes of a key to nobody; they come first of what it is encoded in (RFC 9420 §7.1, §7.2).
fn check_first(
    crypto: &Crypto,
    suite: Ciphersuite,
    encoded: &impl Serialize,
) -> Result<(), Violation> {
    let bytes = encoded.tls_serialize_detached().ok();
    let key = bytes.and_then(|bytes| VLByteVec::tls_deserialize(&mut &bytes[..]).ok());
    check(crypto, suite, key.ok_or(Violation::UnusableKey)?.as_slice())
}

/// Whether a parent is on the direct path of a leaf (RFC 9420, appendix C).
fn is_above(parent: ParentNodeIndex, leaf: LeafNodeIndex) -> bool {
    let (parent, leaf) = (u64::from(parent.u32()), u64::from(leaf.u32()));
    let (parent, leaf) = (2 * parent + 1, 2 * leaf);
    // A parent of level k stands in the middle of 2^k leaves.
    parent.abs_diff(leaf) < 1 << parent.trailing_ones()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-431: of 2^3 leaves, each has the three parents that the RFC gives it.
    #[test]
    fn parents_of_a_leaf() {
        // Appendix C: the tree of 8 leaves has its parents at the odd places 1 to 13.
        let direct = [
            [1, 3, 7],
            [1, 3, 7],
            [5, 3, 7],
            [5, 3, 7],
            [9, 11, 7],
            [9, 11, 7],
            [13, 11, 7],
            [13, 11, 7],
        ];
        for (leaf, parents) in (0_u32..).zip(direct) {
            for at in (1..14_u32).step_by(2) {
                let index = encode_index(at / 2);
                let is_above = is_above(index, LeafNodeIndex::new(leaf));
                assert_eq!(is_above, parents.contains(&at), "leaf {leaf}, node {at}");
            }
        }
    }

    /// REQ-431: in both suites a key of ours can be sealed to; a point of small order, and what is no key, cannot.
    #[test]
    fn keys_that_nothing_can_be_sealed_to() {
        let crypto = Crypto::default();
        for suite in [1_u16, 0x4F] {
            let suite = Ciphersuite::try_from(suite).expect("a suite");
            let pair = crypto.derive_hpke_keypair(suite.hpke_config(), &[7; 32]);
            let key = pair.expect("a key pair").public;
            assert_eq!(check(&crypto, suite, &key), Ok(()));
            for bad in [&key[1..], &[], &[0; 32]] {
                assert_eq!(check(&crypto, suite, bad), Err(Violation::UnusableKey));
            }
        }
        let one = [&[1][..], &[0; 31]].concat();
        let suite = Ciphersuite::try_from(1).expect("a suite");
        assert_eq!(check(&crypto, suite, &one), Err(Violation::UnusableKey));
    }

    /// openmls makes no such index but from bytes.
    fn encode_index(index: u32) -> ParentNodeIndex {
        postcard::from_bytes(&postcard::to_allocvec(&index).expect("a number")).expect("an index")
    }
}
