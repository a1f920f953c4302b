//! Benches: what the product costs, on real parts, with a time limit for everything.
//!
//! A bench has a name, is run with a [`Report`] to fill, and the report is printed as a table or as one line of
//! JSON. This module must never fake a part of what it says it measures: what is made by a short cut is in the notes.

pub mod large;
pub mod mls;
pub mod offboard;
pub(crate) mod organisation;
pub mod relay;
pub mod report;
pub mod sample;
pub mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

pub use report::{Goal, Report};

/// Tells how far a bench is, on standard error, and whether it is to go on.
#[derive(Clone, Debug)]
pub struct Progress {
    start: Instant,
    is_silent: bool,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    /// Says something, with the seconds since the start.
    pub fn say(&self, what: &str) {
        if !self.is_silent {
            eprintln!("{:7.1} s  {what}", self.start.elapsed().as_secs_f64());
        }
    }

    /// Whether the bench was asked to end, so that it ends what it has started.
    ///
    /// # Errors
    /// When it was.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    fn new() -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("start a runtime")?;
        let signals = runtime.block_on(async {
            anyhow::Ok((
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ))
        });
        let (mut interrupt, mut terminate) = signals.context("listen for signals")?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self {
            start: Instant::now(),
            is_silent: false,
            interrupted,
        })
    }

    /// Of something that is no bench: it says nothing and is not interrupted.
    pub(crate) fn silent() -> Self {
        Self {
            start: Instant::now(),
            is_silent: true,
            interrupted: Arc::default(),
        }
    }
}

/// Runs a bench and prints its report; what it measured before it failed is printed too.
///
/// # Errors
/// When it cannot be run at all.
pub fn run(
    name: &'static str,
    json: bool,
    measure: impl FnOnce(&Progress, &mut Report) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let progress = Progress::new()?;
    let mut report = Report::new(name);
    if let Err(error) = measure(&progress, &mut report) {
        report.fail(format!("{error:#}"));
    }
    report.took(progress.start.elapsed());
    report.print(json);
    Ok(if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
