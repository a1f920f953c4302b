//! Each rule, kept once and broken once, on a roster that is really signed.

use super::*;
use crate::identity::{InvitationId, SealSecret, SealedProfile, SigningKey};
use crate::roster::{AddDevice, EntrySigner, Genesis, Op, sign_entry};

/// A device's keys, all from one seed.
struct Keys {
    user: UserId,
    mls: SigningKey,
    transport: SigningKey,
    seal: SealSecret,
}

impl Keys {
    fn new(n: u8) -> Self {
        let key = |kind: u8| SigningKey::from_seed(&[n.wrapping_mul(4).wrapping_add(kind); 32]);
        Self {
            user: UserId([n; 16]),
            mls: key(1),
            transport: key(2),
            seal: SealSecret::new(key(3)),
        }
    }

    fn add(&self, org: OrgId) -> Op {
        let (mls, transport, seal) = (&self.mls, &self.transport, &self.seal);
        Op::AddDevice(AddDevice::sign(org, self.user, mls, transport, seal))
    }

    fn device(&self) -> DeviceId {
        self.mls.public().device_id()
    }

    fn leaf(&self, org: OrgId) -> Leaf {
        Leaf {
            org,
            user: self.user,
            device: self.device(),
            key: self.mls.public(),
        }
    }
}

/// An organisation whose owner has invited one device per role in `roles`.
pub(super) struct Org {
    pub(super) roster: Roster,
    owner: Keys,
    others: Vec<Keys>,
}

fn profile() -> SealedProfile {
    SealedProfile(vec![0; 16].into())
}

impl Org {
    pub(super) fn new(roles: &[Role]) -> Self {
        let root = SigningKey::from_seed(&[255; 32]);
        let id = root.public().org_id();
        let owner = Keys::new(1);
        let genesis = vec![
            Op::Genesis(Genesis {
                root_key: root.public(),
                statement_key: SigningKey::from_seed(&[254; 32]).public(),
                suite: 1,
                directory_commitment: crate::identity::Hash([0; 32]),
            }),
            Op::AddUser {
                user: owner.user,
                role: Role::Owner,
                profile: profile(),
            },
            owner.add(id),
        ];
        let mut this = Self {
            roster: Roster::new(id),
            owner,
            others: Vec::new(),
        };
        this.sign(EntrySigner::Root, &root, genesis);
        for (n, role) in (2..).zip(roles) {
            this.join(Keys::new(n), *role);
        }
        this
    }

    fn sign(&mut self, signer: EntrySigner, key: &SigningKey, ops: Vec<Op>) {
        let entry = sign_entry(self.roster.org(), self.roster.head(), 1, signer, key, ops);
        self.roster.apply(entry.bytes()).expect("a valid entry");
    }

    fn join(&mut self, keys: Keys, role: Role) {
        let n = keys.user.0[0];
        let invitation = InvitationId([n; 16]);
        let key = SigningKey::from_seed(&[200 + n; 32]);
        self.by_owner(vec![
            Op::AddUser {
                user: keys.user,
                role,
                profile: profile(),
            },
            Op::Invite {
                invitation,
                user: keys.user,
                key: key.public(),
                expires_at_ms: 100,
            },
        ]);
        let add = keys.add(self.roster.org());
        self.sign(EntrySigner::Invitation(invitation), &key, vec![add]);
        self.others.push(keys);
    }

    fn by_owner(&mut self, ops: Vec<Op>) {
        let owner = Keys::new(1);
        self.sign(EntrySigner::Device(owner.device()), &owner.mls, ops);
    }

    pub(super) fn remove(&mut self, i: usize) {
        let user = self.others[i].user;
        self.by_owner(vec![Op::RemoveUser { user }]);
    }

    pub(super) fn s(&self) -> RosterSeq {
        self.roster.head().seq
    }

    pub(super) fn leaf(&self, i: usize) -> Leaf {
        self.others[i].leaf(self.roster.org())
    }

    pub(super) fn policy(&self) -> GroupPolicy {
        GroupPolicy::new("x".into(), self.owner.user)
    }
}

/// A commit by `committer` in a group of `before`, which changes nothing.
pub(super) fn commit<'a>(
    org: &Org,
    policy: &'a GroupPolicy,
    committer: Leaf,
    before: &'a [Leaf],
) -> CommitView<'a> {
    CommitView {
        s: org.s(),
        committer,
        committer_after: committer,
        before,
        adds: &[],
        removes: &[],
        leaves: &[],
        resyncs: &[],
        policy,
        new_policy: None,
        other_proposals: false,
    }
}

pub(super) const THREE: [Role; 3] = [Role::Member, Role::Member, Role::Guest];

/// REQ-082: a plain refresh by a member passes.
#[test]
fn a_refresh_passes() {
    let org = Org::new(&THREE);
    let (policy, before) = (org.policy(), [org.leaf(0), org.leaf(1)]);
    let view = commit(&org, &policy, before[0], &before);
    assert_eq!(check_commit(&org.roster, &view), Ok(()));
}

/// REQ-081: other proposals are switched off.
#[test]
fn other_proposals_are_refused() {
    let org = Org::new(&THREE);
    let (policy, before) = (org.policy(), [org.leaf(0)]);
    let mut view = commit(&org, &policy, before[0], &before);
    view.other_proposals = true;
    assert_eq!(
        check_commit(&org.roster, &view),
        Err(Violation::ForbiddenProposal)
    );
}

/// REQ-082: a committer that was removed, never was, or changes who it is.
#[test]
fn a_committer_must_be_admitted_and_stay_itself() {
    let mut org = Org::new(&THREE);
    let policy = org.policy();
    let (x, other) = (org.leaf(0), org.leaf(1));
    let before = [x, other];
    let mut changed = commit(&org, &policy, x, &before);
    changed.committer_after = Leaf {
        user: other.user,
        ..x
    };
    assert_eq!(
        check_commit(&org.roster, &changed),
        Err(Violation::IdentityChanged)
    );
    org.remove(0);
    let view = commit(&org, &policy, x, &before);
    assert_eq!(
        check_commit(&org.roster, &view),
        Err(Violation::SenderNotAdmitted)
    );
    let stranger = Keys::new(77).leaf(org.roster.org());
    let view = commit(&org, &policy, stranger, &before);
    assert_eq!(
        check_commit(&org.roster, &view),
        Err(Violation::SenderNotAdmitted)
    );
}

/// REQ-082: adds are admitted roster devices with exactly that key, by somebody who may, once.
#[test]
fn adds_are_held_to_the_roster() {
    let mut org = Org::new(&[Role::Member, Role::Member, Role::Guest, Role::Member]);
    let policy = org.policy();
    let before = [org.leaf(0), org.leaf(2)];
    let check = |org: &Org, committer: Leaf, adds: &[Leaf]| {
        let mut view = commit(org, &policy, committer, &before);
        view.adds = adds;
        check_commit(&org.roster, &view)
    };
    let new = org.leaf(1);
    assert_eq!(check(&org, before[0], &[new]), Ok(()));
    assert_eq!(
        check(&org, before[1], &[new]),
        Err(Violation::AddNotAllowed),
        "guests add nobody"
    );
    let wrong_key = Leaf {
        key: org.leaf(3).key,
        ..new
    };
    assert_eq!(
        check(&org, before[0], &[wrong_key]),
        Err(Violation::AddWrongKey)
    );
    let wrong_user = Leaf {
        user: org.leaf(3).user,
        ..new
    };
    assert_eq!(
        check(&org, before[0], &[wrong_user]),
        Err(Violation::AddWrongKey)
    );
    let outsider = Keys::new(77).leaf(org.roster.org());
    assert_eq!(
        check(&org, before[0], &[outsider]),
        Err(Violation::AddNotAdmitted)
    );
    let elsewhere = Leaf {
        org: OrgId([0; 32]),
        ..new
    };
    assert_eq!(
        check(&org, before[0], &[elsewhere]),
        Err(Violation::AddNotAdmitted)
    );
    assert_eq!(
        check(&org, before[0], &[before[1]]),
        Err(Violation::AddTwice)
    );
    assert_eq!(
        check(&org, before[0], &[new, new]),
        Err(Violation::AddTwice)
    );
    org.remove(1);
    assert_eq!(
        check(&org, before[0], &[new]),
        Err(Violation::AddNotAdmitted),
        "a KeyPackage from before the order"
    );
}

/// REQ-082: who may remove whom.
#[test]
fn removals_are_by_admins_owners_of_the_leaf_or_of_the_departed() {
    let mut org = Org::new(&THREE);
    let policy = org.policy();
    let owner = org.owner.leaf(org.roster.org());
    let before = [owner, org.leaf(0), org.leaf(1)];
    let check = |org: &Org, committer: Leaf, removes: &[Leaf]| {
        let mut view = commit(org, &policy, committer, &before);
        view.removes = removes;
        check_commit(&org.roster, &view)
    };
    assert_eq!(check(&org, owner, &[before[1]]), Ok(()), "a group admin");
    assert_eq!(
        check(&org, before[1], &[before[2]]),
        Err(Violation::RemoveNotAllowed)
    );
    assert_eq!(
        check(&org, before[1], &[owner]),
        Err(Violation::RemoveNotAllowed)
    );
    org.remove(1);
    assert_eq!(
        check(&org, before[1], &[before[2]]),
        Ok(()),
        "anybody may remove the departed"
    );
}

/// REQ-082: the resulting tree is clean at `s`; whoever may commit the removal must.
#[test]
fn a_commit_that_leaves_a_departed_leaf_is_refused() {
    let mut org = Org::new(&THREE);
    let policy = org.policy();
    let before = [org.leaf(0), org.leaf(1)];
    let earlier = org.s();
    org.remove(1);
    let mut view = commit(&org, &policy, before[0], &before);
    assert_eq!(check_commit(&org.roster, &view), Err(Violation::StaleTree));
    view.s = earlier;
    assert_eq!(
        check_commit(&org.roster, &view),
        Ok(()),
        "at an s before the order it was clean; the fence refuses that elsewhere"
    );
}

/// REQ-082, REQ-094: only group admins change the policy, and only to one that can be read.
#[test]
fn policy_changes_are_for_group_admins() {
    let org = Org::new(&THREE);
    let policy = org.policy();
    let owner = org.owner.leaf(org.roster.org());
    let before = [owner, org.leaf(0)];
    let changed = GroupPolicy::new("y".into(), org.leaf(0).user);
    let check = |committer: Leaf, new: Option<&GroupPolicy>| {
        let mut view = commit(&org, &policy, committer, &before);
        view.new_policy = Some(new);
        check_commit(&org.roster, &view)
    };
    assert_eq!(check(owner, Some(&changed)), Ok(()));
    assert_eq!(
        check(before[1], Some(&changed)),
        Err(Violation::PolicyNotAllowed),
        "nobody makes themselves admin"
    );
    assert_eq!(check(owner, None), Err(Violation::PolicyMissing));
}

/// REQ-083: an application message is accepted only from the admitted, in a clean tree.
#[test]
fn messages_need_a_clean_tree() {
    let mut org = Org::new(&THREE);
    let tree = [org.leaf(0), org.leaf(1)];
    let before = org.s();
    let check = |org: &Org, s, sender: &Leaf| check_application(&org.roster, s, sender, &tree);
    assert_eq!(check(&org, before, &tree[0]), Ok(()));
    org.remove(1);
    let after = org.s();
    assert_eq!(
        check(&org, after, &tree[1]),
        Err(Violation::SenderNotAdmitted)
    );
    assert_eq!(check(&org, after, &tree[0]), Err(Violation::StaleTree));
    assert_eq!(check(&org, before, &tree[0]), Ok(()));
}

/// REQ-093: a Welcome leads into a clean tree, by somebody who may add.
#[test]
fn joined_trees_are_clean() {
    let mut org = Org::new(&THREE);
    let tree = [org.leaf(0), org.leaf(1), org.leaf(2)];
    let check = |org: &Org, adder: &Leaf| {
        check_joined_tree(&org.roster, org.s(), adder, UserId([99; 16]), &tree)
    };
    assert_eq!(check(&org, &tree[0]), Ok(()));
    assert_eq!(check(&org, &tree[2]), Err(Violation::AddNotAllowed));
    org.remove(1);
    assert_eq!(check(&org, &tree[0]), Err(Violation::StaleTree));
    assert_eq!(check(&org, &tree[1]), Err(Violation::SenderNotAdmitted));
}

#[path = "validate_policy_tests.rs"]
mod policy;
