//! `mortise`: the terminal client. Everything is in the library.

use std::process::exit;

/// How long threads have to end.
const LAST_THREADS: std::time::Duration = std::time::Duration::from_millis(300);

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
    // C libraries take their state down at exit: no thread may still use them. Only a read of stdin that nobody
    // answers holds this up for as long as that.
    runtime.shutdown_timeout(LAST_THREADS);
    exit(i32::from(code));
}
