//! `idle`: what a connection costs that is authenticated, subscribed and silent; and how fast they come.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::bare::Bare;
use super::ours::{DIALS, Ours};
use super::peers::Redis;
use super::plan::Plan;
use crate::bench::sample::resident_kib;
use crate::bench::{Goal, Progress, Report};

/// Devices of the organisation; each has as many connections as it takes.
const DEVICES: usize = 100;
/// How often a peer's memory is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long nothing is said.
const SILENCE: Duration = Duration::from_secs(20);

/// Opens this many connections, waits, and says what each has cost.
///
/// # Errors
/// When a connection fails.
pub fn idle(connections: usize, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    allow_files()?;
    let dir = tempfile::Builder::new()
        .prefix("mortise-bench-")
        .tempdir()
        .context("make a directory")?;
    report.machine();
    report.note(format!(
        "{connections} connections of {DEVICES} devices, each subscribed to one group of 50; every one has a socket of its own, \
         and keeps itself alive every 10 s; memory is what the server's process has resident beyond what it had before"
    ));
    let plan = quiet(connections);
    let mut ours = Ours::start(dir.path(), DEVICES, "warn", progress)?;
    let pid = ours.relay.pid();
    let before = resident_kib(pid)?;
    let started = ours.usage()?.cpu_ms;
    let took = ours.connect(connections)?;
    let handshakes_ms = ours.usage()?.cpu_ms - started;
    progress.say(&format!(
        "{connections} connections in {:.1} s",
        took.as_secs_f64()
    ));
    ours.join(&plan)?;
    let cpu_before = ours.usage()?.cpu_ms;
    ours.stay_idle(SILENCE)?;
    let cpu_ms = ours.usage()?.cpu_ms - cpu_before;
    let each = per(resident_kib(pid)?.saturating_sub(before), connections);
    report.row(
        "mortise",
        vec![
            ("memory_kib", json!(each)),
            (
                "cpu_us_per_connection_and_s",
                json!(per(cpu_ms * 1_000, connections) / SILENCE.as_secs_f64()),
            ),
            (
                "handshakes_per_s",
                json!((per(connections as u64, 1) / took.as_secs_f64()).round()),
            ),
            (
                "relay_cpu_per_handshake_us",
                json!(per(handshakes_ms * 1_000, connections)),
            ),
        ],
    );
    drop(ours);
    let bare = Bare::start()?;
    let plain = bare.handshakes(connections, DIALS)?;
    bare.stop();
    progress.say(&format!(
        "{connections} plain handshakes in {:.1} s",
        plain.as_secs_f64()
    ));
    report.goal(
        "connect rate against plain QUIC handshakes",
        plain.as_secs_f64() / took.as_secs_f64(),
        Goal::AtLeast(0.8),
        "x",
    );
    match redis(dir.path(), &plan) {
        Ok(theirs) => {
            report.row("redis-tls", vec![("memory_kib", json!(theirs))]);
            report.goal(
                "memory against redis-tls",
                each / theirs,
                Goal::AtMost(1.0),
                "x",
            );
        }
        Err(error) => report.note(format!("without Redis: {error:#}")),
    }
    Ok(())
}

/// Groups of 50, in which nobody speaks.
fn quiet(connections: usize) -> Plan {
    let all: Vec<usize> = (0..connections).collect();
    Plan {
        groups: all.chunks(50).map(<[usize]>::to_vec).collect(),
        senders: Vec::new(),
        in_flight: 0,
        messages: 0,
    }
}

fn redis(dir: &std::path::Path, plan: &Plan) -> anyhow::Result<f64> {
    let nobody = Plan {
        groups: Vec::new(),
        ..plan.clone()
    };
    let empty = Redis::start(&dir.join("empty"), true, &nobody)?;
    let before = resident_kib(empty.pid())?;
    drop(empty);
    let full = Redis::start(dir, true, plan)?;
    let until = Instant::now() + SILENCE;
    let mut after = resident_kib(full.pid())?;
    while Instant::now() < until {
        after = after.max(resident_kib(full.pid())?);
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(per(after.saturating_sub(before), plan.connections()))
}

#[allow(clippy::cast_precision_loss)]
fn per(all: u64, count: usize) -> f64 {
    all as f64 / count as f64
}

/// Every connection is a socket, and an endpoint's driver beside it.
pub(super) fn allow_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("allow more open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_in_one_group() {
        let plan = quiet(120);
        assert_eq!((plan.groups.len(), plan.connections()), (3, 120));
        assert!((0..120).all(|connection| plan.groups_of(connection).len() == 1));
    }
}
