//! The relay: the real binary, on a port of its own, with everything that it writes in sight.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::process::{Process, copy_dir};

const PATIENCE: Duration = Duration::from_secs(30);
/// Everything that the relay's own code has to say; libraries say what matters.
const LOG_FILTER: &str = "info,mortise_relay=trace,mortise_protocol=trace";

/// A running relay.
#[derive(Debug)]
pub struct RelayProcess {
    process: Process,
    data: PathBuf,
    logs: PathBuf,
    /// `host:port` on the loopback.
    pub address: String,
    /// The link that founds the organisation.
    pub claim_link: String,
}

impl RelayProcess {
    /// Makes a data directory below `base` and starts the relay on it, on a port that was free a moment ago.
    ///
    /// # Errors
    /// When the relay does not start.
    pub fn start(binary: &Path, base: &Path) -> anyhow::Result<Self> {
        let data = base.join("relay");
        let logs = base.join("relay-log");
        std::fs::create_dir_all(&logs).context("make the log directory")?;
        let log = logs.join("relay");
        let mut last = None;
        // The links carry the port, so it is chosen here; somebody else may take it meanwhile.
        for _ in 0..5 {
            let address = free_port()?;
            let mut init = Command::new(binary);
            init.arg("init").arg("--data").arg(&data);
            init.args(["--listen", &address, "--json"]);
            let (lines, code) =
                Process::start("mortise-relay init", init, &log)?.finish(PATIENCE)?;
            let claim_link = lines
                .iter()
                .find_map(|line| line.value["claim_link"].as_str())
                .with_context(|| format!("mortise-relay init ended with {code}"))?
                .to_owned();
            let mut run = Command::new(binary);
            run.arg("run").arg("--data").arg(&data).arg("--json");
            run.env("RUST_LOG", LOG_FILTER);
            let process = Process::start("mortise-relay", run, &log)?;
            match process.wait_for(0, PATIENCE, "the port", |line| line.is("listening")) {
                Ok(_) => {
                    return Ok(Self {
                        process,
                        data,
                        logs,
                        address,
                        claim_link,
                    });
                }
                Err(error) => last = Some(error),
            }
            drop(process);
            std::fs::remove_dir_all(&data).context("clear the data directory")?;
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("the relay does not start")))
    }

    /// Where everything that it prints is.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Copies its data directory as it is at this instant, write-ahead log included.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy_data(&self, to: &Path) -> anyhow::Result<()> {
        self.process.frozen(|| copy_dir(&self.data, to))
    }

    /// Stops it in good order and says where its data is.
    ///
    /// # Errors
    /// When it does not end, or not with 0.
    pub fn stop(self) -> anyhow::Result<PathBuf> {
        let code = self.process.terminate(PATIENCE)?;
        anyhow::ensure!(code == 0, "the relay ended with {code}");
        Ok(self.data)
    }
}

fn free_port() -> anyhow::Result<String> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").context("find a free port")?;
    Ok(socket.local_addr().context("find a free port")?.to_string())
}
