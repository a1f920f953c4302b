//! Resolving and connecting: all addresses of a host, each a little after the one before (RFC 8305 in spirit).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mortise_protocol::identity::{Hash, SigningKey};
use mortise_protocol::wire::limits;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, TransportConfig, VarInt};
use tokio::task::JoinSet;

use super::TransportError;
use super::tls::{WrongPin, client_config};

/// How much later the next address is tried (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// A connection without a sign of life is dead after this, ms.
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// How often a quiet connection is kept alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// What one stream may have in flight towards this device, bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// What all streams may have in flight: no stream that waits to be read can starve another.
const WINDOW: u32 = (limits::MAX_STREAMS + 2) * STREAM_WINDOW;
/// What this device may have in flight, bytes.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;
/// Never seen by anybody: the pin identifies the relay, and SNI is off.
const SERVER_NAME: &str = "relay.mortise.invalid";

/// Connects to the first address of `address` that answers with the pinned key.
pub(super) async fn dial(
    address: &str,
    pin: Hash,
    key: Arc<SigningKey>,
    timeout: Duration,
) -> Result<(Endpoint, quinn::Connection), TransportError> {
    let mut worst = None;
    let race = race(address, pin, key, &mut worst);
    if let Ok(result) = tokio::time::timeout(timeout, race).await {
        return result;
    }
    Err(worst.unwrap_or_else(|| TransportError::Unreachable {
        address: address.into(),
        after_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    }))
}

/// Tries all addresses; `worst` keeps the most telling failure, for when the time is up.
async fn race(
    address: &str,
    pin: Hash,
    key: Arc<SigningKey>,
    worst: &mut Option<TransportError>,
) -> Result<(Endpoint, quinn::Connection), TransportError> {
    let mut attempts = JoinSet::new();
    for (delay, peer) in (0_u32..).zip(resolve(address).await?) {
        let key = Arc::clone(&key);
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * delay).await;
            attempt(peer, pin, key).await
        });
    }
    while let Some(joined) = attempts.join_next().await {
        match joined {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => keep_most_telling(worst, error),
            Err(_) => {}
        }
    }
    Err(worst.take().unwrap_or_else(|| TransportError::Resolve {
        address: address.into(),
        reason: "the name has no address".into(),
    }))
}

fn keep_most_telling(kept: &mut Option<TransportError>, new: TransportError) {
    let rank = |error: &TransportError| match error {
        TransportError::WrongFingerprint { .. } => 4,
        TransportError::ProtocolMismatch => 3,
        TransportError::Handshake { .. } | TransportError::Closed { .. } => 2,
        TransportError::Refused => 1,
        _ => 0,
    };
    if kept.as_ref().is_none_or(|kept| rank(&new) > rank(kept)) {
        *kept = Some(new);
    }
}

/// The host's addresses, families alternating, the resolver's favourite first.
async fn resolve(address: &str) -> Result<Vec<SocketAddr>, TransportError> {
    let found =
        tokio::net::lookup_host(address)
            .await
            .map_err(|error| TransportError::Resolve {
                address: address.into(),
                reason: error.to_string(),
            })?;
    let found: Vec<SocketAddr> = found.collect();
    let v6_first = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == v6_first);
    first.reverse();
    second.reverse();
    let mut order = Vec::with_capacity(first.len() + second.len());
    while !(first.is_empty() && second.is_empty()) {
        order.extend(first.pop());
        order.extend(second.pop());
    }
    Ok(order)
}

async fn attempt(
    peer: SocketAddr,
    pin: Hash,
    key: Arc<SigningKey>,
) -> Result<(Endpoint, quinn::Connection), TransportError> {
    let local: SocketAddr = if peer.is_ipv6() {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let endpoint = Endpoint::client(local).map_err(|error| TransportError::Local {
        reason: error.to_string(),
    })?;
    let wrong_pin = WrongPin::default();
    let config = quic_config(key, pin, &wrong_pin)?;
    let connecting = endpoint
        .connect_with(config, peer, SERVER_NAME)
        .map_err(|error| TransportError::Local {
            reason: error.to_string(),
        })?;
    match connecting.await {
        Ok(connection) => Ok((endpoint, connection)),
        Err(error) => Err(match wrong_pin.get() {
            Some(actual) => TransportError::WrongFingerprint {
                expected: pin,
                actual: *actual,
            },
            None => error.into(),
        }),
    }
}

fn quic_config(
    key: Arc<SigningKey>,
    pin: Hash,
    wrong_pin: &WrongPin,
) -> Result<ClientConfig, TransportError> {
    let broken = |reason: String| TransportError::Handshake { reason };
    let tls = client_config(key, pin, Arc::clone(wrong_pin)).map_err(|e| broken(e.to_string()))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| broken(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_does_not_resolve_says_so() {
        let key = Arc::new(SigningKey::from_seed(&[1; 32]));
        let error = dial("no port", Hash([0; 32]), key, Duration::from_secs(5))
            .await
            .expect_err("not an address");
        assert!(matches!(error, TransportError::Resolve { .. }), "{error}");
    }

    #[tokio::test]
    async fn silence_is_reported_as_unreachable() {
        // Bound, and never answered from.
        let deaf = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = deaf.local_addr().expect("address").to_string();
        let key = Arc::new(SigningKey::from_seed(&[1; 32]));
        let error = dial(&address, Hash([0; 32]), key, Duration::from_millis(50))
            .await
            .expect_err("nobody answers");
        assert_eq!(
            error,
            TransportError::Unreachable {
                address,
                after_ms: 50
            }
        );
    }

    #[test]
    fn the_most_telling_failure_is_kept() {
        let mut kept = None;
        let wrong = TransportError::WrongFingerprint {
            expected: Hash([1; 32]),
            actual: Hash([2; 32]),
        };
        for error in [
            TransportError::Refused,
            wrong.clone(),
            TransportError::ProtocolMismatch,
        ] {
            keep_most_telling(&mut kept, error);
        }
        assert_eq!(kept, Some(wrong));
    }
}
