//! A server that the tests start: in a process group of its own, as an unprivileged user where the tests are root,
//! stopped by its id when it is dropped.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const PATIENCE: Duration = Duration::from_secs(60);

/// Who servers run as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// `postgres`, or else `nobody`, where this process is root; `None` elsewhere.
    pub(super) fn unprivileged() -> anyhow::Result<Option<Self>> {
        if !rustix::process::getuid().is_root() {
            return Ok(None);
        }
        let accounts = std::fs::read_to_string("/etc/passwd").context("read the accounts")?;
        for name in ["postgres", "nobody"] {
            let line = accounts
                .lines()
                .find(|line| line.split(':').next() == Some(name));
            let mut ids = line.into_iter().flat_map(|line| line.split(':').skip(2));
            if let (Some(uid), Some(gid)) = (ids.next(), ids.next()) {
                return Ok(Some(Self {
                    uid: uid.parse().context("an account's id")?,
                    gid: gid.parse().context("an account's group")?,
                }));
            }
        }
        bail!("no account to run PostgreSQL as: neither postgres nor nobody")
    }

    /// Gives a directory to the account.
    pub(super) fn own(self, path: &Path) -> anyhow::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .context("give a directory away")
    }
}

/// A command that runs as the account.
pub(super) fn command(program: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::null());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Runs a command to its end.
pub(super) fn run(mut command: Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {said}", output.status);
    }
    Ok(())
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    name: &'static str,
}

impl Server {
    /// Starts it and waits until a line of its standard error says `ready`.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        ready: &str,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let said = child.stderr.take().context("standard error")?;
        let server = Self { child, name };
        let seen = follow(said, ready.to_owned(), log.clone());
        if seen.recv_timeout(PATIENCE).is_err() {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{name} is not ready; it said:\n{said}");
        }
        Ok(server)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal and waits for the end.
    pub(super) fn end(mut self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid(), signal).with_context(|| format!("stop {}", self.name))?;
        self.child
            .wait()
            .map(drop)
            .with_context(|| format!("wait for {}", self.name))
    }

    /// Kills it and all its children, at once.
    pub(super) fn kill(mut self) -> anyhow::Result<()> {
        kill_process_group(self.pid(), Signal::KILL)
            .with_context(|| format!("kill {}", self.name))?;
        self.child
            .wait()
            .map(drop)
            .with_context(|| format!("wait for {}", self.name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Writes what it says into a file, and tells once that it is ready.
fn follow(said: std::process::ChildStderr, ready: String, log: PathBuf) -> Receiver<()> {
    let (tell, seen) = channel();
    std::thread::spawn(move || {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .ok();
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if let Some(file) = &mut file {
                use std::io::Write as _;
                let _ = writeln!(file, "{line}");
            }
            if line.contains(&ready) {
                let _ = tell.send(());
            }
        }
    });
    seen
}
