//! One stream of one connection: frames in, to the committer; frames out, from the outbox.
//!
//! All streams of a connection share its task, so that what a batch has for it leaves together; reading and writing do, so that a peer that does not take its answers is not read from either.
//! A stream ends when the device has ended its side and every question on it is answered. This module must
//! never allocate what a peer merely announced.

use std::sync::Arc;

use bytes::Bytes;
use mortise_protocol::identity::decode;
use mortise_protocol::wire::{
    ClientToRelay, CloseCode, FRAME_HEADER_BYTES, FrameError, Refusal, RelayToClient, RequestId,
    Response, decode_frame_length, limits,
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::committer::{Event, Intake};
use super::outbox::{Frame, Outbox};
use crate::core::{ConnId, StreamId};

/// What is allocated before any of a body has come, bytes.
const FIRST_ALLOCATION: usize = 16 * 1024;

/// When this much is taken from a queue, it is written before more is taken, bytes (REQ-198): many small records share packets,
/// and a large answer is encoded only when it is its turn.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// What every stream of a connection shares.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) conn: ConnId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) intake: Intake,
    /// Bytes that this connection may have between its sockets and the store.
    pub(super) inbound: Arc<Semaphore>,
}

/// Why reading from a stream ended.
enum Ended {
    /// The device has asked this many questions and ended its side.
    Asked(u64),
    /// The last question was refused without the core; nothing more is read.
    Refused(u64),
    /// The stream or the connection is gone.
    Lost,
}

/// A frame that is not taken.
enum ReadFailed {
    Refuse(RequestId, Refusal),
    Lost,
}

/// Serves a stream to its end.
pub(super) async fn serve(shared: Shared, mut send: SendStream, mut recv: RecvStream) {
    let id = StreamId(VarInt::from(send.id()).into_inner());
    let mut queue = shared.outbox.open(id);
    let mut expected = None;
    let mut answered = 0_u64;
    let mut flush = false;
    {
        let reading = read_all(&shared, id, &mut recv);
        tokio::pin!(reading);
        while expected.is_none_or(|expected| answered < expected) {
            // Biased: answers go out before more questions are read.
            tokio::select! {
                biased;
                taken = queue.take(MAX_WRITE_BYTES) => {
                    let Some(taken) = taken else {
                        flush = shared.outbox.closing().is_some();
                        break;
                    };
                    answered += taken.frames.iter().map(|frame| u64::from(frame.is_answer())).sum::<u64>();
                    // As chunks: QUIC keeps references until they are acknowledged, and no copy.
                    let mut chunks: Vec<Bytes> = taken.frames.iter().map(Frame::to_bytes).collect();
                    if send.write_all_chunks(&mut chunks).await.is_err() {
                        break;
                    }
                    // Counted until here: written means that QUIC's own bounded buffer has it.
                    drop(taken);
                }
                ended = &mut reading, if expected.is_none() => match ended {
                    Ended::Asked(asked) | Ended::Refused(asked) => expected = Some(asked),
                    Ended::Lost => break,
                },
            }
        }
    }
    drop(queue);
    // Both fail only for streams that are over already.
    let _ = recv.stop(close_code(CloseCode::MALFORMED));
    let _ = send.finish();
    if flush {
        // The connection closes when this ends: not before the peer has everything.
        let _ = send.stopped().await;
    }
}

/// A close code as QUIC carries it.
pub(super) fn close_code(code: CloseCode) -> VarInt {
    VarInt::try_from(code.0).unwrap_or_default()
}

/// Reads frames and hands them to the committer, in order.
async fn read_all(shared: &Shared, stream: StreamId, recv: &mut RecvStream) -> Ended {
    let mut asked = 0;
    loop {
        let (frame, held) = match read_frame(shared, recv).await {
            Ok(Some(read)) => read,
            Ok(None) => return Ended::Asked(asked),
            Err(ReadFailed::Lost) => return Ended::Lost,
            Err(ReadFailed::Refuse(id, refusal)) => {
                let answer = RelayToClient::Response {
                    id,
                    response: Response::Refused(refusal),
                };
                if shared.outbox.push(stream, Frame::single(answer)).is_err() {
                    shared.outbox.close(CloseCode::TOO_SLOW);
                }
                shared.outbox.wake();
                return Ended::Refused(asked + 1);
            }
        };
        asked += 1;
        let event = Event::Frame {
            conn: shared.conn,
            stream,
            frame,
            held,
        };
        if shared.intake.send(event).await.is_err() {
            return Ended::Lost;
        }
    }
}

/// One frame and what it holds of the connection's budget; `None` where the stream ends between frames.
async fn read_frame(
    shared: &Shared,
    recv: &mut RecvStream,
) -> Result<Option<(ClientToRelay, OwnedSemaphorePermit)>, ReadFailed> {
    let mut header = [0; FRAME_HEADER_BYTES];
    match recv.read_exact(&mut header).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(quinn::ReadExactError::FinishedEarly(_)) => {
            return Err(ReadFailed::Refuse(RequestId(0), Refusal::Malformed));
        }
        Err(quinn::ReadExactError::ReadError(_)) => return Err(ReadFailed::Lost),
    }
    let limit = if shared.outbox.is_admitted() {
        limits::MAX_FRAME_BYTES
    } else {
        limits::MAX_FRAME_BYTES_UNADMITTED
    };
    let length = decode_frame_length(header, limit).map_err(|error| {
        let refusal = match error {
            FrameError::TooLarge { limit, .. } => Refusal::TooLarge {
                limit: u64::try_from(limit).unwrap_or(u64::MAX),
            },
            _ => Refusal::Malformed,
        };
        ReadFailed::Refuse(RequestId(0), refusal)
    })?;
    let held = Arc::clone(&shared.inbound)
        .acquire_many_owned(u32::try_from(length).unwrap_or(u32::MAX))
        .await
        .map_err(|_| ReadFailed::Lost)?;
    let body = read_body(recv, length).await?;
    match decode(&body) {
        Ok(frame) => Ok(Some((frame, held))),
        Err(_) => Err(ReadFailed::Refuse(asked_id(&body), Refusal::Malformed)),
    }
}

/// A body of `length` bytes; memory grows with what has come.
async fn read_body(recv: &mut RecvStream, length: usize) -> Result<Vec<u8>, ReadFailed> {
    let mut body = Vec::with_capacity(length.min(FIRST_ALLOCATION));
    while body.len() < length {
        let chunk: Option<quinn::Chunk> = recv
            .read_chunk(length - body.len(), true)
            .await
            .map_err(|_| ReadFailed::Lost)?;
        let Some(chunk) = chunk else {
            return Err(ReadFailed::Refuse(asked_id(&body), Refusal::Malformed));
        };
        let bytes: Bytes = chunk.bytes;
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// The request id at the start of a body that does not decode; 0 when not even that is there.
fn asked_id(body: &[u8]) -> RequestId {
    RequestId(body.first_chunk().map_or(0, |id| u64::from_be_bytes(*id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_unreadable_request_is_told_when_it_is_there() {
        assert_eq!(asked_id(&[0, 0, 0, 0, 0, 0, 0, 9, 0xff]), RequestId(9));
        assert_eq!(asked_id(&[1, 2, 3]), RequestId(0));
    }
}
