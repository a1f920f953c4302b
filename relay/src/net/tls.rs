//! TLS on the relay's side: an X.509 certificate whose key devices pin, raw public keys from devices.
//!
//! REQ-002 (TLS 1.3, ALPN, raw client keys, pin), REQ-004 (no tickets, no 0-RTT), REQ-005 (X25519MLKEM768
//! preferred). Any well-formed Ed25519 key with a valid signature gets through here: who it is, and whether it
//! may do anything, is decided by the core against the roster. This module must never know the roster.

use std::sync::Arc;

use mortise_protocol::identity::{Hash, PublicKey, sha256};
use mortise_protocol::wire::{ALPN, ConnectionBinding, log};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};
use zeroize::Zeroizing;

/// The SubjectPublicKeyInfo of an Ed25519 key is this and the 32 bytes of the key (RFC 8410 §4).
const ED25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What the relay shows to devices. The key is PKCS#8, wiped on drop, never printed.
pub struct ServerIdentity {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerIdentity(secret)")
    }
}

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The stored certificate or key is damaged, or they do not belong together.
    #[error("the relay's certificate or its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl ServerIdentity {
    /// Makes a new key and a self-signed certificate for it. What it says about names and dates is not looked at:
    /// devices pin the key.
    ///
    /// # Errors
    /// [`TlsError::Generate`].
    pub fn generate() -> Result<Self, TlsError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let mut params = rcgen::CertificateParams::new(["relay.mortise.invalid".to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Mortise relay");
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().to_vec(),
            key: Zeroizing::new(key.serialize_der()),
        })
    }

    /// Takes what was stored: a certificate (DER) and its key (PKCS#8 DER).
    #[must_use]
    pub fn from_der(certificate: Vec<u8>, key: Zeroizing<Vec<u8>>) -> Self {
        Self { certificate, key }
    }

    /// The certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The key as PKCS#8 DER, for the 0600 file only.
    #[must_use]
    pub fn dangerous_key(&self) -> &Zeroizing<Vec<u8>> {
        &self.key
    }

    /// What devices pin: SHA-256 of the certificate's SubjectPublicKeyInfo (REQ-002).
    ///
    /// # Errors
    /// [`TlsError::Unusable`] when the certificate does not parse.
    pub fn fingerprint(&self) -> Result<Hash, TlsError> {
        let der = CertificateDer::from(self.certificate.as_slice());
        let parsed = ParsedCertificate::try_from(&der)?;
        Ok(sha256(parsed.subject_public_key_info().as_ref()))
    }
}

/// The relay's TLS configuration.
///
/// # Errors
/// [`TlsError::Unusable`] when the identity's key is damaged or is not its certificate's.
pub fn server_config(identity: &ServerIdentity) -> Result<ServerConfig, TlsError> {
    let provider = CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
        ],
        // AES-128 is what the groups' own suites use, and the quickest.
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    };
    let verifier = RawKeyVerifier {
        algorithms: provider.signature_verification_algorithms,
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.to_vec()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(
            vec![CertificateDer::from(identity.certificate.clone())],
            key,
        )?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = true;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The Ed25519 key of a raw public key (RFC 7250, RFC 8410), or `None` for anything else.
fn raw_ed25519(spki: &[u8]) -> Option<PublicKey> {
    let key = spki.strip_prefix(&ED25519_SPKI_PREFIX)?;
    Some(PublicKey(key.try_into().ok()?))
}

/// Who is on the other end of a connection, and what its access proofs are bound to (REQ-002, REQ-052).
///
/// `None` for a connection that [`server_config`] would not have let through.
#[must_use]
pub fn peer(connection: &quinn::Connection) -> Option<(PublicKey, ConnectionBinding)> {
    let identity = connection.peer_identity()?;
    let shown = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let key = raw_ed25519(shown.first()?)?;
    let mut binding = ConnectionBinding([0; 32]);
    connection
        .export_keying_material(&mut binding.0, log::BINDING_LABEL, b"")
        .ok()?;
    Some((key, binding))
}

/// Accepts every well-formed Ed25519 raw public key whose holder signs the handshake.
#[derive(Debug)]
struct RawKeyVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.is_empty() && raw_ed25519(end_entity).is_some() {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
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
        let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &spki, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_keys_and_survives_storage() {
        let made = ServerIdentity::generate().expect("generate");
        let read =
            ServerIdentity::from_der(made.certificate().to_vec(), made.dangerous_key().clone());
        assert_eq!(
            made.fingerprint().expect("fingerprint"),
            read.fingerprint().expect("fingerprint")
        );
        assert!(server_config(&read).is_ok());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (
            ServerIdentity::generate().expect("generate"),
            ServerIdentity::generate().expect("generate"),
        );
        let mixed =
            ServerIdentity::from_der(one.certificate().to_vec(), other.dangerous_key().clone());
        assert!(matches!(server_config(&mixed), Err(TlsError::Unusable(_))));
    }

    /// REQ-002: only a whole Ed25519 SubjectPublicKeyInfo is a raw key.
    #[test]
    fn only_a_whole_ed25519_key_is_a_raw_key() {
        let good = [&ED25519_SPKI_PREFIX[..], &[7; 32]].concat();
        assert_eq!(raw_ed25519(&good), Some(PublicKey([7; 32])));
        assert_eq!(raw_ed25519(&good[..43]), None);
        assert_eq!(raw_ed25519(&[&good[..], &[0]].concat()), None);
        let identity = ServerIdentity::generate().expect("generate");
        assert_eq!(raw_ed25519(identity.certificate()), None);
    }

    /// REQ-004: no tickets, no stored sessions, no early data.
    #[test]
    fn nothing_is_ever_resumed() {
        let identity = ServerIdentity::generate().expect("generate");
        let config = server_config(&identity).expect("config");
        assert_eq!(config.send_tls13_tickets, 0);
        assert_eq!(config.max_early_data_size, 0);
        assert!(!config.session_storage.can_cache());
        assert!(!config.ticketer.enabled());
    }
}
