//! Records, cursors, headers, commit entries and attestations: sections 9 and 11.

use mortise_protocol::group::Violation;
use mortise_protocol::identity::{
    Epoch, GroupId, Hash, LogSeq, PublicKey, RosterSeq, SigningKey, encode, sha256,
};
use mortise_protocol::wire::RecordBody;
use mortise_protocol::wire::aad::{AuthenticatedData, PrivateHeader};
use mortise_protocol::wire::log::{
    Attestation, AttestationStatement, CommitEntry, LogCursor, Verdict, entry_hash,
};
use mortise_protocol::wire::restart::{Restart, RestartCause, RestartStatement};
use serde_json::{Value, json};
use tls_codec::VLByteVec;

use super::fields::{Fields, name_of};
use super::hex;
use super::story::key;

const GROUP: GroupId = GroupId([0x67; 32]);
const CONTENT_APPLICATION: u8 = 1;
const CONTENT_PROPOSAL: u8 = 2;
const CONTENT_COMMIT: u8 = 3;

pub(super) fn vectors() -> Value {
    json!({
        "log": log(),
        "headers": headers(),
        "commit_entries": commit_entries(),
        "attestations": attestations(),
        "restarts": restarts(),
    })
}

fn data(s: u64, cursor: LogCursor) -> AuthenticatedData {
    AuthenticatedData::new(RosterSeq(s), Hash([0x4a; 32]), cursor)
}

/// A PrivateMessage with this header; what is sealed in it is not MLS's.
fn message(epoch: u64, content: u8, data: &[u8]) -> Vec<u8> {
    let vector = |bytes: &[u8]| encode(&VLByteVec::from(bytes.to_vec()));
    [
        &[0, 1, 0, 2][..],
        &vector(&GROUP.0),
        &epoch.to_be_bytes(),
        &[content],
        &vector(data),
        &vector(&[0x5e; 28]),
        &vector(&[0x5c; 48]),
    ]
    .concat()
}

/// One log through two epochs, with what each record does to ids and cursor.
fn log() -> Value {
    let mut log = Log::create();
    log.append(0, |log| log.message(2));
    log.append(0, |log| log.message(2));
    log.append(7, |log| log.commit(7));
    log.append(7, |log| log.message(7));
    log.append(7, Log::attestation);
    log.append(9, |log| log.message(9));
    log.append(9, Log::restart);
    json!({ "group": GROUP.fields(), "records": log.written })
}

struct Log {
    epoch: u64,
    opening: Hash,
    cursor: LogCursor,
    seq: u64,
    written: Vec<Value>,
}

impl Log {
    fn create() -> Self {
        let body = RecordBody::Create {
            access_key: key(90).public(),
        };
        let opening = entry_hash(GROUP, Epoch(0), &encode(&body));
        let mut log = Self {
            epoch: 0,
            opening,
            cursor: LogCursor::created(opening, RosterSeq(2)),
            seq: 1,
            written: Vec::new(),
        };
        log.write(0, 2, &body);
        log
    }

    fn message(&self, s: u64) -> RecordBody {
        let data = data(s, self.cursor).to_bytes();
        RecordBody::Message(message(self.epoch, CONTENT_APPLICATION, &data).into())
    }

    fn commit(&self, s: u64) -> RecordBody {
        let data = data(s, self.cursor).to_bytes();
        let commit = message(self.epoch, CONTENT_COMMIT, &data);
        let next = key(91).public();
        RecordBody::Commit(CommitEntry::sign(
            GROUP,
            Epoch(self.epoch),
            commit,
            next,
            &key(10),
        ))
    }

    fn attestation(&self) -> RecordBody {
        let statement = statement(self.opening);
        RecordBody::Attestation(Attestation::sign(statement, &key(10), &key(91)))
    }

    fn restart(&self) -> RecordBody {
        let statement = ending(self.opening, RestartCause::Requested);
        RecordBody::Restart(Restart::sign(statement, &key(10)))
    }

    fn append(&mut self, fence: u64, body: impl Fn(&Self) -> RecordBody) {
        let body = body(self);
        let (sent_in, payload) = (self.epoch, encode(&body));
        if matches!(body, RecordBody::Commit(_)) {
            self.epoch += 1;
            self.opening = entry_hash(GROUP, Epoch(self.epoch), &payload);
            self.cursor = self.cursor.opens(sha256(&payload), RosterSeq(fence));
        } else {
            self.cursor = self.cursor.after(sha256(&payload), RosterSeq(fence));
        }
        self.seq += 1;
        self.write(sent_in, fence, &body);
    }

    fn write(&mut self, sent_in: u64, fence: u64, body: &RecordBody) {
        let payload = encode(body);
        self.written.push(json!({
            "seq": LogSeq(self.seq).fields(),
            "epoch": sent_in,
            "fence": fence,
            "payload": hex(&payload),
            "fields": body.fields(),
            "record_id": body.record_id().fields(),
            "cursor": {
                "epoch": self.epoch,
                "opening_entry": self.opening.fields(),
                "count": self.cursor.count,
                "hash": self.cursor.hash.fields(),
            },
        }));
    }
}

/// What the relay reads of a message, and what it takes (REQ-045, REQ-046).
fn headers() -> Value {
    let cursor = LogCursor::created(Hash([0xe4; 32]), RosterSeq(2));
    let good = data(7, cursor).to_bytes();
    let text = message(3, CONTENT_APPLICATION, &good);
    let with = |at: usize, value: u8| {
        let mut bytes = text.clone();
        bytes[at] = value;
        bytes
    };
    let mut version_2 = good.clone();
    version_2[0] = 2;
    let longer = [&good[..], &[0]].concat();
    let commit = message(3, CONTENT_COMMIT, &good);
    let cases = [
        ("an application message", "message", text.clone()),
        ("a proposal", "message", message(3, CONTENT_PROPOSAL, &good)),
        ("a commit", "commit", commit.clone()),
        ("a commit as a message", "message", commit),
        ("a message as a commit", "commit", text.clone()),
        (
            "of another epoch",
            "message",
            message(4, CONTENT_APPLICATION, &good),
        ),
        ("of another group", "message", with(5, 0x68)),
        (
            "a group id of another length",
            "message",
            [&text[..4], &[31], &text[6..]].concat(),
        ),
        ("of another MLS version", "message", with(1, 2)),
        ("a PublicMessage", "message", with(3, 1)),
        (
            "a content type of no meaning",
            "message",
            message(3, 4, &good),
        ),
        (
            "no authenticated data",
            "message",
            message(3, CONTENT_APPLICATION, &[]),
        ),
        (
            "authenticated data of version 2",
            "message",
            message(3, CONTENT_APPLICATION, &version_2),
        ),
        (
            "authenticated data and a byte more",
            "message",
            message(3, CONTENT_APPLICATION, &longer),
        ),
        ("a byte more", "message", [&text[..], &[0]].concat()),
        ("cut", "message", text[..text.len() - 1].to_vec()),
    ];
    let decided: Value = cases
        .into_iter()
        .map(|(name, record, message)| {
            let header = PrivateHeader::parse(&message).ok().filter(|header| {
                let commit = header.content_type as u8 == CONTENT_COMMIT;
                header.group == GROUP && header.epoch == Epoch(3) && commit == (record == "commit")
            });
            json!({
                "name": name,
                "record": record,
                "message": hex(message),
                "authenticated_data": header.map(|header| header.aad.fields()),
            })
        })
        .collect();
    json!({ "group": GROUP.fields(), "epoch": 3, "decided": decided })
}

fn commit_entries() -> Value {
    let committer = key(10);
    let commit = message(3, CONTENT_COMMIT, b"not read here");
    let good = CommitEntry::sign(GROUP, Epoch(3), commit, key(91).public(), &committer);
    let mut other_key = good.clone();
    other_key.next_access_key = key(92).public();
    let mut other_commit = good.clone();
    other_commit.commit = message(3, CONTENT_COMMIT, b"something else").into();
    let mut other_device = good.clone();
    other_device.device = key(30).public().device_id();
    let cases = [
        ("good", good.clone(), GROUP, Epoch(3), committer.public()),
        (
            "another next access key",
            other_key,
            GROUP,
            Epoch(3),
            committer.public(),
        ),
        (
            "another commit",
            other_commit,
            GROUP,
            Epoch(3),
            committer.public(),
        ),
        (
            "another device",
            other_device,
            GROUP,
            Epoch(3),
            committer.public(),
        ),
        (
            "replayed in another epoch",
            good.clone(),
            GROUP,
            Epoch(4),
            committer.public(),
        ),
        (
            "replayed in another group",
            good.clone(),
            GroupId([0x68; 32]),
            Epoch(3),
            committer.public(),
        ),
        (
            "by another device's key",
            good,
            GROUP,
            Epoch(3),
            key(30).public(),
        ),
    ];
    cases
        .into_iter()
        .map(|(name, entry, group, epoch, mls_key)| {
            let refusal = entry
                .verify(group, epoch, &mls_key)
                .err()
                .map(|_| name_of(&Violation::BadEntrySignature));
            json!({
                "name": name,
                "payload": hex(encode(&RecordBody::Commit(entry))),
                "group": group.fields(),
                "epoch": epoch.fields(),
                "mls_signature_key": mls_key.fields(),
                "refusal": refusal,
            })
        })
        .collect()
}

fn statement(opening: Hash) -> AttestationStatement {
    AttestationStatement {
        order_seq: RosterSeq(7),
        order_hash: Hash([0x07; 32]),
        group: GROUP,
        entry_hash: opening,
        epoch: Epoch(1),
        roster_seq: RosterSeq(7),
        roster_hash: Hash([0x4a; 32]),
        verdict: Verdict::Rotated,
        device: key(10).public().device_id(),
    }
}

fn attestations() -> Value {
    let (device, access) = (key(10), key(91));
    let sign = |s: AttestationStatement, d: &SigningKey, a: &SigningKey| Attestation::sign(s, d, a);
    let stated = statement(Hash([0xe4; 32]));
    let clean = AttestationStatement {
        verdict: Verdict::Clean,
        ..stated.clone()
    };
    let good = sign(stated.clone(), &device, &access);
    let mut changed = good.clone();
    changed.statement.verdict = Verdict::Clean;
    let mut swapped = good.clone();
    (swapped.device_signature, swapped.access_signature) =
        (good.access_signature, good.device_signature);
    let other = key(92);
    let cases: [(&str, Attestation, PublicKey, PublicKey); 7] = [
        ("rotated", good.clone(), device.public(), access.public()),
        (
            "clean",
            sign(clean, &device, &access),
            device.public(),
            access.public(),
        ),
        (
            "another verdict than was signed",
            changed,
            device.public(),
            access.public(),
        ),
        (
            "the signatures swapped",
            swapped,
            device.public(),
            access.public(),
        ),
        (
            "signed by another device",
            sign(stated.clone(), &other, &access),
            device.public(),
            access.public(),
        ),
        (
            "without the epoch's access key",
            sign(stated, &device, &other),
            device.public(),
            access.public(),
        ),
        (
            "checked with the next epoch's access key",
            good,
            device.public(),
            other.public(),
        ),
    ];
    cases
        .into_iter()
        .map(|(name, attestation, mls_key, access_key)| {
            let refusal = attestation
                .verify(&mls_key, &access_key)
                .err()
                .map(|_| name_of(&Violation::BadAttestation));
            json!({
                "name": name,
                "payload": hex(encode(&RecordBody::Attestation(attestation))),
                "mls_signature_key": mls_key.fields(),
                "access_key": access_key.fields(),
                "refusal": refusal,
            })
        })
        .collect()
}

fn ending(opening: Hash, cause: RestartCause) -> RestartStatement {
    RestartStatement {
        group: GROUP,
        parent_epoch: Epoch(1),
        parent_entry_hash: opening,
        cause,
        successor: GroupId([0x68; 32]),
        roster_seq: RosterSeq(9),
        roster_hash: Hash([0x4a; 32]),
        device: key(10).public().device_id(),
    }
}

/// Records that end a log, of every cause (REQ-150).
fn restarts() -> Value {
    let (device, culprit) = (key(10), key(30).public().device_id());
    let sign = |cause| Restart::sign(ending(Hash([0xe4; 32]), cause), &device);
    let faulty = sign(RestartCause::FaultyCommit { culprit });
    let mut changed = faulty.clone();
    changed.statement.cause = RestartCause::Requested;
    let cases = [
        ("requested", sign(RestartCause::Requested), device.public()),
        ("after a faulty commit", faulty.clone(), device.public()),
        (
            "after a false restart",
            sign(RestartCause::FalseRestart { culprit }),
            device.public(),
        ),
        ("another cause than was signed", changed, device.public()),
        ("by another device's key", faulty, key(30).public()),
    ];
    cases
        .into_iter()
        .map(|(name, restart, mls_key)| {
            let refusal = restart
                .verify(&mls_key)
                .err()
                .map(|_| name_of(&Violation::BadRestart));
            json!({
                "name": name,
                "payload": hex(encode(&RecordBody::Restart(restart))),
                "mls_signature_key": mls_key.fields(),
                "refusal": refusal,
            })
        })
        .collect()
}
