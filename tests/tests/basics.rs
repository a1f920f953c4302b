//! The main job in the simulated world: found, invite, talk, remove.

use mortise_protocol::engine::{CommandKind, Event, Input, Output};
use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};
use mortise_protocol::wire::{GroupState, Push, RelayToClient, Request};
use mortise_relay::core::quotas::{Quota, Quotas};
use mortise_tests::world::World;

fn talk_and_remove(suite: u16) {
    let (mut world, people) = World::with_people(1, suite, &["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = people[..] else {
        panic!("four people")
    };
    let name = world.people[bob.0]
        .engine()
        .name_of(world.people[cy.0].user());
    assert_eq!(name.as_deref(), Some("Cy"));
    let group = world.group(bob, &[bob, cy, dot]);
    assert_eq!(world.view(cy, group).members.len(), 3);
    for who in [ann, bob, cy, dot] {
        assert!(world.people[who.0].engine().is_synced(), "{who:?}");
    }
    world.say(cy, group, "hello");
    world.settle();
    world.say(bob, group, "hello yourself");
    world.settle();
    for who in [bob, cy, dot] {
        assert_eq!(world.texts(who, group), ["hello", "hello yourself"]);
    }
    let order = world.remove(ann, dot);
    assert!(world.people[dot.0].engine().is_expelled());
    world.say(cy, group, "without you");
    world.settle();
    assert_eq!(world.texts(bob, group)[2..], ["without you"]);
    assert_eq!(world.texts(dot, group).len(), 2);
    assert_eq!(world.view(bob, group).members.len(), 2);
    let status = world.command(ann, CommandKind::OrderStatus { order });
    world.settle();
    let groups = world.people[ann.0]
        .events
        .iter()
        .find_map(|e| match e {
            Event::OrderStatus { id, groups, .. } if *id == status => Some(groups.clone()),
            _ => None,
        })
        .expect("status");
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].state, GroupState::Rotated);
    assert_eq!(world.alarms(bob).next(), None);
}

/// REQ-091, REQ-064, REQ-065: a removal is rotated by whoever is online, and told.
#[test]
fn people_talk_and_one_is_removed_classical() {
    talk_and_remove(SUITE_CLASSICAL);
}

#[test]
fn people_talk_and_one_is_removed_hybrid() {
    talk_and_remove(SUITE_HYBRID);
}

/// REQ-063: a duty that falls due while frames keep coming is done, although no tick comes for it.
#[test]
fn a_duty_does_not_need_a_tick_of_its_own() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = people[..] else {
        panic!("four people")
    };
    world.group(bob, &[bob, cy, dot]);
    // Nobody is there to be asked when the order comes; Cy learns of it later, and leaves others time.
    world.put_to_sleep(bob);
    world.put_to_sleep(cy);
    world.remove(ann, dot);
    world.wake(cy);
    world.run_until(world.now_ms + 1_000);
    let later = world.now_ms + 10_000;
    let hint = RelayToClient::Push(Push::SlotsWaiting);
    let engine = world.people[cy.0].engine_mut();
    let outputs = engine.handle(later, Input::Frame(hint)).expect("a step");
    let commits = outputs.iter().any(
        |output| matches!(output, Output::Send(frame) if matches!(frame.request, Request::Submit(_))),
    );
    assert!(commits, "{outputs:?}");
}

fn quota(per_s: u32, burst: u32) -> Quota {
    let burst = std::num::NonZeroU32::new(burst).expect("at least 1");
    Quota { per_s, burst }
}

/// REQ-320, REQ-321, REQ-322: more than the relay takes at once arrives all the same, each once and in order; and a removal is
/// not held up by it.
#[test]
fn who_says_more_than_the_quota_waits_and_loses_nothing() {
    let (mut world, people) = World::with_people(3, SUITE_CLASSICAL, &["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = people[..] else {
        panic!("four people")
    };
    let group = world.group(bob, &[bob, cy, dot]);
    let tight = quota(1, 3);
    world.set_quotas(Quotas {
        device_records: tight,
        group_records: quota(2, 4),
        device_questions: quota(5, 20),
    });
    world.settle();
    let said: Vec<String> = (0..40).map(|n| format!("number {n}")).collect();
    for text in &said {
        world.say(bob, group, text);
    }
    world.settle();
    assert!(world.elapsed_ms() > 30_000, "it took its time");
    for who in [bob, cy, dot] {
        assert_eq!(world.texts(who, group), said, "{who:?}");
        assert!(world.people[who.0].engine().is_synced(), "{who:?}");
    }
    for text in &said {
        // A new one may arrive when the time to wait is just over, and must not overtake those that wait.
        world.say(bob, group, text);
        world.run_until(world.now_ms + 13);
    }
    let ordered_ms = world.now_ms;
    let user = world.people[dot.0].user();
    world.command(ann, CommandKind::RemoveUser { user });
    let removed = |world: &mut World| world.view(cy, group).members.len() == 2;
    while !removed(&mut world) && world.now_ms < ordered_ms + 60_000 {
        world.advance(world.now_ms + 100);
    }
    assert!(removed(&mut world));
    let took_ms = world.now_ms - ordered_ms;
    assert!(took_ms < 10_000, "{took_ms} ms");
    world.settle();
    assert_eq!(world.texts(cy, group), [&said[..], &said[..]].concat());
    assert!(world.texts(dot, group).len() < 2 * said.len());
}
