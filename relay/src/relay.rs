//! The relay as a whole: takes a data directory, opens the store, listens, and shuts down in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mortise_protocol::identity::{ClaimLink, Hash};
use mortise_protocol::store::CachedStore;
use mortise_protocol::wire::limits;
use tokio::sync::watch;
use tracing::info;

use crate::admin::{self, AdminError, AdminServer, AskError};
use crate::claim::ClaimIssuer;
use crate::core::layout::HOT_SPACES;
use crate::core::{Core, CoreConfig, CoreError};
use crate::data_dir::{DataDir, DataDirError};
use crate::net::committer::{Committer, Intake, Running};
use crate::net::reset::ResetKeys;
use crate::net::tls::{TlsError, server_config};
use crate::net::{Listener, NetConfig, NetError, OutboxLimits, Stopped};
use crate::store::{self, InstanceLock, LockError, OpenError};

/// Rows of each hot table that stay in memory; about 12 MiB in all.
const MAX_HOT_ROWS: usize = 32_768;

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is in the database.
    #[error("the database's content cannot be used: {0}")]
    Core(#[from] CoreError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// No thread could be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// What a relay is started with.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// The data directory that `init` has made.
    pub data_dir: PathBuf,
    /// Where to listen, instead of what `relay.toml` says; port 0 takes any free one.
    pub listen: Option<SocketAddr>,
    /// How much may wait for one connection.
    pub outbox: OutboxLimits,
    /// How long a peer that is not admitted may stay.
    pub unadmitted_timeout: Duration,
}

impl RelayConfig {
    /// The usual configuration of the relay in `data_dir`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: None,
            outbox: OutboxLimits::default(),
            unadmitted_timeout: Duration::from_millis(limits::UNADMITTED_TIMEOUT_MS),
        }
    }
}

/// The relay, not running.
#[derive(Debug)]
pub struct Relay;

impl Relay {
    /// Starts a relay; returns once it listens. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RelayError`]; nothing is left running.
    pub async fn start(config: RelayConfig) -> Result<RunningRelay, RelayError> {
        let dir = DataDir::open(&config.data_dir)?;
        let file = dir.config()?;
        let lock = InstanceLock::take(dir.path())?;
        let identity = dir.identity()?;
        let statement_key = dir.statement_key()?;
        let tls = server_config(&identity)?;
        let reset = ResetKeys::derive(identity.dangerous_key());

        let public = statement_key.public();
        let core_config = CoreConfig::new(statement_key);
        let (core, store) = load(dir.clone(), core_config).await?;
        let handle = store.handle();
        let store = CachedStore::new(store, HOT_SPACES, MAX_HOT_ROWS);
        let committer = Committer::spawn(core, Box::new(store)).map_err(RelayError::Thread)?;
        let net = NetConfig {
            listen: config.listen.unwrap_or(file.listen),
            max_connections: file.max_connections,
            outbox: config.outbox,
            unadmitted_timeout: config.unadmitted_timeout,
        };
        let listener = Listener::start(tls, reset, &net, committer.intake.clone())?;
        let Running {
            intake,
            stopped,
            thread,
        } = committer;
        let issuer = ClaimIssuer {
            relay: file.address(listener.local_addr()),
            relay_key: identity.fingerprint()?,
            statement_key: public,
        };
        let admin =
            AdminServer::start(&dir.admin_socket(), intake.clone(), issuer.clone(), handle)?;
        info!(address = %listener.local_addr(), "listening");
        Ok(RunningRelay {
            issuer,
            intake,
            listener,
            admin,
            stopped,
            thread,
            lock,
        })
    }
}

/// Opens the database and replays the core, off the runtime: a big one takes a while.
async fn load(
    dir: DataDir,
    config: CoreConfig,
) -> Result<(Core, store::EmbeddedStore), RelayError> {
    let loading = tokio::task::spawn_blocking(move || {
        let store = store::open(&dir.database())?;
        let core = Core::load(&store, config)?;
        Ok((core, store))
    });
    match loading.await {
        Ok(result) => result,
        Err(failed) => Err(RelayError::Thread(std::io::Error::other(failed))),
    }
}

/// A relay that listens. Dropping it ends it without a goodbye; [`RunningRelay::shutdown`] is the orderly way.
#[derive(Debug)]
pub struct RunningRelay {
    issuer: ClaimIssuer,
    intake: Intake,
    listener: Listener,
    admin: AdminServer,
    stopped: watch::Receiver<Stopped>,
    thread: std::thread::JoinHandle<()>,
    lock: InstanceLock,
}

impl RunningRelay {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// `host:port` for devices.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.issuer.relay
    }

    /// What devices pin: SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        self.issuer.relay_key
    }

    /// A claim link with a fresh token, which founds one organisation (REQ-024).
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn claim_link(&self) -> Result<ClaimLink, AskError> {
        admin::claim(&self.intake, &self.issuer).await
    }

    /// Resolves when the relay can do no more (REQ-072): a write failed, or a bug ended the committer.
    pub async fn stopped(&self) -> Stopped {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(|stopped| *stopped != Stopped::No).await {
            Ok(why) => *why,
            Err(_) => Stopped::Ended,
        }
    }

    /// Tells every device, commits what is queued, closes the database, and lets go of the data directory.
    pub async fn shutdown(self) {
        self.admin.shutdown().await;
        self.listener.shutdown().await;
        drop(self.intake);
        // Every intake is dropped now: the committer ends after its last batch.
        let thread = self.thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        drop(self.lock);
        info!("stopped");
    }
}
