//! Relay nodes: the real program, several times, with the same keys and one database.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use mortise_protocol::identity::ClaimLink;

use super::Proxy;
use crate::demo::process::{Process, copy_dir};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a node is started with besides its data directory.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `mortise-relay`.
    pub relay: PathBuf,
    /// The program of the tests that starts a relay with the planted fault, instead.
    pub planted: Option<PathBuf>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    programs: Programs,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    /// `host:port`.
    pub address: String,
    /// Its doors to the database's servers.
    pub doors: Vec<Proxy>,
}

/// Makes the data directory of a relay whose tables are in the database at `storage`.
///
/// # Errors
/// When `init` fails.
pub fn init(
    programs: &Programs,
    data: &Path,
    storage: &str,
    wake: Option<&str>,
) -> anyhow::Result<ClaimLink> {
    let mut init = Command::new(&programs.relay);
    init.arg("init").arg("--data").arg(data);
    init.args(["--listen", "127.0.0.1:4433", "--storage", storage, "--json"]);
    if let Some(wake) = wake {
        init.args(["--wake", wake]);
    }
    let log = data.with_extension("init");
    let (lines, code) = Process::start("mortise-relay init", init, &log)?.finish(PATIENCE)?;
    let link = lines
        .iter()
        .find_map(|line| line.value["claim_link"].as_str());
    let link = link.with_context(|| format!("mortise-relay init ended with {code}"))?;
    Ok(ClaimLink::parse(link)?)
}

impl Node {
    /// A copy of the keys in `first`, with a way of its own to the database.
    ///
    /// # Errors
    /// When files cannot be copied.
    pub fn copy(
        programs: &Programs,
        first: &Path,
        number: usize,
        doors: Vec<Proxy>,
    ) -> anyhow::Result<Self> {
        let data = first.with_file_name(format!("node{number}"));
        copy_dir(first, &data)?;
        let config = data.join("relay.toml");
        let text = std::fs::read_to_string(&config).context("read relay.toml")?;
        let mut config_of: toml::Table = toml::from_str(&text).context("read relay.toml")?;
        let hosts: Vec<_> = doors
            .iter()
            .map(|door| format!("127.0.0.1:{}", door.port()))
            .collect();
        if !hosts.is_empty() {
            let storage = format!("postgres://mortise@{}/postgres", hosts.join(","));
            config_of.insert("storage".into(), storage.into());
        }
        config_of.insert("listen".into(), "127.0.0.1:0".into());
        std::fs::write(&config, config_of.to_string()).context("write relay.toml")?;
        Ok(Self {
            programs: programs.clone(),
            log: data.with_extension("out"),
            data,
            process: None,
            address: String::new(),
            doors,
        })
    }

    /// Starts it, on a port of its own choice, and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut run = match &self.programs.planted {
            Some(planted) => Command::new(planted),
            None => Command::new(&self.programs.relay),
        };
        run.arg(if self.programs.planted.is_some() {
            "node"
        } else {
            "run"
        });
        run.arg("--data").arg(&self.data).arg("--json");
        run.env("RUST_LOG", "info");
        let process = Process::start("mortise-relay", run, &self.log)?;
        let line = process.wait_for(0, PATIENCE, "the port", |line| line.is("listening"))?;
        let address = line.value["address"].as_str().context("no address")?;
        self.address = address.to_owned();
        self.process = Some(process);
        Ok(())
    }

    /// Kills it with SIGKILL, in the middle of whatever it is doing.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its process id, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }
}
