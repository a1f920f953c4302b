//! Merkle trees in the form of RFC 6962, section 2.1, over labelled hashes (REQ-170).
//!
//! It must never decide what a leaf means, nor in which order leaves come.

use crate::identity::{Hash, hash};

const LEAF_LABEL: &str = "merkle leaf";
const NODE_LABEL: &str = "merkle node";
const EMPTY_LABEL: &str = "merkle empty";

/// The hash of a leaf's content.
#[must_use]
pub fn leaf(content: &[u8]) -> Hash {
    hash(LEAF_LABEL, content)
}

fn node(left: &Hash, right: &Hash) -> Hash {
    hash(NODE_LABEL, &[left.0, right.0].concat())
}

/// A tree with all its nodes, so that a path costs no hashing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerkleTree {
    /// The leaves first, the root last; each level has half of the one below it, an odd last node moves up as it is.
    levels: Vec<Vec<Hash>>,
}

impl MerkleTree {
    /// The tree over these leaf hashes, in this order.
    #[must_use]
    pub fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => node(left, right),
                [alone, ..] => *alone,
                [] => hash(EMPTY_LABEL, &[]),
            });
            let above = above.collect();
            levels.push(above);
        }
        Self { levels }
    }

    /// The tree over these contents.
    #[must_use]
    pub fn over<'a>(contents: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::new(contents.into_iter().map(leaf).collect())
    }

    /// The hash of everything; of no leaves, that of the label alone.
    #[must_use]
    pub fn root(&self) -> Hash {
        let top = self.levels.last().and_then(|level| level.first());
        top.copied().unwrap_or_else(|| hash(EMPTY_LABEL, &[]))
    }

    /// The audit path of a leaf, from the bottom up (RFC 6962, section 2.1.1); `None` beyond the last leaf.
    #[must_use]
    pub fn path(&self, index: usize) -> Option<Vec<Hash>> {
        self.levels.first()?.get(index)?;
        let mut at = index;
        let mut path = Vec::new();
        for level in &self.levels {
            path.extend(level.get(at ^ 1));
            at /= 2;
        }
        Some(path)
    }
}

/// Whether `leaf` is at `index` of the tree of `count` leaves with this root (RFC 9162, section 2.1.3.2).
#[must_use]
pub fn is_included(root: &Hash, leaf: Hash, index: u64, count: u64, path: &[Hash]) -> bool {
    if index >= count {
        return false;
    }
    let (mut at, mut last) = (index, count - 1);
    let mut found = leaf;
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            found = node(sibling, &found);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            found = node(&found, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && found == *root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(count: u8) -> (MerkleTree, Vec<Hash>) {
        let leaves: Vec<Hash> = (0..count).map(|n| leaf(&[n])).collect();
        (MerkleTree::new(leaves.clone()), leaves)
    }

    /// REQ-170: the recursive definition of RFC 6962, section 2.1.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => hash(EMPTY_LABEL, &[]),
            [one] => *one,
            more => {
                let half = more.len().next_power_of_two() / 2;
                node(&defined(&more[..half]), &defined(&more[half..]))
            }
        }
    }

    /// REQ-170: trees of every small size have the defined root, and every leaf its path.
    #[test]
    fn every_leaf_of_every_size_is_included() {
        for count in 0..40 {
            let (tree, leaves) = tree(count);
            assert_eq!(tree.root(), defined(&leaves));
            for (index, leaf) in (0_u64..).zip(&leaves) {
                let path = tree
                    .path(usize::try_from(index).expect("small"))
                    .expect("path");
                let count = u64::from(count);
                assert!(is_included(&tree.root(), *leaf, index, count, &path));
                assert!(!is_included(&tree.root(), *leaf, index + 1, count, &path));
                let other = super::leaf(b"another");
                assert!(!is_included(&tree.root(), other, index, count, &path));
            }
            assert_eq!(tree.path(usize::from(count)), None);
        }
    }

    /// REQ-170: a path that is cut, longer or changed proves nothing.
    #[test]
    fn a_changed_path_proves_nothing() {
        let (tree, leaves) = tree(13);
        for (index, leaf) in leaves.iter().enumerate() {
            let path = tree.path(index).expect("path");
            let holds = |path: &[Hash]| is_included(&tree.root(), *leaf, index as u64, 13, path);
            assert!(holds(&path));
            assert!(!holds(&path[1..]) && !holds(&path[..path.len() - 1]));
            assert!(!holds(&[&path[..], &[*leaf]].concat()));
            for n in 0..path.len() {
                let mut changed = path.clone();
                changed[n].0[0] ^= 1;
                assert!(!holds(&changed));
            }
        }
    }
}
