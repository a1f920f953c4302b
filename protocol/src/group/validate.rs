//! The rules for what a group accepts (DESIGN 4): one table of named violations, evaluated on plain values.
//!
//! Every inbound record and Welcome goes through here, on every path. This module must never look at
//! anything but its arguments.

use crate::identity::{DeviceId, OrgId, PublicKey, RosterSeq, UserId};
use crate::roster::{Role, Roster};

use super::GroupPolicy;

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
    /// Not an application message, and not a commit (REQ-081).
    #[error("FORBIDDEN_CONTENT: this kind of MLS content is switched off")]
    ForbiddenContent,
    /// The commit holds proposals that are switched off, or by reference (REQ-081).
    #[error("FORBIDDEN_PROPOSAL: the commit holds a proposal that is switched off")]
    ForbiddenProposal,
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
    /// The committer may not add (REQ-082).
    #[error("ADD_NOT_ALLOWED: the committer may not add members")]
    AddNotAllowed,
    /// A removed leaf is admitted, and the committer is neither a group admin nor its owner (REQ-082).
    #[error("REMOVE_NOT_ALLOWED: the committer may not remove that member")]
    RemoveNotAllowed,
    /// The policy changes without a group admin (REQ-082, REQ-094).
    #[error("POLICY_NOT_ALLOWED: the committer may not change the group's policy")]
    PolicyNotAllowed,
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
    /// The parent epoch's policy.
    pub policy: &'a GroupPolicy,
    /// The GroupContext extensions after the commit, if it changes them: `Some(None)` when they hold no readable policy.
    pub new_policy: Option<Option<&'a GroupPolicy>>,
    /// Whether it holds any other proposal, or one by reference.
    pub other_proposals: bool,
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
        if is_admitted(roster, leaf, s) && !group_admin && !own {
            return Err(Violation::RemoveNotAllowed);
        }
    }
    match commit.new_policy {
        None => {}
        Some(None) => return Err(Violation::PolicyMissing),
        Some(Some(_)) if !group_admin => return Err(Violation::PolicyNotAllowed),
        Some(Some(new)) if new.predecessor != commit.policy.predecessor => {
            return Err(Violation::PredecessorChanged);
        }
        Some(Some(_)) => {}
    }
    let kept = commit
        .before
        .iter()
        .filter(|leaf| !commit.removes.contains(leaf));
    for leaf in kept.chain(commit.adds) {
        if !is_admitted(roster, leaf, s) {
            return Err(Violation::StaleTree);
        }
    }
    Ok(())
}

fn check_adds(roster: &Roster, commit: &CommitView<'_>) -> Result<(), Violation> {
    if commit.adds.is_empty() {
        return Ok(());
    }
    // Guests are added to groups; they add nobody.
    if roster.role_at(commit.committer.user, commit.s) == Some(Role::Guest) {
        return Err(Violation::AddNotAllowed);
    }
    for (i, leaf) in commit.adds.iter().enumerate() {
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
    tree: &[Leaf],
) -> Result<(), Violation> {
    if !is_admitted(roster, adder, s) {
        return Err(Violation::SenderNotAdmitted);
    }
    if roster.role_at(adder.user, s) == Some(Role::Guest) {
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
