//! A certificate for a peer, and clients that take this one only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

/// A server's files, and how its clients connect.
pub(super) struct TlsFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client: Arc<ClientConfig>,
}

/// Makes a key and a certificate in `dir`.
pub(super) fn write(dir: &Path) -> anyhow::Result<TlsFiles> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
        .context("make a certificate")?;
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsFiles {
        certificate,
        key,
        client: Arc::new(client),
    })
}
