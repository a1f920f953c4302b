//! Somebody with one device: an admission first, an engine afterwards, and a memory of what it was told.

use mortise_protocol::engine::{
    Admission, AdmissionStep, Command, CommandKind, Engine, EngineError, Event, Input, IntentId,
    Output, RelayAddress, save_identity,
};
use mortise_protocol::identity::{
    ClaimLink, DeviceId, Hash, JoinLink, OrgId, Pin, PublicKey, SigningKey, UserId,
};
use mortise_protocol::store::MemoryStore;
use mortise_protocol::wire::{ClientToRelay, ConnectionBinding, RelayToClient};
use mortise_relay::core::ConnId;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Disk;

/// How long somebody who joins waits for an answer, ms.
const JOIN_TIMEOUT_MS: u64 = 10_000;
/// How long somebody without a connection waits before the next try, ms.
const RECONNECT_MS: u64 = 200;

/// An index into `World::people`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId(pub usize);

/// What a person wants of the network.
pub(super) enum Wish {
    Send(ClientToRelay),
    Hangup,
}

enum Stage {
    Joining(Box<Admission>, Box<Disk>),
    In(Box<Engine<Disk>>),
    /// Only while it changes.
    Between,
}

/// Somebody.
pub struct Person {
    /// What they are called; must never reach the relay.
    pub name: String,
    /// Their connection.
    pub conn: Option<ConnId>,
    /// Until when no connection can be made, ms since 1970.
    pub cut_until_ms: u64,
    /// Until when frames are lost on the way, ms since 1970.
    pub deaf_until_ms: u64,
    /// Whether what this device sends arrives all the same while it is deaf.
    pub is_heard: bool,
    /// How far this device's clock is from the world's, ms.
    pub skew_ms: i64,
    /// How late the next timer goes off, ms.
    pub(super) timer_late_ms: u64,
    /// Switched off.
    pub asleep: bool,
    /// Everything that their engine has said.
    pub events: Vec<Event>,
    /// The root key, for the founder.
    pub root: Option<SigningKey>,
    /// Failed admission, if so.
    pub refused: Option<String>,
    /// A defect that the engine has named; the device does nothing any more.
    pub broken: Option<String>,
    /// How often a step failed in the store.
    pub crashes: usize,
    /// Which calls of its store were the first to fail, by number from when that was planned.
    pub failed_calls: Vec<u64>,
    /// How often the device was started.
    pub lives: u64,
    /// The process dies when the next step has been stored, and before anything is sent.
    pub dies_after_step: bool,
    /// Whether the last input was stored.
    pub took_last: bool,
    seed: u64,
    stage: Stage,
    wake_ms: Option<u64>,
    reconnect_ms: Option<u64>,
}

impl Person {
    fn new(name: &str, seed: u64, stage: Stage) -> Self {
        Self {
            name: name.into(),
            conn: None,
            cut_until_ms: 0,
            deaf_until_ms: 0,
            is_heard: false,
            skew_ms: 0,
            timer_late_ms: 0,
            asleep: false,
            events: Vec::new(),
            root: None,
            refused: None,
            broken: None,
            crashes: 0,
            failed_calls: Vec::new(),
            lives: 1,
            dies_after_step: false,
            took_last: true,
            seed,
            stage,
            wake_ms: None,
            reconnect_ms: None,
        }
    }

    /// The randomness of this person's n-th life.
    fn rng(seed: u64, life: u64) -> ChaCha12Rng {
        ChaCha12Rng::seed_from_u64(seed ^ life.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn joining(name: &str, seed: u64, admission: Admission) -> Self {
        let mut disk = Disk::default();
        save_identity(&mut disk, admission.identity()).expect("an identity is saved");
        Self::new(
            name,
            seed,
            Stage::Joining(Box::new(admission), Box::new(disk)),
        )
    }

    pub(super) fn found(name: &str, claim: &ClaimLink, suite: u16, seed: u64, now_ms: u64) -> Self {
        let mut rng = Self::rng(seed, 0);
        let (admission, root) = Admission::found(claim, name, suite, &mut rng, now_ms);
        let mut this = Self::joining(name, seed, admission);
        this.root = Some(root);
        this
    }

    pub(super) fn join(name: &str, link: &str, pin: Option<&Pin>, seed: u64) -> Self {
        let link = JoinLink::parse(link).expect("a link of this world");
        let admission = Admission::join_with_pin(link, pin, &mut Self::rng(seed, 0));
        Self::joining(name, seed, admission)
    }

    pub(super) fn recover(name: &str, org: OrgId, root: SigningKey, seed: u64) -> Self {
        let relay = RelayAddress {
            address: super::ADDRESS.into(),
            key: Hash([0; 32]),
        };
        let rng = &mut Self::rng(seed, 0);
        let admission = Admission::recover(relay, org, root, name, rng).expect("the root key");
        Self::joining(name, seed, admission)
    }

    /// Somebody whose device was set up before.
    pub(super) fn restore(name: &str, store: MemoryStore, seed: u64) -> Self {
        let engine = Engine::open(Disk::from(store), Box::new(Self::rng(seed, 1)))
            .expect("an engine opens on a good store");
        Self::new(name, seed, Stage::In(Box::new(engine)))
    }

    /// The engine.
    ///
    /// # Panics
    /// Before the admission is over.
    #[must_use]
    pub fn engine(&self) -> &Engine<Disk> {
        match &self.stage {
            Stage::In(engine) => engine,
            _ => panic!("{} is not admitted", self.name),
        }
    }

    /// The engine.
    ///
    /// # Panics
    /// Before the admission is over.
    pub fn engine_mut(&mut self) -> &mut Engine<Disk> {
        match &mut self.stage {
            Stage::In(engine) => engine,
            _ => panic!("{} is not admitted", self.name),
        }
    }

    /// Whether there is an engine.
    #[must_use]
    pub fn is_in(&self) -> bool {
        matches!(self.stage, Stage::In(_))
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.engine().user()
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        match &self.stage {
            Stage::Joining(admission, _) => admission.identity().device,
            _ => self.engine().device(),
        }
    }

    pub(super) fn transport_key(&self) -> Option<PublicKey> {
        if self.asleep || self.refused.is_some() || self.broken.is_some() {
            return None;
        }
        match &self.stage {
            Stage::Joining(admission, _) => Some(admission.transport_key().public()),
            Stage::In(engine) if engine.is_expelled() => None,
            Stage::In(engine) => Some(engine.transport_key().public()),
            Stage::Between => None,
        }
    }

    /// Whether this person waits for nothing.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        if self.asleep || self.refused.is_some() || self.broken.is_some() {
            return true;
        }
        match &self.stage {
            Stage::In(engine) => {
                engine.is_expelled() || (self.conn.is_some() && engine.is_synced())
            }
            _ => false,
        }
    }

    pub(super) fn next_timer(&self) -> Option<u64> {
        let wake = self
            .wake_ms
            .filter(|_| self.conn.is_some())
            .map(|at| at.saturating_add(self.timer_late_ms));
        let reconnect = self
            .reconnect_ms
            .filter(|_| self.conn.is_none() && self.transport_key().is_some())
            .map(|at| at.max(self.cut_until_ms));
        wake.into_iter()
            .chain(reconnect)
            .min()
            .filter(|_| !self.asleep)
    }

    pub(super) fn take_reconnect(&mut self, now_ms: u64) -> bool {
        if self.conn.is_some() {
            return false;
        }
        self.reconnect_at(now_ms + RECONNECT_MS);
        true
    }

    pub(super) fn reconnect_at(&mut self, at_ms: u64) {
        self.reconnect_ms = Some(at_ms);
    }

    pub(super) fn connected(&mut self, now_ms: u64, binding: ConnectionBinding) -> Vec<Wish> {
        match &mut self.stage {
            Stage::Joining(admission, _) => {
                self.wake_ms = Some(now_ms + JOIN_TIMEOUT_MS);
                admission.start().into_iter().map(Wish::Send).collect()
            }
            Stage::In(_) => self.input(now_ms, Input::Connected(binding)),
            Stage::Between => Vec::new(),
        }
    }

    pub(super) fn disconnected(&mut self, now_ms: u64) -> Vec<Wish> {
        self.reconnect_at(now_ms + RECONNECT_MS);
        self.wake_ms = None;
        match &self.stage {
            Stage::In(_) => self.input(now_ms, Input::Disconnected),
            _ => Vec::new(),
        }
    }

    pub(super) fn forget_timer(&mut self) {
        self.wake_ms = None;
    }

    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<Wish> {
        self.wake_ms = None;
        if matches!(self.stage, Stage::Joining(..)) {
            return vec![Wish::Hangup];
        }
        self.input(now_ms, Input::Tick)
    }

    pub(super) fn command(&mut self, now_ms: u64, kind: CommandKind) -> (IntentId, Vec<Wish>) {
        let id = self.engine_mut().next_intent();
        let wishes = self.input(now_ms, Input::Command(Command { id, kind }));
        (id, wishes)
    }

    /// Gives the engine a frame, whoever it is from.
    pub(super) fn frame(&mut self, now_ms: u64, frame: RelayToClient) -> Vec<Wish> {
        let Stage::Joining(admission, _) = &mut self.stage else {
            return self.input(now_ms, Input::Frame(frame));
        };
        match admission.handle_frame(now_ms, frame) {
            Ok(AdmissionStep::Wait) => Vec::new(),
            Ok(AdmissionStep::Send(frames)) => frames.into_iter().map(Wish::Send).collect(),
            Ok(AdmissionStep::Admitted) => {
                if let Stage::Joining(admission, mut disk) =
                    std::mem::replace(&mut self.stage, Stage::Between)
                {
                    save_identity(disk.as_mut(), admission.identity())
                        .expect("an identity is saved");
                    let rng = Box::new(Self::rng(self.seed, self.lives));
                    let engine = Engine::open(*disk, rng).expect("an engine opens");
                    self.stage = Stage::In(Box::new(engine));
                }
                vec![Wish::Hangup]
            }
            Err(error) => {
                self.refused = Some(error.to_string());
                vec![Wish::Hangup]
            }
        }
    }

    /// Starts the device again from what it had stored.
    pub(super) fn restart(&mut self) {
        self.dies_after_step = false;
        if let Stage::In(engine) = std::mem::replace(&mut self.stage, Stage::Between) {
            self.lives += 1;
            let rng = Box::new(Self::rng(self.seed, self.lives));
            let mut disk = engine.into_store();
            disk.heal();
            disk.lose_last_batch();
            match Engine::open(disk, rng) {
                Ok(engine) => self.stage = Stage::In(Box::new(engine)),
                Err(error) => panic!("{} does not start again: {error}", self.name),
            }
        }
    }

    fn input(&mut self, now_ms: u64, input: Input) -> Vec<Wish> {
        let Stage::In(engine) = &mut self.stage else {
            return Vec::new();
        };
        if self.broken.is_some() {
            return Vec::new();
        }
        engine.store_mut().work(true);
        let result = engine.handle(now_ms.saturating_add_signed(self.skew_ms), input);
        engine.store_mut().work(false);
        self.took_last = result.is_ok();
        match result {
            Ok(outputs) => self.act(outputs),
            Err(EngineError::Store(_)) => {
                self.fail(now_ms);
                vec![Wish::Hangup]
            }
            Err(error) => {
                self.broken = Some(error.to_string());
                vec![Wish::Hangup]
            }
        }
    }

    /// A planned failure: every other time the process dies, else it goes on from what is stored.
    fn fail(&mut self, now_ms: u64) {
        self.crashes += 1;
        if let Stage::In(engine) = &mut self.stage {
            self.failed_calls.extend(engine.store_mut().failed_call());
        }
        if self.crashes % 2 == 1 {
            self.restart();
        } else if let Stage::In(engine) = &mut self.stage {
            engine.store_mut().heal();
            let now_ms = now_ms.saturating_add_signed(self.skew_ms);
            if let Err(error) = engine.handle(now_ms, Input::Disconnected) {
                self.broken = Some(error.to_string());
            }
        }
    }

    fn act(&mut self, outputs: Vec<Output>) -> Vec<Wish> {
        let dies = self.dies_after_step && !outputs.is_empty();
        let mut wishes = Vec::new();
        for output in outputs {
            match output {
                Output::Send(frame) => wishes.push(Wish::Send(frame)),
                Output::Reconnect => wishes.push(Wish::Hangup),
                Output::Wake(at) => {
                    self.wake_ms = Some(at.saturating_add_signed(self.skew_ms.saturating_neg()));
                }
                Output::Event(event) => self.events.push(event),
            }
        }
        if dies {
            self.restart();
            wishes = vec![Wish::Hangup];
        }
        wishes
    }
}

/// A stable name for coverage.
pub(super) fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Online => "online",
        Event::Synced => "synced",
        Event::Expelled => "expelled",
        Event::RosterChanged { .. } => "roster",
        Event::DirectoryOpened => "directory",
        Event::NumberChanged { .. } => "number changed",
        Event::Joined { .. } => "joined",
        Event::Message { .. } => "message",
        Event::Done { .. } => "done",
        Event::Appended { .. } => "appended",
        Event::GroupCreated { .. } => "created",
        Event::GroupContinued { .. } => "continued",
        Event::CatchingUp { .. } => "catching up",
        Event::Invited { .. } => "invited",
        Event::Ordered { .. } => "ordered",
        Event::OrderStatus { .. } => "status",
        Event::Evidence { .. } => "evidence",
        Event::Delayed { .. } => "delayed",
        Event::TurnedAway { .. } => "turned away",
        Event::Failed { .. } => "failed",
        Event::Alarm(_) => "alarm",
    }
}
