//! `cluster`: the loads of `firehose` and `rooms` on one, two and three nodes over PostgreSQL, and what the database does
//! for each message.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use mortise_protocol::identity::ClaimLink;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ours::{Ours, Processes};
use super::plan::{Plan, RECORD_BYTES, Round};
use super::system::System as _;
use crate::bench::sample::Usage;
use crate::bench::{Progress, Report};
use crate::cluster::{self, Nats, Node, Postgres, Programs};
use crate::demo::Binaries;

/// Counts statements, whoever asks; what that costs PostgreSQL is in its processor time.
const SETTINGS: &[&str] = &["shared_preload_libraries=pg_stat_statements"];
/// A backend hands in what it has counted once a second, and nodes look once a second.
const HANDED_IN: Duration = Duration::from_secs(3);

/// What can be chosen.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    /// Rounds of each load on each number of nodes.
    pub rounds: usize,
    /// Commits wait for a synchronous standby on the same machine.
    pub standby: bool,
}

/// Processes of a relay of several nodes, and what they stand on.
struct Nodes {
    nodes: Vec<Node>,
    postgres: Postgres,
    _nats: Nats,
    _dir: TempDir,
}

impl Processes for Nodes {
    fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(Node::pid).collect()
    }
}

/// 1 KiB records to one group of 50 (64 in flight), and to 200 groups of 10 by 200 senders at once.
///
/// # Errors
/// When a server does not start, or a node refuses.
pub fn cluster(
    options: ClusterOptions,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    if let Some(why) = cluster::missing() {
        anyhow::bail!("{why}");
    }
    report.machine();
    report.rounds(options.rounds as u64);
    let standby = if options.standby { "with" } else { "without" };
    report.note(format!(
        "PostgreSQL {standby} a synchronous standby, fsync on, statements counted by pg_stat_statements; nodes, PostgreSQL and \
         devices share the machine, so that more nodes cannot be quicker here: what each costs is what is measured"
    ));
    report.note(
        "medians of the rounds; statements and transactions are all that PostgreSQL was asked meanwhile, nodes' looking once \
         a second among them; processor time of PostgreSQL is that of all its processes that lived through the round",
    );
    for (name, plan) in [
        ("firehose", Plan::firehose(1_000)),
        ("rooms", Plan::rooms(10)),
    ] {
        for nodes in 1..=3 {
            progress.check()?;
            let mut ours = start(nodes, &plan, options, progress)?;
            let mut costs = Vec::new();
            for round in 0..options.rounds {
                progress.check()?;
                let cost = measure(&mut ours, &plan)?;
                progress.say(&format!(
                    "{name}, {nodes} nodes, round {}: {:.0} us of the nodes and {:.0} us of PostgreSQL per append",
                    round + 1,
                    cost.node_us,
                    cost.postgres_us
                ));
                costs.push(cost);
            }
            report.row(format!("{name}, {nodes} nodes"), values(&costs));
        }
    }
    Ok(())
}

fn start(
    count: usize,
    plan: &Plan,
    options: ClusterOptions,
    progress: &Progress,
) -> anyhow::Result<Ours<Nodes>> {
    let mut postgres = Postgres::start_set(SETTINGS)?;
    if options.standby {
        postgres = postgres.with_standby()?;
    }
    postgres.query("CREATE EXTENSION pg_stat_statements")?;
    let nats = Nats::start()?;
    let dir = tempfile::Builder::new()
        .prefix("mortise-bench-")
        .tempdir()
        .context("make a directory")?;
    let programs = Programs {
        relay: Binaries::beside_this_program()?.relay,
        planted: None,
    };
    let first = dir.path().join("first");
    let claim = cluster::init(
        &programs,
        &first,
        &postgres.address(),
        Some(&nats.address()),
    )?;
    let (mut nodes, mut claims) = (Vec::new(), Vec::new());
    for number in 0..count {
        let mut node = Node::copy(&programs, &first, number, Vec::new())?;
        node.start()?;
        let mut to_node = ClaimLink::parse(claim.to_text().as_str())?;
        to_node.relay.clone_from(&node.address);
        claims.push(to_node);
        nodes.push(node);
    }
    let relay = Nodes {
        nodes,
        postgres,
        _nats: nats,
        _dir: dir,
    };
    let mut ours = Ours::over(relay, claims, plan.connections(), progress)?;
    ours.connect(plan.connections())?;
    ours.join(plan)?;
    Ok(ours)
}

/// What PostgreSQL has counted since it began.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    transactions: f64,
    statements: f64,
    rows: f64,
    wal_bytes: f64,
}

impl Counted {
    fn of(postgres: &Postgres) -> anyhow::Result<Self> {
        let sql =
            "SELECT sum(calls) FILTER (WHERE query = 'COMMIT'), sum(calls) FROM pg_stat_statements
             UNION ALL SELECT tup_inserted + tup_updated + tup_deleted, pg_current_wal_lsn() - '0/0'
                 FROM pg_stat_database WHERE datname = 'postgres'";
        let said = postgres.query(sql)?;
        let mut numbers = said
            .split(['|', '\n'])
            .map(|n| n.trim().parse().unwrap_or(0.0));
        let mut next = || numbers.next().unwrap_or_default();
        Ok(Self {
            transactions: next(),
            statements: next(),
            rows: next(),
            wal_bytes: next(),
        })
    }
}

/// What one round has cost, per append unless said otherwise.
#[derive(Clone, Debug)]
struct Cost {
    round: Round,
    appends: f64,
    node_us: f64,
    postgres_us: f64,
    counted: Counted,
}

/// The processor time of each process of PostgreSQL, ms; one that ends meanwhile is left out.
fn spent(postgres: &Postgres) -> BTreeMap<u32, u64> {
    let pids = postgres.pids().into_iter();
    pids.filter_map(|pid| Some((pid, Usage::of(pid).ok()?.cpu_ms)))
        .collect()
}

#[allow(clippy::cast_precision_loss)]
fn measure(ours: &mut Ours<Nodes>, plan: &Plan) -> anyhow::Result<Cost> {
    std::thread::park_timeout(HANDED_IN);
    let before = Counted::of(&ours.relay.postgres)?;
    let started = spent(&ours.relay.postgres);
    let round = ours.round(plan)?;
    let ended = spent(&ours.relay.postgres);
    let lived = ended
        .iter()
        .filter_map(|(pid, ms)| Some(ms - started.get(pid)?));
    let postgres_us = 1_000 * lived.sum::<u64>();
    std::thread::park_timeout(HANDED_IN);
    let after = Counted::of(&ours.relay.postgres)?;
    let appends = (plan.senders.len() * plan.messages) as f64;
    Ok(Cost {
        appends,
        node_us: round.cpu_us as f64 / appends,
        postgres_us: postgres_us as f64 / appends,
        counted: Counted {
            transactions: (after.transactions - before.transactions) / appends,
            statements: (after.statements - before.statements) / appends,
            rows: (after.rows - before.rows) / appends,
            wal_bytes: (after.wal_bytes - before.wal_bytes) / appends,
        },
        round,
    })
}

fn values(costs: &[Cost]) -> Vec<(&'static str, Value)> {
    let median = |of: fn(&Cost) -> f64| {
        let mut all: Vec<_> = costs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        let middle = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
        json!((middle * 100.0).round() / 100.0)
    };
    vec![
        ("record_bytes", json!(RECORD_BYTES)),
        ("appends_per_s", median(|c| c.appends / c.round.seconds)),
        ("deliveries_per_s", median(|c| c.round.rate())),
        ("node_cpu_per_append_us", median(|c| c.node_us)),
        (
            "node_cpu_per_delivery_us",
            median(|c| c.round.cpu_per_delivery()),
        ),
        ("postgres_cpu_per_append_us", median(|c| c.postgres_us)),
        ("rows_written_per_append", median(|c| c.counted.rows)),
        ("statements_per_append", median(|c| c.counted.statements)),
        (
            "transactions_per_append",
            median(|c| c.counted.transactions),
        ),
        ("wal_bytes_per_append", median(|c| c.counted.wal_bytes)),
        ("ack_p50_us", median(|c| c.round.acks.quantile_us(0.5))),
        ("ack_p99_us", median(|c| c.round.acks.quantile_us(0.99))),
    ]
}
