//! How a relay of several nodes over PostgreSQL behaves under a load, computed from what each step was measured to cost.
//!
//! A queueing simulation without randomness: senders in closed loops, one committer per node that takes what has queued,
//! two journeys to the database for each batch, a disk that many commits share, hints to the other nodes, and processors
//! that all of it shares or has for itself. It reproduces the points that `./x bench cluster` has measured (within
//! 15 %, by test); docs/scale.md carries it further. This module must never know a result that it is to reproduce: it
//! is given costs, and gives rates.

#![allow(clippy::cast_precision_loss)]

mod machine;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use machine::Disk;
pub use machine::Processors;

/// Events that one batch takes.
const MAX_BATCH: usize = 512;

/// What steps cost, µs.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A node, for each transaction.
    pub node_transaction: f64,
    /// A node, for each append.
    pub node_append: f64,
    /// A node, for each delivery.
    pub node_delivery: f64,
    /// The database, for each transaction.
    pub database_transaction: f64,
    /// The database, for each append.
    pub database_append: f64,
    /// Whoever sends and reads, for each append and for each delivery, where they are on the same machine.
    pub load_append: f64,
    /// As above.
    pub load_delivery: f64,
    /// From the sync's begin to its end.
    pub sync: f64,
}

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Groups, each with one sender.
    pub groups: usize,
    /// Devices of each group, spread over the nodes.
    pub members: usize,
    /// Messages of one sender that wait for their acknowledgement.
    pub in_flight: usize,
    /// Messages of one sender in all.
    pub messages: usize,
}

/// What it runs on.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Nodes.
    pub nodes: usize,
    /// Processors, shared by nodes, database and load.
    pub processors: usize,
}

/// What comes of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Appends per second.
    pub appends_per_s: f64,
    /// Transactions for each append, those of nodes that only read included.
    pub transactions_per_append: f64,
    /// The nodes' processor time for each append, µs.
    pub node_us_per_append: f64,
    /// The database's processor time for each append, µs.
    pub database_us_per_append: f64,
    /// From sending to the acknowledgement, the middle one, ms.
    pub ack_p50_ms: f64,
}

/// Runs the load to its end.
#[must_use]
pub fn simulate(costs: &Costs, load: &Load, place: &Place) -> Outcome {
    let mut world = World::new(*costs, *load, *place);
    for sender in 0..load.groups {
        for _ in 0..load.in_flight.min(load.messages) {
            world.send(0.0, sender);
        }
    }
    while let Some(Reverse(due)) = world.queue.pop() {
        world.now = due.at();
        world.happen(due.what);
    }
    world.outcome()
}

/// What happens at some time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A message is at its node.
    Arrives { group: usize, sent: u64 },
    /// A node may begin a batch.
    Begins { node: usize },
    /// A node has decided, and commits.
    Decided { node: usize },
    /// A node's batch is durable.
    Committed { node: usize },
    /// A node may take the next batch.
    Free { node: usize },
}

/// An event; times in whole ns so that they have an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    ns: u64,
    order: u64,
    what: What,
}

impl Due {
    #[allow(clippy::cast_precision_loss)]
    fn at(&self) -> f64 {
        self.ns as f64 / 1_000.0
    }
}

#[derive(Debug, Default)]
struct Node {
    waiting: VecDeque<(usize, u64)>,
    /// Groups that others have written to.
    hints: BTreeSet<usize>,
    batch: Vec<(usize, u64)>,
    /// Records of other nodes' that the batch gives to local readers.
    followed: usize,
    is_busy: bool,
}

struct World {
    costs: Costs,
    load: Load,
    place: Place,
    now: f64,
    order: u64,
    queue: BinaryHeap<Reverse<Due>>,
    nodes: Vec<Node>,
    processors: Processors,
    disk: Disk,
    sent: Vec<usize>,
    /// Records of each group that a node has not pushed yet.
    unseen: Vec<Vec<usize>>,
    appends: usize,
    transactions: usize,
    node_us: f64,
    database_us: f64,
    acks: Vec<f64>,
    end: f64,
}

impl World {
    fn new(costs: Costs, load: Load, place: Place) -> Self {
        Self {
            costs,
            load,
            place,
            now: 0.0,
            order: 0,
            queue: BinaryHeap::new(),
            nodes: (0..place.nodes).map(|_| Node::default()).collect(),
            processors: Processors::new(place.processors),
            disk: Disk::new(costs.sync),
            sent: vec![0; load.groups],
            unseen: vec![vec![0; load.groups]; place.nodes],
            appends: 0,
            transactions: 0,
            node_us: 0.0,
            database_us: 0.0,
            acks: Vec::new(),
            end: 0.0,
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn at(&mut self, us: f64, what: What) {
        self.order += 1;
        let ns = (us * 1_000.0) as u64;
        let order = self.order;
        self.queue.push(Reverse(Due { ns, order, what }));
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn send(&mut self, now: f64, group: usize) {
        if self.sent[group] == self.load.messages {
            return;
        }
        self.sent[group] += 1;
        let arrives = self.processors.run(now, self.costs.load_append);
        let sent = (now * 1_000.0) as u64;
        self.at(arrives, What::Arrives { group, sent });
    }

    /// The node that a group's sender is connected to.
    fn home(&self, group: usize) -> usize {
        group % self.place.nodes
    }

    /// How many of a group's readers are connected to a node.
    fn readers(&self, node: usize, group: usize) -> usize {
        let (all, nodes) = (self.load.members, self.place.nodes);
        let shift = (node + nodes - group % nodes) % nodes;
        all / nodes + usize::from(shift < all % nodes)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrives { group, sent } => {
                let node = self.home(group);
                self.nodes[node].waiting.push_back((group, sent));
                self.wake(node);
            }
            What::Begins { node } => self.begin(node),
            What::Decided { node } => self.commit(node),
            What::Committed { node } => self.push(node),
            What::Free { node } => {
                self.nodes[node].is_busy = false;
                self.wake(node);
            }
        }
    }

    fn wake(&mut self, node: usize) {
        let waits = &self.nodes[node];
        if !waits.is_busy && !(waits.waiting.is_empty() && waits.hints.is_empty()) {
            self.nodes[node].is_busy = true;
            let now = self.now;
            self.at(now, What::Begins { node });
        }
    }

    /// The first journey: locks and reads; then the node decides.
    fn begin(&mut self, node: usize) {
        let here = &mut self.nodes[node];
        let take = here.waiting.len().min(MAX_BATCH);
        here.batch = here.waiting.drain(..take).collect();
        let hints = std::mem::take(&mut here.hints);
        let of_batch: BTreeSet<usize> = here.batch.iter().map(|(group, _)| *group).collect();
        here.followed = 0;
        for group in hints.union(&of_batch) {
            let unseen = std::mem::take(&mut self.unseen[node][*group]);
            self.nodes[node].followed += unseen * self.readers(node, *group);
        }
        self.transactions += 1;
        let appends = self.nodes[node].batch.len() as f64;
        let database = self.costs.database_transaction / 2.0;
        let decides = self.costs.node_transaction + self.costs.node_append * appends;
        let read = self.database(self.now, database);
        let decided = self.node_work(read, decides);
        self.at(decided, What::Decided { node });
    }

    /// The second journey: writes, and the sync that commits share.
    fn commit(&mut self, node: usize) {
        let appends = self.nodes[node].batch.len();
        let database =
            self.costs.database_transaction / 2.0 + self.costs.database_append * appends as f64;
        let written = self.database(self.now, database);
        let durable = match appends {
            0 => written,
            _ => self.disk.sync(written),
        };
        self.at(durable, What::Committed { node });
    }

    /// Acknowledgements and pushes, then hints.
    fn push(&mut self, node: usize) {
        let now = self.now;
        let batch = std::mem::take(&mut self.nodes[node].batch);
        let own: usize = batch
            .iter()
            .map(|(group, _)| self.readers(node, *group))
            .sum();
        let delivered = (own + self.nodes[node].followed) as f64;
        let pushed = self.node_work(now, self.costs.node_delivery * delivered);
        let heard = self
            .processors
            .run(pushed, self.costs.load_delivery * delivered);
        self.end = self.end.max(heard);
        for (group, sent) in batch {
            self.appends += 1;
            self.acks.push(pushed - sent as f64 / 1_000.0);
            self.send(pushed, group);
            for other in (0..self.place.nodes).filter(|other| *other != node) {
                self.unseen[other][group] += 1;
                self.nodes[other].hints.insert(group);
            }
        }
        for other in (0..self.place.nodes).filter(|other| *other != node) {
            self.wake(other);
        }
        self.at(now, What::Free { node });
    }

    fn node_work(&mut self, at: f64, us: f64) -> f64 {
        self.node_us += us;
        self.processors.run(at, us)
    }

    fn database(&mut self, at: f64, us: f64) -> f64 {
        self.database_us += us;
        self.processors.run(at, us)
    }

    fn outcome(mut self) -> Outcome {
        self.acks.sort_by(f64::total_cmp);
        let appends = self.appends as f64;
        Outcome {
            appends_per_s: appends / (self.end / 1_000_000.0),
            transactions_per_append: self.transactions as f64 / appends,
            node_us_per_append: self.node_us / appends,
            database_us_per_append: self.database_us / appends,
            ack_p50_ms: self
                .acks
                .get(self.acks.len() / 2)
                .copied()
                .unwrap_or(f64::NAN)
                / 1_000.0,
        }
    }
}
