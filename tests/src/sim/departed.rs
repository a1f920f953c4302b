//! Departed devices with everything that the relay has: they read nothing that came after their order.

use mortise_protocol::engine::{Engine, HistoryKind, Input, Output};
use mortise_protocol::group::Crypto;
use mortise_protocol::group::{Group, MlsProvider, Opened};
use mortise_protocol::identity::{DeviceId, GroupId, LogSeq, PublicKey, RosterSeq};
use mortise_protocol::store::{MemoryStore, Tx};
use mortise_protocol::wire::{
    ClientToRelay, ConnectionBinding, Flag, LogRecord, Push, RelayToClient, Request, Response,
    RosterHead,
};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::Broken;
use super::model::{Departed, Model};
use super::scenario::Scenario;
use crate::world::Disk;

const RULE: &str = "a removed device reads nothing that came after the order";

/// A relay that is on the leaver's side.
#[derive(Clone, Copy, Debug)]
struct Accomplice {
    /// The newest roster entry that it admits to.
    head: RosterSeq,
    /// Whether it stamps records with fences from before the order.
    forges: bool,
}

impl Scenario {
    pub(super) fn try_departed(&mut self) -> Result<(), Broken> {
        let mut opened = 0;
        for (device, gone) in &self.model.departed {
            let live = self.world.people[gone.who.0]
                .engine_mut()
                .store_mut()
                .snapshot();
            for store in [&gone.store, &live] {
                self.model.try_keys(*device, gone, store)?;
                let before = RosterSeq(gone.order.0 - 1);
                for head in [before, self.model.roster.head().seq] {
                    for forges in [false, true] {
                        let accomplice = Accomplice { head, forges };
                        self.model.try_engine(gone, store, accomplice)?;
                    }
                }
            }
            opened += self.model.try_control(gone);
        }
        *self.model.counts.entry("control decrypted").or_default() += opened;
        Ok(())
    }
}

impl Model {
    /// The device's keys on every record, without any of our rules in the way.
    fn try_keys(
        &self,
        device: DeviceId,
        gone: &Departed,
        store: &MemoryStore,
    ) -> Result<(), Broken> {
        for (group, log) in &self.logs {
            for (seq, fence) in open_all(store, *group, log.iter().map(|l| &l.record)) {
                if fence >= gone.order {
                    let detail = format!("{device:?} opens {group:?} at {seq} with its old keys");
                    return Err(Broken::new(RULE, detail));
                }
            }
        }
        Ok(())
    }

    /// The same with a remaining member's old keys, which must open something: the attempt is a real one.
    fn try_control(&self, gone: &Departed) -> u64 {
        let Some(store) = &gone.control else { return 0 };
        let mut opened = 0;
        for (group, log) in &self.logs {
            let found = open_all(store, *group, log.iter().map(|l| &l.record));
            opened += found
                .iter()
                .filter(|(_, fence)| *fence >= gone.order)
                .count() as u64;
        }
        opened
    }

    /// The device's own program, fed by a relay that is on its side.
    fn try_engine(
        &self,
        gone: &Departed,
        store: &MemoryStore,
        accomplice: Accomplice,
    ) -> Result<(), Broken> {
        let rng = Box::new(ChaCha12Rng::seed_from_u64(gone.order.0));
        let defect = |e: &dyn std::fmt::Display| {
            Broken::new("an engine names its own defect", format!("departed: {e}"))
        };
        let mut engine = Engine::open(Disk::from(store.clone()), rng).map_err(|e| defect(&e))?;
        let now = self
            .logs
            .values()
            .flatten()
            .map(|l| l.record.at_ms)
            .max()
            .unwrap_or(0);
        let mut inputs = vec![Input::Connected(ConnectionBinding([1; 32]))];
        for _ in 0..2 {
            for group in self.logs.keys() {
                let records = self.records(*group, LogSeq(0), gone, accomplice);
                inputs.push(Input::Frame(RelayToClient::Push(Push::Records {
                    group: *group,
                    records,
                })));
            }
        }
        inputs.reverse();
        let mut answers = 0;
        while let Some(input) = inputs.pop() {
            for output in engine.handle(now, input).map_err(|e| defect(&e))? {
                if let Output::Send(frame) = output
                    && answers < 200
                {
                    answers += 1;
                    let frames = self.accomplice_answers(gone, accomplice, frame);
                    inputs.extend(frames.into_iter().rev().map(Input::Frame));
                }
            }
        }
        for group in self.logs.keys() {
            let lines = engine
                .messages(*group, LogSeq(0), usize::MAX)
                .map_err(|e| defect(&e))?;
            for line in lines {
                let late = self.fence_of(*group, line.seq) >= Some(gone.order);
                if late && matches!(line.kind, HistoryKind::Text(_) | HistoryKind::Unsupported) {
                    let detail = format!("{group:?} at {}, with {accomplice:?}", line.seq);
                    return Err(Broken::new(RULE, detail));
                }
            }
        }
        Ok(())
    }

    fn records(
        &self,
        group: GroupId,
        after: LogSeq,
        gone: &Departed,
        accomplice: Accomplice,
    ) -> Vec<LogRecord> {
        let log = self.logs.get(&group).into_iter().flatten();
        let mut records: Vec<LogRecord> = log
            .map(|l| l.record.clone())
            .filter(|r| r.seq > after)
            .collect();
        if accomplice.forges {
            let before = RosterSeq(gone.order.0 - 1);
            records
                .iter_mut()
                .for_each(|r| r.fence = r.fence.min(before));
        }
        records
    }

    fn accomplice_answers(
        &self,
        gone: &Departed,
        accomplice: Accomplice,
        ClientToRelay { id, request }: ClientToRelay,
    ) -> Vec<RelayToClient> {
        let head = RosterHead {
            seq: accomplice.head,
            hash: self
                .roster
                .hash_at(accomplice.head)
                .unwrap_or(self.roster.head().hash),
        };
        let mut pushes = Vec::new();
        let response = match request {
            Request::Hello { .. } => Response::Hello {
                head,
                admitted: Flag::Yes,
                statement_key: self.roster.statement_key().unwrap_or(PublicKey([0; 32])),
                now_ms: 0,
                key_packages_left: 20,
                has_last_resort: Flag::Yes,
                inbox_waiting: Flag::Yes,
            },
            Request::FetchRoster { after } => Response::Roster {
                entries: self
                    .entries
                    .iter()
                    .filter(|(seq, _)| **seq > after && **seq <= accomplice.head)
                    .map(|(_, entry)| entry.clone().into())
                    .collect(),
                head,
            },
            Request::Subscribe { group, after, .. } => {
                let records = self.records(group, after, gone, accomplice);
                let last_readable = LogSeq(after.0 + records.len() as u64);
                pushes.push(RelayToClient::Push(Push::Records { group, records }));
                Response::Subscribed {
                    head_seq: last_readable,
                    head_epoch: self.head_epoch(group),
                    last_readable,
                    confirmed_epoch: self.head_epoch(group),
                }
            }
            Request::FetchInbox { after } => Response::Inbox {
                items: self
                    .welcomes
                    .iter()
                    .filter(|item| item.seq > after)
                    .take(16)
                    .cloned()
                    .collect(),
                more: Flag::No,
            },
            _ => Response::Done,
        };
        pushes.insert(0, RelayToClient::Response { id, response });
        pushes
    }
}

/// What a store's MLS state opens of a log, following every commit that it can.
pub(crate) fn open_all<'a>(
    store: &MemoryStore,
    id: GroupId,
    log: impl Iterator<Item = &'a LogRecord>,
) -> Vec<(LogSeq, RosterSeq)> {
    let crypto = Crypto::default();
    let tx = Tx::new(store);
    let provider = MlsProvider::new(&crypto, &tx);
    let mut opened = Vec::new();
    let Ok(Some(mut group)) = Group::load(&provider, id) else {
        return opened;
    };
    for record in log {
        let Some(message) = message_of(record) else {
            continue;
        };
        match group.open(&provider, &message) {
            Ok(Opened::Application { .. }) => opened.push((record.seq, record.fence)),
            Ok(Opened::Leave(leave)) => {
                if group.keep_leave(&provider, *leave).is_err() {
                    break;
                }
            }
            Ok(Opened::Commit(change)) => {
                if group.merge(&provider, *change).is_err() {
                    break;
                }
            }
            Err(_) => {}
        }
    }
    opened
}

fn message_of(record: &LogRecord) -> Option<Vec<u8>> {
    use mortise_protocol::identity::decode;
    use mortise_protocol::wire::RecordBody;
    match decode(record.payload.as_slice()).ok()? {
        RecordBody::Message(message) => Some(message.as_slice().to_vec()),
        RecordBody::Commit(entry) => Some(entry.commit.as_slice().to_vec()),
        _ => None,
    }
}
