//! Who was away for long comes back: by reading everything, or by being let in anew.

use mortise_protocol::engine::{CommandKind, Event, GroupStatusView};
use mortise_protocol::group::{PolicyChange, SUITE_CLASSICAL};
use mortise_protocol::identity::LogSeq;
use mortise_tests::world::{World, wall_clock_ms};

use crate::room::{REPAIR_MS, Room};

const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// REQ-160: hundreds of epochs are walked, each with its own key, and the user is told how far it is.
#[test]
fn hundreds_of_epochs_are_caught_up_with() {
    const EPOCHS: u64 = 300;
    let mut room = Room::new(81, SUITE_CLASSICAL, 3);
    let (ann, bob) = (room.members[0], room.members[1]);
    let group = room.group;
    room.world.put_to_sleep(bob);
    let before = room.world.view(ann, group).epoch;
    for n in 0..EPOCHS {
        let change = PolicyChange::Name(format!("name {n}"));
        room.world
            .command(ann, CommandKind::ChangeGroup { group, change });
        room.world.say(ann, group, &format!("m{n}"));
        room.world.settle();
    }
    let epoch = room.world.view(ann, group).epoch;
    assert!(epoch >= before + EPOCHS);
    room.world.people[bob.0].events.clear();
    let woken_ms = room.world.now_ms;
    room.world.wake(bob);
    room.world.settle();
    let view = room.world.view(bob, group);
    assert_eq!(view.epoch, epoch);
    assert_eq!(
        view.epoch_authenticator,
        room.world.view(ann, group).epoch_authenticator
    );
    assert_eq!(
        room.world.texts(bob, group),
        room.world.texts(ann, group),
        "nothing is lost"
    );
    let events = room.world.people[bob.0].events.iter();
    let told: Vec<_> = events
        .filter_map(|event| match event {
            Event::CatchingUp { done, total, .. } => Some((*done, *total)),
            _ => None,
        })
        .collect();
    assert!(!told.is_empty());
    assert!(told.is_sorted(), "{told:?}");
    assert!(told.iter().all(|(done, total)| done < total));
    // A journey for each epoch, and not more.
    let spent_ms = room.world.now_ms - woken_ms;
    assert!(spent_ms <= EPOCHS * 50, "{spent_ms} ms");
}

/// REQ-122, REQ-156, REQ-157, REQ-158: somebody is away for 57 days and longer than history is kept, and asks to be let
/// in anew: within five seconds, with the gap shown and nothing lost that was not sent.
#[test]
fn a_device_comes_back_after_57_days() {
    // openmls holds lifetimes against the wall clock, so this world ends at the present.
    let world = World::new(82, wall_clock_ms() - 58 * DAY_MS);
    let mut room = Room::at(world, SUITE_CLASSICAL, 3);
    let (ann, bob) = (room.members[0], room.members[1]);
    let group = room.group;
    room.world.say(ann, group, "long ago");
    room.world.settle();
    let change = PolicyChange::Retention(Some(30));
    room.world
        .command(ann, CommandKind::ChangeGroup { group, change });
    room.world.settle();
    room.world.put_to_sleep(bob);
    for week in 0..8 {
        room.wait(7 * DAY_MS);
        room.world.say(ann, group, &format!("week {week}"));
        room.world.settle();
    }
    room.wait(DAY_MS);
    let group_epoch = room.world.view(ann, group).epoch;
    assert!(group_epoch > room.world.view(bob, group).epoch);
    // The wish and the text come first, and the connection later.
    let id = room.world.command(bob, CommandKind::ResyncGroup { group });
    room.world.say(bob, group, "back");
    room.world.wake(bob);
    room.wait(REPAIR_MS);
    assert!(
        room.world.people[bob.0]
            .events
            .contains(&Event::Done { id })
    );
    let view = room.world.view(bob, group);
    assert_eq!(view.status, GroupStatusView::Active);
    assert_eq!(
        view.epoch_authenticator,
        room.world.view(ann, group).epoch_authenticator
    );
    let (from, to) = room.gap(bob).expect("what was missed is shown");
    assert!(LogSeq(0) < from && from <= to);
    let texts = room.world.texts(ann, group);
    assert_eq!(texts.last().map(String::as_str), Some("back"));
    // What is older than 30 days is kept by nobody.
    assert!(!texts.contains(&"long ago".to_owned()));
    assert!(
        !room
            .world
            .texts(bob, group)
            .contains(&"long ago".to_owned())
    );
    assert_eq!(room.world.texts(bob, group).last(), texts.last());
}
