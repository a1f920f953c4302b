//! The one thread that owns the core and the store: everything queued is one batch, one durable commit, then the answers.
//!
//! Group commit without artificial delay (REQ-070): while a batch is being written the next one gathers. A slow
//! connection never blocks it: what does not fit an outbox closes that connection. After a failed write the core
//! has stopped (REQ-072): everything is refused, and [`Stopped`] tells the process to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use mortise_protocol::identity::{Hash, PublicKey};
use mortise_protocol::store::Store;
use mortise_protocol::wire::{
    ClientToRelay, CloseCode, ConnectionBinding, RelayToClient, Response, limits,
};
use tls_codec::Size as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tracing::{error, warn};

use super::outbox::{Frame, Outbox, PushError};
use crate::core::{CloseReason, ConnId, Core, CoreError, Input, Moved, Output, Status, StreamId};

/// Events that may wait for the committer.
const MAX_WAITING: usize = 1_024;
/// Bytes of frames that may wait for the committer, over all connections.
const MAX_WAITING_BYTES: usize = 4 * limits::MAX_FRAME_BYTES;
/// Events in one batch.
const MAX_BATCH: usize = 512;

/// What the committer is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer has finished the handshake.
    Connected {
        conn: ConnId,
        transport_key: PublicKey,
        binding: ConnectionBinding,
        outbox: Arc<Outbox>,
    },
    /// A connection is gone.
    Disconnected { conn: ConnId },
    /// A question; `held` is what it takes of its connection's budget.
    Frame {
        conn: ConnId,
        stream: StreamId,
        frame: ClientToRelay,
        held: OwnedSemaphorePermit,
    },
    /// Other nodes have written something.
    Moved(Vec<Moved>),
    /// It is time to look for what other nodes have written.
    Look,
    /// The administrator's question.
    Status(oneshot::Sender<Result<Status, CoreError>>),
    /// The administrator adds a claim token, of which this is the hash.
    AddClaimToken(Hash, oneshot::Sender<Result<(), CoreError>>),
}

/// The committer is gone: the relay is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the relay is shutting down")]
pub(crate) struct Gone;

/// The way to the committer, bounded by count and by bytes.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    events: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    held: Option<OwnedSemaphorePermit>,
}

impl Intake {
    /// Waits for room, and queues an event.
    pub(crate) async fn send(&self, event: Event) -> Result<(), Gone> {
        let held = match &event {
            Event::Frame { frame, .. } => {
                let bytes = u32::try_from(frame.tls_serialized_len()).map_err(|_| Gone)?;
                Some(
                    Arc::clone(&self.bytes)
                        .acquire_many_owned(bytes)
                        .await
                        .map_err(|_| Gone)?,
                )
            }
            _ => None,
        };
        let waiting = Waiting { event, held };
        self.events.send(waiting).await.map_err(|_| Gone)
    }
}

/// Whether the committer has stopped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It works.
    No,
    /// A write failed: nobody knows what the disk holds (REQ-072).
    StoreFailed,
    /// The thread ended: shut down, or a bug.
    Ended,
}

/// What a batch is decided and kept with: a store of this process alone, or one that other nodes share.
pub(crate) trait Backend: Send {
    /// Decides a batch; what it gives is durable.
    fn step(&mut self, core: &mut Core, inputs: Vec<Input>) -> Vec<Output>;

    /// Looks for what other nodes have written; without any there is nothing to find.
    fn look(&mut self, _core: &mut Core) -> Vec<Input> {
        Vec::new()
    }

    fn status(&mut self, core: &Core) -> Result<Status, CoreError>;

    fn add_claim_token(&mut self, core: &mut Core, hash: Hash) -> Result<(), CoreError>;
}

impl<S: Store + Send> Backend for S {
    fn step(&mut self, core: &mut Core, inputs: Vec<Input>) -> Vec<Output> {
        core.step(self, now_ms(), inputs)
    }

    fn status(&mut self, core: &Core) -> Result<Status, CoreError> {
        core.status(self)
    }

    fn add_claim_token(&mut self, core: &mut Core, hash: Hash) -> Result<(), CoreError> {
        core.add_claim_token(self, hash)
    }
}

/// The committer's thread.
pub(crate) struct Committer {
    core: Core,
    backend: Box<dyn Backend>,
    registry: HashMap<ConnId, Arc<Outbox>>,
    /// Who is to be woken when the batch's outputs are queued.
    touched: Vec<Arc<Outbox>>,
    stopped: watch::Sender<Stopped>,
}

/// What [`Committer::spawn`] gives.
pub(crate) struct Running {
    pub(crate) intake: Intake,
    pub(crate) stopped: watch::Receiver<Stopped>,
    /// Ends when every [`Intake`] is dropped.
    pub(crate) thread: JoinHandle<()>,
}

impl Committer {
    /// Starts the thread.
    pub(crate) fn spawn(core: Core, backend: Box<dyn Backend>) -> std::io::Result<Running> {
        let (events, waiting) = mpsc::channel(MAX_WAITING);
        let (stopped, watcher) = watch::channel(Stopped::No);
        let committer = Self {
            core,
            backend,
            registry: HashMap::new(),
            touched: Vec::new(),
            stopped,
        };
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.run(waiting))?;
        Ok(Running {
            intake: Intake {
                events,
                bytes: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
            },
            stopped: watcher,
            thread,
        })
    }

    fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Batch::default();
        while let Some(first) = waiting.blocking_recv() {
            batch.add(first, &mut self.registry);
            self.gather(&mut batch, &mut waiting);
            self.commit(std::mem::take(&mut batch.inputs));
            batch.held.clear();
            if std::mem::take(&mut batch.looks) {
                let found = self.backend.look(&mut self.core);
                self.commit(found);
            }
            for question in batch.questions.drain(..) {
                self.answer(question);
            }
            self.note_stop();
        }
    }

    /// Takes what waits. Where several do, others may be about to be handed over by threads that wait for this processor: they
    /// get their turn first, and nobody waits where nobody is.
    fn gather(&mut self, batch: &mut Batch, waiting: &mut mpsc::Receiver<Waiting>) {
        let mut before = 1;
        loop {
            while batch.inputs.len() < MAX_BATCH {
                let Ok(next) = waiting.try_recv() else { break };
                batch.add(next, &mut self.registry);
            }
            let now = batch.held.len();
            if now <= before || batch.inputs.len() >= MAX_BATCH {
                return;
            }
            before = now;
            std::thread::yield_now();
        }
    }

    /// Commits a batch and sends what it decided; then tells the core whom that disconnected.
    fn commit(&mut self, mut inputs: Vec<Input>) {
        while !inputs.is_empty() {
            let outputs = self.backend.step(&mut self.core, inputs);
            inputs = self.dispatch(outputs);
            let rest = self.core.take_unfinished().into_iter();
            inputs.extend(rest.map(Input::Moved));
        }
    }

    /// Never waits. Returns the connections that were too slow. Everything is queued before anybody is woken, each once: what a
    /// batch has for a connection leaves together (REQ-198).
    fn dispatch(&mut self, outputs: Vec<Output>) -> Vec<Input> {
        let lost = self.queue(outputs);
        for outbox in self.touched.drain(..) {
            outbox.wake();
        }
        lost
    }

    fn queue(&mut self, outputs: Vec<Output>) -> Vec<Input> {
        let mut lost = Vec::new();
        for output in outputs {
            match output {
                Output::Send {
                    conn,
                    stream,
                    frame,
                } => {
                    if self.send(conn, stream, frame).is_err() {
                        lost.push(Input::Disconnected { conn });
                    }
                }
                Output::Broadcast { to, frame } => {
                    let shared = Frame::shared(&frame);
                    for (conn, stream) in to {
                        if self.push(conn, stream, shared.clone()).is_err() {
                            lost.push(Input::Disconnected { conn });
                        }
                    }
                }
                Output::Close { conn, reason } => {
                    if let Some(outbox) = self.registry.remove(&conn) {
                        outbox.close_after_flush(close_code(reason));
                    }
                }
            }
        }
        lost
    }

    fn send(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        frame: RelayToClient,
    ) -> Result<(), PushError> {
        let joined = is_appended(&frame);
        let result = self.push(conn, stream, Frame::single(frame));
        // The entry may be the one that admits this connection's own key (REQ-054).
        if joined
            && let Some(outbox) = self.registry.get(&conn)
            && !outbox.is_admitted()
            && self.core.is_admitted(conn)
        {
            outbox.admit();
        }
        result
    }

    fn push(&mut self, conn: ConnId, stream: StreamId, frame: Frame) -> Result<(), PushError> {
        let Some(outbox) = self.registry.get(&conn) else {
            return Ok(());
        };
        match outbox.push(stream, frame) {
            Ok(true) => self.touched.push(Arc::clone(outbox)),
            Ok(false) => {}
            Err(error) => {
                outbox.close(match error {
                    PushError::Full => CloseCode::TOO_SLOW,
                    PushError::NoStream => CloseCode::MALFORMED,
                });
                self.registry.remove(&conn);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Somebody who has stopped waiting for the answer is no concern.
    fn answer(&mut self, question: Question) {
        match question {
            Question::Status(reply) => drop(reply.send(self.backend.status(&self.core))),
            Question::AddClaimToken(hash, reply) => {
                drop(reply.send(self.backend.add_claim_token(&mut self.core, hash)));
            }
        }
    }

    /// Tells the process, once, that the core has stopped.
    fn note_stop(&self) {
        if self.core.is_stopped() && *self.stopped.borrow() == Stopped::No {
            error!("the store failed: nothing more is accepted, the relay ends");
            self.stopped.send_replace(Stopped::StoreFailed);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the committer failed: the relay ends");
        }
        self.stopped.send_if_modified(|stopped| {
            let running = *stopped == Stopped::No;
            if running {
                *stopped = Stopped::Ended;
            }
            running
        });
    }
}

/// What was queued, sorted by who answers it.
#[derive(Default)]
struct Batch {
    inputs: Vec<Input>,
    looks: bool,
    held: Vec<(Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>)>,
    questions: Vec<Question>,
}

enum Question {
    Status(oneshot::Sender<Result<Status, CoreError>>),
    AddClaimToken(Hash, oneshot::Sender<Result<(), CoreError>>),
}

impl Batch {
    fn add(&mut self, waiting: Waiting, registry: &mut HashMap<ConnId, Arc<Outbox>>) {
        let mut of_connection = None;
        match waiting.event {
            Event::Connected {
                conn,
                transport_key,
                binding,
                outbox,
            } => {
                registry.insert(conn, outbox);
                self.inputs.push(Input::Connected {
                    conn,
                    transport_key,
                    binding,
                });
            }
            Event::Disconnected { conn } => {
                // Those that the relay closed itself are forgotten already.
                if registry.remove(&conn).is_some() {
                    self.inputs.push(Input::Disconnected { conn });
                }
            }
            Event::Frame {
                conn,
                stream,
                frame,
                held,
            } => {
                of_connection = Some(held);
                self.inputs.push(Input::Frame {
                    conn,
                    stream,
                    frame,
                });
            }
            Event::Moved(moved) => self.inputs.extend(moved.into_iter().map(Input::Moved)),
            Event::Look => self.looks = true,
            Event::Status(reply) => self.questions.push(Question::Status(reply)),
            Event::AddClaimToken(hash, reply) => {
                self.questions.push(Question::AddClaimToken(hash, reply));
            }
        }
        self.held.push((of_connection, waiting.held));
    }
}

fn is_appended(frame: &RelayToClient) -> bool {
    let RelayToClient::Response { response, .. } = frame else {
        return false;
    };
    matches!(response, Response::RosterAppended { .. })
}

fn close_code(reason: CloseReason) -> CloseCode {
    match reason {
        CloseReason::Removed => CloseCode::REMOVED,
    }
}

pub(crate) fn now_ms() -> u64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        Err(_) => {
            warn!("the system clock is before 1970");
            0
        }
    }
}

#[cfg(test)]
mod tests;
