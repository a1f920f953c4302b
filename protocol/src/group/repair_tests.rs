//! The rules for repair on plain values: who may end a group, and who is let in anew.

use super::tests::{Org, THREE, commit};
use super::*;
use crate::group::Predecessor;
use crate::identity::{Epoch, GroupId, Hash};

fn members(leaves: &[Leaf]) -> Vec<(DeviceId, UserId)> {
    leaves.iter().map(|l| (l.device, l.user)).collect()
}

/// REQ-152: admins other than the culprit; else the lowest other leaf, but no guest; nobody without a culprit.
#[test]
fn whoever_may_restart_is_decided_alike() {
    let org = Org::new(&[Role::Guest, Role::Member, Role::Member]);
    let leaves = [org.leaf(0), org.leaf(1), org.leaf(2)];
    let able = |admins: &[usize], culprit: Option<usize>| {
        let admins: Vec<_> = admins.iter().map(|i| leaves[*i].user).collect();
        let culprit = culprit.map(|i| leaves[i].user);
        restarters(&org.roster, org.s(), &members(&leaves), &admins, culprit)
    };
    assert_eq!(able(&[1, 2], Some(2)), [leaves[1].device]);
    assert_eq!(able(&[1], None), [leaves[1].device]);
    assert_eq!(
        able(&[2], Some(2)),
        [leaves[1].device],
        "the guest is passed over"
    );
    assert_eq!(able(&[1], Some(1)), [leaves[2].device]);
    assert_eq!(able(&[], None), []);
}

/// REQ-152: an order takes the right to restart away.
#[test]
fn who_was_removed_may_not_restart() {
    let mut org = Org::new(&THREE);
    let leaves = [org.leaf(0), org.leaf(1)];
    org.remove(0);
    let admins = [leaves[0].user];
    let culprit = Some(UserId([9; 16]));
    let able = restarters(&org.roster, org.s(), &members(&leaves), &admins, culprit);
    assert_eq!(able, [leaves[1].device]);
}

/// REQ-157: a leaf is replaced by anybody if it asked this group, later than before; by nobody else's wish.
#[test]
fn a_leaf_is_let_in_anew_by_its_own_wish_alone() {
    let org = Org::new(&THREE);
    let mut policy = org.policy();
    policy.who_may_add = WhoMayAdd::Admins;
    let before = [org.leaf(0), org.leaf(1)];
    let replaced = [before[1]];
    let verdict = |asked: &[Resynced]| {
        let mut view = commit(&org, &policy, before[0], &before);
        view.removes = &replaced;
        view.adds = &replaced;
        view.resyncs = asked;
        check_commit(&org.roster, &view)
    };
    let asked = Resynced {
        leaf: before[1],
        is_for_here: true,
        asked_at_ms: 5,
        before_ms: None,
    };
    let used = |before_ms| Resynced {
        before_ms: Some(before_ms),
        ..asked
    };
    assert_eq!(verdict(&[asked]), Ok(()));
    assert_eq!(verdict(&[used(4)]), Ok(()));
    for refused in [
        vec![],
        vec![used(5)],
        vec![used(6)],
        vec![Resynced {
            is_for_here: false,
            ..asked
        }],
        vec![Resynced {
            leaf: before[0],
            ..asked
        }],
    ] {
        assert!(verdict(&refused).is_err(), "{refused:?}");
    }
}

/// REQ-157: who asks and is not put back is not taken out either.
#[test]
fn asking_is_no_reason_to_remove() {
    let org = Org::new(&THREE);
    let (policy, before) = (org.policy(), [org.leaf(0), org.leaf(1)]);
    let removes = [before[1]];
    let mut view = commit(&org, &policy, before[0], &before);
    view.removes = &removes;
    let asked = [Resynced {
        leaf: before[1],
        is_for_here: true,
        asked_at_ms: 5,
        before_ms: None,
    }];
    view.resyncs = &asked;
    assert_eq!(
        check_commit(&org.roster, &view),
        Err(Violation::RemoveNotAllowed)
    );
}

/// REQ-153: not even an admin changes what a group continues.
#[test]
fn a_predecessor_stays() {
    let org = Org::new(&THREE);
    let before = [org.leaf(0)];
    let policy = GroupPolicy::new("x".into(), before[0].user);
    let mut changed = policy.clone();
    changed.predecessor = Some(Predecessor {
        group: GroupId([1; 32]),
        epoch: Epoch(2),
        entry_hash: Hash([3; 32]),
    });
    let mut view = commit(&org, &policy, before[0], &before);
    view.new_policy = Some(Some(&changed));
    assert_eq!(
        check_commit(&org.roster, &view),
        Err(Violation::PredecessorChanged)
    );
}
