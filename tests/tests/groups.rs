//! What groups do about themselves: leaving, policy, heirs, further devices, big adds, warming, retention.

use mortise_protocol::engine::{
    CommandError, CommandKind, Event, GroupStatusView, HistoryKind, Input, IntentId, Output,
    PinChoice, PolicyChange, WhoMayAdd,
};
use mortise_protocol::group::{
    Changes, Crypto, Group, GroupPolicy, Me, MlsProvider, SUITE_CLASSICAL, Violation,
};
use mortise_protocol::identity::{Epoch, GroupId, Hash, LogSeq, UserId, decode, encode};
use mortise_protocol::roster::Role;
use mortise_protocol::store::Tx;
use mortise_protocol::wire::aad::{AuthenticatedData, ContentType, PrivateHeader};
use mortise_protocol::wire::log::CommitEntry;
use mortise_protocol::wire::{ConnectionBinding, LogRecord, Push, RecordBody, RelayToClient};
use mortise_tests::world::{ADDRESS, DiskFault, PersonId, World, log_cursor};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// A room of everybody but the last, made by the first.
struct Room {
    world: World,
    people: Vec<PersonId>,
    group: GroupId,
}

impl Room {
    fn of(names: &[&str]) -> Self {
        Self::with(7, names)
    }

    fn with(seed: u64, names: &[&str]) -> Self {
        let (mut world, people) = World::with_people(seed, SUITE_CLASSICAL, names);
        let group = world.group(people[0], &people[1..people.len() - 1]);
        Self {
            world,
            people,
            group,
        }
    }

    fn user(&self, who: PersonId) -> UserId {
        self.world.people[who.0].user()
    }

    fn leave(&mut self, who: PersonId) -> IntentId {
        let group = self.group;
        self.world.command(who, CommandKind::LeaveGroup { group })
    }

    fn change(&mut self, who: PersonId, change: PolicyChange) -> IntentId {
        let group = self.group;
        self.world
            .command(who, CommandKind::ChangeGroup { group, change })
    }

    fn add(&mut self, by: PersonId, whom: PersonId) -> IntentId {
        let (group, users) = (self.group, vec![self.user(whom)]);
        self.world
            .command(by, CommandKind::AddMembers { group, users })
    }

    /// The link for a further device of somebody's.
    fn device_link(&mut self, owner: PersonId) -> String {
        let expires_at_ms = self.world.now_ms + DAY_MS;
        let kind = CommandKind::InviteDevice {
            expires_at_ms,
            pin: PinChoice::Policy,
        };
        let id = self.world.command(owner, kind);
        self.world.settle();
        let mut events = self.world.people[owner.0].events.iter();
        let link = events.find_map(|event| match event {
            Event::Invited { id: i, link, .. } if *i == id => {
                Some(link.to_text(ADDRESS, Hash([0; 32])).to_string())
            }
            _ => None,
        });
        link.expect("a link")
    }

    fn run_ms(&mut self, ms: u64) {
        let until = self.world.now_ms + ms;
        self.world.run_until(until);
    }

    fn status(&mut self, who: PersonId) -> GroupStatusView {
        self.world.view(who, self.group).status
    }

    fn is_in(&mut self, seen_by: PersonId, who: PersonId) -> bool {
        let user = self.user(who);
        let view = self.world.view(seen_by, self.group);
        view.members.iter().any(|m| m.user == user)
    }

    fn lines(&self, who: PersonId) -> Vec<HistoryKind> {
        let engine = self.world.people[who.0].engine();
        let lines = engine.messages(self.group, LogSeq(0), usize::MAX);
        let lines = lines.expect("a history").into_iter();
        lines.map(|line| line.kind).collect()
    }

    fn error(&self, who: PersonId, id: IntentId) -> Option<CommandError> {
        let mut events = self.world.people[who.0].events.iter();
        events.find_map(|event| match event {
            Event::Failed { id: i, error } if *i == id => Some(error.clone()),
            _ => None,
        })
    }

    fn times_appended(&self, who: PersonId, id: IntentId) -> usize {
        let events = self.world.people[who.0].events.iter();
        events
            .filter(|e| matches!(e, Event::Appended { id: i, .. } if *i == id))
            .count()
    }

    fn no_alarms(&self) {
        for i in 0..self.world.people.len() {
            let alarm = self.world.alarms(PersonId(i)).next();
            assert_eq!(alarm, None, "{}", self.world.people[i].name);
        }
    }

    /// Everybody who is in agrees about who is in, and in which epoch.
    fn agrees(&mut self) {
        let mut views = Vec::new();
        for i in 0..self.world.people.len() {
            let person = &mut self.world.people[i];
            if person.asleep || !person.is_in() {
                continue;
            }
            let groups = person.engine_mut().groups().expect("groups");
            let group = groups.into_iter().find(|view| view.id == self.group);
            views.extend(group.filter(|v| v.status == GroupStatusView::Active));
        }
        for view in &views {
            assert_eq!(view.epoch_authenticator, views[0].epoch_authenticator);
            assert_eq!(view.members, views[0].members);
        }
    }

    /// The content types of the group's MLS messages, in log order.
    fn content_types(&self) -> Vec<ContentType> {
        let header = |message: &[u8]| {
            PrivateHeader::parse(message)
                .expect("a header")
                .content_type
        };
        let log = self.world.log(self.group);
        log.iter()
            .filter_map(|r| match decode(r.payload.as_slice()).expect("a body") {
                RecordBody::Message(message) => Some(header(message.as_slice())),
                RecordBody::Commit(entry) => Some(header(entry.commit.as_slice())),
                RecordBody::Create { .. } | RecordBody::Attestation(_) | RecordBody::Restart(_) => {
                    None
                }
            })
            .collect()
    }
}

/// REQ-123, REQ-124: a member asks, another carries it out, and everybody sees who left.
#[test]
fn a_member_leaves() {
    let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
    let (ann, bob, cy) = (room.people[0], room.people[1], room.people[2]);
    room.world.say(bob, room.group, "bye");
    let id = room.leave(bob);
    room.world.settle();
    room.run_ms(10_000);
    assert_eq!(room.times_appended(bob, id), 1);
    assert_eq!(room.status(bob), GroupStatusView::Removed);
    let left = HistoryKind::Left(vec![room.user(bob)]);
    for who in [ann, bob, cy] {
        assert_eq!(room.lines(who).last(), Some(&left));
        assert_eq!(room.world.texts(who, room.group), ["bye"]);
    }
    assert!(!room.is_in(ann, bob));
    let (commit, message) = (ContentType::Commit, ContentType::Application);
    assert_eq!(
        room.content_types(),
        [commit, message, ContentType::Proposal, commit]
    );
    let late = room.world.say(bob, room.group, "one more thing");
    assert_eq!(room.error(bob, late), Some(CommandError::NotAMember));
    room.world.say(cy, room.group, "gone");
    room.world.settle();
    assert_eq!(room.world.texts(ann, room.group), ["bye", "gone"]);
    room.agrees();
    room.no_alarms();
}

/// REQ-123: who is leaving says and changes nothing more, and leaves once.
#[test]
fn a_leaver_wants_nothing_more() {
    let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
    let (ann, bob, cy) = (room.people[0], room.people[1], room.people[2]);
    for other in [ann, cy] {
        room.world.put_to_sleep(other);
    }
    room.leave(bob);
    room.world.settle();
    assert!(
        room.world.is_quiet(),
        "there is nothing more that Bob could do"
    );
    let late = room.world.say(bob, room.group, "wait");
    assert_eq!(room.error(bob, late), Some(CommandError::Leaving));
    let again = room.leave(bob);
    assert_eq!(room.error(bob, again), Some(CommandError::Leaving));
    let mine = CommandKind::RemoveMember {
        group: room.group,
        user: room.user(bob),
    };
    let mine = room.world.command(bob, mine);
    assert_eq!(room.error(bob, mine), Some(CommandError::LeaveInstead));
    // Nobody has to say anything for the leave to be carried out.
    room.world.wake(cy);
    room.run_ms(10_000);
    assert_eq!(room.status(bob), GroupStatusView::Removed);
    room.no_alarms();
}

/// REQ-123: a user's devices leave together: the others first, by the hand of the one that was asked.
#[test]
fn two_devices_leave_together() {
    let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
    let (ann, bob) = (room.people[0], room.people[1]);
    let other = room.world.add_device(bob, "Bob's other");
    room.run_ms(MINUTE_MS);
    assert_eq!(room.world.view(ann, room.group).members.len(), 4);
    room.leave(bob);
    room.run_ms(MINUTE_MS);
    for device in [bob, other] {
        assert_eq!(room.status(device), GroupStatusView::Removed);
    }
    assert_eq!(room.world.view(ann, room.group).members.len(), 2);
    assert!(!room.is_in(ann, bob));
    room.run_ms(10 * MINUTE_MS);
    assert!(!room.is_in(ann, bob), "no device brings the user back");
    room.no_alarms();
}

/// REQ-123, REQ-124: leaves that race messages, changes and each other are said again in each epoch until they are done.
#[test]
fn leaves_race_everything() {
    for seed in 0..12 {
        let mut room = Room::with(seed, &["Ann", "Bob", "Cy", "Dot", "Eve", "Fay"]);
        let [ann, bob, cy, dot, eve, fay] = room.people[..] else {
            panic!("six people")
        };
        room.world.faults.latency_ms = 300;
        let first = room.leave(bob);
        room.change(ann, PolicyChange::Name(format!("Plans {seed}")));
        room.world.say(dot, room.group, "one");
        room.add(eve, fay);
        let second = room.leave(cy);
        room.world.say(ann, room.group, "two");
        room.run_ms(2 * MINUTE_MS);
        for (who, id) in [(bob, first), (cy, second)] {
            assert_eq!(room.status(who), GroupStatusView::Removed, "seed {seed}");
            assert_eq!(room.times_appended(who, id), 1, "seed {seed}");
            assert!(!room.is_in(ann, who));
        }
        assert!(room.is_in(ann, fay));
        for who in [ann, dot, eve] {
            let mut texts = room.world.texts(who, room.group);
            texts.sort();
            assert_eq!(texts, ["one", "two"], "seed {seed}");
        }
        room.agrees();
        room.no_alarms();
    }
}

/// REQ-123: the last ones need nobody to carry out their leave.
#[test]
fn everybody_leaves() {
    for seed in 0..8 {
        let mut room = Room::with(seed, &["Ann", "Bob", "Cy"]);
        let (ann, bob) = (room.people[0], room.people[1]);
        room.world.faults.latency_ms = 200;
        room.leave(ann);
        room.leave(bob);
        room.run_ms(MINUTE_MS);
        for who in [ann, bob] {
            assert_eq!(room.status(who), GroupStatusView::Removed, "seed {seed}");
        }
        room.no_alarms();
    }
}

/// REQ-126: who left is added again by a group admin, and by nobody else.
#[test]
fn only_an_admin_brings_a_leaver_back() {
    let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
    let (ann, bob, cy) = (room.people[0], room.people[1], room.people[2]);
    room.leave(bob);
    room.run_ms(10_000);
    let refused = room.add(cy, bob);
    room.world.settle();
    let error = Some(CommandError::HasLeft { users: 1 });
    assert_eq!(room.error(cy, refused), error);
    room.add(ann, bob);
    room.world.settle();
    assert_eq!(room.status(bob), GroupStatusView::Active);
    // Who was removed, and did not leave, is added by any member; and what an admin undid is forgotten.
    let (group, user) = (room.group, room.user(bob));
    room.world
        .command(ann, CommandKind::RemoveMember { group, user });
    room.world.settle();
    room.add(cy, bob);
    room.world.settle();
    assert_eq!(room.status(bob), GroupStatusView::Active);
    room.no_alarms();
}

/// REQ-123, REQ-089: killed between any two storage calls, a device that leaves gets out all the same, and says so once.
#[test]
fn a_crash_at_any_storage_call_does_not_keep_a_leaver() {
    for batch in 0..14 {
        let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
        let bob = room.people[1];
        let other = room.world.add_device(bob, "Bob's other");
        room.run_ms(MINUTE_MS);
        let store = room.world.people[bob.0].engine_mut().store_mut();
        store.plan(batch, DiskFault::Broken);
        let id = room.leave(bob);
        let id = if room.world.people[bob.0].took_last {
            id
        } else {
            room.run_ms(10_000);
            room.leave(bob)
        };
        room.run_ms(2 * MINUTE_MS);
        for device in [bob, other] {
            assert_eq!(room.status(device), GroupStatusView::Removed, "{batch}");
        }
        // An answer may die with the process that was to show it.
        assert!(room.times_appended(bob, id) <= 1, "batch {batch}");
        let ann = room.people[0];
        assert_eq!(room.world.view(ann, room.group).members.len(), 2);
        room.no_alarms();
    }
}

/// REQ-120: admins change the policy, everybody sees it, and others cannot.
#[test]
fn admins_change_the_policy() {
    let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = room.people[..] else {
        panic!("four people")
    };
    let (bob_user, dot_user) = (room.user(bob), room.user(dot));
    let refused = room.change(bob, PolicyChange::Name("Bob's".into()));
    room.world.settle();
    let error = Some(CommandError::NotGroupAdmin);
    assert_eq!(room.error(bob, refused), error);
    let stranger = room.change(ann, PolicyChange::AddAdmin(dot_user));
    let last = room.change(ann, PolicyChange::RemoveAdmin(room.user(ann)));
    let long = room.change(ann, PolicyChange::Name("n".repeat(257)));
    room.world.settle();
    assert_eq!(room.error(ann, stranger), Some(CommandError::NotInGroup));
    assert_eq!(room.error(ann, last), Some(CommandError::LastAdmin));
    assert!(matches!(
        room.error(ann, long),
        Some(CommandError::TooLong { limit: 256, .. })
    ));
    let changes = [
        PolicyChange::Name("Drafts".into()),
        PolicyChange::Topic("What comes next".into()),
        PolicyChange::AddAdmin(bob_user),
        PolicyChange::WhoMayAdd(WhoMayAdd::Admins),
        PolicyChange::Retention(Some(30)),
    ];
    for change in &changes {
        let id = room.change(ann, change.clone());
        room.world.settle();
        assert_eq!(room.times_appended(ann, id), 1);
        for who in [ann, bob, cy] {
            let line = HistoryKind::Changed(vec![change.clone()]);
            assert_eq!(room.lines(who).last(), Some(&line));
        }
    }
    let view = room.world.view(cy, room.group);
    assert_eq!((&*view.name, &*view.topic), ("Drafts", "What comes next"));
    assert_eq!(view.admins.len(), 2);
    assert_eq!(view.retention_days, Some(30));
    assert_eq!(view.who_may_add, WhoMayAdd::Admins);
    // REQ-121: who may add follows the policy.
    let refused = room.add(cy, dot);
    room.world.settle();
    let error = Some(CommandError::NotGroupAdmin);
    assert_eq!(room.error(cy, refused), error);
    room.add(bob, dot);
    room.world.settle();
    assert_eq!(room.status(dot), GroupStatusView::Active);
    assert_eq!(room.world.view(dot, room.group).topic, "What comes next");
    // An admin less.
    room.change(bob, PolicyChange::RemoveAdmin(room.user(ann)));
    room.world.settle();
    assert_eq!(room.world.view(dot, room.group).admins, [bob_user]);
    room.no_alarms();
}

/// REQ-125, REQ-391: whom the order names inherits, and not who has been in the group longest.
#[test]
fn the_order_names_the_heir() {
    let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = room.people[..] else {
        panic!("four people")
    };
    room.group = room.world.group(bob, &[cy, dot]);
    let view = room.world.view(cy, room.group);
    let longest = view.members.iter().find(|leaf| leaf.user != room.user(bob));
    let longest = longest.expect("a member").user;
    let heir = if longest == room.user(cy) { dot } else { cy };
    let (user, successor) = (room.user(bob), room.user(heir));
    room.world
        .command(ann, CommandKind::RemoveUserFor { user, successor });
    room.run_ms(10_000);
    for who in [cy, dot] {
        assert!(!room.is_in(who, bob));
        assert_eq!(room.world.view(who, room.group).admins, [successor]);
    }
    room.no_alarms();
}

/// REQ-125: when the last admin leaves or is removed from the organisation, the longest-standing member follows.
#[test]
fn the_last_admin_has_an_heir() {
    for ordered in [false, true] {
        let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
        let [ann, bob, cy, dot] = room.people[..] else {
            panic!("four people")
        };
        // Bob makes the room's successor, so that it is not the organisation's only owner who has to go.
        room.group = room.world.group(bob, &[cy, dot]);
        if ordered {
            room.world.remove(ann, bob);
        } else {
            room.leave(bob);
        }
        room.run_ms(10_000);
        assert!(!room.is_in(cy, bob));
        let view = room.world.view(cy, room.group);
        let heir = view.members[0].user;
        assert_eq!(view.admins, [heir]);
        let heir = if heir == room.user(cy) { cy } else { dot };
        room.change(heir, PolicyChange::Name("Ours".into()));
        room.world.settle();
        assert_eq!(room.world.view(dot, room.group).name, "Ours");
        room.no_alarms();
    }
}

/// REQ-122: lines are deleted when the group's time for them is over, and not before.
#[test]
fn history_is_kept_as_long_as_the_group_says() {
    let mut room = Room::of(&["Ann", "Bob", "Cy"]);
    let (ann, bob) = (room.people[0], room.people[1]);
    room.world.say(bob, room.group, "one");
    room.world.settle();
    room.change(ann, PolicyChange::Retention(Some(3)));
    room.world.settle();
    room.run_ms(2 * DAY_MS);
    room.world.say(bob, room.group, "two");
    room.world.settle();
    assert_eq!(room.world.texts(ann, room.group), ["one", "two"]);
    room.run_ms(DAY_MS + MINUTE_MS);
    for who in [ann, bob] {
        assert_eq!(room.world.texts(who, room.group), ["two"]);
    }
    // Who was away deletes when it is back.
    room.world.put_to_sleep(bob);
    room.run_ms(3 * DAY_MS);
    assert_eq!(room.world.texts(bob, room.group), ["two"]);
    room.world.wake(bob);
    room.world.settle();
    assert!(room.world.texts(bob, room.group).is_empty());
    assert!(room.world.texts(ann, room.group).is_empty());
}

/// REQ-127: a further device comes into all of its user's groups by itself, as soon as one of the user's is online.
#[test]
fn a_second_device_comes_into_all_groups() {
    for first_sleeps in [false, true] {
        let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
        let (ann, bob) = (room.people[0], room.people[1]);
        room.change(ann, PolicyChange::WhoMayAdd(WhoMayAdd::Admins));
        let more: Vec<_> = (0..3).map(|_| room.world.group(ann, &[bob])).collect();
        let link = room.device_link(bob);
        if first_sleeps {
            room.world.put_to_sleep(bob);
        }
        let other = room.world.start_join("Bob's other", &link);
        room.run_ms(MINUTE_MS);
        let groups = |room: &mut Room| {
            let engine = room.world.people[other.0].engine_mut();
            engine.groups().expect("groups").len()
        };
        if first_sleeps {
            assert_eq!(groups(&mut room), 0, "only Bob's own devices do it");
            room.world.wake(bob);
            room.run_ms(MINUTE_MS);
        }
        assert_eq!(groups(&mut room), 1 + more.len());
        for group in more.iter().chain([&room.group]) {
            let devices = room.world.view(ann, *group).members;
            let own = devices.iter().filter(|m| m.user == room.user(bob));
            assert_eq!(own.count(), 2);
        }
        room.world.say(other, room.group, "from my other device");
        room.world.settle();
        assert_eq!(room.world.texts(ann, room.group), ["from my other device"]);
        room.no_alarms();
    }
}

/// REQ-127: a device without KeyPackages is asked for again, a restart forgets nothing, and one device comes in once.
#[test]
fn a_device_that_publishes_late_is_added_late() {
    for restarts in [false, true] {
        let mut room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
        let (ann, bob) = (room.people[0], room.people[1]);
        let second = room.world.add_device(bob, "Bob's second");
        room.run_ms(MINUTE_MS);
        let link = room.device_link(bob);
        let third = room.world.start_join("Bob's third", &link);
        // It is switched off as soon as it is admitted, and has nothing to be added with.
        while !room.world.people[third.0].is_in() {
            assert!(room.world.advance(u64::MAX));
        }
        room.world.put_to_sleep(third);
        room.run_ms(MINUTE_MS);
        assert!(room.world.is_quiet(), "nobody waits for it");
        assert_eq!(room.world.view(ann, room.group).members.len(), 4);
        if restarts {
            room.world.restart_person(bob);
            room.world.restart_person(second);
        }
        room.world.wake(third);
        room.run_ms(5 * MINUTE_MS);
        assert_eq!(room.world.view(ann, room.group).members.len(), 5);
        assert_eq!(room.status(third), GroupStatusView::Active);
        room.agrees();
        room.no_alarms();
    }
}

/// REQ-128: more users than one commit takes come in by several, and a restart in between loses none.
#[test]
fn three_hundred_come_in_by_two_commits() {
    let (mut world, people) = World::with_people(3, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let (ann, bob) = (people[0], people[1]);
    let crowd = world.crowd(ann, 300, SUITE_CLASSICAL);
    let group = world.group(ann, &[bob]);
    let users = crowd.clone();
    let id = world.command(ann, CommandKind::AddMembers { group, users });
    let before = commits(&world, group);
    while commits(&world, group) == before {
        assert!(world.advance(u64::MAX), "the first batch is sent");
    }
    assert!(world.view(ann, group).members.len() < 302);
    world.restart_person(ann);
    let until = world.now_ms + MINUTE_MS;
    world.run_until(until);
    let lines = world.people[bob.0]
        .engine()
        .messages(group, LogSeq(0), usize::MAX);
    let added = lines
        .expect("a history")
        .into_iter()
        .filter_map(|line| match line.kind {
            HistoryKind::Added(users) => Some(users.len()),
            _ => None,
        });
    assert_eq!(added.collect::<Vec<_>>(), [250, 50]);
    let view = world.view(ann, group);
    assert_eq!(view.members.len(), 302);
    let done = |e: &Event| matches!(e, Event::Done { id: i } if *i == id);
    assert!(world.people[ann.0].events.iter().any(done));
    world.say(bob, group, "how many we are");
    world.settle();
    assert_eq!(world.texts(ann, group), ["how many we are"]);
    assert_eq!(world.alarms(ann).next(), None);
}

/// REQ-130: after a big add, one device of each span of eight leaves commits once, and then it is over.
#[test]
fn a_big_group_is_warmed() {
    let names = ["Ann", "Bob", "Cy", "Dot", "Eve"];
    let (mut world, people) = World::with_people(4, SUITE_CLASSICAL, &names);
    let ann = people[0];
    let mut users = world.crowd(ann, 43, SUITE_CLASSICAL);
    let group = world.group(ann, &[]);
    users.extend(people.iter().map(|p| world.people[p.0].user()));
    world.command(ann, CommandKind::AddMembers { group, users });
    world.settle();
    let began = commits(&world, group);
    let view = world.view(ann, group);
    assert_eq!(view.members.len(), 48);
    let spans: std::collections::BTreeSet<_> = people
        .iter()
        .map(|p| {
            let device = world.people[p.0].device();
            let mut leaves = view.members.iter();
            leaves.position(|m| m.device == device).expect("a leaf") / 8
        })
        .collect();
    let mut times = Vec::new();
    let until = world.now_ms + 10 * MINUTE_MS;
    let mut seen = began;
    while world.advance(until) {
        let now = commits(&world, group);
        if now > seen {
            times.push(world.now_ms);
            seen = now;
        }
    }
    assert_eq!(
        seen - began,
        spans.len(),
        "one for each span that is online"
    );
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= 2_000, "{times:?}");
    }
    for who in &people {
        assert_eq!(world.alarms(*who).next(), None);
        assert_eq!(
            world.view(*who, group).epoch_authenticator,
            world.view(ann, group).epoch_authenticator
        );
    }
}

/// REQ-130: a small group, or one that grows by few, is not warmed.
#[test]
fn a_small_add_warms_nothing() {
    let (mut world, people) = World::with_people(5, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let ann = people[0];
    let crowd = world.crowd(ann, 12, SUITE_CLASSICAL);
    let group = world.group(ann, &people[1..]);
    let users = crowd;
    world.command(ann, CommandKind::AddMembers { group, users });
    world.settle();
    let before = commits(&world, group);
    let until = world.now_ms + 10 * MINUTE_MS;
    world.run_until(until);
    assert_eq!(commits(&world, group), before);
}

fn commits(world: &World, group: GroupId) -> usize {
    let log = world.log(group);
    let commits = log
        .iter()
        .filter(|r| r.payload.as_slice().first() == Some(&2));
    commits.count()
}

/// A member whose engine is not honest: it makes what it likes from its own true state.
struct Villain {
    room: Room,
    who: PersonId,
}

impl Villain {
    /// Everybody but the villain is cut off from the relay.
    fn new(mut room: Room, who: PersonId) -> Self {
        for i in 0..room.people.len() {
            let other = room.people[i];
            if other != who {
                room.world.people[other.0].cut_until_ms = u64::MAX;
                room.world.disconnect(other);
            }
        }
        Self { room, who }
    }

    /// The authenticated data of a message that would be the next in the log.
    fn aad(&mut self) -> (Vec<u8>, LogRecord) {
        let (group, log) = (self.room.group, self.room.world.log(self.room.group));
        let is_commit = |r: &&LogRecord| r.payload.as_slice().first() == Some(&2);
        let opening = log.iter().rfind(is_commit).expect("a commit");
        let cursor = log_cursor(group, &log);
        let head = self.room.world.people[self.who.0].engine().roster().head();
        let aad = AuthenticatedData::new(head.seq, head.hash, cursor).to_bytes();
        let last = log.last().expect("a record");
        let next = LogRecord {
            seq: last.seq.next(),
            epoch: Epoch(opening.epoch.0 + 1),
            ..last.clone()
        };
        (aad, next)
    }

    /// Lets the villain make something of its group; nothing of that is stored.
    fn makes<T>(
        &mut self,
        make: impl FnOnce(&mut Group, &MlsProvider<'_, '_>, &Me<'_>, Vec<u8>) -> T,
    ) -> (T, LogRecord) {
        let key = self.room.world.signature_key(self.who);
        let (aad, next) = self.aad();
        let person = &mut self.room.world.people[self.who.0];
        let (org, user, device) = (person.engine().org(), person.user(), person.device());
        let store = person.engine_mut().store_mut().snapshot();
        let (crypto, tx) = (Crypto::default(), Tx::new(&store));
        let provider = MlsProvider::new(&crypto, &tx);
        let mut group = Group::load(&provider, self.room.group)
            .expect("a state that loads")
            .expect("a group");
        let me = Me {
            org,
            user,
            device,
            key: &key,
        };
        (make(&mut group, &provider, &me, aad), next)
    }

    fn commit(&mut self, change: impl FnOnce(&mut GroupPolicy)) -> LogRecord {
        let key = self.room.world.signature_key(self.who);
        let group_id = self.room.group;
        let mut access = None;
        let (commit, next) = self.makes(|group, provider, me, aad| {
            let mut policy = group.policy().clone();
            change(&mut policy);
            let changes = Changes {
                policy: Some(policy),
                ..Changes::default()
            };
            let out = group.commit(provider, me, aad, changes).expect("a commit");
            access = Some(out.next_access_key);
            out.commit
        });
        let access = access.expect("an access key");
        let entry = CommitEntry::sign(group_id, next.epoch, commit, access, &key);
        LogRecord {
            payload: encode(&RecordBody::Commit(entry)).into(),
            ..next
        }
    }

    /// Two leaves of one epoch, each encrypted with a key of its own.
    fn leaves_twice(&mut self) -> [LogRecord; 2] {
        let (messages, next) = self.makes(|group, provider, me, aad| {
            let first = group.propose_leave(provider, me, aad.clone());
            group.drop_own_leave(provider).expect("a leave to drop");
            let second = group.propose_leave(provider, me, aad);
            [first.expect("a leave"), second.expect("another leave")]
        });
        let [first, second] = messages.map(|message| LogRecord {
            payload: encode(&RecordBody::Message(message.into())).into(),
            ..next.clone()
        });
        let seq = first.seq.next();
        [first, LogRecord { seq, ..second }]
    }

    /// Hands records to somebody as the relay would, and returns what was found wrong with them.
    fn shows(&mut self, to: PersonId, records: Vec<LogRecord>) -> Vec<Violation> {
        self.shows_at_once(to, vec![records])
    }

    /// The same in several frames, which share a step.
    fn shows_at_once(&mut self, to: PersonId, frames: Vec<Vec<LogRecord>>) -> Vec<Violation> {
        let group = self.room.group;
        let now = self.room.world.now_ms;
        let engine = self.room.world.people[to.0].engine_mut();
        let line = Input::Connected(ConnectionBinding([1; 32]));
        engine.handle(now, line).expect("a step");
        let frames = frames.into_iter().map(|records| {
            let push = Push::Records { group, records };
            Input::Frame(RelayToClient::Push(push))
        });
        let outputs = engine.handle_all(now, frames).expect("a step");
        let violations = outputs.iter().filter_map(|output| match output {
            Output::Event(Event::Alarm(mortise_protocol::engine::Alarm::Refused {
                violation,
                ..
            })) => Some(*violation),
            _ => None,
        });
        violations.collect()
    }
}

/// REQ-120, REQ-082: a member who is no admin renames the group in vain; an admin's own commit of the kind passes.
#[test]
fn a_policy_by_somebody_else_is_refused() {
    for (villain, expected) in [(1, vec![Violation::PolicyNotAllowed]), (0, vec![])] {
        let room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
        let (who, cy) = (room.people[villain], room.people[2]);
        let mut villain = Villain::new(room, who);
        let record = villain.commit(|policy| policy.name = "Mine".into());
        assert_eq!(villain.shows(cy, vec![record]), expected);
        let status = villain.room.status(cy);
        assert_eq!(
            matches!(status, GroupStatusView::Stopped(_)),
            !expected.is_empty()
        );
    }
}

/// REQ-125: an admin cannot leave a group without one, nor write down that somebody has left who has not.
#[test]
fn a_policy_that_does_not_fit_is_refused() {
    for (i, change) in [
        |policy: &mut GroupPolicy| policy.admins.clear(),
        |policy: &mut GroupPolicy| policy.left.extend([UserId([1; 16])]),
        |policy: &mut GroupPolicy| policy.admins.push(UserId([1; 16])),
    ]
    .into_iter()
    .enumerate()
    {
        let room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
        let (ann, cy) = (room.people[0], room.people[2]);
        let mut villain = Villain::new(room, ann);
        let record = villain.commit(change);
        let found = villain.shows(cy, vec![record]);
        assert_eq!(found, [Violation::PolicyUnfit], "change {i}");
    }
}

/// REQ-123: a device asks to leave once in an epoch; the second time is refused by name, and the first one counts.
#[test]
fn a_second_leave_in_one_epoch_is_refused() {
    let room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
    let (bob, cy) = (room.people[1], room.people[2]);
    let mut villain = Villain::new(room, bob);
    let [first, second] = villain.leaves_twice();
    assert_ne!(first.payload, second.payload);
    let found = villain.shows(cy, vec![first, second]);
    assert_eq!(found, [Violation::LeaveTwice]);
}

/// REQ-090: frames that share a transaction are judged one by one, and written together; what one is refused for does not
/// undo the one before.
#[test]
fn frames_of_one_step_are_judged_one_by_one() {
    let room = Room::of(&["Ann", "Bob", "Cy", "Dot"]);
    let (bob, cy) = (room.people[1], room.people[2]);
    let mut villain = Villain::new(room, bob);
    let [first, second] = villain.leaves_twice();
    let again = first.clone();
    let disk = villain.room.world.people[cy.0].engine_mut().store_mut();
    let batches = disk.batches();
    let found = villain.shows_at_once(cy, vec![vec![first], vec![second], vec![again]]);
    assert_eq!(found, [Violation::LeaveTwice]);
    let disk = villain.room.world.people[cy.0].engine_mut().store_mut();
    assert_eq!(disk.batches(), batches + 1);
}

/// REQ-082, REQ-121: a guest adds nobody.
#[test]
fn a_guest_adds_nobody() {
    let (mut world, people) = World::with_people(6, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let ann = people[0];
    let guest = world.invite(ann, "Gus", Role::Guest);
    let group = world.group(ann, &[guest]);
    let users = vec![world.people[people[1].0].user()];
    let id = world.command(guest, CommandKind::AddMembers { group, users });
    world.settle();
    let refused = |e: &Event| matches!(e, Event::Failed { id: i, error: CommandError::NotGroupAdmin } if *i == id);
    assert!(world.people[guest.0].events.iter().any(refused));
    for who in [ann, guest] {
        assert_eq!(world.alarms(who).next(), None);
    }
}
