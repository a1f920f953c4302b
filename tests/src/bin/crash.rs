//! `./x crash`: real processes that die, and what may not be lost by it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use mortise_tests::crash::{self, Cycle, DiskWord, Totals};
use serde_json::json;

const AFTER_HELP: &str = "\
Examples:
  ./x crash                     20 deaths
  ./x crash --cycles 500        the total
  ./x crash --seed 7 --json     other deaths, for programs
  ./x crash --relay-only        for the relay's storage engine
  ./x crash --lying-disk        the control: fails, for acknowledged messages are lost

Exit codes: 0 nothing was lost; 1 something was, or does not start again; 2 wrong arguments.";

/// Kills relay and device at their storage calls, loses their unsynced writes, lets syncs fail and disks be full.
///
/// A relay and three people as real processes. After every ten deaths everybody's log is compared: what was
/// acknowledged is there, once, where it was; what was queued has arrived, once. The last line is `N passed, N failed`.
#[derive(Debug, Parser)]
#[command(name = "mortise-crash", after_help = AFTER_HELP)]
struct Arguments {
    /// How many deaths.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
    /// Who dies of what, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The control: a disk that lies about syncs loses power, which must be found.
    #[arg(long)]
    lying_disk: bool,
    /// Only the relay dies
    #[arg(long)]
    relay_only: bool,
    /// One JSON object per death and one for all, each on a line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut done = 0;
    let disk = match arguments.lying_disk {
        true => DiskWord::Lies,
        false => DiskWord::Honest,
    };
    let only = arguments.relay_only.then_some(crash::Victim::Relay);
    let result = crash::run(arguments.cycles, arguments.seed, disk, only, |cycle| {
        done = cycle.number;
        tell(&arguments, cycle)
    });
    match result.and_then(|totals| summarise(&arguments, &totals)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mortise-crash: {error:#}");
            eprintln!(
                "  next: ./x crash --seed {} --cycles {}",
                arguments.seed,
                done + 1
            );
            println!("{done} passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

fn tell(arguments: &Arguments, cycle: &Cycle) -> anyhow::Result<()> {
    let victim = format!("{:?}", cycle.victim).to_lowercase();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let line = json!({
            "event": "death", "cycle": cycle.number, "victim": victim, "fault": cycle.fault.name(),
            "call": cycle.call, "met": cycle.ended, "lost_writes": cycle.lost_writes,
        });
        writeln!(out, "{line}")?;
    } else {
        let met = if cycle.ended {
            ""
        } else {
            " (it lived on, and was killed)"
        };
        let (number, call, fault) = (cycle.number, cycle.call, cycle.fault.name());
        writeln!(
            out,
            "{number:>5}  {victim:<6}  call {call:>2}  {fault}{met}"
        )?;
    }
    Ok(())
}

fn summarise(arguments: &Arguments, totals: &Totals) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let [acknowledged, queued, refused, unknown] = totals.texts;
    if arguments.json {
        let faults: Vec<_> = totals
            .faults
            .iter()
            .map(|((victim, fault), count)| {
                json!({"victim": format!("{victim:?}").to_lowercase(), "fault": fault, "count": count})
            })
            .collect();
        let line = json!({
            "event": "total", "seed": arguments.seed, "cycles": arguments.cycles, "met": totals.met, "faults": faults,
            "lost_writes": totals.lost_writes, "acknowledged": acknowledged, "queued": queued, "refused": refused, "unknown": unknown,
            "looks": totals.looks, "failed": 0,
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out)?;
        for ((victim, fault), count) in &totals.faults {
            writeln!(
                out,
                "{count:>5}  {}: {fault}",
                format!("{victim:?}").to_lowercase()
            )?;
        }
        writeln!(
            out,
            "{} died of it; {} unsynced writes lost; {acknowledged} texts acknowledged, {queued} queued, {refused} refused, {unknown} of unknown fate; \
             everything compared {} times",
            totals.met, totals.lost_writes, totals.looks
        )?;
    }
    writeln!(out, "{} passed, 0 failed", arguments.cycles)?;
    Ok(())
}
