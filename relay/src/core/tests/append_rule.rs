//! The append rule: each step, its order, and its limits.

use mortise_protocol::identity::{Epoch, Hash, LogSeq, RosterSeq, SigningKey, encode};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::wire::aad::ContentType;
use mortise_protocol::wire::log::{CommitEntry, Purpose, RecordBody, entry_hash};
use mortise_protocol::wire::{Refusal, Request, Response, Submission};

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
        proven: false,
        closed: false,
        roster,
    };
    assert_eq!(decide(&garbage, &facts), Err(Refusal::NotAdmitted));
    facts.appender = Some(Appender {
        device: device.id(),
        mls_signature_key: device.mls.public(),
        binding: binding(conn),
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
    assert_eq!(decide(&garbage, &facts), Err(Refusal::UnknownGroup));
    let (head_epoch, head_seq) = (Epoch(1), LogSeq(9));
    facts.head = Some(LogHead {
        seq: head_seq,
        epoch: head_epoch,
        confirmed: Epoch(0),
        end: None,
    });
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
        confirmed: Epoch(0),
        end: None,
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

pub(super) struct Room {
    pub(super) world: World,
    pub(super) owner: ConnId,
    pub(super) device: Device,
    pub(super) conn: ConnId,
    pub(super) group: Group,
}

/// A member with a group, in an organisation whose fence has risen once.
pub(super) fn room() -> Room {
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
    pub(super) fn submit(&mut self, submission: &Submission) -> Response {
        self.world
            .ask(self.conn, Request::Submit(submission.clone()))
    }

    pub(super) fn refused(&mut self, submission: &Submission) -> Refusal {
        self.world
            .refused(self.conn, Request::Submit(submission.clone()))
    }

    pub(super) fn chat(&mut self) -> Submission {
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
    let attestation = super::records::attestation(&r, |s| s.roster_hash = Hash([9; 32]));
    assert_eq!(r.refused(&attestation), Refusal::RosterFork);
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
