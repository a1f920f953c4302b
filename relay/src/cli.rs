//! Commands, their output, and the exit code of every failure.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use data_encoding::HEXLOWER;
use mortise_protocol::identity::ClaimLink;
use mortise_relay::admin::{self, AdminError, AdminRequest, AdminResponse, StatusReport};
use mortise_relay::backup::{BackupError, backup};
use mortise_relay::claim::{ClaimIssuer, token_hash};
use mortise_relay::config::{ConfigFile, DEFAULT_LISTEN};
use mortise_relay::core::plan::Plan;
use mortise_relay::core::quotas::Quota;
use mortise_relay::core::{Core, CoreConfig, CoreError};
use mortise_relay::data_dir::{DataDir, DataDirError, Initialised};
use mortise_relay::net::{NetError, Stopped};
use mortise_relay::store::postgres::{ConnectError, PgStore, count_rows, draw_lane};
use mortise_relay::store::{self, InstanceLock, LockError, OpenError};
use mortise_relay::{Relay, RelayConfig, RelayError, RunningRelay};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  2  the command line is wrong
  3  the configuration or the data directory cannot be used
  4  already running, or not running
  5  storage: damaged, full, or a write failed (a relay that cannot write ends with this)
  6  network: cannot listen

Logs go to standard error; RUST_LOG sets their level (default: info).";

const EXAMPLES: &str = "\
Examples:
  mortise-relay init --data /srv/mortise --public-address relay.example.org:4433
  mortise-relay run --data /srv/mortise
  mortise-relay status --data /srv/mortise
";

/// The Mortise relay: an end-to-end encrypted messenger's server. It stores only what it cannot read.
#[derive(Debug, Parser)]
#[command(version, after_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a data directory: configuration, keys, database, and a claim link that founds one organisation
    #[command(after_help = "\
Example:
  mortise-relay init --data /srv/mortise --public-address relay.example.org:4433")]
    Init {
        /// The directory to make; it must be empty or not exist
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// UDP address to listen on
        #[arg(long, value_name = "ADDR", default_value_t = DEFAULT_LISTEN)]
        listen: SocketAddr,
        /// What devices connect to, if it differs from the listening address
        #[arg(long, value_name = "HOST:PORT")]
        public_address: Option<String>,
        /// Keep everything in this database, which several nodes can share, and not in a file
        #[arg(long, value_name = "postgres://…")]
        storage: Option<String>,
        /// Let nodes that share a database wake each other over this NATS server
        #[arg(long, value_name = "nats://…", requires = "storage")]
        wake: Option<String>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Run the relay until SIGTERM or SIGINT
    #[command(after_help = "\
Examples:
  mortise-relay run --data /srv/mortise
  mortise-relay run --data /tmp/try --listen 127.0.0.1:0 --json

How much devices may ask is said in relay.toml; `mortise-relay status` shows it. `burst` is what fits at once, `per_s` what
comes back in a second (0: no limit). The usual quotas, each of which may be left out:

  [quotas]
  device_records   = { per_s = 2000, burst = 60000 }   # records of one device
  group_records    = { per_s = 8000, burst = 240000 }  # records in one group's log
  device_questions = { per_s = 500, burst = 20000 }    # everything else that one device asks

A record counts once, and once more for each full 4 KiB of it. Who is over is told how long to wait, and waits; removals,
revocations and the commits that they demand are never held up.")]
    Run {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Listen here instead of where relay.toml says; port 0 takes any free one
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// Print one JSON line on standard output once it listens
        #[arg(long)]
        json: bool,
    },
    /// Show a running relay in numbers
    Status {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Make a further claim link with a one-time token, whether the relay runs or not
    ClaimToken {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Copy the data directory, while the relay runs or not, and check the copy
    #[command(after_help = "\
The copy holds everything that was acknowledged before the command, keys included: keep it as safe as the original. To restore,
stop the relay, move its data directory away, put the copy in its place and start the relay. What was acknowledged after
the copy is lost with that.

Example:
  mortise-relay backup --data /srv/mortise --out /backup/mortise-2026-11-30")]
    Backup {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// The directory to make; it must be empty or not exist
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Read the whole store and check it; the relay must not be running, unless the database is a shared one
    Fsck {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

/// No core dumps: they would hold keys. Files are the relay's own.
pub(crate) fn harden() -> Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    Ok(())
}

pub(crate) fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Init {
            data,
            listen,
            public_address,
            storage,
            wake,
            json,
        } => {
            let mut config = ConfigFile::new(listen, public_address);
            (config.storage, config.wake) = (storage, wake);
            init(&data, &config, json)
        }
        Command::Run { data, listen, json } => serve(data, listen, json),
        Command::Status { data, json } => status(&data, json),
        Command::ClaimToken { data, json } => claim_token(&data, json),
        Command::Backup { data, out, json } => back_up(&data, &out, json),
        Command::Fsck { data } => fsck(&data),
    }
}

/// The exit code of a failure; see `--help`.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(error.chain().find_map(code_of).unwrap_or(1))
}

fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = error.downcast_ref::<RelayError>() {
        return Some(match error {
            RelayError::DataDir(error) => return code_of(error),
            RelayError::Lock(error) => return code_of(error),
            RelayError::Open(_) | RelayError::Core(_) | RelayError::Connect(_) => 5,
            RelayError::Net(_) => 6,
            _ => 3,
        });
    }
    if let Some(error) = error.downcast_ref::<DataDirError>() {
        return Some(match error {
            DataDirError::Open(_) | DataDirError::Core(_) | DataDirError::Connect(_) => 5,
            _ => 3,
        });
    }
    if let Some(error) = error.downcast_ref::<LockError>() {
        return Some(if matches!(error, LockError::Held { .. }) {
            4
        } else {
            3
        });
    }
    if let Some(error) = error.downcast_ref::<AdminError>() {
        return Some(match error {
            AdminError::NotRunning { .. } => 4,
            AdminError::Failed { .. } => 5,
            _ => 3,
        });
    }
    if let Some(error) = error.downcast_ref::<BackupError>() {
        return Some(match error {
            BackupError::DataDir(error) => return code_of(error),
            BackupError::Admin(error) => return code_of(error),
            BackupError::Lock(error) => return code_of(error),
            _ => 5,
        });
    }
    if error.is::<OpenError>()
        || error.is::<CoreError>()
        || error.is::<ConnectError>()
        || error.is::<StoreFailed>()
    {
        return Some(5);
    }
    error.is::<NetError>().then_some(6)
}

/// The relay has ended itself.
#[derive(Debug, thiserror::Error)]
#[error(
    "a write to the database failed, so nothing more is accepted: check the disk, run `mortise-relay fsck`, start again"
)]
struct StoreFailed;

fn init(data: &Path, config: &ConfigFile, as_json: bool) -> Result<()> {
    let made = DataDir::init_with(data, config)?;
    let text = if as_json {
        json!({
            "event": "initialised",
            "data": data,
            "address": made.claim.relay,
            "fingerprint": made.claim.relay_key.to_string(),
            "claim_token": HEXLOWER.encode(made.claim.token.dangerous_bytes()),
            "claim_link": made.claim.to_text().as_str(),
        })
        .to_string()
    } else {
        describe(data, &made)
    };
    print_line(&text)
}

fn describe(data: &Path, made: &Initialised) -> String {
    let note = if made.address_is_local {
        " (this machine only: set public_address in relay.toml for others)"
    } else {
        ""
    };
    format!(
        "The relay's data directory is ready: {data}

  address      {address}{note}
  fingerprint  {fingerprint}
  claim link   {link}

The claim link holds the address, the fingerprint and a token that founds one organisation,
once. It is a secret; it is not stored and not shown again.

Next:
  1. Start the relay:  mortise-relay run --data {data}
  2. Give the claim link to the organisation's first owner, who founds it with `mortise`.
  3. Back up {data}; without its keys no device will trust this relay again.",
        data = data.display(),
        address = made.claim.relay,
        fingerprint = made.claim.relay_key,
        link = made.claim.to_text().as_str(),
    )
}

fn serve(data: PathBuf, listen: Option<SocketAddr>, as_json: bool) -> Result<()> {
    // One processor is the committer's: threads for the network beyond the others only take turns with it.
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((processors - 1).max(1))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Before anything is promised: a signal during start-up must not be lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut config = RelayConfig::new(data);
        config.listen = listen;
        let relay = Relay::start(config).await?;
        if as_json {
            announce(&relay)?;
        }
        // Biased: a store that failed is told even when a signal came too.
        let ended = tokio::select! {
            biased;
            stopped = relay.stopped() => Some(stopped),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        relay.shutdown().await;
        match ended {
            None | Some(Stopped::No) => Ok(()),
            Some(Stopped::StoreFailed) => Err(StoreFailed.into()),
            Some(Stopped::Ended) => bail!("the committer ended by itself: this is a bug"),
        }
    })
}

fn announce(relay: &RunningRelay) -> Result<()> {
    print_line(
        &json!({
            "event": "listening",
            "address": relay.local_addr().to_string(),
            "fingerprint": relay.fingerprint().to_string(),
        })
        .to_string(),
    )
}

fn status(data: &Path, as_json: bool) -> Result<()> {
    let dir = DataDir::open(data)?;
    let AdminResponse::Status(report) = admin::ask(&dir, AdminRequest::Status)? else {
        return Err(AdminError::Unreadable.into());
    };
    let text = if as_json {
        serde_json::to_string(&report)?
    } else {
        describe_status(&report)
    };
    print_line(&text)
}

fn describe_status(report: &StatusReport) -> String {
    let state = if report.stopped {
        "STOPPED: a write failed, everything is refused"
    } else {
        "running"
    };
    let mut text = format!(
        "{state}\nconnections    {}\nsubscriptions  {}\norganisations  {}",
        report.connections,
        report.subscriptions,
        report.organisations.len()
    );
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    text.push_str(&match &report.storage {
        Some(storage) => format!(
            "\nstore          {} MiB database, {} MiB journal, {} MiB of it not yet in the database",
            mib(storage.database_bytes),
            mib(storage.journal_bytes),
            mib(storage.waiting_bytes)
        ),
        None => "\nstore          a shared database".into(),
    });
    text.push_str(&describe_quotas(report));
    for org in &report.organisations {
        text.push_str(&format!(
            "\n  {}  roster {}  fence {}  users {}  devices {}  groups {}",
            org.id, org.roster_seq, org.fence, org.users, org.devices, org.groups
        ));
    }
    text
}

fn describe_quotas(report: &StatusReport) -> String {
    let quotas = &report.quotas;
    let one = |quota: Quota| match quota.per_s {
        0 => "no limit".to_owned(),
        per_s => format!("{per_s}/s up to {}", quota.burst),
    };
    format!(
        "\nquotas         records of a device {}, of a group {}, questions of a device {}; refused {}",
        one(quotas.device_records),
        one(quotas.group_records),
        one(quotas.device_questions),
        report.over_quota
    )
}

fn claim_token(data: &Path, as_json: bool) -> Result<()> {
    let dir = DataDir::open(data)?;
    let link = match InstanceLock::take(dir.path()) {
        Ok(_lock) => claim_offline(&dir)?.to_text().to_string(),
        Err(LockError::Held { .. }) => match admin::ask(&dir, AdminRequest::ClaimToken)? {
            AdminResponse::ClaimToken { claim_link } => claim_link,
            _ => return Err(AdminError::Unreadable.into()),
        },
        Err(error) => return Err(error.into()),
    };
    print_line(&if as_json {
        json!({ "claim_link": link }).to_string()
    } else {
        format!("{link}\nIt founds one organisation, once. It is a secret, and not shown again.")
    })
}

/// Adds a token to the database of a relay that does not run.
fn claim_offline(dir: &DataDir) -> Result<ClaimLink> {
    let config = dir.config()?;
    let statement_key = dir.statement_key()?;
    let issuer = ClaimIssuer {
        relay: config.address(config.listen),
        relay_key: dir.identity()?.fingerprint()?,
        statement_key: statement_key.public(),
    };
    let link = issuer.issue().context("no randomness")?;
    let mut store = dir.open_store()?;
    let mut core = Core::attach(&store, CoreConfig::new(statement_key))?;
    core.add_claim_token(&mut store, token_hash(&link))?;
    Ok(link)
}

fn back_up(data: &Path, out: &Path, as_json: bool) -> Result<()> {
    let status = backup(&DataDir::open(data)?, out)?;
    let text = if as_json {
        json!({ "event": "copied", "out": out, "organisations": status.orgs.len() }).to_string()
    } else {
        format!(
            "{} is a whole copy: {} organisations, every roster validated",
            out.display(),
            status.orgs.len()
        )
    };
    print_line(&text)
}

fn fsck(data: &Path) -> Result<()> {
    let dir = DataDir::open(data)?;
    if let Some(address) = &dir.config()?.storage {
        return fsck_shared(&dir, address);
    }
    let _lock = InstanceLock::take(dir.path())?;
    let store = store::check(&dir.database())?;
    let core = Core::load(&store, CoreConfig::new(dir.statement_key()?))?;
    let status = core.status(&store)?;
    print_line(&format!(
        "{} is whole: {} organisations, every roster validated",
        dir.database().display(),
        status.orgs.len()
    ))
}

/// As it is at one moment, whoever is writing: other nodes may run.
fn fsck_shared(dir: &DataDir, address: &str) -> Result<()> {
    let mut store = PgStore::open(address, draw_lane()?)?;
    store.begin(&Plan::reading()).map_err(CoreError::from)?;
    let core = Core::load(&store, CoreConfig::new(dir.statement_key()?))?;
    let status = core.status(&store)?;
    let rows = count_rows(&store).map_err(CoreError::from)?;
    print_line(&format!(
        "the shared database is whole: {} organisations, every roster validated, {rows} rows read",
        status.orgs.len()
    ))
}

/// One write, so that a reader of lines never sees half of one.
fn print_line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes())?;
    out.flush()?;
    Ok(())
}
