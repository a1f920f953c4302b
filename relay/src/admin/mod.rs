//! The local admin socket: JSON lines over a Unix socket that only the relay's own user can open.
//!
//! `{"command":"status"}`, `{"command":"claim-token"}` and `{"command":"flush"}`; one line is answered by one line. Counts and
//! organisation ids only: this module must never tell who is in what.

mod client;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mortise_protocol::identity::ClaimLink;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::warn;

use crate::claim::{ClaimIssuer, token_hash};
use crate::core::quotas::Quotas;
use crate::core::{CoreError, Status};
use crate::net::committer::{Event, Intake};
use crate::store::{StoreHandle, StoreSizes};

pub use client::ask;

/// A question that is longer is refused, bytes.
const MAX_LINE_BYTES: u64 = 1_024;
/// Administrators at once.
const MAX_SESSIONS: usize = 16;
/// How long an administrator's program may be silent.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// What an administrator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// The relay in numbers.
    Status,
    /// A further claim link, with a one-time token.
    ClaimToken,
    /// Bring everything that is acknowledged into the database file: for a copy of it.
    Flush,
}

/// What the relay answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum AdminResponse {
    /// The relay in numbers.
    Status(StatusReport),
    /// A claim link, shown this once.
    ClaimToken {
        /// The link.
        claim_link: String,
    },
    /// The database file holds everything that was acknowledged before the question.
    Flushed,
    /// It could not be done.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The relay in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Whether it refuses everything because its store failed.
    pub stopped: bool,
    /// Connections, admitted or not.
    pub connections: usize,
    /// Subscriptions of all connections.
    pub subscriptions: usize,
    /// Its organisations.
    pub organisations: Vec<OrganisationReport>,
    /// How much devices may ask in a time (REQ-320).
    #[serde(default)]
    pub quotas: Quotas,
    /// Questions that were refused for these since the start.
    #[serde(default)]
    pub over_quota: u64,
    /// What its store takes; nothing for a shared database, which says that itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StoreSizes>,
}

/// One organisation in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganisationReport {
    /// Its id: the fingerprint of its root key.
    pub id: String,
    /// The roster's newest entry.
    pub roster_seq: u64,
    /// The newest order.
    pub fence: u64,
    /// Users that were not removed.
    pub users: usize,
    /// Admitted devices.
    pub devices: usize,
    /// Groups.
    pub groups: usize,
}

impl StatusReport {
    fn new(status: &Status, storage: Option<StoreSizes>) -> Self {
        let organisations = status.orgs.iter().map(|org| OrganisationReport {
            id: org.org.to_string(),
            roster_seq: org.roster_seq.0,
            fence: org.fence.0,
            users: org.users,
            devices: org.devices,
            groups: org.groups,
        });
        Self {
            stopped: status.stopped,
            connections: status.connections,
            subscriptions: status.subscriptions,
            organisations: organisations.collect(),
            quotas: status.quotas,
            over_quota: status.over_quota,
            storage,
        }
    }
}

/// What goes wrong on either end of the socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Nobody listens.
    #[error("no relay is running on {}: start it with `mortise-relay run`", .directory.display())]
    NotRunning {
        /// The data directory.
        directory: PathBuf,
    },
    /// The socket cannot be used.
    #[error("the admin socket {}: {error}", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The other end does not speak this version.
    #[error("the relay's answer cannot be read: are both of the same version?")]
    Unreadable,
    /// The relay refused.
    #[error("the relay could not do it: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

/// The listening end. Dropping it ends every session.
#[derive(Debug)]
pub(crate) struct AdminServer {
    path: PathBuf,
    tasks: JoinSet<()>,
}

impl AdminServer {
    /// Binds the socket, 0600; one that an earlier process left is replaced: the instance lock is ours.
    pub(crate) fn start(
        path: &Path,
        intake: Intake,
        issuer: ClaimIssuer,
        store: Option<StoreHandle>,
    ) -> Result<Self, AdminError> {
        let failed = |error| AdminError::Socket {
            path: path.into(),
            error,
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // The data directory is 0700: nobody gets in between these two.
        let listener = UnixListener::bind(path).map_err(failed)?;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(failed)?;
        let mut tasks = JoinSet::new();
        let desk = Desk {
            intake,
            issuer,
            store,
        };
        tasks.spawn(accept(listener, desk));
        Ok(Self {
            path: path.into(),
            tasks,
        })
    }

    pub(crate) async fn shutdown(mut self) {
        self.tasks.shutdown().await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            warn!(%error, "the admin socket could not be removed");
        }
    }
}

/// What answering takes.
#[derive(Clone)]
struct Desk {
    intake: Intake,
    issuer: ClaimIssuer,
    store: Option<StoreHandle>,
}

async fn accept(listener: UnixListener, desk: Desk) {
    let mut sessions = JoinSet::new();
    loop {
        // Biased: ended sessions make room first.
        tokio::select! {
            biased;
            Some(_) = sessions.join_next() => {}
            accepted = listener.accept(), if sessions.len() < MAX_SESSIONS => match accepted {
                Ok((stream, _)) => {
                    let session = session(stream, desk.clone());
                    sessions.spawn(async { drop(tokio::time::timeout(SESSION_TIMEOUT, session).await) });
                }
                Err(error) => {
                    warn!(%error, "the admin socket failed");
                    return;
                }
            },
        }
    }
}

/// Answers line by line until the other end hangs up.
async fn session(stream: UnixStream, desk: Desk) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut lines).take(MAX_LINE_BYTES);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let response = match serde_json::from_slice(&line) {
            Ok(request) => desk.answer(request).await,
            Err(_) => failed("the command is unknown"),
        };
        let mut text = serde_json::to_vec(&response).map_err(io::Error::other)?;
        text.push(b'\n');
        write.write_all(&text).await?;
    }
}

impl Desk {
    async fn answer(&self, request: AdminRequest) -> AdminResponse {
        let answered = match request {
            AdminRequest::Status => self.status().await,
            AdminRequest::ClaimToken => {
                claim(&self.intake, &self.issuer)
                    .await
                    .map(|link| AdminResponse::ClaimToken {
                        claim_link: link.to_text().to_string(),
                    })
            }
            AdminRequest::Flush => self.flush().await,
        };
        answered.unwrap_or_else(failed)
    }

    async fn status(&self) -> Result<AdminResponse, AskError> {
        let status = question(&self.intake, Event::Status).await??;
        let sizes = self.store.as_ref().map(StoreHandle::sizes);
        Ok(AdminResponse::Status(StatusReport::new(&status, sizes)))
    }

    async fn flush(&self) -> Result<AdminResponse, AskError> {
        // Of a shared database everything is where it belongs.
        let Some(store) = self.store.clone() else {
            return Ok(AdminResponse::Flushed);
        };
        let flushed = tokio::task::spawn_blocking(move || store.flush()).await;
        let flushed = flushed.map_err(|_| AskError::ShuttingDown)?;
        flushed.map_err(CoreError::from)?;
        Ok(AdminResponse::Flushed)
    }
}

/// Why a running relay could not answer its administrator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It is shutting down.
    #[error("the relay is shutting down")]
    ShuttingDown,
    /// The core or the store.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// No randomness.
    #[error("no randomness: {0}")]
    Random(#[from] io::Error),
}

/// A claim link whose token the running relay has stored.
pub(crate) async fn claim(intake: &Intake, issuer: &ClaimIssuer) -> Result<ClaimLink, AskError> {
    let link = issuer.issue()?;
    let hash = token_hash(&link);
    question(intake, |reply| Event::AddClaimToken(hash, reply)).await??;
    Ok(link)
}

async fn question<T>(
    intake: &Intake,
    ask: impl FnOnce(oneshot::Sender<T>) -> Event,
) -> Result<T, AskError> {
    let (reply, answer) = oneshot::channel();
    let asked = intake.send(ask(reply)).await;
    asked.map_err(|_| AskError::ShuttingDown)?;
    answer.await.map_err(|_| AskError::ShuttingDown)
}

fn failed(reason: impl ToString) -> AdminResponse {
    AdminResponse::Failed {
        reason: reason.to_string(),
    }
}
