//! A world on one seeded clock: many devices, one relay core, a network between them.
//!
//! Everything that runs here is the product's own code; the world only moves frames, time and faults.
//! It must never read a clock or draw from any randomness but its seed.

mod network;
mod person;
mod talk;

use std::collections::BTreeMap;

use mortise_protocol::engine::{Event, IntentId};
use mortise_protocol::identity::{
    ClaimLink, Hash, InvitationSecret, PublicKey, SigningKey, sha256,
};
use mortise_protocol::roster::Role;
use mortise_protocol::store::MemoryStore;
use mortise_protocol::wire::{ConnectionBinding, RelayToClient};
use mortise_relay::core::{ConnId, Core, CoreConfig, Input, Output, StreamId};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

pub use network::{Faults, Flight};
pub use person::{Person, PersonId};
pub use talk::wall_clock_ms;

use network::Network;

/// What a relay is called in links of this world.
pub const ADDRESS: &str = "relay.test:4433";

/// The world.
pub struct World {
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// The only randomness there is.
    pub rng: ChaCha12Rng,
    /// Everybody, in or out.
    pub people: Vec<Person>,
    /// What the network does to frames.
    pub faults: Faults,
    /// The relay's disk.
    pub disk: MemoryStore,
    /// The relay; `None` while it is down.
    pub relay: Option<Core>,
    config: CoreConfig,
    network: Network,
    next_conn: u64,
}

impl World {
    /// A world with a relay and nobody.
    ///
    /// # Panics
    /// When an empty relay does not start.
    #[must_use]
    pub fn new(seed: u64, now_ms: u64) -> Self {
        let statement = SigningKey::from_seed(&[9; 32]);
        let config = CoreConfig::new(statement.public());
        let disk = MemoryStore::default();
        let relay = Core::load(&disk, config).expect("an empty relay starts");
        Self {
            now_ms,
            rng: ChaCha12Rng::seed_from_u64(seed),
            people: Vec::new(),
            faults: Faults::default(),
            disk,
            relay: Some(relay),
            config,
            network: Network::default(),
            next_conn: 0,
        }
    }

    /// The relay's statement key.
    #[must_use]
    pub fn statement_key(&self) -> PublicKey {
        self.config.statement_key
    }

    /// A randomness of its own for somebody.
    pub fn fork_rng(&mut self) -> Box<ChaCha12Rng> {
        Box::new(ChaCha12Rng::from_rng(&mut self.rng))
    }

    /// Founds the organisation; the founder is person 0 and is online.
    ///
    /// # Panics
    /// When founding fails.
    pub fn found(&mut self, name: &str, suite: u16) -> PersonId {
        let token = InvitationSecret::random(&mut self.rng);
        let relay = self.relay.as_mut().expect("the relay is up");
        relay
            .add_claim_token(&mut self.disk, sha256(token.dangerous_bytes()))
            .expect("a claim token");
        let claim = ClaimLink {
            relay: ADDRESS.into(),
            relay_key: Hash([0; 32]),
            statement_key: self.config.statement_key,
            token,
        };
        let rng = self.fork_rng();
        let person = Person::found(name, &claim, suite, rng, self.now_ms);
        self.admit(person)
    }

    /// Lets `inviter` invite somebody, who joins at once; everything is delivered in between.
    ///
    /// # Panics
    /// When that does not work.
    pub fn invite(&mut self, inviter: PersonId, name: &str, role: Role) -> PersonId {
        let expires_at_ms = self.now_ms + 86_400_000;
        let kind = mortise_protocol::engine::CommandKind::InviteUser {
            name: name.into(),
            role,
            expires_at_ms,
        };
        let id = self.command(inviter, kind);
        self.settle();
        let link = self.people[inviter.0]
            .events
            .iter()
            .find_map(|event| match event {
                Event::Invited { id: i, link, .. } if *i == id => {
                    Some(link.to_text(ADDRESS, Hash([0; 32])))
                }
                _ => None,
            })
            .expect("an invitation");
        let rng = self.fork_rng();
        let person = Person::join(name, &link, rng);
        let person = self.admit(person);
        self.settle();
        person
    }

    fn admit(&mut self, person: Person) -> PersonId {
        let id = PersonId(self.people.len());
        self.people.push(person);
        self.connect(id);
        self.settle();
        // The admission is over; the engine connects by itself.
        if self.people[id.0].conn.is_none() {
            self.connect(id);
        }
        self.settle();
        id
    }

    /// Opens a connection for somebody, if the relay is up and nothing is in the way.
    pub fn connect(&mut self, id: PersonId) {
        if self.relay.is_none() || self.people[id.0].conn.is_some() {
            return;
        }
        if self.people[id.0].cut_until_ms > self.now_ms {
            return;
        }
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let mut binding = [0; 32];
        self.rng.fill_bytes(&mut binding);
        let binding = ConnectionBinding(binding);
        let Some(transport_key) = self.people[id.0].transport_key() else {
            return;
        };
        self.people[id.0].conn = Some(conn);
        self.network.open(conn, id);
        self.relay_step(vec![Input::Connected {
            conn,
            transport_key,
            binding,
        }]);
        let frames = self.people[id.0].connected(self.now_ms, binding);
        self.take_outputs(id, frames);
    }

    /// Breaks somebody's connection; both sides notice.
    pub fn disconnect(&mut self, id: PersonId) {
        let Some(conn) = self.people[id.0].conn.take() else {
            return;
        };
        self.network.close(conn);
        if self.relay.is_some() {
            self.relay_step(vec![Input::Disconnected { conn }]);
        }
        let outputs = self.people[id.0].disconnected(self.now_ms);
        self.take_outputs(id, outputs);
    }

    /// Gives somebody a command and returns its id.
    pub fn command(
        &mut self,
        id: PersonId,
        kind: mortise_protocol::engine::CommandKind,
    ) -> IntentId {
        let (intent, outputs) = self.people[id.0].command(self.now_ms, kind);
        self.take_outputs(id, outputs);
        intent
    }

    /// Takes the relay down, as SIGKILL would; what it had stored stays.
    pub fn stop_relay(&mut self) {
        self.relay = None;
        for i in 0..self.people.len() {
            self.disconnect(PersonId(i));
        }
    }

    /// Starts the relay from its disk.
    ///
    /// # Panics
    /// When the disk does not load.
    pub fn start_relay(&mut self) {
        self.relay = Some(Core::load(&self.disk, self.config).expect("the relay starts again"));
    }

    /// Kills somebody's process and starts it again from what it had stored.
    pub fn restart_person(&mut self, id: PersonId) {
        self.disconnect(id);
        let rng = self.fork_rng();
        self.people[id.0].restart(rng);
    }

    /// Delivers the next frame or lets the next timer go off; `false` when nothing is on its way before `until_ms`.
    pub fn advance(&mut self, until_ms: u64) -> bool {
        let timer = self
            .people
            .iter()
            .enumerate()
            .filter_map(|(i, p)| Some((p.next_timer()?, PersonId(i))))
            .min();
        let frame = self.network.next_at();
        match (frame, timer) {
            (Some(at), timer) if at <= until_ms && timer.is_none_or(|(t, _)| at <= t) => {
                self.now_ms = self.now_ms.max(at);
                self.deliver();
                true
            }
            (_, Some((at, id))) if at <= until_ms => {
                self.now_ms = self.now_ms.max(at);
                if self.people[id.0].take_reconnect(self.now_ms) {
                    self.connect(id);
                } else {
                    let outputs = self.people[id.0].tick(self.now_ms);
                    self.take_outputs(id, outputs);
                }
                true
            }
            _ => {
                self.now_ms = self.now_ms.max(until_ms);
                false
            }
        }
    }

    /// Runs until this time.
    pub fn run_until(&mut self, until_ms: u64) {
        while self.advance(until_ms) {}
    }

    /// Runs until nothing is on its way, at most a minute of the world's time.
    pub fn settle(&mut self) {
        let limit = self.now_ms + 60_000;
        while !self.is_quiet() && self.advance(limit) {}
    }

    /// Whether no frame is on its way and everybody who is connected is synced.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.network.is_empty() && self.people.iter().all(Person::is_quiet)
    }

    fn deliver(&mut self) {
        match self.network.pop() {
            Some(Flight::ToRelay {
                conn,
                stream,
                frame,
            }) if self.relay.is_some() && self.network.is_open(conn) => {
                self.relay_step(vec![Input::Frame {
                    conn,
                    stream,
                    frame,
                }]);
            }
            Some(Flight::ToDevice { conn, frame }) => {
                if let Some(id) = self.network.owner(conn) {
                    self.deliver_to(id, frame);
                }
            }
            Some(Flight::ToRelay { .. }) | None => {}
        }
    }

    fn deliver_to(&mut self, id: PersonId, frame: RelayToClient) {
        let outputs = self.people[id.0].frame(self.now_ms, frame);
        self.take_outputs(id, outputs);
    }

    /// One step of the relay, and its answers on their way.
    pub fn relay_step(&mut self, inputs: Vec<Input>) {
        let Some(relay) = &mut self.relay else { return };
        for output in relay.step(&mut self.disk, self.now_ms, inputs) {
            match output {
                Output::Send { conn, frame, .. } => {
                    self.send(Flight::ToDevice { conn, frame });
                }
                Output::Close { conn, .. } => {
                    if let Some(id) = self.network.owner(conn) {
                        self.network.close(conn);
                        self.people[id.0].conn = None;
                        let outputs = self.people[id.0].disconnected(self.now_ms);
                        self.take_outputs(id, outputs);
                    }
                }
            }
        }
    }

    fn send(&mut self, flight: Flight) {
        let copies = if self.rng.random_bool(self.faults.duplicate) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.rng.random_bool(self.faults.lose) {
                continue;
            }
            let latency = self.rng.random_range(1..=self.faults.latency_ms.max(1));
            self.network
                .push(self.now_ms + latency, self.faults.reorder, flight.clone());
        }
    }

    fn take_outputs(&mut self, id: PersonId, outputs: Vec<person::Wish>) {
        for output in outputs {
            match output {
                person::Wish::Send(frame) => {
                    if let Some(conn) = self.people[id.0].conn {
                        let stream = StreamId(frame.id.0);
                        self.send(Flight::ToRelay {
                            conn,
                            stream,
                            frame,
                        });
                    }
                }
                person::Wish::Hangup => self.disconnect(id),
            }
        }
    }

    /// How many of each event everybody has seen, for coverage.
    #[must_use]
    pub fn event_counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for event in self.people.iter().flat_map(|p| &p.events) {
            *counts.entry(person::event_name(event)).or_default() += 1;
        }
        counts
    }
}
