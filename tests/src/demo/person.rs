//! A person: a profile directory, a passphrase, a `mortise listen` that is their device, and the verbs they use.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mortise_client::exit::Exit;
use serde_json::Value;

use super::process::{Line, Process, copy_dir};

/// Longer than any step takes; who waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a verb ended.
#[derive(Debug)]
pub struct Done {
    /// What it printed.
    pub lines: Vec<Line>,
    /// Its exit code.
    pub code: i32,
}

impl Done {
    /// The first line with this event.
    ///
    /// # Errors
    /// When there is none; names the error that was printed instead.
    pub fn event(&self, event: &str) -> anyhow::Result<&Value> {
        if let Some(line) = self.lines.iter().find(|line| line.is(event)) {
            return Ok(&line.value);
        }
        let error = self.lines.iter().find(|line| line.is("error"));
        let message = error.map_or("nothing", |l| l.value["message"].as_str().unwrap_or("?"));
        bail!("no `{event}`, exit code {}: {message}", self.code)
    }
}

/// A field that must be a string.
///
/// # Errors
/// When it is not.
pub fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    let found = value[field].as_str();
    Ok(found
        .with_context(|| format!("no field `{field}`"))?
        .to_owned())
}

/// Somebody with one device.
#[derive(Debug)]
pub struct Person {
    /// Their full name.
    pub name: String,
    /// Their user id, hex; empty until they are in.
    pub user: String,
    /// What unlocks their profile.
    pub passphrase: String,
    /// How long a verb waits for the relay, unless it says so itself, s.
    pub timeout_s: u32,
    client: PathBuf,
    home: PathBuf,
    daemon: Option<Process>,
}

impl Person {
    /// Gives somebody a directory of their own and a passphrase file.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn new(
        client: &Path,
        base: &Path,
        number: usize,
        name: &str,
        passphrase: String,
    ) -> anyhow::Result<Self> {
        // Directories are numbered: a name in a path would be a name in a process list.
        let home = base.join(format!("person-{number:02}"));
        std::fs::create_dir_all(&home).context("make a person's directory")?;
        std::fs::write(home.join("passphrase"), format!("{passphrase}\n"))
            .context("write a passphrase")?;
        Ok(Self {
            name: name.to_owned(),
            user: String::new(),
            passphrase,
            timeout_s: 50,
            client: client.to_owned(),
            home,
            daemon: None,
        })
    }

    /// Their profile directory.
    #[must_use]
    pub fn profile(&self) -> PathBuf {
        self.home.join("profile")
    }

    /// Where files of theirs go that are not in the profile.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The command line of a verb, for whoever wants to change something about it.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command
            .arg("--profile")
            .arg(self.profile())
            .arg("--passphrase-file")
            .arg(self.home.join("passphrase"))
            .arg("--json")
            .args(arguments);
        if !arguments.contains(&"--timeout") {
            command.args(["--timeout", &self.timeout_s.to_string()]);
        }
        command
    }

    /// Starts a verb and leaves it running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        let verb = arguments.first().unwrap_or(&"mortise");
        let name = format!("mortise {verb} ({})", self.name);
        Process::start(&name, self.command(arguments), &self.home.join("log"))
    }

    /// Runs a verb to its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Done> {
        let (lines, code) = self.start(arguments)?.finish(PATIENCE)?;
        Ok(Done { lines, code })
    }

    /// Runs a verb that must succeed, and gives the line with this event.
    ///
    /// # Errors
    /// When it fails.
    pub fn must(&self, arguments: &[&str], event: &str) -> anyhow::Result<Value> {
        let done = self.run(arguments)?;
        let what = || {
            format!(
                "{}: mortise {}",
                self.name,
                arguments.first().unwrap_or(&"")
            )
        };
        let value = done.event(event).with_context(what)?.clone();
        anyhow::ensure!(done.code == 0, "{}: exit code {}", what(), done.code);
        Ok(value)
    }

    /// Runs a verb that must fail with this exit code; the error as it was printed for programs.
    ///
    /// What it prints for people must say the same, and what to do next.
    ///
    /// # Errors
    /// When it succeeds, or fails in another way.
    pub fn fails(&self, arguments: &[&str], exit: Exit) -> anyhow::Result<Value> {
        self.fails_as(self.command(arguments), exit)
    }

    /// As [`Person::fails`], for a command line that was changed.
    ///
    /// # Errors
    /// As [`Person::fails`].
    pub fn fails_as(&self, command: Command, exit: Exit) -> anyhow::Result<Value> {
        let what = format!("mortise ({})", self.name);
        let (lines, code) =
            Process::start(&what, command, &self.home.join("log"))?.finish(PATIENCE)?;
        let told = lines.iter().find(|line| line.is("error"));
        let told = told.with_context(|| format!("{what}: no error line, exit code {code}"))?;
        let error = told.value.clone();
        let agreed = code == i32::from(exit.number())
            && error["exit"] == exit.number()
            && error["code"] == exit.name();
        anyhow::ensure!(
            agreed,
            "{what}: not {}: exit code {code}, {error}",
            exit.name()
        );
        let (message, advice) = (text(&error, "message")?, text(&error, "advice")?);
        anyhow::ensure!(
            !advice.is_empty(),
            "{what}: says nothing of what to do: {error}"
        );
        let stderr = std::fs::read_to_string(self.home.join("log.stderr")).context("stderr")?;
        let for_people = format!("mortise: {message}\n  next: {advice}");
        anyhow::ensure!(
            stderr.contains(&for_people),
            "{what}: stderr lacks {for_people:?}"
        );
        Ok(error)
    }

    /// The texts of a group with their positions, as this device has them, oldest first.
    ///
    /// # Errors
    /// When they cannot be brought up to date.
    pub fn reads(&self, group: &str) -> anyhow::Result<Vec<(u64, String)>> {
        let done = self.run(&["read", group])?;
        anyhow::ensure!(
            done.code == 0,
            "{}: mortise read: exit code {}",
            self.name,
            done.code
        );
        let messages = done.lines.iter().filter(|line| line.is("message"));
        let row = |line: &Line| {
            let seq = line.value["seq"].as_u64().context("no position")?;
            Ok((seq, text(&line.value, "text")?))
        };
        messages.map(row).collect()
    }

    /// Starts the device and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn come_online(&mut self) -> anyhow::Result<()> {
        let daemon = self.start(&["listen"])?;
        daemon.wait_for(0, PATIENCE, "the daemon", |line| line.is("listening"))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends the device without a goodbye.
    pub fn go_offline(&mut self) {
        self.daemon = None;
    }

    /// Waits until the device ends by itself; what it printed, and its exit code.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn leave(&mut self, within: Duration) -> anyhow::Result<(Vec<Line>, i32)> {
        let daemon = self.daemon.take();
        daemon
            .with_context(|| format!("{} is offline", self.name))?
            .finish(within)
    }

    /// The running device.
    ///
    /// # Errors
    /// When they are offline.
    pub fn device(&self) -> anyhow::Result<&Process> {
        self.daemon
            .as_ref()
            .with_context(|| format!("{} is offline", self.name))
    }

    /// Waits until the device says something, at any time since it was started.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn hears(&self, what: &str, wanted: impl FnMut(&Line) -> bool) -> anyhow::Result<Line> {
        self.device()?.wait_for(0, PATIENCE, what, wanted)
    }

    /// Says something in a group; the position of the message in the group's log.
    ///
    /// # Errors
    /// When the relay has not acknowledged it.
    pub fn say(&self, group: &str, text: &str) -> anyhow::Result<u64> {
        let appended = self.must(&["send", group, text], "appended")?;
        appended["seq"].as_u64().context("no position in the log")
    }

    /// Copies the profile as it is at this instant.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy_profile(&self, to: &Path) -> anyhow::Result<()> {
        match &self.daemon {
            Some(daemon) => daemon.frozen(|| copy_dir(&self.profile(), to)),
            None => copy_dir(&self.profile(), to),
        }
    }
}
