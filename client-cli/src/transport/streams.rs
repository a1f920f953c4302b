//! The streams of one connection: live, submit, and one per unary request (REQ-041).
//!
//! One task per lane and per open request, all owned by [`Streams`] and aborted when it is dropped. Every
//! queue is bounded, by count and by bytes. A stream that ends while an answer is owed ends the connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mortise_protocol::identity::decode;
use mortise_protocol::wire::{
    ClientToRelay, CloseCode, FRAME_HEADER_BYTES, FrameError, RelayToClient, Request, RequestId,
    decode_frame_length, encode_frame, limits,
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::TransportError;

/// Frames that may wait on one lane, and in the queue of what came in.
const MAX_QUEUED_FRAMES: usize = 1_024;
/// Bytes that may wait to be sent.
const MAX_SENDING_BYTES: usize = 2 * limits::MAX_FRAME_BYTES;
/// Bytes that may wait to be received: one frame of any size always fits.
const MAX_RECEIVED_BYTES: usize = 2 * limits::MAX_FRAME_BYTES;
/// Unary requests at once: the rest of what the relay allows, after the two lanes.
const MAX_UNARY: usize = limits::MAX_STREAMS as usize - 2;

/// How long the reason for a stream's end may take to follow it.
const REASON: Duration = Duration::from_secs(2);

/// A frame on its way out; its bytes count until it is written.
struct Outgoing {
    id: RequestId,
    bytes: Vec<u8>,
    _held: OwnedSemaphorePermit,
}

/// A frame that came in; its bytes count until it is taken.
struct Incoming {
    frame: RelayToClient,
    _held: OwnedSemaphorePermit,
}

/// Sends on the streams and merges what comes back.
#[derive(Debug)]
pub(super) struct Streams {
    live: mpsc::Sender<Outgoing>,
    submit: mpsc::Sender<Outgoing>,
    unary: mpsc::Sender<Outgoing>,
    sending: Arc<Semaphore>,
    received: mpsc::Receiver<Incoming>,
    fault: Arc<OnceLock<TransportError>>,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({} bytes)", self.bytes.len())
    }
}

impl Streams {
    /// Starts the tasks of a connection.
    pub(super) fn spawn(quic: quinn::Connection) -> Self {
        let (live, live_rx) = mpsc::channel(MAX_QUEUED_FRAMES);
        let (submit, submit_rx) = mpsc::channel(MAX_QUEUED_FRAMES);
        let (unary, unary_rx) = mpsc::channel(MAX_QUEUED_FRAMES);
        let (tx, received) = mpsc::channel(MAX_QUEUED_FRAMES);
        let shared = Shared {
            quic,
            inbound: tx,
            budget: Arc::new(Semaphore::new(MAX_RECEIVED_BYTES)),
            fault: Arc::default(),
        };
        let fault = Arc::clone(&shared.fault);
        let mut tasks = JoinSet::new();
        for rx in [live_rx, submit_rx] {
            let shared = shared.clone();
            tasks.spawn(async move { shared.clone().run(lane(shared, rx)).await });
        }
        tasks.spawn(async move { shared.clone().run(dispatch(shared, unary_rx)).await });
        Self {
            live,
            submit,
            unary,
            sending: Arc::new(Semaphore::new(MAX_SENDING_BYTES)),
            received,
            fault,
            _tasks: tasks,
        }
    }

    /// Queues a frame on its stream.
    pub(super) fn send(&self, frame: &ClientToRelay) -> Result<(), TransportError> {
        let bytes = encode_frame(frame);
        let length = bytes.len() - FRAME_HEADER_BYTES;
        if length > limits::MAX_FRAME_BYTES {
            let limit = limits::MAX_FRAME_BYTES;
            return Err(FrameError::TooLarge { length, limit }.into());
        }
        let held = permits(length)
            .and_then(|n| Arc::clone(&self.sending).try_acquire_many_owned(n).ok())
            .ok_or(TransportError::Backlogged)?;
        let lane = match frame.request {
            Request::Hello { .. } | Request::Subscribe { .. } => &self.live,
            Request::CreateGroup { .. } | Request::Submit(_) => &self.submit,
            _ => &self.unary,
        };
        lane.try_send(Outgoing {
            id: frame.id,
            bytes,
            _held: held,
        })
        .map_err(|_| TransportError::Backlogged)
    }

    /// The next frame; `None` when every stream has ended.
    pub(super) async fn recv(&mut self) -> Option<RelayToClient> {
        self.received.recv().await.map(|incoming| incoming.frame)
    }

    /// A frame that is here already, if there is one.
    pub(super) fn ready(&mut self) -> Option<RelayToClient> {
        self.received.try_recv().ok().map(|incoming| incoming.frame)
    }

    /// What a stream failed with, if that is what ended the connection.
    pub(super) fn fault(&self) -> Option<TransportError> {
        self.fault.get().cloned()
    }
}

fn permits(bytes: usize) -> Option<u32> {
    u32::try_from(bytes).ok()
}

/// What every task of a connection holds.
#[derive(Clone)]
struct Shared {
    quic: quinn::Connection,
    inbound: mpsc::Sender<Incoming>,
    budget: Arc<Semaphore>,
    fault: Arc<OnceLock<TransportError>>,
}

impl Shared {
    /// Runs one task's work until it ends or the connection does; a failure ends the connection.
    async fn run(self, work: impl Future<Output = Result<(), TransportError>>) {
        // Biased: what is ready to be delivered goes before the news that the connection is closed.
        let result = tokio::select! {
            biased;
            result = work => result,
            _ = self.quic.closed() => return,
        };
        let Err(error) = result else { return };
        // A relay that closes for a reason ends its streams first, and says why right after.
        if tokio::time::timeout(REASON, self.quic.closed())
            .await
            .is_err()
        {
            // The first failure is the one that explains the rest.
            let _ = self.fault.set(error);
            let code = VarInt::try_from(CloseCode::MALFORMED.0).unwrap_or_default();
            self.quic.close(code, b"");
        }
    }

    /// Reads the next frame; `None` where the stream ends between frames.
    async fn read(&self, stream: &mut RecvStream) -> Result<Option<Incoming>, TransportError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        match stream.read_exact(&mut header).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let length = decode_frame_length(header, limits::MAX_FRAME_BYTES)?;
        let held = Arc::clone(&self.budget)
            .acquire_many_owned(permits(length).unwrap_or(u32::MAX))
            .await
            .map_err(|_| TransportError::ClosedHere)?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let frame = decode(&body).map_err(|_| TransportError::BadRelay {
            reason: "a frame does not decode",
        })?;
        Ok(Some(Incoming { frame, _held: held }))
    }

    async fn deliver(&self, incoming: Incoming) -> Result<(), TransportError> {
        self.inbound
            .send(incoming)
            .await
            .map_err(|_| TransportError::ClosedHere)
    }
}

/// A long-lived stream, opened by its first frame: frames go out in order, everything that comes in is delivered.
async fn lane(shared: Shared, mut frames: mpsc::Receiver<Outgoing>) -> Result<(), TransportError> {
    let Some(first) = frames.recv().await else {
        return Ok(());
    };
    let (mut send, mut recv) = shared.quic.open_bi().await?;
    let write = async {
        let mut next = Some(first);
        while let Some(frame) = next {
            send.write_all(&frame.bytes).await?;
            next = frames.recv().await;
        }
        Ok(())
    };
    let read = async {
        while let Some(incoming) = shared.read(&mut recv).await? {
            shared.deliver(incoming).await?;
        }
        Err(TransportError::BadRelay {
            reason: "it ended a long-lived stream",
        })
    };
    tokio::try_join!(write, read).map(|((), ())| ())
}

/// Runs unary requests, as many at once as the relay allows.
async fn dispatch(
    shared: Shared,
    mut frames: mpsc::Receiver<Outgoing>,
) -> Result<(), TransportError> {
    let mut open = JoinSet::new();
    loop {
        // Biased: finished requests make room before new ones are taken.
        tokio::select! {
            biased;
            Some(done) = open.join_next() => match done {
                Ok(result) => result?,
                Err(_) => return Err(TransportError::ClosedHere),
            },
            frame = frames.recv(), if open.len() < MAX_UNARY => match frame {
                Some(frame) => { open.spawn(unary(shared.clone(), frame)); }
                None => return Ok(()),
            },
        }
    }
}

/// One request, one stream: the question, its end, the answer.
async fn unary(shared: Shared, question: Outgoing) -> Result<(), TransportError> {
    let (mut send, mut recv): (SendStream, RecvStream) = shared.quic.open_bi().await?;
    // A relay that refuses by length stops reading and answers all the same.
    match send.write_all(&question.bytes).await {
        Ok(()) | Err(quinn::WriteError::Stopped(_)) => {}
        Err(error) => return Err(error.into()),
    }
    // Fails only for a stream that was stopped: see above.
    let _ = send.finish();
    let id = question.id;
    drop(question);
    let mut answered = false;
    while let Some(mut incoming) = shared.read(&mut recv).await? {
        name_answer(&mut incoming.frame, id);
        answered = true;
        shared.deliver(incoming).await?;
    }
    if answered {
        Ok(())
    } else {
        Err(TransportError::BadRelay {
            reason: "it ended a stream without an answer",
        })
    }
}

/// A relay that could not read a question answers id 0; on a stream of one question it is clear which it was.
fn name_answer(frame: &mut RelayToClient, asked: RequestId) {
    if let RelayToClient::Response { id, .. } = frame
        && *id == RequestId(0)
    {
        *id = asked;
    }
}
