//! `./x check`: everything about the repository that can be checked without running long.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mortise_tests::house::run;

/// Checks format, lints, docs, dependencies, requirement traceability and house rules.
#[derive(Parser)]
#[command(name = "check")]
struct Args {
    /// Run only these checks.
    #[arg(value_name = "CHECK")]
    only: Vec<String>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// List the checks and stop.
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.list {
        run::names().iter().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let ok = run::run(&run::Options {
        root: root()?,
        json: args.json,
        only: args.only,
    })?;
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The repository: the nearest folder upwards that has a `Cargo.lock`.
fn root() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir()?;
    here.ancestors()
        .find(|dir| dir.join("Cargo.lock").exists())
        .map(PathBuf::from)
        .ok_or_else(|| anyhow::anyhow!("not inside the repository: no Cargo.lock upwards of here"))
}
