//! A large group in real processes: what it costs to create it, to talk in it, and to remove somebody from it.
//!
//! One relay (the binary), worker processes of many devices each, every device a real engine on the client's own
//! driver with a SQLCipher store of its own, all over QUIC on the loopback. The organisation is made by a short cut
//! (see `fixture`); a few devices join by real invitations, which are measured.

mod crowd;
mod fixture;
mod phases;
mod wire;

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Progress, Report};
use crate::demo::Binaries;
use crate::demo::relay::RelayProcess;

use crowd::Crowd;
use fixture::Organisation;
use phases::Bench;

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Devices in the group, each of a user of its own.
    pub members: usize,
    /// Worker processes that share them.
    pub processes: usize,
    /// The MLS ciphersuite.
    pub suite: u16,
    /// Messages that each process sends, one after the other.
    pub messages: usize,
    /// How long the group is left alone to warm its tree.
    pub warm: Duration,
    /// Devices of one process that come online at a time.
    pub at_once: usize,
    /// How long all of it may take; each phase at most half of that.
    pub limit: Duration,
    /// Leaves all files where they are.
    pub keep: bool,
}

/// What the relay logs: nothing that costs time.
const LOG_FILTER: &str = "warn";

/// Measures everything, one phase after the other.
///
/// # Errors
/// When a phase fails, or takes too long; what was measured before is in the report.
pub fn measure(options: &Options, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    let until = Instant::now() + options.limit;
    let binaries = Binaries::beside_this_program()?;
    let dir = tempfile::Builder::new()
        .prefix("mortise-bench-")
        .tempdir()
        .context("make a directory")?;
    let base = if options.keep {
        dir.keep()
    } else {
        dir.path().to_owned()
    };
    if options.keep {
        progress.say(&format!("files stay in {}", base.display()));
    }
    notes(options, report);
    let relay = RelayProcess::start_logging(&binaries.relay, &base, LOG_FILTER)?;
    let organisation = Organisation::make(options, &relay, progress)?;
    organisation.write(&base)?;
    let crowd = Crowd::start(options, &base)?;
    let mut bench = Bench {
        options,
        progress,
        report,
        organisation,
        crowd,
        relay_pid: relay.pid(),
        wire: wire::Wire::new(&base.join("relay")),
        until,
    };
    bench.run()?;
    drop(bench);
    // Everybody has gone; it has nothing to wait for.
    relay.stop()?;
    Ok(())
}

fn notes(options: &Options, report: &mut Report) {
    let Options {
        members,
        processes,
        suite,
        ..
    } = options;
    report.note(format!(
        "{members} devices, each of its own user, in {processes} processes; one relay; suite {suite:#06x}; all on this machine, over QUIC on the loopback"
    ));
    report.note(format!(
        "{} processors, shared with whatever else runs here; load average {} at the start",
        std::thread::available_parallelism().map_or(1, usize::from),
        std::fs::read_to_string("/proc/loadavg")
            .unwrap_or_default()
            .trim()
    ));
    report.note(
        "short cut: all devices but one per process were admitted by entries that the bench signed itself \
         (no Argon2id, no link), and have the directory key from the start",
    );
    report.note(
        "each device has a SQLCipher file of its own with synchronous=FULL, opened with a raw key (no passphrase hashed)",
    );
    report.note("times are from the command to the event that a device shows its user");
    report.note(if cfg!(debug_assertions) {
        "built with the dev profile: Mortise's own crates at opt-level 1, cryptography, MLS and SQLite at 3"
    } else {
        "built with the release profile"
    });
}
