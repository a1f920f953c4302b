//! What a record must be, whatever the log's state: its header, its size, its signatures, its Welcomes.

use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, LogSeq, PublicKey, RosterSeq, encode, sha256,
};
use mortise_protocol::wire::aad::ContentType;
use mortise_protocol::wire::log::{
    Attestation, AttestationStatement, CommitEntry, RecordBody, Verdict,
};
use mortise_protocol::wire::{Refusal, Response, Submission, WelcomeFor, limits};

use tls_codec::{TlsSerialize, TlsSize};

use super::append_rule::{Room, room};
use super::fixture::*;

/// REQ-046: the header says what the submission says, and the body is of its kind.
#[test]
fn a_header_that_does_not_fit_is_refused() {
    let mut r = room();
    let application = ContentType::Application;
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
}

/// An entry that the room's device has signed, and that names another committer.
fn signed_for(r: &Room, commit: &[u8], next: PublicKey, device: DeviceId) -> CommitEntry {
    #[derive(TlsSerialize, TlsSize)]
    struct Tbs {
        group: GroupId,
        epoch: Epoch,
        commit_hash: Hash,
        next_access_key: PublicKey,
        device: DeviceId,
    }
    let tbs = |device| Tbs {
        group: r.group.id,
        epoch: Epoch(0),
        commit_hash: sha256(commit),
        next_access_key: next,
        device,
    };
    let sign = |device| r.device.mls.sign("commit entry", &encode(&tbs(device)));
    let own = CommitEntry::sign(r.group.id, Epoch(0), commit.to_vec(), next, &r.device.mls);
    assert_eq!(own.signature, sign(r.device.id()));
    CommitEntry {
        device,
        signature: sign(device),
        ..own
    }
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
    let in_anothers_name = signed_for(&r, &message, next, other.id());
    let mut rekeyed = sign(r.group.id, Epoch(0), &r.device);
    rekeyed.next_access_key = key(7, 8).public();
    let entries = [
        sign(r.group.id, Epoch(0), &other),
        sign(r.group.id, Epoch(1), &r.device),
        sign(Group::new(2).id, Epoch(0), &r.device),
        renamed,
        rekeyed,
        in_anothers_name,
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
pub(super) fn attestation(r: &Room, change: impl FnOnce(&mut AttestationStatement)) -> Submission {
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
