//! The driver: one task that owns the engine, the connection and the timer; everybody else holds a [`Session`].
//!
//! Inputs: what the relay sends, the clock, and requests from sessions. Outputs: frames to the relay, events to
//! whoever listens. The task ends when the last session is gone, or when the engine's store fails. This module
//! must never decide anything that the engine can decide.

mod backoff;
mod line;
mod session;
mod status;

use std::collections::HashMap;
use std::time::Duration;

use mortise_protocol::engine::{Command, CommandKind, Engine, Event, Input, IntentId, Output};
use mortise_protocol::identity::{GroupId, LogSeq};
use mortise_protocol::store::SqliteStore;
use mortise_protocol::wire::ClientToRelay;
use rand::rngs::StdRng;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use self::backoff::Backoff;
use self::line::{Line, LineEvent};
pub use self::session::{Pending, Session};
pub use self::status::{Fault, Link, Status};
use crate::machine::{now_ms, system_rng};
use crate::transport::{Traffic, TransportError};

/// The engine on the client's store.
pub type ClientEngine = Engine<SqliteStore>;

/// Requests that may wait for the loop.
const REQUESTS: usize = 256;
/// Events that a slow listener may fall behind.
const EVENTS: usize = 4_096;
/// Events that one command may have waiting.
const EVENTS_PER_COMMAND: usize = 64;
/// Frames that share one step of the engine, at most.
const FRAMES_PER_STEP: usize = 64;
/// The timer looks at the wall clock at least this often, so that a clock that was set costs no more.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// The timer never fires faster than this.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);

/// What a session asks of the loop.
enum Request {
    /// Hand a command to the engine.
    Command {
        kind: CommandKind,
        reply: oneshot::Sender<(IntentId, mpsc::Receiver<Event>)>,
    },
    /// Look something up.
    Query(Box<dyn FnOnce(&mut ClientEngine) + Send>),
    /// Per group, the first line of history that was written in this session.
    FirstLines(oneshot::Sender<HashMap<GroupId, LogSeq>>),
    /// What has crossed the network in this session.
    Traffic(oneshot::Sender<Traffic>),
    /// Say goodbye to the relay and end.
    Close,
}

struct Loop {
    engine: ClientEngine,
    line: Line,
    connect_within: Duration,
    backoff: Backoff,
    rng: StdRng,
    wake_ms: Option<u64>,
    hang_up: Option<TransportError>,
    status: watch::Sender<Status>,
    events: broadcast::Sender<Event>,
    waiting: HashMap<IntentId, mpsc::Sender<Event>>,
    first_lines: HashMap<GroupId, LogSeq>,
    /// Of connections that have ended.
    past_traffic: Traffic,
}

impl Session {
    /// Starts the loop on the current runtime; it connects at once unless `offline`.
    ///
    /// `connect_within` bounds each attempt to connect.
    #[must_use]
    pub fn start(engine: ClientEngine, connect_within: Duration, offline: bool) -> Self {
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (status, watching) =
            watch::channel(Status::new(engine.relay().address.clone(), offline));
        let (events, first) = broadcast::channel(EVENTS);
        let mut state = Loop {
            engine,
            line: Line::Off,
            connect_within,
            backoff: Backoff::default(),
            rng: system_rng(),
            wake_ms: None,
            hang_up: None,
            status,
            events,
            waiting: HashMap::new(),
            first_lines: HashMap::new(),
            past_traffic: Traffic::default(),
        };
        if !offline && !state.engine.is_expelled() {
            state.dial();
        }
        state.publish(|_| {});
        let task = tokio::spawn(run(state, inbox));
        Self::new(requests, watching, first, task)
    }
}

/// Runs until every session is gone, one says goodbye, or the engine fails.
async fn run(mut state: Loop, mut inbox: mpsc::Receiver<Request>) {
    loop {
        let timer = state.timer();
        // Biased: what the user asks goes before what the relay sends, and both before the clock.
        let step = tokio::select! {
            biased;
            request = inbox.recv() => match request {
                Some(Request::Close) | None => break,
                Some(request) => state.handle_request(request),
            },
            event = state.line.next() => state.handle_line(event),
            () = tokio::time::sleep_until(timer) => state.handle_timer(),
        };
        if let Err(fault) = step.and_then(|()| state.settle()) {
            state.publish(|status| status.fault = Some(fault.clone()));
            break;
        }
    }
    if let Line::Up(connection) = std::mem::replace(&mut state.line, Line::Off) {
        connection.close().await;
    }
    // The store is closed before anybody can see that the loop has ended.
    drop(state);
    drop(inbox);
}

impl Loop {
    fn handle_request(&mut self, request: Request) -> Result<(), Fault> {
        match request {
            Request::Command { kind, reply } => {
                let id = self.engine.next_intent();
                let (tx, rx) = mpsc::channel(EVENTS_PER_COMMAND);
                self.waiting.retain(|_, waiter| !waiter.is_closed());
                self.waiting.insert(id, tx);
                let step = self.feed(Input::Command(Command { id, kind }));
                // Whoever asked may have gone; the command counts all the same.
                let _ = reply.send((id, rx));
                step
            }
            Request::Query(look) => {
                blocking(|| look(&mut self.engine));
                Ok(())
            }
            Request::FirstLines(reply) => {
                let _ = reply.send(self.first_lines.clone());
                Ok(())
            }
            Request::Traffic(reply) => {
                let mut traffic = self.past_traffic;
                traffic += self.line.traffic();
                let _ = reply.send(traffic);
                Ok(())
            }
            Request::Close => Ok(()),
        }
    }

    fn handle_line(&mut self, event: LineEvent) -> Result<(), Fault> {
        match event {
            LineEvent::Redial => {
                self.dial();
                Ok(())
            }
            LineEvent::Connected(connection) => {
                let binding = connection.binding();
                self.line = Line::Up(connection);
                self.feed(Input::Connected(binding))
            }
            LineEvent::Failed(error) => {
                self.redial_later(error);
                Ok(())
            }
            LineEvent::Frame(frame) => {
                // What came in during the last step shares a transaction, and so one sync of the disk.
                let more = std::iter::from_fn(|| self.line.ready()).take(FRAMES_PER_STEP - 1);
                let frames: Vec<_> = std::iter::once(frame)
                    .chain(more)
                    .map(Input::Frame)
                    .collect();
                self.feed_all(frames)
            }
            LineEvent::Ended(error) => self.disconnect(error),
        }
    }

    fn handle_timer(&mut self) -> Result<(), Fault> {
        if self.wake_ms.is_none_or(|wake| now_ms() < wake) {
            return Ok(());
        }
        self.wake_ms = None;
        self.feed(Input::Tick)
    }

    /// One step of the engine, and what comes of it.
    fn feed(&mut self, input: Input) -> Result<(), Fault> {
        self.feed_all(vec![input])
    }

    fn feed_all(&mut self, inputs: Vec<Input>) -> Result<(), Fault> {
        let outputs =
            blocking(|| self.engine.handle_all(now_ms(), inputs)).map_err(|e| Fault::of(&e))?;
        for output in outputs {
            match output {
                Output::Send(frame) => self.send(&frame),
                Output::Reconnect => self.hang_up = Some(TransportError::ClosedHere),
                Output::Wake(at_ms) => self.wake_ms = Some(at_ms),
                Output::Event(event) => self.emit(event),
            }
        }
        Ok(())
    }

    /// After each step: hangs up where the engine or a failed send asked for it, and says how things stand.
    fn settle(&mut self) -> Result<(), Fault> {
        if let Some(error) = self.hang_up.take() {
            self.disconnect(error)?;
        }
        if self.engine.is_synced() {
            self.backoff.reset();
        }
        if self.engine.is_expelled() {
            self.line = Line::Off;
        }
        self.publish(|_| {});
        Ok(())
    }

    fn send(&mut self, frame: &ClientToRelay) {
        if self.hang_up.is_some() {
            return;
        }
        if let Line::Up(connection) = &self.line
            && let Err(error) = connection.send(frame)
        {
            self.hang_up = Some(error);
        }
    }

    fn disconnect(&mut self, error: TransportError) -> Result<(), Fault> {
        let was_up = matches!(self.line, Line::Up(_));
        self.redial_later(error);
        if was_up {
            self.feed(Input::Disconnected)?;
            self.hang_up = None;
        }
        Ok(())
    }

    fn redial_later(&mut self, error: TransportError) {
        let wait = self.backoff.wait(&mut self.rng);
        self.past_traffic += self.line.traffic();
        self.line = Line::Waiting(Instant::now() + wait);
        self.publish(|status| status.link = Link::Down(error.clone()));
    }

    fn dial(&mut self) {
        let relay = self.engine.relay();
        self.line = Line::dial(
            relay.address.clone(),
            relay.key,
            self.engine.transport_key(),
            self.connect_within,
        );
    }

    /// An answer goes to whoever asked; what nobody here asked for, or nobody waits for any more, to everybody.
    fn emit(&mut self, event: Event) {
        if let Event::Message { group, seq } = &event {
            self.first_lines.entry(*group).or_insert(*seq);
        }
        if let Some(id) = intent_of(&event)
            && let Some(waiter) = self.waiting.get(&id)
            && waiter.try_send(event.clone()).is_ok()
        {
            return;
        }
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    fn publish(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            match &self.line {
                Line::Up(_) => status.link = Link::Up,
                Line::Dialing(_) if !matches!(status.link, Link::Down(_)) => {
                    status.link = Link::Connecting
                }
                _ => {}
            }
            status.synced = matches!(self.line, Line::Up(_)) && self.engine.is_synced();
            status.no_room = self.engine.waits_for_room_only();
            status.turned_away = self.engine.turned_away().cloned();
            status.expelled = self.engine.is_expelled();
            status.distrusted = self.engine.distrusts_relay().map(ToString::to_string);
            *status != before
        });
    }

    fn timer(&self) -> Instant {
        let until = self.wake_ms.map_or(LONGEST_SLEEP, |wake| {
            Duration::from_millis(wake.saturating_sub(now_ms()))
        });
        Instant::now() + until.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
    }
}

/// The command that an event answers.
fn intent_of(event: &Event) -> Option<IntentId> {
    match event {
        Event::Done { id }
        | Event::Appended { id, .. }
        | Event::GroupCreated { id, .. }
        | Event::Invited { id, .. }
        | Event::Ordered { id, .. }
        | Event::OrderStatus { id, .. }
        | Event::Evidence { id, .. }
        | Event::Delayed { id, .. }
        | Event::Failed { id, .. } => Some(*id),
        Event::GroupContinued { id, .. } => *id,
        _ => None,
    }
}

/// Runs what computes or writes to disk without holding up the connection's tasks.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
