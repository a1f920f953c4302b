//! A relay of three nodes in real processes, over PostgreSQL with a synchronous standby and NATS: what it promises while
//! all of them die, stop, fail over and lose each other, told by the clients' history (`./x cluster`).
//!
//! The servers are the real ones. The clients speak the wire protocol and prove access; what would be ciphertext is
//! filler. A seed decides what happens and when; what comes of it is for the machine to say, so a seed does not replay
//! to the microsecond. This module must never reach into a node.

mod book;
mod client;
mod nats;
mod nodes;
mod postgres;
mod proxy;
mod records;
mod run;
mod server;
mod weather;

pub use nats::Nats;
pub use nodes::{Node, Programs, init};
pub use postgres::Postgres;
pub use proxy::{Door, Proxy};
pub use run::{Outcome, RunError, run};
pub use weather::{Sky, Weather};

/// Why a cluster cannot be had on this machine, if it cannot.
#[must_use]
pub fn missing() -> Option<&'static str> {
    match (postgres::programs(), nats::program()) {
        (None, _) => Some("PostgreSQL is not on this machine (Debian: postgresql)"),
        (_, None) => Some("nats-server is not on this machine (Debian: nats-server)"),
        _ => None,
    }
}

/// Whether a test of the cluster runs here: a machine without the servers skips it, visibly.
///
/// # Panics
/// Where the servers are missing and `MORTISE_REQUIRE_CLUSTER=1`.
#[must_use]
pub fn is_here() -> bool {
    let Some(why) = missing() else { return true };
    let is_required = std::env::var("MORTISE_REQUIRE_CLUSTER").is_ok_and(|v| v == "1");
    assert!(!is_required, "{why}, and MORTISE_REQUIRE_CLUSTER=1");
    eprintln!("SKIP  cluster: {why}");
    false
}

/// Lets real servers go on for so long: the weather of a run, not a way to wait for anything.
async fn pass(time: std::time::Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}
