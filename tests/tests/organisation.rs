//! The organisation itself, in the simulated world: policy, names, PINs, recovery, freshness, closed groups.

use mortise_protocol::engine::{
    Alarm, CommandError, CommandKind, Event, GroupStatusView, Input, IntentId, Output, PinChoice,
};
use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};
use mortise_protocol::identity::{
    Hash, Pin, RosterSeq, SealSecret, SealedProfile, SigningKey, UserId,
};
use mortise_protocol::roster::{
    AddDevice, Checkpoint, EntrySigner, Head, Op, OrgPolicy, Role, RotateDirectoryKey, Staleness,
    sign_entry,
};
use mortise_protocol::wire::{Flag, Push, RelayToClient, Request, limits};
use mortise_tests::world::{PersonId, World};

const HOUR_MS: u64 = 3_600_000;

fn people(names: &[&str]) -> (World, Vec<PersonId>) {
    World::with_people(1, SUITE_CLASSICAL, names)
}

fn events(world: &World, who: PersonId, id: IntentId) -> Vec<Event> {
    let told = world.people[who.0].events.iter();
    told.filter(|event| match event {
        Event::Done { id: i }
        | Event::Ordered { id: i, .. }
        | Event::Invited { id: i, .. }
        | Event::Appended { id: i, .. }
        | Event::Failed { id: i, .. } => *i == id,
        _ => false,
    })
    .cloned()
    .collect()
}

fn does(world: &mut World, who: PersonId, kind: CommandKind) -> IntentId {
    let id = world.command(who, kind);
    world.settle();
    let told = events(world, who, id);
    assert!(
        matches!(
            told[..],
            [Event::Done { .. } | Event::Ordered { .. } | Event::Invited { .. }]
        ),
        "{told:?}"
    );
    id
}

fn name(world: &World, who: PersonId, of: PersonId) -> Option<String> {
    let user = world.people[of.0].user();
    world.people[who.0].engine().name_of(user)
}

fn rename(world: &World, of: PersonId, name: &str) -> CommandKind {
    CommandKind::SetProfile {
        user: world.people[of.0].user(),
        name: name.into(),
    }
}

fn generations(world: &World, who: PersonId) -> usize {
    world.people[who.0].engine().roster().directory().len()
}

fn with_policy(world: &mut World, owner: PersonId, change: impl FnOnce(&mut OrgPolicy)) {
    let engine = world.people[owner.0].engine();
    let mut policy = engine.policy().expect("a policy").clone();
    change(&mut policy);
    does(world, owner, CommandKind::SetPolicy { policy });
}

fn no_alarms(world: &World) {
    for i in 0..world.people.len() {
        assert_eq!(world.alarms(PersonId(i)).next(), None, "person {i}");
    }
}

/// REQ-030, REQ-101: names are changed, an order changes the key, and everybody reads everything, old and new.
#[test]
fn names_outlive_the_key_that_they_were_sealed_under() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = all[..] else {
        panic!("four people")
    };
    let kind = rename(&world, bob, "Robert");
    does(&mut world, ann, kind);
    let kind = rename(&world, cy, "Cyril");
    does(&mut world, cy, kind);
    for who in [ann, bob, cy, dot] {
        assert_eq!(name(&world, who, bob).as_deref(), Some("Robert"));
        assert_eq!(name(&world, who, cy).as_deref(), Some("Cyril"));
    }
    world.put_to_sleep(cy);
    world.remove(ann, dot);
    assert_eq!(generations(&world, ann), 2, "the order brought a key");
    let eve = world.invite(ann, "Eve", Role::Member);
    let kind = rename(&world, bob, "Bobby");
    does(&mut world, bob, kind);
    world.wake(cy);
    world.settle();
    for who in [ann, bob, cy, eve] {
        assert_eq!(name(&world, who, bob).as_deref(), Some("Bobby"), "{who:?}");
        assert_eq!(name(&world, who, cy).as_deref(), Some("Cyril"), "{who:?}");
        assert_eq!(name(&world, who, eve).as_deref(), Some("Eve"), "{who:?}");
    }
    assert_eq!(name(&world, dot, eve), None, "who is gone knows nobody new");
    does(&mut world, ann, CommandKind::RotateDirectoryKey);
    assert_eq!(generations(&world, bob), 3);
    world.restart_person(bob);
    world.settle();
    assert_eq!(name(&world, bob, cy).as_deref(), Some("Cyril"));
    no_alarms(&world);
}

/// REQ-101, REQ-031: more devices than one entry brings slots for get the new key, too: whoever holds it fills the rest.
#[test]
fn a_new_key_reaches_more_devices_than_one_request_has_room_for() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy", "Dot", "Eve", "Fay"]);
    let (ann, fay) = (all[0], all[5]);
    world.crowd(ann, 500, SUITE_CLASSICAL);
    let order = world.remove(ann, fay);
    let roster = world.people[ann.0].engine().roster();
    assert_eq!(roster.directory_generation(), order);
    // Ann leaves slots for the first by id.
    let earlier_than = |who: PersonId| {
        let id = world.people[who.0].device();
        roster.devices().filter(|(other, _)| *other < id).count()
    };
    let last = all[1..5]
        .iter()
        .copied()
        .max_by_key(|who| earlier_than(*who));
    let last = last.expect("four people");
    assert!(
        earlier_than(last) > limits::MAX_SLOTS + 2,
        "seed 1 has such a device"
    );
    let kind = rename(&world, ann, "Annabel");
    does(&mut world, ann, kind);
    assert_eq!(name(&world, last, ann), None, "not yet");
    world.run_until(world.now_ms + 30_000);
    for who in &all[..5] {
        assert_eq!(name(&world, *who, ann).as_deref(), Some("Annabel"));
    }
    no_alarms(&world);
}

/// REQ-101: who leaves brings no key; an administrator's device names one by itself, and no name is sealed before that.
#[test]
fn a_leaver_leaves_the_key_to_an_administrator() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = all[..] else {
        panic!("three people")
    };
    world.put_to_sleep(ann);
    let user = world.people[cy.0].user();
    world.command(cy, CommandKind::RemoveUser { user });
    world.run_until(world.now_ms + 1_000);
    let roster = world.people[bob.0].engine().roster();
    assert!(roster.directory_is_stale());
    let kind = rename(&world, bob, "Robert");
    let id = world.command(bob, kind);
    world.run_until(world.now_ms + 30_000);
    assert!(events(&world, bob, id).is_empty(), "it waits for a key");
    world.wake(ann);
    world.run_until(world.now_ms + 30_000);
    assert_eq!(generations(&world, bob), 2);
    assert_eq!(events(&world, bob, id), [Event::Done { id }]);
    assert_eq!(name(&world, ann, bob).as_deref(), Some("Robert"));
    let user = world.people[bob.0].user();
    let engine = world.people[bob.0].engine();
    let profile = &engine.roster().user(user).expect("Bob").profile;
    let newest = engine.roster().directory_generation();
    assert_eq!(profile.generation(), Some(newest));
    no_alarms(&world);
}

/// REQ-031: a slot that was never left is filled by whoever has the key, when they come online.
#[test]
fn a_device_that_was_forgotten_gets_its_key() {
    let (mut world, all) = people(&["Ann", "Bob"]);
    let [ann, bob] = all[..] else {
        panic!("two people")
    };
    let expires_at_ms = world.now_ms + HOUR_MS;
    let kind = CommandKind::InviteUser {
        name: "Cy".into(),
        role: Role::Member,
        expires_at_ms,
        pin: PinChoice::Policy,
    };
    let id = does(&mut world, ann, kind);
    let (link, _) = world.invitation(ann, id).expect("a link");
    world.put_to_sleep(ann);
    world.put_to_sleep(bob);
    let cy = world.start_join("Cy", &link);
    world.run_until(world.now_ms + 5_000);
    assert_eq!(name(&world, cy, bob), None, "nobody was there");
    // Bob did not let Cy in, and administers nothing.
    world.wake(bob);
    world.settle();
    assert_eq!(name(&world, cy, bob).as_deref(), Some("Bob"));
    no_alarms(&world);
}

/// REQ-104: by policy there is a PIN; a wrong one uses nothing up, and says so.
#[test]
fn a_pin_is_needed_and_can_be_tried_again() {
    let (mut world, all) = people(&["Ann"]);
    let ann = all[0];
    with_policy(&mut world, ann, |policy| policy.pin_required = Flag::Yes);
    let kind = CommandKind::InviteUser {
        name: "Bob".into(),
        role: Role::Member,
        expires_at_ms: world.now_ms + HOUR_MS,
        pin: PinChoice::Policy,
    };
    let id = does(&mut world, ann, kind);
    let (link, pin) = world.invitation(ann, id).expect("a link");
    let pin = pin.expect("a PIN");
    assert!(!link.contains(&*pin.to_text()));
    let parsed = mortise_protocol::identity::JoinLink::parse(&link).expect("a link");
    assert!(parsed.needs_pin);
    let wrong = Pin::parse("AAAA-AAAA").expect("a PIN");
    for attempt in [None, Some(&wrong)] {
        let bob = world.start_join_with_pin("Bob", &link, attempt);
        world.run_until(world.now_ms + 5_000);
        let said = world.people[bob.0].refused.clone().expect("refused");
        assert!(
            said.contains("PIN is wrong") && said.contains("try again"),
            "{said}"
        );
    }
    let bob = world.start_join_with_pin("Bob", &link, Some(&pin));
    world.settle();
    assert!(world.people[bob.0].is_in());
    // A further device of Bob's, the same way.
    world.add_device(bob, "Bob's phone");
    no_alarms(&world);
}

/// REQ-100, REQ-092: the suite of new groups changes, and everybody has KeyPackages for it, who was away too.
#[test]
fn a_new_suite_is_for_new_groups() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = all[..] else {
        panic!("three people")
    };
    let old = world.group(ann, &[bob, cy]);
    world.put_to_sleep(cy);
    with_policy(&mut world, ann, |policy| policy.suite = SUITE_HYBRID);
    world.wake(cy);
    world.settle();
    let new = world.group(bob, &[ann, cy]);
    assert_eq!(world.view(cy, new).suite, SUITE_HYBRID);
    assert_eq!(world.view(cy, new).members.len(), 3);
    assert_eq!(world.view(cy, old).suite, SUITE_CLASSICAL);
    world.say(cy, new, "hello");
    world.say(cy, old, "still here");
    world.settle();
    assert_eq!(world.texts(ann, new), ["hello"]);
    assert_eq!(world.texts(ann, old), ["still here"]);
    no_alarms(&world);
}

/// REQ-102: a closed group takes nothing more, says so, and can be read, by who was away too.
#[test]
fn a_closed_group_can_be_read() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = all[..] else {
        panic!("four people")
    };
    let group = world.group(bob, &[cy, dot]);
    world.put_to_sleep(dot);
    world.say(bob, group, "the last word");
    world.settle();
    world.put_to_sleep(cy);
    // Ann is not in it.
    does(&mut world, ann, CommandKind::CloseGroup { group });
    assert_eq!(world.view(bob, group).status, GroupStatusView::Closed);
    let id = world.say(bob, group, "too late");
    world.settle();
    let error = CommandError::GroupClosed;
    assert_eq!(
        events(&world, bob, id),
        [Event::Failed {
            id,
            error: error.clone()
        }]
    );
    // Cy writes before hearing of it.
    let id = world.say(cy, group, "too late as well");
    world.wake(cy);
    world.wake(dot);
    world.settle();
    assert_eq!(events(&world, cy, id), [Event::Failed { id, error }]);
    for who in [bob, cy, dot] {
        assert_eq!(world.view(who, group).status, GroupStatusView::Closed);
        assert_eq!(world.texts(who, group), ["the last word"]);
    }
    // An order does not wake it up.
    let order = world.remove(ann, dot);
    assert!(order > RosterSeq(0));
    assert!(world.people[bob.0].engine().is_synced());
    no_alarms(&world);
}

/// REQ-025: suspended, invited again, back with another device.
#[test]
fn a_suspended_user_comes_back() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = all[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob, cy]);
    let user = world.people[cy.0].user();
    does(&mut world, ann, CommandKind::SuspendUser { user });
    assert!(world.people[cy.0].engine().is_expelled());
    assert_eq!(world.view(bob, group).members.len(), 2);
    let expires_at_ms = world.now_ms + HOUR_MS;
    let kind = CommandKind::ReinviteUser {
        user,
        expires_at_ms,
        pin: PinChoice::Policy,
    };
    let id = does(&mut world, ann, kind);
    let (link, _) = world.invitation(ann, id).expect("a link");
    let back = world.start_join("Cy", &link);
    world.settle();
    assert_eq!(world.people[back.0].user(), user);
    assert_eq!(name(&world, bob, back).as_deref(), Some("Cy"));
    assert_eq!(name(&world, back, bob).as_deref(), Some("Bob"));
    let users = vec![user];
    world.command(ann, CommandKind::AddMembers { group, users });
    world.settle();
    world.say(back, group, "here again");
    world.settle();
    assert_eq!(world.texts(bob, group), ["here again"]);
    no_alarms(&world);
}

/// REQ-109: what a lost device let in goes with it, in one entry; other people's devices are only shown.
#[test]
fn a_lost_device_takes_with_it_what_it_let_in() {
    let (mut world, all) = people(&["Ann", "Bob"]);
    let [ann, bob] = all[..] else {
        panic!("two people")
    };
    let user = world.people[bob.0].user();
    let role = Role::Admin;
    does(&mut world, ann, CommandKind::SetRole { user, role });
    let laptop = world.add_device(bob, "Bob's laptop");
    let tablet = world.add_device(laptop, "Bob's tablet");
    let cy = world.invite(laptop, "Cy", Role::Member);
    let phone = world.people[bob.0].device();
    let mut listed = world.people[ann.0].engine().enrolled_by(phone);
    let mut expected: Vec<_> = [laptop, tablet, cy]
        .map(|p| world.people[p.0].device())
        .into();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    let kind = CommandKind::RevokeDevice {
        device: phone,
        and_enrolled: true,
    };
    let id = does(&mut world, ann, kind);
    let [Event::Ordered { order, .. }] = events(&world, ann, id)[..] else {
        panic!("an order")
    };
    let roster = world.people[ann.0].engine().roster();
    let burned = roster.order(order).expect("the order").devices.clone();
    assert_eq!(burned.len(), 3);
    for gone in [bob, laptop, tablet] {
        assert!(world.people[gone.0].engine().is_expelled());
    }
    assert!(!world.people[cy.0].engine().is_expelled());
    no_alarms(&world);
}

/// REQ-103: with the owner gone, the root key brings a new one, who reads the names and removes the old one.
#[test]
fn the_organisation_is_recovered() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = all[..] else {
        panic!("three people")
    };
    let root = world.people[ann.0].root.as_ref().expect("the root key");
    let root = SigningKey::from_seed(&root.dangerous_seed());
    let org = world.people[ann.0].engine().org();
    world.remove(ann, cy);
    world.put_to_sleep(ann);
    let zoe = world.recover("Zoe", org, root);
    world.run_until(world.now_ms + 60_000);
    let user = world.people[zoe.0].user();
    let role = |world: &World| world.people[bob.0].engine().roster().role(user);
    assert_eq!(role(&world), Some(Role::Owner));
    assert_eq!(name(&world, bob, zoe).as_deref(), Some("Zoe"));
    assert_eq!(
        name(&world, zoe, bob).as_deref(),
        Some("Bob"),
        "sealed again"
    );
    assert_eq!(name(&world, zoe, ann), None, "Ann was not there to do it");
    let order = world.remove(zoe, ann);
    world.wake(ann);
    world.settle();
    assert!(world.people[ann.0].engine().is_expelled());
    assert!(order > RosterSeq(0));
    let dan = world.invite(zoe, "Dan", Role::Member);
    let group = world.group(zoe, &[bob, dan]);
    world.say(dan, group, "on we go");
    world.settle();
    assert_eq!(world.texts(bob, group), ["on we go"]);
    no_alarms(&world);
}

/// REQ-103: the names of those who do not come back are sealed again by an administrator's device, but for the owners',
/// and never in the place of a newer one.
#[test]
fn a_recovered_owner_reads_the_names_of_those_who_are_away() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = all[..] else {
        panic!("four people")
    };
    let user = world.people[bob.0].user();
    let role = Role::Admin;
    does(&mut world, ann, CommandKind::SetRole { user, role });
    let root = world.people[ann.0].root.as_ref().expect("the root key");
    let root = SigningKey::from_seed(&root.dangerous_seed());
    let org = world.people[ann.0].engine().org();
    for who in [ann, cy, dot] {
        world.put_to_sleep(who);
    }
    let zoe = world.recover("Zoe", org, root);
    world.run_until(world.now_ms + 60_000);
    assert_eq!(name(&world, zoe, bob).as_deref(), Some("Bob"));
    assert_eq!(name(&world, zoe, cy), None, "it is left to Cy");
    // Dot comes back in time, and changes the name.
    world.wake(dot);
    let kind = rename(&world, dot, "Dorothy");
    does(&mut world, dot, kind);
    world.run_until(world.now_ms + 1_300_000);
    assert_eq!(name(&world, zoe, cy).as_deref(), Some("Cy"));
    assert_eq!(name(&world, zoe, dot).as_deref(), Some("Dorothy"));
    assert_eq!(
        name(&world, zoe, ann),
        None,
        "an admin does not rename an owner"
    );
    let entries = world.people[bob.0].engine().roster().head().seq;
    world.wake(cy);
    world.settle();
    let head = world.people[bob.0].engine().roster().head().seq;
    assert_eq!(head, entries, "Cy has nothing left to do");
    no_alarms(&world);
}

/// Runs until the relay has had another roster entry from somebody.
fn until_appended(world: &mut World) {
    let count = |world: &World| world.counts.get("roster appends").copied().unwrap_or(0);
    let before = count(world);
    while count(world) == before {
        assert!(world.advance(world.now_ms + 60_000), "nothing was appended");
    }
}

/// REQ-108: an order that was appended just before a crash is told as given.
#[test]
fn an_order_is_known_again_after_a_crash() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = all[..] else {
        panic!("three people")
    };
    let user = world.people[bob.0].user();
    let id = world.command(ann, CommandKind::RemoveUser { user });
    until_appended(&mut world);
    world.restart_person(ann);
    world.settle();
    let told = events(&world, ann, id);
    assert!(matches!(told[..], [Event::Ordered { .. }]), "{told:?}");
    // The key that came with it is known again too.
    assert_eq!(generations(&world, ann), 2);
    let kind = rename(&world, cy, "Cyril");
    does(&mut world, ann, kind);
    assert_eq!(name(&world, cy, cy).as_deref(), Some("Cyril"));
    let device = world.people[cy.0].device();
    let kind = CommandKind::RevokeDevice {
        device,
        and_enrolled: true,
    };
    let id = world.command(ann, kind);
    until_appended(&mut world);
    world.restart_person(ann);
    world.settle();
    let told = events(&world, ann, id);
    assert!(matches!(told[..], [Event::Ordered { .. }]), "{told:?}");
}

/// REQ-108: an invitation whose answer was lost in a crash is handed over afterwards, and can be used.
#[test]
fn an_invitation_survives_a_crash() {
    let (mut world, all) = people(&["Ann"]);
    let ann = all[0];
    with_policy(&mut world, ann, |policy| policy.pin_required = Flag::Yes);
    let expires_at_ms = world.now_ms + HOUR_MS;
    let kind = CommandKind::InviteUser {
        name: "Bob".into(),
        role: Role::Member,
        expires_at_ms,
        pin: PinChoice::Policy,
    };
    let id = world.command(ann, kind);
    until_appended(&mut world);
    world.restart_person(ann);
    world.settle();
    let (link, pin) = world.invitation(ann, id).expect("the link");
    let bob = world.start_join_with_pin("Bob", &link, pin.as_ref());
    world.settle();
    assert_eq!(name(&world, bob, bob).as_deref(), Some("Bob"));
    // It was handed over: not a second time.
    world.restart_person(ann);
    world.settle();
    assert_eq!(events(&world, ann, id).len(), 1);
}

/// REQ-108: what was asked for before it could be sent is done after a crash, once.
#[test]
fn a_change_that_was_not_sent_is_made_after_a_crash() {
    let (mut world, all) = people(&["Ann", "Bob"]);
    let [ann, bob] = all[..] else {
        panic!("two people")
    };
    world.people[ann.0].dies_after_step = true;
    let user = world.people[bob.0].user();
    let id = world.command(ann, CommandKind::RemoveUser { user });
    world.settle();
    let told = events(&world, ann, id);
    assert!(matches!(told[..], [Event::Ordered { .. }]), "{told:?}");
    assert_eq!(generations(&world, ann), 2);
}

/// REQ-108: no command has an earlier one's number, whatever happened in between.
#[test]
fn numbers_of_commands_are_not_used_again() {
    let (mut world, all) = people(&["Ann", "Bob"]);
    let [ann, bob] = all[..] else {
        panic!("two people")
    };
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..3 {
        let kind = rename(&world, bob, &format!("Bob {n}"));
        assert!(seen.insert(does(&mut world, ann, kind)));
        world.restart_person(ann);
        world.settle();
    }
}

fn stale(world: &World, who: PersonId) -> usize {
    world
        .alarms(who)
        .filter(|alarm| matches!(alarm, Alarm::Stale { .. }))
        .count()
}

/// REQ-105, REQ-106: while an administrator is online everything is fresh; without one there is one warning per lapse.
#[test]
fn a_weekend_without_administrators_is_a_warning() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = all[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob, cy]);
    let age = |world: &World, who: PersonId| {
        let age = world.people[who.0].engine().checkpoint_age_ms(world.now_ms);
        age.expect("somebody has stated something")
    };
    world.run_until(world.now_ms + 2 * HOUR_MS);
    assert!(age(&world, bob) <= limits::CHECKPOINT_EVERY_MS + 60_000);
    world.put_to_sleep(ann);
    world.run_until(world.now_ms + 23 * HOUR_MS);
    assert_eq!((stale(&world, bob), stale(&world, cy)), (0, 0));
    world.run_until(world.now_ms + 40 * HOUR_MS);
    assert_eq!((stale(&world, bob), stale(&world, cy)), (1, 1));
    assert!(age(&world, bob) > 60 * HOUR_MS);
    world.say(bob, group, "anybody?");
    world.settle();
    assert_eq!(world.texts(cy, group), ["anybody?"]);
    // Told once in a lapse, however often it connects.
    world.put_to_sleep(cy);
    world.wake(cy);
    world.settle();
    assert_eq!(stale(&world, cy), 1);
    world.wake(ann);
    world.settle();
    assert!(age(&world, bob) < 60_000);
    assert_eq!(world.texts(ann, group), ["anybody?"]);
    world.put_to_sleep(ann);
    world.run_until(world.now_ms + 25 * HOUR_MS);
    assert_eq!((stale(&world, bob), stale(&world, ann)), (2, 0));
}

/// REQ-106: by the stricter policy nothing is sent until an administrator is back; administration goes on.
#[test]
fn a_stale_roster_can_block() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = all[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob, cy]);
    with_policy(&mut world, ann, |policy| {
        policy.staleness = Staleness::Block;
        policy.staleness_limit_ms = HOUR_MS;
    });
    world.put_to_sleep(ann);
    world.run_until(world.now_ms + HOUR_MS / 2);
    world.say(bob, group, "still fine");
    world.settle();
    assert_eq!(world.texts(cy, group), ["still fine"]);
    world.run_until(world.now_ms + HOUR_MS);
    assert_eq!(stale(&world, bob), 1);
    let id = world.say(bob, group, "not now");
    let told = events(&world, bob, id);
    let blocked = |event: &Event| {
        matches!(
            event,
            Event::Failed {
                error: CommandError::Stale { .. },
                ..
            }
        )
    };
    assert!(told.len() == 1 && told.iter().all(blocked), "{told:?}");
    // A device that is just coming back may still hear of something newer: it takes the message, and keeps it.
    let user = world.people[cy.0].user();
    world.put_to_sleep(cy);
    world.wake(cy);
    while world.people[cy.0].conn.is_none() {
        assert!(world.advance(world.now_ms + 60_000));
    }
    let kept = world.say(cy, group, "kept");
    world.run_until(world.now_ms + 60_000);
    assert!(events(&world, cy, kept).is_empty());
    assert_eq!(world.texts(bob, group), ["still fine"]);
    // Orders are not held up: Cy gives up a device of their own.
    let phone = world.add_device(cy, "Cy's phone");
    let device = world.people[phone.0].device();
    let kind = CommandKind::RevokeDevice {
        device,
        and_enrolled: false,
    };
    does_without_quiet(&mut world, cy, kind);
    world.wake(ann);
    world.settle();
    assert_eq!(world.texts(bob, group), ["still fine", "kept"]);
    world.say(bob, group, "now again");
    world.settle();
    assert_eq!(
        world.texts(cy, group).last().map(String::as_str),
        Some("now again")
    );
    assert!(world.people[ann.0].engine().roster().role(user).is_some());
}

/// For somebody who has something waiting and so is never quiet.
fn does_without_quiet(world: &mut World, who: PersonId, kind: CommandKind) {
    let id = world.command(who, kind);
    world.run_until(world.now_ms + 5_000);
    let told = events(world, who, id);
    assert!(matches!(told[..], [Event::Ordered { .. }]), "{told:?}");
}

/// REQ-107: who asks for more than is allowed gets it all, later, and holds up nobody's orders.
#[test]
fn changes_over_the_limit_are_made_later() {
    let (mut world, all) = people(&["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = all[..] else {
        panic!("three people")
    };
    let burst = usize::try_from(limits::APPEND_BURST).expect("small");
    let mut ids = Vec::new();
    for n in 0..burst + 2 {
        let kind = rename(&world, bob, &format!("Bob {n}"));
        ids.push(world.command(bob, kind));
        world.run_until(world.now_ms + 200);
    }
    world.run_until(world.now_ms + 1_000);
    let done = |world: &World| {
        let told = ids.iter().filter(|id| !events(world, bob, **id).is_empty());
        told.count()
    };
    assert_eq!(done(&world), burst);
    let before = world.people[ann.0].engine().roster().head().seq;
    let user = world.people[cy.0].user();
    let id = world.command(ann, CommandKind::RemoveUser { user });
    world.run_until(world.now_ms + 1_000);
    let told = events(&world, ann, id);
    assert!(matches!(told[..], [Event::Ordered { order, .. }] if order == before.next()));
    world.run_until(world.now_ms + 3 * limits::APPEND_EVERY_MS);
    assert_eq!(done(&world), ids.len());
    let last = format!("Bob {}", burst + 1);
    assert_eq!(name(&world, ann, bob), Some(last));
    no_alarms(&world);
}

/// REQ-105, REQ-048: an owner's statement about another roster convicts the relay that let it pass; one about an entry
/// that is not here makes the device ask for it.
#[test]
fn a_statement_about_another_roster_convicts_the_relay() {
    let (mut world, all) = people(&["Ann", "Bob"]);
    let [ann, bob] = all[..] else {
        panic!("two people")
    };
    let root = world.people[ann.0].root.as_ref().expect("the root key");
    let engine = world.people[bob.0].engine();
    let (org, head) = (engine.org(), engine.roster().head());
    // An owner whose key the test holds.
    let key = |n| SigningKey::from_seed(&[n; 32]);
    let user = UserId([0xaa; 16]);
    let add = AddDevice::sign(org, user, &key(1), &key(2), &SealSecret::new(key(3)));
    let device = add.device();
    let ops = vec![
        Op::Recover,
        Op::AddUser {
            user,
            role: Role::Owner,
            profile: SealedProfile(vec![0; 16].into()),
        },
        Op::AddDevice(add),
        Op::RotateDirectoryKey(RotateDirectoryKey {
            commitment: Hash([1; 32]),
            predecessor: Vec::new().into(),
        }),
    ];
    let now_ms = world.now_ms;
    let entry = sign_entry(org, head, now_ms, EntrySigner::Root, root, ops);
    let head = entry.head();
    let hear = |world: &mut World, push: Push| {
        let engine = world.people[bob.0].engine_mut();
        let frame = Input::Frame(RelayToClient::Push(push));
        engine.handle(now_ms, frame).expect("a step")
    };
    let entry = entry.into_bytes().into();
    let positions = Vec::new();
    hear(&mut world, Push::RosterEntry { entry, positions });
    assert_eq!(world.people[bob.0].engine().roster().head(), head);

    let state = |head| Push::Checkpoint {
        checkpoint: Checkpoint::sign(org, head, now_ms, device, &key(1)),
    };
    let outputs = hear(&mut world, state(head));
    assert!(
        !outputs
            .iter()
            .any(|o| matches!(o, Output::Event(Event::Alarm(_))))
    );
    let next = Head {
        seq: head.seq.next(),
        ..head
    };
    let outputs = hear(&mut world, state(next));
    let asks = |output: &Output| {
        let Output::Send(frame) = output else {
            return false;
        };
        frame.request == Request::FetchRoster { after: head.seq }
    };
    assert!(outputs.iter().any(asks), "{outputs:?}");
    let other = Head {
        hash: Hash([9; 32]),
        ..head
    };
    let outputs = hear(&mut world, state(other));
    let seq = head.seq;
    let fork = |output: &Output| matches!(output, Output::Event(Event::Alarm(Alarm::RosterFork { seq: s })) if *s == seq);
    assert!(outputs.iter().any(fork), "{outputs:?}");
    assert!(world.people[bob.0].engine().distrusts_relay().is_some());
}
