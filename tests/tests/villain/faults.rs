//! A member breaks the group with its real keys: the others go on without it, and are told by whom and why.

use mortise_protocol::engine::{Alarm, CommandKind, GroupStatusView};
use mortise_protocol::group::{GroupPolicy, SUITE_CLASSICAL, SUITE_HYBRID, Violation};
use mortise_protocol::identity::{DeviceId, Epoch, GroupId, Hash, SigningKey};
use mortise_protocol::wire::log::Verdict;
use mortise_protocol::wire::restart::RestartCause;
use mortise_tests::villain::{Crafted, Line, Package, Plan, Villain};
use mortise_tests::world::PersonId;

use crate::room::{REPAIR_MS, Room};

/// Makes what breaks a group.
type Break = fn(&Room, &mut Villain) -> Crafted;

fn device_of_admin(room: &Room) -> DeviceId {
    room.device(room.members[0])
}

fn removes_the_admin(room: &Room, villain: &mut Villain) -> Crafted {
    let removes = vec![device_of_admin(room)];
    let plan = Plan {
        removes,
        ..Plan::default()
    };
    villain.commit(&room.world, plan)
}

fn makes_itself_admin(room: &Room, villain: &mut Villain) -> Crafted {
    let policy = Some(GroupPolicy::new("mine".into(), villain.user));
    let plan = Plan {
        policy,
        ..Plan::default()
    };
    villain.commit(&room.world, plan)
}

fn adds_a_stranger(room: &Room, villain: &mut Villain) -> Crafted {
    let key = SigningKey::from_seed(&[77; 32]);
    let adds = vec![Package::stranger(&room.world, villain, &key)];
    let plan = Plan {
        adds,
        ..Plan::default()
    };
    villain.commit(&room.world, plan)
}

fn ends_the_group(room: &Room, villain: &mut Villain) -> Crafted {
    villain.restart(&room.world, RestartCause::Requested, GroupId([9; 32]))
}

/// Everybody but the culprit talks again within five seconds; nothing is lost or doubled; the culprit and the rule are
/// named; and what was refused has changed nothing (REQ-087).
fn repaired(seed: u64, suite: u16, size: usize, make: Break, violation: Violation) {
    let mut room = Room::new(seed, suite, size);
    let mut villain = room.villain();
    let made = make(&room, &mut villain);
    room.submit(&villain, &made);
    let honest = room.honest();
    let broken_ms = room.world.now_ms;
    let before: Vec<_> = honest.iter().map(|who| room.mls_state(*who)).collect();
    while room.violations(honest[0]).is_empty() {
        assert!(room.world.advance(broken_ms + REPAIR_MS), "it is refused");
    }
    // Who has refused it has not begun to mend it in the same step.
    assert_eq!(room.mls_state(honest[0]), before[0], "REQ-087");
    let mut said = Vec::new();
    for (i, who) in honest.iter().enumerate() {
        said.push(format!("m{i}"));
        room.world.say(*who, room.group, &said[i]);
    }
    said.sort();
    room.world.run_until(broken_ms + REPAIR_MS);
    let successor = room.successor(honest[0]).expect("the group is continued");
    for who in honest {
        assert_eq!(room.violations(who), [violation], "{who:?}");
        assert_eq!(room.successor(who), Some(successor), "{who:?}");
        assert_eq!(room.texts(who, successor), said, "{who:?}");
        assert!(room.is_named(who, villain.device), "{who:?}");
        let view = room.world.view(who, successor);
        assert_eq!(view.members.len(), size - 1);
        assert!(view.members.iter().all(|m| m.device != villain.device));
    }
}

/// REQ-082, REQ-094, REQ-152, REQ-153, REQ-154: a real member's commit that breaks the policy.
#[test]
fn a_commit_against_the_policy_costs_five_seconds() {
    let not_admin = Violation::PolicyNotAllowed;
    repaired(
        41,
        SUITE_CLASSICAL,
        3,
        removes_the_admin,
        Violation::RemoveNotAllowed,
    );
    repaired(42, SUITE_CLASSICAL, 5, makes_itself_admin, not_admin);
    repaired(
        43,
        SUITE_CLASSICAL,
        4,
        adds_a_stranger,
        Violation::AddNotAdmitted,
    );
    repaired(44, SUITE_HYBRID, 3, makes_itself_admin, not_admin);
}

/// REQ-152: a Restart by somebody who may not is refused, and its sender is the culprit.
#[test]
fn a_false_restart_costs_five_seconds() {
    for (seed, suite, size) in [
        (51, SUITE_CLASSICAL, 2),
        (52, SUITE_CLASSICAL, 5),
        (53, SUITE_HYBRID, 3),
    ] {
        repaired(
            seed,
            suite,
            size,
            ends_the_group,
            Violation::RestartNotAllowed,
        );
    }
}

/// REQ-150: the relay takes no Restart whose parent is not what the log says.
#[test]
fn a_restart_of_another_parent_is_not_appended() {
    let mut room = Room::new(55, SUITE_CLASSICAL, 3);
    let villain = room.villain();
    let made = villain.restart(&room.world, RestartCause::Requested, GroupId([9; 32]));
    let mortise_protocol::wire::RecordBody::Restart(restart) = made.body else {
        panic!("a Restart")
    };
    let line = Line::open(&mut room.world, &villain);
    let length = room.world.log(room.group).len();
    let mut other = restart.statement.clone();
    other.parent_entry_hash = Hash([1; 32]);
    let mut elsewhere = restart.statement.clone();
    elsewhere.device = room.device(room.members[0]);
    let mut earlier = restart.statement;
    earlier.parent_epoch = Epoch(0);
    for statement in [other, elsewhere, earlier] {
        let made = villain.sign_restart(statement);
        let refused = line.submit(&mut room.world, &villain, &made);
        assert!(refused.is_err(), "{:?}", made.body);
    }
    assert_eq!(room.world.log(room.group).len(), length);
}

/// REQ-154, REQ-156, REQ-157, REQ-158: a path that some cannot read is a fault of theirs alone. They are let in anew
/// within five seconds, and told what they missed; the others go on as if nothing had happened.
#[test]
fn a_path_that_some_cannot_read_costs_them_five_seconds() {
    for (seed, suite, size, hit) in [
        (61, SUITE_CLASSICAL, 3, 1),
        (62, SUITE_CLASSICAL, 5, 2),
        (63, SUITE_HYBRID, 4, 1),
        (64, SUITE_CLASSICAL, 20, 9),
    ] {
        let mut room = Room::new(seed, suite, size);
        let victims = room.members[1..=hit].to_vec();
        let others: Vec<_> = room
            .honest()
            .into_iter()
            .filter(|p| !victims.contains(p))
            .collect();
        let mut villain = room.villain();
        let plan = Plan {
            noise_for: victims.iter().map(|who| room.device(*who)).collect(),
            ..Plan::default()
        };
        let made = villain.commit(&room.world, plan);
        let broken_ms = room.world.now_ms;
        room.submit(&villain, &made);
        room.wait(100);
        for who in &victims {
            assert_eq!(room.violations(*who), [Violation::MlsRefused], "{who:?}");
            room.world.say(*who, room.group, "still here");
        }
        room.world.say(others[0], room.group, "going on");
        room.world.run_until(broken_ms + REPAIR_MS);
        let theirs = room.world.view(others[0], room.group).epoch_authenticator;
        for who in &others {
            assert_eq!(room.violations(*who), [], "{who:?}");
            assert_eq!(room.gap(*who), None);
        }
        for who in &victims {
            let view = room.world.view(*who, room.group);
            assert_eq!(view.status, GroupStatusView::Active, "{who:?}");
            assert_eq!(view.epoch_authenticator, theirs, "{who:?}");
            let (from, to) = room.gap(*who).expect("they are told what they missed");
            assert!(from <= to);
        }
        let mut texts = room.world.texts(others[0], room.group);
        texts.sort();
        let mut said = vec!["going on"];
        said.resize(1 + hit, "still here");
        assert_eq!(texts, said);
    }
}

/// Two members of different users: one sends what nobody may follow, the other vouches for it at the relay.
fn collude(room: &mut Room) -> DeviceId {
    let accomplice = room.members[room.members.len() - 2];
    let mut villain = room.villain();
    let second = Villain::take_over(&mut room.world, accomplice, room.group);
    let announced = SigningKey::from_seed(&[66; 32]);
    let plan = Plan {
        access_key: Some(announced.public()),
        ..Plan::default()
    };
    let made = villain.commit(&room.world, plan);
    room.submit(&villain, &made);
    let line = Line::open(&mut room.world, &second);
    let epoch = made.epoch.next();
    line.confirm(&mut room.world, room.group, epoch, &announced)
        .expect("the relay believes who holds the announced key");
    villain.device
}

/// REQ-155: two who vouch for each other's garbage are named; the group is stopped for all others, and stays so.
fn is_stopped(room: &mut Room, honest: &[PersonId], culprit: DeviceId) {
    room.wait(REPAIR_MS);
    for who in honest {
        let status = room.world.view(*who, room.group).status;
        assert!(matches!(status, GroupStatusView::Stopped(_)), "{status:?}");
        assert!(room.is_named(*who, culprit));
        assert_eq!(room.violations(*who), [Violation::WrongAccessKey]);
    }
}

/// REQ-102, REQ-155: the organisation closes what two colluders have stopped, and the rest begin anew.
#[test]
fn colluders_are_named_and_closing_frees_the_rest() {
    let mut room = Room::new(71, SUITE_CLASSICAL, 5);
    let honest = room.members[..3].to_vec();
    let culprit = collude(&mut room);
    is_stopped(&mut room, &honest, culprit);
    let group = room.group;
    room.world
        .command(honest[0], CommandKind::CloseGroup { group });
    room.wait(REPAIR_MS);
    for who in &honest {
        assert_eq!(room.world.view(*who, group).status, GroupStatusView::Closed);
    }
    let next = room.world.group(honest[0], &honest[1..]);
    room.world.say(honest[1], next, "free");
    room.wait(REPAIR_MS);
    for who in &honest {
        assert_eq!(room.world.texts(*who, next), ["free"]);
    }
}

/// REQ-155: a group admin leads the rest out of what two colluders have stopped.
#[test]
fn an_admin_leads_the_rest_away_from_colluders() {
    let mut room = Room::new(72, SUITE_HYBRID, 4);
    let honest = room.members[..2].to_vec();
    let culprit = collude(&mut room);
    is_stopped(&mut room, &honest, culprit);
    let group = room.group;
    room.world
        .command(honest[0], CommandKind::RestartGroup { group });
    room.wait(REPAIR_MS);
    let successor = room.successor(honest[0]).expect("continued");
    room.world.say(honest[1], group, "out");
    room.wait(REPAIR_MS);
    for who in &honest {
        assert_eq!(room.successor(*who), Some(successor));
        assert_eq!(room.texts(*who, successor), ["out"]);
    }
}

/// REQ-064: who attests that a group is clean, in an epoch whose tree everybody can see not to be, is named.
#[test]
fn a_false_attestation_names_its_sender() {
    let mut room = Room::new(73, SUITE_CLASSICAL, 4);
    let (owner, bob, leaver) = (room.members[0], room.members[1], room.members[2]);
    let mut villain = room.villain();
    for who in [owner, bob, leaver] {
        room.world.put_to_sleep(who);
    }
    room.world.wake(owner);
    room.world.settle();
    let user = room.world.people[leaver.0].user();
    room.world.command(owner, CommandKind::RemoveUser { user });
    // The owner knows of the order, and has no time to rotate.
    let before = room.world.log(room.group).len();
    while villain.roster.0 == room.world.people[owner.0].engine().roster().head().seq {
        assert!(room.world.advance(u64::MAX), "the order is given");
    }
    room.world.put_to_sleep(owner);
    assert_eq!(room.world.log(room.group).len(), before);
    villain.learn_roster(&room.world, owner);
    let said = villain.statement(&room.world, Verdict::Clean);
    let made = villain.attest(said);
    room.submit(&villain, &made);
    room.world.wake(bob);
    room.wait(1_000);
    let device = villain.device;
    let mut alarms = room.world.alarms(bob);
    let named =
        alarms.any(|a| matches!(a, Alarm::FalseAttestation { device: d, .. } if *d == device));
    assert!(named);
}
