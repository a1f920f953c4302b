//! mls-rs as our profile wants it: credentials from the roster, no proposal but ours, everything encrypted.
//!
//! What mls-rs leaves to the application is answered here; what a group accepts beyond that is in [`super::rules`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use mls_rs::client_builder::{BaseConfig, WithCryptoProvider, WithIdentityProvider, WithMlsRules};
use mls_rs::error::IntoAnyError;
use mls_rs::extension::built_in::RequiredCapabilitiesExt;
use mls_rs::extension::{ExtensionType, MlsExtension};
use mls_rs::group::{GroupContext, Roster};
use mls_rs::identity::basic::BasicCredential;
use mls_rs::identity::{CredentialType, SigningIdentity};
use mls_rs::mls_rs_codec::MlsDecode as _;
use mls_rs::mls_rules::{
    CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle,
};
use mls_rs::time::MlsTime;
use mls_rs::{Client, Extension, ExtensionList, Group, IdentityProvider, KeyPackage, MlsRules};
use mls_rs_core::identity::MemberValidationContext;
use mortise_protocol::group::{
    DeviceCredential, GROUP_POLICY_EXTENSION, GroupPolicy, RESYNC_EXTENSION,
};
use mortise_protocol::identity::{PublicKey, SigningKey, decode, encode};
use mortise_protocol::wire::limits::KEY_PACKAGE_LIFETIME_MS;
use mortise_protocol::wire::log::ACCESS_KEY_LABEL;

use super::crypto::OneSuite;
use super::rules::Leaf;

/// The extension that a last-resort KeyPackage carries (RFC 9420 §17.3 leaves it to draft-ietf-mls-extensions).
const LAST_RESORT: ExtensionType = ExtensionType::new(0x000A);
/// How far the clocks of others may be behind, seconds (REQ-092).
const CLOCK_SLACK_S: u64 = 3_600;
const POLICY: ExtensionType = ExtensionType::new(GROUP_POLICY_EXTENSION);
const RESYNC: ExtensionType = ExtensionType::new(RESYNC_EXTENSION);

type Config =
    WithMlsRules<Profile, WithIdentityProvider<InRoster, WithCryptoProvider<OneSuite, BaseConfig>>>;
/// mls-rs's client, of one suite.
pub(super) type MlsClient = Client<Config>;
/// mls-rs's group.
pub(super) type MlsGroup = Group<Config>;

/// The roster as far as a device has it, where mls-rs can ask it.
pub(super) type SharedRoster = Arc<Mutex<mortise_protocol::roster::Roster>>;

/// A leaf that is not one of ours, or not of the roster (REQ-080).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the leaf is no device of the roster")]
pub(super) struct NotInRoster;

impl IntoAnyError for NotInRoster {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

/// Reads a leaf; `None` when its credential or key is not of our form (REQ-080).
pub(super) fn leaf_of(identity: &SigningIdentity) -> Option<Leaf> {
    let content = identity.credential.as_basic()?.identifier();
    let credential: DeviceCredential = decode(content).ok()?;
    let key = <[u8; 32]>::try_from(identity.signature_key.as_bytes()).ok()?;
    (credential.version == 1).then_some(Leaf {
        org: credential.org,
        user: credential.user,
        device: credential.device,
        key: PublicKey(key),
    })
}

/// Whether a leaf is a device's of the roster, admitted or burned; who is admitted is for the rules to say, at `s`.
#[derive(Clone)]
pub(super) struct InRoster(pub(super) SharedRoster);

impl InRoster {
    fn leaf(&self, identity: &SigningIdentity) -> Result<Leaf, NotInRoster> {
        let leaf = leaf_of(identity).ok_or(NotInRoster)?;
        let roster = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = roster.device(leaf.device).ok_or(NotInRoster)?;
        let same = known.mls_signature_key == leaf.key && known.user == leaf.user;
        (same && leaf.org == roster.org())
            .then_some(leaf)
            .ok_or(NotInRoster)
    }
}

impl IdentityProvider for InRoster {
    type Error = NotInRoster;

    fn validate_member(
        &self,
        identity: &SigningIdentity,
        _timestamp: Option<MlsTime>,
        _context: MemberValidationContext<'_>,
    ) -> Result<(), NotInRoster> {
        self.leaf(identity).map(|_| ())
    }

    fn validate_external_sender(
        &self,
        _identity: &SigningIdentity,
        _timestamp: Option<MlsTime>,
        _extensions: Option<&ExtensionList>,
    ) -> Result<(), NotInRoster> {
        Err(NotInRoster)
    }

    fn identity(
        &self,
        identity: &SigningIdentity,
        _extensions: &ExtensionList,
    ) -> Result<Vec<u8>, NotInRoster> {
        Ok(self.leaf(identity)?.device.0.to_vec())
    }

    fn valid_successor(
        &self,
        predecessor: &SigningIdentity,
        successor: &SigningIdentity,
        _extensions: &ExtensionList,
    ) -> Result<bool, NotInRoster> {
        Ok(self.leaf(predecessor)? == self.leaf(successor)?)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![CredentialType::BASIC]
    }
}

/// A proposal that no policy of ours lets through (REQ-081).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("FORBIDDEN_PROPOSAL")]
pub(super) struct ForbiddenProposal;

impl IntoAnyError for ForbiddenProposal {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

/// The profile of section 10.1, as mls-rs asks for it.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// Whether a commit that only adds has a path all the same; RFC 9420 §12.4 leaves it to the committer.
    pub(super) always_path: bool,
}

impl MlsRules for Profile {
    type Error = ForbiddenProposal;

    /// By value: Add, Remove, GroupContextExtensions. By reference: a leaf's Remove of itself (REQ-081, REQ-082.7).
    fn filter_proposals(
        &self,
        _direction: CommitDirection,
        source: CommitSource,
        _roster: &Roster<'_>,
        _context: &GroupContext,
        proposals: ProposalBundle,
    ) -> Result<ProposalBundle, ForbiddenProposal> {
        let by_value = proposals.add_proposals().iter().all(|p| p.is_by_value())
            && proposals
                .group_context_ext_proposals()
                .iter()
                .all(|p| p.is_by_value());
        let leaves = proposals.remove_proposals().iter().all(|p| {
            p.is_by_value() || *p.sender() == mls_rs::group::Sender::Member(p.proposal.to_remove())
        });
        let nothing_else = proposals.update_proposals().is_empty()
            && proposals.reinit_proposals().is_empty()
            && proposals.external_init_proposals().is_empty();
        let by_member = matches!(source, CommitSource::ExistingMember(_));
        (by_value && leaves && nothing_else && by_member)
            .then_some(proposals)
            .ok_or(ForbiddenProposal)
    }

    fn commit_options(
        &self,
        _roster: &Roster<'_>,
        _context: &GroupContext,
        _proposals: &ProposalBundle,
    ) -> Result<CommitOptions, ForbiddenProposal> {
        Ok(CommitOptions::new()
            .with_path_required(self.always_path)
            .with_ratchet_tree_extension(true)
            .with_single_welcome_message(true)
            .with_allow_external_commit(false))
    }

    fn encryption_options(
        &self,
        _roster: &Roster<'_>,
        _context: &GroupContext,
    ) -> Result<EncryptionOptions, ForbiddenProposal> {
        let padding = mls_rs::client_builder::PaddingMode::StepFunction;
        Ok(EncryptionOptions::new(true, padding))
    }
}

/// A client for one suite.
pub(super) fn client(
    suite: OneSuite,
    me: &Leaf,
    key: &SigningKey,
    roster: SharedRoster,
    always_path: bool,
) -> MlsClient {
    let content = encode(&DeviceCredential {
        version: 1,
        org: me.org,
        user: me.user,
        device: me.device,
    });
    let credential = BasicCredential::new(content).into_credential();
    let identity = SigningIdentity::new(credential, me.key.0.to_vec().into());
    // mls-rs-crypto-rustcrypto takes an Ed25519 secret key as the seed and the public key.
    let secret = [&key.dangerous_seed()[..], &me.key.0[..]].concat();
    let lifetime = Duration::from_millis(KEY_PACKAGE_LIFETIME_MS);
    Client::builder()
        .crypto_provider(suite)
        .identity_provider(InRoster(roster))
        .mls_rules(Profile { always_path })
        .extension_types([LAST_RESORT, POLICY, RESYNC])
        .key_package_lifetime(lifetime)
        .signing_identity(identity, secret.into(), suite.id())
        .build()
}

/// A KeyPackage, as an MLSMessage (REQ-092).
pub(super) fn key_package(
    client: &MlsClient,
    last_resort: bool,
    now_ms: u64,
) -> anyhow::Result<Vec<u8>> {
    let mut extensions = ExtensionList::new();
    if last_resort {
        extensions.set(Extension::new(LAST_RESORT, Vec::new()));
    }
    // An hour back, for clocks that differ; mls-rs counts the lifetime from there.
    let start = MlsTime::from((now_ms / 1_000).saturating_sub(CLOCK_SLACK_S));
    let message = client
        .generate_key_package_message(extensions, ExtensionList::new(), Some(start))
        .context("make a KeyPackage")?;
    message.to_bytes().context("encode a KeyPackage")
}

/// The GroupContext extensions of a new group (section 10.1).
pub(super) fn context_extensions(policy: &GroupPolicy) -> anyhow::Result<ExtensionList> {
    let required = RequiredCapabilitiesExt::new(vec![POLICY], Vec::new(), Vec::new());
    let mut extensions = ExtensionList::new();
    extensions.set(required.into_extension().context("encode an extension")?);
    Ok(with_policy(extensions, policy))
}

/// The same extensions with another policy.
pub(super) fn with_policy(mut extensions: ExtensionList, policy: &GroupPolicy) -> ExtensionList {
    extensions.set(Extension::new(POLICY, policy.to_bytes()));
    extensions
}

/// The group's policy; `None` when it has none that can be read (REQ-094).
pub(super) fn policy_of(extensions: &ExtensionList) -> Option<GroupPolicy> {
    let required: RequiredCapabilitiesExt = extensions.get_as().ok()??;
    let as_it_must_be = required.extensions() == [POLICY]
        && required.proposals().is_empty()
        && required.credentials().is_empty();
    let policy = GroupPolicy::from_bytes(extensions.get(POLICY)?.extension_data())?;
    as_it_must_be.then_some(policy)
}

/// What a leaf's extensions say of a resync: the bytes of REQ-156.
pub(super) fn resync_of(extensions: &ExtensionList) -> Option<Vec<u8>> {
    extensions
        .get(RESYNC)
        .map(|extension| extension.extension_data().to_vec())
}

/// The epoch's access key (REQ-050).
pub(super) fn access_key(group: &MlsGroup) -> anyhow::Result<SigningKey> {
    let secret = group
        .export_secret(ACCESS_KEY_LABEL.as_bytes(), group.group_id(), 32)
        .context("export the access key")?;
    let seed = <[u8; 32]>::try_from(secret.as_bytes()).context("an access key's length")?;
    Ok(SigningKey::from_seed(&seed))
}

/// The epoch authenticator (RFC 9420 §8.7).
pub(super) fn authenticator(group: &MlsGroup) -> anyhow::Result<Vec<u8>> {
    let secret = group.epoch_authenticator().context("no authenticator")?;
    Ok(secret.as_bytes().to_vec())
}

/// Whether a stored KeyPackage is a last resort, which is used more than once.
pub(super) fn is_last_resort(key_package: &[u8]) -> anyhow::Result<bool> {
    let package = KeyPackage::mls_decode(&mut &*key_package).context("decode a KeyPackage")?;
    Ok(package.extensions.has_extension(LAST_RESORT))
}
