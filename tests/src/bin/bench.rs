//! `./x bench`: what the product costs, measured on real parts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mortise_tests::bench::{self, Progress, Report, large, mls, offboard, relay, worker};

/// Measures what Mortise costs. Numbers go to standard output, progress to standard error.
#[derive(Parser)]
#[command(name = "bench", bin_name = "./x bench")]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// A large group in real processes: create it, talk in it, remove somebody
    Large(Large),
    /// One person is offboarded from hundreds of groups: from the order to the last removal commit
    Offboard(Offboard),
    /// One of many is removed, and everybody brought into the new epoch: beside openmls and mls-rs
    Departure(Mls),
    /// Encrypt and persist, receive and persist: beside openmls and mls-rs
    Sendpath(Mls),
    /// One group of 50, one sender with 64 in flight: deliveries per second, and what each costs the relay
    Firehose(Compare),
    /// 200 groups of 10, 200 senders at once
    Rooms(Compare),
    /// One group of 50, one message at a time
    Latency(Compare),
    /// Connections that are authenticated, subscribed and silent: memory and processor time of each
    Idle {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        connections: usize,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// From SIGKILL to the first answer, with many records
    Recover {
        /// How many records
        #[arg(long, value_name = "N", default_value_t = 5_000_000)]
        records: u64,
        /// How often it is killed
        #[arg(long, value_name = "N", default_value_t = 5)]
        rounds: usize,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// One reader that pulls a long log, and 500 that come back at once after a restart
    #[command(name = "catchup-relay")]
    Catchup {
        /// How many records the log has
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        records: u64,
        /// Rounds of each
        #[arg(long, value_name = "N", default_value_t = 5)]
        rounds: usize,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// The storage engine alone, against a raw file, SQLite and fjall on the same disk
    Append {
        /// Rounds of each side and batch size
        #[arg(long, value_name = "N", default_value_t = 5)]
        rounds: usize,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// The loads of firehose and rooms on one, two and three nodes over PostgreSQL: what a message costs them
    Cluster {
        /// Rounds of each load on each number of nodes
        #[arg(long, value_name = "N", default_value_t = 3)]
        rounds: usize,
        /// Commits wait for a synchronous standby
        #[arg(long)]
        standby: bool,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// A process of many devices; the bench starts it
    #[command(hide = true)]
    Worker {
        /// Where the fixture is, and where the devices keep their files
        #[arg(long)]
        dir: PathBuf,
        /// The first device
        #[arg(long)]
        first: usize,
        /// How many devices
        #[arg(long)]
        count: usize,
    },
}

#[derive(clap::Args)]
struct Large {
    /// Devices in the group
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    members: usize,
    /// Processes that share them; each has three devices at least
    #[arg(long, value_name = "N", default_value_t = 20)]
    processes: usize,
    /// The MLS ciphersuite: 0x004F (hybrid post-quantum) or 0x0001
    #[arg(long, default_value = "0x004F", value_parser = suite)]
    suite: u16,
    /// Messages that each process sends
    #[arg(long, value_name = "N", default_value_t = 3)]
    messages: usize,
    /// Seconds that the group is left alone to warm its tree
    #[arg(long, value_name = "N", default_value_t = 60)]
    warm: u64,
    /// Devices of each process that come online at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    at_once: usize,
    /// Minutes that all of it may take
    #[arg(long, value_name = "N", default_value_t = 45)]
    minutes: u64,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Keep all files, and say where they are
    #[arg(long)]
    keep: bool,
}

#[derive(clap::Args)]
struct Offboard {
    /// Groups that the leaver is in
    #[arg(long, value_name = "N", default_value_t = 500)]
    groups: usize,
    /// Members of each, the leaver among them
    #[arg(long, value_name = "N", default_value_t = 20)]
    members: usize,
    /// Users of the organisation, each with one device
    #[arg(long, value_name = "N", default_value_t = 60)]
    users: usize,
    /// Devices that stay online
    #[arg(long, value_name = "N", default_value_t = 10)]
    online: usize,
    /// The MLS ciphersuite: 0x004F (hybrid post-quantum) or 0x0001
    #[arg(long, default_value = "0x004F", value_parser = suite)]
    suite: u16,
    /// What decides who is in which group
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Seconds that the groups have to be rotated
    #[arg(long, value_name = "N", default_value_t = 120)]
    seconds: u64,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

impl Offboard {
    fn run(&self) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(
            (2..=self.users).contains(&self.members) && (1..self.users).contains(&self.online),
            "members must be from 2 to users, and online less than users"
        );
        let options = offboard::Options {
            groups: self.groups,
            members: self.members,
            users: self.users,
            online: self.online,
            suite: self.suite,
            seed: self.seed,
            limit: Duration::from_secs(self.seconds),
        };
        bench::run("offboard", self.json, |progress, report| {
            offboard::measure(&options, progress, report)
        })
    }
}

#[derive(clap::Args)]
struct Mls {
    /// Sizes of the group [default: 10,100,1000,5000; for sendpath 10,1000]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    sizes: Vec<usize>,
    /// The MLS ciphersuite [default: both]
    #[arg(long, value_parser = suite)]
    suite: Option<u16>,
    /// How often each group is made anew
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

impl Mls {
    fn run(
        &self,
        name: &'static str,
        sizes: &[usize],
        measure: fn(&mls::Options, &Progress, &mut Report) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let wanted = if self.sizes.is_empty() {
            sizes
        } else {
            &self.sizes
        };
        anyhow::ensure!(
            wanted.iter().all(|size| *size >= 4) && self.rounds > 0,
            "a group has four members at least, and there is one round at least"
        );
        let options = mls::Options {
            sizes: wanted.to_vec(),
            suites: self.suite.map_or(vec![0x0001, 0x004F], |suite| vec![suite]),
            rounds: self.rounds,
        };
        bench::run(name, self.json, |progress, report| {
            measure(&options, progress, report)
        })
    }
}

#[derive(clap::Args)]
struct Compare {
    /// Rounds of each system
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Messages of each sender in one round
    #[arg(long, value_name = "N")]
    messages: Option<usize>,
    /// Without Redis and NATS, for a profile
    #[arg(long)]
    alone: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

impl Compare {
    fn run(
        &self,
        name: &'static str,
        measure: fn(relay::Options, &Progress, &mut Report) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let options = relay::Options {
            rounds: self.rounds,
            messages: self.messages,
            alone: self.alone,
        };
        bench::run(name, self.json, |progress, report| {
            measure(options, progress, report)
        })
    }
}

fn suite(text: &str) -> Result<u16, String> {
    match text.to_ascii_lowercase().as_str() {
        "0x0001" => Ok(0x0001),
        "0x004f" => Ok(0x004F),
        _ => Err("must be 0x004F or 0x0001".into()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().bench {
        Bench::Worker { dir, first, count } => {
            worker::serve(&dir, first, count)?;
            Ok(ExitCode::SUCCESS)
        }
        Bench::Offboard(args) => args.run(),
        Bench::Departure(args) => args.run("departure", &[10, 100, 1_000, 5_000], mls::departure),
        Bench::Sendpath(args) => args.run("sendpath", &[10, 1_000], mls::sendpath),
        Bench::Firehose(args) => args.run("firehose", relay::firehose),
        Bench::Rooms(args) => args.run("rooms", relay::rooms),
        Bench::Latency(args) => args.run("latency", relay::latency),
        Bench::Idle { connections, json } => bench::run("idle", json, |progress, report| {
            relay::idle(connections, progress, report)
        }),
        Bench::Recover {
            records,
            rounds,
            json,
        } => bench::run("recover", json, |progress, report| {
            relay::recover(records, rounds, progress, report)
        }),
        Bench::Catchup {
            records,
            rounds,
            json,
        } => bench::run("catchup-relay", json, |progress, report| {
            relay::catchup(records, rounds, progress, report)
        }),
        Bench::Append { rounds, json } => bench::run("append", json, |progress, report| {
            relay::append(rounds, progress, report)
        }),
        Bench::Cluster {
            rounds,
            standby,
            json,
        } => bench::run("cluster", json, |progress, report| {
            let options = relay::ClusterOptions { rounds, standby };
            relay::cluster(options, progress, report)
        }),
        Bench::Large(args) => {
            anyhow::ensure!(
                args.processes > 0 && args.members >= 3 * args.processes,
                "each process needs three devices at least"
            );
            let options = large::Options {
                members: args.members,
                processes: args.processes,
                suite: args.suite,
                messages: args.messages,
                warm: Duration::from_secs(args.warm),
                at_once: args.at_once.max(1),
                limit: Duration::from_secs(60 * args.minutes),
                keep: args.keep,
            };
            bench::run("large", args.json, |progress, report| {
                large::measure(&options, progress, report)
            })
        }
    }
}
