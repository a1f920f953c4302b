//! `./x cluster`: three relay nodes over PostgreSQL and NATS, while all of it breaks, told by the clients' history.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mortise_relay::{Relay, RelayConfig};
use mortise_tests::cluster::{self, Outcome, Programs, RunError, Sky};
use mortise_tests::demo::Binaries;
use serde_json::json;

const AFTER_HELP: &str = "\
Examples:
  ./x cluster --runs 3             three seeds
  ./x cluster --seed 4711          what this seed decides, once more
  ./x cluster --plant --runs 5     without the lane that keeps the fence, to see the checker notice

Exit codes: 0 every run kept every promise; 1 one did not, or did not begin; 2 wrong arguments.";

/// How often a run that does not begin is tried.
const TRIES: usize = 3;

/// Runs seeded histories of a relay of three nodes and checks them.
///
/// Real processes: three relays, PostgreSQL with a synchronous standby, nats-server. Nodes are killed, NATS is stopped,
/// PostgreSQL is restarted at once and failed over, nodes and database are parted. The last line is `N passed, N failed`,
/// and how many did not begin, if any: their servers did not start, three times over.
#[derive(Debug, Parser)]
#[command(name = "mortise-cluster", after_help = AFTER_HELP)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 3)]
    runs: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many runs at a time, each with servers of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    workers: u64,
    /// One JSON object per run and one for all, each on a line of stdout.
    #[arg(long)]
    json: bool,
    /// Nodes append without the lane that keeps the fence: the checker must notice.
    #[arg(long)]
    plant: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A relay with the planted fault; started by this program itself
    #[command(hide = true)]
    Node {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Command::Node { data, .. }) = arguments.command {
        serve(data)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(why) = cluster::missing() {
        anyhow::bail!("{why}");
    }
    let programs = Programs {
        relay: Binaries::beside_this_program()?.relay,
        planted: match arguments.plant {
            true => Some(std::env::current_exe().context("find this program")?),
            false => None,
        },
    };
    let tally = run_all(&arguments, &programs)?;
    say(&tally.describe(arguments.json))?;
    Ok(if tally.passed == arguments.runs {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

type Ran = Result<Outcome, RunError>;

/// How the runs ended.
#[derive(Debug, Default)]
struct Ends {
    passed: u64,
    failed: u64,
    not_begun: u64,
}

impl Ends {
    fn count(&mut self, ran: &Ran) {
        match ran {
            Ok(outcome) if outcome.checked.is_ok() => self.passed += 1,
            Ok(_) | Err(RunError::Broken(_)) => self.failed += 1,
            Err(RunError::NotBegun(_)) => self.not_begun += 1,
        }
    }

    fn describe(&self, as_json: bool) -> String {
        let (passed, failed, not_begun) = (self.passed, self.failed, self.not_begun);
        match (as_json, not_begun) {
            (true, _) => {
                json!({ "passed": passed, "failed": failed, "not_begun": not_begun }).to_string()
            }
            (false, 0) => format!("{passed} passed, {failed} failed"),
            (false, _) => format!("{passed} passed, {failed} failed, {not_begun} did not begin"),
        }
    }
}

/// Runs the seeds in order, some at a time, and tells of each as it ends.
fn run_all(arguments: &Arguments, programs: &Programs) -> anyhow::Result<Ends> {
    let sky = if arguments.plant {
        Sky::AtCommits
    } else {
        Sky::Everything
    };
    let next = AtomicU64::new(arguments.seed);
    let last = arguments.seed + arguments.runs;
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for _ in 0..arguments.workers {
            let (next, tell) = (&next, tell.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    let start = Instant::now();
                    let ran = run_patiently(seed, programs, sky);
                    if tell.send((seed, ran, start.elapsed())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let mut ends = Ends::default();
        for (seed, ran, took) in told {
            ends.count(&ran);
            say(&describe(seed, &ran, took.as_secs_f64(), arguments.json))?;
        }
        Ok(ends)
    })
}

/// What did not begin has shown nothing, and is tried again.
fn run_patiently(seed: u64, programs: &Programs, sky: Sky) -> Ran {
    let mut ran = cluster::run(seed, programs, sky);
    for _ in 1..TRIES {
        if !matches!(ran, Err(RunError::NotBegun(_))) {
            break;
        }
        ran = cluster::run(seed, programs, sky);
    }
    ran
}

fn describe(seed: u64, outcome: &Ran, took: f64, as_json: bool) -> String {
    let fault = match outcome {
        Ok(outcome) => outcome.checked.as_ref().err().map(ToString::to_string),
        Err(error) => Some(error.to_string()),
    };
    let tally = outcome
        .as_ref()
        .ok()
        .and_then(|outcome| outcome.checked.as_ref().ok());
    let blows = outcome
        .as_ref()
        .map(|outcome| outcome.blows.clone())
        .unwrap_or_default();
    let parts = outcome.as_ref().map(|outcome| outcome.took);
    let [prepared, weather, rested, _] = parts.unwrap_or_default();
    if as_json {
        return json!({
            "seed": seed, "begun": !matches!(outcome, Err(RunError::NotBegun(_))), "passed": fault.is_none(), "fault": fault, "seconds": took, "blows": blows,
            "calls": tally.map(|t| t.calls), "unanswered": tally.map(|t| t.unanswered),
            "appends": tally.map(|t| t.appends), "commits": tally.map(|t| t.commits),
            "orders": tally.map(|t| t.orders), "delivered": tally.map(|t| t.delivered),
            "refused_removed": tally.map(|t| t.refused_removed),
            "refused_behind": tally.map(|t| t.refused_behind),
        })
        .to_string();
    }
    match (fault, tally) {
        (Some(fault), _) => format!("seed {seed}: FAILED: {fault} ({blows:?})"),
        (None, Some(t)) => format!(
            "seed {seed}: {} records, {} commits, {} orders, {} delivered, {} without an answer, {} refused to the \
             removed, {} behind an order; {took:.1} s ({prepared:.1} to begin, {weather:.1} weather, {rested:.1} to \
             rest); {blows:?}",
            t.appends,
            t.commits,
            t.orders,
            t.delivered,
            t.unanswered,
            t.refused_removed,
            t.refused_behind
        ),
        (None, None) => format!("seed {seed}: nothing"),
    }
}

/// A node as `mortise-relay run` would be, but for the fault.
fn serve(data: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut config = RelayConfig::new(data);
        config.dangerous_without_lane = true;
        let relay = Relay::start(config).await?;
        say(
            &json!({ "event": "listening", "address": relay.local_addr().to_string() }).to_string(),
        )?;
        relay.stopped().await;
        Ok(())
    })
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
