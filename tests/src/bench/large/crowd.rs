//! The worker processes: started, asked, ended. None outlives its handle.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};

use super::Options;
use crate::bench::worker::{Ask, Reply, SeenDevice, What};

/// How many devices a process has: as equal as it goes.
pub(super) fn size_of(options: &Options, process: usize) -> usize {
    let (each, more) = (
        options.members / options.processes,
        options.members % options.processes,
    );
    each + usize::from(process < more)
}

/// One worker process. Dropping it kills it.
#[derive(Debug)]
struct Worker {
    child: Child,
    asks: ChildStdin,
    replies: BufReader<ChildStdout>,
    first: usize,
    count: usize,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    fn start(dir: &Path, first: usize, count: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("find this program")?)
            .arg("worker")
            .arg("--dir")
            .arg(dir)
            .args(["--first", &first.to_string(), "--count", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a worker")?;
        let asks = child.stdin.take().context("no stdin")?;
        let replies = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self {
            child,
            asks,
            replies,
            first,
            count,
        })
    }

    fn ask(&mut self, ask: &Ask) -> anyhow::Result<()> {
        writeln!(self.asks, "{}", serde_json::to_string(ask)?).context("ask a worker")
    }

    fn reply(&mut self) -> anyhow::Result<Reply> {
        let mut line = String::new();
        self.replies.read_line(&mut line).context("hear a worker")?;
        anyhow::ensure!(!line.is_empty(), "a worker has ended");
        match serde_json::from_str(&line)? {
            Reply::Failed { why } => bail!("a worker could not: {why}"),
            reply => Ok(reply),
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Crowd {
    workers: Vec<Worker>,
}

impl Crowd {
    /// Starts them; no device is online yet.
    ///
    /// # Errors
    /// When one does not start.
    pub(super) fn start(options: &Options, dir: &Path) -> anyhow::Result<Self> {
        let mut first = 0;
        let mut workers = Vec::new();
        for process in 0..options.processes {
            let count = size_of(options, process);
            workers.push(Worker::start(dir, first, count)?);
            first += count;
        }
        Ok(Self { workers })
    }

    /// Their process ids.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().map(|w| w.child.id())
    }

    /// The first device of each process.
    pub(super) fn firsts(&self) -> impl Iterator<Item = usize> {
        self.workers.iter().map(|w| w.first)
    }

    /// The last device of each process.
    pub(super) fn lasts(&self) -> impl Iterator<Item = usize> {
        self.workers.iter().map(|w| w.first + w.count - 1)
    }

    fn worker_of(&mut self, device: usize) -> anyhow::Result<&mut Worker> {
        self.workers
            .iter_mut()
            .find(|w| (w.first..w.first + w.count).contains(&device))
            .context("no such device")
    }

    /// Asks the worker that has the device.
    ///
    /// # Errors
    /// When the worker cannot, or is gone.
    pub(super) fn ask(&mut self, device: usize, ask: &Ask) -> anyhow::Result<Reply> {
        let worker = self.worker_of(device)?;
        worker.ask(ask)?;
        worker.reply()
    }

    /// Has a device do something; what comes of it is seen later.
    ///
    /// # Errors
    /// As [`Crowd::ask`].
    pub(super) fn have(&mut self, device: usize, what: What) -> anyhow::Result<()> {
        self.ask(device, &Ask::Do { device, what }).map(|_| ())
    }

    /// Asks all workers at once; the replies by worker.
    ///
    /// # Errors
    /// As [`Crowd::ask`].
    pub(super) fn ask_all(&mut self, ask: &Ask) -> anyhow::Result<Vec<Reply>> {
        for worker in &mut self.workers {
            worker.ask(ask)?;
        }
        self.workers.iter_mut().map(Worker::reply).collect()
    }

    /// What every device has seen, by number; records of the log after this position.
    ///
    /// # Errors
    /// As [`Crowd::ask`].
    pub(super) fn look(&mut self, after: u64) -> anyhow::Result<Vec<SeenDevice>> {
        let mut all = Vec::new();
        for reply in self.ask_all(&Ask::Look { after })? {
            let Reply::Look { devices } = reply else {
                bail!("a worker gave another answer");
            };
            all.extend(devices);
        }
        Ok(all)
    }
}
