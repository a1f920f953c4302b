//! What a commit that nobody follows costs: the group goes on without its sender, within five seconds (REQ-150 to REQ-155).

use std::sync::{Arc, Mutex};

use mortise_protocol::engine::{CommandKind, GroupStatusView, HistoryKind, load_identity};
use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};
use mortise_protocol::identity::{DeviceId, GroupId, LogSeq, SigningKey, decode, encode};
use mortise_protocol::wire::aad::PrivateHeader;
use mortise_protocol::wire::log::CommitEntry;
use mortise_protocol::wire::{ClientToRelay, RecordBody, Request, Submission};
use mortise_tests::world::{Liar, PersonId, World};

/// What a promise of repair may take, ms.
const REPAIR_MS: u64 = 5_000;

/// Makes a commit entry out of an honest one.
type Forge = Box<dyn FnMut(&Submission, CommitEntry) -> CommitEntry + Send>;

/// A member whose next commit is replaced on its way, with the member's own keys.
struct Forger {
    culprit: PersonId,
    forge: Forge,
    /// When the relay got it; given once.
    done: Arc<Mutex<u32>>,
    times: u32,
}

impl Liar for Forger {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        let mut done = self.done.lock().expect("not poisoned");
        if from != self.culprit || *done == self.times {
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
        *done += 1;
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
        let done = Arc::new(Mutex::new(0));
        self.world.liar = Some(Box::new(Forger {
            culprit,
            forge: forge(key),
            done: done.clone(),
            times: 1,
        }));
        let users = vec![self.world.people[self.outsider.0].user()];
        let group = self.group;
        self.world
            .command(culprit, CommandKind::AddMembers { group, users });
        while *done.lock().expect("not poisoned") == 0 {
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

/// REQ-154: noise with a valid header is nobody's to follow, and counts as public when nobody confirms it.
#[test]
fn noise_costs_five_seconds() {
    for (seed, size) in [(11, 2), (12, 3), (13, 5), (14, 20)] {
        repaired(seed, SUITE_CLASSICAL, size, noise);
    }
    repaired(15, SUITE_HYBRID, 3, noise);
}
