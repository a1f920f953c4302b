//! Two people who commit against each other, again and again.

use mortise_protocol::engine::CommandKind;
use mortise_protocol::group::SUITE_CLASSICAL;
use mortise_tests::world::{PersonId, World};

/// REQ-045, REQ-088, REQ-089: two who commit 200 times each, at the same moments, leave everybody in one epoch, and
/// every message was delivered once, in one order.
#[test]
fn two_who_commit_two_hundred_times_each() {
    const ROUNDS: usize = 200;
    let names = ["Ann", "Bob", "Cy", "Dot", "Eve"];
    let (mut world, people) = World::with_people(3, SUITE_CLASSICAL, &names);
    let group = world.group(people[0], &people[1..3]);
    // Both may remove: Ann has made the group, Bob's own commits add.
    let outside = [people[3], people[4]].map(|p| world.people[p.0].user());
    world.faults.latency_ms = 20;
    let mut said = 0;
    for round in 0..ROUNDS {
        let is_in = world.view(people[0], group).members.len() > 3;
        let (mine, other) = (outside[round / 2 % 2], outside[(round / 2 + 1) % 2]);
        let (first, second) = if is_in {
            let kind = |user| CommandKind::RemoveMember { group, user };
            (kind(mine), kind(other))
        } else {
            let kind = |user| CommandKind::AddMembers {
                group,
                users: vec![user],
            };
            (kind(mine), kind(other))
        };
        let racers = match is_in {
            // Only the group's admin may remove: she races with herself and with the other's message.
            true => [people[0], people[0]],
            false => [people[0], people[1]],
        };
        world.command(racers[0], first);
        world.command(racers[1], second);
        for who in [people[0], people[1]] {
            said += 1;
            world.say(who, group, &format!("m{said}"));
        }
        world.settle();
    }
    let epoch = world.view(people[0], group).epoch;
    assert!(epoch >= 400, "{epoch} epochs");
    assert!(world.counts["commit races"] >= 50, "{:?}", world.counts);
    let view = world.view(people[0], group);
    let texts = world.texts(people[0], group);
    assert_eq!(texts.len(), said);
    let different: std::collections::BTreeSet<_> = texts.iter().collect();
    assert_eq!(different.len(), said, "nothing twice");
    for who in [people[1], people[2]] {
        let other = world.view(who, group);
        assert_eq!(other.epoch_authenticator, view.epoch_authenticator);
        assert_eq!(world.texts(who, group), texts);
    }
    for i in 0..world.people.len() {
        assert_eq!(world.alarms(PersonId(i)).next(), None);
    }
}
