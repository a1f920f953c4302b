//! REQ-040, REQ-041: frame limits, unreadable frames, and which stream an answer comes on.

use mortise_client::transport::TransportError;
use mortise_protocol::identity::{Hash, Signature};
use mortise_protocol::wire::{
    AccessProof, FrameError, Refusal, RelayToClient, Request, RequestId, Response, Submission,
    limits,
};
use tls_codec::VLByteVec;

use crate::fixture::{
    Fixture, NOBODY, Organisation, ask, exchange, frame_bytes, hello, key, raw_exchange,
};

fn refused(id: u64, refusal: Refusal) -> RelayToClient {
    RelayToClient::Response {
        id: RequestId(id),
        response: Response::Refused(refusal),
    }
}

/// A `Found` whose body is exactly `bytes` long.
fn padded(id: u64, bytes: usize) -> Vec<u8> {
    let with = |entry: usize| {
        frame_bytes(
            id,
            Request::Found {
                claim_token: VLByteVec::from(vec![0; 32]),
                entry: VLByteVec::from(vec![0; entry]),
            },
        )
    };
    let overhead = with(20_000).len() - 4 - 20_000;
    let frame = with(bytes - overhead);
    assert_eq!(frame.len(), 4 + bytes);
    frame
}

/// REQ-040: before admission, the limit is accepted and one byte more is not.
#[tokio::test]
async fn strangers_get_64_kib_and_no_more() {
    let fixture = Fixture::new().await;
    let (_endpoint, quic) = fixture.bare(key(1)).await;
    let limit = limits::MAX_FRAME_BYTES_UNADMITTED;
    // Read and decided by the core: the entry is nonsense.
    let answer = raw_exchange(&quic, &padded(7, limit)).await;
    let RelayToClient::Response { id, response } = answer else {
        panic!("a push");
    };
    assert_eq!(id, RequestId(7));
    assert!(
        matches!(response, Response::Refused(Refusal::RosterRule { .. })),
        "{response:?}"
    );
    let limit = limit as u64;
    let answer = raw_exchange(&quic, &padded(8, limits::MAX_FRAME_BYTES_UNADMITTED + 1)).await;
    assert_eq!(answer, refused(0, Refusal::TooLarge { limit }));
    // The stream is over, the connection is not.
    let answer = raw_exchange(&quic, &frame_bytes(9, Request::FetchSlots)).await;
    assert_eq!(answer, refused(9, Refusal::HelloFirst));
    fixture.relay.shutdown().await;
}

/// REQ-040: after admission, the limit of the protocol holds.
#[tokio::test]
async fn admitted_devices_get_the_whole_limit_and_no_more() {
    let fixture = Fixture::new().await;
    let (organisation, connection) = Organisation::found(&fixture).await;
    connection.close().await;
    let (_endpoint, quic) = fixture.bare(organisation.owner.transport.clone()).await;
    let answer = raw_exchange(&quic, &frame_bytes(1, hello(organisation.org))).await;
    assert!(matches!(
        answer,
        RelayToClient::Response {
            response: Response::Hello { .. },
            ..
        }
    ));
    let answer = raw_exchange(&quic, &padded(2, limits::MAX_FRAME_BYTES)).await;
    assert!(
        matches!(
            answer,
            RelayToClient::Response {
                id: RequestId(2),
                response: Response::Refused(Refusal::RosterRule { .. }),
            }
        ),
        "{answer:?}"
    );
    // The length alone is refused: the body is never sent.
    let over = u32::try_from(limits::MAX_FRAME_BYTES + 1).expect("u32");
    let answer = raw_exchange(&quic, &over.to_be_bytes()).await;
    let limit = limits::MAX_FRAME_BYTES as u64;
    assert_eq!(answer, refused(0, Refusal::TooLarge { limit }));
    fixture.relay.shutdown().await;
}

/// REQ-041: what does not decode is refused by its id, and ends its stream only.
#[tokio::test]
async fn unreadable_frames_are_refused() {
    let fixture = Fixture::new().await;
    let (_endpoint, quic) = fixture.bare(key(1)).await;
    let malformed = |id| refused(id, Refusal::Malformed);
    let mut trailing = frame_bytes(5, Request::FetchSlots);
    trailing[3] += 1;
    trailing.push(0);
    assert_eq!(raw_exchange(&quic, &trailing).await, malformed(5));
    assert_eq!(raw_exchange(&quic, &[0, 0, 0, 0]).await, malformed(0));
    assert_eq!(raw_exchange(&quic, &[0, 0, 0, 2, 1, 1]).await, malformed(0));
    // Cut short by the end of the stream.
    let (mut send, mut recv) = quic.open_bi().await.expect("open");
    let whole = frame_bytes(6, Request::FetchSlots);
    send.write_all(&whole[..whole.len() - 1])
        .await
        .expect("write");
    send.finish().expect("finish");
    assert_eq!(crate::fixture::read_frame(&mut recv).await, malformed(6));
    assert_eq!(recv.read_to_end(1).await, Ok(Vec::new()));
    fixture.relay.shutdown().await;
}

/// REQ-041: a stream ends when its questions are answered.
#[tokio::test]
async fn a_stream_ends_after_its_last_answer() {
    let fixture = Fixture::new().await;
    let (_endpoint, quic) = fixture.bare(key(1)).await;
    let (mut send, mut recv) = quic.open_bi().await.expect("open");
    for id in 1..=3 {
        let frame = frame_bytes(id, Request::FetchSlots);
        send.write_all(&frame).await.expect("write");
    }
    send.finish().expect("finish");
    for id in 1..=3 {
        let answer = crate::fixture::read_frame(&mut recv).await;
        assert_eq!(answer, refused(id, Refusal::HelloFirst));
    }
    assert_eq!(recv.read_to_end(1).await, Ok(Vec::new()));
    fixture.relay.shutdown().await;
}

/// REQ-041: many requests at once, over all kinds of streams, are each answered.
#[tokio::test]
async fn every_request_is_answered_whatever_stream_it_takes() {
    let fixture = Fixture::new().await;
    let mut connection = fixture.connect(key(1)).await.expect("connect");
    let (answer, _) = exchange(&mut connection, 1, hello(NOBODY)).await;
    assert_eq!(answer, Response::Refused(Refusal::UnknownOrg));
    let submission = Submission {
        group: mortise_protocol::identity::GroupId([1; 32]),
        epoch: mortise_protocol::identity::Epoch(0),
        payload: VLByteVec::from(vec![1]),
        welcomes: vec![],
        proof: AccessProof {
            entry_hash: Hash([0; 32]),
            signature: Signature([0; 64]),
        },
    };
    let ids = 2..302;
    for id in ids.clone() {
        let request = match id % 3 {
            0 => Request::FetchSlots,
            1 => Request::Submit(submission.clone()),
            _ => hello(NOBODY),
        };
        connection.send(&ask(id, request)).expect("send");
    }
    let mut open: std::collections::BTreeSet<u64> = ids.collect();
    while !open.is_empty() {
        let Some(RelayToClient::Response { id, .. }) = connection.recv().await else {
            panic!("the connection ended: {}", connection.end());
        };
        assert!(open.remove(&id.0), "answered twice: {id:?}");
    }
    connection.close().await;
    fixture.relay.shutdown().await;
}

/// REQ-040: the client does not send what no relay takes, and does not queue without end.
#[tokio::test]
async fn the_client_refuses_oversize_and_overflow_itself() {
    let fixture = Fixture::new().await;
    let connection = fixture.connect(key(1)).await.expect("connect");
    let found = |entry: usize| {
        let (claim_token, entry) = (VLByteVec::from(vec![]), VLByteVec::from(vec![0; entry]));
        ask(1, Request::Found { claim_token, entry })
    };
    let error = connection
        .send(&found(limits::MAX_FRAME_BYTES))
        .expect_err("too large");
    assert!(matches!(
        error,
        TransportError::Frame(FrameError::TooLarge { .. })
    ));
    let half = limits::MAX_FRAME_BYTES / 2;
    let sent = (0..5)
        .map(|_| connection.send(&found(half)))
        .collect::<Result<Vec<_>, _>>();
    assert_eq!(sent, Err(TransportError::Backlogged));
    fixture.relay.shutdown().await;
}
