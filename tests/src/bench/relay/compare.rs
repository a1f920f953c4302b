//! `firehose`, `rooms` and `latency`: rounds of one plan, on each system in turn.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::bare::{Bare, synced_writes};
use super::ours::Ours;
use super::peers::{Nats, Redis};
use super::plan::{Plan, RECORD_BYTES, Round};
use super::system::System;
use crate::bench::{Goal, Progress, Report};

/// What can be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds of each system.
    pub rounds: usize,
    /// Messages of each sender in one round; none for the bench's own choice.
    pub messages: Option<usize>,
    /// Without the peers, for a profile: no goal is judged.
    pub alone: bool,
}

/// 1 KiB durable publishes to one group of 50, 64 in flight.
///
/// # Errors
/// When a system fails.
#[allow(clippy::cast_precision_loss)]
pub fn firehose(options: Options, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan::firehose(options.messages.unwrap_or(4_000));
    let goals = [
        Wanted {
            name: "deliveries/s against redis without TLS",
            peer: "redis",
            of: Round::rate,
            goal: Goal::AtLeast(0.75),
        },
        Wanted {
            name: "deliveries/s against nats-tls",
            peer: "nats-tls",
            of: Round::rate,
            goal: Goal::AtLeast(6.0),
        },
    ];
    let beside = Beside {
        measure: bulk,
        judge: |ours, plain| ours.rate() * RECORD_BYTES as f64 / plain,
        name: "bytes/s against plain QUIC bulk over 50 connections",
        goal: Goal::AtLeast(0.85),
    };
    compare(&plan, &goals, Some(&beside), options, progress, report)
}

/// Bytes per second of plain QUIC over as many connections.
fn bulk(_: &Path) -> anyhow::Result<f64> {
    let bare = Bare::start()?;
    let rate = bare.bulk(50, 8 * 1024 * 1024)?;
    bare.stop();
    Ok(rate)
}

/// What an acknowledgement cannot be quicker than: a sync, and a record to a QUIC server and back; medians, µs.
fn sync_and_echo(dir: &Path) -> anyhow::Result<f64> {
    let synced = synced_writes(dir, 200)?;
    let bare = Bare::start()?;
    let echoed = bare.echo(300)?;
    bare.stop();
    Ok(synced.quantile_us(0.5) + echoed.quantile_us(0.5))
}

/// 200 groups of 10, 200 senders at once.
///
/// # Errors
/// When a system fails.
pub fn rooms(options: Options, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan::rooms(options.messages.unwrap_or(50));
    let p99 = |round: &Round| round.delays.quantile_us(0.99);
    let goals = [
        Wanted {
            name: "cpu per delivery against redis-tls",
            peer: "redis-tls",
            of: Round::cpu_per_delivery,
            goal: Goal::AtMost(0.45),
        },
        Wanted {
            name: "cpu per delivery against nats-tls",
            peer: "nats-tls",
            of: Round::cpu_per_delivery,
            goal: Goal::AtMost(0.025),
        },
        Wanted {
            name: "delivery p99 against redis-tls",
            peer: "redis-tls",
            of: p99,
            goal: Goal::AtMost(1.0),
        },
    ];
    compare(&plan, &goals, None, options, progress, report)
}

/// One group of 50, one message at a time.
///
/// # Errors
/// When a system fails.
pub fn latency(options: Options, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan::latency(options.messages.unwrap_or(300));
    let goals = [Wanted {
        name: "delivery p99 against redis-tls",
        peer: "redis-tls",
        of: |round| round.delays.quantile_us(0.99),
        goal: Goal::AtMost(0.7),
    }];
    let beside = Beside {
        measure: sync_and_echo,
        judge: |ours, floor| ours.acks.quantile_us(0.5) / floor,
        name: "ack p50 against sync p50 + QUIC echo p50",
        goal: Goal::AtMost(1.5),
    };
    compare(&plan, &goals, Some(&beside), options, progress, report)
}

/// A comparison with what the machine does without any server of messages, measured in the same round.
struct Beside {
    measure: fn(&Path) -> anyhow::Result<f64>,
    judge: fn(&Round, f64) -> f64,
    name: &'static str,
    goal: Goal,
}

/// A comparison with one peer.
struct Wanted {
    name: &'static str,
    peer: &'static str,
    of: fn(&Round) -> f64,
    goal: Goal,
}

impl Wanted {
    /// Ours divided by the peer's, the median of the rounds; a row says the worst.
    fn judge(&self, measured: &[Measured], report: &mut Report) {
        let of = |name: &str| measured.iter().find(|m| m.name == name);
        let (Some(ours), Some(peer)) = (of("mortise"), of(self.peer)) else {
            return report.goal(self.name, f64::NAN, self.goal, "x");
        };
        let pairs = ours.rounds.iter().zip(&peer.rounds);
        let ratios = pairs.map(|(a, b)| (self.of)(a) / (self.of)(b)).collect();
        tell_ratios(self.name, ratios, self.goal, report);
    }
}

/// The median and the worst of the rounds' ratios.
fn tell_ratios(name: &str, mut ratios: Vec<f64>, goal: Goal, report: &mut Report) {
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN);
    let worst = match goal {
        Goal::AtLeast(_) => ratios.first(),
        Goal::AtMost(_) => ratios.last(),
    };
    report.goal(name, median, goal, "x");
    let rounded = |value: f64| json!((value * 1_000.0).round() / 1_000.0);
    report.row(
        name,
        vec![
            ("median_ratio", rounded(median)),
            ("worst_ratio", worst.copied().map_or(Value::Null, rounded)),
        ],
    );
}

/// The first system; a peer that fails is a note, and its goals are not met.
const OURS: usize = 0;

/// One system's rounds.
struct Measured {
    name: &'static str,
    rounds: Vec<Round>,
}

fn compare(
    plan: &Plan,
    goals: &[Wanted],
    beside: Option<&Beside>,
    options: Options,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("mortise-bench-")
        .tempdir()
        .context("make a directory")?;
    report.machine();
    let rounds = options.rounds;
    let mut systems = start_all(plan, dir.path(), options.alone, progress, report)?;
    let mut measured: Vec<_> = systems
        .iter()
        .map(|system| Measured {
            name: system.name(),
            rounds: Vec::new(),
        })
        .collect();
    let mut ratios = Vec::new();
    let mut gone = vec![false; systems.len()];
    for round in 0..rounds {
        let mut order: Vec<_> = (0..systems.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            progress.check()?;
            if gone[at] {
                continue;
            }
            let name = measured[at].name;
            let result = match systems[at].round(plan).with_context(|| name) {
                Ok(result) => result,
                Err(error) if at == OURS => return Err(error),
                Err(error) => {
                    // What is still on its way would come in its next round.
                    report.note(format!(
                        "without a peer from round {} on: {error:#}",
                        round + 1
                    ));
                    gone[at] = true;
                    continue;
                }
            };
            progress.say(&format!(
                "round {}: {name}: {:.0} deliveries/s, {:.2} us each",
                round + 1,
                result.rate(),
                result.cpu_per_delivery()
            ));
            measured[at].rounds.push(result);
        }
        if options.alone {
            continue;
        }
        if let (Some(beside), Some(ours)) = (beside, measured[OURS].rounds.last()) {
            let plain = (beside.measure)(dir.path())?;
            progress.say(&format!("round {}: {}: {plain:.0}", round + 1, beside.name));
            ratios.push((beside.judge)(ours, plain));
        }
    }
    report.rounds(rounds as u64);
    if !options.alone {
        if let Some(beside) = beside {
            tell_ratios(beside.name, ratios, beside.goal, report);
        }
        for goal in goals {
            goal.judge(&measured, report);
        }
    }
    for system in &measured {
        report.row(system.name, system.values());
    }
    Ok(())
}

fn start_all(
    plan: &Plan,
    dir: &Path,
    alone: bool,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<Vec<Box<dyn System>>> {
    let mut ours = Ours::start(dir, plan.connections(), "warn", progress)?;
    ours.connect(plan.connections())?;
    ours.join(plan)?;
    let mut systems: Vec<Box<dyn System>> = vec![Box::new(ours)];
    if alone {
        return Ok(systems);
    }
    for with_tls in [true, false] {
        match Redis::start(dir, with_tls, plan) {
            Ok(redis) => systems.push(Box::new(redis)),
            Err(error) => report.note(format!("without Redis: {error:#}")),
        }
    }
    match Nats::start(dir, plan) {
        Ok(nats) => systems.push(Box::new(nats)),
        Err(error) => report.note(format!("without NATS: {error:#}")),
    }
    report.note(
        "NATS: a JetStream stream per group and a durable push consumer per member and group, sync_interval always, TLS; \
         it keeps a position for each consumer, which ours leaves to the device",
    );
    report.note(
        "Redis: XADD to a stream and PUBLISH, appendfsync always; the answer to PUBLISH is the acknowledgement. It checks \
         no device, no proof, no order, and looks for no duplicate; a listener that was away must read the stream itself",
    );
    report.note(
        "clients: ours are real connections on the client's own transport, peers' are threads that read plain frames; \
         rates include the clients, which share the processors, so the server's processor time says more",
    );
    Ok(systems)
}

impl Measured {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut all: Vec<_> = self.rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Medians over the rounds.
    fn values(&self) -> Vec<(&'static str, Value)> {
        let rounded = |value: f64| json!((value * 100.0).round() / 100.0);
        vec![
            ("deliveries_per_s", json!(self.median(Round::rate).round())),
            (
                "cpu_per_delivery_us",
                rounded(self.median(Round::cpu_per_delivery)),
            ),
            (
                "worst_cpu_per_delivery_us",
                rounded(
                    self.rounds
                        .iter()
                        .map(Round::cpu_per_delivery)
                        .fold(0.0, f64::max),
                ),
            ),
            (
                "ack_p50_us",
                rounded(self.median(|r| r.acks.quantile_us(0.5))),
            ),
            (
                "ack_p99_us",
                rounded(self.median(|r| r.acks.quantile_us(0.99))),
            ),
            (
                "delivery_p50_us",
                rounded(self.median(|r| r.delays.quantile_us(0.5))),
            ),
            (
                "delivery_p99_us",
                rounded(self.median(|r| r.delays.quantile_us(0.99))),
            ),
        ]
    }
}
