//! `mortise-relay`: the relay's command line.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    if let Err(error) = cli::harden() {
        eprintln!("warning: core dumps could not be switched off: {error}");
    }
    cli::log_to_stderr();
    match cli::run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            cli::exit_code(&error)
        }
    }
}
