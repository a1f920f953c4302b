//! What happens to the servers meanwhile, drawn from the seed.

use std::time::Duration;

use rand::Rng as _;
use rand_chacha::ChaCha12Rng;

/// Something that happens to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// A node is killed, and started again later.
    KillNode(usize),
    /// Whatever is down is started.
    StartNodes,
    /// NATS is killed.
    StopNats,
    /// NATS is back.
    StartNats,
    /// PostgreSQL is restarted as after a crash.
    RestartPostgres,
    /// The primary is killed for good, and the standby takes over.
    FailOver,
    /// A node and the database do not hear of each other for so many ms; nothing breaks.
    Hold(usize, u64),
    /// A node's connections to the database break, and new ones do for so many ms.
    Cut(usize, u64),
    /// The owner removes somebody.
    Order,
    /// A node has decided a batch and has not committed it while the owner removes somebody elsewhere.
    OrderAtCommit(usize),
    /// Nothing.
    Calm,
}

/// Which weather a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sky {
    /// Everything that can happen.
    Everything,
    /// Orders that meet a node between its reads and its commit.
    AtCommits,
}

/// What a run goes through.
#[derive(Clone, Debug)]
pub struct Weather {
    /// What happens, and how long after what happened before.
    pub(super) blows: Vec<(Duration, Blow)>,
}

impl Weather {
    /// Everything that can happen: orders, kills, restarts, partitions, and in two of three runs the failover.
    pub(super) fn draw(rng: &mut ChaCha12Rng, nodes: usize) -> Self {
        let mut blows = vec![(Duration::from_millis(600), Blow::Calm)];
        let orders_at = [rng.random_range(2..6), rng.random_range(7..12)];
        let fails_at = rng.random_range(5..18);
        for step in 0..14 {
            let node = rng.random_range(0..nodes);
            let blow = match rng.random_range(0..100) {
                _ if step == fails_at => Blow::FailOver,
                0..22 => Blow::KillNode(node),
                22..40 => Blow::StartNodes,
                40..48 => Blow::StopNats,
                48..56 => Blow::StartNats,
                56..64 => Blow::RestartPostgres,
                64..84 => Blow::Hold(node, rng.random_range(20..2_600)),
                _ => Blow::Cut(node, rng.random_range(20..1_000)),
            };
            blows.push((Duration::from_millis(rng.random_range(10..450)), blow));
            if orders_at.contains(&step) {
                blows.push((Duration::from_millis(rng.random_range(1..60)), Blow::Order));
            }
        }
        Self { blows }
    }

    /// Nothing but orders, each while a node is between its reads and its commit: what the lane is for.
    pub(super) fn at_commits(rng: &mut ChaCha12Rng, nodes: usize) -> Self {
        let mut blows = Vec::new();
        for _ in 0..3 {
            let node = rng.random_range(0..nodes);
            blows.push((Duration::from_millis(600), Blow::OrderAtCommit(node)));
        }
        blows.push((Duration::from_millis(300), Blow::Calm));
        Self { blows }
    }
}
