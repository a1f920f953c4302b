//! A process that dies in the middle of a repair goes on with it: at every call of its store, reads and writes alike.

use mortise_protocol::engine::GroupStatusView;
use mortise_protocol::group::SUITE_CLASSICAL;
use mortise_protocol::identity::GroupId;
use mortise_protocol::wire::restart::RestartCause;
use mortise_tests::villain::{Plan, Villain};
use mortise_tests::world::PersonId;

use crate::room::{FrozenRoom, Room};

/// How long a repair may take with a process that dies once, ms: it reconnects, and may lose its turn.
const PATIENCE_MS: u64 = 30_000;

/// What a crash is tried in the middle of.
struct Drama {
    frozen: FrozenRoom,
    /// Breaks the group.
    begin: fn(&mut Room, &mut Villain),
    /// Checks that it is whole again.
    end: fn(&mut Room),
}

impl Drama {
    /// Lets the process of `who` die at this call of its store; `false` when the drama was over before.
    fn dies_at(&self, who: PersonId, call: u64) -> bool {
        let mut room = self.frozen.thaw(call);
        let mut villain = room.villain();
        let store = room.world.people[who.0].engine_mut().store_mut();
        store.plan_call(call, false);
        (self.begin)(&mut room, &mut villain);
        let until = room.world.now_ms + PATIENCE_MS;
        room.world.run_until(until);
        let person = &mut room.world.people[who.0];
        assert_eq!(person.broken, None, "call {call}");
        person.engine_mut().store_mut().heal();
        let has_died = !person.failed_calls.is_empty();
        (self.end)(&mut room);
        has_died
    }

    /// Every call, from the first to the last that there is.
    fn survives(&self, who: PersonId) {
        let tried = (0..).take_while(|call| self.dies_at(who, *call)).count();
        println!("{who:?} died at {tried} calls");
        assert!(tried > 50, "{tried} calls: too few to be all");
    }
}

fn talks(room: &mut Room, who: &[PersonId], group: GroupId) {
    for (i, person) in who.iter().enumerate() {
        room.world.say(*person, group, &format!("m{i}"));
    }
    room.wait(5_000);
    let said: Vec<_> = (0..who.len()).map(|i| format!("m{i}")).collect();
    for person in who {
        let mut texts = room.world.texts(*person, group);
        texts.sort();
        assert_eq!(texts, said, "{person:?}");
    }
}

fn false_restart(room: &mut Room, villain: &mut Villain) {
    let made = villain.restart(&room.world, RestartCause::Requested, GroupId([9; 32]));
    room.submit(villain, &made);
}

fn is_continued(room: &mut Room) {
    let honest = room.honest();
    let successor = room.successor(honest[0]).expect("continued");
    for who in &honest {
        assert_eq!(room.successor(*who), Some(successor), "{who:?}");
        let groups = room.world.people[who.0].engine_mut().groups();
        assert_eq!(groups.expect("groups").len(), 2, "no other successor");
    }
    talks(room, &honest, successor);
}

fn noise_for_the_second(room: &mut Room, villain: &mut Villain) {
    let plan = Plan {
        noise_for: vec![room.device(room.members[1])],
        ..Plan::default()
    };
    let made = villain.commit(&room.world, plan);
    room.submit(villain, &made);
}

fn is_in_again(room: &mut Room) {
    let honest = room.honest();
    let theirs = room.world.view(honest[0], room.group).epoch_authenticator;
    let view = room.world.view(honest[1], room.group);
    assert_eq!(view.status, GroupStatusView::Active);
    assert_eq!(view.epoch_authenticator, theirs);
    let group = room.group;
    talks(room, &honest, group);
}

/// REQ-090, REQ-152, REQ-153: the restarter, and who follows it, die at any call.
#[test]
fn a_crash_at_any_storage_call_of_a_restart_loses_nothing() {
    let room = Room::new(91, SUITE_CLASSICAL, 4);
    let (restarter, other) = (room.members[0], room.members[1]);
    let drama = Drama {
        frozen: room.freeze(),
        begin: false_restart,
        end: is_continued,
    };
    drama.survives(restarter);
    drama.survives(other);
}

/// REQ-090, REQ-156, REQ-157, REQ-158: who asks and who answers die at any call.
#[test]
fn a_crash_at_any_storage_call_of_a_resync_loses_nothing() {
    let room = Room::new(92, SUITE_CLASSICAL, 3);
    let (answerer, asker) = (room.members[0], room.members[1]);
    let drama = Drama {
        frozen: room.freeze(),
        begin: noise_for_the_second,
        end: is_in_again,
    };
    drama.survives(asker);
    drama.survives(answerer);
}
