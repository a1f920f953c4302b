//! A member whose commits, leaves and messages are wrong before they are signed: the body of each is changed where it is
//! still plain, so that signature, transcript, tags and ciphertext are right again (RFC 9420 §6).
//!
//! Cy has the keys of a member and is no admin. Whatever he makes, Ann and Bob stay together, in a group of Ann's policy
//! and of admitted devices, and go on talking.

use mortise_protocol::engine::{GroupStatusView, GroupView};
use mortise_protocol::group::GroupPolicy;
use mortise_protocol::identity::{GroupId, SigningKey};

use super::Bytes;
use super::session::with_room;
use crate::villain::{Crafted, Line, Plan, Twist, Villain};
use crate::world::{PersonId, World};

const ANN: PersonId = PersonId(0);
const BOB: PersonId = PersonId(1);
const CY: PersonId = PersonId(2);
/// Within this a conversation is whole again, ms.
const REPAIR_MS: u64 = 15_000;

/// What is made, and how it is changed.
pub(super) fn villain(bytes: &[u8]) {
    with_room(|template, group| {
        let mut bytes = Bytes::new(bytes);
        let mut world = template.world(u64::from(bytes.short()));
        world.settle();
        let before = world.view(ANN, group);
        let device = Villain::take_over(&mut world, CY, group);
        for _ in 0..=bytes.below(3) {
            // Each is made from the same state: openmls would not go on after a commit that nobody follows.
            let mut by = device.fork();
            let made = craft(&mut by, &world, &mut bytes);
            let line = Line::open(&mut world, &by);
            // What the relay refuses has done no harm.
            let _ = line.submit(&mut world, &by, &made);
            let until = world.now_ms + 20 * u64::from(bytes.byte());
            world.run_until(until);
        }
        check(&mut world, group, &before);
    });
}

fn twist(bytes: &mut Bytes<'_>) -> Twist {
    let decisions: Vec<u8> = (0..16).map(|_| bytes.byte()).collect();
    Twist::body(move |body| {
        let mut changed = body.to_vec();
        Bytes::new(&decisions).mangle(&mut changed);
        changed
    })
}

fn craft(by: &mut Villain, world: &World, bytes: &mut Bytes<'_>) -> Crafted {
    let twist = match bytes.below(4) {
        0 => Twist::default(),
        _ => twist(bytes),
    };
    match bytes.below(6) {
        0 => by.message(world, b"\xf6", None, &twist),
        1 => by.leave(world, None, &twist),
        _ => {
            let plan = plan(by, world, bytes, twist);
            by.commit(world, plan)
        }
    }
}

fn plan(by: &Villain, world: &World, bytes: &mut Bytes<'_>, twist: Twist) -> Plan {
    let mut plan = Plan {
        twist,
        ..Plan::default()
    };
    if bytes.one_in(3) {
        let victim = PersonId(bytes.below(2));
        plan.removes.push(world.people[victim.0].device());
    }
    if bytes.one_in(3) {
        plan.policy = Some(changed_policy(by.policy(), bytes));
    }
    if bytes.one_in(4) {
        plan.access_key = Some(SigningKey::from_seed(&[bytes.byte(); 32]).public());
    }
    if bytes.one_in(4) {
        let mut aad = by.honest_aad(world);
        match bytes.below(4) {
            0 => aad.roster_seq.0 = u64::from(bytes.byte()),
            1 => aad.log_count = u32::from(bytes.byte()),
            2 => aad.log_hash.0[0] ^= bytes.byte(),
            _ => aad.roster_hash.0[0] ^= bytes.byte(),
        }
        plan.aad = Some(aad);
    }
    plan
}

fn changed_policy(mut policy: GroupPolicy, bytes: &mut Bytes<'_>) -> GroupPolicy {
    match bytes.below(4) {
        0 => policy.admins.clear(),
        1 => policy.name.push('!'),
        2 => policy.left.clear(),
        _ => policy.topic = "ours".into(),
    }
    policy
}

/// The conversation as somebody has it now, wherever it goes on.
fn present(world: &mut World, who: PersonId, group: GroupId) -> GroupView {
    let mut view = world.view(who, group);
    while let GroupStatusView::Continued { successor } = view.status {
        view = world.view(who, successor);
    }
    view
}

fn check(world: &mut World, group: GroupId, before: &GroupView) {
    let until = world.now_ms + REPAIR_MS;
    world.run_until(until);
    for who in [ANN, BOB] {
        assert_eq!(world.people[who.0].broken, None, "{who:?} meets no defect");
        let view = present(world, who, group);
        assert_eq!(view.status, GroupStatusView::Active, "{who:?}");
        assert_eq!((&view.name, &view.topic), (&before.name, &before.topic));
        assert_eq!(view.admins, before.admins);
        let roster = world.people[who.0].engine().roster();
        let mut members = view.members.iter();
        assert!(members.all(|leaf| roster.is_admitted(leaf.device)));
        for member in [ANN, BOB] {
            let device = world.people[member.0].device();
            let is_in = view.members.iter().any(|leaf| leaf.device == device);
            assert!(is_in, "{member:?} is in, as {who:?} sees it");
        }
    }
    let (ann, bob) = (present(world, ANN, group), present(world, BOB, group));
    assert_eq!(ann.id, bob.id, "one conversation");
    for (who, other) in [(ANN, BOB), (BOB, ANN)] {
        let text = format!("{who:?} goes on");
        world.say(who, ann.id, &text);
        let until = world.now_ms + 2_000;
        world.run_until(until);
        assert!(
            world.texts(other, ann.id).contains(&text),
            "{other:?} hears"
        );
    }
}
