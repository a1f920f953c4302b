//! REQ-002, REQ-004, REQ-005, REQ-052: who talks to whom, and what may never be negotiated.

use std::sync::Arc;

use mortise_client::transport::tls::{WrongPin, client_config};
use mortise_client::transport::{TransportError, connect};
use mortise_protocol::wire::ALPN;
use mortise_relay::net::tls::{ServerIdentity, peer, server_config};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConnection, HandshakeKind, NamedGroup, ServerConnection};

use crate::fixture::{Fixture, PATIENCE, WRONG_PIN, bare_config, dial, key};

/// A bare QUIC server with this TLS configuration.
fn serve(tls: rustls::ServerConfig) -> quinn::Endpoint {
    let crypto = QuicServerConfig::try_from(tls).expect("suite");
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().expect("address")).expect("bind")
}

/// REQ-002, REQ-052: the relay sees the device's key; both sides bind access proofs to the same value.
#[tokio::test]
async fn both_sides_know_each_other_and_export_the_same_binding() {
    let identity = ServerIdentity::generate().expect("identity");
    let server = serve(server_config(&identity).expect("config"));
    let address = server.local_addr().expect("address").to_string();
    let accept = async {
        let incoming = server.accept().await.expect("incoming");
        incoming.accept().expect("accept").await.expect("handshake")
    };
    let pin = identity.fingerprint().expect("fingerprint");
    let (client, server_side) = tokio::join!(connect(&address, pin, key(1), PATIENCE), accept);
    let client = client.expect("connect");
    let (seen, binding) = peer(&server_side).expect("a raw key");
    assert_eq!(seen, key(1).public());
    assert_eq!(binding, client.binding());
    // Another connection of the same device is bound to something else.
    let accept = async {
        let incoming = server.accept().await.expect("incoming");
        incoming.accept().expect("accept").await.expect("handshake")
    };
    let (again, _other) = tokio::join!(connect(&address, pin, key(1), PATIENCE), accept);
    assert_ne!(again.expect("connect").binding(), binding);
}

/// REQ-002: a server with another key is refused, and told apart from every other failure.
#[tokio::test]
async fn a_wrong_pin_is_refused_by_name() {
    let fixture = Fixture::new().await;
    let error = connect(&fixture.address(), WRONG_PIN, key(1), PATIENCE)
        .await
        .expect_err("wrong pin");
    assert_eq!(
        error,
        TransportError::WrongFingerprint {
            expected: WRONG_PIN,
            actual: fixture.relay.fingerprint(),
        }
    );
    fixture.relay.shutdown().await;
}

async fn refused(fixture: &Fixture, tls: rustls::ClientConfig) -> TransportError {
    let (_endpoint, connecting) = dial(&fixture.relay, bare_config(tls));
    // The server judges the client's key after the client thinks that all is done.
    let error = match connecting.await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    error.into()
}

fn anonymous(fixture: &Fixture) -> rustls::ClientConfig {
    let mut tls =
        client_config(key(1), fixture.relay.fingerprint(), WrongPin::default()).expect("config");
    tls.client_auth_cert_resolver = Arc::new(NoKey);
    tls
}

#[derive(Debug)]
struct NoKey;

impl rustls::client::ResolvesClientCert for NoKey {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

/// REQ-002: a device shows a raw public key, nothing else.
#[tokio::test]
async fn a_client_with_a_certificate_or_without_a_key_is_refused() {
    let fixture = Fixture::new().await;
    let error = refused(&fixture, anonymous(&fixture)).await;
    assert!(
        matches!(error, TransportError::Handshake { .. }),
        "{error:?}"
    );

    let identity = ServerIdentity::generate().expect("identity");
    let certified = rustls::sign::CertifiedKey::from_der(
        vec![CertificateDer::from(identity.certificate().to_vec())],
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.dangerous_key().to_vec())),
        &rustls::crypto::aws_lc_rs::default_provider(),
    )
    .expect("certified");
    let mut tls = anonymous(&fixture);
    tls.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let error = refused(&fixture, tls).await;
    assert!(
        matches!(error, TransportError::Handshake { .. }),
        "{error:?}"
    );
    fixture.relay.shutdown().await;
}

/// REQ-002: a key that the client does not hold gets nobody in.
#[tokio::test]
async fn a_raw_key_without_its_secret_is_refused() {
    let fixture = Fixture::new().await;
    let (mine, stolen) = (key(1), key(2));
    let pin = fixture.relay.fingerprint();
    let mut tls = client_config(stolen, pin, WrongPin::default()).expect("config");
    let spki = resolved(&tls).cert.clone();
    let mut signs = client_config(mine, pin, WrongPin::default()).expect("config");
    let forged = rustls::sign::CertifiedKey::new(spki, Arc::clone(&resolved(&signs).key));
    tls.client_auth_cert_resolver = Arc::new(
        rustls::client::AlwaysResolvesClientRawPublicKeys::new(Arc::new(forged)),
    );
    let error = refused(&fixture, tls).await;
    assert!(
        matches!(error, TransportError::Handshake { .. }),
        "{error:?}"
    );
    // The same construction with its own key is let in: what was refused is the signature.
    signs.alpn_protocols = vec![ALPN.to_vec()];
    let (_endpoint, connecting) = dial(&fixture.relay, bare_config(signs));
    let connection = connecting.await.expect("handshake");
    connection.open_bi().await.expect("open");
    fixture.relay.shutdown().await;
}

fn resolved(tls: &rustls::ClientConfig) -> Arc<rustls::sign::CertifiedKey> {
    tls.client_auth_cert_resolver
        .resolve(&[], &[rustls::SignatureScheme::ED25519])
        .expect("a key")
}

/// REQ-002: both sides refuse another protocol.
#[tokio::test]
async fn another_protocol_is_refused() {
    let fixture = Fixture::new().await;
    let pin = fixture.relay.fingerprint();
    let mut tls = client_config(key(1), pin, WrongPin::default()).expect("config");
    tls.alpn_protocols = vec![b"mortise/2".to_vec()];
    assert_eq!(
        refused(&fixture, tls).await,
        TransportError::ProtocolMismatch
    );
    fixture.relay.shutdown().await;

    for protocols in [vec![b"h3".to_vec()], vec![]] {
        let identity = ServerIdentity::generate().expect("identity");
        let mut tls = server_config(&identity).expect("config");
        tls.alpn_protocols = protocols;
        let server = serve(tls);
        let address = server.local_addr().expect("address").to_string();
        let accept = async {
            let incoming = server.accept().await.expect("incoming");
            let _ = incoming.accept().expect("accept").await;
        };
        let pin = identity.fingerprint().expect("fingerprint");
        let (client, ()) = tokio::join!(connect(&address, pin, key(1), PATIENCE), accept);
        assert_eq!(
            client.expect_err("refused"),
            TransportError::ProtocolMismatch
        );
    }
}

/// A handshake in memory.
fn shake(
    client: &Arc<rustls::ClientConfig>,
    server: &Arc<rustls::ServerConfig>,
) -> (ClientConnection, ServerConnection) {
    let name = ServerName::try_from("relay.mortise.invalid").expect("name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("client");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("server");
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("write");
        }
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).expect("read");
            server.process_new_packets().expect("server");
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("write");
        }
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).expect("read");
            client.process_new_packets().expect("client");
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    (client, server)
}

/// REQ-005: the hybrid key exchange is what two of ours agree on. QUIC shows the group to nobody, so: TLS alone.
#[test]
fn the_key_exchange_is_hybrid() {
    let identity = ServerIdentity::generate().expect("identity");
    let pin = identity.fingerprint().expect("fingerprint");
    let server = Arc::new(server_config(&identity).expect("config"));
    let ours = client_config(key(1), pin, WrongPin::default()).expect("config");
    let (client, _) = shake(&Arc::new(ours.clone()), &server);
    let group = client.negotiated_key_exchange_group().expect("group");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(
        client.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );

    // A client without it is still served, with X25519 and nothing else.
    let mut provider = (**ours.crypto_provider()).clone();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut classical = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_cert_resolver(Arc::clone(&ours.client_auth_cert_resolver));
    classical.alpn_protocols = vec![ALPN.to_vec()];
    let (client, _) = shake(&Arc::new(classical), &server);
    let group = client.negotiated_key_exchange_group().expect("group");
    assert_eq!(group.name(), NamedGroup::X25519);
}

/// REQ-004: no ticket is ever sent, no session ever resumed, and nothing is sent early, even by a client that would.
#[test]
fn nothing_is_ever_resumed() {
    let identity = ServerIdentity::generate().expect("identity");
    let pin = identity.fingerprint().expect("fingerprint");
    let server = Arc::new(server_config(&identity).expect("config"));
    let mut eager = client_config(key(1), pin, WrongPin::default()).expect("config");
    eager.resumption = rustls::client::Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    let eager = Arc::new(eager);
    for _ in 0..2 {
        let (mut client, server) = shake(&eager, &server);
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert!(client.early_data().is_none());
    }
}

/// Accepts any server: for what is not about the server's key.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 only")
    }
    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }
}
