//! The rules of section 10.2 of the specification, written from it a second time: for the other stack's device.
//!
//! This module must never call `mortise_protocol::group::validate`: that both decide alike is what is tested.

use std::collections::BTreeSet;

use mortise_protocol::group::{GroupPolicy, WhoMayAdd};
use mortise_protocol::identity::{
    DeviceId, GroupId, Hash, OrgId, PublicKey, RosterSeq, UserId, decode,
};
use mortise_protocol::roster::{Role, Roster};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

/// The name of a rule, as in the table of section 10.2.
pub(super) type Rule = &'static str;

/// A leaf, as its credential and key say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaf {
    /// The organisation.
    pub org: OrgId,
    /// Whose device.
    pub user: UserId,
    /// Which device.
    pub device: DeviceId,
    /// Its MLS signature key.
    pub key: PublicKey,
}

/// The content of the leaf extension of a resync (REQ-156), read from the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
struct Resync {
    version: u8,
    group: GroupId,
    entry_hash: Hash,
    asked_at_ms: u64,
}

/// A leaf with what it asks of a group, if it does.
#[derive(Clone, Debug)]
pub(super) struct Added {
    /// The leaf.
    pub(super) leaf: Leaf,
    /// The bytes of its resync extension.
    pub(super) resync: Option<Vec<u8>>,
}

/// What was in an epoch: the leaves by index, with the resyncs that they carry, and what was agreed.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// By leaf index, blanks left out.
    pub(super) leaves: Vec<Added>,
    /// The policy.
    pub(super) policy: GroupPolicy,
}

impl Tree {
    /// The leaf of a device.
    pub(super) fn leaf(&self, device: DeviceId) -> Option<&Added> {
        self.leaves.iter().find(|l| l.leaf.device == device)
    }

    /// Whether a user has a leaf.
    pub(super) fn has_user(&self, user: UserId) -> bool {
        self.leaves.iter().any(|l| l.leaf.user == user)
    }

    /// The leaves whose devices are not admitted at `s` (REQ-091).
    pub(super) fn stale<'a>(
        &'a self,
        roster: &'a Roster,
        s: RosterSeq,
    ) -> impl Iterator<Item = Leaf> + 'a {
        let leaves = self.leaves.iter().map(|l| l.leaf);
        leaves.filter(move |leaf| !is_admitted(roster, leaf, s))
    }
}

/// What a commit does.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Who commits.
    pub(super) committer: Leaf,
    /// Their leaf afterwards.
    pub(super) committer_after: Leaf,
    /// Leaves that are added.
    pub(super) adds: Vec<Added>,
    /// Leaves that are removed, by value or by reference.
    pub(super) removes: Vec<Leaf>,
    /// Those of them that asked to be: by reference.
    pub(super) leaves: Vec<Leaf>,
    /// The policy afterwards; `None` when there is none that can be read.
    pub(super) policy: Option<GroupPolicy>,
}

fn is_of_roster(roster: &Roster, leaf: &Leaf) -> bool {
    leaf.org == roster.org()
        && roster
            .device(leaf.device)
            .is_some_and(|known| known.user == leaf.user && known.mls_signature_key == leaf.key)
}

fn is_admitted(roster: &Roster, leaf: &Leaf, s: RosterSeq) -> bool {
    is_of_roster(roster, leaf) && roster.device_admitted_at(leaf.device, s)
}

fn is_guest(roster: &Roster, user: UserId, s: RosterSeq) -> bool {
    roster.role_at(user, s) == Some(Role::Guest)
}

fn keep(allowed: bool, rule: Rule) -> Result<(), Rule> {
    if allowed { Ok(()) } else { Err(rule) }
}

/// REQ-083: who may send, and into what tree.
pub(super) fn application(
    roster: &Roster,
    s: RosterSeq,
    sender: &Leaf,
    tree: &Tree,
) -> Result<(), Rule> {
    keep(is_admitted(roster, sender, s), "SENDER_NOT_ADMITTED")?;
    keep(tree.stale(roster, s).next().is_none(), "STALE_TREE")
}

/// REQ-123: a leave.
pub(super) fn leave(
    roster: &Roster,
    s: RosterSeq,
    leaver: &Leaf,
    tree: &Tree,
    leavers: &[Leaf],
) -> Result<(), Rule> {
    application(roster, s, leaver, tree)?;
    keep(!leavers.contains(leaver), "LEAVE_TWICE")
}

/// REQ-093, as far as it is about the tree that a Welcome leads into.
pub(super) fn joined(
    roster: &Roster,
    s: RosterSeq,
    committer: &Leaf,
    me: &Leaf,
    tree: &Tree,
) -> Result<(), Rule> {
    keep(is_admitted(roster, committer, s), "SENDER_NOT_ADMITTED")?;
    let by_guest = committer.user != me.user && is_guest(roster, committer.user, s);
    keep(!by_guest, "ADD_NOT_ALLOWED")?;
    keep(tree.stale(roster, s).next().is_none(), "STALE_TREE")?;
    let devices: BTreeSet<_> = tree.leaves.iter().map(|l| l.leaf.device).collect();
    keep(devices.len() == tree.leaves.len(), "ADD_TWICE")
}

/// REQ-082, REQ-121, REQ-125, REQ-126, REQ-153, REQ-157: a commit at `s`, on the tree of its parent epoch.
pub(super) fn commit(
    roster: &Roster,
    s: RosterSeq,
    group: GroupId,
    parent: &Tree,
    change: &Change,
) -> Result<(), Rule> {
    let committer = &change.committer;
    keep(is_admitted(roster, committer, s), "SENDER_NOT_ADMITTED")?;
    keep(change.committer_after == *committer, "IDENTITY_CHANGED")?;
    let admin = parent.policy.is_admin(committer.user);
    additions(roster, s, group, parent, change, admin)?;
    for leaf in &change.removes {
        let allowed = admin
            || !is_admitted(roster, leaf, s)
            || leaf.user == committer.user
            || change.leaves.contains(leaf)
            || is_resync(group, parent, change, leaf);
        keep(allowed, "REMOVE_NOT_ALLOWED")?;
    }
    policy(roster, s, parent, change, admin)?;
    let clean = after(parent, change).all(|leaf| is_admitted(roster, &leaf, s));
    keep(clean, "STALE_TREE")
}

fn additions(
    roster: &Roster,
    s: RosterSeq,
    group: GroupId,
    parent: &Tree,
    change: &Change,
    admin: bool,
) -> Result<(), Rule> {
    let me = change.committer.user;
    let may_add =
        (admin || parent.policy.who_may_add == WhoMayAdd::Members) && !is_guest(roster, me, s);
    let mut seen = BTreeSet::new();
    for added in &change.adds {
        let leaf = &added.leaf;
        let anew = is_resync(group, parent, change, leaf);
        keep(may_add || leaf.user == me || anew, "ADD_NOT_ALLOWED")?;
        let has_left = parent.policy.left.contains(&leaf.user);
        keep(!has_left || admin, "ADD_AFTER_LEAVING")?;
        let admitted = leaf.org == roster.org() && roster.device_admitted_at(leaf.device, s);
        keep(admitted, "ADD_NOT_ADMITTED")?;
        keep(is_of_roster(roster, leaf), "ADD_WRONG_KEY")?;
        let stays = kept(parent, change).any(|l| l.device == leaf.device);
        keep(!stays && seen.insert(leaf.device), "ADD_TWICE")?;
    }
    Ok(())
}

/// REQ-125, REQ-153.
fn policy(
    roster: &Roster,
    s: RosterSeq,
    parent: &Tree,
    change: &Change,
    admin: bool,
) -> Result<(), Rule> {
    let present = &parent.policy;
    let new = change.policy.as_ref().ok_or("POLICY_MISSING")?;
    keep(
        new.predecessor == present.predecessor,
        "PREDECESSOR_CHANGED",
    )?;
    if *new == settled(roster, s, parent, change, present) {
        return Ok(());
    }
    keep(new != present, "POLICY_UNFIT")?;
    keep(admin, "POLICY_NOT_ALLOWED")?;
    let in_tree = |user: &UserId| after(parent, change).any(|leaf| leaf.user == *user);
    let mut made = new.admins.iter().filter(|user| !present.is_admin(**user));
    keep(made.all(in_tree), "POLICY_UNFIT")?;
    keep(
        *new == settled(roster, s, parent, change, new),
        "POLICY_UNFIT",
    )
}

/// The policy that REQ-125 calls for, if `wanted` is the committer's wish.
pub(super) fn settled(
    roster: &Roster,
    s: RosterSeq,
    parent: &Tree,
    change: &Change,
    wanted: &GroupPolicy,
) -> GroupPolicy {
    let stays = |user: UserId| after(parent, change).any(|leaf| leaf.user == user);
    let gone = |user: UserId| parent.has_user(user) && !stays(user);
    let mut policy = wanted.clone();
    policy.admins.retain(|user| !gone(*user));
    let touched = wanted.admins != parent.policy.admins
        || parent.policy.admins.iter().any(|user| gone(*user));
    if touched && !policy.admins.iter().any(|user| stays(*user)) {
        let full = |leaf: &Leaf| !is_guest(roster, leaf.user, s);
        let departed = parent.policy.admins.iter().filter(|user| gone(**user));
        let mut named = departed.filter_map(|user| roster.successor_at(*user, s));
        let heir = named
            .find_map(|user| kept(parent, change).find(|leaf| leaf.user == user && full(leaf)))
            .or_else(|| kept(parent, change).find(full))
            .or_else(|| kept(parent, change).next());
        policy.admins.extend(heir.map(|leaf| leaf.user));
    }
    policy.left.clone_from(&parent.policy.left);
    let leavers = change.leaves.iter().map(|leaf| leaf.user);
    policy.left.extend(leavers.filter(|user| gone(*user)));
    for added in &change.adds {
        policy.left.remove(&added.leaf.user);
    }
    policy
}

/// The parent's leaves that stay, by index.
fn kept<'a>(parent: &'a Tree, change: &'a Change) -> impl Iterator<Item = Leaf> + 'a {
    let leaves = parent.leaves.iter().map(|l| l.leaf);
    leaves.filter(|leaf| !change.removes.contains(leaf))
}

/// The leaves of the resulting tree.
fn after<'a>(parent: &'a Tree, change: &'a Change) -> impl Iterator<Item = Leaf> + 'a {
    kept(parent, change).chain(change.adds.iter().map(|added| added.leaf))
}

/// REQ-157: the same device's leaf, removed and added, which asks this group and later than before.
fn is_resync(group: GroupId, parent: &Tree, change: &Change, leaf: &Leaf) -> bool {
    let read = |bytes: &Option<Vec<u8>>| -> Option<Resync> {
        let resync: Resync = decode(bytes.as_ref()?).ok()?;
        (resync.version == 1).then_some(resync)
    };
    let added = change.adds.iter().find(|added| added.leaf == *leaf);
    let Some(asked) = added.and_then(|added| read(&added.resync)) else {
        return false;
    };
    let before = parent.leaf(leaf.device).and_then(|l| read(&l.resync));
    change.removes.contains(leaf)
        && asked.group == group
        && before.is_none_or(|before| before.asked_at_ms < asked.asked_at_ms)
}
