//! PostgreSQL as the tests start it: Unix sockets only, durable, with a synchronous standby where one is asked for.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use rustix::process::Signal;
use tempfile::TempDir;

use super::server::{Account, Server, command, run};

const READY: &str = "database system is ready to accept connections";
const STREAMING: &str = "started streaming WAL";
/// Of the server's, for all that a test does at once.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "shared_buffers=64MB",
    "max_connections=60",
    "wal_level=replica",
    "max_wal_size=256MB",
    "log_min_messages=log",
    "log_checkpoints=off",
    "unix_socket_permissions=0777",
    "autovacuum_naptime=10s",
    "wal_retrieve_retry_interval=200ms",
];

/// Where PostgreSQL's programs are, if they are on this machine.
pub(super) fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<PathBuf> = debian
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).collect();
    all.extend(found.into_iter().rev());
    all.into_iter().find(|dir| {
        let wanted = ["initdb", "postgres", "pg_basebackup", "pg_ctl"];
        wanted.iter().all(|program| dir.join(program).is_file())
    })
}

/// A database cluster, running or not.
#[derive(Debug)]
struct Instance {
    data: PathBuf,
    sockets: PathBuf,
    server: Option<Server>,
}

impl Instance {
    fn address(&self) -> String {
        let sockets = self.sockets.display().to_string().replace('/', "%2F");
        format!("postgres://mortise@{sockets}/postgres")
    }
}

/// A primary and perhaps a standby.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    account: Option<Account>,
    primary: Instance,
    standby: Option<Instance>,
    /// Settings beside the usual ones.
    more: &'static [&'static str],
    dir: TempDir,
}

impl Postgres {
    /// Starts a server with an empty database.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_set(&[])
    }

    /// As [`Postgres::start`], with these settings (`name=value`) beside the usual ones.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_set(more: &'static [&'static str]) -> anyhow::Result<Self> {
        let bin = programs().context("PostgreSQL is not on this machine")?;
        let account = Account::unprivileged()?;
        let dir = tempfile::Builder::new().prefix("mpg-").tempdir_in("/tmp")?;
        if let Some(account) = account {
            account.own(dir.path())?;
        }
        let mut postgres = Self {
            primary: instance(dir.path(), "1", account)?,
            bin,
            account,
            standby: None,
            more,
            dir,
        };
        postgres.initialise()?;
        postgres.primary.server = Some(postgres.serve(&postgres.primary, READY, &[])?);
        Ok(postgres)
    }

    /// Makes the files of an empty server: once by `initdb`, after that by copying.
    fn initialise(&self) -> anyhow::Result<()> {
        static TEMPLATE: Mutex<Option<TempDir>> = Mutex::new(None);
        let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
        if template.is_none() {
            let dir = tempfile::Builder::new()
                .prefix("mpgt-")
                .tempdir_in("/tmp")?;
            if let Some(account) = self.account {
                account.own(dir.path())?;
            }
            let mut init = self.command("initdb");
            init.arg("-D").arg(dir.path().join("data"));
            init.args([
                "-A",
                "trust",
                "-U",
                "mortise",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ]);
            run(init)?;
            *template = Some(dir);
        }
        let from = template.as_ref().map(|dir| dir.path().join("data"));
        let mut copy = command(Path::new("/bin/cp"), self.account);
        copy.arg("-a").args(from).arg(&self.primary.data);
        run(copy)
    }

    /// As [`Postgres::start`], with a standby that every commit waits for.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_with_standby() -> anyhow::Result<Self> {
        Self::start_set(&[])?.with_standby()
    }

    /// Adds a standby that every commit waits for.
    ///
    /// # Errors
    /// When it does not start.
    pub fn with_standby(self) -> anyhow::Result<Self> {
        let mut postgres = self;
        let standby = instance(postgres.dir.path(), "2", postgres.account)?;
        let mut backup = postgres.command("pg_basebackup");
        let from = format!(
            "host={} user=mortise application_name=standby",
            postgres.primary.sockets.display()
        );
        backup.arg("-d").arg(from).arg("-D").arg(&standby.data);
        backup.args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        run(backup)?;
        let server = postgres.serve(&standby, STREAMING, &[])?;
        postgres.standby = Some(Instance {
            server: Some(server),
            ..standby
        });
        postgres.restart(Signal::INT)?;
        Ok(postgres)
    }

    fn command(&self, program: &str) -> std::process::Command {
        command(&self.bin.join(program), self.account)
    }

    fn serve(&self, instance: &Instance, ready: &str, more: &[&str]) -> anyhow::Result<Server> {
        let mut serve = self.command("postgres");
        serve
            .arg("-D")
            .arg(&instance.data)
            .arg("-k")
            .arg(&instance.sockets);
        for setting in SETTINGS.iter().chain(self.more).chain(more) {
            serve.args(["-c", setting]);
        }
        let log = instance.data.with_extension("log");
        Server::start("postgres", serve, ready, log)
    }

    /// Stops the primary with a signal (SIGQUIT: at once, as after a crash) and starts it again.
    ///
    /// # Errors
    /// When it does not.
    pub fn restart(&mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(server) = self.primary.server.take() {
            server.end(signal)?;
        }
        let waits: &[&str] = match self.standby {
            Some(_) => &["synchronous_standby_names=standby"],
            None => &[],
        };
        self.primary.server = Some(self.serve(&self.primary, READY, waits)?);
        Ok(())
    }

    /// Kills the primary for good and promotes the standby.
    ///
    /// # Errors
    /// When there is no standby, or it is not promoted.
    pub fn fail_over(&mut self) -> anyhow::Result<()> {
        let standby = self.standby.take().context("no standby")?;
        if let Some(server) = self.primary.server.take() {
            server.kill()?;
        }
        let mut promote = self.command("pg_ctl");
        promote
            .arg("promote")
            .arg("-D")
            .arg(&standby.data)
            .args(["-w", "-t", "60"]);
        run(promote)?;
        self.primary = standby;
        Ok(())
    }

    /// Whether there is a standby to fail over to.
    #[must_use]
    pub fn has_standby(&self) -> bool {
        self.standby.is_some()
    }

    /// The directories of the sockets: the primary's at the start, and the standby's.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        let both = [Some(&self.primary), self.standby.as_ref()];
        both.into_iter()
            .flatten()
            .map(|i| i.sockets.join(".s.PGSQL.5432"))
            .collect()
    }

    /// `postgres://…` of the server that takes writes now.
    #[must_use]
    pub fn address(&self) -> String {
        self.primary.address()
    }

    /// What a query answers on the primary, one row a line, columns parted by `|`.
    ///
    /// # Errors
    /// When it fails.
    pub fn query(&self, sql: &str) -> anyhow::Result<String> {
        let mut ask = self.command("psql");
        ask.arg("-h").arg(&self.primary.sockets);
        ask.args(["-U", "mortise", "-d", "postgres", "-qAt", "-c", sql]);
        let output = ask.output().context("run psql")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "psql: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The processes of its servers: those that were started, and theirs.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let servers = [Some(&self.primary), self.standby.as_ref()];
        let servers = servers.into_iter().flatten();
        let first: Vec<u32> = servers
            .filter_map(|instance| instance.server.as_ref().map(Server::id))
            .collect();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let children = all.filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, fields) = stat.rsplit_once(')')?;
            let parent: u32 = fields.split_whitespace().nth(1)?.parse().ok()?;
            first.contains(&parent).then_some(pid)
        });
        let children: Vec<u32> = children.collect();
        first.iter().copied().chain(children).collect()
    }

    /// `postgres://…` of a new, empty database on it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new_database(&self, name: &str) -> anyhow::Result<String> {
        let mut create = self.command("psql");
        create.arg("-h").arg(&self.primary.sockets);
        create.args(["-U", "mortise", "-d", "postgres", "-q", "-c"]);
        create.arg(format!("CREATE DATABASE {name}"));
        run(create)?;
        Ok(self.address().replace("/postgres", &format!("/{name}")))
    }
}

fn instance(dir: &Path, name: &str, account: Option<Account>) -> anyhow::Result<Instance> {
    let sockets = dir.join(format!("s{name}"));
    std::fs::create_dir(&sockets)?;
    if let Some(account) = account {
        account.own(&sockets)?;
    }
    Ok(Instance {
        data: dir.join(name),
        sockets,
        server: None,
    })
}
