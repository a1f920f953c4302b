//! The relay as a whole: takes a data directory, opens the store, listens, and shuts down in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mortise_protocol::identity::{ClaimLink, Hash};
use mortise_protocol::store::CachedStore;
use mortise_protocol::wire::limits;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::admin::{self, AdminError, AdminServer, AskError};
use crate::claim::ClaimIssuer;
use crate::cluster::{self, Carrier, Node, WakeError, Wakes};
use crate::core::layout::HOT_SPACES;
use crate::core::{Core, CoreConfig, CoreError};
use crate::data_dir::{DataDir, DataDirError};
use crate::net::committer::{Backend, Committer, Intake, Running};
use crate::net::reset::ResetKeys;
use crate::net::tls::{TlsError, server_config};
use crate::net::{Listener, NetConfig, NetError, OutboxLimits, Stopped};
use crate::store::postgres::{ConnectError, PgStore, draw_lane};
use crate::store::{self, InstanceLock, LockError, OpenError, StoreHandle};

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
    /// The shared database.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The wake-ups.
    #[error(transparent)]
    Wake(#[from] WakeError),
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
    /// Appends without the lane that keeps the fence across nodes. Only for a test that wants to see that this shows.
    pub dangerous_without_lane: bool,
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
            dangerous_without_lane: false,
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
        let mut core_config = CoreConfig::new(statement_key);
        core_config.quotas = file.quotas;
        let closing = Arc::new(AtomicBool::new(false));
        let prepared = match &file.storage {
            None => alone(dir.clone(), core_config).await?,
            Some(address) => {
                let node = NodeConfig {
                    storage: address.clone(),
                    wake: file.wake.clone(),
                    without_lane: config.dangerous_without_lane,
                };
                one_of_several(node, core_config, Arc::clone(&closing)).await?
            }
        };
        let Prepared {
            core,
            backend,
            handle,
            carrier,
        } = prepared;
        let committer = Committer::spawn(core, backend).map_err(RelayError::Thread)?;
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
        let mut wakes = JoinSet::new();
        match carrier {
            Some(carrier) => carrier.start(intake.clone(), &mut wakes),
            None if file.storage.is_some() => {
                drop(wakes.spawn(cluster::look(intake.clone(), None)))
            }
            None => {}
        }
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
            closing,
            wakes,
        })
    }
}

/// A relay's core with what keeps it.
struct Prepared {
    core: Core,
    backend: Box<dyn Backend>,
    /// Of an embedded store.
    handle: Option<StoreHandle>,
    /// Of hints to other nodes.
    carrier: Option<Carrier>,
}

/// A relay on one machine, with its own store.
async fn alone(dir: DataDir, config: CoreConfig) -> Result<Prepared, RelayError> {
    let (core, store) = load(dir, config).await?;
    let handle = Some(store.handle());
    let store = CachedStore::new(store, HOT_SPACES, MAX_HOT_ROWS);
    Ok(Prepared {
        core,
        backend: Box::new(store),
        handle,
        carrier: None,
    })
}

/// What makes a node of a relay.
struct NodeConfig {
    storage: String,
    wake: Option<String>,
    without_lane: bool,
}

/// One node of a relay on several machines.
async fn one_of_several(
    node: NodeConfig,
    config: CoreConfig,
    closing: Arc<AtomicBool>,
) -> Result<Prepared, RelayError> {
    let relay = config.statement_key.public();
    let wakes = node.wake.map(|address| Wakes::new(&address, relay));
    let (wakes, carrier) = wakes.transpose()?.unzip();
    let (core, mut store) = attach(node.storage, config).await?;
    if node.without_lane {
        store.dangerous_without_lane();
    }
    Ok(Prepared {
        core,
        backend: Box::new(Node::new(store, wakes, closing)),
        handle: None,
        carrier,
    })
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

/// Connects to the shared database and replays the core, off the runtime.
async fn attach(address: String, config: CoreConfig) -> Result<(Core, PgStore), RelayError> {
    let attaching = tokio::task::spawn_blocking(move || {
        let store = PgStore::open(&address, draw_lane()?)?;
        let core = Core::attach(&store, config)?;
        Ok((core, store))
    });
    match attaching.await {
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
    /// Ends the waiting for a database that is away.
    closing: Arc<AtomicBool>,
    /// Carry hints between nodes.
    wakes: JoinSet<()>,
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
    pub async fn shutdown(mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.wakes.shutdown().await;
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
