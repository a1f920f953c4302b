//! Writes a history down while the simulated world goes on, from the clients' side.

use std::collections::BTreeMap;

use mortise_protocol::engine::{GroupStatusView, HistoryKind};
use mortise_protocol::identity::{DeviceId, Epoch, LogSeq, RosterSeq};
use mortise_protocol::wire::{ClientToRelay, Push, RelayToClient, RequestId};
use mortise_relay::core::ConnId;

use super::record;
use super::value::{Call, Delivery, History, Judgement, Kind, Reply};
use crate::world::{Person, World};

/// Writes one history.
///
/// A frame that comes twice would have two effects and one call: record without duplicated frames.
pub struct Recorder {
    history: History,
    now: u64,
    clients: BTreeMap<ConnId, DeviceId>,
    open: BTreeMap<(ConnId, RequestId), usize>,
    events: Vec<usize>,
}

impl Recorder {
    /// Begins to record a world that is quiet.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let roster = record::roster(&world.disk, world.people[0].engine().org());
        let logs = record::logs(&world.disk);
        let ends = logs
            .iter()
            .map(|(group, log)| (*group, LogSeq(log.len() as u64)));
        let mut recorder = Self {
            history: History {
                roster_before: RosterSeq(roster.len() as u64),
                logs_before: ends.collect(),
                ..History::default()
            },
            now: 0,
            clients: BTreeMap::new(),
            open: BTreeMap::new(),
            events: Vec::new(),
        };
        for person in &world.people {
            if let Some(conn) = person.conn {
                recorder.clients.insert(conn, person.device());
            }
        }
        recorder
    }

    /// Everything that has happened is before everything that happens from now on.
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// A connection is a device's.
    pub fn connected(&mut self, conn: ConnId, device: DeviceId) {
        self.clients.insert(conn, device);
    }

    /// A device does not keep the rules from now on.
    pub fn lies(&mut self, device: DeviceId) {
        self.history.liars.insert(device);
    }

    /// A device has sent a question.
    pub fn asked(&mut self, conn: ConnId, frame: &ClientToRelay) {
        let now = self.tick();
        let (Some(question), Some(client)) = (
            record::question(&frame.request),
            self.clients.get(&conn).copied(),
        ) else {
            return;
        };
        self.open.insert((conn, frame.id), self.history.calls.len());
        self.history.calls.push(Call {
            client,
            invoked: now,
            returned: None,
            question,
            reply: Reply::Unknown,
        });
    }

    /// A device has received an answer or a push.
    pub fn answered(&mut self, conn: ConnId, frame: &RelayToClient) {
        let at = self.tick();
        match frame {
            RelayToClient::Response { id, .. } => {
                if let Some(call) = self.open.remove(&(conn, *id)) {
                    self.history.calls[call].returned = Some(at);
                    self.history.calls[call].reply = record::reply(frame);
                }
            }
            RelayToClient::Push(Push::Records { group, records }) => {
                let Some(client) = self.clients.get(&conn).copied() else {
                    return;
                };
                self.history
                    .deliveries
                    .extend(records.iter().map(|record| Delivery {
                        client,
                        at,
                        group: *group,
                        seq: record.seq,
                        fence: record.fence,
                        record: record.record_id(),
                    }));
            }
            RelayToClient::Push(_) => {}
        }
    }

    /// Notes who is in which epoch, as honest members see it; only who was told something new is asked.
    ///
    /// # Panics
    /// When an engine cannot read its store.
    pub fn look(&mut self, world: &mut World) {
        self.events.resize(world.people.len(), usize::MAX);
        for (seen, person) in self.events.iter_mut().zip(&mut world.people) {
            let told = std::mem::replace(seen, person.events.len());
            if told == person.events.len() || !person.is_in() {
                continue;
            }
            if self.history.liars.contains(&person.device()) {
                continue;
            }
            let views = person.engine_mut().groups().expect("groups");
            for view in views.iter().filter(|v| v.status == GroupStatusView::Active) {
                let tree = view.members.iter().map(|member| member.device).collect();
                let at = (view.id, Epoch(view.epoch));
                self.history.trees.entry(at).or_insert(tree);
            }
        }
    }

    /// What it all came to.
    ///
    /// # Panics
    /// When a store cannot be read.
    #[must_use]
    pub fn finish(mut self, world: &World) -> History {
        let mut history = std::mem::take(&mut self.history);
        history.roster = record::roster(&world.disk, world.people[0].engine().org());
        history.logs = record::logs(&world.disk);
        for person in world.people.iter().filter(|person| person.is_in()) {
            let device = person.device();
            if !history.liars.contains(&device) && history.burned_at(device).is_none() {
                judge(&mut history, person);
            }
        }
        history
    }
}

/// What somebody was shown of every message.
fn judge(history: &mut History, person: &Person) {
    for (group, log) in &history.logs {
        let lines = person.engine().messages(*group, LogSeq(0), usize::MAX);
        for line in lines.expect("a history") {
            let index = usize::try_from(line.seq.0)
                .ok()
                .and_then(|n| n.checked_sub(1));
            let found = index.and_then(|index| log.get(index));
            let accepted = match line.kind {
                HistoryKind::Text(_) | HistoryKind::Unsupported => true,
                HistoryKind::Refused(_) => false,
                _ => continue,
            };
            if found.is_some_and(|record| record.kind == Kind::Message) {
                history.judgements.push(Judgement {
                    client: person.device(),
                    group: *group,
                    seq: line.seq,
                    accepted,
                });
            }
        }
    }
}
