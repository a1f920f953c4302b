//! The main job in the simulated world: found, invite, talk, remove.

use mortise_protocol::engine::{CommandKind, Event, GroupView, HistoryKind};
use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};
use mortise_protocol::identity::{GroupId, LogSeq};
use mortise_protocol::roster::Role;
use mortise_protocol::wire::GroupState;
use mortise_tests::world::{PersonId, World};

const NOW_MS: u64 = 1_795_000_000_000;

fn now_ms() -> u64 {
    // openmls compares lifetimes with the wall clock, so the world's time starts near it.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(NOW_MS, |d| u64::try_from(d.as_millis()).unwrap_or(NOW_MS))
}

fn texts(world: &World, who: PersonId, group: GroupId) -> Vec<String> {
    world.people[who.0]
        .engine()
        .messages(group, LogSeq(0), usize::MAX)
        .expect("history")
        .into_iter()
        .filter_map(|line| match line.kind {
            HistoryKind::Text(text) => Some(text),
            _ => None,
        })
        .collect()
}

fn group_of(world: &mut World, who: PersonId) -> GroupView {
    let mut groups = world.people[who.0].engine_mut().groups().expect("groups");
    groups.remove(0)
}

fn say(world: &mut World, who: PersonId, group: GroupId, text: &str) {
    let text = text.to_owned();
    world.command(who, CommandKind::SendText { group, text });
}

fn people(world: &mut World, suite: u16) -> [PersonId; 4] {
    let ann = world.found("Ann", suite);
    let bob = world.invite(ann, "Bob", Role::Member);
    let cy = world.invite(ann, "Cy", Role::Member);
    let dot = world.invite(ann, "Dot", Role::Member);
    [ann, bob, cy, dot]
}

fn talk_and_remove(suite: u16) {
    let mut world = World::new(1, now_ms());
    let [ann, bob, cy, dot] = people(&mut world, suite);
    assert_eq!(
        world.people[bob.0]
            .engine()
            .name_of(world.people[cy.0].user()),
        Some("Cy".into())
    );
    let members = [bob, cy, dot].map(|p| world.people[p.0].user()).to_vec();
    let name = "Design".to_owned();
    world.command(bob, CommandKind::CreateGroup { name, members });
    world.settle();
    let group = group_of(&mut world, bob).id;
    assert_eq!(group_of(&mut world, cy).members.len(), 3);
    say(&mut world, cy, group, "hello");
    world.settle();
    say(&mut world, bob, group, "hello yourself");
    world.settle();
    for who in [bob, cy, dot] {
        assert_eq!(texts(&world, who, group), ["hello", "hello yourself"]);
    }
    let leaver = world.people[dot.0].user();
    let order = world.command(ann, CommandKind::RemoveUser { user: leaver });
    world.settle();
    assert!(world.people[dot.0].engine().is_expelled());
    let seq = world.people[ann.0]
        .events
        .iter()
        .find_map(|e| match e {
            Event::Ordered { id, order: seq } if *id == order => Some(*seq),
            _ => None,
        })
        .expect("ordered");
    say(&mut world, cy, group, "without you");
    world.settle();
    assert_eq!(
        texts(&world, bob, group).last().expect("text"),
        "without you"
    );
    assert_eq!(texts(&world, dot, group).len(), 2);
    assert_eq!(group_of(&mut world, bob).members.len(), 2);
    let status = world.command(ann, CommandKind::OrderStatus { order: seq });
    world.settle();
    let groups = world.people[ann.0]
        .events
        .iter()
        .find_map(|e| match e {
            Event::OrderStatus { id, groups } if *id == status => Some(groups.clone()),
            _ => None,
        })
        .expect("status");
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].state, GroupState::Rotated);
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
