//! `./x sim`: seeds of the simulated world, held against the reference model.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use mortise_tests::sim::plants::Plant;
use mortise_tests::sim::{self, Options, Outcome};

/// Seeds up to which each gets a line of its own.
const FEW: u64 = 50;
/// Of more, every so many.
const EVERY: u64 = 100;

const AFTER_HELP: &str = "\
Examples:
  ./x sim                          24 seeds
  ./x sim --seeds 2000             the daily run
  ./x sim --from 1 --seconds 3600  as many seeds as fit into an hour
  ./x sim --seed 4711              one seed again, and all that happens in it
  ./x sim --plant LiarHidesOrder   a planted bug, to see it caught

Exit codes: 0 every seed has passed; 1 a seed has failed; 2 wrong arguments.";

/// Runs seeds of the simulated world and holds each against the reference model.
///
/// A seed decides who talks, who sleeps, who is removed, and what fails: frames, connections, timers, clocks, disks,
/// the relay. The last line of the output is `N passed, N failed`.
#[derive(Debug, Parser)]
#[command(name = "mortise-sim", after_help = AFTER_HELP)]
struct Arguments {
    /// How many seeds to run: 24, or as many as the time allows.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Begins no further seed after this time.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Replays one seed and prints what happens in it.
    #[arg(long, conflicts_with_all = ["seeds", "from", "seconds"])]
    seed: Option<u64>,
    /// The ciphersuite, 0x0001 or 0x004F; by default every fourth seed is hybrid.
    #[arg(long, value_parser = parse_suite)]
    suite: Option<u16>,
    /// One JSON object per seed and one for all, each on a line of stdout.
    #[arg(long)]
    json: bool,
    /// Prints every frame of this person, by number, on stderr.
    #[arg(long)]
    watch: Option<usize>,
    /// Plants a bug, by its name in `sim::plants`, to see it caught.
    #[arg(long, value_parser = parse_plant)]
    plant: Option<Plant>,
    /// Seeds at the same time; by default one per processor.
    #[arg(long, alias = "threads", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

impl Arguments {
    fn seeds(&self) -> std::ops::RangeInclusive<u64> {
        const DEFAULT: u64 = 24;
        let count = self.seeds.unwrap_or(match self.seconds {
            Some(_) => u64::MAX,
            None => DEFAULT,
        });
        match self.seed {
            Some(seed) => seed..=seed,
            None => self.from..=self.from.saturating_add(count - 1),
        }
    }

    fn workers(&self) -> usize {
        match self.workers {
            Some(workers) => usize::from(workers),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

fn parse_suite(text: &str) -> Result<u16, String> {
    match text.to_ascii_lowercase().as_str() {
        "0x0001" | "1" => Ok(mortise_protocol::group::SUITE_CLASSICAL),
        "0x004f" | "79" => Ok(mortise_protocol::group::SUITE_HYBRID),
        _ => Err("0x0001 or 0x004F".into()),
    }
}

fn parse_plant(text: &str) -> Result<Plant, String> {
    let found = Plant::ALL.into_iter().find(|p| format!("{p:?}") == text);
    found.ok_or_else(|| format!("one of {:?}", Plant::ALL))
}

/// What all seeds together have covered.
#[derive(Default)]
struct Totals {
    passed: u64,
    failed: u64,
    counts: BTreeMap<&'static str, u64>,
    failed_calls: BTreeSet<u64>,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        match &outcome.broken {
            None => self.passed += 1,
            Some(_) => self.failed += 1,
        }
        for (kind, count) in &outcome.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.failed_calls.extend(&outcome.failed_calls);
    }

    fn seeds(&self) -> u64 {
        self.passed + self.failed
    }

    fn rate(&self, began: Instant) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let seeds = self.seeds() as f64;
        seeds / began.elapsed().as_secs_f64().max(0.001)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        suite: arguments.suite,
        plant: arguments.plant,
        verbose: arguments.seed.is_some(),
        watch: arguments.watch,
    };
    let seeds = arguments.seeds();
    let few = seeds.end() - seeds.start() < FEW;
    let next = AtomicU64::new(*seeds.start());
    let totals = Mutex::new(Totals::default());
    let began = Instant::now();
    let is_late = || {
        let limit = arguments.seconds.map(Duration::from_secs);
        limit.is_some_and(|limit| began.elapsed() >= limit)
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.workers() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) || is_late() {
                        return;
                    }
                    let outcome = sim::run(seed, options);
                    let mut totals = totals.lock().unwrap_or_else(|e| e.into_inner());
                    totals.add(&outcome);
                    if arguments.json {
                        say_json(&outcome);
                    } else {
                        say(&outcome, &totals, few, began);
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(|e| e.into_inner());
    conclude(&totals, began, arguments.json)
}

fn replay(outcome: &Outcome) -> String {
    format!("./x sim --seed {}", outcome.seed)
}

fn say_json(outcome: &Outcome) {
    let line = serde_json::json!({
        "event": "seed",
        "seed": outcome.seed,
        "suite": format!("{:#06X}", outcome.suite).replace("0X", "0x"),
        "pass": outcome.broken.is_none(),
        "rule": outcome.broken.as_ref().map(|b| b.rule),
        "detail": outcome.broken.as_ref().map(|b| b.detail.clone()),
        "last_lines": outcome.last_lines,
        "replay": replay(outcome),
        "steps": outcome.steps,
        "trace": format!("{:016x}", outcome.trace),
        "ms": u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
        "counts": outcome.counts,
    });
    print_line(&line.to_string());
}

fn say(outcome: &Outcome, totals: &Totals, few: bool, began: Instant) {
    let seed = outcome.seed;
    match &outcome.broken {
        Some(broken) => {
            let story = outcome.last_lines.join("\n    ");
            print_line(&format!(
                "seed {seed} FAILED after {} steps: {broken}\n    {story}\n    replay: {}",
                outcome.steps,
                replay(outcome)
            ));
        }
        None if few => print_line(&format!(
            "seed {seed} ok: suite {:#06x}, {} steps, schedule {:016x}, {:.1} s",
            outcome.suite,
            outcome.steps,
            outcome.trace,
            outcome.took.as_secs_f64()
        )),
        None if totals.seeds().is_multiple_of(EVERY) => print_line(&format!(
            "{} seeds, {} failed, {:.2} seeds per second",
            totals.seeds(),
            totals.failed,
            totals.rate(began)
        )),
        None => {}
    }
}

fn print_line(line: &str) {
    // A closed pipe is no failure of the simulation.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn conclude(totals: &Totals, began: Instant, json: bool) -> ExitCode {
    let (rate, calls) = (totals.rate(began), totals.failed_calls.len());
    let (passed, failed) = (totals.passed, totals.failed);
    if json {
        let line = serde_json::json!({
            "event": "result",
            "passed": passed,
            "failed": failed,
            "seconds": began.elapsed().as_secs_f64(),
            "seeds_per_second": rate,
            "failed_store_calls": calls,
            "planned_store_calls": sim::PLANNED_CALLS,
            "counts": totals.counts,
        });
        print_line(&line.to_string());
    } else {
        let covered = totals.counts.iter().map(|(k, n)| format!("{k} {n}"));
        let covered: Vec<_> = covered.collect();
        let seconds = began.elapsed().as_secs_f64();
        let planned = sim::PLANNED_CALLS;
        print_line(&format!("coverage: {}", covered.join(", ")));
        print_line(&format!(
            "store calls that have failed: {calls} of {planned}"
        ));
        print_line(&format!("{rate:.2} seeds per second, {seconds:.0} s"));
        print_line(&format!("{passed} passed, {failed} failed"));
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
