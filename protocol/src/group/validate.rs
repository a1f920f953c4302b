//! The rules for what a group accepts (DESIGN 4): one table of named violations, evaluated on plain values.
//!
//! Every inbound record and Welcome goes through here, on every path. This module must never look at
//! anything but its arguments.

use crate::identity::{DeviceId, OrgId, PublicKey, RosterSeq, UserId};
use crate::roster::{Role, Roster};

use super::{GroupPolicy, WhoMayAdd};

/// A rule that was broken, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The payload does not decode.
    #[error("MALFORMED_RECORD: the record does not decode")]
    MalformedRecord,
    /// The MLS header is not one that Mortise allows, or names another group, epoch or content type (REQ-046, REQ-081).
    #[error("BAD_HEADER: the message's header does not match its record")]
    BadHeader,
    /// A fence below an earlier record's (REQ-085).
    #[error("FENCE_FELL: the relay stamped a fence below an earlier one")]
    FenceFell,
    /// A record after an order without that order's fence (REQ-061).
    #[error("FENCE_MISSED: the relay stamped a record after an order with a fence from before it")]
    FenceMissed,
    /// `s` is below the record's fence (REQ-084).
    #[error("BEHIND_FENCE: based on a roster from before an order that was in force")]
    BehindFence,
    /// `s` is below that of an earlier commit, or of an earlier message of the same leaf (REQ-084).
    #[error("ROSTER_SEQ_FELL: based on an older roster than an earlier message")]
    RosterSeqFell,
    /// The roster hash is not ours at `s` (REQ-048).
    #[error("ROSTER_FORK: the sender was shown another roster")]
    RosterFork,
    /// The log hash is not ours at that count (REQ-086).
    #[error("LOG_FORK: the sender was shown another log")]
    LogFork,
    /// It does not decrypt or verify as MLS: the private part of a fault.
    #[error("MLS_REFUSED: the message does not verify as MLS")]
    MlsRefused,
    /// Neither an application message, nor a leave, nor a commit (REQ-081).
    #[error("FORBIDDEN_CONTENT: this kind of MLS content is switched off")]
    ForbiddenContent,
    /// A proposal that is switched off, in a commit or on its own, or one by reference that is no leave (REQ-081).
    #[error("FORBIDDEN_PROPOSAL: the proposal is of a kind that is switched off")]
    ForbiddenProposal,
    /// A second leave of one leaf in one epoch (REQ-123).
    #[error("LEAVE_TWICE: the device has asked to leave in this epoch already")]
    LeaveTwice,
    /// A leaf whose credential is not ours or of another organisation (REQ-080).
    #[error("BAD_CREDENTIAL: a leaf's credential is not of this organisation")]
    BadCredential,
    /// The sender is not admitted at `s` (REQ-082, REQ-083).
    #[error("SENDER_NOT_ADMITTED: the sender's device was not admitted")]
    SenderNotAdmitted,
    /// A commit changes the committer's own identity (REQ-082).
    #[error("IDENTITY_CHANGED: the committer's leaf would become somebody else's")]
    IdentityChanged,
    /// An added leaf is no admitted roster device (REQ-082).
    #[error("ADD_NOT_ADMITTED: an added device is not admitted")]
    AddNotAdmitted,
    /// An added leaf has another key or user than the roster says (REQ-082).
    #[error("ADD_WRONG_KEY: an added leaf's key is not the roster's")]
    AddWrongKey,
    /// A device that is in the tree is added again (REQ-082).
    #[error("ADD_TWICE: an added device is already a member")]
    AddTwice,
    /// The committer may not add (REQ-082, REQ-121).
    #[error("ADD_NOT_ALLOWED: the committer may not add members")]
    AddNotAllowed,
    /// Somebody who left is added, and not by a group admin (REQ-126).
    #[error("ADD_AFTER_LEAVING: only a group admin may add somebody who has left")]
    AddAfterLeaving,
    /// A removed leaf is admitted, and the committer is neither a group admin nor its owner (REQ-082).
    #[error("REMOVE_NOT_ALLOWED: the committer may not remove that member")]
    RemoveNotAllowed,
    /// The policy changes without a group admin (REQ-082, REQ-094).
    #[error("POLICY_NOT_ALLOWED: the committer may not change the group's policy")]
    PolicyNotAllowed,
    /// The policy after the commit is not what its leaves, removals and additions call for (REQ-125).
    #[error("POLICY_UNFIT: the commit leaves the group with other admins or leavers than it must")]
    PolicyUnfit,
    /// The policy is missing or does not decode (REQ-094).
    #[error("POLICY_MISSING: the group has no readable policy")]
    PolicyMissing,
    /// The resulting tree, or the tree of the message's epoch, holds a leaf that is not admitted at `s` (REQ-082, REQ-083).
    #[error("STALE_TREE: the tree holds a device that was removed from the organisation")]
    StaleTree,
    /// The entry is signed by another device than the commit's sender, or not at all (REQ-051).
    #[error("BAD_ENTRY_SIGNATURE: the commit entry is not signed by the committer")]
    BadEntrySignature,
    /// The announced access key is not the derived one (REQ-051).
    #[error("WRONG_ACCESS_KEY: the announced access key is not the epoch's")]
    WrongAccessKey,
    /// The commit, or the tree that a Welcome leads to, has a public key that nothing can be sealed to (REQ-431).
    #[error("UNUSABLE_KEY: it has a public key that nothing can be encrypted to")]
    UnusableKey,
    /// The attestation's signatures or references do not hold (REQ-064).
    #[error("BAD_ATTESTATION: the attestation does not hold")]
    BadAttestation,
    /// A Welcome for a group that this device is in (REQ-093).
    #[error("WELCOME_UNASKED: a Welcome for a group that this device is in")]
    WelcomeUnasked,
    /// The Restart's signature or references do not hold (REQ-152).
    #[error("BAD_RESTART: the restart does not hold")]
    BadRestart,
    /// The Restart is by somebody who may not (REQ-152).
    #[error("RESTART_NOT_ALLOWED: the sender may not end the group")]
    RestartNotAllowed,
    /// The commit changes what the group continues (REQ-153).
    #[error("PREDECESSOR_CHANGED: the commit changes which group this one continues")]
    PredecessorChanged,
    /// Sent by a device that knew that the group is closed (REQ-102).
    #[error("GROUP_CLOSED: an administrator had closed the group before it was sent")]
    GroupClosed,
    /// The content is not readable.
    #[error("BAD_CONTENT: the message's content does not decode")]
    BadContent,
}

/// A leaf as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The organisation in its credential.
    pub org: OrgId,
    /// The user in its credential.
    pub user: UserId,
    /// The device in its credential.
    pub device: DeviceId,
    /// Its signature key.
    pub key: PublicKey,
}

/// An added leaf that asks to be let in anew (REQ-156).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resynced {
    /// The new leaf.
    pub leaf: Leaf,
    /// Whether it asks this group.
    pub is_for_here: bool,
    /// When it asked, its own clock, ms since 1970.
    pub asked_at_ms: u64,
    /// When the leaf in the tree had asked, if it ever did.
    pub before_ms: Option<u64>,
}

/// A commit as the rules see it.
#[derive(Clone, Debug)]
pub struct CommitView<'a> {
    /// The committer's roster head.
    pub s: RosterSeq,
    /// Who commits.
    pub committer: Leaf,
    /// The committer's leaf after the commit.
    pub committer_after: Leaf,
    /// The parent epoch's leaves.
    pub before: &'a [Leaf],
    /// What is added.
    pub adds: &'a [Leaf],
    /// What is removed.
    pub removes: &'a [Leaf],
    /// What of that is removed because it asked to be.
    pub leaves: &'a [Leaf],
    /// What is added and asks to be let in anew.
    pub resyncs: &'a [Resynced],
    /// The parent epoch's policy.
    pub policy: &'a GroupPolicy,
    /// The GroupContext extensions after the commit, if it changes them: `Some(None)` when they hold no readable policy.
    pub new_policy: Option<Option<&'a GroupPolicy>>,
    /// Whether it holds any other proposal, or another one by reference.
    pub other_proposals: bool,
}

impl<'a> CommitView<'a> {
    /// The parent's leaves that stay, by leaf index.
    fn kept(&self) -> impl Iterator<Item = &'a Leaf> + Clone + '_ {
        let before = self.before.iter();
        before.filter(|leaf| !self.removes.contains(leaf))
    }

    /// Whether a leaf is let in anew in the place of the same device's, as it asked, and for the first time (REQ-157).
    fn is_resync(&self, leaf: &Leaf) -> bool {
        let replaces = self.removes.contains(leaf) && self.adds.contains(leaf);
        replaces
            && self.resyncs.iter().any(|asked| {
                asked.leaf == *leaf
                    && asked.is_for_here
                    && asked
                        .before_ms
                        .is_none_or(|before| before < asked.asked_at_ms)
            })
    }

    /// The leaves of the resulting tree.
    fn after(&self) -> impl Iterator<Item = &'a Leaf> + Clone + '_ {
        self.kept().chain(self.adds)
    }

    /// Whether a user has a leaf in the resulting tree.
    fn keeps_user(&self, user: UserId) -> bool {
        self.after().any(|leaf| leaf.user == user)
    }

    /// Whether the commit takes a user's last leaf.
    fn loses_user(&self, user: UserId) -> bool {
        self.removes.iter().any(|leaf| leaf.user == user) && !self.keeps_user(user)
    }
}

/// Whether a leaf is exactly what the roster says, whether or not it is admitted now.
fn matches_roster(roster: &Roster, leaf: &Leaf) -> bool {
    leaf.org == roster.org()
        && roster
            .device(leaf.device)
            .is_some_and(|d| d.user == leaf.user && d.mls_signature_key == leaf.key)
}

fn is_admitted(roster: &Roster, leaf: &Leaf, s: RosterSeq) -> bool {
    matches_roster(roster, leaf) && roster.device_admitted_at(leaf.device, s)
}

/// The leaves that are not admitted at `s`: whoever sees one must commit its removal before it sends (REQ-091).
pub fn stale_leaves<'a>(
    roster: &'a Roster,
    leaves: &'a [Leaf],
    s: RosterSeq,
) -> impl Iterator<Item = &'a Leaf> {
    leaves
        .iter()
        .filter(move |leaf| !is_admitted(roster, leaf, s))
}

/// The rules for a commit (REQ-082), evaluated on the parent epoch's policy.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_commit(roster: &Roster, commit: &CommitView<'_>) -> Result<(), Violation> {
    let s = commit.s;
    if commit.other_proposals {
        return Err(Violation::ForbiddenProposal);
    }
    if !is_admitted(roster, &commit.committer, s) {
        return Err(Violation::SenderNotAdmitted);
    }
    if commit.committer_after != commit.committer {
        return Err(Violation::IdentityChanged);
    }
    let group_admin = commit.policy.is_admin(commit.committer.user);
    check_adds(roster, commit)?;
    for leaf in commit.removes {
        let own = leaf.user == commit.committer.user;
        let leaves = commit.leaves.contains(leaf);
        let anew = commit.is_resync(leaf);
        if is_admitted(roster, leaf, s) && !group_admin && !own && !leaves && !anew {
            return Err(Violation::RemoveNotAllowed);
        }
    }
    check_policy(roster, commit)?;
    for leaf in commit.after() {
        if !is_admitted(roster, leaf, s) {
            return Err(Violation::StaleTree);
        }
    }
    Ok(())
}

/// Who may add others: group admins, and members if the policy says so, but no guest (REQ-121).
#[must_use]
pub fn may_add(roster: &Roster, s: RosterSeq, policy: &GroupPolicy, user: UserId) -> bool {
    let by_policy = policy.who_may_add == WhoMayAdd::Members || policy.is_admin(user);
    by_policy && roster.role_at(user, s) != Some(Role::Guest)
}

fn check_adds(roster: &Roster, commit: &CommitView<'_>) -> Result<(), Violation> {
    let committer = commit.committer.user;
    for (i, leaf) in commit.adds.iter().enumerate() {
        // A further device of somebody who is in adds nobody.
        let anew = commit.is_resync(leaf);
        if leaf.user != committer && !anew && !may_add(roster, commit.s, commit.policy, committer) {
            return Err(Violation::AddNotAllowed);
        }
        if commit.policy.left.contains(&leaf.user) && !commit.policy.is_admin(committer) {
            return Err(Violation::AddAfterLeaving);
        }
        if leaf.org != roster.org() || !roster.device_admitted_at(leaf.device, commit.s) {
            return Err(Violation::AddNotAdmitted);
        }
        if !matches_roster(roster, leaf) {
            return Err(Violation::AddWrongKey);
        }
        let kept = commit
            .before
            .iter()
            .any(|l| l.device == leaf.device && !commit.removes.contains(l));
        if kept || commit.adds[..i].iter().any(|l| l.device == leaf.device) {
            return Err(Violation::AddTwice);
        }
    }
    Ok(())
}

/// Who may end a group whose last good epoch has these members and admins, judged at `s` (REQ-152): devices of its
/// admins other than the culprit, or, where a culprit leaves none, of the user of the lowest other leaf.
///
/// Guests may not: they could add nobody to the successor.
#[must_use]
pub fn restarters(
    roster: &Roster,
    s: RosterSeq,
    members: &[(DeviceId, UserId)],
    admins: &[UserId],
    culprit: Option<UserId>,
) -> Vec<DeviceId> {
    let able = |(device, user): &&(DeviceId, UserId)| {
        Some(*user) != culprit
            && roster.device_admitted_at(*device, s)
            && roster.role_at(*user, s) != Some(Role::Guest)
    };
    let able: Vec<_> = members.iter().filter(able).collect();
    let of = |wanted: &dyn Fn(UserId) -> bool| -> Vec<DeviceId> {
        let chosen = able.iter().filter(|(_, user)| wanted(*user));
        chosen.map(|(device, _)| *device).collect()
    };
    let entitled = of(&|user| admins.contains(&user));
    match able.first() {
        Some((_, lowest)) if entitled.is_empty() && culprit.is_some() => {
            of(&|user| user == *lowest)
        }
        _ => entitled,
    }
}

/// Who becomes admin where a commit takes a group's last one (REQ-125).
fn heir(roster: &Roster, commit: &CommitView<'_>) -> Option<UserId> {
    let is_guest = |user: UserId| roster.role_at(user, commit.s) == Some(Role::Guest);
    let stays = |user: UserId| commit.kept().any(|leaf| leaf.user == user);
    let present = commit.policy.admins.iter();
    let mut gone = present.filter(|user| commit.loses_user(**user));
    let named = gone.find_map(|user| {
        let successor = roster.successor_at(*user, commit.s)?;
        (stays(successor) && !is_guest(successor)).then_some(successor)
    });
    let longest = || commit.kept().find(|leaf| !is_guest(leaf.user));
    let heir = || longest().or_else(|| commit.kept().next());
    named.or_else(|| Some(heir()?.user))
}

/// The policy that a commit must leave the group with, if `wanted` is what its committer asks for (REQ-125).
///
/// A user who loses the last leaf is no admin any more; if no admin is left in the tree, whom the order named becomes one,
/// else the longest-standing user (by leaf, guests last). Who has left is remembered until a group admin adds them.
#[must_use]
pub fn settled_policy(
    roster: &Roster,
    commit: &CommitView<'_>,
    wanted: &GroupPolicy,
) -> GroupPolicy {
    let mut policy = wanted.clone();
    policy.admins.retain(|user| !commit.loses_user(*user));
    let present = &commit.policy.admins;
    let changes = *wanted.admins != **present || present.iter().any(|u| commit.loses_user(*u));
    if changes && !policy.admins.iter().any(|user| commit.keeps_user(*user)) {
        policy.admins.extend(heir(roster, commit));
    }
    policy.left.clone_from(&commit.policy.left);
    let gone = commit.leaves.iter().map(|leaf| leaf.user);
    let gone = gone.filter(|user| commit.loses_user(*user));
    policy.left.extend(gone);
    for leaf in commit.adds {
        policy.left.remove(&leaf.user);
    }
    policy
}

/// The policy changes by a group admin's wish, or exactly as the rest of the commit calls for (REQ-125).
fn check_policy(roster: &Roster, commit: &CommitView<'_>) -> Result<(), Violation> {
    let settled = |wanted| settled_policy(roster, commit, wanted);
    let present = commit.policy;
    let new = match commit.new_policy {
        None => present,
        Some(None) => return Err(Violation::PolicyMissing),
        Some(Some(new)) if new.predecessor != present.predecessor => {
            return Err(Violation::PredecessorChanged);
        }
        Some(Some(new)) => new,
    };
    if *new == settled(present) {
        return Ok(());
    }
    if new == present {
        return Err(Violation::PolicyUnfit);
    }
    if !present.is_admin(commit.committer.user) {
        return Err(Violation::PolicyNotAllowed);
    }
    let mut made = new.admins.iter().filter(|user| !present.is_admin(**user));
    if made.any(|user| !commit.keeps_user(*user)) || *new != settled(new) {
        return Err(Violation::PolicyUnfit);
    }
    Ok(())
}

/// The rules for a leave (REQ-123): those for an application message, and once in an epoch.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_leave(
    roster: &Roster,
    s: RosterSeq,
    leaver: &Leaf,
    tree: &[Leaf],
    leavers: &[Leaf],
) -> Result<(), Violation> {
    check_application(roster, s, leaver, tree)?;
    if leavers.contains(leaver) {
        return Err(Violation::LeaveTwice);
    }
    Ok(())
}

/// The rules for an application message (REQ-083): its sender and the whole tree of its epoch are admitted at its `s`.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_application(
    roster: &Roster,
    s: RosterSeq,
    sender: &Leaf,
    tree: &[Leaf],
) -> Result<(), Violation> {
    if !is_admitted(roster, sender, s) {
        return Err(Violation::SenderNotAdmitted);
    }
    match stale_leaves(roster, tree, s).next() {
        Some(_) => Err(Violation::StaleTree),
        None => Ok(()),
    }
}

/// The rules for the tree that a Welcome leads into (REQ-093), `s` being that of the commit that added us.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_joined_tree(
    roster: &Roster,
    s: RosterSeq,
    adder: &Leaf,
    me: UserId,
    tree: &[Leaf],
) -> Result<(), Violation> {
    if !is_admitted(roster, adder, s) {
        return Err(Violation::SenderNotAdmitted);
    }
    // A guest adds nobody but a further device of their own.
    if adder.user != me && roster.role_at(adder.user, s) == Some(Role::Guest) {
        return Err(Violation::AddNotAllowed);
    }
    match stale_leaves(roster, tree, s).next() {
        Some(_) => Err(Violation::StaleTree),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "repair_tests.rs"]
mod repair_tests;
