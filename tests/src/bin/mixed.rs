//! `./x mixed`: seeded scripts in groups of two MLS stacks, on a real relay.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mortise_tests::mixed::scenario;
use mortise_tests::mixed::script::{Options, Tally, run};
use serde_json::json;

/// Devices of the product (openmls) and devices with another MLS stack (mls-rs) in the same groups, over a real relay.
/// The result goes to standard output, progress to standard error.
#[derive(Parser)]
#[command(name = "mixed", bin_name = "./x mixed")]
struct Args {
    /// How many scripts, each of the next seed
    #[arg(long, value_name = "N", default_value_t = 20)]
    scripts: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Steps of a script that take effect
    #[arg(long, value_name = "N", default_value_t = 60)]
    steps: usize,
    /// The MLS ciphersuite: 0x0001, or 0x004F (hybrid post-quantum)
    #[arg(long, default_value = "0x0001", value_parser = suite)]
    suite: u16,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

fn suite(text: &str) -> Result<u16, String> {
    match text.to_ascii_lowercase().as_str() {
        "0x0001" => Ok(0x0001),
        "0x004f" => Ok(0x004F),
        _ => Err("0x0001 or 0x004F".into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let start = Instant::now();
    let (mut total, mut failed) = (Tally::default(), Vec::new());
    let scenarios = scenario::play_all(args.suite).await;
    match &scenarios {
        Ok(names) => names.iter().for_each(|name| eprintln!("passed: {name}")),
        Err(error) => eprintln!("a scenario failed: {error:#}"),
    }
    for seed in args.seed..args.seed + args.scripts {
        let options = Options {
            seed,
            suite: args.suite,
            steps: args.steps,
        };
        match run(options).await {
            Ok(tally) => {
                eprintln!(
                    "seed {seed}: {} epochs, {} compared",
                    tally.epochs, tally.compared
                );
                total.add(&tally);
            }
            Err(error) => {
                eprintln!("seed {seed} failed: {error:#}");
                failed.push(seed);
            }
        }
    }
    let pass = failed.is_empty() && scenarios.is_ok();
    let result = Outcome {
        scenarios: scenarios.map_or(0, |names| names.len()),
        total,
        failed,
        seconds: start.elapsed().as_secs(),
        pass,
    };
    report(&args, &result);
    if pass {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What came of all of it.
struct Outcome {
    scenarios: usize,
    total: Tally,
    failed: Vec<u64>,
    seconds: u64,
    pass: bool,
}

fn report(args: &Args, result: &Outcome) {
    let suite = format!("{:#06X}", args.suite).replace("0X", "0x");
    let total = &result.total;
    if args.json {
        let line = json!({
            "event": "result", "suite": suite, "scenarios": result.scenarios, "scripts": args.scripts,
            "first_seed": args.seed, "failed_seeds": result.failed, "seconds": result.seconds,
            "total": total, "pass": result.pass,
        });
        println!("{line}");
        return;
    }
    println!("suite {suite}, {} s", result.seconds);
    println!("scenarios passed: {}", result.scenarios);
    println!("scripts: {}, failed: {}", args.scripts, result.failed.len());
    println!("steps in effect: {}", total.steps.values().sum::<u64>());
    for (step, count) in &total.steps {
        println!("  {step}: {count}");
    }
    println!(
        "steps that the rules refused, or that came too late: {}",
        total.refused
    );
    println!(
        "devices: {} openmls, {} mls-rs",
        total.devices.0, total.devices.1
    );
    println!("commits by mls-rs: {}", total.commits_by_other);
    println!(
        "epochs with mls-rs in them: {}; authenticators of both stacks compared in {} ({} in all)",
        total.epochs, total.compared, total.authenticators
    );
    println!("texts that both stacks show, equal: {}", total.texts);
}
