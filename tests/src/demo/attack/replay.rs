//! The relay's files played back to a device by a relay that gives everything to everybody.

use std::collections::VecDeque;

use anyhow::Context as _;
use mortise_client::machine::now_ms;
use mortise_protocol::engine::{Engine, HistoryKind, Input, Output};
use mortise_protocol::identity::{Epoch, GroupId, LogSeq, PublicKey, decode};
use mortise_protocol::store::SqliteStore;
use mortise_protocol::wire::{
    ClientToRelay, ConnectionBinding, Flag, Push, RecordBody, Refusal, RelayToClient, Request,
    Response,
};

use super::files::{ReadMessage, RelayFiles};

/// A device that asks for ever is stopped after this many questions, and as many again for every group.
const MAX_QUESTIONS: usize = 32;

/// What the false relay says of the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RosterShown {
    /// All of it.
    Whole,
    /// Nothing that the device does not know already: the order is hidden.
    WithoutNews,
}

/// Plays everything to the device, and gives what its user can read afterwards.
///
/// # Errors
/// When the device's store fails.
pub fn play(
    mut engine: Engine<SqliteStore>,
    files: &RelayFiles,
    shown: RosterShown,
) -> anyhow::Result<Vec<ReadMessage>> {
    let mut inputs = VecDeque::from([Input::Connected(ConnectionBinding([7; 32]))]);
    let mut left = MAX_QUESTIONS * (1 + files.logs.len());
    while let Some(input) = inputs.pop_front() {
        let outputs = engine
            .handle(now_ms(), input)
            .context("a device on a copy")?;
        for output in outputs {
            if let Output::Send(frame) = output {
                let answers = answer(&engine, files, shown, frame);
                inputs.extend(answers.into_iter().map(Input::Frame).take(left));
                left = left.saturating_sub(1);
            }
        }
    }
    history(&mut engine)
}

fn history(engine: &mut Engine<SqliteStore>) -> anyhow::Result<Vec<ReadMessage>> {
    let mut read = Vec::new();
    for group in engine.groups()?.into_iter().map(|group| group.id) {
        for line in engine.messages(group, LogSeq(0), usize::MAX)? {
            if let HistoryKind::Text(text) = line.kind {
                let seq = line.seq;
                read.push(ReadMessage { group, seq, text });
            }
        }
    }
    Ok(read)
}

fn answer(
    engine: &Engine<SqliteStore>,
    files: &RelayFiles,
    shown: RosterShown,
    ClientToRelay { id, request }: ClientToRelay,
) -> Vec<RelayToClient> {
    let head = match shown {
        RosterShown::Whole => files.head,
        RosterShown::WithoutNews => engine.roster().head(),
    };
    let mut pushes = Vec::new();
    let response = match request {
        Request::Hello { .. } => Response::Hello {
            head,
            admitted: Flag::Yes,
            statement_key: PublicKey([0; 32]),
            now_ms: now_ms(),
            key_packages_left: 100,
            has_last_resort: Flag::Yes,
            inbox_waiting: Flag::No,
        },
        Request::FetchRoster { after } => Response::Roster {
            entries: match shown {
                RosterShown::Whole => {
                    let known = usize::try_from(after.0).unwrap_or(usize::MAX);
                    files
                        .roster
                        .iter()
                        .skip(known)
                        .map(|e| e.clone().into())
                        .collect()
                }
                RosterShown::WithoutNews => Vec::new(),
            },
            head,
        },
        Request::Subscribe { group, after, .. } => {
            let (subscribed, records) = log(files, group, after);
            pushes.extend(records);
            subscribed
        }
        _ => Response::Refused(Refusal::Storage),
    };
    let mut frames = vec![RelayToClient::Response { id, response }];
    frames.extend(pushes.into_iter().map(RelayToClient::Push));
    frames
}

/// All of a log after a position, whatever was proven.
fn log(files: &RelayFiles, group: GroupId, after: LogSeq) -> (Response, Option<Push>) {
    let Some(records) = files.logs.get(&group) else {
        return (Response::Refused(Refusal::UnknownGroup), None);
    };
    let head_seq = records.last().map_or(LogSeq(0), |record| record.seq);
    let closes = |payload: &[u8]| matches!(decode(payload), Ok(RecordBody::Commit(_)));
    let head_epoch = records.last().map_or(Epoch(0), |record| {
        if closes(record.payload.as_slice()) {
            record.epoch.next()
        } else {
            record.epoch
        }
    });
    let records: Vec<_> = records.iter().filter(|r| r.seq > after).cloned().collect();
    let subscribed = Response::Subscribed {
        head_seq,
        head_epoch,
        last_readable: head_seq,
        confirmed_epoch: head_epoch,
    };
    let push = (!records.is_empty()).then_some(Push::Records { group, records });
    (subscribed, push)
}
