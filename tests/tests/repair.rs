//! What a commit that nobody follows costs: the group goes on without its sender, within five seconds (REQ-150 to REQ-155).

use std::sync::{Arc, Mutex};

use mortise_protocol::engine::{
    Alarm, CommandError, CommandKind, Event, GroupStatusView, HistoryKind, PolicyChange,
    load_identity,
};
use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID, Violation};
use mortise_protocol::identity::{DeviceId, GroupId, LogSeq, SigningKey, decode, encode};
use mortise_protocol::wire::aad::PrivateHeader;
use mortise_protocol::wire::log::CommitEntry;
use mortise_protocol::wire::{
    ClientToRelay, Push, RecordBody, RelayToClient, Request, Response, Submission,
};
use mortise_tests::world::{Liar, PersonId, World};

/// What a promise of repair may take, ms.
const REPAIR_MS: u64 = 5_000;

/// Makes a commit entry out of an honest one.
type Forge = Box<dyn FnMut(&Submission, CommitEntry) -> CommitEntry + Send>;

/// A member whose next commit is replaced on its way, with the member's own keys.
struct Forger {
    culprit: PersonId,
    forge: Forge,
    /// Whether it was.
    done: Arc<Mutex<bool>>,
}

impl Liar for Forger {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        let mut done = self.done.lock().expect("not poisoned");
        if from != self.culprit || *done {
            return true;
        }
        let Request::Submit(submission) = &mut frame.request else {
            return true;
        };
        let Ok(RecordBody::Commit(entry)) = decode(submission.payload.as_slice()) else {
            return true;
        };
        let forged = (self.forge)(submission, entry);
        submission.payload = encode(&RecordBody::Commit(forged)).into();
        *done = true;
        true
    }
}

/// Shows one device other ciphertext in the place of the next commit, again and again.
struct Garbles {
    victim: PersonId,
    at: Option<(GroupId, LogSeq)>,
}

impl Liar for Garbles {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if to != self.victim {
            return true;
        }
        if let RelayToClient::Push(Push::Records { group, records }) = frame {
            for record in records {
                let Ok(RecordBody::Commit(mut entry)) = decode(record.payload.as_slice()) else {
                    continue;
                };
                let at = *self.at.get_or_insert((*group, record.seq));
                if at == (*group, record.seq) {
                    let mut commit = entry.commit.as_slice().to_vec();
                    *commit.last_mut().expect("bytes") ^= 1;
                    entry.commit = commit.into();
                    record.payload = encode(&RecordBody::Commit(entry)).into();
                }
            }
        }
        true
    }
}

/// The device's own signature key, as a member that lies has it.
fn key_of(world: &mut World, who: PersonId) -> SigningKey {
    let store = world.people[who.0].engine_mut().store_mut();
    let identity = load_identity(store).expect("a store").expect("identity");
    SigningKey::from_seed(&identity.dangerous_mls_key().dangerous_seed())
}

/// The access key that it announces is nobody's.
fn wrong_access_key(key: SigningKey) -> Forge {
    Box::new(move |submission, entry| {
        let wrong = SigningKey::from_seed(&[3; 32]).public();
        let commit = entry.commit.as_slice().to_vec();
        CommitEntry::sign(submission.group, submission.epoch, commit, wrong, &key)
    })
}

/// The header stays, the ciphertext is noise.
fn noise(key: SigningKey) -> Forge {
    Box::new(move |submission, entry| {
        let mut commit = entry.commit.as_slice().to_vec();
        PrivateHeader::parse(&commit).expect("a header");
        let half = commit.len() / 2;
        commit[half..].fill(0x5a);
        let next = entry.next_access_key;
        CommitEntry::sign(submission.group, submission.epoch, commit, next, &key)
    })
}

struct Room {
    world: World,
    /// Everybody in the group; the first is its admin.
    members: Vec<PersonId>,
    outsider: PersonId,
    group: GroupId,
}

fn room(seed: u64, suite: u16, size: usize) -> Room {
    let names: Vec<String> = (0..=size).map(|i| format!("P{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut world, people) = World::with_people(seed, suite, &names);
    let members = people[..size].to_vec();
    let group = world.group(members[0], &members[1..]);
    world.settle();
    Room {
        world,
        members,
        outsider: people[size],
        group,
    }
}

impl Room {
    /// Lets the culprit commit what `forge` makes of an honest commit.
    fn break_by(&mut self, culprit: PersonId, forge: fn(SigningKey) -> Forge) {
        let key = key_of(&mut self.world, culprit);
        self.break_with(culprit, forge(key), |liar| liar);
    }

    /// The same, while the relay lies too.
    fn break_with(
        &mut self,
        culprit: PersonId,
        forge: Forge,
        also: fn(Box<dyn Liar>) -> Box<dyn Liar>,
    ) {
        let done = Arc::new(Mutex::new(false));
        self.world.liar = Some(also(Box::new(Forger {
            culprit,
            forge,
            done: done.clone(),
        })));
        let users = vec![self.world.people[self.outsider.0].user()];
        let group = self.group;
        self.world
            .command(culprit, CommandKind::AddMembers { group, users });
        while !*done.lock().expect("not poisoned") {
            assert!(self.world.advance(u64::MAX), "the commit is sent");
        }
    }

    fn honest(&self, culprit: PersonId) -> Vec<PersonId> {
        let others = self.members.iter().copied();
        others.filter(|p| *p != culprit).collect()
    }

    /// The group that continues this one, as somebody sees it.
    fn successor(&mut self, who: PersonId) -> Option<GroupId> {
        match self.world.view(who, self.group).status {
            GroupStatusView::Continued { successor } => Some(successor),
            _ => None,
        }
    }

    /// Everything that somebody has read in the conversation.
    fn texts(&self, who: PersonId, successor: GroupId) -> Vec<String> {
        let mut texts = self.world.texts(who, self.group);
        texts.extend(self.world.texts(who, successor));
        texts
    }

    fn names_culprit(&self, who: PersonId, culprit: DeviceId) -> bool {
        let history = self.world.people[who.0]
            .engine()
            .messages(self.group, LogSeq(0), usize::MAX)
            .expect("a history");
        history.iter().any(
            |line| matches!(&line.kind, HistoryKind::Faulty { device, .. } if *device == culprit),
        )
    }
}

/// Everybody but the culprit talks again within five seconds; nothing is lost or doubled, and the culprit is named.
fn repaired(seed: u64, suite: u16, size: usize, forge: fn(SigningKey) -> Forge) {
    let mut room = room(seed, suite, size);
    let culprit = *room.members.last().expect("members");
    let device = room.world.people[culprit.0].device();
    let honest = room.honest(culprit);
    room.break_by(culprit, forge);
    let broken_ms = room.world.now_ms;
    // What is said while the group is broken is neither lost nor said twice.
    let mut said: Vec<String> = Vec::new();
    for (i, who) in honest.iter().enumerate() {
        let text = format!("m{i}");
        room.world.say(*who, room.group, &text);
        said.push(text);
    }
    room.world.run_until(broken_ms + REPAIR_MS);
    let successor = room.successor(honest[0]).expect("the group is continued");
    said.sort();
    for who in &honest {
        assert_eq!(room.successor(*who), Some(successor), "{who:?}");
        let mut texts = room.texts(*who, successor);
        texts.sort();
        assert_eq!(texts, said, "{who:?}");
        assert!(room.names_culprit(*who, device), "{who:?}");
        let view = room.world.view(*who, successor);
        assert_eq!(view.predecessor, Some(room.group));
        assert_eq!(view.members.len(), size - 1);
        assert!(view.members.iter().all(|m| m.device != device));
        let groups = room.world.people[who.0]
            .engine_mut()
            .groups()
            .expect("groups");
        assert_eq!(groups.len(), 2, "no other successor is shown");
    }
}

/// REQ-150, REQ-152, REQ-153: an access key that is not the epoch's.
#[test]
fn a_wrong_access_key_costs_five_seconds() {
    for (seed, size) in [(1, 2), (2, 3), (3, 5), (4, 20)] {
        repaired(seed, SUITE_CLASSICAL, size, wrong_access_key);
    }
    repaired(5, SUITE_HYBRID, 3, wrong_access_key);
}

/// REQ-102, REQ-152: who was away for the fault, the Restart and the closing of the old group follows the Restart.
#[test]
fn a_restart_from_before_the_closing_counts() {
    let mut room = room(7, SUITE_CLASSICAL, 4);
    let [owner, admin, late, culprit] = room.members[..] else {
        panic!("four members")
    };
    let group = room.group;
    let user = room.world.people[admin.0].user();
    let change = PolicyChange::AddAdmin(user);
    let change = CommandKind::ChangeGroup { group, change };
    room.world.command(owner, change);
    room.world.settle();
    for who in [owner, late] {
        room.world.put_to_sleep(who);
    }
    room.break_by(culprit, noise);
    let broken_ms = room.world.now_ms;
    room.world.run_until(broken_ms + REPAIR_MS);
    let successor = room.successor(admin).expect("the group is continued");
    for who in [owner, late] {
        room.world.wake(who);
        if who == owner {
            room.world.command(owner, CommandKind::CloseGroup { group });
        }
        room.world.settle();
        assert_eq!(room.successor(who), Some(successor), "{who:?}");
        let status = room.world.view(who, successor).status;
        assert_eq!(status, GroupStatusView::Active);
    }
}

/// REQ-154: noise with a valid header is nobody's to follow, and counts as public when nobody confirms it.
#[test]
fn noise_costs_five_seconds() {
    for (seed, size) in [(11, 2), (12, 3), (13, 5), (14, 20)] {
        repaired(seed, SUITE_CLASSICAL, size, noise);
    }
    repaired(15, SUITE_HYBRID, 3, noise);
}

/// REQ-156, REQ-158, REQ-163: a relay that changes a commit accuses nobody; whoever it was shown to asks to be let in
/// anew.
#[test]
fn a_commit_that_the_relay_has_changed_accuses_nobody() {
    for (seed, suite) in [(21, SUITE_CLASSICAL), (22, SUITE_HYBRID)] {
        let mut room = room(seed, suite, 4);
        let (committer, victim) = (room.members[1], room.members[3]);
        let device = room.world.people[committer.0].device();
        let at = None;
        room.world.liar = Some(Box::new(Garbles { victim, at }));
        let users = vec![room.world.people[room.outsider.0].user()];
        let group = room.group;
        room.world
            .command(committer, CommandKind::AddMembers { group, users });
        room.world.run_until(room.world.now_ms + REPAIR_MS);
        let status = room.world.view(victim, group).status;
        assert!(matches!(status, GroupStatusView::Stopped(_)), "{status:?}");
        assert!(!room.names_culprit(victim, device));
        let mut alarms = room.world.alarms(victim);
        let accuses = |a: &Alarm| {
            matches!(
                a,
                Alarm::Refused {
                    device: Some(_),
                    ..
                }
            )
        };
        assert!(!alarms.any(accuses));
        drop(alarms);
        room.world.say(committer, group, "missed");
        room.world.run_until(room.world.now_ms + REPAIR_MS);
        room.world
            .command(victim, CommandKind::ResyncGroup { group });
        room.world.run_until(room.world.now_ms + REPAIR_MS);
        room.world.say(committer, group, "read");
        room.world.settle();
        let view = room.world.view(victim, group);
        assert_eq!(view.status, GroupStatusView::Active);
        let theirs = room.world.view(committer, group).epoch_authenticator;
        assert_eq!(view.epoch_authenticator, theirs);
        assert_eq!(room.world.texts(victim, group), ["read"]);
    }
}

/// REQ-156, REQ-158: a device may ask of its own accord, and loses nothing by it.
#[test]
fn a_device_asks_of_its_own_accord() {
    let mut room = room(23, SUITE_CLASSICAL, 3);
    let (ann, cy) = (room.members[0], room.members[2]);
    let group = room.group;
    let id = room.world.command(cy, CommandKind::ResyncGroup { group });
    room.world.say(cy, group, "one");
    room.world.settle();
    room.world.say(ann, group, "two");
    room.world.settle();
    let done = Event::Done { id };
    assert!(room.world.people[cy.0].events.contains(&done));
    assert_eq!(room.world.view(cy, group).status, GroupStatusView::Active);
    for who in room.members.clone() {
        let mut texts = room.world.texts(who, group);
        texts.sort();
        assert_eq!(texts, ["one", "two"], "{who:?}");
    }
}

/// REQ-150, REQ-153: a group admin continues a conversation elsewhere, and nothing is lost on the way.
#[test]
fn an_admin_continues_a_conversation() {
    let mut room = room(24, SUITE_CLASSICAL, 4);
    let (ann, bob) = (room.members[0], room.members[1]);
    let group = room.group;
    let refused = room.world.command(bob, CommandKind::RestartGroup { group });
    room.world.settle();
    let failed = |e: &Event| matches!(e, Event::Failed { id, error: CommandError::NotGroupAdmin } if *id == refused);
    assert!(room.world.people[bob.0].events.iter().any(failed));
    for (i, who) in room.members.clone().into_iter().enumerate() {
        room.world.say(who, group, &format!("before {i}"));
    }
    let id = room.world.command(ann, CommandKind::RestartGroup { group });
    for (i, who) in room.members.clone().into_iter().enumerate() {
        room.world.say(who, group, &format!("after {i}"));
    }
    room.world.settle();
    let successor = room.successor(ann).expect("continued");
    let told = Event::GroupContinued {
        id: Some(id),
        group,
        successor,
    };
    assert!(room.world.people[ann.0].events.contains(&told));
    for who in room.members.clone() {
        assert_eq!(room.successor(who), Some(successor));
        assert_eq!(room.texts(who, successor).len(), 8, "{who:?}");
        // What is said to the old name is said in the new place.
        room.world.say(who, group, "late");
    }
    room.world.settle();
    for who in room.members.clone() {
        assert_eq!(room.texts(who, successor).len(), 12, "{who:?}");
    }
}

/// Says of every epoch that the next one is confirmed.
struct Confirms(Box<dyn Liar>);

impl Liar for Confirms {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        self.0.question(from, frame)
    }

    fn answer(&mut self, _: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Response {
            response:
                Response::Subscribed {
                    head_epoch,
                    confirmed_epoch,
                    ..
                },
            ..
        } = frame
        {
            *confirmed_epoch = *head_epoch;
        }
        true
    }
}

/// REQ-155: two who confirm each other's garbage stop a group; a group admin leads the others out of it.
#[test]
fn a_group_that_is_stopped_is_left_behind() {
    let mut room = room(25, SUITE_CLASSICAL, 4);
    let (ann, culprit) = (room.members[0], room.members[3]);
    let group = room.group;
    let key = key_of(&mut room.world, culprit);
    room.break_with(culprit, wrong_access_key(key), |liar| {
        Box::new(Confirms(liar))
    });
    room.world.run_until(room.world.now_ms + REPAIR_MS);
    let honest = room.honest(culprit);
    for who in &honest {
        let status = room.world.view(*who, group).status;
        assert!(matches!(status, GroupStatusView::Stopped(_)), "{status:?}");
        assert!(room.names_culprit(*who, room.world.people[culprit.0].device()));
    }
    room.world.command(ann, CommandKind::RestartGroup { group });
    room.world.run_until(room.world.now_ms + REPAIR_MS);
    let successor = room.successor(ann).expect("continued");
    for who in &honest {
        assert_eq!(room.successor(*who), Some(successor), "{who:?}");
        room.world.say(*who, group, "out");
    }
    room.world.run_until(room.world.now_ms + REPAIR_MS);
    for who in &honest {
        assert_eq!(room.texts(*who, successor), ["out"; 3], "{who:?}");
    }
}

/// Tells everybody another time.
struct WrongTime(u64);

impl Liar for WrongTime {
    fn answer(&mut self, _: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Response {
            response:
                Response::Hello {
                    now_ms,
                    key_packages_left,
                    ..
                },
            ..
        } = frame
        {
            *now_ms += self.0;
            *key_packages_left = 0;
        }
        true
    }
}

/// REQ-159: a clock that is wrong by an hour is told, one that is wrong by a year makes no KeyPackages; both go on.
#[test]
fn a_wrong_clock_is_told_and_wedges_nothing() {
    const HOUR_MS: u64 = 3_600_000;
    let mut room = room(27, SUITE_CLASSICAL, 2);
    let (ann, bob) = (room.members[0], room.members[1]);
    for (off_ms, alarms, stocks) in [
        (60_000, 0, true),
        (HOUR_MS, 1, true),
        (365 * 24 * HOUR_MS, 1, false),
    ] {
        room.world.disconnect(bob);
        room.world.people[bob.0].events.clear();
        room.world.liar = Some(Box::new(WrongTime(off_ms)));
        room.world.watched = None;
        let before = room.world.stock_of(bob);
        room.world.settle();
        let told = room
            .world
            .alarms(bob)
            .filter(|a| matches!(a, Alarm::Clock { .. }));
        assert_eq!(told.count(), alarms, "{off_ms} ms");
        assert_eq!(room.world.stock_of(bob) > before, stocks, "{off_ms} ms");
        room.world.say(bob, room.group, "still here");
        room.world.settle();
    }
    assert_eq!(room.world.texts(ann, room.group), ["still here"; 3]);
}

/// REQ-159, REQ-156: with a clock that is wrong by a year nobody is asked to let the device in anew, since the others could
/// not use its KeyPackage; when the clock is right again, it is.
#[test]
fn a_wrong_clock_asks_for_no_resync() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    for (seed, skew_ms) in [(38, YEAR_MS), (39, -YEAR_MS)] {
        let mut room = garbled(seed);
        let (ann, victim, group) = (room.members[0], room.members[2], room.group);
        room.world.disconnect(victim);
        room.world.people[victim.0].skew_ms = skew_ms;
        room.world
            .command(victim, CommandKind::ResyncGroup { group });
        let before = room.world.log(group).len();
        room.world.run_until(room.world.now_ms + 30_000);
        assert_eq!(room.world.log(group).len(), before);
        let told = |a: &Alarm| matches!(a, Alarm::Clock { .. });
        assert!(room.world.alarms(victim).any(told));
        room.world.disconnect(victim);
        room.world.people[victim.0].skew_ms = 0;
        room.world.run_until(room.world.now_ms + 30_000);
        let view = room.world.view(victim, group);
        assert_eq!(view.status, GroupStatusView::Active, "seed {seed}");
        let theirs = room.world.view(ann, group).epoch_authenticator;
        assert_eq!(view.epoch_authenticator, theirs);
    }
}

/// REQ-160: who was away for long is told how far it has come, and reads everything.
#[test]
fn a_long_way_is_told() {
    let mut room = room(28, SUITE_CLASSICAL, 2);
    let (ann, bob) = (room.members[0], room.members[1]);
    let group = room.group;
    room.world.put_to_sleep(bob);
    for n in 0..300 {
        room.world.say(ann, group, &format!("m{n}"));
    }
    room.world.settle();
    room.world.people[bob.0].events.clear();
    room.world.wake(bob);
    room.world.settle();
    assert_eq!(room.world.texts(bob, group).len(), 300);
    let told = room.world.people[bob.0].events.iter();
    let told = told.filter(|e| matches!(e, Event::CatchingUp { done, total, .. } if done < total));
    assert!((1..=4).contains(&told.count()));
}

/// A group whose fourth member came in by a commit that the relay garbled for the third, who is stopped since.
fn garbled(seed: u64) -> Room {
    let mut room = room(seed, SUITE_CLASSICAL, 3);
    let victim = room.members[2];
    room.world.liar = Some(Box::new(Garbles { victim, at: None }));
    let users = vec![room.world.people[room.outsider.0].user()];
    let (ann, group) = (room.members[0], room.group);
    room.world
        .command(ann, CommandKind::AddMembers { group, users });
    room.world.run_until(room.world.now_ms + REPAIR_MS);
    let status = room.world.view(victim, group).status;
    assert!(matches!(status, GroupStatusView::Stopped(_)), "{status:?}");
    room.world.people[victim.0].events.clear();
    room
}

fn refused(world: &World, who: PersonId) -> Vec<Violation> {
    let alarms = world.alarms(who);
    let refused = alarms.filter_map(|alarm| match alarm {
        Alarm::Refused { violation, .. } => Some(*violation),
        _ => None,
    });
    refused.collect()
}

/// REQ-157: who came after the asker's last epoch leaves the answer to those whom the asker knows. The first answer is
/// taken, and with it comes to light that the relay had shown another record (REQ-390).
#[test]
fn a_resync_is_answered_by_whom_the_asker_knows() {
    for seed in 31..=36 {
        let mut room = garbled(seed);
        let (bob, victim) = (room.members[1], room.members[2]);
        let (ann, group) = (room.members[0], room.group);
        room.world.put_to_sleep(ann);
        room.world
            .command(victim, CommandKind::ResyncGroup { group });
        room.world.run_until(room.world.now_ms + REPAIR_MS);
        assert_eq!(
            refused(&room.world, victim),
            [Violation::LogFork],
            "seed {seed}"
        );
        let view = room.world.view(victim, group);
        assert_eq!(view.status, GroupStatusView::Active);
        let theirs = room.world.view(bob, group).epoch_authenticator;
        assert_eq!(view.epoch_authenticator, theirs);
    }
}

/// REQ-158: where nobody is left whom the asker knows, it asks ever more rarely: each answer costs the group a commit.
#[test]
fn a_resync_that_cannot_be_answered_is_no_storm() {
    let mut room = garbled(37);
    let (ann, bob, victim) = (room.members[0], room.members[1], room.members[2]);
    let group = room.group;
    let user = room.world.people[bob.0].user();
    room.world
        .command(ann, CommandKind::RemoveMember { group, user });
    room.world.settle();
    room.world.command(ann, CommandKind::LeaveGroup { group });
    room.world.settle();
    assert_eq!(room.world.view(ann, group).status, GroupStatusView::Removed);
    let before = room.world.log(group).len();
    room.world
        .command(victim, CommandKind::ResyncGroup { group });
    room.world.run_until(room.world.now_ms + 300_000);
    let answers = room.world.log(group).len() - before;
    assert!((1..=8).contains(&answers), "{answers} answers");
    assert_eq!(refused(&room.world, victim).len(), answers);
    let status = room.world.view(victim, group).status;
    assert!(matches!(status, GroupStatusView::Stopped(_)), "{status:?}");
}
