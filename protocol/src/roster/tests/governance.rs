//! Policy, directory key, closed groups, recovery: each rule, allowed and refused.

use super::*;
use crate::identity::{DirectoryKey, GroupId};

/// REQ-100: Genesis sets the first policy, an owner the next; what cannot be followed is refused.
#[test]
fn a_policy_is_replaced_whole() {
    let mut world = World::founded();
    assert_eq!(world.roster.policy(), Some(&policy()));
    let stricter = OrgPolicy {
        suite: 1,
        pin_required: crate::wire::Flag::Yes,
        staleness: Staleness::Block,
        staleness_limit_ms: MIN_STALENESS_LIMIT_MS,
        ..policy()
    };
    let applied = world.owner_does(vec![Op::SetPolicy(stricter.clone())]);
    assert!(applied.policy_set && !applied.rotated);
    assert_eq!(world.roster.policy(), Some(&stricter));
    assert_eq!(world.roster.suite(), Some(1));
    let bad = [
        OrgPolicy {
            version: 2,
            ..policy()
        },
        OrgPolicy {
            suite: 2,
            ..policy()
        },
        OrgPolicy {
            staleness_limit_ms: MIN_STALENESS_LIMIT_MS - 1,
            ..policy()
        },
        OrgPolicy {
            staleness_limit_ms: MAX_STALENESS_LIMIT_MS + 1,
            ..policy()
        },
    ];
    for policy in bad {
        let entry = world.by_owner(vec![Op::SetPolicy(policy)]);
        world.refuses(&entry, &RosterError::BadPolicy, 0x0280);
    }
    let longest = OrgPolicy {
        staleness_limit_ms: MAX_STALENESS_LIMIT_MS,
        ..policy()
    };
    world.owner_does(vec![Op::SetPolicy(longest)]);
}

/// REQ-014, REQ-100: a new statement key is a key like any other: nobody has had it.
#[test]
fn a_new_statement_key_was_never_used() {
    let mut world = World::founded();
    let with = |key: &SigningKey| {
        Op::SetPolicy(OrgPolicy {
            statement_key: key.public(),
            ..policy()
        })
    };
    let key = world.owner.mls.public();
    let entry = world.by_owner(vec![with(&world.owner.mls)]);
    world.refuses(&entry, &RosterError::KeyReused { key }, 0x0260);
    world.owner_does(vec![with(&key_of(77))]);
    assert_eq!(world.roster.statement_key(), Some(key_of(77).public()));
    let back = world.by_owner(vec![with(&key_of(2))]);
    let key = key_of(2).public();
    world.refuses(&back, &RosterError::KeyReused { key }, 0x0260);
}

/// REQ-101: a new key follows the one before, and an order makes the present one stale until then.
#[test]
fn directory_keys_follow_each_other() {
    let mut world = World::founded();
    let member = world.person(Role::Member);
    assert_eq!(world.roster.directory_generation(), RosterSeq(1));
    assert!(!world.roster.directory_is_stale());
    let second = world.person(Role::Member);
    let applied = world.owner_does(vec![Op::RemoveUser { user: member.user }]);
    assert!(!applied.rotated);
    assert!(world.roster.directory_is_stale());
    let applied = world.owner_does(vec![rotation(1)]);
    assert!(applied.rotated && applied.order.is_none());
    let generation = world.seq();
    assert_eq!(world.roster.directory_generation(), generation);
    assert_eq!(world.roster.directory_commitment(), Some(Hash([1; 32])));
    assert!(!world.roster.directory_is_stale());
    let record = world.roster.directory_of(generation).expect("the new key");
    assert_eq!(record.by, world.owner.signer());
    assert!(record.opens_predecessor());
    assert_eq!(world.roster.directory_of(generation.next()), None);
    let both = vec![rotation(2), Op::RemoveUser { user: second.user }];
    let applied = world.owner_does(both);
    assert!(applied.rotated && applied.order.is_some());
    assert!(!world.roster.directory_is_stale());
    assert_eq!(world.roster.directory().len(), 3);
}

/// REQ-101: one new key in an entry, of the right form, never seen, and not by who goes.
#[test]
fn a_rotation_that_is_none() {
    let mut world = World::founded();
    let member = world.person(Role::Member);
    let shape = RosterError::RotationShape;
    let short = Op::RotateDirectoryKey(RotateDirectoryKey {
        commitment: Hash([9; 32]),
        predecessor: vec![0; crate::identity::WRAPPED_KEY_BYTES - 1].into(),
    });
    let none = Op::RotateDirectoryKey(RotateDirectoryKey {
        commitment: Hash([9; 32]),
        predecessor: Vec::new().into(),
    });
    for ops in [
        vec![rotation(1), rotation(2)],
        vec![short],
        vec![none],
        // What Genesis named.
        vec![rotation(3)],
    ] {
        world.refuses(&world.by_owner(ops), &shape, 0x0282);
    }
    let leave = Op::RemoveUser { user: member.user };
    let entry = world.by(&member, vec![rotation(1), leave]);
    world.refuses(&entry, &shape, 0x0282);
    let drop = Op::RevokeDevice {
        device: member.id(),
    };
    let entry = world.by(&member, vec![rotation(1), drop]);
    world.refuses(&entry, &shape, 0x0282);
}

/// REQ-102: a group is closed once, for ever.
#[test]
fn a_group_is_closed_once() {
    let mut world = World::founded();
    let group = GroupId([4; 32]);
    assert_eq!(world.roster.closed_at(group), None);
    let close = Op::CloseGroup { group };
    let twice = world.by_owner(vec![close.clone(), close.clone()]);
    world.refuses(&twice, &RosterError::GroupClosed { group }, 0x0283);
    let applied = world.owner_does(vec![close.clone()]);
    assert_eq!(applied.closed_groups, [group]);
    assert_eq!(applied.order, None);
    assert_eq!(world.roster.closed_at(group), Some(world.seq()));
    let again = world.by_owner(vec![close]);
    world.refuses(&again, &RosterError::GroupClosed { group }, 0x0283);
}

fn recovery(world: &World, device: &Device) -> Vec<Op> {
    let key = DirectoryKey::from_bytes([8; 32]);
    vec![
        Op::Recover,
        Op::AddUser {
            user: device.user,
            role: Role::Owner,
            profile: profile(20),
        },
        Op::AddDevice(device.add(world.org())),
        Op::RotateDirectoryKey(RotateDirectoryKey {
            commitment: key.commitment(),
            predecessor: Vec::new().into(),
        }),
    ]
}

/// REQ-103: the root key makes a new owner, takes nothing away, and the new owner goes on from there.
#[test]
fn the_root_key_brings_an_owner_back() {
    let mut world = World::founded();
    let admin = world.person(Role::Admin);
    let device = world.new_device(UserId([0xaa; 16]));
    let entry = world.signed(EntrySigner::Root, &world.root, recovery(&world, &device));
    let applied = world.apply(&entry);
    assert_eq!(applied.added_devices, [device.id()]);
    assert!(applied.rotated && applied.order.is_none());
    assert_eq!(world.roster.role(device.user), Some(Role::Owner));
    assert!(world.roster.is_admitted(world.owner.id()));
    assert!(world.roster.is_admitted(admin.id()));
    let newest = world.roster.directory().last().expect("a key");
    assert!(!newest.opens_predecessor());
    let gone = Op::RemoveUser {
        user: world.owner.user,
    };
    let entry = world.by(&device, vec![gone]);
    world.apply(&entry);
    assert!(!world.roster.is_admitted(world.owner.id()));
}

/// REQ-103: exactly these four operations, by the root key alone.
#[test]
fn a_recovery_that_is_none() {
    let mut world = World::founded();
    let device = world.new_device(UserId([0xaa; 16]));
    let good = recovery(&world, &device);
    let by_root = |ops| world.signed(EntrySigner::Root, &world.root, ops);
    let mut member = good.clone();
    member[1] = Op::AddUser {
        user: device.user,
        role: Role::Member,
        profile: profile(20),
    };
    let mut wrapped = good.clone();
    wrapped[3] = rotation(1);
    let mut stranger = good.clone();
    stranger[1] = Op::AddUser {
        user: UserId([0xab; 16]),
        role: Role::Owner,
        profile: profile(20),
    };
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    let order = Op::RemoveUser {
        user: world.owner.user,
    };
    let more = [good.clone(), vec![order.clone()]].concat();
    for ops in [good[..3].to_vec(), member, wrapped, stranger, swapped, more] {
        world.refuses(&by_root(ops), &RosterError::RecoverShape, 0x0234);
    }
    let only_root = RosterError::RootSignsGenesisOnly;
    world.refuses(&by_root(vec![order]), &only_root, 0x0233);
    world.refuses(&by_root(good[1..].to_vec()), &only_root, 0x0233);
    let by_owner = world.by_owner(good.clone());
    world.refuses(&by_owner, &RosterError::RecoverShape, 0x0234);
    let other_root = world.signed(EntrySigner::Root, &world.owner.mls, good.clone());
    world.refuses(&other_root, &RosterError::BadSignature, 0x0220);
    let entry = by_root(good.clone());
    world.apply(&entry);
    // The same device, or the same directory key, a second time.
    let again = world.signed(EntrySigner::Root, &world.root, good);
    let user = device.user;
    world.refuses(&again, &RosterError::UserExists { user }, 0x0251);
}

/// REQ-109: what a device let in, and what that let in, whoever it belongs to.
#[test]
fn what_a_device_let_in_is_found_transitively() {
    let mut world = World::founded();
    let admin = world.person(Role::Admin);
    let laptop = world.invited_by(&admin, admin.user);
    let laptop = world.joined(&laptop);
    let user = world.new_user(Role::Member);
    let theirs = world.invited_by(&laptop, user);
    let theirs = world.joined(&theirs);
    let found = world.roster.enrolled_transitively(admin.id());
    assert_eq!(found, [laptop.id(), theirs.id()]);
    let found = world.roster.enrolled_transitively(laptop.id());
    assert_eq!(found, [theirs.id()]);
    assert!(world.roster.enrolled_transitively(theirs.id()).is_empty());
}
