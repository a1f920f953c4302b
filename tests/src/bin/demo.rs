//! `./x demo`: a dismissed colleague loses access to every group, on real parts, under real attacks.

use std::process::ExitCode;

use clap::Parser;
use mortise_tests::demo::{Binaries, FEWEST_GROUPS, FEWEST_PEOPLE, MOST, Options, run};

/// Founds an organisation on a real relay, removes somebody, and attacks with everything that they had.
///
/// Ends with 0 if the promise held and every control worked, with 1 otherwise.
#[derive(Parser)]
#[command(name = "demo", bin_name = "./x demo")]
struct Args {
    /// Print one JSON object per line; the last one is the result
    #[arg(long)]
    json: bool,
    /// How many groups; at least one is without the leaver
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = groups)]
    groups: usize,
    /// How many people, the owner and the leaver among them
    #[arg(long, value_name = "M", default_value_t = 5, value_parser = members)]
    members: usize,
    /// The MLS ciphersuite: 0x004F (hybrid post-quantum) or 0x0001
    #[arg(long, default_value = "0x004F", value_parser = suite)]
    suite: String,
    /// Keep all files, and say where they are
    #[arg(long)]
    keep: bool,
}

fn groups(text: &str) -> Result<usize, String> {
    within(text, FEWEST_GROUPS)
}

fn members(text: &str) -> Result<usize, String> {
    within(text, FEWEST_PEOPLE)
}

fn within(text: &str, fewest: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (fewest..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {fewest} to {MOST}")),
    }
}

fn suite(text: &str) -> Result<String, String> {
    let known = ["0x0001", "0x004F"].into_iter();
    known
        .map(ToOwned::to_owned)
        .find(|known| known.eq_ignore_ascii_case(text))
        .ok_or_else(|| "must be 0x004F or 0x0001".into())
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let options = Options {
        json: args.json,
        groups: args.groups,
        people: args.members,
        suite: args.suite,
        keep: args.keep,
    };
    let result = run(&options, &Binaries::beside_this_program()?);
    Ok(if result.pass {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
