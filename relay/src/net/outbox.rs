//! What waits to be written to one connection: bounded by count and by bytes, never blocking.
//!
//! Inputs: [`Outbox::push`], [`Outbox::close`], [`Outbox::close_after_flush`]. The committer pushes; each stream's
//! task takes what is its own.
//! A push that does not fit fails, and the connection is closed: a device that reads too slowly reconnects and
//! pulls from its cursor. The committer never waits for anybody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mortise_protocol::wire::{CloseCode, Flag, RelayToClient, Response, encode_frame};
use tls_codec::Size as _;
use tokio::sync::{mpsc, watch};

use crate::core::StreamId;

/// How much may wait for one connection.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Frames.
    pub max_frames: usize,
    /// Bytes; one frame of any size always fits into an empty queue.
    pub max_bytes: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            max_frames: 4_096,
            max_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// The device reads too slowly.
    Full,
    /// The stream for pushes has ended while the connection goes on.
    NoStream,
}

/// The queues of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    limits: OutboxLimits,
    queues: Mutex<Queues>,
    admitted: watch::Sender<bool>,
    close: watch::Sender<Option<Closing>>,
}

/// How a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    /// Why.
    pub(crate) code: CloseCode,
    /// Whether what is queued goes out first.
    pub(crate) flush: bool,
}

#[derive(Debug, Default)]
struct Queues {
    streams: HashMap<StreamId, mpsc::UnboundedSender<Queued>>,
    frames: usize,
    bytes: usize,
}

/// A frame on its way out.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// For one connection; whoever writes it encodes it. Boxed: a queue has room for 32 of them from its start.
    Single(Box<RelayToClient>),
    /// A push to many, encoded once, length and all; every queue holds the same bytes.
    Shared(Bytes),
}

impl Frame {
    /// Takes a frame for one connection.
    pub(crate) fn single(frame: RelayToClient) -> Self {
        Self::Single(Box::new(frame))
    }

    /// Encodes a push to many.
    pub(crate) fn shared(push: &RelayToClient) -> Self {
        Self::Shared(encode_frame(push).into())
    }

    /// Whether it answers a question.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Single(frame) if matches!(**frame, RelayToClient::Response { .. }))
    }

    /// The bytes that go on the stream.
    pub(crate) fn to_bytes(&self) -> Bytes {
        match self {
            Self::Single(frame) => encode_frame(&**frame).into(),
            Self::Shared(bytes) => bytes.clone(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Single(frame) => frame.tls_serialized_len(),
            Self::Shared(bytes) => bytes.len(),
        }
    }
}

/// A frame that waits; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Queued {
    /// What to write.
    pub(crate) frame: Frame,
    bytes: usize,
    outbox: Arc<Outbox>,
}

impl Queued {
    /// What it counts for, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut queues = self.outbox.lock();
        queues.frames -= 1;
        queues.bytes -= self.bytes;
    }
}

impl Outbox {
    pub(crate) fn new(limits: OutboxLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            queues: Mutex::default(),
            admitted: watch::Sender::new(false),
            close: watch::Sender::new(None),
        })
    }

    /// A panic elsewhere leaves counters at worst too high: going on is right.
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a stream and returns what will be written to it.
    pub(crate) fn open(&self, stream: StreamId) -> mpsc::UnboundedReceiver<Queued> {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut queues = self.lock();
        // Looked at under the lock: a connection that is being closed opens no more queues.
        if self.close.borrow().is_none() {
            queues.streams.insert(stream, tx);
        }
        rx
    }

    /// Forgets a stream that has ended.
    pub(crate) fn shut(&self, stream: StreamId) {
        // Taken out first: dropping a sender may drop frames, which lock again.
        let ended = self.lock().streams.remove(&stream);
        drop(ended);
    }

    /// Queues a frame for a stream. An answer to a stream that has ended is dropped: nobody waits for it.
    pub(crate) fn push(self: &Arc<Self>, stream: StreamId, frame: Frame) -> Result<(), PushError> {
        if let Frame::Single(single) = &frame
            && let RelayToClient::Response { response, .. } = &**single
            && matches!(
                response,
                Response::Hello {
                    admitted: Flag::Yes,
                    ..
                }
            )
        {
            self.admit();
        }
        let bytes = frame.len();
        let mut queues = self.lock();
        let Some(sender) = queues.streams.get(&stream).cloned() else {
            return if frame.is_answer() {
                Ok(())
            } else {
                Err(PushError::NoStream)
            };
        };
        let full = queues.frames >= self.limits.max_frames
            || queues.bytes.saturating_add(bytes) > self.limits.max_bytes;
        if full && queues.frames > 0 {
            return Err(PushError::Full);
        }
        queues.frames += 1;
        queues.bytes += bytes;
        drop(queues);
        // Fails only when the stream ended just now, and then drops the frame outside the lock.
        let _ = sender.send(Queued {
            frame,
            bytes,
            outbox: Arc::clone(self),
        });
        Ok(())
    }

    /// Asks the connection's task to close at once; the first reason stays.
    pub(crate) fn close(&self, code: CloseCode) {
        self.ask(Closing { code, flush: false });
    }

    /// Asks the connection's task to write what is queued, and then to close. Nothing more can be queued.
    pub(crate) fn close_after_flush(&self, code: CloseCode) {
        self.ask(Closing { code, flush: true });
        let streams = std::mem::take(&mut self.lock().streams);
        drop(streams);
    }

    fn ask(&self, closing: Closing) {
        self.close.send_if_modified(|kept| {
            let first = kept.is_none();
            kept.get_or_insert(closing);
            first
        });
    }

    /// Resolves when the connection is to be closed.
    pub(crate) async fn closing(&self) -> Closing {
        let mut close = self.close.subscribe();
        let asked = close.wait_for(Option::is_some).await.ok().and_then(|c| *c);
        // The sender lives in `self`: the wait cannot fail while we are borrowed.
        asked.unwrap_or(Closing {
            code: CloseCode::NORMAL,
            flush: false,
        })
    }

    /// The connection belongs to an admitted device.
    pub(crate) fn admit(&self) {
        self.admitted.send_replace(true);
    }

    /// Resolves when the connection belongs to an admitted device.
    pub(crate) async fn admission(&self) {
        let mut admitted = self.admitted.subscribe();
        // As above.
        let _ = admitted.wait_for(|admitted| *admitted).await;
    }

    /// Whether the connection belongs to an admitted device.
    pub(crate) fn is_admitted(&self) -> bool {
        *self.admitted.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_protocol::wire::{Push, RequestId};

    const STREAM: StreamId = StreamId(0);

    fn answer() -> Frame {
        Frame::single(RelayToClient::Response {
            id: RequestId(1),
            response: Response::Done,
        })
    }

    fn outbox(max_frames: usize, max_bytes: usize) -> Arc<Outbox> {
        Outbox::new(OutboxLimits {
            max_frames,
            max_bytes,
        })
    }

    #[test]
    fn what_waits_is_bounded_by_count_and_what_is_taken_makes_room() {
        let outbox = outbox(2, usize::MAX);
        let mut queue = outbox.open(STREAM);
        assert_eq!(outbox.push(STREAM, answer()), Ok(()));
        assert_eq!(outbox.push(STREAM, answer()), Ok(()));
        assert_eq!(outbox.push(STREAM, answer()), Err(PushError::Full));
        drop(queue.try_recv());
        assert_eq!(outbox.push(STREAM, answer()), Ok(()));
    }

    #[test]
    fn what_waits_is_bounded_by_bytes_but_one_frame_always_fits() {
        let outbox = outbox(9, 1);
        let mut queue = outbox.open(STREAM);
        assert_eq!(outbox.push(STREAM, answer()), Ok(()));
        assert_eq!(outbox.push(STREAM, answer()), Err(PushError::Full));
        drop(queue.try_recv());
        assert_eq!(outbox.push(STREAM, answer()), Ok(()));
    }

    #[test]
    fn an_ended_stream_loses_answers_but_never_a_push() {
        let outbox = outbox(9, usize::MAX);
        drop(outbox.open(STREAM));
        outbox.shut(STREAM);
        assert_eq!(outbox.push(STREAM, answer()), Ok(()));
        let push = RelayToClient::Push(Push::InboxWaiting);
        let shared = Frame::shared(&push);
        for push in [Frame::single(push), shared] {
            assert_eq!(outbox.push(STREAM, push), Err(PushError::NoStream));
        }
        let queues = outbox.lock();
        assert_eq!((queues.frames, queues.bytes), (0, 0));
    }

    #[test]
    fn a_push_to_many_is_encoded_once() {
        let push = RelayToClient::Push(Push::InboxWaiting);
        let (single, shared) = (Frame::single(push.clone()), Frame::shared(&push));
        assert_eq!(single.to_bytes(), shared.to_bytes());
        assert_eq!(
            shared.to_bytes().as_ptr(),
            shared.clone().to_bytes().as_ptr()
        );
        assert!(!shared.is_answer() && answer().is_answer());
    }

    #[tokio::test]
    async fn the_first_reason_to_close_stays() {
        let outbox = outbox(9, 9);
        outbox.close(CloseCode::REMOVED);
        outbox.close(CloseCode::TOO_SLOW);
        assert_eq!(outbox.closing().await.code, CloseCode::REMOVED);
    }

    #[tokio::test]
    async fn a_flush_keeps_what_is_queued_and_takes_no_more() {
        let outbox = outbox(9, 999);
        let mut queue = outbox.open(STREAM);
        outbox.push(STREAM, answer()).expect("room");
        outbox.close_after_flush(CloseCode::REMOVED);
        assert!(outbox.closing().await.flush);
        assert!(queue.recv().await.is_some());
        assert!(queue.recv().await.is_none());
    }
}
