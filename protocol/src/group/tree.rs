//! A ratchet tree on its own: who is in it, and the hash that the GroupContext names it by (RFC 9420, sections 7.8,
//! 12.4.3.3).
//!
//! For trees that were disclosed in a certificate: the hash is compared with what members have signed. Nothing here
//! looks at a clock, so that what holds today holds in ten years; and nothing here may be used to join a group.

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use super::DeviceCredential;
use super::validate::Leaf;
use crate::identity::{Hash, PublicKey, decode, encode, sha256};

/// A tree that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadTree {
    /// The hash of the root: the GroupContext's tree_hash. Both suites hash with SHA-256.
    pub tree_hash: Hash,
    /// Who is in it, by leaf.
    pub leaves: Vec<Leaf>,
}

#[derive(Clone, Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct Capabilities {
    versions: VLByteVec,
    suites: VLByteVec,
    extensions: VLByteVec,
    proposals: VLByteVec,
    credentials: VLByteVec,
}

#[derive(Clone, Debug, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
enum Source {
    #[tls_codec(discriminant = 1)]
    KeyPackage { not_before: u64, not_after: u64 },
    #[tls_codec(discriminant = 2)]
    Update,
    #[tls_codec(discriminant = 3)]
    Commit(VLByteVec),
}

#[derive(Clone, Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct LeafNode {
    encryption_key: VLByteVec,
    signature_key: VLByteVec,
    credential_type: u16,
    identity: VLByteVec,
    capabilities: Capabilities,
    source: Source,
    extensions: VLByteVec,
    signature: VLByteVec,
}

#[derive(Clone, Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct ParentNode {
    encryption_key: VLByteVec,
    parent_hash: VLByteVec,
    unmerged_leaves: VLByteVec,
}

#[derive(Debug, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
#[expect(
    clippy::large_enum_variant,
    reason = "every other node of a tree is the large one"
)]
enum Node {
    #[tls_codec(discriminant = 1)]
    Leaf(LeafNode),
    #[tls_codec(discriminant = 2)]
    Parent(ParentNode),
}

#[derive(Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct Nodes(Vec<Option<Node>>);

/// TreeHashInput (RFC 9420, section 7.8).
#[derive(TlsSerialize, TlsSize)]
#[repr(u8)]
enum HashInput {
    #[tls_codec(discriminant = 1)]
    Leaf { index: u32, leaf: Option<LeafNode> },
    #[tls_codec(discriminant = 2)]
    Parent {
        parent: Option<ParentNode>,
        left: VLByteVec,
        right: VLByteVec,
    },
}

impl ReadTree {
    /// Reads what an MLS ratchet_tree extension holds; `None` when it is no such tree, or not one of our devices.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let Nodes(mut nodes) = decode(bytes).ok()?;
        // The last node of an encoded tree is never blank.
        nodes.last()?.as_ref()?;
        let leaf_count = nodes.len().div_ceil(2).checked_next_power_of_two()?;
        nodes.resize_with(2 * leaf_count - 1, || None);
        let kinds = nodes.iter().enumerate().all(|(at, node)| match node {
            None => true,
            Some(Node::Leaf(_)) => at % 2 == 0,
            Some(Node::Parent(_)) => at % 2 == 1,
        });
        if !kinds {
            return None;
        }
        let leaves = nodes.iter().filter_map(|node| match node {
            Some(Node::Leaf(leaf)) => Some(identify(leaf)),
            _ => None,
        });
        Some(Self {
            leaves: leaves.collect::<Option<_>>()?,
            tree_hash: root_hash(&nodes)?,
        })
    }
}

fn identify(node: &LeafNode) -> Option<Leaf> {
    let basic = node.credential_type == 1;
    let credential = DeviceCredential::parse(node.identity.as_slice()).filter(|_| basic)?;
    Some(Leaf {
        org: credential.org,
        user: credential.user,
        device: credential.device,
        key: PublicKey(node.signature_key.as_slice().try_into().ok()?),
    })
}

/// Level by level from the leaves, so that a deep tree costs no stack.
fn root_hash(nodes: &[Option<Node>]) -> Option<Hash> {
    let leaves = nodes.iter().step_by(2).zip(0_u32..).map(|(node, index)| {
        let leaf = match node {
            Some(Node::Leaf(leaf)) => Some(leaf.clone()),
            _ => None,
        };
        sha256(&encode(&HashInput::Leaf { index, leaf }))
    });
    let mut level: Vec<Hash> = leaves.collect();
    // Parents of a level are at 2^k - 1, then every 2^(k + 1) (RFC 9420, appendix C).
    let mut first = 1_usize;
    while level.len() > 1 {
        let parents = nodes.iter().skip(first).step_by(2 * (first + 1));
        let above = level.chunks_exact(2).zip(parents).map(|(pair, node)| {
            let parent = match node {
                Some(Node::Parent(parent)) => Some(parent.clone()),
                _ => None,
            };
            let hash = |at: usize| pair.get(at).map_or(Vec::new(), |h| h.0.to_vec());
            sha256(&encode(&HashInput::Parent {
                parent,
                left: hash(0).into(),
                right: hash(1).into(),
            }))
        });
        level = above.collect();
        first = 2 * first + 1;
    }
    level.first().copied()
}
