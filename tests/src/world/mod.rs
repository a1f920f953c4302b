//! A world on one seeded clock: many devices, one relay core, a network between them.
//!
//! Everything that runs here is the product's own code; the world only moves frames, time and faults.
//! It must never read a clock or draw from any randomness but its seed.

mod crowd;
mod disk;
mod liar;
mod line;
mod network;
mod person;
mod relay;
mod talk;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::engine::{CommandKind, Event, IntentId, PinChoice};
use mortise_protocol::identity::{
    ClaimLink, DeviceId, Epoch, GroupId, Hash, InvitationSecret, LogSeq, OrgId, Pin, PublicKey,
    RosterSeq, SigningKey, sha256,
};
use mortise_protocol::roster::Role;
use mortise_protocol::store::MemoryStore;
use mortise_protocol::wire::{ConnectionBinding, RelayToClient};
use mortise_relay::core::{ConnId, Core, CoreConfig, Input, Output};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

pub use disk::{Disk, DiskFault, Tamper};
pub use liar::Liar;
pub use network::{Faults, Flight};
pub use person::{Person, PersonId};
pub use talk::{log_cursor, log_cursor_after, wall_clock_ms};
pub use template::Template;

use crate::history::Recorder;
use network::Network;

/// What a relay is called in links of this world.
pub const ADDRESS: &str = "relay.test:4433";

/// A record that the relay has sent to somebody.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// To whom.
    pub to: PersonId,
    /// The group.
    pub group: GroupId,
    /// Where in its log.
    pub seq: LogSeq,
    /// With which fence.
    pub fence: RosterSeq,
}

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
    pub disk: Disk,
    /// The relay; `None` while it is down.
    pub relay: Option<Core>,
    /// When a relay that is down comes back, ms since 1970.
    pub relay_returns_ms: Option<u64>,
    /// The relay dies when its next batch has been stored, and before anything is answered.
    pub relay_dies_after_batch: bool,
    /// A planted bug: no timer goes off.
    pub loses_timers: bool,
    /// A planted bug.
    pub liar: Option<Box<dyn Liar>>,
    /// What has happened, for coverage.
    pub counts: BTreeMap<&'static str, u64>,
    /// Records that were sent to somebody since this was last emptied.
    pub served: Vec<Served>,
    /// A hash over who did what when: equal for equal seeds.
    pub trace: u64,
    /// Whose frames are printed on stderr.
    pub watched: Option<PersonId>,
    /// Who writes down what clients ask and are told.
    pub recorder: Option<Recorder>,
    /// What came unasked on lines that somebody listens on, and which of them the relay has cut.
    tapped: BTreeMap<ConnId, Vec<RelayToClient>>,
    cut_lines: BTreeSet<ConnId>,
    /// When the relay's held writes are synced, ms since 1970, and what it says then.
    sync_at_ms: Option<u64>,
    unsaid: Vec<Output>,
    started_ms: u64,
    config: CoreConfig,
    network: Network,
    /// Which devices have submitted a commit for an epoch.
    commits: BTreeMap<(GroupId, Epoch), BTreeSet<DeviceId>>,
    next_conn: u64,
    /// What came on lines that somebody is asking on.
    heard: BTreeMap<ConnId, Vec<RelayToClient>>,
}

impl World {
    /// A world with a relay and nobody.
    ///
    /// # Panics
    /// When an empty relay does not start.
    #[must_use]
    pub fn new(seed: u64, now_ms: u64) -> Self {
        Self::on_disk(seed, now_ms, Disk::default())
    }

    fn on_disk(seed: u64, now_ms: u64, disk: Disk) -> Self {
        let statement = SigningKey::from_seed(&[9; 32]);
        let config = CoreConfig::new(statement);
        let relay = Core::load(&disk, config.clone()).expect("a relay starts on a good disk");
        Self {
            now_ms,
            rng: ChaCha12Rng::seed_from_u64(seed),
            people: Vec::new(),
            faults: Faults::default(),
            disk,
            relay: Some(relay),
            relay_returns_ms: None,
            relay_dies_after_batch: false,
            loses_timers: false,
            liar: None,
            counts: BTreeMap::new(),
            served: Vec::new(),
            trace: 0,
            watched: None,
            recorder: None,
            tapped: BTreeMap::new(),
            cut_lines: BTreeSet::new(),
            sync_at_ms: None,
            unsaid: Vec::new(),
            started_ms: now_ms,
            config,
            network: Network::default(),
            commits: BTreeMap::new(),
            next_conn: 0,
            heard: BTreeMap::new(),
        }
    }

    /// The relay's statement key.
    #[must_use]
    pub fn statement_key(&self) -> PublicKey {
        self.config.statement_key.public()
    }

    /// Counts something.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Time since the world began, ms.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.now_ms - self.started_ms
    }

    /// Notes a step of the schedule (FNV-1a over what is the same in every run of a seed).
    fn note(&mut self, what: &str, who: u64) {
        let elapsed = self.elapsed_ms();
        let bytes = what
            .bytes()
            .chain(who.to_be_bytes())
            .chain(elapsed.to_be_bytes());
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
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
            statement_key: self.config.statement_key.public(),
            token,
        };
        let seed = self.rng.next_u64();
        let person = Person::found(name, &claim, suite, seed, self.now_ms);
        self.admit(person)
    }

    /// Lets `inviter` invite somebody, who joins at once; everything is delivered in between.
    ///
    /// # Panics
    /// When that does not work.
    pub fn invite(&mut self, inviter: PersonId, name: &str, role: Role) -> PersonId {
        let expires_at_ms = self.now_ms + 86_400_000;
        let kind = CommandKind::InviteUser {
            name: name.into(),
            role,
            expires_at_ms,
            pin: PinChoice::Policy,
        };
        self.invite_by(inviter, name, kind)
    }

    /// Lets `owner` set up a further device, which joins at once; everything is delivered in between.
    ///
    /// # Panics
    /// When that does not work.
    pub fn add_device(&mut self, owner: PersonId, name: &str) -> PersonId {
        let expires_at_ms = self.now_ms + 86_400_000;
        self.invite_by(
            owner,
            name,
            CommandKind::InviteDevice {
                expires_at_ms,
                pin: PinChoice::Policy,
            },
        )
    }

    fn invite_by(&mut self, inviter: PersonId, name: &str, kind: CommandKind) -> PersonId {
        let id = self.command(inviter, kind);
        self.settle();
        let (link, pin) = self.invitation(inviter, id).expect("an invitation");
        let seed = self.rng.next_u64();
        let person = Person::join(name, &link, pin.as_ref(), seed);
        let person = self.admit(person);
        self.settle();
        person
    }

    /// The link and the PIN that somebody's command has made.
    #[must_use]
    pub fn invitation(&self, by: PersonId, id: IntentId) -> Option<(String, Option<Pin>)> {
        let mut events = self.people[by.0].events.iter();
        events.find_map(|event| match event {
            Event::Invited {
                id: i, link, pin, ..
            } if *i == id => {
                let text = link.to_text(ADDRESS, Hash([0; 32]));
                Some((text.to_string(), pin.clone()))
            }
            _ => None,
        })
    }

    /// Lets somebody recover the organisation with its root key, and waits for quiet.
    ///
    /// # Panics
    /// When that does not work.
    pub fn recover(&mut self, name: &str, org: OrgId, root: SigningKey) -> PersonId {
        let seed = self.rng.next_u64();
        self.admit(Person::recover(name, org, root, seed))
    }

    fn admit(&mut self, person: Person) -> PersonId {
        let id = self.enter(person);
        self.settle();
        assert!(
            self.people[id.0].is_in(),
            "{} is not admitted: {:?}",
            self.people[id.0].name,
            self.people[id.0].refused
        );
        id
    }

    /// Somebody appears with a device that was set up before: from a backup.
    pub fn restore(&mut self, name: &str, store: MemoryStore) -> PersonId {
        let seed = self.rng.next_u64();
        self.enter(Person::restore(name, store, seed))
    }

    fn enter(&mut self, person: Person) -> PersonId {
        let id = PersonId(self.people.len());
        self.people.push(person);
        self.people[id.0].reconnect_at(self.now_ms);
        id
    }

    /// Somebody with an invitation appears and begins to join.
    pub fn start_join(&mut self, name: &str, link: &str) -> PersonId {
        self.start_join_with_pin(name, link, None)
    }

    /// Somebody with an invitation and a PIN appears and begins to join.
    pub fn start_join_with_pin(&mut self, name: &str, link: &str, pin: Option<&Pin>) -> PersonId {
        let seed = self.rng.next_u64();
        self.enter(Person::join(name, link, pin, seed))
    }

    /// Opens a connection for somebody, if the relay is up and nothing is in the way.
    pub fn connect(&mut self, id: PersonId) {
        if self.relay.is_none() || self.people[id.0].conn.is_some() {
            return;
        }
        if self.people[id.0].cut_until_ms > self.now_ms {
            return;
        }
        let Some(transport_key) = self.people[id.0].transport_key() else {
            return;
        };
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let mut binding = [0; 32];
        self.rng.fill_bytes(&mut binding);
        let binding = ConnectionBinding(binding);
        self.people[id.0].conn = Some(conn);
        self.network.open(conn, id);
        if let Some(recorder) = &mut self.recorder {
            recorder.connected(conn, self.people[id.0].device());
        }
        self.count("connections");
        self.relay_step(vec![Input::Connected {
            conn,
            transport_key,
            binding,
        }]);
        let wishes = self.people[id.0].connected(self.now_ms, binding);
        self.take_wishes(id, wishes);
    }

    /// Breaks somebody's connection; they notice, and the relay does sooner or later.
    pub fn disconnect(&mut self, id: PersonId) {
        let Some(conn) = self.people[id.0].conn.take() else {
            return;
        };
        let late = self.rng.random_range(0..=self.faults.half_open_ms);
        if self.relay.is_none() || late == 0 || !self.faults.stragglers {
            self.network.close(conn);
        } else {
            self.count("connections with stragglers");
            self.network.leave(conn);
        }
        if self.relay.is_none() {
        } else if late == 0 {
            self.relay_step(vec![Input::Disconnected { conn }]);
        } else {
            self.network
                .push(self.now_ms + late, true, Flight::Gone { conn });
        }
        let wishes = self.people[id.0].disconnected(self.now_ms);
        self.take_wishes(id, wishes);
    }

    /// Gives somebody a command and returns its id; `Person::took_last` says whether it was stored.
    pub fn command(&mut self, id: PersonId, kind: CommandKind) -> IntentId {
        self.note("command", id.0 as u64);
        let (intent, wishes) = self.people[id.0].command(self.now_ms, kind);
        let took = self.people[id.0].took_last;
        self.take_wishes(id, wishes);
        self.people[id.0].took_last = took;
        intent
    }

    /// Switches somebody's device off.
    pub fn put_to_sleep(&mut self, id: PersonId) {
        self.people[id.0].asleep = true;
        self.disconnect(id);
    }

    /// Switches somebody's device on again.
    pub fn wake(&mut self, id: PersonId) {
        self.people[id.0].asleep = false;
        self.people[id.0].reconnect_at(self.now_ms);
    }

    /// Kills somebody's process and starts it again from what it had stored.
    pub fn restart_person(&mut self, id: PersonId) {
        self.disconnect(id);
        self.people[id.0].restart();
    }

    /// Ends every fault, every partition and every connection that has lost something; wakes nobody.
    pub fn heal(&mut self) {
        self.faults = Faults::default();
        self.relay_dies_after_batch = false;
        self.sync_relay();
        self.disk.heal();
        if self.relay.as_ref().is_none_or(Core::is_stopped) {
            self.stop_relay();
            self.start_relay();
        }
        while let Some((_, conn)) = self.network.next_doom() {
            self.end(conn);
        }
        for id in (0..self.people.len()).map(PersonId) {
            let person = &mut self.people[id.0];
            person.cut_until_ms = 0;
            person.deaf_until_ms = 0;
            person.timer_late_ms = 0;
            person.dies_after_step = false;
            if person.is_in() {
                person.engine_mut().store_mut().heal();
            }
        }
    }

    fn end(&mut self, conn: ConnId) {
        match self.network.owner(conn) {
            Some(id) => self.disconnect(id),
            None => self.network.close(conn),
        }
    }

    /// Delivers the next frame or lets the next timer go off; `false` when nothing happens before `until_ms`.
    pub fn advance(&mut self, until_ms: u64) -> bool {
        let timer = self.next_timer();
        let frame = self.network.next_at();
        let doom = self.network.next_doom();
        let first = [
            self.relay_returns_ms,
            self.sync_at_ms,
            doom.map(|d| d.0),
            frame,
            timer.map(|t| t.0),
        ];
        let next = first.iter().flatten().min().copied();
        let Some(at) = next.filter(|at| *at <= until_ms) else {
            self.now_ms = self.now_ms.max(until_ms);
            return false;
        };
        self.now_ms = self.now_ms.max(at);
        if first[0] == Some(at) {
            self.start_relay();
        } else if first[1] == Some(at) {
            self.sync_relay();
        } else if let Some((_, conn)) = doom.filter(|d| d.0 == at) {
            self.count("broken connections");
            self.end(conn);
        } else if frame == Some(at) {
            self.deliver();
        } else if let Some((_, id)) = timer {
            self.let_timer_go_off(id);
        }
        true
    }

    /// Whose timer goes off next, and when, ms since 1970.
    #[must_use]
    pub fn next_timer(&self) -> Option<(u64, PersonId)> {
        let people = self.people.iter().enumerate();
        people
            .filter_map(|(i, p)| Some((p.next_timer()?, PersonId(i))))
            .min()
    }

    fn let_timer_go_off(&mut self, id: PersonId) {
        if self.people[id.0].timer_late_ms > 0 {
            self.count("late timers");
        }
        self.people[id.0].timer_late_ms = match self.faults.late_timer_ms {
            0 => 0,
            longest => self.rng.random_range(0..=longest),
        };
        if self.people[id.0].take_reconnect(self.now_ms) {
            self.connect(id);
        } else if self.loses_timers {
            self.people[id.0].forget_timer();
        } else {
            self.note("tick", id.0 as u64);
            let wishes = self.people[id.0].tick(self.now_ms);
            self.take_wishes(id, wishes);
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

    /// Whether no frame is on its way and everybody who is awake is connected and synced.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.network.is_empty()
            && self.unsaid.is_empty()
            && self.people.iter().all(Person::is_quiet)
    }

    /// How many of each event everybody has seen, for coverage.
    #[must_use]
    pub fn event_counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for event in self.people.iter().flat_map(|p| &p.events) {
            *counts.entry(person::event_name(event)).or_default() += 1;
        }
        counts
    }
}
