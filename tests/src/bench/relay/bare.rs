//! The same machine without a relay: plain QUIC with the relay's TLS, and a file that is synced. What the goals are shares of.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mortise_client::transport::{self, tls::client_config};
use mortise_protocol::identity::{Hash, SigningKey};
use mortise_relay::net::tls::{ServerIdentity, server_config};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::plan::RECORD_BYTES;
use crate::bench::sample::Durations;

/// Bytes that the bulk sender hands over at a time.
const CHUNK: usize = 64 * 1024;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A QUIC server that does what it is asked by a number: 0 is answered by what comes, any other by so many bytes.
pub(super) struct Bare {
    /// The server's own threads, as many as a relay has.
    server: Runtime,
    clients: Runtime,
    address: SocketAddr,
    pin: Hash,
    key: Arc<SigningKey>,
}

impl Bare {
    /// Starts the server on the loopback.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start() -> anyhow::Result<Self> {
        let identity = ServerIdentity::generate()?;
        let crypto = QuicServerConfig::try_from(server_config(&identity)?)?;
        let config = ServerConfig::with_crypto(Arc::new(crypto));
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build()
        };
        let server = runtime().context("start a runtime")?;
        let address = server.block_on(async {
            let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
            let address = endpoint.local_addr()?;
            tokio::spawn(accept(endpoint));
            anyhow::Ok(address)
        })?;
        Ok(Self {
            server,
            clients: runtime().context("start a runtime")?,
            address,
            pin: identity.fingerprint()?,
            key: Arc::new(SigningKey::from_seed(&[7; 32])),
        })
    }

    fn config(&self) -> anyhow::Result<ClientConfig> {
        let tls = client_config(Arc::clone(&self.key), self.pin, Arc::default())?;
        Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(
            tls,
        )?)))
    }

    async fn dial(&self) -> anyhow::Result<(Endpoint, Connection)> {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        let name = "relay.mortise.invalid";
        let connecting = endpoint.connect_with(self.config()?, self.address, name)?;
        Ok((endpoint, connecting.await?))
    }

    /// Bytes per second from the server over so many connections at once, a stream each.
    ///
    /// # Errors
    /// When a connection fails.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn bulk(&self, connections: usize, bytes_each: u64) -> anyhow::Result<f64> {
        self.clients.block_on(async {
            let mut dialed = Vec::new();
            for _ in 0..connections {
                dialed.push(self.dial().await?);
            }
            let start = Instant::now();
            let mut pulls = JoinSet::new();
            for (endpoint, connection) in dialed {
                pulls.spawn(async move {
                    let received = pull(&connection, bytes_each).await;
                    drop(endpoint);
                    received
                });
            }
            let mut received = 0;
            let all = async {
                while let Some(one) = pulls.join_next().await {
                    received += one??;
                }
                anyhow::Ok(())
            };
            let all = tokio::time::timeout(PATIENCE, all).await;
            all.context("the bulk transfer takes too long")??;
            anyhow::ensure!(received == bytes_each * connections as u64);
            Ok(received as f64 / start.elapsed().as_secs_f64())
        })
    }

    /// How long a record takes to the server and back, one at a time.
    ///
    /// # Errors
    /// When the connection fails.
    pub(super) fn echo(&self, times: usize) -> anyhow::Result<Durations> {
        self.clients.block_on(async {
            let (_endpoint, connection) = self.dial().await?;
            let (mut send, mut recv) = connection.open_bi().await?;
            send.write_all(&0_u64.to_be_bytes()).await?;
            let mut record = [7; RECORD_BYTES];
            let mut took = Vec::with_capacity(times);
            for _ in 0..times {
                let start = Instant::now();
                send.write_all(&record).await?;
                recv.read_exact(&mut record).await?;
                took.push(u64::try_from(start.elapsed().as_micros())?);
            }
            Ok(Durations::of(took))
        })
    }

    /// How long so many connections take, made as the bench makes a relay's: `dials` at a time.
    ///
    /// # Errors
    /// When one fails.
    pub(super) fn handshakes(&self, count: usize, dials: usize) -> anyhow::Result<Duration> {
        let address = self.address.to_string();
        self.clients.block_on(async {
            let start = Instant::now();
            let mut connected = Vec::with_capacity(count);
            let mut dialing = std::collections::VecDeque::new();
            for _ in 0..count {
                let (address, key, pin) = (address.clone(), Arc::clone(&self.key), self.pin);
                let dial = async move { transport::connect(&address, pin, key, PATIENCE).await };
                dialing.push_back(tokio::spawn(dial));
                if dialing.len() >= dials
                    && let Some(oldest) = dialing.pop_front()
                {
                    connected.push(oldest.await??);
                }
            }
            for dial in dialing {
                connected.push(dial.await??);
            }
            Ok(start.elapsed())
        })
    }

    /// Ends the server.
    pub(super) fn stop(self) {
        self.server.shutdown_background();
        self.clients.shutdown_background();
    }
}

async fn accept(endpoint: Endpoint) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        connections.spawn(async move {
            if let Ok(connection) = incoming.await {
                // Ends with the connection, whatever why.
                let _ = serve(connection).await;
            }
        });
    }
}

async fn serve(connection: Connection) -> anyhow::Result<()> {
    loop {
        let (mut send, mut recv) = connection.accept_bi().await?;
        let mut asked = [0; 8];
        recv.read_exact(&mut asked).await?;
        let mut left = u64::from_be_bytes(asked);
        if left == 0 {
            let mut record = [0; RECORD_BYTES];
            while recv.read_exact(&mut record).await.is_ok() {
                send.write_all(&record).await?;
            }
            continue;
        }
        let chunk = vec![7; CHUNK];
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            send.write_all(&chunk[..count]).await?;
            left -= count as u64;
        }
        send.finish()?;
    }
}

async fn pull(connection: &Connection, bytes: u64) -> anyhow::Result<u64> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&bytes.to_be_bytes()).await?;
    let mut received = 0;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        received += chunk.bytes.len() as u64;
    }
    Ok(received)
}

/// How long it takes to make a record durable in a file that is there, in `dir`.
///
/// # Errors
/// When the disk fails.
pub(super) fn synced_writes(dir: &Path, times: usize) -> anyhow::Result<Durations> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::create_new(dir.join("synced"))?;
    file.write_all_at(&vec![1; 4 * RECORD_BYTES * times], 0)?;
    file.sync_all()?;
    let mut took = Vec::with_capacity(times);
    for n in 0..times {
        let start = Instant::now();
        file.write_all_at(&[7; RECORD_BYTES], (n * RECORD_BYTES) as u64)?;
        file.sync_data()?;
        took.push(u64::try_from(start.elapsed().as_micros())?);
    }
    std::fs::remove_file(dir.join("synced"))?;
    Ok(Durations::of(took))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_server_sends_echoes_and_shakes_hands() {
        let bare = Bare::start().expect("start");
        assert!(bare.bulk(2, 100_000).expect("bulk") > 0.0);
        assert_eq!(bare.echo(3).expect("echo").count(), 3);
        bare.handshakes(3, 2).expect("handshakes");
        bare.stop();
    }
}
