//! What waits to be written to one connection: bounded by count and by bytes, never blocking.
//!
//! Inputs: [`Outbox::push`], [`Outbox::wake`], [`Outbox::close`], [`Outbox::close_after_flush`]. The committer pushes all of a batch,
//! and then wakes each connection once (REQ-198); what serves a stream takes what is its own.
//! A push that does not fit fails, and the connection is closed: a device that reads too slowly reconnects and
//! pulls from its cursor. The committer never waits for anybody.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use mortise_protocol::wire::{CloseCode, Flag, RelayToClient, Response, encode_frame};
use tls_codec::Size as _;
use tokio::sync::Notify;

use crate::core::StreamId;

/// How much may wait for one connection.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Frames.
    pub max_frames: usize,
    /// Bytes; one frame of any size always fits into an empty queue.
    pub max_bytes: usize,
    /// Bytes for all connections together: beyond that a connection for which more than a little waits is too slow.
    pub max_total_bytes: usize,
}

/// So much may wait for a connection, bytes, whatever waits for the others.
const LITTLE_BYTES: usize = 64 * 1024;

/// What waits for all connections together, bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Total(Arc<AtomicUsize>);

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            max_frames: 4_096,
            max_bytes: 64 * 1024 * 1024,
            max_total_bytes: 512 * 1024 * 1024,
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
    total: Total,
    queues: Mutex<Queues>,
    admitted: AtomicBool,
    /// The connection was admitted, or is to be closed.
    changed: Notify,
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
    /// Few: who looks for one looks at all.
    streams: Vec<(StreamId, Waiting)>,
    frames: usize,
    bytes: usize,
    closing: Option<Closing>,
    /// Something waits for which nobody was woken yet.
    unseen: bool,
}

impl Queues {
    fn of(&mut self, stream: StreamId) -> Option<&mut Waiting> {
        let mut streams = self.streams.iter_mut();
        streams
            .find(|(id, _)| *id == stream)
            .map(|(_, waiting)| waiting)
    }
}

/// What waits for one stream.
#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    /// Who waits for more.
    waker: Option<Waker>,
    /// Nothing more comes.
    ended: bool,
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

/// Frames that were taken to be written; they count until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What to write, in this order.
    pub(crate) frames: Vec<Frame>,
    bytes: usize,
    outbox: Arc<Outbox>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut queues = self.outbox.lock();
        self.outbox
            .let_go(&mut queues, self.frames.len(), self.bytes);
    }
}

/// The reading end of a stream's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    outbox: Arc<Outbox>,
    stream: StreamId,
}

impl Queue {
    /// What waits, up to about `max_bytes` but one frame at least; `None` when nothing more comes. Cancel-safe.
    pub(crate) async fn take(&mut self, max_bytes: usize) -> Option<Taken> {
        std::future::poll_fn(|context| {
            let mut queues = self.outbox.lock();
            let Some(waiting) = queues.of(self.stream) else {
                return Poll::Ready(None);
            };
            if waiting.frames.is_empty() {
                if waiting.ended {
                    return Poll::Ready(None);
                }
                waiting.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let (mut frames, mut bytes) = (Vec::new(), 0);
            while bytes < max_bytes
                && let Some(frame) = waiting.frames.pop_front()
            {
                bytes += frame.len();
                frames.push(frame);
            }
            Poll::Ready(Some(Taken {
                frames,
                bytes,
                outbox: Arc::clone(&self.outbox),
            }))
        })
        .await
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut queues = self.outbox.lock();
        let Some(at) = queues.streams.iter().position(|(id, _)| *id == self.stream) else {
            return;
        };
        let (_, waiting) = queues.streams.swap_remove(at);
        let bytes = waiting.frames.iter().map(Frame::len).sum();
        self.outbox.let_go(&mut queues, waiting.frames.len(), bytes);
    }
}

impl Outbox {
    pub(crate) fn new(limits: OutboxLimits, total: Total) -> Arc<Self> {
        Arc::new(Self {
            limits,
            total,
            queues: Mutex::default(),
            admitted: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// A panic elsewhere leaves counters at worst too high: going on is right.
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_go(&self, queues: &mut Queues, frames: usize, bytes: usize) {
        queues.frames -= frames;
        queues.bytes -= bytes;
        self.total.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether so many bytes are too many for a connection that takes what is queued already.
    fn is_full(&self, queues: &Queues, bytes: usize) -> bool {
        let total = self.total.0.load(Ordering::Relaxed);
        let crowded = total.saturating_add(bytes) > self.limits.max_total_bytes;
        queues.frames >= self.limits.max_frames
            || queues.bytes.saturating_add(bytes) > self.limits.max_bytes
            || crowded && queues.bytes > LITTLE_BYTES
    }

    /// Registers a stream; the queue is gone when what is returned is dropped.
    pub(crate) fn open(self: &Arc<Self>, stream: StreamId) -> Queue {
        let mut queues = self.lock();
        // Looked at under the lock: a connection that is being closed opens no more queues.
        if queues.closing.is_none() {
            queues.streams.push((stream, Waiting::default()));
        }
        drop(queues);
        Queue {
            outbox: Arc::clone(self),
            stream,
        }
    }

    /// Queues a frame for a stream, and wakes nobody yet; whether somebody is to be woken for the first time since. An answer
    /// to a stream that has ended is dropped: nobody waits for it.
    pub(crate) fn push(&self, stream: StreamId, frame: Frame) -> Result<bool, PushError> {
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
        let full = queues.frames > 0 && self.is_full(&queues, bytes);
        let Some(waiting) = queues.of(stream).filter(|waiting| !waiting.ended) else {
            return if frame.is_answer() {
                Ok(false)
            } else {
                Err(PushError::NoStream)
            };
        };
        if full {
            return Err(PushError::Full);
        }
        waiting.frames.push_back(frame);
        queues.frames += 1;
        queues.bytes += bytes;
        self.total.0.fetch_add(bytes, Ordering::Relaxed);
        Ok(!std::mem::replace(&mut queues.unseen, true))
    }

    /// Wakes who serves the streams for which something waits.
    pub(crate) fn wake(&self) {
        let mut queues = self.lock();
        queues.unseen = false;
        let waiting = queues.streams.iter_mut().map(|(_, waiting)| waiting);
        let waiting = waiting.filter(|waiting| !waiting.frames.is_empty() || waiting.ended);
        let wakers: Vec<Waker> = waiting.filter_map(|waiting| waiting.waker.take()).collect();
        drop(queues);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Asks the connection's task to close at once; the first reason stays.
    pub(crate) fn close(&self, code: CloseCode) {
        let closing = Closing { code, flush: false };
        self.lock().closing.get_or_insert(closing);
        self.changed.notify_one();
    }

    /// Asks the connection's task to write what is queued, and then to close. Nothing more can be queued.
    pub(crate) fn close_after_flush(&self, code: CloseCode) {
        // Under one lock: who finds its queue ended finds out that it is to be flushed.
        let mut queues = self.lock();
        queues.closing.get_or_insert(Closing { code, flush: true });
        for (_, waiting) in &mut queues.streams {
            waiting.ended = true;
        }
        drop(queues);
        self.changed.notify_one();
        self.wake();
    }

    /// How the connection is to be closed, if it is.
    pub(crate) fn closing(&self) -> Option<Closing> {
        self.lock().closing
    }

    /// The connection belongs to an admitted device.
    pub(crate) fn admit(&self) {
        if !self.admitted.swap(true, Ordering::AcqRel) {
            self.changed.notify_one();
        }
    }

    /// Whether the connection belongs to an admitted device.
    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    /// Resolves when [`Outbox::closing`] or [`Outbox::is_admitted`] has changed since it last did. For one task.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
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
        let limits = OutboxLimits {
            max_frames,
            max_bytes,
            max_total_bytes: usize::MAX,
        };
        Outbox::new(limits, Total::default())
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_count_and_what_is_taken_makes_room() {
        let outbox = outbox(2, usize::MAX);
        let mut queue = outbox.open(STREAM);
        assert_eq!(outbox.push(STREAM, answer()), Ok(true));
        assert_eq!(outbox.push(STREAM, answer()), Ok(false));
        assert_eq!(outbox.push(STREAM, answer()), Err(PushError::Full));
        let taken = queue.take(1).await.expect("one");
        assert_eq!(taken.frames.len(), 1);
        // Not before it is written.
        assert_eq!(outbox.push(STREAM, answer()), Err(PushError::Full));
        drop(taken);
        assert_eq!(outbox.push(STREAM, answer()), Ok(false));
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_bytes_but_one_frame_always_fits() {
        let outbox = outbox(9, 1);
        let mut queue = outbox.open(STREAM);
        assert_eq!(outbox.push(STREAM, answer()), Ok(true));
        assert_eq!(outbox.push(STREAM, answer()), Err(PushError::Full));
        drop(queue.take(usize::MAX).await);
        assert_eq!(outbox.push(STREAM, answer()), Ok(false));
    }

    #[test]
    fn an_ended_stream_loses_answers_but_never_a_push() {
        let outbox = outbox(9, usize::MAX);
        let queue = outbox.open(STREAM);
        assert_eq!(outbox.push(STREAM, answer()), Ok(true));
        drop(queue);
        assert_eq!(outbox.push(STREAM, answer()), Ok(false));
        let push = RelayToClient::Push(Push::InboxWaiting);
        let shared = Frame::shared(&push);
        for push in [Frame::single(push), shared] {
            assert_eq!(outbox.push(STREAM, push), Err(PushError::NoStream));
        }
        let queues = outbox.lock();
        assert_eq!((queues.frames, queues.bytes), (0, 0));
    }

    /// What all connections take together is bounded, and a little always fits.
    #[tokio::test]
    async fn when_all_wait_for_too_much_the_slow_go() {
        let limits = OutboxLimits {
            max_total_bytes: 3 * LITTLE_BYTES,
            ..OutboxLimits::default()
        };
        let total = Total::default();
        let [slow, other] = [(); 2].map(|()| Outbox::new(limits, total.clone()));
        let (mut queue, _other) = (slow.open(STREAM), other.open(STREAM));
        let frame = || Frame::Shared(vec![0; LITTLE_BYTES].into());
        for _ in 0..3 {
            slow.push(STREAM, frame()).expect("room");
        }
        assert_eq!(slow.push(STREAM, frame()), Err(PushError::Full));
        assert_eq!(other.push(STREAM, frame()), Ok(true));
        drop(queue.take(usize::MAX).await);
        assert_eq!(slow.push(STREAM, frame()), Ok(false));
        drop(queue);
        assert_eq!(total.0.load(Ordering::Relaxed), LITTLE_BYTES);
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
        outbox.changed().await;
        let closing = outbox.closing().expect("asked");
        assert_eq!(closing.code, CloseCode::REMOVED);
    }

    #[tokio::test]
    async fn a_flush_keeps_what_is_queued_and_takes_no_more() {
        let outbox = outbox(9, 999);
        let mut queue = outbox.open(STREAM);
        outbox.push(STREAM, answer()).expect("room");
        outbox.close_after_flush(CloseCode::REMOVED);
        assert!(outbox.closing().is_some_and(|closing| closing.flush));
        assert_eq!(outbox.push(STREAM, answer()), Ok(false));
        assert_eq!(queue.take(99).await.expect("queued").frames.len(), 1);
        assert!(queue.take(99).await.is_none());
        assert!(outbox.open(StreamId(4)).take(99).await.is_none());
    }

    /// REQ-198: who waits is woken once for all that was pushed, and what waits is taken together, up to a bound.
    #[tokio::test]
    async fn what_waits_is_taken_together_up_to_a_bound() {
        let outbox = outbox(99, usize::MAX);
        let mut queue = outbox.open(STREAM);
        let waiting = tokio::spawn(async move {
            let first = queue.take(100).await;
            (queue, first)
        });
        tokio::task::yield_now().await;
        for (n, bytes) in [(1, 10), (2, 100), (3, 10)] {
            let frame = Frame::Shared(vec![n; bytes].into());
            outbox.push(STREAM, frame).expect("room");
        }
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "woken before all was there");
        outbox.wake();
        let (mut queue, first) = waiting.await.expect("woken");
        let ids = |taken: Option<Taken>| -> Vec<u8> {
            let taken = taken.expect("frames");
            taken
                .frames
                .iter()
                .map(|frame| frame.to_bytes()[0])
                .collect()
        };
        assert_eq!(ids(first), [1, 2]);
        assert_eq!(ids(queue.take(100).await), [3]);
    }
}
