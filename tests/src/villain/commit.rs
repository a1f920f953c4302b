//! Commits that no honest device would make, with everything around them as the device's keys allow.

use mortise_protocol::group::Crypto;
use mortise_protocol::group::{GROUP_POLICY_EXTENSION, GroupPolicy};
use mortise_protocol::identity::{DeviceId, PublicKey, SigningKey};
use mortise_protocol::wire::aad::AuthenticatedData;
use mortise_protocol::wire::log::{ACCESS_KEY_LABEL, CommitEntry};
use mortise_protocol::wire::{RecordBody, WelcomeFor};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize, VLBytes};
use openmls::prelude::{
    Extension, ExtensionType, Extensions, GroupContext, KeyPackage, LeafNodeIndex,
    LeafNodeParameters, MlsGroup, OpenMlsProvider as _, Proposal, RequiredCapabilitiesExtension,
    UnknownExtension,
};

use super::twist::{VillainProvider, VillainSigner};
use super::{Crafted, Package, Twist, Villain, seed};
use crate::world::World;

/// What a commit shall hold, and what shall be wrong with it. The default is an honest refresh of the own leaf.
#[derive(Default)]
pub struct Plan {
    /// Whom to add.
    pub adds: Vec<Package>,
    /// Whom to remove.
    pub removes: Vec<DeviceId>,
    /// The policy that shall hold afterwards.
    pub policy: Option<GroupPolicy>,
    /// The extensions of the GroupContext that shall hold afterwards, whatever they are.
    pub extensions: Option<Extensions<GroupContext>>,
    /// Further proposals, by value.
    pub proposals: Vec<Proposal>,
    /// Another leaf of its own.
    pub leaf: Option<LeafNodeParameters>,
    /// Does not carry out the leaves that were asked for.
    pub forgets_leaves: bool,
    /// Gives no new keys to its own leaf.
    pub without_path: bool,
    /// Other authenticated data than an honest device's.
    pub aad: Option<AuthenticatedData>,
    /// Announces another access key than the one that is derived.
    pub access_key: Option<PublicKey>,
    /// Signs the entry with another key.
    pub entry_key: Option<SigningKey>,
    /// Makes the path unreadable for these devices.
    pub noise_for: Vec<DeviceId>,
    /// What to change below openmls.
    pub twist: Twist,
}

impl Villain {
    /// Makes a commit; it is pending here afterwards, and [`Villain::follow`] merges it.
    ///
    /// # Panics
    /// When openmls does not make it, or when somebody else is hit too by noise that was not meant for them.
    pub fn commit(&mut self, world: &World, plan: Plan) -> Crafted {
        let noise = plan.noise_for.len();
        let (made, hits) = self.make_commit(world, plan);
        assert_eq!(hits, noise, "each of them had a seal of its own");
        made
    }

    /// Whether a commit's path is sealed to this device alone, and not to a node that others share (RFC 9420 §7.5).
    #[must_use]
    pub fn seals_alone_to(&self, world: &World, device: DeviceId) -> bool {
        let plan = Plan {
            noise_for: vec![device],
            ..Plan::default()
        };
        self.fork().make_commit(world, plan).1 == 1
    }

    /// A commit, and how many seals in it are noise.
    fn make_commit(&mut self, world: &World, mut plan: Plan) -> (Crafted, usize) {
        let aad = plan.aad.unwrap_or_else(|| self.honest_aad(world));
        let epoch = self.epoch();
        self.aim_noise(&mut plan);
        let added: Vec<_> = plan.adds.iter().map(|package| package.device).collect();
        let (twist, key) = (std::mem::take(&mut plan.twist), self.key.clone());
        let (entry_key, access_key) = (plan.entry_key.take(), plan.access_key);
        let made = self.with_mls(&twist, |mls, provider| {
            mls.set_aad(aad.to_bytes());
            let signer = VillainSigner {
                key: &key,
                twist: &twist,
            };
            build(mls, provider, &signer, plan)
        });
        let entry_key = entry_key.as_ref().unwrap_or(&self.key);
        let next = access_key.unwrap_or(made.access_key);
        let mut entry = CommitEntry::sign(self.group, epoch, made.commit, next, entry_key);
        entry.device = self.device;
        let crafted = Crafted {
            epoch,
            body: RecordBody::Commit(entry),
            welcomes: made
                .welcome
                .map(|welcome| WelcomeFor {
                    devices: added,
                    welcome: welcome.into(),
                })
                .into_iter()
                .collect(),
        };
        (crafted, twist.hits())
    }

    /// The access key of the epoch that its pending commit leads to.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn next_access_key(&self) -> SigningKey {
        self.look(|mls| next_access_key(mls, &self.crypto))
    }

    /// Finds the keys of the leaves that are to be given noise.
    fn aim_noise(&self, plan: &mut Plan) {
        let keys = plan.noise_for.iter().map(|device| self.leaf_key(*device));
        plan.twist.noise_for.extend(keys);
    }

    /// The encryption key of a member's leaf.
    ///
    /// # Panics
    /// When the device has no leaf.
    #[must_use]
    pub fn leaf_key(&self, device: DeviceId) -> Vec<u8> {
        self.look(|mls| {
            let leaf = mls.public_group().leaf(index_of(mls, device));
            hpke_key(leaf.expect("a leaf").encryption_key())
        })
    }
}

/// The leaf of a device, by the credential that it has.
///
/// # Panics
/// When it has none.
pub(super) fn index_of(mls: &MlsGroup, device: DeviceId) -> LeafNodeIndex {
    let mut members = mls.members();
    let found = members.find(|m| {
        let credential = mortise_protocol::group::DeviceCredential::read(&m.credential);
        credential.is_some_and(|c| c.device == device)
    });
    found.expect("a leaf of that device").index
}

/// The bytes of an HPKE public key.
fn hpke_key(key: &impl Serialize) -> Vec<u8> {
    let bytes = key.tls_serialize_detached().expect("a key");
    let key = VLBytes::tls_deserialize_exact(&bytes).expect("a vector");
    key.as_slice().to_vec()
}

struct Made {
    commit: Vec<u8>,
    welcome: Option<Vec<u8>>,
    access_key: PublicKey,
}

fn build(
    mls: &mut MlsGroup,
    provider: &VillainProvider<'_, '_>,
    signer: &VillainSigner<'_>,
    plan: Plan,
) -> Made {
    let removes: Vec<_> = plan.removes.iter().map(|d| index_of(mls, *d)).collect();
    let adds: Vec<KeyPackage> = plan.adds.into_iter().map(|p| p.key_package).collect();
    let mut builder = mls
        .commit_builder()
        .consume_proposal_store(!plan.forgets_leaves)
        .force_self_update(!plan.without_path)
        .propose_adds(adds)
        .propose_removals(removes)
        .add_proposals(plan.proposals);
    if let Some(leaf) = plan.leaf {
        builder = builder.leaf_node_parameters(leaf);
    }
    if let Some(extensions) = plan.extensions.or_else(|| plan.policy.map(extensions_of)) {
        let proposed = builder.propose_group_context_extensions(extensions);
        builder = proposed.expect("extensions that openmls takes");
    }
    let bundle = builder
        .load_psks(provider.storage())
        .expect("the PSKs that are proposed")
        .create_group_info(false)
        .use_ratchet_tree_extension(true)
        .build(provider.rand(), provider.crypto(), signer, |_| true)
        .expect("a commit that openmls makes")
        .stage_commit(provider)
        .expect("a commit that openmls encrypts");
    let welcome = bundle.to_welcome_msg();
    let welcome = welcome.map(|w| w.tls_serialize_detached().expect("a Welcome"));
    let commit = bundle.into_commit();
    Made {
        commit: commit.tls_serialize_detached().expect("a commit"),
        welcome,
        access_key: next_access_key(mls, provider.rand()).public(),
    }
}

fn next_access_key(mls: &MlsGroup, crypto: &Crypto) -> SigningKey {
    let staged = mls.pending_commit().expect("a pending commit");
    let group = mls.group_id().as_slice();
    let secret = staged.export_secret(crypto, ACCESS_KEY_LABEL, group, 32);
    SigningKey::from_seed(&seed(&secret.expect("a member exports")))
}

/// The GroupContext extensions of a Mortise group with this policy.
#[must_use]
fn extensions_of(policy: GroupPolicy) -> Extensions<GroupContext> {
    let kind = ExtensionType::Unknown(GROUP_POLICY_EXTENSION);
    Extensions::from_vec(vec![
        Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&[kind], &[], &[])),
        Extension::Unknown(GROUP_POLICY_EXTENSION, UnknownExtension(policy.to_bytes())),
    ])
    .expect("extensions of a GroupContext")
}
