//! Somebody else's server as a process of ours. Dropping it kills it.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

const PATIENCE: Duration = Duration::from_secs(20);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts it and waits until it takes connections; what it prints goes to `log`.
    pub(super) fn start(
        mut command: Command,
        address: SocketAddr,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = File::create(log).context("make a log file")?;
        command
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(file);
        let child = command.spawn().context("start a peer")?;
        let mut server = Self { child, address };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("a peer ended with {status}: {said}");
            }
            anyhow::ensure!(Instant::now() < until, "a peer does not take connections");
            std::thread::park_timeout(BETWEEN_TRIES);
        }
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?)
}
