//! Real processes: found, started, listened to, frozen, ended. None outlives its handle.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};

/// The product's binaries.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `mortise-relay`.
    pub relay: PathBuf,
    /// `mortise`.
    pub client: PathBuf,
}

impl Binaries {
    /// Finds them where cargo has put this program, or one folder up (a test is in `deps`).
    ///
    /// # Errors
    /// When they were not built.
    pub fn beside_this_program() -> anyhow::Result<Self> {
        let here = std::env::current_exe().context("find this program")?;
        let find = |name: &str| {
            here.ancestors()
                .skip(1)
                .take(2)
                .map(|dir| dir.join(name))
                .find(|path| path.is_file())
                .with_context(|| {
                    format!("{name} was not built: run `cargo build --workspace --bins` first")
                })
        };
        Ok(Self {
            relay: find("mortise-relay")?,
            client: find("mortise")?,
        })
    }
}

/// The event that stands for a line of stderr.
pub const NOTE: &str = "note";

/// A line that a process has printed.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// What it said; `Null` for what is not JSON; a [`NOTE`] for a line of its stderr.
    pub value: Value,
}

impl Line {
    /// Whether it is this event.
    #[must_use]
    pub fn is(&self, event: &str) -> bool {
        self.value["event"] == event
    }
}

#[derive(Debug, Default)]
struct Output {
    lines: Vec<Line>,
    ended: bool,
}

/// What a process has printed so far, and a way to wait for more.
#[derive(Debug, Default)]
struct Shared {
    output: Mutex<Output>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Output> {
        // A reader that panicked has left whole lines behind.
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Line) {
        self.lock().lines.push(line);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until `done` says something of the lines, the output has ended, or the time is up.
    fn wait<T>(
        &self,
        within: Duration,
        mut done: impl FnMut(&[Line]) -> Option<T>,
    ) -> Result<T, bool> {
        let until = Instant::now() + within;
        let mut output = self.lock();
        loop {
            if let Some(result) = done(&output.lines) {
                return Ok(result);
            }
            let left = until.saturating_duration_since(Instant::now());
            if output.ended || left.is_zero() {
                return Err(output.ended);
            }
            (output, _) = self
                .changed
                .wait_timeout(output, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A running process whose stdout is NDJSON. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program; what it prints is also appended to `logs` with the extensions `stdout` and `stderr`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> anyhow::Result<Self> {
        let copies = (
            append(&logs.with_extension("stdout"))?,
            append(&logs.with_extension("stderr"))?,
        );
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let shared = Arc::new(Shared::default());
        let (results, notes) = (Arc::clone(&shared), Arc::clone(&shared));
        let readers = vec![
            std::thread::spawn(move || {
                read_lines(stdout, copies.0, |at, text| {
                    let value = serde_json::from_str(text).unwrap_or_default();
                    results.push(Line { at, value });
                });
                results.end();
            }),
            std::thread::spawn(move || {
                read_lines(stderr, copies.1, |at, text| {
                    let value = json!({ "event": NOTE, "text": text });
                    notes.push(Line { at, value });
                });
            }),
        ];
        Ok(Self {
            name: name.to_owned(),
            child,
            shared,
            readers,
        })
    }

    /// How many lines there are; what comes later is after this mark.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.shared.lock().lines.len()
    }

    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.shared.lock().lines.clone()
    }

    /// Waits for a line of which `wanted` is true, among all lines from `mark` on.
    ///
    /// # Errors
    /// When the time is up, or the process ends first.
    pub fn wait_for(
        &self,
        mark: usize,
        within: Duration,
        what: &str,
        mut wanted: impl FnMut(&Line) -> bool,
    ) -> anyhow::Result<Line> {
        let mut next = mark;
        let found = self.shared.wait(within, |lines| {
            let fresh = lines.get(next..).unwrap_or_default();
            next = lines.len().max(next);
            fresh.iter().find(|line| wanted(line)).cloned()
        });
        found.map_err(|ended| {
            let how = if ended {
                "ended"
            } else {
                "said nothing in time"
            };
            anyhow::anyhow!("{}: waiting for {what}, but the process {how}", self.name)
        })
    }

    /// Whether it ends within this time; it stays to be finished.
    #[must_use]
    pub fn ends(&self, within: Duration) -> bool {
        self.shared.wait::<()>(within, |_| None) == Err(true)
    }

    /// Waits until it has ended by itself; what it printed, and its exit code.
    ///
    /// # Errors
    /// When the time is up: then it was killed.
    pub fn finish(mut self, within: Duration) -> anyhow::Result<(Vec<Line>, i32)> {
        if self.shared.wait::<()>(within, |_| None) == Err(false) {
            bail!("{} did not end within {within:?}", self.name);
        }
        let status = self
            .child
            .wait()
            .with_context(|| format!("wait for {}", self.name))?;
        Ok((self.lines(), status.code().unwrap_or(-1)))
    }

    /// Holds the process still while `act` runs.
    ///
    /// # Errors
    /// What `act` says, or a signal that could not be sent.
    pub fn frozen<T>(&self, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let pid = self.pid();
        kill_process(pid, Signal::STOP).with_context(|| format!("stop {}", self.name))?;
        let thaw = Thaw(pid);
        // Every thread has stopped once the kernel says so.
        waitpid(Some(pid), WaitOptions::UNTRACED)
            .with_context(|| format!("wait for {} to stop", self.name))?;
        let result = act();
        drop(thaw);
        result
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it does not end in time: then it was killed.
    pub fn terminate(self, within: Duration) -> anyhow::Result<i32> {
        kill_process(self.pid(), Signal::TERM).with_context(|| format!("end {}", self.name))?;
        self.finish(within).map(|(_, code)| code)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// Lets a stopped process go on, whatever happened meanwhile.
struct Thaw(Pid);

impl Drop for Thaw {
    fn drop(&mut self) {
        // Fails only for a process that is gone.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Reads to the end; each line is also kept in a file.
fn read_lines(from: impl Read, mut copy: File, mut each: impl FnMut(Instant, &str)) {
    for line in BufReader::new(from).lines() {
        let Ok(text) = line else { break };
        let at = Instant::now();
        // The copy is for a reader of the logs; the story goes on without it.
        let _ = copy.write_all(format!("{text}\n").as_bytes());
        each(at, &text);
    }
}

fn append(path: &Path) -> anyhow::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// Copies every regular file below a directory.
///
/// # Errors
/// A file that cannot be read or written.
pub fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    for file in super::scan::files_below(from)? {
        let target = to.join(file.strip_prefix(from)?);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        fs::copy(&file, &target).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shell(script: &str, dir: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("sh", command, &dir.join("log")).expect("start")
    }

    #[test]
    fn lines_are_waited_for_and_the_end_is_seen() {
        let dir = tempfile::tempdir().expect("dir");
        let process = shell(
            r#"echo '{"event":"a"}'; echo '{"event":"b"}'; exit 3"#,
            dir.path(),
        );
        let line = process
            .wait_for(0, PATIENCE, "b", |l| l.is("b"))
            .expect("b");
        assert_eq!(line.value["event"], "b");
        let error = process
            .wait_for(0, PATIENCE, "c", |l| l.is("c"))
            .expect_err("no c");
        assert!(error.to_string().contains("ended"), "{error}");
        let (lines, code) = process.finish(PATIENCE).expect("ends");
        assert_eq!((lines.len(), code), (2, 3));
    }

    #[test]
    fn a_frozen_process_says_nothing_until_it_is_let_go() {
        let dir = tempfile::tempdir().expect("dir");
        let script = r#"while :; do echo '{"event":"tick"}'; sleep 0.01; done"#;
        let process = shell(script, dir.path());
        let next = |within| process.wait_for(process.mark(), within, "a tick", |l| l.is("tick"));
        next(PATIENCE).expect("ticks");
        let silent = process.frozen(|| {
            // One more may have been in the pipe.
            let short = Duration::from_millis(100);
            Ok(next(short).is_err() || next(short).is_err())
        });
        assert!(silent.expect("frozen"));
        next(PATIENCE).expect("ticks again");
    }
}
