//! `./x attack`: the departed member's handbook, mounted.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};
use mortise_tests::attack::{self, LARGE, Options, Row, SIZES, Totals};

const AFTER_HELP: &str = "\
Examples:
  ./x attack                  every attack once, in groups of 2, 3, 20 and 1,000, with both ciphersuites
  ./x attack --seeds 20       the total; the groups of 1,000 with the first seed only
  ./x attack --only 16        one attack
  ./x attack --size 20        in groups of 20 only

Exit codes: 0 every attack was defeated and every control worked; 1 not so; 2 wrong arguments.";

/// Mounts every attack that somebody who was removed could try, and those of a malicious member.
///
/// Each has a control, in which the defence does not apply and the same code must get what it is after. The last line of
/// the output is `N passed, N failed`.
#[derive(Debug, Parser)]
#[command(name = "mortise-attack", after_help = AFTER_HELP)]
struct Arguments {
    /// How many seeds; each decides how many epochs lie between what was saved and the order.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only the attack of this number: 1 to 48, I1 to I9.
    #[arg(long)]
    only: Option<String>,
    /// Only groups of this many users, with every seed.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    size: Option<u64>,
    /// Only this ciphersuite, 0x0001 or 0x004F.
    #[arg(long, value_parser = parse_suite)]
    suite: Option<u16>,
    /// Leaves out what is mounted over QUIC by the released programs.
    #[arg(long)]
    simulator: bool,
    /// One JSON object per attack and one for all, each on a line of stdout.
    #[arg(long)]
    json: bool,
    /// Attacks at the same time; by default one per processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

fn parse_suite(text: &str) -> Result<u16, String> {
    match text.to_ascii_lowercase().as_str() {
        "0x0001" | "1" => Ok(SUITE_CLASSICAL),
        "0x004f" | "79" => Ok(SUITE_HYBRID),
        _ => Err("0x0001 or 0x004F".into()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let known = attack::table();
    if let Some(only) = &arguments.only
        && !known.iter().any(|attack| attack.number == only)
    {
        eprintln!("error: there is no attack {only}");
        return ExitCode::from(2);
    }
    let size = arguments.size.and_then(|size| usize::try_from(size).ok());
    let options = Options {
        seeds: arguments.seeds,
        from: arguments.from,
        sizes: size.map_or_else(|| SIZES.to_vec(), |size| vec![size]),
        once: if size.is_some() {
            Vec::new()
        } else {
            vec![LARGE]
        },
        suites: arguments
            .suite
            .map_or_else(|| vec![SUITE_CLASSICAL, SUITE_HYBRID], |suite| vec![suite]),
        only: arguments.only,
        workers: arguments.workers.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            usize::from,
        ),
    };
    // What panics is told with its attack.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let mut rows = attack::run(&options);
    if !arguments.simulator && attack::quic::plays(&rows) {
        for suite in &options.suites {
            if let Err(error) = attack::quic::play(&mut rows, *suite) {
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    let totals = Totals::of(&rows);
    if arguments.json {
        rows.iter().for_each(say_json);
        print_line(
            &serde_json::json!({
                "attacks": totals.attacks,
                "succeeded": totals.succeeded,
                "controls_failed": totals.controls_failed,
            })
            .to_string(),
        );
    } else {
        let head = "attack  tried  succeeded  alarms  worst ms  controls  what";
        print_line(head);
        rows.iter().for_each(say);
        let seconds = began.elapsed().as_secs();
        print_line(&format!("{seconds} s"));
        print_line(&format!(
            "{} passed, {} failed",
            totals.passed, totals.failed
        ));
    }
    match totals.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn control(row: &Row) -> &'static str {
    if row.controls_work() {
        "worked"
    } else {
        "failed"
    }
}

fn say_json(row: &Row) {
    let number = row.attack.number;
    let line = serde_json::json!({
        "attack": number.parse::<u64>().map_or_else(|_| number.into(), serde_json::Value::from),
        "tried": row.tried,
        "succeeded": row.succeeded,
        "control": control(row),
        "alarms": row.alarms,
        "worst_ms": row.worst_ms,
    });
    print_line(&line.to_string());
    for note in &row.notes {
        eprintln!("{note}");
    }
}

fn say(row: &Row) {
    let attack = row.attack;
    let number = format!(
        "{}{}",
        attack.number,
        if attack.asks_alarm { "A" } else { "" }
    );
    let (controls, worked) = row.controls;
    print_line(&format!(
        "{number:<6}  {:>5}  {:>9}  {:>6}  {:>8}  {:>8}  {}",
        row.tried,
        row.succeeded,
        row.alarms,
        row.worst_ms,
        format!("{worked}/{controls}"),
        attack.name
    ));
    for note in &row.notes {
        print_line(&format!("        {note}"));
    }
}

fn print_line(line: &str) {
    // A closed pipe is no failure of an attack.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
