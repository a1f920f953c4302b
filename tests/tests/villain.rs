//! What a member can do with its real keys, and what honest members make of it: the device in the hands of
//! somebody who breaks every rule works, and nothing that it makes is followed.

use mortise_protocol::engine::{Alarm, GroupStatusView};
use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID, Violation};
use mortise_protocol::identity::GroupId;
use mortise_tests::villain::{Crafted, Line, Package, Plan, Twist, Villain};
use mortise_tests::world::{PersonId, World};

struct Room {
    world: World,
    people: Vec<PersonId>,
    group: GroupId,
}

/// A group of three, the last of whom is no admin of it; a fourth person is outside.
fn room(suite: u16) -> Room {
    let names = ["Ann", "Bob", "Cy", "Dot"];
    let (mut world, people) = World::with_people(31, suite, &names);
    let group = world.group(people[0], &people[1..3]);
    world.settle();
    Room {
        world,
        people,
        group,
    }
}

impl Room {
    fn villain(&mut self) -> Villain {
        Villain::take_over(&mut self.world, self.people[2], self.group)
    }

    /// Lets the villain submit what it made, and waits until everybody has seen it.
    fn submit(&mut self, villain: &Villain, made: &Crafted) {
        let line = Line::open(&mut self.world, villain);
        line.submit(&mut self.world, villain, made)
            .expect("the relay takes what is well-formed");
        let until = self.world.now_ms + 100;
        self.world.run_until(until);
    }

    fn violations(&self, who: PersonId) -> Vec<Violation> {
        let refused = self.world.alarms(who).filter_map(|alarm| match alarm {
            Alarm::Refused { violation, .. } => Some(*violation),
            _ => None,
        });
        refused.collect()
    }
}

/// REQ-082: what a villain's tools make is followed when nothing is wrong with it: what is refused is not refused for
/// the tools.
#[test]
fn an_honest_commit_by_a_villains_hands_is_followed() {
    for suite in [SUITE_CLASSICAL, SUITE_HYBRID] {
        let mut room = room(suite);
        let mut villain = room.villain();
        let adds = vec![Package::stocked(&room.world, room.people[3], suite)];
        let plan = Plan {
            adds,
            ..Plan::default()
        };
        let made = villain.commit(&room.world, plan);
        room.submit(&villain, &made);
        villain.follow();
        let text = villain.message(&room.world, b"not a content", None, &Twist::default());
        room.submit(&villain, &text);
        for who in [room.people[0], room.people[1], room.people[3]] {
            assert_eq!(room.violations(who), [Violation::BadContent], "{who:?}");
            let view = room.world.view(who, room.group);
            assert_eq!(view.members.len(), 4);
            assert_eq!(
                view.epoch_authenticator,
                villain.look(|mls| mls.epoch_authenticator().as_slice().to_vec())
            );
        }
    }
}

/// REQ-082: a member who is no admin removes nobody.
#[test]
fn nobody_removes_an_admin() {
    let mut room = room(SUITE_CLASSICAL);
    let mut villain = room.villain();
    let plan = Plan {
        removes: vec![room.world.people[room.people[0].0].device()],
        ..Plan::default()
    };
    let made = villain.commit(&room.world, plan);
    room.submit(&villain, &made);
    for who in [room.people[0], room.people[1]] {
        assert_eq!(room.violations(who), [Violation::RemoveNotAllowed]);
    }
}

/// REQ-154: a path that some cannot read is a private fault of theirs; the others go on, and so do they, in a while.
#[test]
fn a_path_that_one_cannot_read_hits_that_one_alone() {
    for suite in [SUITE_CLASSICAL, SUITE_HYBRID] {
        let mut room = room(suite);
        let (ann, bob) = (room.people[0], room.people[1]);
        let mut villain = room.villain();
        let plan = Plan {
            noise_for: vec![room.world.people[bob.0].device()],
            ..Plan::default()
        };
        let made = villain.commit(&room.world, plan);
        room.submit(&villain, &made);
        assert_eq!(room.violations(ann), []);
        assert_eq!(room.violations(bob), [Violation::MlsRefused]);
        let until = room.world.now_ms + 5_000;
        room.world.run_until(until);
        let view = room.world.view(bob, room.group);
        assert_eq!(view.status, GroupStatusView::Active);
        let theirs = room.world.view(ann, room.group).epoch_authenticator;
        assert_eq!(view.epoch_authenticator, theirs);
    }
}
