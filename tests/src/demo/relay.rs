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
    binary: PathBuf,
    data: PathBuf,
    logs: PathBuf,
    log_filter: &'static str,
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
        Self::start_logging(binary, base, LOG_FILTER)
    }

    /// As [`RelayProcess::start`], with this filter for what it logs.
    ///
    /// # Errors
    /// As [`RelayProcess::start`].
    pub fn start_logging(
        binary: &Path,
        base: &Path,
        log_filter: &'static str,
    ) -> anyhow::Result<Self> {
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
            let rest = RelayAtRest {
                binary: binary.to_owned(),
                data: data.clone(),
                logs: logs.clone(),
                log_filter,
                address,
                claim_link,
            };
            match rest.start() {
                Ok(relay) => return Ok(relay),
                Err(error) => last = Some(error),
            }
            std::fs::remove_dir_all(&data).context("clear the data directory")?;
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("the relay does not start")))
    }

    /// Where everything that it prints is.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it ends by itself within this time.
    #[must_use]
    pub fn ends(&self, within: Duration) -> bool {
        self.process.ends(within)
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
        self.halt().map(|rest| rest.data)
    }

    /// Stops it in good order; it can be started again.
    ///
    /// # Errors
    /// When it does not end, or not with 0.
    pub fn halt(self) -> anyhow::Result<RelayAtRest> {
        let (process, rest) = self.split();
        let code = process.terminate(PATIENCE)?;
        anyhow::ensure!(code == 0, "the relay ended with {code}");
        Ok(rest)
    }

    /// Kills it with SIGKILL, in the middle of whatever it is doing.
    #[must_use]
    pub fn crash(self) -> RelayAtRest {
        let (process, rest) = self.split();
        drop(process);
        rest
    }

    /// What would be left of it: the same files, for a second process.
    #[must_use]
    pub fn at_rest(&self) -> RelayAtRest {
        RelayAtRest {
            binary: self.binary.clone(),
            data: self.data.clone(),
            logs: self.logs.clone(),
            log_filter: self.log_filter,
            address: self.address.clone(),
            claim_link: self.claim_link.clone(),
        }
    }

    fn split(self) -> (Process, RelayAtRest) {
        let rest = self.at_rest();
        (self.process, rest)
    }
}

/// What is left of a relay that does not run.
#[derive(Clone, Debug)]
pub struct RelayAtRest {
    binary: PathBuf,
    data: PathBuf,
    logs: PathBuf,
    log_filter: &'static str,
    address: String,
    claim_link: String,
}

impl RelayAtRest {
    /// Starts it, on the port that it had.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(self) -> anyhow::Result<RelayProcess> {
        let process = self.run()?;
        process.wait_for(0, PATIENCE, "the port", |line| line.is("listening"))?;
        Ok(RelayProcess {
            process,
            binary: self.binary,
            data: self.data,
            logs: self.logs,
            log_filter: self.log_filter,
            address: self.address,
            claim_link: self.claim_link,
        })
    }

    /// Starts it, which must not work: its exit code, and what it has said on stderr this time.
    ///
    /// # Errors
    /// When it runs.
    pub fn refuses_to_start(&self) -> anyhow::Result<(i32, String)> {
        let errors = self.logs.join("relay.stderr");
        let before = std::fs::read_to_string(&errors).unwrap_or_default().len();
        let (_, code) = self.run()?.finish(PATIENCE)?;
        let said = std::fs::read_to_string(&errors).context("read the relay's log")?;
        Ok((code, said[before..].to_owned()))
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    fn run(&self) -> anyhow::Result<Process> {
        let mut run = Command::new(&self.binary);
        run.arg("run").arg("--data").arg(&self.data).arg("--json");
        run.env("RUST_LOG", self.log_filter);
        Process::start("mortise-relay", run, &self.logs.join("relay"))
    }
}

fn free_port() -> anyhow::Result<String> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").context("find a free port")?;
    Ok(socket.local_addr().context("find a free port")?.to_string())
}
