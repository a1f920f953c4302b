//! Records and frames as a history sees them.

use std::collections::BTreeMap;

use mortise_protocol::identity::{GroupId, OrgId, decode};
use mortise_protocol::roster::{Roster, SignedEntry};
use mortise_protocol::store::Reader;
use mortise_protocol::wire::aad::PrivateHeader;
use mortise_protocol::wire::{LogRecord, RecordBody, RelayToClient, Request, Response};
use mortise_relay::core::layout;

use super::value::{FinalRecord, Kind, Question, Reply, RosterRow};

/// The question, if it is one that histories hold.
pub(crate) fn question(request: &Request) -> Option<Question> {
    match request {
        Request::Submit(submission) => Some(Question::Append {
            group: submission.group,
            record: mortise_protocol::identity::sha256(submission.payload.as_slice()),
        }),
        Request::CreateGroup { group, payload } => Some(Question::Append {
            group: *group,
            record: mortise_protocol::identity::sha256(payload.as_slice()),
        }),
        Request::AppendRoster { entry, .. } => {
            let entry = SignedEntry::parse(entry.as_slice()).ok()?;
            Some(Question::AppendRoster {
                seq: entry.tbs().seq,
                entry: entry.hash(),
            })
        }
        Request::Subscribe { group, epoch, .. } => Some(Question::Subscribe {
            group: *group,
            epoch: *epoch,
        }),
        _ => None,
    }
}

/// The answer.
pub(crate) fn reply(frame: &RelayToClient) -> Reply {
    let RelayToClient::Response { response, .. } = frame else {
        return Reply::Unknown;
    };
    match response {
        Response::Appended { seq, fence } => Reply::Appended {
            seq: *seq,
            fence: *fence,
        },
        Response::RosterAppended { head } => Reply::RosterAppended { seq: head.seq },
        Response::Subscribed {
            head_seq,
            head_epoch,
            ..
        } => Reply::Subscribed {
            head_seq: *head_seq,
            head_epoch: *head_epoch,
        },
        Response::Refused(refusal) => Reply::Refused(refusal.clone()),
        _ => Reply::Unknown,
    }
}

/// A record as it stands in the end.
///
/// # Panics
/// When the relay has stored what it could not read.
pub(super) fn final_record(record: &LogRecord) -> FinalRecord {
    let body = decode::<RecordBody>(record.payload.as_slice()).expect("a record that reads");
    let based_on = |message: &[u8]| {
        let header = PrivateHeader::parse(message);
        header.expect("a header that reads").aad.roster_seq
    };
    let (kind, based_on) = match &body {
        RecordBody::Create { .. } => (Kind::Create, Default::default()),
        RecordBody::Commit(entry) => (Kind::Commit, based_on(entry.commit.as_slice())),
        RecordBody::Message(message) => (Kind::Message, based_on(message.as_slice())),
        RecordBody::Attestation(said) => (Kind::Attestation, said.statement.roster_seq),
        RecordBody::Restart(said) => (Kind::Restart, said.statement.roster_seq),
    };
    FinalRecord {
        seq: record.seq,
        epoch: record.epoch,
        fence: record.fence,
        record: record.record_id(),
        kind,
        based_on,
    }
}

/// Every log on a relay's disk.
///
/// # Panics
/// When the disk does not hold what a relay writes.
pub(crate) fn logs(disk: &impl Reader) -> BTreeMap<GroupId, Vec<FinalRecord>> {
    let mut logs: BTreeMap<GroupId, Vec<FinalRecord>> = BTreeMap::new();
    let rows = disk.range(layout::LOG, &[], &[], usize::MAX);
    for (key, row) in rows.expect("the disk reads") {
        let group = key
            .first_chunk()
            .copied()
            .map(GroupId)
            .expect("a log's key");
        let record = decode(row.get(1..).unwrap_or_default()).expect("a version byte and a record");
        logs.entry(group).or_default().push(final_record(&record));
    }
    logs
}

/// The roster on a relay's disk.
///
/// # Panics
/// When the disk does not hold what a relay writes.
pub(crate) fn roster(disk: &impl Reader, org: OrgId) -> Vec<RosterRow> {
    let mut roster = Roster::new(org);
    let rows = disk.range(layout::ROSTER, &org.0, &[], usize::MAX);
    let rows = rows.expect("the disk reads").into_iter().map(|(_, row)| {
        let applied = roster.apply(row.get(1..).unwrap_or_default());
        let applied = applied.expect("a roster that verifies");
        RosterRow {
            entry: roster.head().hash,
            order: applied
                .order
                .map(|order| order.devices.into_iter().collect()),
        }
    });
    rows.collect()
}
