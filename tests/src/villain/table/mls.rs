//! Paths and leaves that MLS forbids (RFC 9420 §7, §12.4), in commits that are right but for them.

use std::sync::Arc;

use mortise_protocol::group::Violation;
use mortise_protocol::identity::SigningKey;

use super::super::stage::{Forged, Stage};
use super::super::{Plan, Twist};
use super::{READ, Row, raw, row};

pub(super) fn rows() -> Vec<Row> {
    [paths(), leaves(), keys()].into_iter().flatten().collect()
}

/// Refused by openmls, by this name.
fn mls(
    rules: &'static [&'static str],
    how: &'static str,
    name: &'static str,
    make: fn(&mut Stage) -> Forged,
) -> Row {
    row(rules, how, Violation::MlsRefused, READ, make).openmls(name)
}

fn paths() -> Vec<Row> {
    vec![
        mls(
            &["ValSem202", "valn1101"],
            "a path that is one node too short",
            "PathLengthMismatch",
            |stage| {
                stage.repaths(|path| {
                    path.nodes.pop();
                })
            },
        ),
        mls(
            &["ValSem202", "valn1101"],
            "a path that is one node too long",
            "PathLengthMismatch",
            |stage| {
                stage.repaths(|path| {
                    let mut last = path.nodes.last().expect("a node").clone();
                    last.key[0] ^= 1;
                    path.nodes.push(last);
                })
            },
        ),
        mls(
            &["ValSem203"],
            "a path secret that does not decrypt",
            "UnableToDecrypt",
            |stage| {
                let noise_for = vec![stage.world.people[Stage::BOB.0].device()];
                let plan = Plan {
                    noise_for,
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        mls(
            &["ValSem204", "valn1208"],
            "a path secret that does not lead to the path's public keys",
            "PathMismatch",
            |stage| {
                let key = stage.leaf_key(Stage::BOB);
                let plan = Plan {
                    twist: Twist::wrong_secret_for(key),
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        mls(
            &["RFC 9420 §7.9.2"],
            "a path whose public keys are not those that its leaf's parent hash is over",
            "ParentHashMismatch",
            |stage| stage.repaths(|path| path.nodes.iter_mut().for_each(|node| node.key[0] ^= 1)),
        ),
        mls(
            &["ValSem205", "RFC 9420 §8.1"],
            "a wrong confirmation tag",
            "ConfirmationTagMismatch",
            |stage| {
                let plan = Plan {
                    twist: Twist::bad_confirmation_tag(),
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        mls(
            &["ValSem207", "valn0112", "valn1209"],
            "a path with a public key that a leaf has",
            "Duplicate",
            |stage| {
                let key = stage.leaf_key(Stage::CY);
                stage.repaths(move |path| path.nodes[0].key.clone_from(&key))
            },
        ),
        mls(
            &["ValSem010", "valn1203", "valn1301"],
            "a commit with a wrong signature",
            "InvalidSignature",
            |stage| {
                let plan = Plan {
                    twist: Twist::bad_signature("FramedContentTBS"),
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
    ]
}

fn leaves() -> Vec<Row> {
    vec![
        mls(
            &["RFC 9420 §7.3", "valn1301"],
            "a path whose leaf is not signed",
            "Signature",
            |stage| {
                let plan = Plan {
                    twist: Twist::bad_signature("LeafNodeTBS"),
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        mls(
            &["ValSem206", "valn0112", "valn1209"],
            "a path whose leaf has the encryption key of another leaf",
            "Duplicate",
            |stage| {
                let key = stage.leaf_key(Stage::CY);
                stage.releafs(move |leaf| leaf.encryption_key.clone_from(&key))
            },
        ),
        mls(
            &["RFC 9420 §7.9.2", "valn1207"],
            "a path whose leaf has a wrong parent hash",
            "ParentHash",
            |stage| stage.releafs(|leaf| *leaf.source.last_mut().expect("a hash") ^= 1),
        ),
        mls(
            &["RFC 9420 §7.3", "valn0109"],
            "a path whose leaf says that it is from an Update",
            "InvalidType",
            |stage| stage.releafs(|leaf| leaf.source = vec![2]),
        ),
        mls(
            &["valn0103", "valn0113", "valn1210"],
            "a path whose leaf cannot do what the group requires",
            "Unsupported",
            |stage| stage.releafs(|leaf| leaf.capabilities[2].clear()),
        ),
        mls(
            &["valn0104", "valn0105"],
            "a path whose leaf does not support the credentials in use",
            "Credential",
            |stage| stage.releafs(|leaf| leaf.capabilities[4].clear()),
        ),
        mls(
            &["valn0107"],
            "a path whose leaf has an extension that it does not support",
            "Extension",
            |stage| {
                let extension = [vec![0xF0, 0xFD], raw::vector(b"x")].concat();
                stage.releafs(move |leaf| leaf.extensions.clone_from(&extension))
            },
        ),
        mls(
            &["valn1601"],
            "a path whose leaf has an extension that no leaf may have",
            "MalformedContent",
            |stage| {
                // external_senders, empty.
                let extension = [vec![0, 5], raw::vector(&[0])].concat();
                stage.releafs(move |leaf| leaf.extensions.clone_from(&extension))
            },
        ),
    ]
}

/// A commit whose n-th key, from below and its leaf last, is one that nothing can be sealed to.
fn unusable(how: &'static str, make: fn(&mut Stage) -> Forged) -> Row {
    let rules = &["REQ-431", "UNUSABLE_KEY"];
    row(rules, how, Violation::UnusableKey, READ, make)
}

fn keys() -> Vec<Row> {
    vec![
        unusable("a path whose leaf has a public key of zeros", |stage| {
            stage.commit(with_unusable_key(2))
        }),
        unusable(
            "a path with a public key of zeros for a parent that the receiver is not under",
            |stage| stage.commit(with_unusable_key(0)),
        ),
    ]
}

/// The stage's tree has four leaves: two parents are above each.
pub(super) fn with_unusable_key(nth: usize) -> Plan {
    Plan {
        twist: Twist::unusable_key(nth),
        ..Plan::default()
    }
}

/// A leaf's fields (RFC 9420 §7.2).
pub(super) struct Leaf {
    pub(super) encryption_key: Vec<u8>,
    signature_key: Vec<u8>,
    credential: Vec<u8>,
    /// Versions, suites, extensions, proposals, credentials.
    capabilities: [Vec<u8>; 5],
    /// The source, and what belongs to it.
    source: Vec<u8>,
    extensions: Vec<u8>,
    signature: Vec<u8>,
}

impl Leaf {
    /// The leaf that some bytes begin with, and the rest.
    fn take(bytes: &[u8]) -> (Self, &[u8]) {
        let (encryption_key, rest) = raw::take(bytes);
        let (signature_key, rest) = raw::take(rest);
        let (credential, mut rest) = raw::take(&rest[2..]);
        let capabilities = std::array::from_fn(|_| {
            let (list, after) = raw::take(rest);
            rest = after;
            list
        });
        let (source, rest) = match rest[0] {
            1 => rest.split_at(1 + 16),
            3 => rest.split_at(1 + rest[1..].len() - raw::take(&rest[1..]).1.len()),
            _ => rest.split_at(1),
        };
        let (extensions, rest) = raw::take(rest);
        let (signature, rest) = raw::take(rest);
        let leaf = Self {
            encryption_key,
            signature_key,
            credential,
            capabilities,
            source: source.to_vec(),
            extensions,
            signature,
        };
        (leaf, rest)
    }

    fn unsigned(&self) -> Vec<u8> {
        let mut bytes = [
            raw::vector(&self.encryption_key),
            raw::vector(&self.signature_key),
            vec![0, 1],
            raw::vector(&self.credential),
        ]
        .concat();
        for list in &self.capabilities {
            bytes.extend(raw::vector(list));
        }
        bytes.extend_from_slice(&self.source);
        bytes.extend(raw::vector(&self.extensions));
        bytes
    }

    /// Signs it for its place in a group, or for a KeyPackage if it has none (RFC 9420 §7.2, LeafNodeTBS).
    fn sign(&mut self, key: &SigningKey, place: Option<(&[u8], u32)>) {
        let mut tbs = self.unsigned();
        if let Some((group, index)) = place {
            tbs.extend(raw::vector(group));
            tbs.extend(index.to_be_bytes());
        }
        self.signature = raw::sign(key, b"LeafNodeTBS", &tbs);
    }

    fn to_bytes(&self) -> Vec<u8> {
        [self.unsigned(), raw::vector(&self.signature)].concat()
    }
}

#[derive(Clone)]
struct Node {
    key: Vec<u8>,
    secrets: Vec<u8>,
}

/// An UpdatePath (RFC 9420 §7.6).
struct UpdatePath {
    leaf: Leaf,
    nodes: Vec<Node>,
}

impl UpdatePath {
    /// The path of a commit.
    fn of(commit: &[u8]) -> Self {
        let (_, path) = raw::proposals_of(commit);
        let (leaf, rest) = Leaf::take(&path[1..]);
        let (list, _) = raw::take(rest);
        let (mut nodes, mut rest) = (Vec::new(), &list[..]);
        while !rest.is_empty() {
            let (key, after) = raw::take(rest);
            let (secrets, after) = raw::take(after);
            nodes.push(Node { key, secrets });
            rest = after;
        }
        Self { leaf, nodes }
    }

    /// The commit with this path.
    fn within(&self, commit: &[u8]) -> Vec<u8> {
        let (proposals, _) = raw::proposals_of(commit);
        let nodes: Vec<u8> = self
            .nodes
            .iter()
            .flat_map(|node| [raw::vector(&node.key), raw::vector(&node.secrets)].concat())
            .collect();
        [
            raw::vector(&proposals),
            vec![1],
            self.leaf.to_bytes(),
            raw::vector(&nodes),
        ]
        .concat()
    }
}

/// An Update with a leaf like that in a commit's path, but for its encryption key.
pub(super) fn update_of(commit: &[u8], key: &SigningKey, group: &[u8], index: u32) -> Vec<u8> {
    let mut leaf = UpdatePath::of(commit).leaf;
    leaf.source = vec![2];
    leaf.encryption_key[0] ^= 1;
    leaf.sign(key, Some((group, index)));
    leaf.to_bytes()
}

/// A KeyPackage's fields (RFC 9420 §10).
pub(super) struct RawPackage {
    /// Version and suite.
    head: Vec<u8>,
    pub(super) init_key: Vec<u8>,
    pub(super) leaf: Leaf,
    extensions: Vec<u8>,
}

impl RawPackage {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (head, rest) = bytes.split_at(4);
        let (init_key, rest) = raw::take(rest);
        let (leaf, rest) = Leaf::take(rest);
        let (extensions, _) = raw::take(rest);
        Self {
            head: head.to_vec(),
            init_key,
            leaf,
            extensions,
        }
    }

    /// Signs leaf and KeyPackage.
    pub(super) fn sign(mut self, key: &SigningKey) -> Vec<u8> {
        self.leaf.sign(key, None);
        let tbs = [
            self.head,
            raw::vector(&self.init_key),
            self.leaf.to_bytes(),
            raw::vector(&self.extensions),
        ]
        .concat();
        let signature = raw::sign(key, b"KeyPackageTBS", &tbs);
        [tbs, raw::vector(&signature)].concat()
    }
}

impl Stage {
    /// The encryption key of somebody's leaf.
    fn leaf_key(&mut self, who: crate::world::PersonId) -> Vec<u8> {
        let device = self.world.people[who.0].device();
        self.villain().leaf_key(device)
    }

    /// A commit with another path.
    fn repaths(&mut self, change: impl Fn(&mut UpdatePath) + Send + Sync + 'static) -> Forged {
        self.rewrites(move |commit| {
            let mut path = UpdatePath::of(commit);
            change(&mut path);
            path.within(commit)
        })
    }

    /// A commit whose path has another leaf, which is signed.
    fn releafs(&mut self, change: impl Fn(&mut Leaf) + Send + Sync + 'static) -> Forged {
        let (key, group): (Arc<SigningKey>, _) = (self.villain().key.clone(), self.group.0);
        let index = self.leaf(Self::VIC);
        self.repaths(move |path| {
            change(&mut path.leaf);
            path.leaf.sign(&key, Some((&group[..], index)));
        })
    }
}
