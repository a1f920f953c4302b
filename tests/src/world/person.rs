//! Somebody with one device: an admission first, an engine afterwards, and a memory of what it was told.

use mortise_protocol::engine::{
    Admission, AdmissionStep, Command, CommandKind, Engine, EngineError, Event, Input, IntentId,
    Output, save_identity,
};
use mortise_protocol::identity::{ClaimLink, DeviceId, JoinLink, PublicKey, SigningKey, UserId};
use mortise_protocol::store::{Crash, MemoryStore};
use mortise_protocol::wire::{ClientToRelay, ConnectionBinding, RelayToClient};
use mortise_relay::core::ConnId;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

/// An index into `World::people`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId(pub usize);

/// What a person wants of the network.
pub(super) enum Wish {
    Send(ClientToRelay),
    Hangup,
}

enum Stage {
    Joining(Box<Admission>, MemoryStore, Box<ChaCha12Rng>),
    In(Box<Engine<MemoryStore>>),
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
    /// Switched off.
    pub asleep: bool,
    /// Everything that their engine has said.
    pub events: Vec<Event>,
    /// The root key, for the founder.
    pub root: Option<SigningKey>,
    /// Failed admission, if so.
    pub refused: Option<String>,
    /// How often a step failed in the store and the device was started again.
    pub crashes: usize,
    stage: Stage,
    wake_ms: Option<u64>,
    reconnect_ms: Option<u64>,
}

impl Person {
    fn new(name: &str, admission: Admission, rng: Box<ChaCha12Rng>) -> Self {
        let mut store = MemoryStore::default();
        save_identity(&mut store, admission.identity()).expect("an identity is saved");
        Self {
            name: name.into(),
            conn: None,
            cut_until_ms: 0,
            asleep: false,
            events: Vec::new(),
            root: None,
            refused: None,
            crashes: 0,
            stage: Stage::Joining(Box::new(admission), store, rng),
            wake_ms: None,
            reconnect_ms: None,
        }
    }

    pub(super) fn found(
        name: &str,
        claim: &ClaimLink,
        suite: u16,
        mut rng: Box<ChaCha12Rng>,
        now_ms: u64,
    ) -> Self {
        let (admission, root) = Admission::found(claim, name, suite, &mut rng, now_ms);
        let mut this = Self::new(name, admission, rng);
        this.root = Some(root);
        this
    }

    pub(super) fn join(name: &str, link: &str, mut rng: Box<ChaCha12Rng>) -> Self {
        let link = JoinLink::parse(link).expect("a link of this world");
        let admission = Admission::join(link, &mut rng);
        Self::new(name, admission, rng)
    }

    /// The engine.
    ///
    /// # Panics
    /// Before the admission is over.
    #[must_use]
    pub fn engine(&self) -> &Engine<MemoryStore> {
        match &self.stage {
            Stage::In(engine) => engine,
            _ => panic!("{} is not admitted", self.name),
        }
    }

    /// The engine.
    ///
    /// # Panics
    /// Before the admission is over.
    pub fn engine_mut(&mut self) -> &mut Engine<MemoryStore> {
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
        self.engine().device()
    }

    pub(super) fn transport_key(&self) -> Option<PublicKey> {
        if self.asleep || self.refused.is_some() {
            return None;
        }
        match &self.stage {
            Stage::Joining(admission, ..) => Some(admission.transport_key().public()),
            Stage::In(engine) if engine.is_expelled() => None,
            Stage::In(engine) => Some(engine.transport_key().public()),
            Stage::Between => None,
        }
    }

    /// Whether this person waits for nothing.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match &self.stage {
            Stage::In(engine) => {
                self.asleep || engine.is_expelled() || (self.conn.is_some() && engine.is_synced())
            }
            _ => self.refused.is_some() || self.asleep,
        }
    }

    pub(super) fn next_timer(&self) -> Option<u64> {
        if self.asleep {
            return None;
        }
        let wake = self.wake_ms.filter(|_| self.conn.is_some());
        let reconnect = self
            .reconnect_ms
            .filter(|_| self.conn.is_none() && self.transport_key().is_some())
            .map(|at| at.max(self.cut_until_ms));
        wake.into_iter().chain(reconnect).min()
    }

    pub(super) fn take_reconnect(&mut self, now_ms: u64) -> bool {
        if self.conn.is_some() {
            return false;
        }
        // The next try, if this one does not get through.
        self.reconnect_ms = Some(now_ms + 200);
        true
    }

    pub(super) fn connected(&mut self, now_ms: u64, binding: ConnectionBinding) -> Vec<Wish> {
        match &mut self.stage {
            Stage::Joining(admission, ..) => {
                admission.start().into_iter().map(Wish::Send).collect()
            }
            Stage::In(_) => self.input(now_ms, Input::Connected(binding)),
            Stage::Between => Vec::new(),
        }
    }

    pub(super) fn disconnected(&mut self, now_ms: u64) -> Vec<Wish> {
        self.reconnect_ms = Some(now_ms + 200);
        self.wake_ms = None;
        match &self.stage {
            Stage::In(_) => self.input(now_ms, Input::Disconnected),
            _ => Vec::new(),
        }
    }

    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<Wish> {
        self.wake_ms = None;
        self.input(now_ms, Input::Tick)
    }

    pub(super) fn command(&mut self, now_ms: u64, kind: CommandKind) -> (IntentId, Vec<Wish>) {
        let id = self.engine_mut().next_intent();
        let wishes = self.input(now_ms, Input::Command(Command { id, kind }));
        (id, wishes)
    }

    /// Gives the engine a frame, whoever it is from.
    pub(super) fn frame(&mut self, now_ms: u64, frame: RelayToClient) -> Vec<Wish> {
        let Stage::Joining(admission, ..) = &mut self.stage else {
            return self.input(now_ms, Input::Frame(frame));
        };
        match admission.handle_frame(now_ms, frame) {
            Ok(AdmissionStep::Wait) => Vec::new(),
            Ok(AdmissionStep::Send(frames)) => frames.into_iter().map(Wish::Send).collect(),
            Ok(AdmissionStep::Admitted) => {
                if let Stage::Joining(admission, mut store, rng) =
                    std::mem::replace(&mut self.stage, Stage::Between)
                {
                    save_identity(&mut store, admission.identity()).expect("an identity is saved");
                    let engine = Engine::open(store, rng).expect("an engine opens");
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
    pub(super) fn restart(&mut self, rng: Box<ChaCha12Rng>) {
        if let Stage::In(engine) = std::mem::replace(&mut self.stage, Stage::Between) {
            let mut store = engine.into_store();
            store.plan_crash(Crash::Never);
            let engine = Engine::open(store, rng).expect("an engine opens again");
            self.stage = Stage::In(Box::new(engine));
        }
    }

    fn input(&mut self, now_ms: u64, input: Input) -> Vec<Wish> {
        let Stage::In(engine) = &mut self.stage else {
            return Vec::new();
        };
        let outputs = match engine.handle(now_ms, input) {
            Ok(outputs) => outputs,
            Err(EngineError::Store(_)) => {
                // A planned failure: the process dies and is started again.
                self.crashes += 1;
                let rng = ChaCha12Rng::seed_from_u64(now_ms);
                self.restart(Box::new(rng));
                return vec![Wish::Hangup];
            }
            Err(error) => panic!("{}: {error}", self.name),
        };
        let mut wishes = Vec::new();
        for output in outputs {
            match output {
                Output::Send(frame) => wishes.push(Wish::Send(frame)),
                Output::Reconnect => wishes.push(Wish::Hangup),
                Output::Wake(at) => self.wake_ms = Some(at),
                Output::Event(event) => self.events.push(event),
            }
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
        Event::Joined { .. } => "joined",
        Event::Message { .. } => "message",
        Event::Done { .. } => "done",
        Event::Appended { .. } => "appended",
        Event::GroupCreated { .. } => "created",
        Event::Invited { .. } => "invited",
        Event::Ordered { .. } => "ordered",
        Event::OrderStatus { .. } => "status",
        Event::Failed { .. } => "failed",
        Event::Alarm(_) => "alarm",
    }
}
