//! The append rule: each step, its order, and its limits.

use mortise_protocol::identity::{DeviceId, Epoch, Hash, LogSeq, RosterSeq, SigningKey, encode};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::wire::aad::ContentType;
use mortise_protocol::wire::log::{
    Attestation, AttestationStatement, CommitEntry, Purpose, RecordBody, Verdict, entry_hash,
};
use mortise_protocol::wire::{Refusal, Request, Response, Submission, WelcomeFor, limits};

use super::fixture::*;
use crate::core::ConnId;
use crate::core::append::{Accepted, Appender, Effect, Facts, LogHead, RosterFacts, decide};
use crate::core::layout::{AppendedRecord, EpochRecord};

const S: RosterSeq = RosterSeq(5);

/// REQ-055, REQ-047: a submission that is wrong in every way is refused for the first step that fails, in order.
#[test]
fn the_steps_come_in_their_order() {
    let conn = ConnId(1);
    let device = Device::new(1, mortise_protocol::identity::UserId([1; 16]));
    let mut group = Group::new(1);
    let access = group.access_key(Epoch(0)).public();
    let message = encode(&group.message_at(ContentType::Commit, (S, Hash([5; 32])), 32));
    let next = key(7, 7).public();
    let entry = CommitEntry::sign(group.id, Epoch(0), message, next, &device.mls);
    let mut forged = entry.clone();
    forged.signature = no_signature();
    let (good, forged) = (RecordBody::Commit(entry), RecordBody::Commit(forged));
    let garbage = Submission {
        payload: vec![9].into(),
        ..group.submission(conn, &good)
    };

    let (right, wrong) = (Some(Hash([5; 32])), Some(Hash([6; 32])));
    let (chain, fork) = (move |_| right, move |_| wrong);
    let no_order = |_| None;
    let roster = RosterFacts {
        fence: RosterSeq(6),
        head: RosterSeq(7),
        hash_at: &fork,
        order_hash: &no_order,
    };
    let opening = EpochRecord {
        access_key: key(7, 8).public(),
        entry_hash: group.opening(Epoch(0)),
        opening_seq: LogSeq(1),
        opening_s: RosterSeq(4),
    };
    let mut facts = Facts {
        appender: None,
        duplicate: None,
        head: None,
        epoch: None,
        roster,
    };
    assert_eq!(decide(&garbage, &facts), Err(Refusal::NotAdmitted));
    facts.appender = Some(Appender {
        device: device.id(),
        mls_signature_key: device.mls.public(),
        binding: binding(conn),
    });
    assert_eq!(decide(&garbage, &facts), Err(Refusal::UnknownGroup));
    let (head_epoch, head_seq) = (Epoch(1), LogSeq(9));
    facts.head = Some(LogHead {
        seq: head_seq,
        epoch: head_epoch,
    });
    let before = AppendedRecord {
        seq: LogSeq(3),
        fence: RosterSeq(2),
    };
    let known = Facts {
        duplicate: Some(before),
        ..facts
    };
    assert_eq!(decide(&garbage, &known), Ok(Accepted::Before(before)));
    assert_eq!(decide(&garbage, &facts), Err(Refusal::AccessDenied));
    facts.epoch = Some(opening);
    assert_eq!(decide(&garbage, &facts), Err(Refusal::AccessDenied));
    let access_key = access;
    facts.epoch = Some(EpochRecord {
        access_key,
        ..opening
    });
    let wrong_epoch = Refusal::WrongEpoch {
        head_epoch,
        head_seq,
    };
    assert_eq!(decide(&garbage, &facts), Err(wrong_epoch));
    facts.head = Some(LogHead {
        seq: head_seq,
        epoch: Epoch(0),
    });
    assert_eq!(decide(&garbage, &facts), Err(Refusal::Malformed));
    let behind = |at_least| Refusal::RosterBehind {
        at_least: RosterSeq(at_least),
        head_seq: RosterSeq(7),
    };
    let forged = group.submission(conn, &forged);
    assert_eq!(decide(&forged, &facts), Err(behind(6)));
    facts.roster.fence = S;
    facts.epoch = facts.epoch.map(|e| EpochRecord {
        opening_s: RosterSeq(7),
        ..e
    });
    assert_eq!(decide(&forged, &facts), Err(behind(7)));
    facts.epoch = facts.epoch.map(|e| EpochRecord { opening_s: S, ..e });
    assert_eq!(decide(&forged, &facts), Err(Refusal::RosterFork));
    facts.roster.hash_at = &chain;
    facts.roster.head = RosterSeq(4);
    assert_eq!(decide(&forged, &facts), Err(Refusal::RosterFork));
    facts.roster.head = S;
    assert_eq!(decide(&forged, &facts), Err(Refusal::Malformed));
    let good = group.submission(conn, &good);
    let appended = AppendedRecord {
        seq: LogSeq(10),
        fence: S,
    };
    let next = EpochRecord {
        access_key: next,
        entry_hash: entry_hash(group.id, Epoch(1), good.payload.as_slice()),
        opening_seq: LogSeq(10),
        opening_s: S,
    };
    let accepted = Accepted::Now(appended, Effect::Commit { next });
    assert_eq!(decide(&good, &facts), Ok(accepted));
}

struct Room {
    world: World,
    owner: ConnId,
    device: Device,
    conn: ConnId,
    group: Group,
}

/// A member with a group, in an organisation whose fence has risen once.
fn room() -> Room {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (device, conn) = world.join(owner, Role::Member);
    let (gone, _) = world.join(owner, Role::Member);
    world.order(owner, vec![Op::RemoveUser { user: gone.user }]);
    let group = Group::created(1, &mut world, conn);
    world.outputs.clear();
    Room {
        world,
        owner,
        device,
        conn,
        group,
    }
}

impl Room {
    fn submit(&mut self, submission: &Submission) -> Response {
        self.world
            .ask(self.conn, Request::Submit(submission.clone()))
    }

    fn refused(&mut self, submission: &Submission) -> Refusal {
        self.world
            .refused(self.conn, Request::Submit(submission.clone()))
    }

    fn chat(&mut self) -> Submission {
        self.group.chat(self.conn, &self.world.roster)
    }
}

/// REQ-060, REQ-055: positions have no gap, every record has the fence in force, and its sender is told.
#[test]
fn records_are_numbered_and_stamped() {
    let mut r = room();
    let before = r.world.roster.fence();
    let answer = r.group.say(&mut r.world, r.conn);
    let (seq, fence) = (LogSeq(2), before);
    assert_eq!(answer, Response::Appended { seq, fence });
    let (gone, _) = r.world.join(r.owner, Role::Member);
    let fence = r
        .world
        .order(r.owner, vec![Op::RemoveUser { user: gone.user }]);
    assert!(fence > before);
    let answer = r.group.say(&mut r.world, r.conn);
    let seq = LogSeq(3);
    assert_eq!(answer, Response::Appended { seq, fence });
    r.group.subscribe(&mut r.world, r.conn, Epoch(0), 0, 9);
    let stamps: Vec<_> = r.world.records(r.conn);
    let stamps: Vec<_> = stamps.iter().map(|r| (r.seq.0, r.fence)).collect();
    assert_eq!(stamps, [(1, before), (2, before), (3, fence)]);
}

/// REQ-055: resending is safe, in whatever epoch the log is by then; for the device that sent it only.
#[test]
fn a_duplicate_is_answered_as_before_to_its_sender_only() {
    let mut r = room();
    let chat = r.chat();
    let first = r.submit(&chat);
    let (second, twin) = (r.submit(&chat), r.world.online(&r.device));
    assert_eq!(first, second);
    r.group.rotate(&mut r.world, r.conn, &r.device);
    // On another connection the old proof is worthless, and is not asked for.
    let again = r.world.ask(twin, Request::Submit(chat.clone()));
    assert_eq!(again, first);
    let proof = r.group.proof(r.owner, Epoch(0), Purpose::Append);
    let replay = Submission { proof, ..chat };
    let refusal = r.world.refused(r.owner, Request::Submit(replay));
    assert!(matches!(refusal, Refusal::WrongEpoch { .. }), "{refusal:?}");
    assert_eq!(appended(r.group.say(&mut r.world, r.conn)), LogSeq(4));
}

/// REQ-055: the same twice in one batch is appended once.
#[test]
fn a_duplicate_in_one_batch_is_appended_once() {
    let mut r = room();
    let chat = Request::Submit(r.chat());
    let answers = r
        .world
        .ask_all(vec![(r.conn, chat.clone()), (r.conn, chat)]);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(appended(r.group.say(&mut r.world, r.conn)), LogSeq(3));
}

/// REQ-055, REQ-052: the proof is for this key, opening entry, connection and purpose.
#[test]
fn access_must_be_proven() {
    let mut r = room();
    let good = r.chat();
    let (key, opening) = (r.group.access_key(Epoch(0)), r.group.opening(Epoch(0)));
    let sign = |key: &SigningKey, conn, opening, purpose| {
        let (id, epoch) = (good.group, good.epoch);
        mortise_protocol::wire::AccessProof::sign(key, &binding(conn), id, epoch, opening, purpose)
    };
    let append = Purpose::Append;
    let proofs = [
        sign(&super::fixture::key(7, 99), r.conn, opening, append),
        sign(key, r.owner, opening, append),
        sign(key, r.conn, Hash([9; 32]), append),
        sign(key, r.conn, opening, Purpose::Read),
    ];
    for proof in proofs {
        let bad = Submission {
            proof,
            ..good.clone()
        };
        assert_eq!(r.refused(&bad), Refusal::AccessDenied);
    }
    let unborn = Submission {
        epoch: Epoch(1),
        ..good.clone()
    };
    assert_eq!(r.refused(&unborn), Refusal::AccessDenied);
    let nowhere = Submission {
        group: Group::new(2).id,
        ..good.clone()
    };
    assert_eq!(r.refused(&nowhere), Refusal::UnknownGroup);
    assert_eq!(appended(r.submit(&good)), LogSeq(2));
}

/// REQ-055: the first commit for an epoch wins; who is late learns where the log is, by proving what they had.
#[test]
fn one_commit_wins_and_the_others_are_told_where_the_log_is() {
    let mut r = room();
    let owner = Device::new(0, r.world.owner.user);
    let (one, next) = r.group.commit(r.conn, &r.device, &r.world.roster);
    let (two, _) = r.group.commit(r.owner, &owner, &r.world.roster);
    let late = r.chat();
    let answers = r.world.ask_all(vec![
        (r.conn, Request::Submit(one.clone())),
        (r.owner, Request::Submit(two)),
        (r.conn, Request::Submit(late.clone())),
    ]);
    let wrong = Some(Response::Refused(Refusal::WrongEpoch {
        head_epoch: Epoch(1),
        head_seq: LogSeq(2),
    }));
    assert_eq!(answers[1..], [wrong.clone(), wrong]);
    r.group.follow(&one, next);
    let stolen = Submission {
        proof: r.group.proof(r.conn, Epoch(1), Purpose::Append),
        ..late
    };
    assert_eq!(r.refused(&stolen), Refusal::AccessDenied);
    assert_eq!(appended(r.group.say(&mut r.world, r.conn)), LogSeq(3));
}

/// REQ-055: `s` must have reached the fence, and the `s` of the epoch's opening commit.
#[test]
fn a_roster_that_is_behind_is_refused() {
    let mut r = room();
    let fence = r.world.roster.fence();
    let head_seq = r.world.roster.head().seq;
    let at = |r: &Room, seq: u64| {
        let seq = RosterSeq(seq);
        (seq, r.world.roster.hash_at(seq).expect("there"))
    };
    let say = |r: &mut Room, s: (RosterSeq, Hash)| {
        let message = r.group.message_at(ContentType::Application, s, 32);
        let body = RecordBody::Message(encode(&message).into());
        let submission = r.group.submission(r.conn, &body);
        r.submit(&submission)
    };
    let s = at(&r, fence.0 - 1);
    let behind =
        |at_least, head_seq| Response::Refused(Refusal::RosterBehind { at_least, head_seq });
    assert_eq!(say(&mut r, s), behind(fence, head_seq));
    let s = at(&r, fence.0);
    assert_eq!(appended(say(&mut r, s)), LogSeq(2));
    let (user, role) = (r.world.owner.user, Role::Owner);
    let later = r.world.order(r.owner, vec![Op::SetRole { user, role }]);
    assert_eq!(appended(say(&mut r, s)), LogSeq(3));
    r.group.rotate(&mut r.world, r.conn, &r.device);
    assert_eq!(say(&mut r, s), behind(later, later));
    let s = at(&r, later.0);
    assert_eq!(appended(say(&mut r, s)), LogSeq(5));
}

/// REQ-048: a roster that is not the relay's is refused, however it differs.
#[test]
fn another_roster_is_refused_as_a_fork() {
    let mut r = room();
    let (seq, hash) = at_head(&r.world.roster);
    for s in [
        (seq.next(), hash),
        (seq, Hash([9; 32])),
        (RosterSeq(u64::MAX), hash),
    ] {
        let message = r.group.message_at(ContentType::Application, s, 32);
        let body = RecordBody::Message(encode(&message).into());
        let submission = r.group.submission(r.conn, &body);
        assert_eq!(r.refused(&submission), Refusal::RosterFork);
    }
    let attestation = attestation(&r, |s| s.roster_hash = Hash([9; 32]));
    assert_eq!(r.refused(&attestation), Refusal::RosterFork);
}

/// REQ-046: the header says what the submission says, and the body is of its kind.
#[test]
fn a_header_that_does_not_fit_is_refused() {
    let mut r = room();
    let (application, commit) = (ContentType::Application, ContentType::Commit);
    type Change = fn(&mut FakeMessage);
    let changes: [Change; 7] = [
        |m| m.group = vec![2; 32].into(),
        |m| m.group = vec![1; 31].into(),
        |m| m.epoch = Epoch(1),
        |m| m.version = 2,
        |m| m.wire_format = 1,
        |m| m.aad = vec![1, 2, 3].into(),
        |m| m.content_type = ContentType::Commit,
    ];
    for change in changes {
        let mut message = r.group.message(application, &r.world.roster);
        change(&mut message);
        let body = RecordBody::Message(encode(&message).into());
        let submission = r.group.submission(r.conn, &body);
        assert_eq!(r.refused(&submission), Refusal::Malformed);
    }
    for wrong in [application, ContentType::Proposal] {
        let message = encode(&r.group.message(wrong, &r.world.roster));
        let entry = CommitEntry::sign(
            r.group.id,
            Epoch(0),
            message,
            key(7, 7).public(),
            &r.device.mls,
        );
        let submission = r.group.submission(r.conn, &RecordBody::Commit(entry));
        assert_eq!(r.refused(&submission), Refusal::Malformed);
    }
    let create = RecordBody::Create {
        access_key: key(7, 7).public(),
    };
    let submission = r.group.submission(r.conn, &create);
    assert_eq!(r.refused(&submission), Refusal::Malformed);
    let mut trailing = r.chat();
    trailing.payload = [trailing.payload.as_slice(), &[0]].concat().into();
    assert_eq!(r.refused(&trailing), Refusal::Malformed);
    let leave = r.group.message(ContentType::Proposal, &r.world.roster);
    let body = RecordBody::Message(encode(&leave).into());
    let submission = r.group.submission(r.conn, &body);
    assert_eq!(appended(r.submit(&submission)), LogSeq(2));
    assert_eq!(commit, ContentType::Commit);
}

/// REQ-051: the committer is the device that submits, and vouches for group, epoch, commit and next key.
#[test]
fn a_commit_entry_is_its_committers() {
    let mut r = room();
    let message = encode(&r.group.message(ContentType::Commit, &r.world.roster));
    let next = key(7, 7).public();
    let sign = |group, epoch, device: &Device| {
        CommitEntry::sign(group, epoch, message.clone(), next, &device.mls)
    };
    let other = Device::new(0, r.world.owner.user);
    let mut renamed = sign(r.group.id, Epoch(0), &other);
    renamed.device = r.device.id();
    let mut rekeyed = sign(r.group.id, Epoch(0), &r.device);
    rekeyed.next_access_key = key(7, 8).public();
    let entries = [
        sign(r.group.id, Epoch(0), &other),
        sign(r.group.id, Epoch(1), &r.device),
        sign(Group::new(2).id, Epoch(0), &r.device),
        renamed,
        rekeyed,
    ];
    for entry in entries {
        let submission = r.group.submission(r.conn, &RecordBody::Commit(entry));
        assert_eq!(r.refused(&submission), Refusal::Malformed);
    }
    let good = sign(r.group.id, Epoch(0), &r.device);
    let submission = r.group.submission(r.conn, &RecordBody::Commit(good));
    assert_eq!(appended(r.submit(&submission)), LogSeq(2));
}

/// REQ-055: the limit is accepted, one byte more is not.
#[test]
fn sizes_are_checked_at_the_limit() {
    let mut r = room();
    let s = at_head(&r.world.roster);
    let small = encode(&r.group.message_at(ContentType::Application, s, 70_000)).len() - 70_000;
    for (size, fits) in [
        (limits::MAX_APPLICATION_BYTES + 1, false),
        (limits::MAX_APPLICATION_BYTES, true),
    ] {
        let message = r
            .group
            .message_at(ContentType::Application, s, size - small);
        let message = encode(&message);
        assert_eq!(message.len(), size);
        let submission = r
            .group
            .submission(r.conn, &RecordBody::Message(message.into()));
        let limit = limits::MAX_APPLICATION_BYTES as u64;
        let too_large = Response::Refused(Refusal::TooLarge { limit });
        assert_eq!(r.submit(&submission) == too_large, !fits);
    }
    let next = key(7, 7).public();
    let mut overhead = 0;
    for (size, fits) in [
        (limits::MAX_COMMIT_BYTES - 1000, None),
        (limits::MAX_COMMIT_BYTES + 1, Some(false)),
        (limits::MAX_COMMIT_BYTES, Some(true)),
    ] {
        let bytes = size - overhead;
        let message = encode(&r.group.message_at(ContentType::Commit, s, bytes));
        let entry = CommitEntry::sign(r.group.id, Epoch(0), message, next, &r.device.mls);
        let submission = r.group.submission(r.conn, &RecordBody::Commit(entry));
        let Some(fits) = fits else {
            overhead = submission.payload.as_slice().len() - size;
            continue;
        };
        assert_eq!(submission.payload.as_slice().len(), size);
        let limit = limits::MAX_COMMIT_BYTES as u64;
        let too_large = Response::Refused(Refusal::TooLarge { limit });
        assert_eq!(r.submit(&submission) == too_large, !fits);
    }
}

/// REQ-053: Welcomes come with a commit, for somebody, within the limits.
#[test]
fn welcomes_are_checked() {
    let mut r = room();
    let welcome = |devices: usize, bytes: usize| WelcomeFor {
        devices: vec![DeviceId([3; 16]); devices],
        welcome: vec![1; bytes].into(),
    };
    let mut chat = r.chat();
    chat.welcomes = vec![welcome(1, 1)];
    assert_eq!(r.refused(&chat), Refusal::Malformed);
    let (commit, _) = r.group.commit(r.conn, &r.device, &r.world.roster);
    let with = |welcomes| Submission {
        welcomes,
        ..commit.clone()
    };
    let too_large = |limit: usize| Refusal::TooLarge {
        limit: limit as u64,
    };
    let (devices, bytes) = (limits::MAX_DEVICES_PER_REQUEST, limits::MAX_WELCOME_BYTES);
    assert_eq!(r.refused(&with(vec![welcome(0, 1)])), Refusal::Malformed);
    assert_eq!(r.refused(&with(vec![welcome(1, 0)])), Refusal::Malformed);
    let over = [welcome(devices, 1), welcome(1, 1)];
    assert_eq!(r.refused(&with(over.to_vec())), too_large(devices));
    assert_eq!(
        r.refused(&with(vec![welcome(1, bytes + 1)])),
        too_large(bytes)
    );
    let most = with(vec![welcome(devices, bytes)]);
    assert_eq!(appended(r.submit(&most)), LogSeq(2));
}

/// A good attestation of the newest order, but for one change.
fn attestation(r: &Room, change: impl FnOnce(&mut AttestationStatement)) -> Submission {
    let order = r.world.roster.orders().last().expect("an order");
    let (roster_seq, roster_hash) = at_head(&r.world.roster);
    let mut statement = AttestationStatement {
        order_seq: order.seq,
        order_hash: order.entry_hash,
        group: r.group.id,
        entry_hash: r.group.opening(r.group.epoch()),
        epoch: r.group.epoch(),
        roster_seq,
        roster_hash,
        verdict: Verdict::Clean,
        device: r.device.id(),
    };
    change(&mut statement);
    let access = r.group.access_key(r.group.epoch());
    let signed = Attestation::sign(statement, &r.device.mls, access);
    r.group.submission(r.conn, &RecordBody::Attestation(signed))
}

/// REQ-064: an attestation is about the head and an order, by the device that submits it, signed with both keys.
#[test]
fn attestations_are_checked() {
    let mut r = room();
    type Change = fn(&mut AttestationStatement);
    let changes: [(Change, Refusal); 6] = [
        (|s| s.group = Group::new(2).id, Refusal::Malformed),
        (|s| s.epoch = Epoch(1), Refusal::Malformed),
        (|s| s.entry_hash = Hash([9; 32]), Refusal::Malformed),
        (|s| s.device = DeviceId([9; 16]), Refusal::Malformed),
        (|s| s.order_seq = RosterSeq(1), Refusal::UnknownOrder),
        (|s| s.order_hash = Hash([9; 32]), Refusal::UnknownOrder),
    ];
    for (change, refusal) in changes {
        let submission = attestation(&r, change);
        assert_eq!(r.refused(&submission), refusal);
    }
    let RecordBody::Attestation(good) =
        mortise_protocol::identity::decode(attestation(&r, |_| ()).payload.as_slice())
            .expect("an attestation")
    else {
        panic!("an attestation");
    };
    let mut unsigned = [good.clone(), good];
    unsigned[0].device_signature = no_signature();
    unsigned[1].access_signature = no_signature();
    for attestation in unsigned {
        let body = RecordBody::Attestation(attestation);
        let submission = r.group.submission(r.conn, &body);
        assert_eq!(r.refused(&submission), Refusal::Malformed);
    }
    let good = attestation(&r, |_| ());
    assert_eq!(appended(r.submit(&good)), LogSeq(2));
}

/// REQ-055: a group id is given once; creating again is safe for its creator.
#[test]
fn a_group_is_created_once() {
    let mut r = room();
    let fence = r.world.roster.fence();
    let again = r.world.ask(r.conn, r.group.create_request());
    let seq = LogSeq(1);
    assert_eq!(again, Response::Appended { seq, fence });
    let refusal = r.world.refused(r.owner, r.group.create_request());
    assert_eq!(refusal, Refusal::GroupExists);
    let create = |payload: Vec<u8>| Request::CreateGroup {
        group: r.group.id,
        payload: payload.into(),
    };
    let other = encode(&RecordBody::Create {
        access_key: key(7, 99).public(),
    });
    let (other, chat) = (
        create(other),
        create(encode(&RecordBody::Message(vec![1].into()))),
    );
    assert_eq!(r.world.refused(r.conn, other), Refusal::GroupExists);
    assert_eq!(r.world.refused(r.conn, chat), Refusal::Malformed);
}
