//! `catchup-relay`: one reader that pulls a long log, and many that come back at once after a restart.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;

use super::bare::Bare;
use super::idle::allow_files;
use super::ours::Ours;
use super::plan::{Plan, RECORD_BYTES};
use super::recover::fill;
use crate::bench::{Goal, Progress, Report};

/// Devices that come back at once.
const READERS: usize = 500;
/// Readers of one group.
const IN_GROUP: usize = 50;

/// Fills one group's log, lets one reader pull it, beside plain QUIC; then lets many reconnect after a restart.
///
/// # Errors
/// When the relay does not start, or has lost something.
pub fn catchup(
    records: u64,
    rounds: usize,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    allow_files()?;
    let dir = tempfile::Builder::new()
        .prefix("mortise-bench-")
        .tempdir_in(std::env::current_dir()?)
        .context("make a directory")?;
    report.machine();
    report.rounds(rounds as u64);
    report.note(format!(
        "the {records} records of {RECORD_BYTES} bytes were written through the relay's own store; the reader asks page by page (1 MiB), as a \
         device does, and looks at every record; plain QUIC: one stream of as many bytes, same TLS, quinn's default transport"
    ));
    pull(&dir.path().join("pull"), records, rounds, progress, report)?;
    storm(&dir.path().join("storm"), rounds, progress, report)
}

#[allow(clippy::cast_precision_loss)]
fn pull(
    dir: &Path,
    records: u64,
    rounds: usize,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let plan = Plan {
        groups: vec![vec![0]],
        senders: Vec::new(),
        in_flight: 0,
        messages: 0,
    };
    let mut ours = Ours::start(dir, 1, "warn", progress)?;
    ours.connect(1)?;
    ours.join(&plan)?;
    let rest = ours.relay.halt()?;
    fill(&rest.data().join("relay.db"), records, progress)?;
    ours.relay = rest.start()?;
    let bytes = records * RECORD_BYTES as u64;
    let (mut rates, mut shares) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        progress.check()?;
        let bare = || -> anyhow::Result<f64> {
            let bare = Bare::start()?;
            let rate = bare.bulk(1, bytes)?;
            bare.stop();
            Ok(rate)
        };
        let mut pulled = || -> anyhow::Result<f64> {
            ours.dial_again(1)?;
            let took = ours.pull(0, records)?;
            Ok(bytes as f64 / took.as_secs_f64())
        };
        let (rate, plain) = if round % 2 == 0 {
            let rate = pulled()?;
            (rate, bare()?)
        } else {
            let plain = bare()?;
            (pulled()?, plain)
        };
        progress.say(&format!(
            "round {}: {:.0} of {:.0} MB/s",
            round + 1,
            rate / 1e6,
            plain / 1e6
        ));
        rates.push(rate / 1e6);
        shares.push(rate / plain);
    }
    rates.sort_by(f64::total_cmp);
    shares.sort_by(f64::total_cmp);
    let middle = shares.get(shares.len() / 2).copied().unwrap_or(f64::NAN);
    report.row(
        "one reader",
        vec![
            ("records", json!(records)),
            ("median_mb_per_s", json!(rates.get(rates.len() / 2))),
            ("share_of_plain_quic", json!(middle)),
            ("worst_share", json!(shares.first())),
        ],
    );
    report.goal(
        "one reader, of plain QUIC bulk",
        middle,
        Goal::AtLeast(0.5),
        "x",
    );
    Ok(())
}

fn storm(
    dir: &Path,
    rounds: usize,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let all: Vec<usize> = (0..READERS).collect();
    let plan = Plan {
        groups: all.chunks(IN_GROUP).map(<[usize]>::to_vec).collect(),
        senders: (0..READERS / IN_GROUP)
            .map(|group| (group * IN_GROUP, group))
            .collect(),
        in_flight: 1,
        messages: 1,
    };
    let mut ours = Ours::start(dir, READERS, "warn", progress)?;
    ours.connect(READERS)?;
    ours.join(&plan)?;
    let mut took = Vec::new();
    for round in 0..rounds {
        progress.check()?;
        let rest = ours.relay.crash();
        ours.relay = rest.start()?;
        let start = Instant::now();
        ours.come_back(&plan)?;
        // Live: what one member of each group says is heard by all.
        super::system::System::round(&mut ours, &plan)?;
        took.push(start.elapsed().as_secs_f64());
        progress.say(&format!(
            "round {}: {READERS} live after {:.2} s",
            round + 1,
            start.elapsed().as_secs_f64()
        ));
    }
    took.sort_by(f64::total_cmp);
    let median = took.get(took.len() / 2).copied().unwrap_or(f64::NAN);
    report.row(
        "readers that come back at once",
        vec![
            ("readers", json!(READERS)),
            ("median_s", json!(median)),
            ("worst_s", json!(took.last())),
        ],
    );
    report.goal(
        "500 readers live after a restart",
        median,
        Goal::AtMost(3.0),
        "s",
    );
    Ok(())
}
