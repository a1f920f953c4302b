//! `mortise`: the terminal client. Everything is in the library.

use std::process::exit;

fn main() {
    if let Err(error) = mortise_client::machine::forbid_core_dumps() {
        eprintln!("mortise: core dumps cannot be switched off: {error}");
        exit(1);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("MORTISE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let Ok(args) = std::env::args_os()
        .skip(1)
        .map(std::ffi::OsString::into_string)
        .collect::<Result<Vec<_>, _>>()
    else {
        eprintln!("mortise: an argument is not UTF-8 text");
        exit(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mortise: this machine gives no threads: {error}");
            exit(1);
        }
    };
    let code = runtime.block_on(mortise_client::app::run(args));
    // Does not wait for a read of stdin that nobody will answer.
    runtime.shutdown_background();
    exit(i32::from(code));
}
