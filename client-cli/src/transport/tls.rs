//! TLS on the device's side: the relay's key is pinned, the device shows a raw public key.
//!
//! REQ-002 (TLS 1.3, ALPN, raw client keys, pin), REQ-004 (no tickets, no 0-RTT), REQ-005 (X25519MLKEM768
//! preferred). This module must never accept a server key other than the pinned one, and never writes
//! the device's key anywhere.

use std::sync::{Arc, OnceLock};

use mortise_protocol::identity::{Hash, PublicKey, SigningKey, sha256};
use mortise_protocol::wire::ALPN;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, Signer};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible,
    SignatureAlgorithm, SignatureScheme,
};
use subtle::ConstantTimeEq as _;

/// The SubjectPublicKeyInfo of an Ed25519 key is this and the 32 bytes of the key (RFC 8410 §4).
const ED25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The fingerprint of the key that the server showed, when it was not the pinned one.
pub type WrongPin = Arc<OnceLock<Hash>>;

/// The TLS configuration of one connection: `key` is the device's transport key, `pin` the SHA-256 of the
/// relay's SubjectPublicKeyInfo. When the server shows another key, the handshake fails and `wrong_pin` says which.
///
/// # Errors
/// [`rustls::Error`] when the provider lacks TLS 1.3, which it does not.
pub fn client_config(
    key: Arc<SigningKey>,
    pin: Hash,
    wrong_pin: WrongPin,
) -> Result<ClientConfig, Error> {
    let provider = CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
        ],
        ..aws_lc_rs::default_provider()
    };
    let verifier = PinVerifier {
        pin,
        wrong_pin,
        algorithms: provider.signature_verification_algorithms,
    };
    let certified = CertifiedKey::new(
        vec![CertificateDer::from(spki(&key.public()))],
        Arc::new(TransportKey(key)),
    );
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(
            certified,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The name says nothing that the pin does not say better, and would travel in clear.
    config.enable_sni = false;
    Ok(config)
}

fn spki(key: &PublicKey) -> Vec<u8> {
    [&ED25519_SPKI_PREFIX[..], &key.0[..]].concat()
}

/// Accepts one server key: the pinned one.
#[derive(Debug)]
struct PinVerifier {
    pin: Hash,
    wrong_pin: WrongPin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let actual = sha256(
            ParsedCertificate::try_from(end_entity)?
                .subject_public_key_info()
                .as_ref(),
        );
        if bool::from(actual.0.ct_eq(&self.pin.0)) {
            return Ok(ServerCertVerified::assertion());
        }
        // A second handshake on one configuration does not happen; the first answer stays.
        let _ = self.wrong_pin.set(actual);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The device's transport key as rustls wants it; the secret stays where it is.
#[derive(Clone, Debug)]
struct TransportKey(Arc<SigningKey>);

impl rustls::sign::SigningKey for TransportKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TransportKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign_as_is(message).0.to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
