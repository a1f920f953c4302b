//! A small organisation of real processes, for end-to-end tests: a relay, people, one group of them all.
//!
//! Everything works without a terminal, and nothing is waited for without a limit. This module must never
//! reach into a running product.

use std::path::Path;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::demo::Binaries;
use crate::demo::person::{Person, text};
use crate::demo::relay::{RelayAtRest, RelayProcess};

/// The group that everybody is in.
pub const TEAM: &str = "team";

/// An organisation of people who are offline, and its relay.
#[derive(Debug)]
pub struct Stage {
    /// The product.
    pub binaries: Binaries,
    /// In the order in which they came; the first has founded the organisation.
    pub people: Vec<Person>,
    running: Option<RelayProcess>,
    at_rest: Option<RelayAtRest>,
    dir: TempDir,
}

impl Stage {
    /// Starts a relay and has these people found an organisation, join it, and form the group [`TEAM`].
    ///
    /// # Errors
    /// When any of it fails.
    pub fn with(names: &[&str]) -> anyhow::Result<Self> {
        Self::empty()?.peopled(names)
    }

    /// As [`Stage::with`], in a directory that was prepared.
    ///
    /// # Errors
    /// As [`Stage::with`].
    pub fn with_in(dir: TempDir, names: &[&str]) -> anyhow::Result<Self> {
        Self::empty_in(dir)?.peopled(names)
    }

    /// Has these people found an organisation, join it, and form the group [`TEAM`].
    ///
    /// # Errors
    /// When any of it fails.
    pub fn peopled(mut self, names: &[&str]) -> anyhow::Result<Self> {
        let stage = &mut self;
        let (founder, members) = names.split_first().context("nobody")?;
        stage.found(founder)?;
        for name in members {
            let link = stage.invite(name)?;
            stage.join(name, &link)?;
        }
        let mut create = vec!["group", "create", TEAM];
        create.extend(members);
        stage.people[0].must(&create, "group_created")?;
        for person in &stage.people[1..] {
            person.reads(TEAM)?;
        }
        Ok(self)
    }

    /// Starts a relay, and nobody is there yet.
    ///
    /// # Errors
    /// When it does not start.
    pub fn empty() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("mortise-e2e-")
            .tempdir()
            .context("make a directory")?;
        Self::empty_in(dir)
    }

    /// As [`Stage::empty`], in a directory that was prepared.
    ///
    /// # Errors
    /// As [`Stage::empty`].
    pub fn empty_in(dir: TempDir) -> anyhow::Result<Self> {
        Self::empty_of(Binaries::beside_this_program()?, dir)
    }

    /// As [`Stage::empty_in`], of these programs.
    ///
    /// # Errors
    /// As [`Stage::empty`].
    pub fn empty_of(binaries: Binaries, dir: TempDir) -> anyhow::Result<Self> {
        let relay = RelayProcess::start(&binaries.relay, dir.path())?;
        Ok(Self {
            binaries,
            people: Vec::new(),
            running: Some(relay),
            at_rest: None,
            dir,
        })
    }

    /// Somebody founds the organisation.
    ///
    /// # Errors
    /// When it fails.
    pub fn found(&mut self, name: &str) -> anyhow::Result<()> {
        let claim = self.relay()?.claim_link.clone();
        let mut owner = self.newcomer(name)?;
        let root = owner.home().join("root.key").display().to_string();
        let found = [
            "org",
            "create",
            "--claim",
            &claim,
            "--name",
            name,
            "--suite",
            "0x0001",
            "--root-key-out",
            &root,
        ];
        owner.user = text(&owner.must(&found, "org_created")?, "user")?;
        self.people.push(owner);
        Ok(())
    }

    /// The founder invites somebody: the link.
    ///
    /// # Errors
    /// When it fails.
    pub fn invite(&self, name: &str) -> anyhow::Result<String> {
        text(&self.people[0].must(&["invite", name], "invited")?, "link")
    }

    /// Somebody joins by a link.
    ///
    /// # Errors
    /// When it fails.
    pub fn join(&mut self, name: &str, link: &str) -> anyhow::Result<()> {
        let mut person = self.newcomer(name)?;
        person.user = text(&person.must(&["join", link], "joined")?, "user")?;
        self.people.push(person);
        Ok(())
    }

    /// Somebody with an empty directory of their own, who is not in yet.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn newcomer(&self, name: &str) -> anyhow::Result<Person> {
        let number = self.count_homes()?;
        let passphrase = format!("the passphrase of {name}");
        let client = &self.binaries.client;
        let mut person = Person::new(client, self.dir.path(), number, name, passphrase)?;
        person.timeout_s = 10;
        Ok(person)
    }

    fn count_homes(&self) -> anyhow::Result<usize> {
        let entries = std::fs::read_dir(self.dir.path()).context("list the people")?;
        Ok(entries.count())
    }

    /// Everything is below this.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The running relay.
    ///
    /// # Errors
    /// When it does not run.
    pub fn relay(&self) -> anyhow::Result<&RelayProcess> {
        self.running.as_ref().context("the relay does not run")
    }

    /// Kills the relay with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash_relay(&mut self) -> anyhow::Result<()> {
        self.at_rest = Some(self.take_relay()?.crash());
        Ok(())
    }

    /// Stops the relay in good order; what it left.
    ///
    /// # Errors
    /// When it does not run, or does not end well.
    pub fn stop_relay(&mut self) -> anyhow::Result<&RelayAtRest> {
        let rest = self.take_relay()?.halt()?;
        Ok(self.at_rest.insert(rest))
    }

    fn take_relay(&mut self) -> anyhow::Result<RelayProcess> {
        self.running.take().context("the relay does not run")
    }

    /// Starts the relay again, on the same port.
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub fn start_relay(&mut self) -> anyhow::Result<()> {
        let rest = self.at_rest.clone().context("the relay runs")?;
        self.running = Some(rest.start()?);
        self.at_rest = None;
        Ok(())
    }
}
