//! What a batch will send, in order, with consecutive records of a group in one push.

use std::collections::BTreeMap;

use mortise_protocol::identity::GroupId;
use mortise_protocol::wire::{LogRecord, Push, RelayToClient, RequestId, Response, limits};

use super::{CloseReason, ConnId, Output, StreamId};

/// The place of an answer that is still being decided.
pub(super) struct Pending(usize);

/// Where a connection's newest push is, if records may be added to it.
struct OpenPush {
    at: usize,
    bytes: usize,
}

/// Outputs on hold until the commit.
#[derive(Default)]
pub(super) struct Outbox {
    outputs: Vec<Output>,
    open: BTreeMap<ConnId, OpenPush>,
    /// A group's newest broadcast, until anything else is pushed to anybody.
    broadcasts: BTreeMap<GroupId, OpenPush>,
}

impl Outbox {
    /// Keeps the answer's place before the pushes that it causes.
    pub(super) fn reserve(&mut self, conn: ConnId, stream: StreamId, id: RequestId) -> Pending {
        let response = Response::Done;
        self.outputs.push(Output::Send {
            conn,
            stream,
            frame: RelayToClient::Response { id, response },
        });
        Pending(self.outputs.len() - 1)
    }

    pub(super) fn answer(&mut self, pending: &Pending, answer: Response) {
        if let Some(Output::Send {
            frame: RelayToClient::Response { response, .. },
            ..
        }) = self.outputs.get_mut(pending.0)
        {
            *response = answer;
        }
    }

    pub(super) fn push(&mut self, conn: ConnId, stream: StreamId, push: Push) {
        self.open.remove(&conn);
        self.broadcasts.clear();
        self.outputs.push(Output::Send {
            conn,
            stream,
            frame: RelayToClient::Push(push),
        });
    }

    /// Pushes a record, in the connection's newest push if that ends with the record before it.
    pub(super) fn push_record(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        group: GroupId,
        record: LogRecord,
    ) {
        let bytes = record.payload.as_slice().len();
        if let Some(records) = self.records_to_extend(conn, group, &record, bytes) {
            records.push(record);
            return;
        }
        let records = vec![record];
        self.push(conn, stream, Push::Records { group, records });
        let at = self.outputs.len() - 1;
        self.open.insert(conn, OpenPush { at, bytes });
    }

    fn records_to_extend(
        &mut self,
        conn: ConnId,
        group: GroupId,
        record: &LogRecord,
        more: usize,
    ) -> Option<&mut Vec<LogRecord>> {
        let open = self.open.get_mut(&conn)?;
        let Some(Output::Send { frame, .. }) = self.outputs.get_mut(open.at) else {
            return None;
        };
        extend(open, frame, group, record, more)
    }

    /// Pushes a record to many, in the group's newest broadcast if that went to the same and ends with the record before.
    pub(super) fn broadcast_record(
        &mut self,
        to: Vec<(ConnId, StreamId)>,
        group: GroupId,
        record: &LogRecord,
    ) {
        if to.is_empty() {
            return;
        }
        let bytes = record.payload.as_slice().len();
        if let Some(open) = self.broadcasts.get_mut(&group)
            && let Some(Output::Broadcast { to: last, frame }) = self.outputs.get_mut(open.at)
            && *last == to
            && let Some(records) = extend(open, frame, group, record, bytes)
        {
            records.push(record.clone());
            return;
        }
        for (conn, _) in &to {
            self.open.remove(conn);
        }
        let at = self.outputs.len();
        self.broadcasts.insert(group, OpenPush { at, bytes });
        let records = vec![record.clone()];
        let frame = RelayToClient::Push(Push::Records { group, records });
        self.outputs.push(Output::Broadcast { to, frame });
    }

    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        self.open.remove(&conn);
        self.broadcasts.clear();
        self.outputs.push(Output::Close { conn, reason });
    }

    pub(super) fn into_outputs(self) -> Vec<Output> {
        self.outputs
    }
}

/// The records of an open push that this one follows, if it fits; it is counted then.
fn extend<'a>(
    open: &mut OpenPush,
    frame: &'a mut RelayToClient,
    group: GroupId,
    record: &LogRecord,
    more: usize,
) -> Option<&'a mut Vec<LogRecord>> {
    let RelayToClient::Push(Push::Records {
        group: last,
        records,
    }) = frame
    else {
        return None;
    };
    let follows = records.last().is_some_and(|r| r.seq.next() == record.seq);
    if *last != group || !follows || open.bytes + more > limits::MAX_PAGE_BYTES {
        return None;
    }
    open.bytes += more;
    Some(records)
}
