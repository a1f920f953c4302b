//! Frames on their way: late, lost, twice, out of order, but only while their connection lives.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use mortise_protocol::wire::{ClientToRelay, RelayToClient};
use mortise_relay::core::{ConnId, StreamId};

use super::PersonId;

/// What the network does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Probability that a frame is lost (and its question runs into its timeout).
    pub lose: f64,
    /// Probability that a frame comes twice.
    pub duplicate: f64,
    /// Whether frames of one connection may overtake each other.
    pub reorder: bool,
    /// The longest latency, ms.
    pub latency_ms: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            lose: 0.0,
            duplicate: 0.0,
            reorder: false,
            latency_ms: 5,
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
        /// What.
        frame: RelayToClient,
    },
}

impl Flight {
    fn lane(&self) -> (ConnId, bool) {
        match self {
            Self::ToRelay { conn, .. } => (*conn, true),
            Self::ToDevice { conn, .. } => (*conn, false),
        }
    }
}

#[derive(Default)]
pub(super) struct Network {
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    flights: BTreeMap<u64, Flight>,
    owners: BTreeMap<ConnId, PersonId>,
    /// When the last frame of a lane arrives, so that the next one does not overtake it.
    last: BTreeMap<(ConnId, bool), u64>,
    next: u64,
}

impl Network {
    pub(super) fn open(&mut self, conn: ConnId, owner: PersonId) {
        self.owners.insert(conn, owner);
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        self.owners.remove(&conn);
        self.flights.retain(|_, flight| flight.lane().0 != conn);
        self.last.retain(|(c, _), _| *c != conn);
    }

    pub(super) fn is_open(&self, conn: ConnId) -> bool {
        self.owners.contains_key(&conn)
    }

    pub(super) fn owner(&self, conn: ConnId) -> Option<PersonId> {
        self.owners.get(&conn).copied()
    }

    pub(super) fn push(&mut self, at_ms: u64, reorder: bool, flight: Flight) {
        let last = self.last.entry(flight.lane()).or_default();
        let at = if reorder { at_ms } else { at_ms.max(*last) };
        *last = at.max(*last);
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
        let Reverse((_, id)) = self.queue.pop()?;
        self.flights.remove(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}
