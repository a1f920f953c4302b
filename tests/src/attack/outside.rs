//! What RFC 9420 lets people outside a group send, and Mortise does not take: external joins, external proposals, and
//! proposals that somebody stored for later. openmls makes them; openmls itself, with its doors open, is the control.

use mortise_protocol::group::Crypto;
use mortise_protocol::group::{DeviceCredential, GROUP_POLICY_EXTENSION, GroupPolicy, MlsProvider};
use mortise_protocol::identity::{DeviceId, Epoch, GroupId, PublicKey, SigningKey, UserId, encode};
use mortise_protocol::store::{MemoryStore, Tx};
use mortise_protocol::wire::RecordBody;
use mortise_protocol::wire::log::{ACCESS_KEY_LABEL, CommitEntry};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _, VLBytes};
use openmls::prelude::{
    BasicCredential, CredentialWithKey, JoinProposal, MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY,
    MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider as _,
};
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;

use super::stage::{BOB, Stage, snapshot};
use crate::villain::{Crafted, Package, Twist, Villain};
use crate::world::{PersonId, World};

/// Signs for openmls with a device's key.
pub(super) struct KeySigner<'a>(pub(super) &'a SigningKey);

impl Signer for KeySigner<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign_as_is(payload).0.to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A KeyPackage from the relay's stock, which stays there.
pub(super) fn stocked(world: &World, who: PersonId, suite: u16) -> Package {
    Package::stocked(world, who, suite)
}

/// A GroupInfo that somebody's device signs for whoever wants to join from outside.
pub(super) fn group_info(world: &mut World, who: PersonId, group: GroupId) -> Vec<u8> {
    let villain = Villain::copy(world, who, group);
    let key = villain.key.clone();
    let info =
        villain.look(|mls| mls.export_group_info(&Crypto::default(), &KeySigner(&key), true));
    let info = info.expect("a member exports");
    info.tls_serialize_detached().expect("a GroupInfo")
}

/// Joins by a GroupInfo: the commit, and the access key that would come of it.
pub(super) fn external_commit(
    info: &[u8],
    key: &SigningKey,
    user: UserId,
    like: &Villain,
) -> (Vec<u8>, PublicKey) {
    let (crypto, store) = (Crypto::default(), MemoryStore::default());
    let tx = Tx::new(&store);
    let provider = MlsProvider::new(&crypto, &tx);
    let message = MlsMessageIn::tls_deserialize_exact(info).expect("an MLSMessage");
    let MlsMessageBodyIn::GroupInfo(info) = message.extract() else {
        panic!("a GroupInfo")
    };
    let credential = encode(&DeviceCredential {
        version: 1,
        org: like.org,
        user,
        device: key.public().device_id(),
    });
    let credential = CredentialWithKey {
        credential: BasicCredential::new(credential).into(),
        signature_key: key.public().0.to_vec().into(),
    };
    let leaf = like
        .look(|mls| mls.own_leaf_node().cloned())
        .expect("a leaf");
    let parameters = openmls::prelude::LeafNodeParameters::builder()
        .with_capabilities(leaf.capabilities().clone())
        .build();
    let (mls, bundle) = MlsGroup::external_commit_builder()
        .skip_lifetime_validation()
        .build_group(&provider, info, credential)
        .expect("a group from outside")
        .leaf_node_parameters(parameters)
        .load_psks(provider.storage())
        .expect("no PSKs")
        .build(provider.rand(), provider.crypto(), &KeySigner(key), |_| {
            true
        })
        .expect("an external commit")
        .finalize(&provider)
        .expect("an external commit");
    let secret = mls
        .export_secret(&crypto, ACCESS_KEY_LABEL, mls.group_id().as_slice(), 32)
        .expect("an exporter");
    let seed = secret.try_into().expect("32 bytes");
    let commit = bundle.into_commit();
    let commit = commit.tls_serialize_detached().expect("a commit");
    (commit, SigningKey::from_seed(&seed).public())
}

/// Tries a commit from outside: by the leaver's own connection, then with the relay's help, on Bob. In the control, on
/// openmls without our rules.
pub(super) fn try_commit(stage: &mut Stage, commit: &[u8], next: PublicKey) -> Option<String> {
    if !stage.defended {
        let taken = opens_without_rules(stage, commit);
        return taken.then(|| "openmls takes it where no rule is in the way".into());
    }
    let (group, epoch) = (stage.group, stage.x.epoch());
    let entry = CommitEntry::sign(group, epoch, commit.to_vec(), next, &stage.x.key);
    let made = crafted(epoch, RecordBody::Commit(entry));
    try_record(stage, &made)
}

/// The same for any record: nothing may change for anybody.
pub(super) fn try_record(stage: &mut Stage, made: &Crafted) -> Option<String> {
    let door = crate::attack::door::Door::open(&mut stage.world, stage.x.transport_key);
    if door.submit(&mut stage.world, &stage.x, made).is_ok() {
        return Some("the relay takes it from somebody who is out".into());
    }
    stage.show_commit(BOB, made)
}

pub(super) fn crafted(epoch: Epoch, body: RecordBody) -> Crafted {
    Crafted {
        epoch,
        body,
        welcomes: Vec::new(),
    }
}

/// Whether openmls takes a message in Bob's group when all of its doors are open and none of our rules is asked.
pub(super) fn opens_without_rules(stage: &mut Stage, message: &[u8]) -> bool {
    let (crypto, store) = (Crypto::default(), snapshot(&mut stage.world, BOB));
    let tx = Tx::new(&store);
    let provider = MlsProvider::new(&crypto, &tx);
    let id = openmls::prelude::GroupId::from_slice(&stage.group.0);
    let mls = MlsGroup::load(provider.storage(), &id).expect("a store that reads");
    let mut mls = mls.expect("a group");
    let open = MlsGroupJoinConfig::builder()
        .wire_format_policy(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .build();
    mls.set_configuration(provider.storage(), &open)
        .expect("a configuration");
    let message = MlsMessageIn::tls_deserialize_exact(message).expect("an MLSMessage");
    let message = message
        .try_into_protocol_message()
        .expect("a message of a group");
    mls.process_message(&provider, message).is_ok()
}

/// An Add of the leaver's own device, proposed from outside.
pub(super) fn external_proposal(stage: &Stage) -> Vec<u8> {
    let package = stocked(&stage.world, super::stage::X, stage.suite);
    let epoch = openmls::prelude::GroupEpoch::from(stage.x.epoch().0);
    let id = openmls::prelude::GroupId::from_slice(&stage.group.0);
    let key = stage.x.key.clone();
    let made = JoinProposal::new::<mortise_protocol::group::storage::MlsStorage<'_, '_>>(
        package.key_package().clone(),
        id,
        epoch,
        &KeySigner(&key),
    );
    made.expect("a proposal")
        .tls_serialize_detached()
        .expect("a proposal")
}

/// Makes a leave into an Add by reference (RFC 9420 §12.1.1).
pub(super) fn as_add(package: &Package) -> Twist {
    const ADD: u16 = 1;
    let package = package
        .key_package()
        .tls_serialize_detached()
        .expect("a KeyPackage");
    let body = [&ADD.to_be_bytes()[..], &package].concat();
    Twist::body(move |_| body.clone())
}

/// Makes a leave into the Remove of another leaf (RFC 9420 §12.1.3).
pub(super) fn as_remove_of(by: &Villain, device: DeviceId) -> Twist {
    const REMOVE: u16 = 3;
    let index = by.look(|mls| {
        let mut members = mls.members();
        members.find_map(|m| {
            let credential = DeviceCredential::read(&m.credential)?;
            (credential.device == device).then(|| m.index.u32())
        })
    });
    let index = index.expect("a member");
    let body = [&REMOVE.to_be_bytes()[..], &index.to_be_bytes()].concat();
    Twist::body(move |_| body.clone())
}

/// Makes the list of a commit's proposals one PreSharedKey of a PSK that outsiders know (RFC 9420 §8.4, §12.1.4).
pub(super) fn with_psk() -> Twist {
    const BY_VALUE: u8 = 1;
    const PSK: u16 = 4;
    const EXTERNAL: u8 = 1;
    let id = VLBytes::new(b"known to the leaver".to_vec());
    let nonce = VLBytes::new(vec![7; 32]);
    let mut proposal = vec![BY_VALUE];
    proposal.extend(PSK.to_be_bytes());
    proposal.push(EXTERNAL);
    proposal.extend(id.tls_serialize_detached().expect("an id"));
    proposal.extend(nonce.tls_serialize_detached().expect("a nonce"));
    let proposals = VLBytes::new(proposal);
    let proposals = proposals.tls_serialize_detached().expect("proposals");
    Twist::body(move |commit| {
        let mut rest = commit;
        VLBytes::tls_deserialize(&mut rest).expect("the commit's own proposals");
        [&proposals[..], rest].concat()
    })
}

/// The policy of the group as a device holds it.
pub(super) fn policy_of(by: &Villain) -> GroupPolicy {
    let bytes = by.look(|mls| {
        let policy = mls.extensions().unknown(GROUP_POLICY_EXTENSION);
        policy.map(|extension| extension.0.clone())
    });
    let policy = bytes.as_deref().and_then(GroupPolicy::from_bytes);
    policy.expect("a policy")
}
