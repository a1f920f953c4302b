//! Frames on their way: late, lost, twice, out of order, but only while their connection lives.
//!
//! As on QUIC, the live and the submit stream are ordered whatever happens, and what is lost on them holds up all
//! that follows until the connection ends; every other question is a stream of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use mortise_protocol::wire::{ClientToRelay, RelayToClient, Request};
use mortise_relay::core::{ConnId, StreamId};

use super::PersonId;

/// The stream of `Hello` and of every push.
const LIVE: StreamId = StreamId(1);
/// The stream of submissions and their answers.
const SUBMIT: StreamId = StreamId(2);
/// Streams of single questions begin here.
const UNARY: u64 = 3;

/// What the network does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Probability that a frame is lost; its connection ends within [`Faults::doom_ms`].
    pub lose: f64,
    /// Probability that a frame comes twice.
    pub duplicate: f64,
    /// Whether frames of different streams of one connection may overtake each other.
    pub reorder: bool,
    /// The longest latency, ms.
    pub latency_ms: u64,
    /// How long a connection may live on after it has lost something, ms.
    pub doom_ms: u64,
    /// How late the relay may learn that a connection is gone, ms.
    pub half_open_ms: u64,
    /// Whether frames that arrive together are decided in one batch.
    pub batch: bool,
    /// Whether what was sent on a connection still arrives at the relay after its end, among the frames of the next one.
    pub stragglers: bool,
    /// How late a timer may go off, ms; frames that have come meanwhile are dealt with before it.
    pub late_timer_ms: u64,
    /// How long the relay's newest batches may stay unsynced, and their answers unsent, ms.
    pub sync_ms: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            lose: 0.0,
            duplicate: 0.0,
            reorder: false,
            latency_ms: 5,
            doom_ms: 12_000,
            half_open_ms: 0,
            batch: false,
            stragglers: false,
            late_timer_ms: 0,
            sync_ms: 0,
        }
    }
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub enum Flight {
    /// A question.
    ToRelay {
        /// On which connection.
        conn: ConnId,
        /// On which stream.
        stream: StreamId,
        /// What.
        frame: ClientToRelay,
    },
    /// An answer or a push.
    ToDevice {
        /// On which connection.
        conn: ConnId,
        /// On which stream.
        stream: StreamId,
        /// What.
        frame: RelayToClient,
    },
    /// The relay learns that a connection is gone.
    Gone {
        /// Which.
        conn: ConnId,
    },
}

/// The stream that a question goes on (DESIGN 6).
pub(super) fn stream_of(frame: &ClientToRelay) -> StreamId {
    match frame.request {
        Request::Hello { .. } => LIVE,
        Request::Submit(_) | Request::CreateGroup { .. } => SUBMIT,
        _ => StreamId(UNARY + frame.id.0),
    }
}

/// One direction of one stream.
type Lane = (ConnId, bool, StreamId);

impl Flight {
    fn lane(&self) -> Option<Lane> {
        match self {
            Self::ToRelay { conn, stream, .. } => Some((*conn, true, *stream)),
            Self::ToDevice { conn, stream, .. } => Some((*conn, false, *stream)),
            Self::Gone { .. } => None,
        }
    }

    pub(super) fn conn(&self) -> ConnId {
        match self {
            Self::ToRelay { conn, .. } | Self::ToDevice { conn, .. } | Self::Gone { conn } => *conn,
        }
    }
}

#[derive(Default)]
pub(super) struct Network {
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    flights: BTreeMap<u64, Flight>,
    owners: BTreeMap<ConnId, PersonId>,
    /// Connections that their device has left, and whose last frames still arrive.
    left: BTreeMap<ConnId, PersonId>,
    /// When the last frame of a lane arrives, so that the next one does not overtake it.
    last: BTreeMap<Lane, u64>,
    /// The same for all lanes of one direction, without reordering.
    last_of_all: BTreeMap<(ConnId, bool), u64>,
    /// Lanes that have lost something.
    stuck: BTreeSet<Lane>,
    /// When connections that have lost something end.
    doomed: BTreeMap<ConnId, u64>,
    next: u64,
}

impl Network {
    pub(super) fn open(&mut self, conn: ConnId, owner: PersonId) {
        self.owners.insert(conn, owner);
    }

    /// Ends a connection on the device's side only.
    pub(super) fn leave(&mut self, conn: ConnId) {
        if let Some(owner) = self.owners.remove(&conn) {
            self.left.insert(conn, owner);
        }
        self.doomed.remove(&conn);
        self.flights
            .retain(|_, flight| flight.conn() != conn || matches!(flight, Flight::ToRelay { .. }));
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        self.owners.remove(&conn);
        self.left.remove(&conn);
        self.doomed.remove(&conn);
        self.flights.retain(|_, flight| flight.conn() != conn);
        self.last.retain(|(c, ..), _| *c != conn);
        self.last_of_all.retain(|(c, _), _| *c != conn);
        self.stuck.retain(|(c, ..)| *c != conn);
    }

    /// Whether the relay hears what is said on it.
    pub(super) fn is_heard(&self, conn: ConnId) -> bool {
        self.owners.contains_key(&conn) || self.left.contains_key(&conn)
    }

    /// Whose questions come on it.
    pub(super) fn speaker(&self, conn: ConnId) -> Option<PersonId> {
        self.owner(conn).or_else(|| self.left.get(&conn).copied())
    }

    pub(super) fn owner(&self, conn: ConnId) -> Option<PersonId> {
        self.owners.get(&conn).copied()
    }

    /// Loses a frame, and with it what follows on its stream; the connection ends at `end_ms` at the latest.
    pub(super) fn lose(&mut self, flight: &Flight, end_ms: u64) {
        self.stuck.extend(flight.lane());
        self.doomed.entry(flight.conn()).or_insert(end_ms);
    }

    /// Whether an earlier frame of the same stream was lost.
    pub(super) fn is_stuck(&self, flight: &Flight) -> bool {
        flight.lane().is_some_and(|lane| self.stuck.contains(&lane))
    }

    /// The connection that ends next, and when.
    pub(super) fn next_doom(&self) -> Option<(u64, ConnId)> {
        self.doomed.iter().map(|(conn, at)| (*at, *conn)).min()
    }

    pub(super) fn push(&mut self, at_ms: u64, reorder: bool, flight: Flight) {
        let mut at = at_ms;
        if let Some(lane) = flight.lane() {
            let last = self.last.entry(lane).or_default();
            let all = self.last_of_all.entry((lane.0, lane.1)).or_default();
            at = at.max(*last);
            if !reorder {
                at = at.max(*all);
            }
            *last = at;
            *all = at.max(*all);
        }
        self.next += 1;
        self.queue.push(Reverse((at, self.next)));
        self.flights.insert(self.next, flight);
    }

    /// When the next frame arrives.
    pub(super) fn next_at(&mut self) -> Option<u64> {
        while let Some(Reverse((at, id))) = self.queue.peek() {
            if self.flights.contains_key(id) {
                return Some(*at);
            }
            self.queue.pop();
        }
        None
    }

    pub(super) fn pop(&mut self) -> Option<Flight> {
        self.next_at()?;
        let Reverse((_, id)) = self.queue.pop()?;
        self.flights.remove(&id)
    }

    /// The next frame, if it is a question that has arrived.
    pub(super) fn pop_question(&mut self, now_ms: u64) -> Option<Flight> {
        self.next_at().filter(|at| *at <= now_ms)?;
        let Reverse((_, id)) = self.queue.peek()?;
        match self.flights.get(id) {
            Some(Flight::ToRelay { .. }) => self.pop(),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}
