//! `./x vectors`: runs every RFC 9420 test vector file of a folder, case by case.
//!
//! Nothing here computes anything of MLS. Passive clients run on the product's own provider and its SQLCipher store;
//! messages go through openmls's public types; what openmls keeps to itself is checked by openmls's own known-answer
//! tests (`mortise-kats`).

mod case;
mod codec;
mod folder;
mod kind;
mod passive;
mod report;
mod scratch;
mod skips;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Runs RFC 9420 test vectors.
#[derive(Parser)]
#[command(name = "vectors")]
struct Args {
    /// The folder with the vector files (*.json).
    #[arg(
        value_name = "DIR",
        env = "MORTISE_MLS_VECTORS",
        default_value = "../shared/vectors/mlswg"
    )]
    dir: PathBuf,
    /// Print one JSON object per file, and one with the totals.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vectors: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing failed, and nothing was skipped that is not agreed to.
fn run(args: &Args) -> anyhow::Result<bool> {
    let files = folder::read(&args.dir)?;
    // A check that fails by an assertion is reported with its case; it need not speak twice.
    std::panic::set_hook(Box::new(|_| {}));
    let mut report = report::Report::new(args.json);
    for file in files {
        report.file(&case::run_file(file)?)?;
    }
    report.finish()
}
