//! `cluster`: the firehose and the rooms on one, two and three nodes over PostgreSQL, and what each part costs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mortise_protocol::identity::{ClaimLink, SigningKey};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::compare::Options;
use super::member::{Group, Job, Member};
use super::plan::{Plan, Round, Seen};
use crate::bench::organisation::{Founded, found};
use crate::bench::sample::Usage;
use crate::bench::{Progress, Report};
use crate::cluster::{Nats, Node, Postgres, Programs, init};
use crate::demo::Binaries;

const MAX_NODES: usize = 3;
const DEVICES: usize = 200;
/// The suite of the organisation; the relay does not care.
const SUITE: u16 = 0x004F;
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures every number of nodes with both loads.
///
/// # Errors
/// When a server does not start, refuses or loses something.
pub fn cluster(options: Options, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    if let Some(why) = crate::cluster::missing() {
        anyhow::bail!("{why}");
    }
    report.machine();
    report.rounds(options.rounds as u64);
    report.note(
        "one PostgreSQL without a standby, fsync on, over a Unix socket; nodes, database, NATS and load share the processors: \
         costs are comparable, rates say little about machines of their own",
    );
    report.note("members are spread over the nodes: with n nodes (n-1)/n of all deliveries cross from one node to another");
    for nodes in 1..=MAX_NODES {
        let dir = tempfile::Builder::new()
            .prefix("mortise-bench-")
            .tempdir()?;
        let mut stand = Stand::start(dir.path(), nodes, progress)?;
        for (load, plan) in [
            (
                "firehose",
                Plan::firehose(options.messages.unwrap_or(1_000)),
            ),
            (
                "rooms",
                Plan::rooms(options.messages.map_or(10, |m| m.div_ceil(50))),
            ),
        ] {
            stand.join(&plan)?;
            let mut costs = Vec::new();
            for round in 0..options.rounds {
                progress.check()?;
                let cost = stand.round(&plan)?;
                progress.say(&format!(
                    "{load} on {nodes}, round {}: {}",
                    round + 1,
                    cost.line()
                ));
                costs.push(cost);
            }
            report.row(
                format!("{load}, {nodes} nodes"),
                Cost::middle(&costs).values(),
            );
        }
    }
    Ok(())
}

/// A database, its nodes, and everybody.
struct Stand {
    postgres: Postgres,
    nats: Nats,
    nodes: Vec<Node>,
    runtime: Runtime,
    founded: Founded,
    claim: ClaimLink,
    members: Vec<Member>,
    groups: Vec<Arc<Group>>,
}

impl Stand {
    fn start(base: &Path, count: usize, progress: &Progress) -> anyhow::Result<Self> {
        let postgres = Postgres::start()?;
        let nats = Nats::start()?;
        let programs = Programs {
            relay: Binaries::beside_this_program()?.relay,
            planted: None,
        };
        let first = base.join("first");
        let mut claim = init(
            &programs,
            &first,
            &postgres.address(),
            Some(&nats.address()),
        )?;
        let mut nodes = Vec::new();
        for number in 0..count {
            let mut node = Node::copy(&programs, &first, number, Vec::new())?;
            node.start()?;
            nodes.push(node);
        }
        claim
            .relay
            .clone_from(&nodes.first().context("no node")?.address);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let founded = runtime.block_on(found(&claim, SUITE, DEVICES, progress))?;
        Ok(Self {
            postgres,
            nats,
            nodes,
            runtime,
            founded,
            claim,
            members: Vec::new(),
            groups: Vec::new(),
        })
    }

    /// Connects everybody anew, device by device to the nodes in turn, makes the groups and lets their members read.
    fn join(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.members.clear();
        self.groups.clear();
        let org = self.founded.org;
        let devices = self.founded.devices.iter().take(plan.connections());
        for (number, device) in devices.enumerate() {
            let seeds = device.keys.context("a device without keys")?;
            let node = &self.nodes[number % self.nodes.len()];
            self.claim.relay.clone_from(&node.address);
            let key = Arc::new(SigningKey::from_seed(&seeds[1]));
            let dial = Member::connect(&self.claim, org, key, number as u64);
            self.members.push(self.runtime.block_on(dial)?);
        }
        let mut rng = ChaCha12Rng::from_os_rng();
        for members in &plan.groups {
            let mut id = [0; 32];
            rng.fill_bytes(&mut id);
            let group = Arc::new(Group::new(id, self.founded.head));
            let creator = members.first().context("a group of nobody")?;
            let creator = self.members.get_mut(*creator).context("not connected")?;
            self.runtime.block_on(creator.create(&group))?;
            self.groups.push(group);
        }
        for number in 0..self.members.len() {
            for group in plan.groups_of(number) {
                let group = Arc::clone(&self.groups[group]);
                self.runtime
                    .block_on(self.members[number].subscribe(group))?;
            }
        }
        Ok(())
    }

    fn round(&mut self, plan: &Plan) -> anyhow::Result<Cost> {
        let counters = self.postgres.counters()?;
        let before = (
            self.relay_ms()?,
            self.postgres.cpu_ms()?,
            own_ms()?,
            nats_ms(&self.nats)?,
        );
        let start = Instant::now();
        let members = std::mem::take(&mut self.members);
        let jobs: Vec<Job> = (0..members.len())
            .map(|number| Job {
                to: plan
                    .sends_to(number)
                    .iter()
                    .map(|g| Arc::clone(&self.groups[*g]))
                    .collect(),
                in_flight: plan.in_flight,
                messages: plan.messages,
                expected: plan.expected_at(number),
            })
            .collect();
        let mut done: Vec<(usize, Member, Seen)> = self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (number, (mut member, job)) in members.into_iter().zip(jobs).enumerate() {
                tasks.spawn(async move {
                    let seen = member.work(&job).await?;
                    anyhow::Ok((number, member, seen))
                });
            }
            let mut done = Vec::new();
            let all = async {
                while let Some(one) = tasks.join_next().await {
                    done.push(one??);
                }
                anyhow::Ok(())
            };
            tokio::time::timeout(PATIENCE, all)
                .await
                .context("a round takes too long")??;
            anyhow::Ok(done)
        })?;
        let seconds = start.elapsed().as_secs_f64();
        done.sort_by_key(|(number, ..)| *number);
        let mut seen = Vec::new();
        for (_, member, what) in done {
            self.members.push(member);
            seen.push(what);
        }
        let relay_us = (self.relay_ms()? - before.0) * 1_000;
        let others_us = [
            (self.postgres.cpu_ms()? - before.1) * 1_000,
            (own_ms()? - before.2) * 1_000,
            (nats_ms(&self.nats)? - before.3) * 1_000,
        ];
        let now = self.postgres.counters()?;
        let counters = [now[0] - counters[0], now[1] - counters[1]];
        Ok(Cost::of(
            &Round::of(seen, seconds, relay_us),
            others_us,
            counters,
        ))
    }

    fn relay_ms(&self) -> anyhow::Result<u64> {
        let pids = self.nodes.iter().filter_map(Node::pid);
        pids.map(|pid| Ok(Usage::of(pid)?.cpu_ms)).sum()
    }
}

/// This process is the load.
fn own_ms() -> anyhow::Result<u64> {
    Ok(Usage::of(std::process::id())?.cpu_ms)
}

fn nats_ms(nats: &Nats) -> anyhow::Result<u64> {
    let pid = nats.pid().context("NATS does not run")?;
    Ok(Usage::of(pid)?.cpu_ms)
}

/// What a round has cost, per append unless said.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    appends_per_s: f64,
    deliveries_per_append: f64,
    relay_us: f64,
    relay_us_per_delivery: f64,
    database_us: f64,
    load_us: f64,
    nats_us: f64,
    wal_bytes: f64,
    transactions: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
}

impl Cost {
    #[allow(clippy::cast_precision_loss)]
    fn of(round: &Round, others_us: [u64; 3], counters: [u64; 2]) -> Self {
        let appends = round.acks.count() as f64;
        Self {
            appends_per_s: appends / round.seconds,
            deliveries_per_append: round.deliveries() / appends,
            relay_us: round.cpu_us as f64 / appends,
            relay_us_per_delivery: round.cpu_per_delivery(),
            database_us: others_us[0] as f64 / appends,
            load_us: others_us[1] as f64 / appends,
            nats_us: others_us[2] as f64 / appends,
            wal_bytes: counters[0] as f64 / appends,
            transactions: counters[1] as f64 / appends,
            ack_p50_ms: round.acks.quantile_us(0.5) / 1_000.0,
            ack_p99_ms: round.acks.quantile_us(0.99) / 1_000.0,
        }
    }

    /// The median of each number.
    fn middle(all: &[Self]) -> Self {
        let of = |number: fn(&Self) -> f64| {
            let mut numbers: Vec<f64> = all.iter().map(number).collect();
            numbers.sort_by(f64::total_cmp);
            numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self {
            appends_per_s: of(|c| c.appends_per_s),
            deliveries_per_append: of(|c| c.deliveries_per_append),
            relay_us: of(|c| c.relay_us),
            relay_us_per_delivery: of(|c| c.relay_us_per_delivery),
            database_us: of(|c| c.database_us),
            load_us: of(|c| c.load_us),
            nats_us: of(|c| c.nats_us),
            wal_bytes: of(|c| c.wal_bytes),
            transactions: of(|c| c.transactions),
            ack_p50_ms: of(|c| c.ack_p50_ms),
            ack_p99_ms: of(|c| c.ack_p99_ms),
        }
    }

    fn values(&self) -> Vec<(&'static str, Value)> {
        let rounded = |number: f64| json!((number * 100.0).round() / 100.0);
        vec![
            ("appends_per_s", rounded(self.appends_per_s)),
            ("deliveries_per_append", rounded(self.deliveries_per_append)),
            ("relay_cpu_us_per_append", rounded(self.relay_us)),
            (
                "relay_cpu_us_per_delivery",
                rounded(self.relay_us_per_delivery),
            ),
            ("database_cpu_us_per_append", rounded(self.database_us)),
            ("load_cpu_us_per_append", rounded(self.load_us)),
            ("nats_cpu_us_per_append", rounded(self.nats_us)),
            ("wal_bytes_per_append", rounded(self.wal_bytes)),
            ("transactions_per_append", rounded(self.transactions)),
            ("ack_p50_ms", rounded(self.ack_p50_ms)),
            ("ack_p99_ms", rounded(self.ack_p99_ms)),
        ]
    }

    fn line(&self) -> String {
        format!(
            "{:.0} appends/s, relay {:.0} us, database {:.0} us and {:.0} bytes of WAL per append",
            self.appends_per_s, self.relay_us, self.database_us, self.wal_bytes
        )
    }
}
