//! One MLS group, as openmls keeps it, with only the doors that Mortise uses.

use std::sync::{Arc, OnceLock};

use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::{
    LeafNode, LeafNodeIndex, MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent, Proposal, ProposalOrRefType,
    ProtocolMessage, QueuedProposal, Sender, SenderRatchetConfiguration, StagedCommit,
    StagedWelcome,
};
use zeroize::Zeroizing;

use super::key_package::{ReadKeyPackage, suite_of};
use super::validate::{CommitView, Leaf, Resynced, Violation};
use super::{
    Crypto, DeviceCredential, GroupPolicy, Me, MlsProvider, MlsSigner, Resync, capabilities, keys,
};
use crate::identity::{DeviceId, Epoch, GroupId, PublicKey, RosterSeq, SigningKey};
use crate::wire::log::ACCESS_KEY_LABEL;

/// Bytes that plaintexts are padded to a multiple of.
const PADDING_BYTES: usize = 128;
/// How far a sender's messages may arrive out of order, and how many may be skipped.
const OUT_OF_ORDER: u32 = 64;
const MAX_SKIPPED: u32 = 4_096;

/// What can go wrong with a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The peer's input breaks a named rule; drop the transaction.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// This device is no member any more.
    #[error("this device is no member of the group")]
    NotAMember,
    /// Caller misuse or a bug: openmls refused what we asked of it.
    #[error("openmls could not {0}")]
    Mls(&'static str),
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its leaf's index in the ratchet tree.
    pub index: u32,
    /// Who it is.
    pub leaf: Leaf,
}

/// What a commit shall change; an empty one refreshes the committer's own leaf.
#[derive(Debug, Default)]
pub struct Changes {
    /// Devices to add.
    pub adds: Vec<ReadKeyPackage>,
    /// Devices to remove; those that are no members are passed over.
    pub removes: Vec<DeviceId>,
    /// A new policy.
    pub policy: Option<GroupPolicy>,
}

/// A commit that is pending here until it is met in the log.
#[derive(Debug)]
pub struct CommitOut {
    /// The MLSMessage with the commit.
    pub commit: Vec<u8>,
    /// The MLSMessage with the Welcome, if anybody was added.
    pub welcome: Option<Vec<u8>>,
    /// The public half of the next epoch's access key.
    pub next_access_key: PublicKey,
}

/// A message that was opened, and not accepted yet.
#[derive(Debug)]
pub enum Opened {
    /// An application message.
    Application {
        /// Who sent it.
        sender: Leaf,
        /// What they sent.
        bytes: Zeroizing<Vec<u8>>,
    },
    /// A leave; accept it with [`Group::keep_leave`].
    Leave(Box<LeaveProposal>),
    /// A commit; accept it with [`Group::merge`].
    Commit(Box<StagedChange>),
}

/// A member's proposal that its own leaf be removed (REQ-123).
#[derive(Debug)]
pub struct LeaveProposal {
    queued: QueuedProposal,
    /// Who leaves.
    pub leaver: Leaf,
}

/// A commit that was opened, and what it would change.
#[derive(Debug)]
pub struct StagedChange {
    staged: StagedCommit,
    /// Where the committer's leaf is, if the commit has a path.
    path_of: Option<LeafNodeIndex>,
    /// Who commits.
    pub committer: Leaf,
    /// The committer's leaf afterwards.
    pub committer_after: Leaf,
    /// What is added.
    pub adds: Vec<Leaf>,
    /// What is removed.
    pub removes: Vec<Leaf>,
    /// What of that is removed because it asked to be: by reference to its own proposal.
    pub leaves: Vec<Leaf>,
    /// Leaves that are let in anew because they asked.
    pub resyncs: Vec<Resynced>,
    /// The new policy, if the GroupContext changes; inner `None` when it is not readable.
    pub new_policy: Option<Option<GroupPolicy>>,
    /// Whether there is any other proposal, or another one by reference.
    pub other_proposals: bool,
    /// Whether it removes this device.
    pub removes_me: bool,
    /// The next epoch's access key, unless this device is removed.
    pub next_access_key: Option<PublicKey>,
}

impl StagedChange {
    /// The change as the rules see it.
    #[must_use]
    pub fn view<'a>(
        &'a self,
        s: RosterSeq,
        before: &'a [Leaf],
        policy: &'a GroupPolicy,
    ) -> CommitView<'a> {
        CommitView {
            s,
            committer: self.committer,
            committer_after: self.committer_after,
            before,
            adds: &self.adds,
            removes: &self.removes,
            leaves: &self.leaves,
            resyncs: &self.resyncs,
            policy,
            new_policy: self.new_policy.as_ref().map(Option::as_ref),
            other_proposals: self.other_proposals,
        }
    }
}

/// A group that a Welcome leads into, not accepted yet.
#[derive(Debug)]
pub struct JoinedGroup {
    /// The group.
    pub group: Group,
    /// The member that signed the Welcome.
    pub adder: Leaf,
    /// How many leaves the commit added.
    pub added: usize,
}

/// One MLS group in memory. Drop it whenever the transaction that it was used in is dropped.
pub struct Group {
    mls: MlsGroup,
    leaves: Vec<Leaf>,
    policy: GroupPolicy,
    /// Derived once per epoch: every step of the group asks for it.
    access_key: OnceLock<Arc<SigningKey>>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group(epoch {})", self.epoch())
    }
}

fn read_leaf(
    credential: &openmls::prelude::Credential,
    signature_key: &[u8],
) -> Result<Leaf, Violation> {
    let credential = DeviceCredential::read(credential).ok_or(Violation::BadCredential)?;
    let key = <[u8; 32]>::try_from(signature_key).map_err(|_| Violation::BadCredential)?;
    Ok(Leaf {
        org: credential.org,
        user: credential.user,
        device: credential.device,
        key: PublicKey(key),
    })
}

/// What a group agrees on and who is in it, kept beside openmls's own form for every message that is checked.
fn read_tree(mls: &MlsGroup) -> Result<(GroupPolicy, Vec<Leaf>), Violation> {
    let policy = GroupPolicy::read(mls.extensions()).ok_or(Violation::PolicyMissing)?;
    let leaves = mls
        .members()
        .map(|m| read_leaf(&m.credential, &m.signature_key));
    Ok((policy, leaves.collect::<Result<_, _>>()?))
}

fn leaf_of_node(node: &LeafNode) -> Result<Leaf, Violation> {
    read_leaf(node.credential(), node.signature_key().as_slice())
}

fn ratchet_configuration() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER, MAX_SKIPPED)
}

fn mls_id(id: GroupId) -> openmls::prelude::GroupId {
    openmls::prelude::GroupId::from_slice(&id.0)
}

impl Group {
    fn wrap(mls: MlsGroup) -> Result<Self, Violation> {
        let (policy, leaves) = read_tree(&mls)?;
        Ok(Self {
            mls,
            leaves,
            policy,
            access_key: OnceLock::new(),
        })
    }

    /// Creates a group with this device as its only member, at epoch 0.
    ///
    /// # Errors
    /// [`GroupError::Mls`].
    pub fn create(
        provider: &MlsProvider<'_, '_>,
        me: &Me<'_>,
        id: GroupId,
        suite: u16,
        policy: &GroupPolicy,
    ) -> Result<Self, GroupError> {
        const FAILED: GroupError = GroupError::Mls("create the group");
        let suite = suite_of(suite).map_err(|_| FAILED)?;
        let mls = MlsGroup::builder()
            .with_group_id(mls_id(id))
            .ciphersuite(suite)
            .with_wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .padding_size(PADDING_BYTES)
            .sender_ratchet_configuration(ratchet_configuration())
            .with_capabilities(capabilities(suite))
            .with_group_context_extensions(policy.extensions().ok_or(FAILED)?)
            .build(provider, &MlsSigner(me.key), me.credential())
            .map_err(|_| FAILED)?;
        Ok(Self::wrap(mls)?)
    }

    /// Loads a stored group; `None` when there is none.
    ///
    /// # Errors
    /// [`GroupError::Mls`] when what is stored does not load.
    pub fn load(provider: &MlsProvider<'_, '_>, id: GroupId) -> Result<Option<Self>, GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        let mls = MlsGroup::load(provider.storage(), &mls_id(id))
            .map_err(|_| GroupError::Mls("load the group"))?;
        Ok(mls.map(Self::wrap).transpose()?)
    }

    /// Opens a Welcome (REQ-093). Check the tree before anything is accepted; drop the transaction to refuse.
    ///
    /// # Errors
    /// [`Violation::MlsRefused`], [`Violation::BadCredential`], [`Violation::PolicyMissing`], [`Violation::UnusableKey`].
    pub fn join(provider: &MlsProvider<'_, '_>, welcome: &[u8]) -> Result<JoinedGroup, GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        const REFUSED: Violation = Violation::MlsRefused;
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .padding_size(PADDING_BYTES)
            .sender_ratchet_configuration(ratchet_configuration())
            .build();
        let message = MlsMessageIn::tls_deserialize_exact(welcome).map_err(|_| REFUSED)?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            return Err(REFUSED.into());
        };
        let added = welcome.secrets().len();
        // Lifetimes are ours to check: a member who has not refreshed its leaf must not keep newcomers out.
        let staged = StagedWelcome::build_from_welcome(provider, &config, welcome)
            .map_err(|_| REFUSED)?
            .skip_lifetime_validation()
            .replace_old_group()
            .build()
            .map_err(|_| REFUSED)?;
        let adder = leaf_of_node(staged.welcome_sender().map_err(|_| REFUSED)?)?;
        let mls = staged.into_group(provider).map_err(|_| REFUSED)?;
        keys::check_tree(provider.crypto(), mls.public_group())?;
        Ok(JoinedGroup {
            group: Self::wrap(mls)?,
            adder,
            added,
        })
    }

    /// The MLS group id; `None` when it is not 32 bytes.
    #[must_use]
    pub fn id(&self) -> Option<GroupId> {
        self.mls.group_id().as_slice().try_into().ok().map(GroupId)
    }

    /// The MLS epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.mls.epoch().as_u64())
    }

    /// The MLS ciphersuite.
    #[must_use]
    pub fn suite(&self) -> u16 {
        self.mls.ciphersuite().into()
    }

    /// Who is in the tree, by leaf.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Members with their leaf indices.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.mls
            .members()
            .zip(&self.leaves)
            .map(|(m, leaf)| Member {
                index: m.index.u32(),
                leaf: *leaf,
            })
    }

    /// The group's policy.
    #[must_use]
    pub fn policy(&self) -> &GroupPolicy {
        &self.policy
    }

    /// Whether this device is (still) a member.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.mls.is_active()
    }

    /// The epoch authenticator (RFC 9420 §8.7), for comparing states.
    #[must_use]
    pub fn epoch_authenticator(&self) -> Vec<u8> {
        self.mls.epoch_authenticator().as_slice().to_vec()
    }

    /// The GroupContext's tree_hash and confirmed_transcript_hash (RFC 9420, section 8.1), which a receipt names (REQ-174).
    #[must_use]
    pub fn context_hashes(&self) -> (Vec<u8>, Vec<u8>) {
        let context = self.mls.public_group().group_context();
        let transcript = context.confirmed_transcript_hash();
        (context.tree_hash().to_vec(), transcript.to_vec())
    }

    /// The whole ratchet tree, as an MLS ratchet_tree extension holds it: for an auditor (REQ-177).
    ///
    /// # Errors
    /// [`GroupError::Mls`].
    pub fn ratchet_tree(&self) -> Result<Vec<u8>, GroupError> {
        self.mls
            .export_ratchet_tree()
            .tls_serialize_detached()
            .map_err(|_| GroupError::Mls("export the tree"))
    }

    /// The epoch's access key (REQ-050).
    ///
    /// # Errors
    /// [`GroupError::NotAMember`] once this device was removed.
    pub fn access_key(&self, crypto: &Crypto) -> Result<Arc<SigningKey>, GroupError> {
        if let Some(known) = self.access_key.get() {
            return Ok(known.clone());
        }
        let secret = self
            .mls
            .export_secret(crypto, ACCESS_KEY_LABEL, self.mls.group_id().as_slice(), 32)
            .map_err(|_| GroupError::NotAMember)?;
        let key = Arc::new(access_key_of(secret)?);
        Ok(self.access_key.get_or_init(|| key).clone())
    }

    /// Encrypts an application message.
    ///
    /// # Errors
    /// [`GroupError::NotAMember`].
    pub fn encrypt(
        &mut self,
        provider: &MlsProvider<'_, '_>,
        me: &Me<'_>,
        aad: Vec<u8>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, GroupError> {
        self.mls.set_aad(aad);
        self.mls
            .create_message(provider, &MlsSigner(me.key), plaintext)
            .map_err(|_| GroupError::NotAMember)?
            .tls_serialize_detached()
            .map_err(|_| GroupError::Mls("encode a message"))
    }

    /// Proposes that this device's own leaf be removed; until the epoch ends, it neither sends nor commits (REQ-123).
    ///
    /// # Errors
    /// [`GroupError::NotAMember`]; [`GroupError::Mls`] also when a commit is pending.
    pub fn propose_leave(
        &mut self,
        provider: &MlsProvider<'_, '_>,
        me: &Me<'_>,
        aad: Vec<u8>,
    ) -> Result<Vec<u8>, GroupError> {
        const FAILED: GroupError = GroupError::Mls("propose to leave");
        if !self.is_active() {
            return Err(GroupError::NotAMember);
        }
        self.mls.set_aad(aad);
        self.mls
            .leave_group(provider, &MlsSigner(me.key))
            .map_err(|_| FAILED)?
            .tls_serialize_detached()
            .map_err(|_| FAILED)
    }

    /// Follows a leave that was opened and that the rules have passed: the next commit made here carries it out.
    ///
    /// # Errors
    /// [`GroupError::Mls`].
    pub fn keep_leave(
        &mut self,
        provider: &MlsProvider<'_, '_>,
        leave: LeaveProposal,
    ) -> Result<(), GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        self.mls
            .store_pending_proposal(provider.storage(), leave.queued)
            .map_err(|_| GroupError::Mls("keep a leave"))
    }

    /// Forgets this device's own leave: it is definitely not in the log (REQ-089).
    ///
    /// # Errors
    /// [`GroupError::Mls`].
    pub fn drop_own_leave(&mut self, provider: &MlsProvider<'_, '_>) -> Result<(), GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        let own = Sender::Member(self.mls.own_leaf_index());
        let reference = self
            .mls
            .pending_proposals()
            .find(|p| *p.sender() == own)
            .map(|p| p.proposal_reference_ref().clone());
        match reference {
            None => Ok(()),
            Some(reference) => self
                .mls
                .remove_pending_proposal(provider.storage(), &reference)
                .map_err(|_| GroupError::Mls("drop a leave")),
        }
    }

    /// The leaves that asked in this epoch to be removed: nothing else is ever stored as a pending proposal (REQ-123).
    #[must_use]
    pub fn leavers(&self) -> Vec<Leaf> {
        let senders = self.mls.pending_proposals().map(|p| match p.sender() {
            Sender::Member(index) => self.member_leaf(*index),
            _ => None,
        });
        senders.flatten().collect()
    }

    /// Whether this device has asked in this epoch to be removed.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        let own = Sender::Member(self.mls.own_leaf_index());
        self.mls.pending_proposals().any(|p| *p.sender() == own)
    }

    /// This device's leaf; `None` once it was removed.
    #[must_use]
    pub fn own_leaf(&self) -> Option<Leaf> {
        self.member_leaf(self.mls.own_leaf_index())
    }

    /// Makes a commit, which also carries out every leave of the epoch, and leaves it pending (REQ-088, REQ-124).
    ///
    /// # Errors
    /// [`GroupError::NotAMember`]; [`GroupError::Mls`] also when another commit is pending.
    pub fn commit(
        &mut self,
        provider: &MlsProvider<'_, '_>,
        me: &Me<'_>,
        aad: Vec<u8>,
        changes: Changes,
    ) -> Result<CommitOut, GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        const FAILED: GroupError = GroupError::Mls("make a commit");
        if !self.is_active() {
            return Err(GroupError::NotAMember);
        }
        // openmls would silently replace a pending commit.
        if self.mls.pending_commit().is_some() {
            return Err(GroupError::Mls("commit while another commit is pending"));
        }
        let leavers = self.leavers();
        let removes: Vec<_> = self
            .members()
            .filter(|m| changes.removes.contains(&m.leaf.device) && !leavers.contains(&m.leaf))
            .map(|m| LeafNodeIndex::new(m.index))
            .collect();
        let refresh = changes.adds.is_empty() || !removes.is_empty();
        self.mls.set_aad(aad);
        let mut builder = self
            .mls
            .commit_builder()
            .consume_proposal_store(true)
            .force_self_update(refresh)
            .propose_adds(changes.adds.into_iter().map(|a| a.key_package))
            .propose_removals(removes);
        if let Some(policy) = changes.policy {
            builder = builder
                .propose_group_context_extensions(policy.extensions().ok_or(FAILED)?)
                .map_err(|_| FAILED)?;
        }
        let bundle = builder
            .load_psks(provider.storage())
            .map_err(|_| FAILED)?
            .create_group_info(false)
            .use_ratchet_tree_extension(true)
            .build(
                provider.rand(),
                provider.crypto(),
                &MlsSigner(me.key),
                |_| true,
            )
            .map_err(|_| FAILED)?
            .stage_commit(provider)
            .map_err(|_| FAILED)?;
        let welcome = bundle
            .to_welcome_msg()
            .map(|w| w.tls_serialize_detached())
            .transpose()
            .map_err(|_| FAILED)?;
        let commit = bundle
            .into_commit()
            .tls_serialize_detached()
            .map_err(|_| FAILED)?;
        let staged = self.mls.pending_commit().ok_or(FAILED)?;
        Ok(CommitOut {
            commit,
            welcome,
            next_access_key: self.next_access_key(provider, staged).map_err(|_| FAILED)?,
        })
    }

    /// Whether a commit of this device is pending.
    #[must_use]
    pub fn has_pending_commit(&self) -> bool {
        self.mls.pending_commit().is_some()
    }

    /// Forgets the pending commit: it was refused, or lost the race.
    ///
    /// # Errors
    /// [`GroupError::Mls`].
    pub fn drop_pending_commit(
        &mut self,
        provider: &MlsProvider<'_, '_>,
    ) -> Result<(), GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        self.mls
            .clear_pending_commit(provider.storage())
            .map_err(|_| GroupError::Mls("drop the pending commit"))
    }

    /// Follows the pending commit: it was met in the log (REQ-088).
    ///
    /// # Errors
    /// [`GroupError::Mls`] when none is pending.
    pub fn merge_pending(&mut self, provider: &MlsProvider<'_, '_>) -> Result<(), GroupError> {
        self.mls
            .merge_pending_commit(provider)
            .map_err(|_| GroupError::Mls("merge the pending commit"))?;
        self.reread()
    }

    /// Opens a message of the current epoch; nothing is accepted by that (REQ-087).
    ///
    /// # Errors
    /// [`Violation`]: drop the transaction and this group.
    pub fn open(
        &mut self,
        provider: &MlsProvider<'_, '_>,
        message: &[u8],
    ) -> Result<Opened, GroupError> {
        let refused = |_| Violation::MlsRefused;
        let message: ProtocolMessage = MlsMessageIn::tls_deserialize_exact(message)
            .map_err(|_| Violation::MlsRefused)?
            .try_into_protocol_message()
            .map_err(|_| Violation::MlsRefused)?;
        let processed = self
            .mls
            .process_message(provider, message)
            .map_err(refused)?;
        let Sender::Member(index) = *processed.sender() else {
            return Err(Violation::ForbiddenContent.into());
        };
        let sender = self.member_leaf(index).ok_or(Violation::BadCredential)?;
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => Ok(Opened::Application {
                sender,
                bytes: Zeroizing::new(message.into_bytes()),
            }),
            ProcessedMessageContent::ProposalMessage(queued) => match queued.proposal() {
                Proposal::Remove(remove) if remove.removed() == index => {
                    Ok(Opened::Leave(Box::new(LeaveProposal {
                        queued: *queued,
                        leaver: sender,
                    })))
                }
                _ => Err(Violation::ForbiddenProposal.into()),
            },
            ProcessedMessageContent::StagedCommitMessage(staged) => self
                .read_staged(provider, index, sender, *staged)
                .map(|change| Opened::Commit(Box::new(change))),
            _ => Err(Violation::ForbiddenContent.into()),
        }
    }

    /// Follows a commit that was opened and that the rules have passed.
    ///
    /// # Errors
    /// [`Violation::MlsRefused`], [`Violation::UnusableKey`]: drop the transaction and this group.
    pub fn merge(
        &mut self,
        provider: &MlsProvider<'_, '_>,
        change: StagedChange,
    ) -> Result<(), GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        self.mls
            .merge_staged_commit(provider, change.staged)
            .map_err(|_| Violation::MlsRefused)?;
        if let Some(leaf) = change.path_of.filter(|_| !change.removes_me) {
            keys::check_path(provider.crypto(), self.mls.public_group(), leaf)?;
        }
        self.reread()
    }

    /// Wipes all that is stored of the group's keys.
    ///
    /// # Errors
    /// [`GroupError::Mls`].
    pub fn delete(mut self, provider: &MlsProvider<'_, '_>) -> Result<(), GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        self.mls
            .delete(provider.storage())
            .map_err(|_| GroupError::Mls("delete the group"))
    }

    fn reread(&mut self) -> Result<(), GroupError> {
        self.access_key = OnceLock::new();
        (self.policy, self.leaves) = read_tree(&self.mls)?;
        Ok(())
    }

    /// The public half of the access key of the epoch that a commit leads to (REQ-050).
    fn next_access_key(
        &self,
        provider: &MlsProvider<'_, '_>,
        staged: &StagedCommit,
    ) -> Result<PublicKey, GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        let group = self.mls.group_id().as_slice();
        let secret = staged
            .export_secret(provider.crypto(), ACCESS_KEY_LABEL, group, 32)
            .map_err(|_| Violation::MlsRefused)?;
        Ok(access_key_of(secret)?.public())
    }

    /// What a device's leaf asked when it was last let in anew.
    #[must_use]
    pub fn resync_of(&self, device: DeviceId) -> Option<Resync> {
        let member = self.members().find(|m| m.leaf.device == device)?;
        let index = LeafNodeIndex::new(member.index);
        Resync::read(self.mls.public_group().leaf(index)?)
    }

    fn resynced(&self, leaf: Leaf, asked: Option<Resync>) -> Option<Resynced> {
        let asked = asked?;
        Some(Resynced {
            leaf,
            is_for_here: self.id() == Some(asked.group),
            asked_at_ms: asked.asked_at_ms,
            before_ms: self.resync_of(leaf.device).map(|before| before.asked_at_ms),
        })
    }

    fn member_leaf(&self, index: LeafNodeIndex) -> Option<Leaf> {
        let member = self.mls.member_at(index)?;
        read_leaf(&member.credential, &member.signature_key).ok()
    }

    fn read_staged(
        &self,
        provider: &MlsProvider<'_, '_>,
        index: LeafNodeIndex,
        committer: Leaf,
        staged: StagedCommit,
    ) -> Result<StagedChange, GroupError> {
        use openmls_traits::OpenMlsProvider as _;
        let (crypto, suite) = (provider.crypto(), self.mls.ciphersuite());
        let path_leaf = staged.update_path_leaf_node();
        if let Some(leaf) = path_leaf {
            keys::check_leaf(crypto, suite, leaf)?;
        }
        let mut change = StagedChange {
            path_of: path_leaf.map(|_| index),
            committer,
            committer_after: path_leaf.map_or(Ok(committer), leaf_of_node)?,
            adds: Vec::new(),
            removes: Vec::new(),
            leaves: Vec::new(),
            resyncs: Vec::new(),
            new_policy: None,
            other_proposals: false,
            removes_me: staged.self_removed(),
            next_access_key: None,
            staged,
        };
        for queued in change.staged.queued_proposals() {
            let by_value = queued.proposal_or_ref_type() == ProposalOrRefType::Proposal
                && *queued.sender() == Sender::Member(index);
            match queued.proposal() {
                Proposal::Remove(remove)
                    if !by_value && *queued.sender() == Sender::Member(remove.removed()) =>
                {
                    let leaver = self.member_leaf(remove.removed());
                    let leaver = leaver.ok_or(Violation::MlsRefused)?;
                    change.removes.push(leaver);
                    change.leaves.push(leaver);
                }
                _ if !by_value => change.other_proposals = true,
                Proposal::Add(add) => {
                    let node = add.key_package().leaf_node();
                    let leaf = leaf_of_node(node)?;
                    keys::check_leaf(crypto, suite, node)?;
                    change.adds.push(leaf);
                    change
                        .resyncs
                        .extend(self.resynced(leaf, Resync::read(node)));
                }
                Proposal::Remove(remove) => change.removes.push(
                    self.member_leaf(remove.removed())
                        .ok_or(Violation::MlsRefused)?,
                ),
                Proposal::GroupContextExtensions(new) => {
                    change.new_policy = Some(GroupPolicy::read(new.extensions()));
                }
                _ => change.other_proposals = true,
            }
        }
        if !change.removes_me {
            change.next_access_key = Some(self.next_access_key(provider, &change.staged)?);
        }
        Ok(change)
    }
}

fn access_key_of(secret: Vec<u8>) -> Result<SigningKey, GroupError> {
    let secret = Zeroizing::new(secret);
    let seed = Zeroizing::new(
        <[u8; 32]>::try_from(secret.as_slice())
            .map_err(|_| GroupError::Mls("derive the access key"))?,
    );
    Ok(SigningKey::from_seed(&seed))
}
