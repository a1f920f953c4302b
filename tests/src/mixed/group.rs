//! One group as the other stack's device holds it: mls-rs's state, the cursor in the log, what is still to be done.
//!
//! Everything that is said about the log here follows sections 9 to 11 of the specification.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::Context as _;
use mls_rs::MlsMessage;
use mls_rs::group::proposal::Proposal;
use mls_rs::group::{
    CommitEffect, CommitMessageDescription, NewEpoch, ProposalSender, ReceivedMessage,
};
use mortise_protocol::group::{GroupPolicy, PolicyChange};
use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, LogSeq, PublicKey, RosterSeq, SigningKey, UserId,
};
use mortise_protocol::wire::aad::AuthenticatedData;
use mortise_protocol::wire::log::LogCursor;
use mortise_protocol::wire::{LogRecord, WelcomeFor};

use super::rules::{Added, Change, Leaf, Rule, Tree};
use super::stack::{
    MlsGroup, access_key, authenticator, leaf_of, policy_of, resync_of, with_policy,
};
use super::view::Line;

/// A number that the script gave to what it asked for.
pub type CommandId = u64;

/// What a device is asked to do in a group.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Send this text.
    Text(String),
    /// Commit: an update of the own leaf, with these changes besides.
    Commit {
        /// Users all of whose admitted devices shall be in.
        add: Vec<UserId>,
        /// Users none of whose devices shall be in.
        remove: Vec<UserId>,
        /// Changes of the policy.
        policy: Vec<PolicyChange>,
    },
    /// Leave, with all devices of the user (REQ-123).
    Leave,
    /// State what became of the group after this order (REQ-064).
    Attest(RosterSeq),
}

/// A wish, and who wants to know what comes of it.
#[derive(Clone, Debug)]
pub(super) struct Todo {
    pub(super) command: Option<CommandId>,
    pub(super) wish: Wish,
}

/// A record that was submitted and has not been met in the log (section 13.3).
pub(super) struct Sent {
    pub(super) epoch: Epoch,
    pub(super) record: Hash,
    pub(super) payload: Vec<u8>,
    pub(super) welcomes: Vec<WelcomeFor>,
    /// What it is for; a duty is for nothing that was asked.
    pub(super) todo: Option<Todo>,
    /// Of a commit: the group after it, and what it changes.
    pub(super) next: Option<Box<(MlsGroup, Change)>>,
    /// The `s` that it was made at.
    pub(super) s: RosterSeq,
}

/// Where a device stands with a group (section 13.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The log's first record has not been met.
    Creating,
    /// It reads and may send.
    Active,
    /// It was removed, or has left.
    Removed,
    /// The roster has closed it.
    Closed,
    /// A commit was refused, or a Restart has ended it.
    Halted,
}

/// One group.
pub(super) struct Held {
    pub(super) id: GroupId,
    pub(super) mls: MlsGroup,
    pub(super) tree: Tree,
    pub(super) standing: Standing,
    /// The newest record that was dealt with.
    pub(super) seq: LogSeq,
    /// The newest record's fence.
    pub(super) fence: RosterSeq,
    /// The opening entry of the epoch, and its `s`.
    pub(super) opening: Hash,
    pub(super) opening_s: RosterSeq,
    /// The cursor's hash after each record of the epoch (REQ-044, REQ-086).
    pub(super) cursors: Vec<LogCursor>,
    /// Each leaf's last `s` (REQ-084).
    pub(super) said: BTreeMap<DeviceId, RosterSeq>,
    /// Every record after the position has at least the fence (REQ-061).
    pub(super) positions: Vec<(LogSeq, RosterSeq)>,
    /// The leaves of the epoch that were met (REQ-124).
    pub(super) leavers: Vec<Leaf>,
    pub(super) backlog: VecDeque<LogRecord>,
    /// The newest record that the epoch's key opens, as Subscribed said.
    pub(super) last_readable: LogSeq,
    pub(super) subscribed: Option<Epoch>,
    pub(super) todo: VecDeque<Todo>,
    pub(super) sent: Option<Sent>,
    /// Nothing is submitted in this epoch any more: the relay has said that it is over.
    pub(super) over: Option<Epoch>,
    /// Since when somebody should commit without being asked, ms since 1970.
    pub(super) duty_since_ms: Option<u64>,
    /// Devices whose KeyPackages were asked for, and what came.
    pub(super) claim: Claim,
    /// Orders to attest, and whether a commit that removed their devices was met.
    pub(super) owed: BTreeMap<RosterSeq, bool>,
    /// Whose devices have attested an order.
    pub(super) attested: BTreeMap<RosterSeq, BTreeSet<UserId>>,
    /// The authenticator of every epoch that was held.
    pub(super) epochs: BTreeMap<u64, Vec<u8>>,
    /// Texts in the order of the log.
    pub(super) texts: Vec<Line>,
}

/// KeyPackages for a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Claim {
    /// None were asked for.
    #[default]
    None,
    /// They are on their way.
    Asked,
    /// They are here.
    Here(BTreeMap<DeviceId, Vec<u8>>),
}

/// A message that mls-rs has opened.
pub(super) enum Opened {
    /// Text.
    Application(Leaf, Vec<u8>),
    /// A leave of this leaf.
    Leave(Leaf),
    /// A commit, and whether this device is gone after it.
    Commit(Box<Change>, bool),
}

/// Reads the tree and the policy out of mls-rs's state; refuses what REQ-080 and REQ-094 refuse.
pub(super) fn tree_of(mls: &MlsGroup) -> Result<Tree, Rule> {
    let leaves = mls.roster().members_iter().map(|member| {
        Some(Added {
            leaf: leaf_of(member.signing_identity())?,
            resync: resync_of(member.extensions()),
        })
    });
    let leaves: Option<Vec<_>> = leaves.collect();
    Ok(Tree {
        leaves: leaves.ok_or("BAD_CREDENTIAL")?,
        policy: policy_of(mls.context().extensions()).ok_or("POLICY_MISSING")?,
    })
}

impl Held {
    /// A group at the opening entry of mls-rs's epoch.
    pub(super) fn new(id: GroupId, mls: MlsGroup, opening: Hash) -> anyhow::Result<Self> {
        let tree = tree_of(&mls).map_err(anyhow::Error::msg)?;
        Ok(Self {
            id,
            mls,
            tree,
            standing: Standing::Creating,
            seq: LogSeq(0),
            fence: RosterSeq(0),
            opening,
            opening_s: RosterSeq(0),
            cursors: Vec::new(),
            said: BTreeMap::new(),
            positions: Vec::new(),
            leavers: Vec::new(),
            backlog: VecDeque::new(),
            last_readable: LogSeq(0),
            subscribed: None,
            todo: VecDeque::new(),
            sent: None,
            over: None,
            duty_since_ms: None,
            claim: Claim::None,
            owed: BTreeMap::new(),
            attested: BTreeMap::new(),
            epochs: BTreeMap::new(),
            texts: Vec::new(),
        })
    }

    /// The epoch is open: its opening entry was met, with this `s`, and the cursor is there now.
    pub(super) fn open_epoch(
        &mut self,
        record: &LogRecord,
        s: RosterSeq,
        cursor: LogCursor,
    ) -> anyhow::Result<()> {
        self.standing = Standing::Active;
        self.seq = record.seq;
        self.fence = record.fence;
        self.opening_s = s;
        self.cursors = vec![cursor];
        self.leavers.clear();
        self.subscribed = None;
        self.over = None;
        self.duty_since_ms = None;
        self.epochs
            .insert(self.epoch().0, authenticator(&self.mls)?);
        Ok(())
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.mls.current_epoch())
    }

    pub(super) fn access_key(&self) -> anyhow::Result<SigningKey> {
        access_key(&self.mls)
    }

    /// The cursor; there is one as soon as the log's first record was met.
    pub(super) fn cursor(&self) -> anyhow::Result<LogCursor> {
        self.cursors.last().copied().context("no cursor yet")
    }

    /// A further record of the epoch was dealt with (REQ-044, REQ-087).
    pub(super) fn pass(&mut self, record: &LogRecord) {
        self.seq = record.seq;
        self.fence = record.fence;
        if let Some(cursor) = self.cursors.last() {
            let next = cursor.after(record.record_id(), record.fence);
            self.cursors.push(next);
        }
    }

    /// REQ-085, REQ-061: what the fence of the next record must not be.
    pub(super) fn check_fence(&self, record: &LogRecord) -> Result<(), Rule> {
        if record.fence < self.fence {
            return Err("FENCE_FELL");
        }
        let missed = self
            .positions
            .iter()
            .any(|(seq, order)| record.seq > *seq && record.fence < *order);
        if missed { Err("FENCE_MISSED") } else { Ok(()) }
    }

    /// REQ-084, REQ-086: what the authenticated data must not be; the roster is for the caller to compare.
    pub(super) fn check_data(
        &self,
        record: &LogRecord,
        data: &AuthenticatedData,
    ) -> Result<(), Rule> {
        if data.roster_seq < record.fence {
            return Err("BEHIND_FENCE");
        }
        if data.roster_seq < self.opening_s {
            return Err("ROSTER_SEQ_FELL");
        }
        let at = usize::try_from(data.log_count).unwrap_or(usize::MAX);
        match self.cursors.get(at) {
            Some(cursor) if cursor.hash == data.log_hash => Ok(()),
            _ => Err("LOG_FORK"),
        }
    }

    /// REQ-084: `s` of one leaf.
    pub(super) fn check_said(&self, leaf: &Leaf, s: RosterSeq) -> Result<(), Rule> {
        let fell = self.said.get(&leaf.device).is_some_and(|last| s < *last);
        if fell { Err("ROSTER_SEQ_FELL") } else { Ok(()) }
    }

    /// Opens a message on a copy of the group, so that a refusal changes nothing (REQ-087).
    pub(super) fn open(&self, message: &[u8]) -> anyhow::Result<(MlsGroup, Opened)> {
        let mut copy = self.mls.clone();
        let message = MlsMessage::from_bytes(message)?;
        let opened = match copy.process_incoming_message(message)? {
            ReceivedMessage::ApplicationMessage(said) => {
                let sender = self.leaf_at(said.sender_index)?;
                Opened::Application(sender, said.data().to_vec())
            }
            ReceivedMessage::Proposal(proposed) => match (proposed.sender, proposed.proposal) {
                (ProposalSender::Member(sender), Proposal::Remove(remove))
                    if remove.to_remove() == sender =>
                {
                    Opened::Leave(self.leaf_at(sender)?)
                }
                _ => anyhow::bail!("FORBIDDEN_PROPOSAL"),
            },
            ReceivedMessage::Commit(commit) => self.commit(&copy, &commit)?,
            _ => anyhow::bail!("FORBIDDEN_CONTENT"),
        };
        Ok((copy, opened))
    }

    fn leaf_at(&self, index: u32) -> anyhow::Result<Leaf> {
        let member = self.mls.roster().member_with_index(index)?;
        leaf_of(member.signing_identity()).context("BAD_CREDENTIAL")
    }

    fn commit(
        &self,
        after: &MlsGroup,
        commit: &CommitMessageDescription,
    ) -> anyhow::Result<Opened> {
        anyhow::ensure!(!commit.is_external, "FORBIDDEN_PROPOSAL");
        let committer = self.leaf_at(commit.committer)?;
        let (new, removed) = match &commit.effect {
            CommitEffect::NewEpoch(new) => (new, false),
            CommitEffect::Removed { new_epoch, .. } => (new_epoch, true),
            CommitEffect::ReInit(_) => anyhow::bail!("FORBIDDEN_PROPOSAL"),
        };
        let committer_after = if removed {
            committer
        } else {
            let member = after.roster().member_with_index(commit.committer)?;
            leaf_of(member.signing_identity()).context("BAD_CREDENTIAL")?
        };
        let change = self.change_of(new, committer, committer_after)?;
        Ok(Opened::Commit(Box::new(change), removed))
    }

    /// What the proposals of a commit do.
    pub(super) fn change_of(
        &self,
        new: &NewEpoch,
        committer: Leaf,
        committer_after: Leaf,
    ) -> anyhow::Result<Change> {
        let mut change = Change {
            committer,
            committer_after,
            adds: Vec::new(),
            removes: Vec::new(),
            leaves: Vec::new(),
            policy: Some(self.tree.policy.clone()),
        };
        for proposal in new.applied_proposals() {
            match &proposal.proposal {
                Proposal::Add(add) => change.adds.push(Added {
                    leaf: leaf_of(add.signing_identity()).context("BAD_CREDENTIAL")?,
                    resync: resync_of(&add.leaf_node_extensions()),
                }),
                Proposal::Remove(remove) => {
                    let leaf = self.leaf_at(remove.to_remove())?;
                    change.removes.push(leaf);
                    if proposal.is_by_reference() {
                        change.leaves.push(leaf);
                    }
                }
                Proposal::GroupContextExtensions(extensions) => {
                    change.policy = policy_of(extensions);
                }
                _ => anyhow::bail!("FORBIDDEN_PROPOSAL"),
            }
        }
        Ok(change)
    }

    /// Makes a commit: the MLSMessages of commit and Welcome, the group after it, the next access key.
    pub(super) fn make_commit(
        &mut self,
        data: &AuthenticatedData,
        adds: &[Vec<u8>],
        change: &Change,
    ) -> anyhow::Result<MadeCommit> {
        let by_value: Vec<u32> = self
            .mls
            .roster()
            .members_iter()
            .filter(|member| {
                leaf_of(member.signing_identity()).is_some_and(|leaf| {
                    change.removes.contains(&leaf) && !change.leaves.contains(&leaf)
                })
            })
            .map(|member| member.index())
            .collect();
        let policy = change.policy.as_ref().context("no policy")?;
        let extensions = (*policy != self.tree.policy)
            .then(|| with_policy(self.mls.context().extensions().clone(), policy));
        let mut builder = self
            .mls
            .commit_builder()
            .authenticated_data(data.to_bytes());
        for package in adds {
            builder = builder.add_member(MlsMessage::from_bytes(package)?)?;
        }
        for index in by_value {
            builder = builder.remove_member(index)?;
        }
        if let Some(extensions) = extensions {
            builder = builder.set_group_context_ext(extensions)?;
        }
        let out = builder.build()?;
        let mut next = self.mls.clone();
        // The commit counts when the log says so; what this group has used up of its ratchets stays used up (REQ-088).
        self.mls.clear_pending_commit();
        next.apply_pending_commit()?;
        let welcome = out.welcome_messages.first();
        Ok(MadeCommit {
            commit: out.commit_message.to_bytes()?,
            welcome: welcome.map(MlsMessage::to_bytes).transpose()?,
            next_access_key: access_key(&next)?.public(),
            next,
        })
    }

    /// Moves on to the group after a commit.
    pub(super) fn merge(
        &mut self,
        next: MlsGroup,
        change: &Change,
        opening: Hash,
        record: &LogRecord,
        s: RosterSeq,
    ) -> anyhow::Result<()> {
        self.mls = next;
        self.tree = tree_of(&self.mls).map_err(anyhow::Error::msg)?;
        self.opening = opening;
        for leaf in &change.removes {
            self.said.remove(&leaf.device);
        }
        self.said.insert(change.committer.device, s);
        self.claim = Claim::None;
        let cursor = self.cursor()?.opens(record.record_id(), record.fence);
        self.open_epoch(record, s, cursor)
    }

    /// The policy as these changes make it.
    pub(super) fn wished_policy(&self, changes: &[PolicyChange]) -> GroupPolicy {
        let mut policy = self.tree.policy.clone();
        for change in changes {
            policy.apply(change);
        }
        policy
    }

    /// What was refused, or is in no record, goes back to where it was taken from (REQ-089).
    pub(super) fn put_back(&mut self, todo: Option<Todo>) {
        if let Some(todo) = todo {
            self.todo.push_front(todo);
        }
    }

    /// Whether nothing is on its way or still to be done here.
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_none() && self.todo.is_empty() && self.backlog.is_empty()
    }
}

/// A commit that was made.
pub(super) struct MadeCommit {
    pub(super) commit: Vec<u8>,
    pub(super) welcome: Option<Vec<u8>>,
    pub(super) next_access_key: PublicKey,
    pub(super) next: MlsGroup,
}
