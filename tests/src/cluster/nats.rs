//! The NATS server as the tests start it: on one loopback port, which it keeps when it is stopped and started.

use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::Context as _;
use rustix::process::Signal;
use tempfile::TempDir;

use super::server::{Account, Server, command};

/// Where the program is, if it is on this machine.
pub(super) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Debian's is for administrators, whose path this may not be.
    dirs.push("/usr/sbin".into());
    dirs.into_iter()
        .map(|dir| dir.join("nats-server"))
        .find(|file| file.is_file())
}

/// A NATS server, running or stopped.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    account: Option<Account>,
    port: u16,
    server: Option<Server>,
    dir: TempDir,
}

impl Nats {
    /// Starts one on a port that was free a moment ago.
    ///
    /// # Errors
    /// When the program is missing or does not start.
    pub fn start() -> anyhow::Result<Self> {
        let program = program().context("nats-server is not on this machine")?;
        let free = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let port = free.local_addr().context("find a free port")?.port();
        drop(free);
        let mut nats = Self {
            program,
            account: Account::unprivileged()?,
            port,
            server: None,
            dir: tempfile::Builder::new().prefix("mnats-").tempdir()?,
        };
        nats.go_on()?;
        Ok(nats)
    }

    /// Starts it where it was.
    ///
    /// # Errors
    /// When it does not start.
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        if self.server.is_none() {
            let mut serve = command(&self.program, self.account);
            serve.args(["-a", "127.0.0.1", "-p", &self.port.to_string()]);
            let log = self.dir.path().join("log");
            self.server = Some(Server::start("nats-server", serve, "Server is ready", log)?);
        }
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// When that fails.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.server
            .take()
            .map_or(Ok(()), |server| server.end(Signal::KILL))
    }

    /// `nats://…`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}
