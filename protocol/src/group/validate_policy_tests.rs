//! The rules for leaves, for who may add, and for the policy that a commit must leave a group with.

use super::*;

const PEOPLE: [Role; 4] = [Role::Member, Role::Guest, Role::Member, Role::Member];

/// A group of the owner (its admin), a member, a guest and another member, by leaf; a third member is outside.
struct Room {
    org: Org,
    policy: GroupPolicy,
    tree: Vec<Leaf>,
}

impl Room {
    fn new() -> Self {
        let org = Org::new(&PEOPLE);
        let owner = org.owner.leaf(org.roster.org());
        Self {
            policy: org.policy(),
            tree: vec![owner, org.leaf(1), org.leaf(0), org.leaf(2)],
            org,
        }
    }

    fn view(&self, committer: usize) -> CommitView<'_> {
        commit(&self.org, &self.policy, self.tree[committer], &self.tree)
    }

    fn check(&self, view: &CommitView<'_>) -> Result<(), Violation> {
        check_commit(&self.org.roster, view)
    }
}

const OWNER: usize = 0;
const GUEST: usize = 1;
const MEMBER: usize = 2;
const OTHER: usize = 3;

/// REQ-121: members add unless the policy leaves it to admins; guests never do.
#[test]
fn who_may_add_is_for_the_policy_to_say() {
    let mut room = Room::new();
    let new = [room.org.leaf(3)];
    let check = |room: &Room, committer| {
        let mut view = room.view(committer);
        view.adds = &new;
        room.check(&view)
    };
    assert_eq!(check(&room, MEMBER), Ok(()));
    assert_eq!(check(&room, GUEST), Err(Violation::AddNotAllowed));
    room.policy.who_may_add = WhoMayAdd::Admins;
    assert_eq!(check(&room, MEMBER), Err(Violation::AddNotAllowed));
    assert_eq!(check(&room, OWNER), Ok(()));
    room.policy.admins.push(room.tree[GUEST].user);
    assert_eq!(check(&room, GUEST), Err(Violation::AddNotAllowed));
}

/// REQ-121, REQ-127: a further device of the committer's own user is no new member, whatever the policy.
#[test]
fn own_devices_may_be_added_by_anybody() {
    let mut room = Room::new();
    room.policy.who_may_add = WhoMayAdd::Admins;
    // The guest's leaf is taken out of the tree to be the one that is added by itself, in another's place.
    let guest = room.tree[GUEST];
    let other = Leaf {
        device: room.tree[OTHER].device,
        key: room.tree[OTHER].key,
        ..guest
    };
    let adds = [other];
    let before = [guest];
    let mut view = room.view(GUEST);
    view.before = &before;
    view.adds = &adds;
    // It passes the rule for who may add, and fails the next: that device is somebody else's.
    assert_eq!(room.check(&view), Err(Violation::AddWrongKey));
    view.adds = &room.tree[OTHER..];
    assert_eq!(room.check(&view), Err(Violation::AddNotAllowed));
}

/// REQ-123: a leave obeys the rules for messages, and is said once.
#[test]
fn a_leave_is_held_to_the_rules_for_messages() {
    let mut room = Room::new();
    let leaver = room.tree[MEMBER];
    let check = |room: &Room, leavers: &[Leaf]| {
        let org = &room.org;
        check_leave(&org.roster, org.s(), &leaver, &room.tree, leavers)
    };
    assert_eq!(check(&room, &[room.tree[OTHER]]), Ok(()));
    assert_eq!(check(&room, &[leaver]), Err(Violation::LeaveTwice));
    room.org.remove(2);
    assert_eq!(check(&room, &[]), Err(Violation::StaleTree));
    room.org.remove(0);
    assert_eq!(check(&room, &[]), Err(Violation::SenderNotAdmitted));
}

/// REQ-082, REQ-124: anybody carries out a leave, and nobody's leaf but a leaver's.
#[test]
fn anybody_carries_out_a_leave() {
    let room = Room::new();
    let leaver = room.tree[OTHER];
    let mut settled = room.policy.clone();
    settled.left.insert(leaver.user);
    let removes = [leaver];
    let mut view = room.view(GUEST);
    view.removes = &removes;
    view.new_policy = Some(Some(&settled));
    assert_eq!(room.check(&view), Err(Violation::RemoveNotAllowed));
    view.leaves = &removes;
    assert_eq!(room.check(&view), Ok(()));
}

/// REQ-125, REQ-126: the commit that carries out a leave writes down who left, and nothing else.
#[test]
fn a_leave_is_remembered_by_its_commit() {
    let room = Room::new();
    let leaver = room.tree[OTHER];
    let removes = [leaver];
    let mut view = room.view(MEMBER);
    view.removes = &removes;
    view.leaves = &removes;
    assert_eq!(room.check(&view), Err(Violation::PolicyUnfit), "forgotten");
    let mut settled = settled_policy(&room.org.roster, &view, &room.policy);
    assert_eq!(settled.left, [leaver.user].into());
    settled.name = "mine".into();
    view.new_policy = Some(Some(&settled));
    assert_eq!(room.check(&view), Err(Violation::PolicyNotAllowed));
    let mut admins = room.view(OWNER);
    admins.removes = &removes;
    admins.leaves = &removes;
    admins.new_policy = Some(Some(&settled));
    assert_eq!(
        room.check(&admins),
        Ok(()),
        "a group admin may rename in one go"
    );
    let mut forgets = settled.clone();
    forgets.left.clear();
    admins.new_policy = Some(Some(&forgets));
    assert_eq!(room.check(&admins), Err(Violation::PolicyUnfit));
}

/// REQ-126: who left is added again by a group admin only, and is forgotten as a leaver with that.
#[test]
fn a_leaver_is_added_again_by_an_admin_only() {
    let mut room = Room::new();
    let leaver = room.org.leaf(3);
    room.policy.left.insert(leaver.user);
    let adds = [leaver];
    let mut view = room.view(MEMBER);
    view.adds = &adds;
    assert_eq!(room.check(&view), Err(Violation::AddAfterLeaving));
    let mut view = room.view(OWNER);
    view.adds = &adds;
    assert_eq!(room.check(&view), Err(Violation::PolicyUnfit));
    let settled = settled_policy(&room.org.roster, &view, &room.policy);
    assert!(settled.left.is_empty());
    view.new_policy = Some(Some(&settled));
    assert_eq!(room.check(&view), Ok(()));
}

/// REQ-125: when the last admin goes, the longest-standing other user follows, guests last; anybody may write that,
/// and nothing else.
#[test]
fn the_last_admin_has_an_heir() {
    let mut room = Room::new();
    let owner = room.tree[OWNER];
    let removes = [owner];
    let mut view = room.view(OTHER);
    view.removes = &removes;
    view.leaves = &removes;
    let settled = settled_policy(&room.org.roster, &view, &room.policy);
    assert_eq!(settled.admins, [room.tree[MEMBER].user], "not the guest");
    view.new_policy = Some(Some(&settled));
    assert_eq!(room.check(&view), Ok(()));
    let mut usurped = settled.clone();
    usurped.admins = vec![room.tree[OTHER].user];
    view.new_policy = Some(Some(&usurped));
    assert_eq!(room.check(&view), Err(Violation::PolicyNotAllowed));
    view.new_policy = None;
    assert_eq!(room.check(&view), Err(Violation::PolicyUnfit));
    // An admin who stays inherits from one who goes, and nobody else does.
    let other = room.tree[OTHER].user;
    room.policy.admins.push(other);
    let mut view = room.view(MEMBER);
    view.removes = &removes;
    view.leaves = &removes;
    let settled = settled_policy(&room.org.roster, &view, &room.policy);
    assert_eq!(settled.admins, [other]);
}

/// REQ-125, REQ-391: whom the order names inherits, if they are in the group and no guest; else who has been there longest.
#[test]
fn the_order_may_name_the_heir() {
    let outside = 3;
    let cases = [(2, OTHER), (1, OWNER), (outside, OWNER)];
    for (successor, heir) in cases {
        let mut room = Room::new();
        let gone = room.tree[MEMBER];
        room.policy.admins = vec![gone.user];
        let (user, successor) = (gone.user, room.org.leaf(successor).user);
        let named = Op::NameSuccessor { user, successor };
        room.org.by_owner(vec![named, Op::RemoveUser { user }]);
        let removes = [gone];
        let mut view = room.view(GUEST);
        view.removes = &removes;
        let settled = settled_policy(&room.org.roster, &view, &room.policy);
        assert_eq!(settled.admins, [room.tree[heir].user]);
        // Before the order, nobody is named.
        view.s = RosterSeq(room.org.s().0 - 1);
        let settled = settled_policy(&room.org.roster, &view, &room.policy);
        assert_eq!(settled.admins, [room.tree[OWNER].user]);
    }
}

/// REQ-125: where only guests are left, the first of them is the heir.
#[test]
fn a_guest_inherits_from_nobody_else() {
    let room = Room::new();
    let before = &room.tree[..2];
    let removes = [room.tree[OWNER]];
    let mut view = room.view(GUEST);
    view.before = before;
    view.removes = &removes;
    view.leaves = &removes;
    let settled = settled_policy(&room.org.roster, &view, &room.policy);
    assert_eq!(settled.admins, [room.tree[GUEST].user]);
}

/// REQ-120, REQ-125: an admin's policy has an admin who is in the group, and makes nobody admin who is not.
#[test]
fn a_group_keeps_an_admin() {
    let room = Room::new();
    let check = |admins: Vec<UserId>| {
        let new = GroupPolicy {
            admins,
            ..room.policy.clone()
        };
        let mut view = room.view(OWNER);
        view.new_policy = Some(Some(&new));
        room.check(&view)
    };
    let (owner, member) = (room.tree[OWNER].user, room.tree[MEMBER].user);
    let outside = room.org.leaf(3).user;
    assert_eq!(check(vec![owner, member]), Ok(()));
    assert_eq!(check(vec![member]), Ok(()));
    assert_eq!(check(vec![]), Err(Violation::PolicyUnfit));
    assert_eq!(check(vec![outside]), Err(Violation::PolicyUnfit));
    assert_eq!(check(vec![owner, outside]), Err(Violation::PolicyUnfit));
}

/// REQ-093, REQ-127: a guest's Welcome is for the guest's own further devices only.
#[test]
fn a_guest_welcomes_only_its_own() {
    let room = Room::new();
    let guest = room.tree[GUEST];
    let check = |me| check_joined_tree(&room.org.roster, room.org.s(), &guest, me, &room.tree);
    assert_eq!(check(guest.user), Ok(()));
    assert_eq!(check(room.tree[MEMBER].user), Err(Violation::AddNotAllowed));
}
