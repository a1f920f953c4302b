//! `./x cluster`: three relay nodes over PostgreSQL and NATS, while all of it breaks, told by the clients' history.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mortise_relay::{Relay, RelayConfig};
use mortise_tests::cluster::{self, Outcome, Programs};
use mortise_tests::demo::Binaries;
use serde_json::json;

const AFTER_HELP: &str = "\
Examples:
  ./x cluster --runs 3             three seeds
  ./x cluster --seed 4711          what this seed decides, once more
  ./x cluster --plant --runs 5     without the lane that keeps the fence, to see the checker notice

Exit codes: 0 every run kept every promise; 1 one did not; 2 wrong arguments.";

/// Runs seeded histories of a relay of three nodes and checks them.
///
/// Real processes: three relays, PostgreSQL with a synchronous standby, nats-server. Nodes are killed, NATS is stopped,
/// PostgreSQL is restarted at once and failed over, nodes and database are parted. The last line is `N passed, N failed`.
#[derive(Debug, Parser)]
#[command(name = "mortise-cluster", after_help = AFTER_HELP)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 3)]
    runs: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
    let mut failed = 0;
    let last = arguments.seed + arguments.runs;
    for seed in arguments.seed..last {
        let start = Instant::now();
        let outcome = cluster::run(seed, &programs);
        let took = start.elapsed().as_secs_f64();
        failed += u64::from(!passed(&outcome));
        say(&describe(seed, &outcome, took, arguments.json))?;
    }
    let passed = arguments.runs - failed;
    say(&if arguments.json {
        json!({ "passed": passed, "failed": failed }).to_string()
    } else {
        format!("{passed} passed, {failed} failed")
    })?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn passed(outcome: &anyhow::Result<Outcome>) -> bool {
    outcome
        .as_ref()
        .is_ok_and(|outcome| outcome.checked.is_ok())
}

fn describe(seed: u64, outcome: &anyhow::Result<Outcome>, took: f64, as_json: bool) -> String {
    let fault = match outcome {
        Ok(outcome) => outcome.checked.as_ref().err().map(ToString::to_string),
        Err(error) => Some(format!("{error:#}")),
    };
    let tally = outcome
        .as_ref()
        .ok()
        .and_then(|outcome| outcome.checked.as_ref().ok());
    let blows = outcome
        .as_ref()
        .map(|outcome| outcome.blows.clone())
        .unwrap_or_default();
    if as_json {
        return json!({
            "seed": seed, "passed": fault.is_none(), "fault": fault, "seconds": took, "blows": blows,
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
             removed, {} behind an order; {took:.0} s; {blows:?}",
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
