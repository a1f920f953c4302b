//! What honest devices do when the relay or a member does not keep to the rules; and what they do on their own.

use std::sync::{Arc, Mutex};

use mortise_protocol::engine::{
    Alarm, CommandError, CommandKind, Event, GroupStatusView, HistoryKind, Input, Output,
};
use mortise_protocol::group::{SUITE_CLASSICAL, Violation};
use mortise_protocol::identity::{
    Epoch, GroupId, Hash, LogSeq, RosterSeq, SigningKey, decode, encode,
};
use mortise_protocol::roster::Role;
use mortise_protocol::store::Reader as _;
use mortise_protocol::wire::aad::PrivateHeader;
use mortise_protocol::wire::log::{Attestation, AttestationStatement, CommitEntry, Verdict};
use mortise_protocol::wire::{
    ClientToRelay, ConnectionBinding, LogRecord, Push, RecordBody, RelayToClient, Request,
    Response, Submission,
};
use mortise_tests::world::{Liar, PersonId, World};

/// A room of three; the fourth is in the organisation only.
struct Room {
    world: World,
    people: Vec<PersonId>,
    group: GroupId,
}

fn room() -> Room {
    let (mut world, people) = World::with_people(7, SUITE_CLASSICAL, &["Ann", "Bob", "Cy", "Dot"]);
    let group = world.group(people[0], &people[1..3]);
    world.say(people[1], group, "one");
    world.settle();
    Room {
        world,
        people,
        group,
    }
}

impl Room {
    /// Lets somebody's next record be written to the log without anybody hearing of it; returns it.
    fn unheard(&mut self, sender: PersonId, text: &str) -> LogRecord {
        for i in 0..self.people.len() {
            if self.people[i] != sender {
                self.world.people[self.people[i].0].cut_until_ms = u64::MAX;
                self.world.disconnect(self.people[i]);
            }
        }
        self.world.say(sender, self.group, text);
        let until = self.world.now_ms + 1_000;
        self.world.run_until(until);
        self.world.log(self.group).last().expect("a record").clone()
    }

    /// Hands records to somebody as the relay would.
    fn push(&mut self, to: PersonId, records: Vec<LogRecord>) {
        let frame = RelayToClient::Push(Push::Records {
            group: self.group,
            records,
        });
        let now = self.world.now_ms;
        let person = &mut self.world.people[to.0];
        if person.conn.is_none() {
            // Its line leads to whoever plays the relay here.
            let line = Input::Connected(ConnectionBinding([1; 32]));
            person.engine_mut().handle(now, line).expect("a step");
        }
        let outputs = person
            .engine_mut()
            .handle(now, Input::Frame(frame))
            .expect("a step");
        for output in outputs {
            if let Output::Event(event) = output {
                person.events.push(event);
            }
        }
    }

    /// The record after the last that `to` has: a statement in `by`'s name at `s`, signed with another key.
    fn attested_at(&mut self, by: PersonId, to: PersonId, s: RosterSeq) -> LogRecord {
        let epoch = Epoch(self.world.view(to, self.group).epoch);
        let by = self.world.people[by.0].engine();
        let hash = by.roster().hash_at(s).expect("an entry");
        let statement = AttestationStatement {
            order_seq: s,
            order_hash: hash,
            group: self.group,
            entry_hash: Hash([0; 32]),
            epoch: Epoch(1),
            roster_seq: s,
            roster_hash: hash,
            verdict: Verdict::Clean,
            device: by.device(),
        };
        let key = SigningKey::from_seed(&[1; 32]);
        let attestation = Attestation::sign(statement, &key, &key);
        let last = self.world.log(self.group).last().expect("a record").clone();
        LogRecord {
            seq: last.seq.next(),
            epoch,
            payload: encode(&RecordBody::Attestation(attestation)).into(),
            ..last
        }
    }

    fn violations(&self, who: PersonId) -> Vec<Violation> {
        self.world
            .alarms(who)
            .filter_map(|alarm| match alarm {
                Alarm::Refused { violation, .. } => Some(*violation),
                _ => None,
            })
            .collect()
    }

    /// Everything that openmls keeps for somebody, byte for byte.
    fn mls_state(&mut self, who: PersonId) -> Vec<(Vec<u8>, Vec<u8>)> {
        let store = self.world.people[who.0].engine_mut().store_mut();
        store
            .range(mortise_protocol::group::storage::MLS, &[], &[], usize::MAX)
            .expect("rows")
    }

    /// Pushes a forged record: it is refused by this name, the MLS state stays, and the cursor passes.
    fn refuses(&mut self, to: PersonId, forged: LogRecord, violation: Violation) {
        let before = self.mls_state(to);
        let seq = forged.seq;
        self.push(to, vec![forged]);
        assert_eq!(self.violations(to), [violation]);
        assert_eq!(self.mls_state(to), before, "REQ-087");
        let engine = self.world.people[to.0].engine();
        let lines = engine
            .messages(self.group, LogSeq(seq.0 - 1), 1)
            .expect("history");
        assert!(
            matches!(
                lines[0].kind,
                HistoryKind::Refused(_) | HistoryKind::Faulty { .. }
            ),
            "the user is told"
        );
    }
}

/// REQ-085, REQ-087: a fence below an earlier one is the relay's lie.
#[test]
fn a_falling_fence_is_refused() {
    let mut room = room();
    let (ann, bob, cy, dot) = (
        room.people[0],
        room.people[1],
        room.people[2],
        room.people[3],
    );
    room.world.remove(ann, dot);
    room.world.say(bob, room.group, "two");
    room.world.settle();
    let mut record = room.unheard(bob, "three");
    record.fence = RosterSeq(0);
    room.refuses(cy, record, Violation::FenceFell);
}

/// REQ-044, REQ-086: two members who were shown different logs find out with the first message that crosses.
#[test]
fn a_log_shown_otherwise_is_a_fork() {
    let mut room = room();
    let (bob, cy) = (room.people[1], room.people[2]);
    let first = room.unheard(bob, "two");
    room.world.say(bob, room.group, "three");
    let until = room.world.now_ms + 1_000;
    room.world.run_until(until);
    let second = room.world.log(room.group).last().expect("a record").clone();
    // Cy is shown something else in the place of "two".
    let mut other = first;
    other.payload = vec![3, 0].into();
    let mut third = second;
    room.push(cy, vec![other]);
    third.seq = third.seq.max(LogSeq(1));
    room.push(cy, vec![third]);
    assert_eq!(room.violations(cy)[1..], [Violation::LogFork]);
}

/// REQ-046, REQ-081: what is no PrivateMessage of this group and epoch is refused unopened.
#[test]
fn a_record_with_another_header_is_refused() {
    let mut room = room();
    let (bob, cy) = (room.people[1], room.people[2]);
    let mut record = room.unheard(bob, "two");
    let RecordBody::Message(message) = decode(record.payload.as_slice()).expect("a body") else {
        panic!("a message")
    };
    let mut bytes = message.as_slice().to_vec();
    assert_eq!(
        PrivateHeader::parse(&bytes).expect("a header").group,
        room.group
    );
    bytes[3] = 1;
    record.payload = encode(&RecordBody::Message(bytes.into())).into();
    room.refuses(cy, record, Violation::BadHeader);
}

/// REQ-042, REQ-087: ciphertext that was changed on the way is refused, and the right one still opens.
#[test]
fn changed_ciphertext_is_refused() {
    let mut room = room();
    let (bob, cy) = (room.people[1], room.people[2]);
    let honest = room.unheard(bob, "two");
    let mut forged = honest.clone();
    let mut payload = forged.payload.as_slice().to_vec();
    *payload.last_mut().expect("bytes") ^= 1;
    forged.payload = payload.into();
    assert_ne!(forged.record_id(), honest.record_id());
    room.refuses(cy, forged, Violation::MlsRefused);
}

/// REQ-051, REQ-082: a commit entry whose access key or signature is not the committer's is not followed.
#[test]
fn a_commit_with_a_wrong_access_key_is_refused() {
    let mut room = room();
    let (ann, cy, dot) = (room.people[0], room.people[2], room.people[3]);
    for who in [room.people[1], cy] {
        room.world.people[who.0].cut_until_ms = u64::MAX;
        room.world.disconnect(who);
    }
    let users = vec![room.world.people[dot.0].user()];
    let group = room.group;
    room.world
        .command(ann, CommandKind::AddMembers { group, users });
    let until = room.world.now_ms + 1_000;
    room.world.run_until(until);
    let log = room.world.log(group);
    let mut record = log
        .iter()
        .rfind(|r| matches!(decode(r.payload.as_slice()), Ok(RecordBody::Commit(_))))
        .expect("a commit")
        .clone();
    let RecordBody::Commit(entry) = decode::<RecordBody>(record.payload.as_slice()).expect("body")
    else {
        panic!("a commit")
    };
    let wrong = CommitEntry {
        next_access_key: SigningKey::from_seed(&[3; 32]).public(),
        ..entry
    };
    record.payload = encode(&RecordBody::Commit(wrong)).into();
    room.refuses(cy, record, Violation::BadEntrySignature);
    let view = room.world.view(cy, group);
    assert!(matches!(view.status, GroupStatusView::Stopped(_)));
}

/// REQ-048: a roster that is not ours at the sender's `s` convicts the relay.
#[test]
fn a_head_that_is_not_ours_is_a_fork() {
    let mut room = room();
    let cy = room.people[2];
    let now = room.world.now_ms;
    let engine = room.world.people[cy.0].engine_mut();
    engine.handle(now, Input::Disconnected).expect("a step");
    let binding = ConnectionBinding([1; 32]);
    let outputs = engine
        .handle(now, Input::Connected(binding))
        .expect("a step");
    let id = outputs
        .iter()
        .find_map(|o| match o {
            Output::Send(frame) => Some(frame.id),
            _ => None,
        })
        .expect("Hello");
    let mut head = engine.roster().head();
    head.hash = Hash([0; 32]);
    let response = Response::Hello {
        head,
        admitted: true.into(),
        statement_key: SigningKey::from_seed(&[9; 32]).public(),
        now_ms: now,
        key_packages_left: 20,
        has_last_resort: true.into(),
        inbox_waiting: false.into(),
    };
    let outputs = engine
        .handle(now, Input::Frame(RelayToClient::Response { id, response }))
        .expect("a step");
    let forked = outputs
        .iter()
        .any(|o| matches!(o, Output::Event(Event::Alarm(Alarm::RosterFork { .. }))));
    assert!(forked);
    let sends = outputs.iter().any(|o| matches!(o, Output::Send(_)));
    assert!(!sends, "nothing more is sent to a convicted relay");
}

/// REQ-061: after an order, every record carries its fence, or the relay is convicted.
#[test]
fn a_fence_that_an_order_raised_is_missed() {
    let mut room = room();
    let (ann, bob, cy, dot) = (
        room.people[0],
        room.people[1],
        room.people[2],
        room.people[3],
    );
    let earlier = room.world.log(room.group).last().expect("a record").fence;
    // Cy hears of the order, and of no record after it.
    let order = room.world.remove(ann, dot);
    assert!(earlier < order);
    let mut record = room.unheard(bob, "two");
    assert!(record.fence >= order);
    record.fence = earlier;
    let cursor_is_before = room.world.view(cy, room.group).epoch == record.epoch.0;
    assert!(cursor_is_before);
    room.push(cy, vec![record]);
    // An attestation may have raised the log's own fence already: both names say the same of the relay.
    let found = room.violations(cy);
    assert!(
        matches!(found[..], [Violation::FenceMissed | Violation::FenceFell]),
        "{found:?}"
    );
}

/// Keeps what somebody submits from the relay.
struct Swallows(PersonId, Arc<Mutex<Option<Submission>>>);

impl Liar for Swallows {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        match &frame.request {
            Request::Submit(submission) if from == self.0 => {
                *self.1.lock().expect("not poisoned") = Some(submission.clone());
                false
            }
            _ => true,
        }
    }
}

/// REQ-061, REQ-102: what a relay lets into a group after it was closed is refused, though its sender had not heard of that.
#[test]
fn nothing_comes_after_a_group_is_closed() {
    let mut room = room();
    let (ann, bob, cy) = (room.people[0], room.people[1], room.people[2]);
    let swallowed = Arc::default();
    room.world.liar = Some(Box::new(Swallows(bob, Arc::clone(&swallowed))));
    room.world.say(bob, room.group, "late");
    let until = room.world.now_ms + 1_000;
    room.world.run_until(until);
    room.world.put_to_sleep(bob);
    let group = room.group;
    room.world.command(ann, CommandKind::CloseGroup { group });
    room.world.settle();
    assert_eq!(room.world.view(cy, group).status, GroupStatusView::Closed);
    let late = swallowed.lock().expect("not poisoned").take();
    let last = room.world.log(group).last().expect("a record").clone();
    let forged = LogRecord {
        seq: last.seq.next(),
        payload: late.expect("a submission").payload,
        ..last
    };
    room.refuses(cy, forged, Violation::GroupClosed);
    assert_eq!(room.world.texts(cy, group), ["one"]);
}

/// REQ-064: a statement about another entry, or without both signatures, is refused by name.
#[test]
fn an_attestation_that_does_not_hold_is_refused() {
    let mut room = room();
    let (ann, bob, cy) = (room.people[0], room.people[1], room.people[2]);
    // The order names Bob; Cy, who hears of it, still has Bob in the tree.
    for who in [ann, cy] {
        room.world.people[who.0].cut_until_ms = 0;
    }
    let order = room.world.remove(ann, bob);
    let forged = room.attested_at(ann, cy, order);
    room.refuses(cy, forged, Violation::BadAttestation);
}

/// REQ-102: what is sent in a group that its sender knows to be closed is refused, whoever took it.
#[test]
fn a_record_after_the_closing_entry_is_refused() {
    let mut room = room();
    let (ann, cy) = (room.people[0], room.people[2]);
    let group = room.group;
    // Who was away has not been told where the log ended.
    room.world.put_to_sleep(cy);
    room.world.command(ann, CommandKind::CloseGroup { group });
    room.world.settle();
    room.world.wake(cy);
    room.world.settle();
    let closed = room.world.people[cy.0].engine().roster().head().seq;
    let early = room.attested_at(ann, cy, RosterSeq(closed.0 - 1));
    let late = room.attested_at(ann, cy, closed);
    room.refuses(cy, early, Violation::BadAttestation);
    room.push(
        cy,
        vec![LogRecord {
            seq: late.seq.next(),
            ..late
        }],
    );
    assert_eq!(room.violations(cy)[1..], [Violation::GroupClosed]);
}

/// REQ-053, REQ-093: a Welcome for a group that one is in is refused, whoever it is from.
#[test]
fn a_welcome_for_a_group_that_one_is_in_is_refused() {
    let mut room = room();
    let cy = room.people[2];
    let now = room.world.now_ms;
    let commit = room
        .world
        .log(room.group)
        .into_iter()
        .find(|r| matches!(decode(r.payload.as_slice()), Ok(RecordBody::Commit(_))))
        .expect("a commit");
    let before = room.mls_state(cy);
    let engine = room.world.people[cy.0].engine_mut();
    let outputs = engine
        .handle(now, Input::Frame(RelayToClient::Push(Push::InboxWaiting)))
        .expect("a step");
    let id = outputs
        .iter()
        .find_map(|o| match o {
            Output::Send(frame) if matches!(frame.request, Request::FetchInbox { .. }) => {
                Some(frame.id)
            }
            _ => None,
        })
        .expect("FetchInbox");
    let item = mortise_protocol::wire::InboxItem {
        seq: 99,
        group: room.group,
        welcome: vec![1].into(),
        entry: commit,
        log_hash: Hash([0; 32]),
    };
    let response = Response::Inbox {
        items: vec![item],
        more: false.into(),
    };
    let outputs = engine
        .handle(now, Input::Frame(RelayToClient::Response { id, response }))
        .expect("a step");
    let refused = outputs.iter().any(|o| {
        matches!(
            o,
            Output::Event(Event::Alarm(Alarm::Refused {
                violation: Violation::WelcomeUnasked,
                ..
            }))
        )
    });
    assert!(refused);
    assert_eq!(room.mls_state(cy), before);
}

/// REQ-088, REQ-089: an acknowledgement alone moves nothing; what was lost with a connection is sent again, once.
#[test]
fn a_message_whose_answer_is_lost_arrives_once() {
    let mut room = room();
    let (bob, cy) = (room.people[1], room.people[2]);
    room.world.faults.lose = 0.4;
    for i in 0..10 {
        room.world.say(bob, room.group, &format!("m{i}"));
    }
    let until = room.world.now_ms + 120_000;
    room.world.run_until(until);
    room.world.faults.lose = 0.0;
    room.world.settle();
    let texts = room.world.texts(cy, room.group);
    assert_eq!(texts.len(), 11, "{texts:?}");
    assert_eq!(room.world.texts(bob, room.group), texts);
}

/// REQ-089, REQ-090: killed between any two storage calls, a device goes on without losing or doubling anything.
#[test]
fn a_crash_at_any_storage_call_loses_nothing() {
    for batch in 0..12 {
        let mut room = room();
        let (bob, cy) = (room.people[1], room.people[2]);
        let store = room.world.people[bob.0].engine_mut().store_mut();
        store.plan(batch, mortise_tests::world::DiskFault::Broken);
        let before = room.world.people[bob.0].crashes;
        let mut asked = 0;
        for i in 0..4 {
            let crashed = room.world.people[bob.0].crashes;
            room.world.say(bob, room.group, &format!("m{i}"));
            // A command whose step failed was never accepted.
            asked += usize::from(room.world.people[bob.0].crashes == crashed);
            room.world.settle();
        }
        assert_eq!(
            room.world.people[bob.0].crashes,
            before + 1,
            "batch {batch}"
        );
        let texts = room.world.texts(cy, room.group);
        assert_eq!(texts.len(), 1 + asked, "batch {batch}: {texts:?}");
        assert_eq!(room.world.texts(bob, room.group), texts, "batch {batch}");
    }
}

/// REQ-070: the relay is killed and started again; what it acknowledged is there, what it did not is sent again.
#[test]
fn a_relay_restart_loses_nothing() {
    let mut room = room();
    let (bob, cy) = (room.people[1], room.people[2]);
    for i in 0..5 {
        room.world.say(bob, room.group, &format!("m{i}"));
        let until = room.world.now_ms + 3;
        room.world.run_until(until);
        room.world.stop_relay();
        room.world.start_relay();
        room.world.settle();
    }
    assert_eq!(room.world.texts(cy, room.group).len(), 6);
    assert_eq!(
        room.world.texts(cy, room.group),
        room.world.texts(bob, room.group)
    );
}

/// REQ-043, REQ-088: two who commit at once end in one epoch, and both changes are made.
#[test]
fn a_race_of_commits_is_won_once_and_nothing_is_forgotten() {
    let (mut world, people) =
        World::with_people(3, SUITE_CLASSICAL, &["Ann", "Bob", "Cy", "Dot", "Eve"]);
    let group = world.group(people[0], &people[1..3]);
    for (by, whom) in [(people[0], people[3]), (people[1], people[4])] {
        let users = vec![world.people[whom.0].user()];
        world.command(by, CommandKind::AddMembers { group, users });
    }
    world.settle();
    let views: Vec<_> = people.iter().map(|p| world.view(*p, group)).collect();
    for view in &views {
        assert_eq!(view.members.len(), 5);
        assert_eq!(view.epoch_authenticator, views[0].epoch_authenticator);
    }
}

/// REQ-063, REQ-091: nobody administers and nobody talks: the first member online rotates.
#[test]
fn a_removal_needs_no_administrator() {
    let (mut world, people) = World::with_people(5, SUITE_CLASSICAL, &["Ann", "Bob", "Cy", "Dot"]);
    let [ann, bob, cy, dot] = people[..] else {
        panic!("four people")
    };
    let group = world.group(bob, &[cy, dot]);
    for who in [bob, cy] {
        world.people[who.0].asleep = true;
        world.disconnect(who);
    }
    world.remove(ann, dot);
    world.people[ann.0].asleep = true;
    world.disconnect(ann);
    world.people[cy.0].asleep = false;
    world.connect(cy);
    world.settle();
    assert_eq!(world.view(cy, group).members.len(), 2);
    let lines = world.people[cy.0].engine().messages(group, LogSeq(0), 99);
    let rotated = lines
        .expect("history")
        .iter()
        .any(|l| matches!(l.kind, HistoryKind::Rotated { .. }));
    assert!(rotated, "the user is told");
}

/// REQ-092: KeyPackages are stocked, used once, and filled up again.
#[test]
fn key_packages_are_filled_up() {
    let (mut world, people) = World::with_people(6, SUITE_CLASSICAL, &["Ann", "Bob"]);
    for _ in 0..25 {
        world.group(people[0], &people[1..]);
    }
    let groups = world.people[people[1].0]
        .engine_mut()
        .groups()
        .expect("groups");
    assert_eq!(groups.len(), 25);
}

/// REQ-018: both see one number, and it is not that of another pair.
#[test]
fn safety_numbers_agree() {
    let (world, people) = World::with_people(8, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let number = |a: PersonId, b: PersonId| {
        let other = world.people[b.0].user();
        world.people[a.0]
            .engine()
            .safety_number(other)
            .expect("a number")
    };
    assert_eq!(number(people[0], people[1]), number(people[1], people[0]));
    assert_ne!(number(people[0], people[1]), number(people[0], people[2]));
}

/// REQ-018: who has compared a number is told, once, when it is another one; what is compared again counts anew.
#[test]
fn a_number_that_was_compared_is_watched() {
    let (mut world, people) = World::with_people(8, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
    let [ann, bob, cy] = people[..] else {
        panic!("three people")
    };
    let user = world.people[bob.0].user();
    let changed = |world: &World| {
        let told = world.people[ann.0].events.iter();
        told.filter(|e| **e == Event::NumberChanged { user })
            .count()
    };
    let compared = |world: &World| {
        let engine = world.people[ann.0].engine();
        engine.compared(user).expect("a store").map(|c| c.changed)
    };
    assert_eq!(compared(&world), None);
    let id = world.command(ann, CommandKind::MarkCompared { user });
    world.settle();
    assert!(world.people[ann.0].events.contains(&Event::Done { id }));
    world.add_device(cy, "Cy's other");
    assert_eq!((compared(&world), changed(&world)), (Some(false), 0));
    world.restart_person(ann);
    world.add_device(bob, "Bob's other");
    world.add_device(bob, "Bob's third");
    assert_eq!((compared(&world), changed(&world)), (Some(true), 1));
    world.command(ann, CommandKind::MarkCompared { user });
    world.settle();
    assert_eq!(compared(&world), Some(false));
    let me = world.people[ann.0].user();
    let id = world.command(ann, CommandKind::MarkCompared { user: me });
    world.settle();
    let error = CommandError::UnknownUser;
    let failed = Event::Failed { id, error };
    assert!(world.people[ann.0].events.contains(&failed));
}

/// REQ-045, REQ-060, REQ-084: every message names a roster at or after the fence that its record carries.
#[test]
fn every_record_is_based_on_its_fence() {
    let mut room = room();
    let (ann, bob, dot) = (room.people[0], room.people[1], room.people[3]);
    room.world.remove(ann, dot);
    room.world.say(bob, room.group, "two");
    room.world.settle();
    let mut last = RosterSeq(0);
    for record in room.world.log(room.group) {
        assert!(record.fence >= last);
        last = record.fence;
        if let Ok(RecordBody::Message(message)) = decode(record.payload.as_slice()) {
            let header = PrivateHeader::parse(message.as_slice()).expect("a header");
            assert!(header.aad.roster_seq >= record.fence);
            assert_eq!(header.epoch, record.epoch);
        }
    }
}

/// REQ-047, REQ-050: who is behind the roster or the epoch is told what to catch up with, and the message still arrives.
#[test]
fn a_refused_message_is_made_again_and_arrives() {
    let mut room = room();
    let (ann, bob, cy, dot) = (
        room.people[0],
        room.people[1],
        room.people[2],
        room.people[3],
    );
    room.world.faults.latency_ms = 400;
    for round in 0..6 {
        let user = room.world.people[ann.0].user();
        room.world.command(
            ann,
            CommandKind::SetRole {
                user,
                role: Role::Owner,
            },
        );
        let users = vec![room.world.people[dot.0].user()];
        let group = room.group;
        room.world
            .command(ann, CommandKind::AddMembers { group, users });
        room.world.say(bob, group, &format!("b{round}"));
        room.world.say(cy, group, &format!("c{round}"));
        let user = room.world.people[dot.0].user();
        room.world.settle();
        room.world
            .command(ann, CommandKind::RemoveMember { group, user });
        room.world.say(bob, group, &format!("d{round}"));
        room.world.settle();
    }
    let texts = room.world.texts(cy, room.group);
    assert_eq!(texts.len(), 1 + 18, "{texts:?}");
    assert_eq!(room.world.texts(bob, room.group), texts);
}

/// REQ-056: who was away reads every log to its end, a few at a time.
#[test]
fn many_groups_are_caught_up_with() {
    let (mut world, people) = World::with_people(9, SUITE_CLASSICAL, &["Ann", "Bob"]);
    let (ann, bob) = (people[0], people[1]);
    let groups: Vec<_> = (0..40).map(|_| world.group(ann, &[bob])).collect();
    world.people[bob.0].asleep = true;
    world.disconnect(bob);
    for group in &groups {
        world.say(ann, *group, "while you were away");
    }
    world.settle();
    world.people[bob.0].asleep = false;
    world.connect(bob);
    world.settle();
    assert!(world.is_quiet());
    for group in groups {
        assert_eq!(world.texts(bob, group), ["while you were away"]);
    }
}

/// REQ-096: leaves get new keys while their devices are online, and nobody has to do anything.
#[test]
fn leaves_are_refreshed_in_time() {
    let mut room = room();
    let bob = room.people[1];
    let before = room.world.view(bob, room.group).epoch;
    for day in 1..=9 {
        let until = room.world.now_ms + 24 * 3_600_000;
        room.world.run_until(until);
        assert!(room.world.is_quiet(), "day {day}");
    }
    let epoch = room.world.view(bob, room.group).epoch;
    assert!(epoch >= before + 3, "three members, {before} -> {epoch}");
    assert_eq!(room.violations(bob), []);
}

/// REQ-088: whether the answer or the record itself comes first, the sender is told once.
#[test]
fn the_sender_is_told_once_in_either_order() {
    let mut room = room();
    let bob = room.people[1];
    room.world.faults.reorder = true;
    room.world.faults.latency_ms = 50;
    for i in 0..30 {
        let id = room.world.say(bob, room.group, &format!("m{i}"));
        room.world.settle();
        let told = room.world.people[bob.0]
            .events
            .iter()
            .filter(|e| matches!(e, Event::Appended { id: i, .. } if *i == id))
            .count();
        assert_eq!(told, 1, "m{i}");
    }
}
