//! The committer's thread on a store in memory.

use super::*;
use crate::core::CoreConfig;
use crate::net::OutboxLimits;
use crate::net::outbox::Total;
use mortise_protocol::identity::SigningKey;
use mortise_protocol::store::{Crash, MemoryStore};
use mortise_protocol::wire::{Refusal, Request, RequestId};

const CONN: ConnId = ConnId(1);
const STREAM: StreamId = StreamId(0);

fn running(crash: Crash) -> Running {
    let key = SigningKey::from_seed(&[1; 32]);
    let mut store = MemoryStore::default();
    let core = Core::load(&store, CoreConfig::new(key)).expect("load");
    store.plan_crash(crash);
    Committer::spawn(core, Box::new(store)).expect("spawn")
}

async fn add_token(running: &Running) -> Result<(), CoreError> {
    let (reply, answer) = oneshot::channel();
    let event = Event::AddClaimToken(Hash([7; 32]), reply);
    running.intake.send(event).await.expect("running");
    answer.await.expect("answered")
}

async fn connected(running: &Running) -> Arc<Outbox> {
    let outbox = Outbox::new(OutboxLimits::default(), Total::default());
    let connected = Event::Connected {
        conn: CONN,
        transport_key: SigningKey::from_seed(&[2; 32]).public(),
        binding: ConnectionBinding([3; 32]),
        outbox: Arc::clone(&outbox),
    };
    running.intake.send(connected).await.expect("running");
    outbox
}

async fn ask(running: &Running, id: u64) {
    let held = Arc::new(Semaphore::new(1)).try_acquire_owned();
    let frame = Event::Frame {
        conn: CONN,
        stream: STREAM,
        frame: ClientToRelay {
            id: RequestId(id),
            request: Request::FetchSlots,
        },
        held: held.expect("permit"),
    };
    running.intake.send(frame).await.expect("running");
}

async fn refusal(queue: &mut crate::net::outbox::Queue) -> Refusal {
    let taken = queue.take(1).await.expect("an answer");
    let [Frame::Single(frame)] = &taken.frames[..] else {
        panic!("not one, for one connection: {taken:?}");
    };
    match &**frame {
        RelayToClient::Response {
            response: Response::Refused(refusal),
            ..
        } => refusal.clone(),
        other => panic!("not a refusal: {other:?}"),
    }
}

/// REQ-072: after a failed write the process is told, and every question is refused.
#[tokio::test]
async fn a_failed_write_stops_everything() {
    let mut running = running(Crash::AtBatch(0));
    let outbox = connected(&running).await;
    let mut queue = outbox.open(STREAM);
    ask(&running, 1).await;
    assert_eq!(refusal(&mut queue).await, Refusal::HelloFirst);
    assert_eq!(*running.stopped.borrow(), Stopped::No);
    assert!(matches!(
        add_token(&running).await,
        Err(CoreError::Store(_))
    ));
    let told = running.stopped.wait_for(|stopped| *stopped != Stopped::No);
    assert_eq!(*told.await.expect("running"), Stopped::StoreFailed);
    ask(&running, 2).await;
    assert_eq!(refusal(&mut queue).await, Refusal::Storage);
    assert!(matches!(add_token(&running).await, Err(CoreError::Stopped)));
}

#[tokio::test]
async fn the_committer_ends_with_its_last_intake() {
    let Running {
        intake,
        mut stopped,
        thread,
    } = running(Crash::Never);
    drop(intake);
    stopped.changed().await.expect("told before it is gone");
    assert_eq!(*stopped.borrow(), Stopped::Ended);
    thread.join().expect("no panic");
}

/// A connection that takes nothing is closed and forgotten; the next question is decided all the same.
#[tokio::test]
async fn nobody_is_waited_for() {
    let running = running(Crash::Never);
    let outbox = connected(&running).await;
    let _unread = outbox.open(STREAM);
    let many = OutboxLimits::default().max_frames as u64 + 1;
    for id in 0..many {
        ask(&running, id).await;
    }
    outbox.changed().await;
    let closing = outbox.closing().expect("asked");
    assert_eq!(closing.code, CloseCode::TOO_SLOW);
    assert!(add_token(&running).await.is_ok());
    let (reply, status) = oneshot::channel();
    running
        .intake
        .send(Event::Status(reply))
        .await
        .expect("running");
    let status = status.await.expect("answered").expect("status");
    assert_eq!(status.connections, 0);
}
