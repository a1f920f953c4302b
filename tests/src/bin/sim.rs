//! `./x sim`: seeds of the simulated world, held against the reference model.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use mortise_tests::sim::plants::Plant;
use mortise_tests::sim::{self, Options, Outcome};

/// Runs seeds of the simulated world and holds each against the reference model.
#[derive(Debug, Parser)]
#[command(name = "mortise-sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Replays one seed and prints what happens in it.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// The ciphersuite, 0x0001 or 0x004F; by default every fourth seed is hybrid.
    #[arg(long, value_parser = parse_suite)]
    suite: Option<u16>,
    /// One JSON object per line on stdout.
    #[arg(long)]
    json: bool,
    /// Prints every frame of this person, by number, on stderr.
    #[arg(long)]
    watch: Option<usize>,
    /// Plants a bug, by its name in `sim::plants`, to see it caught.
    #[arg(long, value_parser = parse_plant)]
    plant: Option<Plant>,
    /// Seeds at the same time; by default one per processor.
    #[arg(long)]
    threads: Option<usize>,
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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        suite: arguments.suite,
        plant: arguments.plant,
        verbose: arguments.seed.is_some(),
        watch: arguments.watch,
    };
    let seeds = match arguments.seed {
        Some(seed) => seed..=seed,
        None => arguments.from..=arguments.from.saturating_add(arguments.seeds - 1),
    };
    let threads = arguments
        .threads
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let next = AtomicU64::new(*seeds.start());
    let totals = Mutex::new(Totals::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let outcome = run_one(seed, options);
                    report(&outcome, &totals, arguments.json);
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(|e| e.into_inner());
    conclude(&totals, began.elapsed().as_secs_f64(), arguments.json)
}

/// A panic is a failure of its seed, not of the run.
fn run_one(seed: u64, options: Options) -> Outcome {
    std::panic::catch_unwind(|| sim::run(seed, options)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Outcome::panicked(seed, options, text.unwrap_or_default())
    })
}

fn report(outcome: &Outcome, totals: &Mutex<Totals>, json: bool) {
    let mut totals = totals.lock().unwrap_or_else(|e| e.into_inner());
    let out = &mut std::io::stdout().lock();
    match &outcome.broken {
        None => totals.passed += 1,
        Some(_) => totals.failed += 1,
    }
    for (kind, count) in &outcome.counts {
        *totals.counts.entry(kind).or_default() += count;
    }
    let replay = format!("./x sim --seed {}", outcome.seed);
    // A closed pipe is no failure of the simulation.
    let _ = if json {
        let line = serde_json::json!({
            "event": "seed",
            "seed": outcome.seed,
            "suite": format!("{:#06X}", outcome.suite).replace("0X", "0x"),
            "pass": outcome.broken.is_none(),
            "rule": outcome.broken.as_ref().map(|b| b.rule),
            "detail": outcome.broken.as_ref().map(|b| b.detail.clone()),
            "replay": replay,
            "steps": outcome.steps,
            "trace": format!("{:016x}", outcome.trace),
            "ms": u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            "counts": outcome.counts,
        });
        writeln!(out, "{line}")
    } else {
        match &outcome.broken {
            None => writeln!(
                out,
                "seed {} ok: suite {:#06x}, {} steps, schedule {:016x}, {:.1} s",
                outcome.seed,
                outcome.suite,
                outcome.steps,
                outcome.trace,
                outcome.took.as_secs_f64()
            ),
            Some(broken) => writeln!(
                out,
                "seed {} FAILED after {} steps: {broken}\n    replay: {replay}",
                outcome.seed, outcome.steps
            ),
        }
    };
}

fn conclude(totals: &Totals, seconds: f64, json: bool) -> ExitCode {
    let Totals {
        passed,
        failed,
        counts,
    } = totals;
    let seeds = passed + failed;
    #[allow(clippy::cast_precision_loss)]
    let rate = seeds as f64 / seconds.max(0.001);
    let out = &mut std::io::stdout().lock();
    let _ = if json {
        let line = serde_json::json!({
            "event": "result",
            "passed": passed,
            "failed": failed,
            "seeds_per_second": rate,
            "counts": counts,
        });
        writeln!(out, "{line}")
    } else {
        let covered = counts.iter().map(|(k, n)| format!("{k} {n}"));
        let covered: Vec<_> = covered.collect();
        writeln!(
            out,
            "coverage: {}\n{rate:.2} seeds per second\n{passed} passed, {failed} failed",
            covered.join(", ")
        )
    };
    if *failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
