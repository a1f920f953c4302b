//! The relay's side of the world: frames to and from the core, and its deaths.

use mortise_protocol::identity::DeviceId;
use mortise_protocol::wire::{ClientToRelay, Push, Refusal, RelayToClient, Request, Response};
use mortise_relay::core::quotas::Quotas;
use mortise_relay::core::{ConnId, Core, Input, Output};
use rand::Rng;

use super::network::{Flight, stream_of};
use super::person::Wish;
use super::{PersonId, Served, World};

/// How many questions one batch decides at most.
const MAX_BATCH: usize = 8;
/// The first byte of a record that is a commit, and of one that is an attestation.
const COMMIT: u8 = 2;
const ATTESTATION: u8 = 4;

impl World {
    /// Takes the relay down, as SIGKILL would; what it had stored stays.
    pub fn stop_relay(&mut self) {
        self.relay = None;
        self.disk.lose_last_batch();
        self.unsaid.clear();
        self.sync_at_ms = None;
        if self.disk.lose_unsynced() > 0 {
            self.count("relay deaths with unsynced batches");
        }
        self.count("relay stops");
        for i in 0..self.people.len() {
            self.disconnect(PersonId(i));
        }
    }

    /// Starts the relay from its disk.
    ///
    /// # Panics
    /// When the disk does not load.
    pub fn start_relay(&mut self) {
        self.relay_returns_ms = None;
        self.disk.heal();
        self.count("relay restarts");
        self.relay =
            Some(Core::load(&self.disk, self.config.clone()).expect("the relay starts again"));
    }

    /// Starts the relay anew with other quotas.
    ///
    /// # Panics
    /// When the disk does not load.
    pub fn set_quotas(&mut self, quotas: Quotas) {
        self.stop_relay();
        self.config.quotas = quotas;
        self.start_relay();
    }

    /// One step of the relay, and its answers on their way.
    pub fn relay_step(&mut self, inputs: Vec<Input>) {
        for input in &inputs {
            if let Input::Frame { conn, frame, .. } = input {
                self.observe_question(*conn, frame);
            }
        }
        let Some(relay) = &mut self.relay else { return };
        if self.faults.sync_ms > 0 {
            self.disk.hold_writes();
        }
        let before = self.disk.batches();
        self.disk.work(true);
        let outputs = relay.step(&mut self.disk, self.now_ms, inputs);
        self.disk.work(false);
        let stopped = relay.is_stopped();
        if self.relay_dies_after_batch && self.disk.batches() > before {
            self.relay_dies_after_batch = false;
            self.count("relay deaths before the answer");
            self.crash_relay();
            return;
        }
        self.unsaid.extend(outputs);
        if !self.disk.holds_writes() {
            self.say_all();
        } else if self.sync_at_ms.is_none() {
            let late = self.rng.random_range(0..=self.faults.sync_ms);
            self.sync_at_ms = Some(self.now_ms + late);
        }
        if stopped {
            // The process ends when its store has failed (REQ-072).
            self.count("relay store failures");
            self.crash_relay();
        }
    }

    /// What the relay has stored is durable now, and it says what it has to say about it.
    pub(super) fn sync_relay(&mut self) {
        self.sync_at_ms = None;
        if self.disk.holds_writes() {
            self.disk.sync();
            self.count("syncs of several batches");
        }
        self.say_all();
    }

    fn say_all(&mut self) {
        for output in Output::singly(std::mem::take(&mut self.unsaid)) {
            match output {
                Output::Broadcast { .. } => {}
                Output::Send {
                    conn,
                    stream,
                    frame,
                } => {
                    self.answer(conn, stream, frame);
                }
                Output::Close { conn, .. } => self.close(conn),
            }
        }
    }

    /// The process ends, and is started again after a while.
    pub fn crash_relay(&mut self) {
        let away = self.rng.random_range(100..3_000);
        self.relay_returns_ms = Some(self.now_ms + away);
        self.stop_relay();
    }

    fn close(&mut self, conn: ConnId) {
        let Some(id) = self.network.owner(conn) else {
            self.cut_lines.insert(conn);
            return;
        };
        if self.liar.as_mut().is_some_and(|liar| !liar.closes(id)) {
            return;
        }
        self.network.close(conn);
        self.people[id.0].conn = None;
        self.count("cut by the relay");
        let wishes = self.people[id.0].disconnected(self.now_ms);
        self.take_wishes(id, wishes);
    }

    fn answer(
        &mut self,
        conn: ConnId,
        stream: mortise_relay::core::StreamId,
        mut frame: RelayToClient,
    ) {
        let Some(to) = self.network.owner(conn) else {
            self.line_hears(conn, frame);
            return;
        };
        let mut afterwards = Vec::new();
        if let Some(mut liar) = self.liar.take() {
            let also = liar.also_to(to, &frame);
            let deliver = liar.answer(to, &mut frame);
            afterwards = liar.afterwards();
            self.liar = Some(liar);
            if let Some((other, conn)) =
                also.and_then(|other| Some((other, self.people[other.0].conn?)))
            {
                self.observe_answer(other, &frame);
                let frame = frame.clone();
                self.send(Flight::ToDevice {
                    conn,
                    stream,
                    frame,
                });
            }
            if deliver {
                afterwards.insert(0, frame);
            }
        } else {
            afterwards.push(frame);
        }
        for frame in afterwards {
            self.observe_answer(to, &frame);
            self.send(Flight::ToDevice {
                conn,
                stream,
                frame,
            });
        }
    }

    fn observe_question(&mut self, conn: ConnId, frame: &ClientToRelay) {
        let device = self
            .network
            .speaker(conn)
            .map(|id| self.people[id.0].device());
        match &frame.request {
            Request::Subscribe { .. } => self.count("subscribes"),
            Request::Submit(submission) => match submission.payload.as_slice().first() {
                Some(&COMMIT) => {
                    self.count("commits submitted");
                    self.observe_commit(submission, device);
                }
                Some(&ATTESTATION) => self.count("attestations submitted"),
                _ => self.count("messages submitted"),
            },
            Request::ClaimKeyPackages { .. } => self.count("claims"),
            Request::AppendRoster { .. } => self.count("roster appends"),
            _ => {}
        }
    }

    /// Two devices that want to close the same epoch: a race.
    fn observe_commit(
        &mut self,
        submission: &mortise_protocol::wire::Submission,
        device: Option<DeviceId>,
    ) {
        let key = (submission.group, submission.epoch);
        let devices = self.commits.entry(key).or_default();
        let new = device.is_some_and(|device| devices.insert(device));
        if new && devices.len() == 2 {
            self.count("commit races");
        }
    }

    fn observe_answer(&mut self, to: PersonId, frame: &RelayToClient) {
        match frame {
            RelayToClient::Response {
                response: Response::Refused(refusal),
                ..
            } => self.count(refusal_name(refusal)),
            RelayToClient::Push(Push::Records { group, records }) => {
                self.served.extend(records.iter().map(|record| Served {
                    to,
                    group: *group,
                    seq: record.seq,
                    fence: record.fence,
                }));
            }
            _ => {}
        }
    }

    pub(super) fn send(&mut self, flight: Flight) {
        let conn = flight.conn();
        let to_relay = matches!(flight, Flight::ToRelay { .. });
        let deaf = self.network.owner(conn).is_some_and(|id| {
            let person = &self.people[id.0];
            person.deaf_until_ms > self.now_ms && !(to_relay && person.is_heard)
        });
        let copies = if self.rng.random_bool(self.faults.duplicate) {
            self.count("duplicated frames");
            2
        } else {
            1
        };
        for _ in 0..copies {
            let latency = self.rng.random_range(1..=self.faults.latency_ms.max(1));
            let lost = self.rng.random_bool(self.faults.lose);
            if deaf || lost || self.network.is_stuck(&flight) {
                self.count("lost frames");
                let end = self.rng.random_range(1..=self.faults.doom_ms);
                self.network.lose(&flight, self.now_ms + end);
                continue;
            }
            self.network
                .push(self.now_ms + latency, self.faults.reorder, flight.clone());
        }
    }

    pub(super) fn deliver(&mut self) {
        match self.network.pop() {
            Some(Flight::ToRelay {
                conn,
                stream,
                frame,
            }) => {
                let mut inputs = Vec::new();
                self.take_question(conn, stream, frame, &mut inputs);
                while self.faults.batch && inputs.len() < MAX_BATCH {
                    let Some(Flight::ToRelay {
                        conn,
                        stream,
                        frame,
                    }) = self.network.pop_question(self.now_ms)
                    else {
                        break;
                    };
                    self.take_question(conn, stream, frame, &mut inputs);
                }
                if inputs.len() > 1 {
                    self.count("batches of several");
                }
                self.relay_step(inputs);
            }
            Some(Flight::ToDevice { conn, frame, .. }) => {
                if let Some(id) = self.network.owner(conn) {
                    self.note("frame", id.0 as u64);
                    self.watch(id, "<-", &frame);
                    if let Some(recorder) = &mut self.recorder {
                        recorder.answered(conn, &frame);
                    }
                    let wishes = self.people[id.0].frame(self.now_ms, frame);
                    self.take_wishes(id, wishes);
                }
            }
            Some(Flight::Gone { conn }) => {
                self.network.close(conn);
                self.relay_step(vec![Input::Disconnected { conn }]);
            }
            None => {}
        }
    }

    fn watch(&self, id: PersonId, way: &str, frame: &impl std::fmt::Debug) {
        const COLUMNS: usize = 300;
        if self.watched == Some(id) {
            let text: String = format!("{frame:?}").chars().take(COLUMNS).collect();
            let (elapsed, conn) = (self.elapsed_ms(), self.people[id.0].conn);
            eprintln!("{elapsed:>8} {way} {conn:?} {text}");
        }
    }

    fn take_question(
        &mut self,
        conn: ConnId,
        stream: mortise_relay::core::StreamId,
        mut frame: ClientToRelay,
        inputs: &mut Vec<Input>,
    ) {
        if self.relay.is_none() || !self.network.is_heard(conn) {
            return;
        }
        self.note("question", conn.0);
        if let (Some(liar), Some(from)) = (&mut self.liar, self.network.speaker(conn))
            && !liar.question(from, &mut frame)
        {
            return;
        }
        inputs.push(Input::Frame {
            conn,
            stream,
            frame,
        });
    }

    pub(super) fn take_wishes(&mut self, id: PersonId, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Send(frame) => {
                    self.watch(id, "->", &frame);
                    if let Some(conn) = self.people[id.0].conn {
                        if let Some(recorder) = &mut self.recorder {
                            recorder.asked(conn, &frame);
                        }
                        let stream = stream_of(&frame);
                        self.send(Flight::ToRelay {
                            conn,
                            stream,
                            frame,
                        });
                    }
                }
                Wish::Hangup => self.disconnect(id),
            }
        }
    }
}

/// A stable name for coverage.
fn refusal_name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::WrongEpoch { .. } => "WRONG_EPOCH",
        Refusal::RosterBehind { .. } => "ROSTER_BEHIND",
        Refusal::RosterConflict { .. } => "ROSTER_CONFLICT",
        Refusal::Storage => "STORAGE",
        Refusal::NotAdmitted => "NOT_ADMITTED",
        Refusal::AccessDenied => "ACCESS_DENIED",
        Refusal::UnknownGroup => "UNKNOWN_GROUP",
        Refusal::RosterFork => "ROSTER_FORK",
        Refusal::Malformed => "MALFORMED",
        Refusal::HelloFirst => "HELLO_FIRST",
        Refusal::GroupClosed => "GROUP_CLOSED",
        Refusal::RateLimited { .. } => "RATE_LIMITED",
        _ => "other refusals",
    }
}
