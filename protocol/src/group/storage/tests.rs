//! Real groups of two members, reloaded from the store after every step.

use openmls::ciphersuite::hash_ref::ProposalRef;
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::*;
use openmls::schedule::{ExternalPsk, PreSharedKeyId, Psk};
use openmls_basic_credential::SignatureKeyPair;

use super::rows::FORMAT;
use super::*;
use crate::store::{MemoryStore, Reader as _, commit};

const CLASSIC: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const HYBRID: Ciphersuite = Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;

/// An extension type that openmls does not know.
const OUR_EXTENSION: u16 = 0xff01;

/// A member with a store of its own.
struct Member {
    store: MemoryStore,
    crypto: Crypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
    suite: Ciphersuite,
}

impl Member {
    fn new(name: &str, suite: Ciphersuite) -> Self {
        let signer = SignatureKeyPair::new(suite.signature_algorithm()).expect("key pair");
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.into()).into(),
            signature_key: signer.public().into(),
        };
        Self {
            store: MemoryStore::default(),
            crypto: Crypto::default(),
            signer,
            credential,
            suite,
        }
    }

    /// Runs `step` in a transaction and commits it.
    fn transact<T>(&mut self, step: impl FnOnce(&Self, &MlsProvider<'_, '_>) -> T) -> T {
        let tx = Tx::new(&self.store);
        let out = step(self, &MlsProvider::new(&self.crypto, &tx));
        let batch = tx.into_batch().expect("batch");
        commit(&mut self.store, &batch).expect("commit");
        out
    }

    /// Runs `step` in a transaction and drops it.
    fn roll_back<T>(&self, step: impl FnOnce(&Self, &MlsProvider<'_, '_>) -> T) -> T {
        let tx = Tx::new(&self.store);
        step(self, &MlsProvider::new(&self.crypto, &tx))
    }

    /// Runs `step` on the stored group and commits what it does.
    fn in_group<T>(
        &mut self,
        step: impl FnOnce(&mut MlsGroup, &Self, &MlsProvider<'_, '_>) -> T,
    ) -> T {
        self.transact(|member, provider| step(&mut load(provider), member, provider))
    }

    fn create_group(&mut self) {
        self.transact(|member, provider| {
            MlsGroup::builder()
                .with_group_id(group_id())
                .ciphersuite(member.suite)
                .with_wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
                .use_ratchet_tree_extension(true)
                .max_past_epochs(0)
                .with_capabilities(capabilities(member.suite))
                .with_group_context_extensions(context_extensions())
                .build(provider, &member.signer, member.credential.clone())
                .expect("group")
        });
    }

    fn key_package(&mut self) -> KeyPackage {
        let bundle = self.transact(|member, provider| {
            KeyPackage::builder()
                .leaf_node_capabilities(capabilities(member.suite))
                .build(
                    member.suite,
                    provider,
                    &member.signer,
                    member.credential.clone(),
                )
                .expect("key package")
        });
        let bytes = bundle.key_package().tls_serialize_detached();
        KeyPackageIn::tls_deserialize_exact(bytes.expect("bytes"))
            .expect("parse")
            .validate(&self.crypto, ProtocolVersion::Mls10)
            .expect("valid")
    }

    /// Commits to `change` and to every queued proposal, leaving the commit pending.
    fn commit(
        &mut self,
        change: impl for<'b> FnOnce(CommitBuilder<'b, Initial>) -> CommitBuilder<'b, Initial>,
    ) -> CommitMessageBundle {
        self.in_group(|group, member, provider| {
            change(group.commit_builder())
                .load_psks(provider.storage())
                .expect("psks")
                .build(provider.rand(), provider.crypto(), &member.signer, |_| true)
                .expect("build")
                .stage_commit(provider)
                .expect("stage")
        })
    }

    fn merge_pending(&mut self) {
        self.in_group(|group, _, provider| {
            assert!(group.pending_commit().is_some());
            group.merge_pending_commit(provider).expect("merge");
        });
    }

    fn join(&mut self, welcome: MlsMessageOut) {
        let MlsMessageBodyIn::Welcome(welcome) = wire(&welcome).extract() else {
            panic!("not a welcome");
        };
        self.transact(|_, provider| {
            let config = MlsGroupJoinConfig::builder()
                .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
                .use_ratchet_tree_extension(true)
                .max_past_epochs(0)
                .build();
            StagedWelcome::build_from_welcome(provider, &config, welcome)
                .expect("welcome")
                .build()
                .expect("staged")
                .into_group(provider)
                .expect("joined")
        });
    }

    fn send(&mut self, aad: &[u8], text: &[u8]) -> MlsMessageOut {
        self.in_group(|group, member, provider| {
            group.set_aad(aad.to_vec());
            group
                .create_message(provider, &member.signer, text)
                .expect("message")
        })
    }

    fn receive(&mut self, message: &MlsMessageOut) {
        self.in_group(|group, _, provider| receive(group, provider, message));
    }

    fn epoch(&self) -> u64 {
        self.roll_back(|_, provider| load(provider).epoch().as_u64())
    }

    fn rows(&self) -> Vec<u8> {
        let rows = self.store.range(MLS, &[], &[], usize::MAX).expect("range");
        rows.iter().map(|(key, _)| key[0]).collect()
    }
}

fn group_id() -> GroupId {
    GroupId::from_slice(b"the group")
}

fn load(provider: &MlsProvider<'_, '_>) -> MlsGroup {
    MlsGroup::load(provider.storage(), &group_id())
        .expect("load")
        .expect("is stored")
}

fn capabilities(suite: Ciphersuite) -> Capabilities {
    Capabilities::builder()
        .ciphersuites(vec![suite])
        .extensions(vec![ExtensionType::Unknown(OUR_EXTENSION)])
        .build()
}

fn context_extensions() -> Extensions<GroupContext> {
    let ours = ExtensionType::Unknown(OUR_EXTENSION);
    Extensions::from_vec(vec![
        Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&[ours], &[], &[])),
        Extension::Unknown(OUR_EXTENSION, UnknownExtension(b"content".to_vec())),
    ])
    .expect("allowed in a group context")
}

fn wire(message: &MlsMessageOut) -> MlsMessageIn {
    let bytes = message.tls_serialize_detached().expect("serialize");
    MlsMessageIn::tls_deserialize_exact(bytes).expect("deserialize")
}

/// Processes `message`: merges a commit, queues a proposal, checks the content of an application message.
fn receive(group: &mut MlsGroup, provider: &MlsProvider<'_, '_>, message: &MlsMessageOut) {
    let message = wire(message).try_into_protocol_message().expect("protocol");
    let processed = group.process_message(provider, message).expect("process");
    let aad = processed.aad().to_vec();
    match processed.into_content() {
        ProcessedMessageContent::ApplicationMessage(message) => {
            assert_eq!(message.into_bytes(), [b"text of ", &aad[..]].concat());
        }
        ProcessedMessageContent::ProposalMessage(proposal) => group
            .store_pending_proposal(provider.storage(), *proposal)
            .expect("queue"),
        ProcessedMessageContent::StagedCommitMessage(staged) => {
            group.merge_staged_commit(provider, *staged).expect("merge")
        }
        other => panic!("unexpected content: {other:?}"),
    }
}

/// Both are in the same epoch with the same secrets, and can write to each other.
fn assert_agree(alice: &mut Member, bob: &mut Member) {
    let export = |member: &Member| {
        member.roll_back(|member, provider| {
            let group = load(provider);
            assert_eq!(*group.extensions(), context_extensions());
            group
                .export_secret(&member.crypto, "label", b"context", 32)
                .expect("export")
        })
    };
    assert_eq!(alice.epoch(), bob.epoch());
    assert_eq!(export(alice), export(bob));
    for _ in 0..2 {
        let message = alice.send(b"alice", b"text of alice");
        bob.receive(&message);
        let message = bob.send(b"bob", b"text of bob");
        alice.receive(&message);
    }
}

fn group_of_two(suite: Ciphersuite) -> (Member, Member) {
    let (mut alice, mut bob) = (Member::new("alice", suite), Member::new("bob", suite));
    alice.create_group();
    let key_package = bob.key_package();
    let bundle = alice.commit(|builder| builder.propose_adds([key_package]));
    alice.merge_pending();
    bob.join(bundle.into_welcome_msg().expect("welcome"));
    assert_agree(&mut alice, &mut bob);
    (alice, bob)
}

fn self_update_rolled_back_once(suite: Ciphersuite) {
    let (mut alice, mut bob) = group_of_two(suite);
    let update = bob
        .commit(|builder| builder.force_self_update(true))
        .into_commit();
    let before = alice.epoch();
    alice.roll_back(|_, provider| {
        let mut group = load(provider);
        receive(&mut group, provider, &update);
        assert_eq!(group.epoch().as_u64(), before + 1);
        assert_eq!(load(provider).epoch(), group.epoch());
    });
    assert_eq!(alice.epoch(), before);
    alice.receive(&update);
    bob.merge_pending();
    assert_agree(&mut alice, &mut bob);
}

fn proposals_are_queued_and_committed(suite: Ciphersuite) {
    let (mut alice, mut bob) = group_of_two(suite);
    let (remove, dropped) = bob.in_group(|group, bob, provider| {
        group
            .propose_remove_member(provider, &bob.signer, LeafNodeIndex::new(0))
            .expect("propose")
    });
    alice.receive(&remove);
    let updates: Vec<_> = (0..2)
        .map(|_| {
            bob.in_group(|group, bob, provider| {
                let parameters = LeafNodeParameters::default();
                group
                    .propose_self_update(provider, &bob.signer, parameters)
                    .expect("propose")
            })
        })
        .collect();
    for (message, _) in &updates {
        alice.receive(message);
    }
    for member in [&mut alice, &mut bob] {
        member.in_group(|group, _, provider| {
            group
                .remove_pending_proposal(provider.storage(), &dropped)
                .expect("remove");
        });
        member.roll_back(|_, provider| {
            let refs: Vec<ProposalRef> = provider
                .storage()
                .queued_proposal_refs(&group_id())
                .expect("refs");
            assert_eq!(refs, [updates[0].1.clone(), updates[1].1.clone()]);
            assert!(load(provider).has_pending_proposals());
        });
    }
    let commit = alice.commit(|builder| builder).into_commit();
    bob.receive(&commit);
    alice.merge_pending();
    let lists = [Row::OwnLeafNode as u8, Row::Proposal as u8];
    assert!(!bob.rows().iter().any(|tag| lists.contains(tag)));
    assert_agree(&mut alice, &mut bob);
}

fn a_pending_commit_is_cleared(suite: Ciphersuite) {
    let (mut alice, mut bob) = group_of_two(suite);
    alice.commit(|builder| builder.force_self_update(true));
    alice.in_group(|group, _, provider| {
        group
            .clear_pending_commit(provider.storage())
            .expect("clear");
    });
    alice.in_group(|group, _, _| assert!(group.pending_commit().is_none()));
    assert_agree(&mut alice, &mut bob);
}

fn a_psk_is_stored_and_used(suite: Ciphersuite) {
    let (mut alice, mut bob) = group_of_two(suite);
    let psk = Psk::External(ExternalPsk::new(b"psk".to_vec()));
    let id = PreSharedKeyId::new(suite, &alice.crypto, psk).expect("id");
    for member in [&mut alice, &mut bob] {
        member.transact(|_, provider| id.store(provider, b"secret").expect("store"));
    }
    let proposal = Proposal::PreSharedKey(Box::new(PreSharedKeyProposal::new(id)));
    let commit = alice
        .commit(|builder| builder.add_proposal(proposal))
        .into_commit();
    bob.receive(&commit);
    alice.merge_pending();
    assert_agree(&mut alice, &mut bob);
}

fn a_removed_member_and_a_deleted_group_leave_nothing(suite: Ciphersuite) {
    let (mut alice, mut bob) = group_of_two(suite);
    let commit = alice
        .commit(|builder| builder.propose_removals([LeafNodeIndex::new(1)]))
        .into_commit();
    bob.receive(&commit);
    alice.merge_pending();
    bob.in_group(|group, _, _| assert!(!group.is_active()));
    for member in [&mut alice, &mut bob] {
        member.in_group(|group, _, provider| group.delete(provider.storage()).expect("delete"));
        member.roll_back(|_, provider| {
            let group = MlsGroup::load(provider.storage(), &group_id()).expect("load");
            assert!(group.is_none());
        });
        assert_eq!(member.rows(), [0u8; 0]);
    }
}

/// One test per scenario and suite.
macro_rules! for_both_suites {
    ($($scenario:ident)*) => {
        mod classic {
            $(#[test] fn $scenario() { super::$scenario(super::CLASSIC); })*
        }
        mod hybrid {
            $(#[test] fn $scenario() { super::$scenario(super::HYBRID); })*
        }
    };
}

for_both_suites! {
    self_update_rolled_back_once
    proposals_are_queued_and_committed
    a_pending_commit_is_cleared
    a_psk_is_stored_and_used
    a_removed_member_and_a_deleted_group_leave_nothing
}

#[test]
fn a_signature_key_pair_is_stored_read_and_deleted() {
    let mut member = Member::new("alice", CLASSIC);
    let scheme = CLASSIC.signature_algorithm();
    let read = |member: &Member| {
        member.roll_back(|member, provider| {
            SignatureKeyPair::read(provider.storage(), member.signer.public(), scheme)
        })
    };
    assert!(read(&member).is_none());
    member.transact(|member, provider| member.signer.store(provider.storage()).expect("store"));
    assert_eq!(
        read(&member).expect("is stored").public(),
        member.signer.public()
    );
    member.transact(|member, provider| {
        SignatureKeyPair::delete(provider.storage(), member.signer.public(), scheme)
            .expect("delete");
    });
    assert_eq!(member.rows(), [0u8; 0]);
}

#[test]
fn lists_of_different_groups_do_not_meet() {
    let store = MemoryStore::default();
    let tx = Tx::new(&store);
    let storage = MlsStorage { tx: &tx };
    let groups = [b"g".as_slice(), b"g\0", b"gg"].map(GroupId::from_slice);
    for (group, value) in groups.iter().cycle().zip(0u8..9) {
        storage
            .append(Row::OwnLeafNode, group, &[], &value)
            .expect("append");
    }
    storage
        .erase_all(Row::OwnLeafNode, &groups[0])
        .expect("erase");
    let values = |group| {
        let rows = storage.list(Row::OwnLeafNode, group).expect("list");
        let values = rows.iter().map(|(_, v)| decode(Row::OwnLeafNode, v));
        values.collect::<Result<Vec<u8>>>().expect("values")
    };
    assert_eq!(values(&groups[0]), [0u8; 0]);
    assert_eq!(values(&groups[1]), [1, 4, 7]);
    assert_eq!(values(&groups[2]), [2, 5, 8]);
}

#[test]
fn damaged_rows_are_refused() {
    for row in [Row::Tree, Row::JoinConfig] {
        let good = encode(row, &"value").expect("encode");
        assert_eq!(decode::<String>(row, &good).expect("decode"), "value");
        let mut other_version = good.clone();
        other_version[0] += 1;
        let cut = good[..good.len() - 1].to_vec();
        let longer = [&good[..], &[0]].concat();
        for bad in [Vec::new(), vec![FORMAT], other_version, cut, longer] {
            let refused = decode::<String>(row, &bad);
            assert!(
                matches!(refused, Err(MlsStorageError::Damaged { row: r }) if r == row),
                "{bad:?}"
            );
        }
    }
}
