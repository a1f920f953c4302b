//! Certificates, whole and tampered with: sections 11.4 to 11.7.
//!
//! Ann owns the organisation, Bob administrates it and orders Gil's removal; Cy and Dot vouch for groups; Eve is in the
//! organisation and states nothing.

use mortise_protocol::certificate::{
    self, Certificate, CertificateTbs, ChainItem, DisclosedTree, Evidence, Maker,
};
use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, OrgId, PublicKey, RosterSeq, SigningKey, encode, hash,
};
use mortise_protocol::roster::authority::Role;
use mortise_protocol::roster::{EntrySigner, Op};
use mortise_protocol::wire::log::{AttestationStatement, Verdict};
use mortise_protocol::wire::{
    Attestation, Attested, GroupState, OrderGroupState, OrderSet, OrderState, Receipt,
    ReceiptStatement, SignedOrderSet, SignedOrderState, chain_hash, merkle, set_tree, state_tree,
};
use serde_json::{Value, json};

use super::fields::Fields;
use super::hex;
use super::story::{Device, Invitation, NOW_MS, ROOT, STATEMENT, Story, add_user, key, sign};

/// Everything that the certificates of this file are made of.
#[derive(Debug)]
pub struct Scene {
    story: Story,
    order: RosterSeq,
    /// The keys of Eve, who states nothing.
    pub bystander: Vec<PublicKey>,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Story({} entries)", self.entries.len())
    }
}

/// A file, and what verifying it must say.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it.
    pub name: &'static str,
    /// The fingerprint that it is verified against.
    pub root: OrgId,
    /// The file.
    pub file: Vec<u8>,
    /// The error's name; `None` for a certificate that holds.
    pub error: Option<&'static str>,
}

fn ann() -> Device {
    Device::new(0x0a, 10)
}

fn bob() -> Device {
    Device::new(0x0b, 30)
}

fn cy() -> Device {
    Device::new(0x0c, 40)
}

fn dot() -> Device {
    Device::new(0x0d, 50)
}

fn eve() -> Device {
    Device::new(0x0e, 60)
}

fn gil() -> Device {
    Device::new(0x10, 70)
}

/// The key that opens a group's log after the order.
fn access_key(group: u8) -> SigningKey {
    key(0x80 | group)
}

fn group(number: u8) -> GroupId {
    GroupId([number; 32])
}

fn opening(number: u8) -> Hash {
    hash("entry", &[number])
}

const EPOCH: Epoch = Epoch(7);

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    /// The organisation, up to the order and an entry after it.
    ///
    /// # Panics
    /// When an entry of the story is not valid.
    #[must_use]
    pub fn new() -> Self {
        let mut story = Story::new();
        let ops = story.genesis_ops(&ann());
        let genesis = sign(story.tbs(EntrySigner::Root, ops), &key(ROOT));
        story.take("Ann founds", ROOT, genesis);
        let people = [
            (bob(), 0x0b, Role::Admin, 20),
            (cy(), 0x0c, Role::Member, 21),
            (dot(), 0x0d, Role::Member, 22),
            (eve(), 0x0e, Role::Member, 23),
            (gil(), 0x10, Role::Member, 24),
        ];
        for (device, user, role, invitation) in people {
            let invitation = Invitation(invitation);
            let ops = vec![add_user(user, role), invitation.op(device.user)];
            let entry = story.by(&ann(), ops);
            story.take("Ann invites", 10, entry);
            let entry = story.redeem(invitation, &device);
            story.take("who was invited joins", invitation.0, entry);
        }
        let removal = Op::RemoveUser { user: gil().user };
        let entry = story.by(&bob(), vec![removal]);
        story.take("Bob removes Gil", 30, entry);
        let order = story.roster.head().seq;
        let entry = story.by(&ann(), vec![add_user(0x11, Role::Guest)]);
        story.take("life goes on", 10, entry);
        let add = eve().add(story.org());
        Self {
            order,
            bystander: vec![add.mls_signature_key, add.transport_key, add.seal_key.0],
            story,
        }
    }

    /// The fingerprint of the organisation's root key.
    #[must_use]
    pub fn root(&self) -> OrgId {
        self.story.org()
    }

    fn order_hash(&self) -> Hash {
        self.story.roster.hash_at(self.order).expect("the order")
    }

    fn attested(&self, number: u8, device: &Device, verdict: Verdict) -> (Attested, Attestation) {
        let head = self.story.roster.head();
        let access = access_key(number);
        let statement = AttestationStatement {
            order_seq: self.order,
            order_hash: self.order_hash(),
            group: group(number),
            entry_hash: opening(number),
            epoch: EPOCH,
            roster_seq: head.seq,
            roster_hash: head.hash,
            verdict,
            device: device.id(),
        };
        let attested = Attested {
            device: device.id(),
            verdict,
            epoch: EPOCH,
            entry_hash: opening(number),
            access_key: access.public(),
            opened_at_ms: NOW_MS + 100,
            at_ms: NOW_MS + 200,
        };
        (
            attested,
            Attestation::sign(statement, &device.mls(), &access),
        )
    }

    fn receipt(&self, number: u8, device: &Device, set_root: Hash) -> Receipt {
        let statement = ReceiptStatement {
            org: self.root(),
            order_seq: self.order,
            order_hash: self.order_hash(),
            group: group(number),
            epoch: EPOCH,
            entry_hash: opening(number),
            tree_hash: vec![0x7e; 32].into(),
            confirmed_transcript_hash: vec![0x7c; 32].into(),
            verdict: Verdict::Rotated,
            set_root,
            device: device.id(),
            at_ms: NOW_MS + 300,
        };
        Receipt::sign(statement, &device.mls())
    }

    /// Group 1 was rotated, 2 was clean, 3 is sealed, 4 has ended.
    fn evidence(&self) -> Evidence {
        let first = [
            self.attested(1, &cy(), Verdict::Rotated),
            self.attested(1, &dot(), Verdict::Rotated),
        ];
        let second = [self.attested(2, &dot(), Verdict::Clean)];
        let row = |number, state, attested: &[(Attested, Attestation)]| OrderGroupState {
            group: group(number),
            state,
            epoch: EPOCH,
            entry_hash: opening(number),
            attested: attested.iter().map(|(row, _)| row.clone()).collect(),
        };
        let groups = vec![
            row(1, GroupState::Rotated, &first),
            row(2, GroupState::Clean, &second),
            row(3, GroupState::Sealed, &[]),
            row(4, GroupState::Ended, &[]),
        ];
        let state = self.state(&groups);
        let set_root = state.state.set_root;
        let attestations = first.into_iter().chain(second).map(|(_, said)| said);
        Evidence {
            state,
            groups,
            attestations: attestations.collect(),
            receipts: vec![
                self.receipt(1, &cy(), set_root),
                self.receipt(1, &dot(), set_root),
            ],
            trees: Vec::new(),
        }
    }

    /// What the relay signs over these rows.
    fn state(&self, groups: &[OrderGroupState]) -> SignedOrderState {
        let ids: Vec<GroupId> = groups.iter().map(|row| row.group).collect();
        let state = OrderState {
            org: self.root(),
            order_seq: self.order,
            order_hash: self.order_hash(),
            appended_at_ms: NOW_MS + 1,
            closed: 1,
            head: self.story.roster.head(),
            chain: chain_hash(self.story.roster.hashes().iter().copied()),
            count: u32::try_from(ids.len()).expect("few"),
            set_root: set_tree(&ids).root(),
            root: state_tree(groups).root(),
            at_ms: NOW_MS + 400,
        };
        SignedOrderState::sign(state, &key(STATEMENT))
    }

    /// A certificate that Ann makes.
    ///
    /// # Panics
    /// When it does not hold.
    #[must_use]
    pub fn certificate(&self, disclose: bool) -> Vec<u8> {
        let maker = Maker {
            roster: &self.story.roster,
            entries: &self.story.entries,
            key: &ann().mls(),
            now_ms: NOW_MS + 500,
        };
        certificate::compile(maker, self.evidence(), disclose).expect("it holds")
    }

    /// What Ann signs in a certificate.
    ///
    /// # Panics
    /// When the certificate does not decode.
    #[must_use]
    pub fn tbs(&self, disclose: bool) -> CertificateTbs {
        let bytes = self.certificate(disclose);
        let whole: Certificate = mortise_protocol::identity::decode(&bytes).expect("it decodes");
        whole.tbs
    }

    /// A certificate of whatever Ann chooses to sign.
    #[must_use]
    pub fn signed_by_maker(&self, tbs: CertificateTbs) -> Vec<u8> {
        signed(tbs, &ann().mls())
    }

    /// A certificate that Ann has signed with something in it changed.
    fn changed(&self, change: impl FnOnce(&mut CertificateTbs)) -> Vec<u8> {
        let mut tbs = self.tbs(false);
        change(&mut tbs);
        self.signed_by_maker(tbs)
    }

    /// As [`Scene::changed`], and the relay has signed for it too.
    fn conspired(&self, change: impl FnOnce(&mut CertificateTbs)) -> Vec<u8> {
        self.changed(|tbs| {
            change(tbs);
            tbs.state = self.state(&tbs.groups);
        })
    }

    /// Every case.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let root = self.root();
        let case = |name, error, file| Case {
            name,
            root,
            file,
            error,
        };
        let mut cases = vec![
            case("as it is made", None, self.certificate(false)),
            case("with everything shown", None, self.certificate(true)),
        ];
        let files = self.damaged().into_iter().chain(self.of_the_roster());
        let files = files.chain(self.of_the_relay()).chain(self.of_members());
        cases.extend(files.map(|(name, error, file)| case(name, Some(error), file)));
        cases.push(Case {
            name: "of another organisation",
            root: OrgId([0x0a; 32]),
            file: self.certificate(false),
            error: Some("wrong_root"),
        });
        cases
    }

    fn damaged(&self) -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let whole = self.certificate(false);
        let mut later = whole.clone();
        later[0] = 2;
        let unsigned = {
            let mut tbs = self.tbs(false);
            tbs.at_ms += 1;
            signed(tbs, &cy().mls())
        };
        vec![
            ("empty", "malformed", Vec::new()),
            ("cut", "malformed", whole[..whole.len() - 1].to_vec()),
            ("longer", "malformed", [&whole[..], &[0]].concat()),
            ("of a later version", "wrong_version", later),
            ("signed by another device", "maker", unsigned),
            ("made by who was removed", "maker", self.removed_maker()),
        ]
    }

    fn removed_maker(&self) -> Vec<u8> {
        let mut tbs = self.tbs(false);
        tbs.device = gil().id();
        signed(tbs, &gil().mls())
    }

    fn of_the_roster(&self) -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let forged = self.changed(|tbs| {
            if let Some(ChainItem::Shown(entry)) = tbs.chain.get_mut(1) {
                let mut bytes = entry.as_slice().to_vec();
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                *entry = bytes.into();
            }
        });
        let hidden = self.changed(|tbs| {
            let hash = self.story.roster.hash_at(RosterSeq(2)).expect("the entry");
            tbs.chain[1] = ChainItem::Hidden(hash);
        });
        let rootless = self.changed(|tbs| tbs.chain.clear());
        let other = self.changed(|tbs| {
            let at = tbs
                .chain
                .iter()
                .rposition(|item| matches!(item, ChainItem::Hidden(_)));
            tbs.chain[at.expect("one is hidden")] = ChainItem::Hidden(Hash([0x66; 32]));
        });
        vec![
            ("an entry with a forged signature", "chain", forged),
            ("the invitation of a signer hidden", "chain", hidden),
            ("without a roster", "chain", rootless),
            ("a hidden entry of another roster", "other_state", other),
        ]
    }

    fn of_the_relay(&self) -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let resigned = |change: fn(&mut OrderState)| {
            self.changed(|tbs| {
                let mut state = tbs.state.state;
                change(&mut state);
                tbs.state = SignedOrderState::sign(state, &key(STATEMENT));
            })
        };
        let by_another = self.changed(|tbs| {
            tbs.state = SignedOrderState::sign(tbs.state.state, &key(0x77));
        });
        let omitted = self.changed(|tbs| {
            tbs.groups.remove(2);
        });
        let swapped = self.conspired(|tbs| tbs.groups.swap(2, 3));
        let softened = self.conspired(|tbs| tbs.groups[2].state = GroupState::Clean);
        let counted = resigned(|state| state.count += 1);
        vec![
            (
                "about an entry that is no order",
                "not_an_order",
                resigned(|state| state.order_seq = RosterSeq(2)),
            ),
            (
                "about another entry of that number",
                "other_state",
                resigned(|state| state.order_hash = Hash([1; 32])),
            ),
            (
                "a statement that the relay did not sign",
                "relay_signature",
                by_another,
            ),
            ("a group left out", "groups", omitted),
            ("groups out of order", "groups", swapped),
            ("more groups signed for than there are", "groups", counted),
            ("a sealed group shown as clean", "row", softened),
        ]
    }

    fn of_members(&self) -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let missing = self.changed(|tbs| {
            tbs.attestations.pop();
        });
        let too_many = self.changed(|tbs| {
            let one = tbs.attestations[0].clone();
            tbs.attestations.push(one);
        });
        let forged = self.changed(|tbs| {
            tbs.attestations[0].device_signature = tbs.attestations[1].device_signature;
        });
        let keyless = self.conspired(|tbs| {
            tbs.groups[0].attested[0].access_key = key(0x79).public();
        });
        let departed = self.conspired(|tbs| {
            let (row, said) = self.attested(2, &gil(), Verdict::Clean);
            tbs.groups[1].attested = vec![row];
            tbs.attestations[2] = said;
        });
        let set_root = self.tbs(false).state.state.set_root;
        let with_receipt = |receipt: Receipt| {
            self.changed(|tbs| {
                tbs.receipts.push(receipt);
                tbs.receipts
                    .sort_by_key(|r| (r.statement.group, r.statement.device));
            })
        };
        let mut forged_receipt = self.receipt(1, &bob(), set_root);
        forged_receipt.statement.at_ms += 1;
        let mut other_tree = self.receipt(1, &bob(), set_root).statement;
        other_tree.tree_hash = vec![0x11; 32].into();
        let other_tree = Receipt::sign(other_tree, &bob().mls());
        let tree = self.changed(|tbs| {
            tbs.trees = vec![DisclosedTree {
                group: group(1),
                ratchet_tree: vec![0; 40].into(),
            }];
        });
        vec![
            ("an attestation missing", "attestation_count", missing),
            ("an attestation too many", "attestation_count", too_many),
            ("a forged attestation", "attestation", forged),
            (
                "an attestation without the access key",
                "attestation",
                keyless,
            ),
            ("an attestation by who was removed", "attestation", departed),
            ("a forged receipt", "receipt", with_receipt(forged_receipt)),
            (
                "a receipt by who was removed",
                "receipt",
                with_receipt(self.receipt(1, &gil(), set_root)),
            ),
            (
                "a receipt for another set of groups",
                "receipt",
                with_receipt(self.receipt(1, &bob(), Hash([9; 32]))),
            ),
            (
                "a receipt for a group that is not in the set",
                "receipt",
                with_receipt(self.receipt(9, &bob(), set_root)),
            ),
            (
                "the same receipt twice",
                "receipt",
                with_receipt(self.receipt(1, &cy(), set_root)),
            ),
            (
                "two trees for one epoch",
                "contradiction",
                with_receipt(other_tree),
            ),
            ("a disclosed tree that is none", "tree", tree),
        ]
    }
}

fn signed(tbs: CertificateTbs, key: &SigningKey) -> Vec<u8> {
    let signature = key.sign("certificate", &encode(&tbs));
    encode(&Certificate { tbs, signature })
}

pub(super) fn vectors() -> Value {
    let scene = Scene::new();
    json!({
        "merkle": trees(),
        "sets": [set(&scene)],
        "certificates": scene.cases().iter().map(written).collect::<Value>(),
    })
}

/// Trees over leaves of one byte each, and the path of every leaf.
fn trees() -> Value {
    (0_u8..6)
        .map(|count| {
            let leaves: Vec<Vec<u8>> = (0..count).map(|n| vec![n]).collect();
            let tree = merkle::MerkleTree::over(leaves.iter().map(Vec::as_slice));
            let paths: Vec<Value> = (0..usize::from(count))
                .filter_map(|index| tree.path(index))
                .map(|path| path.fields())
                .collect();
            json!({
                "leaves": leaves.iter().map(hex).collect::<Value>(),
                "root": tree.root().fields(),
                "paths": paths,
            })
        })
        .collect()
}

fn set(scene: &Scene) -> Value {
    let groups: Vec<GroupId> = (1..=4).map(group).collect();
    let tree = set_tree(&groups);
    let set = OrderSet {
        org: scene.root(),
        order_seq: scene.order,
        order_hash: scene.order_hash(),
        count: 4,
        root: tree.root(),
    };
    let signed = SignedOrderSet::sign(set, &key(STATEMENT));
    json!({
        "statement_key": key(STATEMENT).public().fields(),
        "groups": groups.fields(),
        "set": hex(encode(&signed)),
        "fields": signed.fields(),
    })
}

fn written(case: &Case) -> Value {
    let whole = mortise_protocol::identity::decode::<Certificate>(&case.file).ok();
    json!({
        "name": case.name,
        "root": case.root.fields(),
        "file": hex(&case.file),
        "fields": whole.filter(|_| case.name == "as it is made").map(|whole| whole.fields()),
        "error": case.error,
    })
}

/// Whose statements the certificates of this file hold.
#[must_use]
pub fn signers() -> Vec<DeviceId> {
    [ann(), cy(), dot()].iter().map(Device::id).collect()
}
