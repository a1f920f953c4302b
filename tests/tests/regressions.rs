//! What the simulation has found once, each as a story of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mortise_protocol::engine::{
    CommandError, CommandKind, Event, GroupStatusView, Input, Output, PinChoice,
};
use mortise_protocol::group::SUITE_CLASSICAL;
use mortise_protocol::identity::{GroupId, RosterSeq, SigningKey};
use mortise_protocol::roster::Role;
use mortise_protocol::wire::{
    ClientToRelay, GroupState, Push, Refusal, RelayToClient, Request, RequestId, Response,
    RosterHead,
};
use mortise_tests::villain::{Line, Plan, Villain};
use mortise_tests::world::{Liar, PersonId, World};

fn no_alarms(world: &World) {
    for i in 0..world.people.len() {
        assert_eq!(world.alarms(PersonId(i)).next(), None);
    }
}

/// An intent that is done left its group waiting for ever.
#[test]
fn who_has_made_a_group_is_synced() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let began = world.now_ms;
    world.group(people[0], &people[1..]);
    assert!(world.is_quiet());
    assert!(world.now_ms < began + 5_000);
}

/// A Welcome for a group whose removal commit was not read yet was refused, and the member was out for good.
#[test]
fn removed_and_added_again_while_away() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = people[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob, cy]);
    for round in 0..2 {
        world.put_to_sleep(cy);
        let user = world.people[cy.0].user();
        for _ in 0..=round {
            world.command(ann, CommandKind::RemoveMember { group, user });
            world.settle();
            let users = vec![user];
            world.command(ann, CommandKind::AddMembers { group, users });
            world.settle();
        }
        let text = format!("welcome back {round}");
        world.say(bob, group, &text);
        world.settle();
        world.wake(cy);
        world.settle();
        no_alarms(&world);
        assert_eq!(world.view(cy, group).status, GroupStatusView::Active);
        assert_eq!(world.view(cy, group).epoch, world.view(ann, group).epoch);
        assert_eq!(world.texts(cy, group).last(), Some(&text));
    }
}

/// Somebody who was away when their addition was undone added the member again, with the same KeyPackage.
#[test]
fn an_addition_that_was_undone_is_not_done_again() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = people[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob]);
    let user = world.people[cy.0].user();
    let users = vec![user];
    let before = world.log(group).len();
    let id = world.command(bob, CommandKind::AddMembers { group, users });
    let limit = world.now_ms + 5_000;
    while world.log(group).len() == before {
        assert!(world.advance(limit), "the commit arrives");
    }
    // Bob's commit is in the log, and he has not heard of it.
    world.put_to_sleep(bob);
    world.settle();
    assert_eq!(world.view(cy, group).status, GroupStatusView::Active);
    world.command(ann, CommandKind::RemoveMember { group, user });
    world.settle();
    world.wake(bob);
    world.settle();
    no_alarms(&world);
    assert_eq!(world.view(cy, group).status, GroupStatusView::Removed);
    assert_eq!(world.view(bob, group).members.len(), 2);
    let told = &world.people[bob.0].events;
    assert!(told.contains(&Event::Done { id }));
}

/// The entry that an engine sends, and in which question.
fn sent_entry(outputs: &[Output]) -> Option<(RequestId, Vec<u8>)> {
    outputs.iter().find_map(|output| match output {
        Output::Send(ClientToRelay {
            id,
            request: Request::AppendRoster { entry, .. },
        }) => Some((*id, entry.as_slice().to_vec())),
        _ => None,
    })
}

/// The refusal of an entry came when the next one had been signed already: that one was signed a second time, the
/// relay's answer to the first was taken for the second's, and a relay that was honest stood accused.
#[test]
fn a_late_refusal_of_a_roster_entry() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let (ann, bob) = (people[0], people[1]);
    let now = world.now_ms;
    world.people[bob.0].deaf_until_ms = u64::MAX;
    let engine = world.people[bob.0].engine_mut();
    let id = engine.next_intent();
    let expires_at_ms = now + 86_400_000;
    let kind = CommandKind::InviteDevice {
        expires_at_ms,
        pin: PinChoice::Policy,
    };
    let command = Input::Command(mortise_protocol::engine::Command { id, kind });
    let outputs = engine.handle(now, command).expect("a step");
    let (first, _) = sent_entry(&outputs).expect("an entry");
    let user = world.people[bob.0].user();
    let role = Role::Supervisor;
    world.command(ann, CommandKind::SetRole { user, role });
    world.run_until(now + 100);
    let roster = world.people[ann.0].engine();
    let entries = roster.roster_entries().expect("entries");
    let head = roster.roster().head();
    let entry = entries.last().expect("an entry").clone().into();
    let positions = Vec::new();
    let push = RelayToClient::Push(Push::RosterEntry { entry, positions });
    let engine = world.people[bob.0].engine_mut();
    let outputs = engine.handle(now + 1, Input::Frame(push)).expect("a step");
    let (second, bytes) = sent_entry(&outputs).expect("signed again");
    let late = RelayToClient::Response {
        id: first,
        response: Response::Refused(Refusal::RosterConflict { head }),
    };
    let outputs = engine.handle(now + 2, Input::Frame(late)).expect("a step");
    assert!(sent_entry(&outputs).is_none(), "signed a third time");
    let entry = mortise_protocol::roster::SignedEntry::parse(&bytes).expect("an entry");
    let RosterHead { seq, hash } = entry.head();
    let answer = RelayToClient::Response {
        id: second,
        response: Response::RosterAppended {
            head: RosterHead { seq, hash },
        },
    };
    let outputs = engine
        .handle(now + 3, Input::Frame(answer))
        .expect("a step");
    let events = outputs.iter().filter_map(|output| match output {
        Output::Event(event) => Some(event),
        _ => None,
    });
    let events: Vec<_> = events.collect();
    assert!(events.iter().any(|e| matches!(e, Event::Invited { .. })));
    assert!(!events.iter().any(|e| matches!(e, Event::Alarm(_))));
}

/// Keeps every roster entry from one member.
struct HidesRoster(PersonId);

impl Liar for HidesRoster {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        let roster = matches!(
            frame,
            RelayToClient::Push(Push::RosterEntry { .. })
                | RelayToClient::Response {
                    response: Response::Roster { .. },
                    ..
                }
        );
        to != self.0 || !roster
    }
}

/// A record that needed a roster which did not come was asked for again and again, as fast as the line allows.
#[test]
fn a_hidden_roster_causes_no_storm() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let group = world.group(people[0], &people[1..]);
    world.liar = Some(Box::new(HidesRoster(people[2])));
    let user = world.people[people[1].0].user();
    let role = Role::Supervisor;
    world.command(people[0], CommandKind::SetRole { user, role });
    let until = world.now_ms + 100;
    world.run_until(until);
    world.say(people[0], group, "based on the new roster");
    let before = world.counts["subscribes"];
    let until = world.now_ms + 5_000;
    world.run_until(until);
    assert!(world.counts["subscribes"] - before < 10);
    world.liar = None;
    world.settle();
    assert_eq!(world.texts(people[2], group).len(), 1);
    no_alarms(&world);
}

/// A read that failed inside openmls was taken for a fault of whoever had sent the record, or for a defect.
#[test]
fn a_failed_read_is_nobodys_fault() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = people[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob]);
    let mut failed = Vec::new();
    for call in 0..50 {
        let disk = world.people[bob.0].engine_mut().store_mut();
        disk.plan_call(call, false);
        world.say(ann, group, &format!("while read {call} fails"));
        let user = world.people[cy.0].user();
        let kind = match call % 2 {
            0 => CommandKind::AddMembers {
                group,
                users: vec![user],
            },
            _ => CommandKind::RemoveMember { group, user },
        };
        world.command(ann, kind);
        world.settle();
        failed.append(&mut world.people[bob.0].failed_calls);
        assert_eq!(world.people[bob.0].broken, None, "call {call}");
        assert_eq!(world.view(bob, group).status, GroupStatusView::Active);
    }
    assert!(failed.len() > 40, "{failed:?}");
    no_alarms(&world);
    assert_eq!(world.texts(bob, group), world.texts(ann, group));
    assert_eq!(world.view(bob, group).epoch, world.view(ann, group).epoch);
}

/// A slot that was to be looked for was due while the relay did not answer: the device was woken without end.
#[test]
fn what_is_due_without_a_relay_causes_no_storm() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let expires_at_ms = world.now_ms + 86_400_000;
    world.command(
        people[1],
        CommandKind::InviteDevice {
            expires_at_ms,
            pin: PinChoice::Policy,
        },
    );
    world.settle();
    let link = world.people[people[1].0]
        .events
        .iter()
        .find_map(|e| match e {
            Event::Invited { link, .. } => {
                Some(link.to_text("relay.test:1", mortise_protocol::identity::Hash([0; 32])))
            }
            _ => None,
        });
    let joiner = world.start_join("Bob's other", &link.expect("a link"));
    while !world.people[joiner.0].is_in() {
        assert!(world.advance(u64::MAX), "it joins");
    }
    let until = world.now_ms + 20;
    world.run_until(until);
    world.disconnect(people[0]);
    world.people[people[0].0].deaf_until_ms = u64::MAX;
    let (until, mut moves) = (world.now_ms + 30_000, 0);
    while world.advance(until) && moves < 5_000 {
        moves += 1;
    }
    assert!(moves < 1_000, "{moves} moves");
}

/// How the relay says that a group stands with regard to an order, if it has a row for it.
fn state_of(
    world: &mut World,
    owner: PersonId,
    order: RosterSeq,
    group: GroupId,
) -> Option<GroupState> {
    let id = world.command(owner, CommandKind::OrderStatus { order });
    world.settle();
    let events = world.people[owner.0].events.iter();
    let rows = events.filter_map(|event| match event {
        Event::OrderStatus { id: i, groups, .. } if *i == id => Some(groups),
        _ => None,
    });
    let rows: Vec<_> = rows.flatten().collect();
    let row = rows.iter().find(|row| row.group == group);
    row.map(|row| row.state)
}

/// Swallows the first record of a kind that somebody sends.
struct Holds {
    of: PersonId,
    /// The first byte of what is held.
    kind: u8,
    done: bool,
}

impl Holds {
    const COMMIT: u8 = 2;
    const RESTART: u8 = 5;

    fn first(of: PersonId, kind: u8) -> Option<Box<dyn Liar>> {
        let done = false;
        Some(Box::new(Self { of, kind, done }))
    }
}

impl Liar for Holds {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        let Request::Submit(submission) = &frame.request else {
            return true;
        };
        let is_it = submission.payload.as_slice().first() == Some(&self.kind);
        let holds = from == self.of && is_it && !self.done;
        self.done |= holds;
        !holds
    }
}

/// REQ-162: whoever had been in the group when an order was given added the others and was gone before it had said how the
/// group stood: the others owed nothing, and the group was sealed for ever. (`./x sim --seed 1804`)
#[test]
fn who_adds_others_has_said_how_the_group_stands() {
    for seed in 1..=4 {
        let names = ["Ann", "Bob", "Cy", "Dot", "Eve", "Fay", "Gus"];
        let (mut world, people) = World::with_people(seed, SUITE_CLASSICAL, &names);
        let (ann, bob, cy) = (people[0], people[1], people[2]);
        let group = world.group(bob, &[]);
        // Bob's commit is not taken before the order is there, and is made again as soon as he has heard of it.
        world.liar = Holds::first(bob, Holds::COMMIT);
        let users = people[2..6].iter().map(|p| world.people[p.0].user());
        let users = users.collect();
        world.command(bob, CommandKind::AddMembers { group, users });
        let until = world.now_ms + 1_000;
        world.run_until(until);
        world.put_to_sleep(bob);
        let order = world.remove(ann, people[6]);
        world.wake(bob);
        let limit = world.now_ms + 5_000;
        let joined = Event::Joined { group };
        while !world.people[cy.0].events.contains(&joined) {
            assert!(world.advance(limit), "they are added");
        }
        world.remove(ann, bob);
        assert_eq!(world.view(cy, group).status, GroupStatusView::Active);
        let state = state_of(&mut world, ann, order, group);
        assert_eq!(state, Some(GroupState::Clean), "seed {seed}");
        no_alarms(&world);
    }
}

/// A member wanted the conversation to go on elsewhere, lost the group before it came to that, came back as somebody who may
/// not, and did it all the same: everybody else raised an alarm. (`./x sim --seed 1993`)
#[test]
fn a_wish_for_a_successor_ends_with_the_membership() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = people[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob, cy]);
    let user = world.people[bob.0].user();
    let change = mortise_protocol::engine::PolicyChange::AddAdmin(user);
    world.command(ann, CommandKind::ChangeGroup { group, change });
    world.settle();
    world.put_to_sleep(bob);
    let id = world.command(bob, CommandKind::RestartGroup { group });
    world.command(ann, CommandKind::RemoveMember { group, user });
    world.settle();
    let users = vec![user];
    world.command(ann, CommandKind::AddMembers { group, users });
    world.settle();
    world.wake(bob);
    world.settle();
    let told = &world.people[bob.0].events;
    let error = CommandError::NotAMember;
    assert!(told.contains(&Event::Failed { id, error }), "{told:?}");
    for who in people {
        assert_eq!(world.view(who, group).status, GroupStatusView::Active);
    }
    no_alarms(&world);
}

/// REQ-161: a successor was made, and before the log named it somebody was removed: they saw it for ever as a group in which
/// nobody else was.
#[test]
fn a_successor_that_lost_is_nobodys_group() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = people[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob, cy]);
    let user = world.people[bob.0].user();
    let change = mortise_protocol::engine::PolicyChange::AddAdmin(user);
    world.command(ann, CommandKind::ChangeGroup { group, change });
    world.settle();
    world.liar = Holds::first(bob, Holds::RESTART);
    world.command(bob, CommandKind::RestartGroup { group });
    let until = world.now_ms + 2_000;
    world.run_until(until);
    let user = world.people[cy.0].user();
    world.command(ann, CommandKind::RemoveMember { group, user });
    world.settle();
    world.settle();
    let shown = |world: &mut World, who: PersonId| {
        let groups = world.people[who.0].engine_mut().groups().expect("groups");
        let open = groups
            .iter()
            .filter(|g| g.status == GroupStatusView::Active);
        open.map(|g| g.id).collect::<Vec<_>>()
    };
    assert_eq!(shown(&mut world, cy), []);
    let theirs = shown(&mut world, ann);
    assert_eq!(theirs.len(), 1);
    assert_ne!(theirs, [group], "it went on elsewhere in the end");
    assert_eq!(shown(&mut world, bob), theirs);
    let order = world.remove(ann, cy);
    let lost = world.people[cy.0].engine_mut().groups().expect("groups");
    let lost: Vec<_> = lost
        .iter()
        .filter(|g| g.predecessor == Some(group))
        .collect();
    assert_eq!(lost.len(), 1, "Cy was shown it");
    let lost = lost[0].id;
    assert_eq!(
        state_of(&mut world, ann, order, lost),
        None,
        "no row for ever"
    );
    no_alarms(&world);
}

/// REQ-156: who asked to be let in anew and asked once more had the answer to the first question for a lie.
/// (`./x sim --seed 59`)
#[test]
fn to_ask_twice_is_to_ask_once() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let (ann, cy) = (people[0], people[2]);
    let group = world.group(ann, &people[1..]);
    for gap_ms in 0..30 {
        let first = world.command(cy, CommandKind::ResyncGroup { group });
        let until = world.now_ms + gap_ms;
        world.run_until(until);
        let second = world.command(cy, CommandKind::ResyncGroup { group });
        world.settle();
        no_alarms(&world);
        for id in [first, second] {
            // Between the commit that lets it in anew and the Welcome it is no member.
            let late = Event::Failed {
                id,
                error: CommandError::NotAMember,
            };
            let answers = world.people[cy.0].events.iter();
            let answers = answers.filter(|e| **e == Event::Done { id } || **e == late);
            assert_eq!(answers.count(), 1, "{gap_ms} ms");
        }
        assert_eq!(world.view(cy, group).status, GroupStatusView::Active);
        assert_eq!(world.view(cy, group).epoch, world.view(ann, group).epoch);
    }
}

/// REQ-152, REQ-156: the only one who might continue a broken group had asked to be let in anew, and waited for an answer
/// that nobody could give. (`./x sim --seed 10`)
#[test]
fn who_asks_to_be_let_in_anew_mends_the_group() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = people[..] else {
        panic!("three people")
    };
    let group = world.group(ann, &[bob, cy]);
    world.put_to_sleep(ann);
    let asked = world.command(ann, CommandKind::ResyncGroup { group });
    let mut villain = Villain::take_over(&mut world, cy, group);
    let plan = Plan {
        access_key: Some(SigningKey::from_seed(&[3; 32]).public()),
        ..Plan::default()
    };
    let made = villain.commit(&world, plan);
    let line = Line::open(&mut world, &villain);
    line.submit(&mut world, &villain, &made)
        .expect("the relay cannot know");
    world.wake(ann);
    world.settle();
    let successor = world.view(ann, group).successor.expect("it goes on");
    assert_eq!(world.view(bob, group).successor, Some(successor));
    assert_eq!(world.view(bob, successor).members.len(), 2);
    let told = &world.people[ann.0].events;
    assert!(told.contains(&Event::Done { id: asked }));
}

/// Passes on to one member alone that a device asks to be let in anew.
struct TellsOne(PersonId);

impl Liar for TellsOne {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        let is_question = matches!(frame, RelayToClient::Push(Push::ResyncAsked { .. }));
        to == self.0 || !is_question
    }
}

/// A member had left the answer to others; meanwhile the device was removed and added again, and was then let in anew
/// all the same. (`./x sim --seed 858`)
#[test]
fn a_question_ends_with_the_membership() {
    for seed in 1..=5 {
        let names = ["Ann", "Bob", "Cy", "Dot", "Eve", "Fay"];
        let (mut world, people) = World::with_people(seed, SUITE_CLASSICAL, &names);
        let (ann, bob, cy) = (people[0], people[1], people[2]);
        let group = world.group(ann, &people[1..]);
        world.liar = Some(Box::new(TellsOne(bob)));
        world.command(cy, CommandKind::ResyncGroup { group });
        let user = world.people[cy.0].user();
        world.command(ann, CommandKind::RemoveMember { group, user });
        let users = vec![user];
        world.command(ann, CommandKind::AddMembers { group, users });
        world.settle();
        let length = world.log(group).len();
        let until = world.now_ms + 10_000;
        world.run_until(until);
        assert_eq!(world.log(group).len(), length, "seed {seed}");
        assert_eq!(world.view(cy, group).status, GroupStatusView::Active);
        no_alarms(&world);
    }
}

/// Holds an empty inbox back until there is something in it.
struct HoldsInbox {
    of: PersonId,
    held: Option<RelayToClient>,
    comes: bool,
}

impl Liar for HoldsInbox {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        match frame {
            RelayToClient::Response {
                response: Response::Inbox { items, .. },
                ..
            } if to == self.of && items.is_empty() && !self.comes => {
                self.held = Some(frame.clone());
                false
            }
            RelayToClient::Push(Push::InboxWaiting) if to == self.of && self.held.is_some() => {
                self.comes = true;
                true
            }
            _ => true,
        }
    }

    fn afterwards(&mut self) -> Vec<RelayToClient> {
        let comes = self.comes;
        self.held.take_if(|_| comes).into_iter().collect()
    }
}

/// REQ-430: a Welcome came while the answer to the question before it was on its way: the device took that for the newest word, and
/// did not join before its next connection. (`./x sim --seed 824`)
#[test]
fn a_welcome_that_overtakes_an_answer_is_fetched() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let (ann, bob) = (people[0], people[1]);
    world.liar = Some(Box::new(HoldsInbox {
        of: bob,
        held: None,
        comes: false,
    }));
    let members = vec![world.people[bob.0].user()];
    for name in ["one", "two"] {
        let (name, members) = (name.to_owned(), members.clone());
        world.command(ann, CommandKind::CreateGroup { name, members });
        let until = world.now_ms + 1_000;
        world.run_until(until);
    }
    let groups = world.people[bob.0].engine_mut().groups().expect("groups");
    assert_eq!(groups.len(), 2);
}

/// A relay that fails at whatever only reads, but for Hello.
#[derive(Default)]
struct FailsToRead {
    asked: BTreeSet<(PersonId, RequestId)>,
    count: Arc<AtomicUsize>,
}

impl Liar for FailsToRead {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        let reads = matches!(
            frame.request,
            Request::FetchRoster { .. }
                | Request::FetchInbox { .. }
                | Request::FetchSlots
                | Request::FetchSlotless
                | Request::FetchCheckpoints
        );
        if reads {
            self.asked.insert((from, frame.id));
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Response { id, response } = frame
            && self.asked.remove(&(to, *id))
        {
            *response = Response::Refused(Refusal::Storage);
        }
        true
    }
}

/// REQ-430: what a relay could not read at once is asked for again on the same connection, and not as fast as the line
/// allows.
#[test]
fn a_relay_that_cannot_read_is_asked_again_in_peace() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let (ann, bob) = (people[0], people[1]);
    world.put_to_sleep(bob);
    let group = world.group(ann, &[bob]);
    let user = world.people[bob.0].user();
    let role = Role::Supervisor;
    world.command(ann, CommandKind::SetRole { user, role });
    world.say(ann, group, "hello");
    world.settle();
    world.put_to_sleep(ann);
    // What Ann has stated is old when she comes back.
    let until = world.now_ms + 900_000;
    world.run_until(until);
    let liar = FailsToRead::default();
    let count = Arc::clone(&liar.count);
    world.liar = Some(Box::new(liar));
    world.wake(ann);
    world.wake(bob);
    let until = world.now_ms + 20_000;
    world.run_until(until);
    let asked = count.load(Ordering::Relaxed);
    assert!((10..100).contains(&asked), "{asked} questions in 20 s");
    let connections = world.counts["connections"];
    world.liar = None;
    let until = world.now_ms + 5_000;
    world.run_until(until);
    assert_eq!(
        world.counts["connections"], connections,
        "on the same lines"
    );
    assert_eq!(world.texts(bob, group), ["hello"]);
    let age = world.people[ann.0].engine().checkpoint_age_ms(world.now_ms);
    assert!(age.is_some_and(|age| age < 30_000), "{age:?}");
    no_alarms(&world);
}

/// REQ-065, REQ-173: nobody can attest in a group that was closed, and every later order showed it as sealed for ever.
#[test]
fn a_closed_group_is_not_sealed() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = people[..] else {
        panic!("four people")
    };
    let group = world.group(bob, &[cy]);
    let first = world.remove(ann, dot);
    assert_eq!(
        state_of(&mut world, ann, first, group),
        Some(GroupState::Clean)
    );
    world.command(ann, CommandKind::CloseGroup { group });
    world.settle();
    let second = world.remove(ann, cy);
    assert_eq!(state_of(&mut world, ann, second, group), None);
    // What was attested before stays.
    assert_eq!(
        state_of(&mut world, ann, first, group),
        Some(GroupState::Clean)
    );
    no_alarms(&world);
}

/// A device that had been removed and added again while it was away asked to be let in anew before it read so; it was
/// taken out a second time. (`./x sim --seed 1879`)
#[test]
fn who_has_a_welcome_waiting_does_not_ask() {
    let (mut world, people) = World::with_people(1, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let (ann, bob, cy) = (people[0], people[1], people[2]);
    let group = world.group(ann, &[bob, cy]);
    world.put_to_sleep(cy);
    let id = world.command(cy, CommandKind::ResyncGroup { group });
    let user = world.people[cy.0].user();
    world.command(ann, CommandKind::RemoveMember { group, user });
    world.settle();
    let users = vec![user];
    world.command(ann, CommandKind::AddMembers { group, users });
    world.settle();
    let length = world.log(group).len();
    world.wake(cy);
    let until = world.now_ms + 10_000;
    world.run_until(until);
    assert_eq!(world.log(group).len(), length);
    assert_eq!(world.view(cy, group).status, GroupStatusView::Active);
    let error = CommandError::NotAMember;
    let failed = Event::Failed { id, error };
    assert!(
        world.people[cy.0].events.contains(&failed),
        "and is told so"
    );
    no_alarms(&world);
}
