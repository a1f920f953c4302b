//! REQ-049, REQ-062, REQ-070: why connections end, and what is there after a restart.

use std::time::Duration;

use mortise_client::transport::TransportError;
use mortise_protocol::roster::Op;
use mortise_protocol::wire::{CloseCode, Push, RelayToClient, Request, Response};
use mortise_relay::net::{OutboxLimits, Stopped};
use mortise_relay::store::LockError;
use mortise_relay::{Relay, RelayError};
use quinn::VarInt;

use crate::fixture::{
    Fixture, NOBODY, Organisation, PATIENCE, bare_config, config, dial, exchange, frame_bytes,
    hello, key,
};

fn closed(code: CloseCode) -> TransportError {
    TransportError::Closed { code }
}

async fn ended(connection: &mut mortise_client::transport::Connection) -> TransportError {
    let drained = async { while connection.recv().await.is_some() {} };
    tokio::time::timeout(PATIENCE, drained)
        .await
        .expect("in time");
    connection.end()
}

/// REQ-049: a device that does not take its answers is closed, and costs a bounded queue.
#[tokio::test]
async fn a_slow_reader_is_closed() {
    let fixture = Fixture::with(|config| {
        config.outbox = OutboxLimits {
            max_frames: 4,
            max_bytes: usize::MAX,
            ..OutboxLimits::default()
        };
    })
    .await;
    let tls = mortise_client::transport::tls::client_config(
        key(1),
        fixture.relay.fingerprint(),
        Default::default(),
    );
    let mut config = bare_config(tls.expect("config"));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(32));
    config.transport_config(transport.into());
    let (_endpoint, connecting) = dial(&fixture.relay, config);
    let quic = connecting.await.expect("handshake");
    let (mut send, _unread) = quic.open_bi().await.expect("open");
    let questions = frame_bytes(1, Request::FetchSlots).repeat(64);
    // Fails when the relay has had enough, which is the point.
    let _ = send.write_all(&questions).await;
    let end = tokio::time::timeout(PATIENCE, quic.closed()).await;
    assert_eq!(
        TransportError::from(end.expect("in time")),
        closed(CloseCode::TOO_SLOW)
    );
    fixture.relay.shutdown().await;
}

/// REQ-049: a stranger may not stay; an admitted device may.
#[tokio::test]
async fn strangers_are_closed_after_a_while() {
    let fixture = Fixture::with(|config| {
        config.unadmitted_timeout = Duration::from_millis(1_500);
    })
    .await;
    let (organisation, mut member) = Organisation::found(&fixture).await;
    let mut stranger = fixture.connect(key(1)).await.expect("connect");
    assert_eq!(ended(&mut stranger).await, closed(CloseCode::TIMEOUT));
    organisation.greet(&mut member, 9).await;
    fixture.relay.shutdown().await;
}

/// REQ-054: who joins on a connection is admitted on it, without another `Hello`.
#[tokio::test]
async fn whoever_joins_may_stay() {
    let fixture = Fixture::with(|config| {
        config.unadmitted_timeout = Duration::from_millis(1_500);
    })
    .await;
    let (mut organisation, mut owner) = Organisation::found(&fixture).await;
    let device = organisation.invite_device(&mut owner, 2).await;
    let mut joiner = fixture
        .connect(device.transport.clone())
        .await
        .expect("connect");
    exchange(&mut joiner, 1, hello(organisation.org)).await;
    let entry = organisation.redeem(&device, 2);
    let (answer, _) = exchange(&mut joiner, 2, entry).await;
    assert!(
        matches!(answer, Response::RosterAppended { .. }),
        "{answer:?}"
    );
    // The stranger came later, and is closed first: by then the joiner would have been, too.
    let mut stranger = fixture.connect(key(1)).await.expect("connect");
    assert_eq!(ended(&mut stranger).await, closed(CloseCode::TIMEOUT));
    organisation.greet(&mut joiner, 3).await;
    fixture.relay.shutdown().await;
}

/// REQ-049: a relay that shuts down says so.
#[tokio::test]
async fn a_shutdown_is_announced() {
    let fixture = Fixture::new().await;
    let mut connection = fixture.connect(key(1)).await.expect("connect");
    exchange(&mut connection, 1, hello(NOBODY)).await;
    fixture.relay.shutdown().await;
    assert_eq!(
        ended(&mut connection).await,
        closed(CloseCode::SHUTTING_DOWN)
    );
}

/// REQ-062: the connections of a device that an order names are closed, with the reason, and others go on.
#[tokio::test]
async fn a_revoked_device_is_told_and_closed() {
    let fixture = Fixture::new().await;
    let (mut organisation, mut owner) = Organisation::found(&fixture).await;
    let device = organisation.add_device(&mut owner, 2).await;
    let mut revoked = fixture
        .connect(device.transport.clone())
        .await
        .expect("connect");
    organisation.greet(&mut revoked, 1).await;
    let order = organisation.sign(vec![Op::RevokeDevice {
        device: device.id(),
    }]);
    let (answer, pushes) = exchange(&mut owner, 50, order).await;
    assert!(
        matches!(answer, Response::RosterAppended { .. }),
        "{answer:?}"
    );
    assert_eq!(ended(&mut revoked).await, closed(CloseCode::REMOVED));
    // Its key gets a connection again, and no admission with it.
    let mut again = fixture
        .connect(device.transport.clone())
        .await
        .expect("connect");
    let (answer, _) = exchange(&mut again, 1, hello(organisation.org)).await;
    let admitted = matches!(
        answer,
        Response::Hello {
            admitted: mortise_protocol::wire::Flag::Yes,
            ..
        }
    );
    assert!(!admitted);
    // The owner hears of the order as everybody does.
    let is_entry =
        |frame: &RelayToClient| matches!(frame, RelayToClient::Push(Push::RosterEntry { .. }));
    if !pushes.iter().any(is_entry) {
        let pushed = owner.recv().await.expect("a push");
        assert!(is_entry(&pushed), "{pushed:?}");
    }
    organisation.greet(&mut owner, 51).await;
    fixture.relay.shutdown().await;
}

/// REQ-070: what was acked is there after a restart.
#[tokio::test]
async fn what_was_acked_survives_a_restart() {
    let fixture = Fixture::new().await;
    let (organisation, connection) = Organisation::found(&fixture).await;
    drop(connection);
    let fixture = fixture.restart().await;
    let transport = organisation.owner.transport.clone();
    let mut connection = fixture.connect(transport).await.expect("connect");
    let (answer, _) = exchange(&mut connection, 1, hello(organisation.org)).await;
    let Response::Hello { head, .. } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(head, organisation.head);
    fixture.relay.shutdown().await;
}

/// One relay per data directory; a running one says that nothing is wrong.
#[tokio::test]
async fn a_data_directory_has_one_relay() {
    let fixture = Fixture::new().await;
    let second = Relay::start(config(&fixture.dir)).await;
    assert!(matches!(
        second,
        Err(RelayError::Lock(LockError::Held { .. }))
    ));
    let stopped = tokio::time::timeout(Duration::ZERO, fixture.relay.stopped()).await;
    assert!(stopped.is_err(), "{:?}", stopped.unwrap_or(Stopped::No));
    fixture.relay.shutdown().await;
}

/// A full relay refuses, by name.
#[tokio::test]
async fn a_full_relay_refuses() {
    let fixture = Fixture::new().await;
    fixture.write_config(|config| config.max_connections = 1);
    let fixture = fixture.restart().await;
    let mut first = fixture.connect(key(1)).await.expect("connect");
    exchange(&mut first, 1, hello(NOBODY)).await;
    let second = fixture.connect(key(2)).await;
    assert_eq!(second.expect_err("full"), TransportError::Refused);
    fixture.relay.shutdown().await;
}
