//! `recover`: how long a relay with many records takes from SIGKILL to its first answer.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use mortise_protocol::identity::{GroupId, decode};
use mortise_protocol::store::Reader as _;
use mortise_relay::core::layout::{GROUPS, GroupRecord};
use mortise_relay::store;
use serde_json::json;

use super::disk::Engine;
use super::ours::Ours;
use super::plan::Plan;
use super::system::System as _;
use crate::bench::{Goal, Progress, Report};

/// Devices of the organisation, and groups that the records are in.
const DEVICES: usize = 200;
/// Records in one batch while the store is filled.
const BATCH: usize = 20_000;

/// Fills a relay's store with this many records, loads it, kills it, and starts it again.
///
/// # Errors
/// When the relay does not start, or has lost something.
pub fn recover(
    records: u64,
    rounds: usize,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("mortise-bench-")
        .tempdir_in(std::env::current_dir()?)
        .context("make a directory")?;
    report.machine();
    report.note(format!(
        "the first {records} records were written through the relay's own store, not over the network; before each kill it is \
         under the load of `rooms`; the page cache of the system is warm"
    ));
    report.rounds(rounds as u64);
    let plan = Plan::rooms(10);
    let mut ours = Ours::start(dir.path(), DEVICES, "warn", progress)?;
    ours.connect(plan.connections())?;
    ours.join(&plan)?;
    let mut rest = ours.relay.halt()?;
    let database = rest.data().join("relay.db");
    fill(&database, records, progress)?;
    let bytes = std::fs::metadata(&database)?.len();
    let mut ready = Vec::new();
    for round in 0..rounds {
        progress.check()?;
        ours.relay = rest.start()?;
        ours.reconnect(&plan)?;
        ours.round(&plan)?;
        rest = ours.relay.crash();
        let start = Instant::now();
        let relay = rest.start()?;
        ready.push(start.elapsed().as_secs_f64());
        progress.say(&format!(
            "round {}: ready after {:.3} s",
            round + 1,
            start.elapsed().as_secs_f64()
        ));
        rest = relay.halt()?;
    }
    ready.sort_by(f64::total_cmp);
    let median = ready.get(ready.len() / 2).copied().unwrap_or(f64::NAN);
    report.row(
        "start after SIGKILL",
        vec![
            ("records", json!(records)),
            ("file_bytes", json!(bytes)),
            ("median_s", json!(median)),
            ("worst_s", json!(ready.last())),
        ],
    );
    report.goal("ready after SIGKILL", median, Goal::AtMost(1.0), "s");
    Ok(())
}

/// Appends to the groups that the store has, as the relay would.
pub(super) fn fill(database: &Path, records: u64, progress: &Progress) -> anyhow::Result<()> {
    let store = store::open(database)?;
    let mut heads = Vec::new();
    for (key, row) in store.range(GROUPS, b"", b"", usize::MAX)? {
        let (_, row) = row.split_first().context("an empty row")?;
        let head: GroupRecord = decode(row)?;
        let group = GroupId(key.as_slice().try_into()?);
        heads.push((group, head.org, head.head_seq.0));
    }
    let mut engine = Engine::over(store, heads);
    while engine.written() < records {
        progress.check()?;
        engine.append(BATCH)?;
        if engine.written().is_multiple_of(50 * BATCH as u64) {
            progress.say(&format!("{} records are stored", engine.written()));
        }
    }
    Ok(())
}
