//! One seeded run: servers, nodes, clients, what happens to them, and what the clients' history says of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mortise_protocol::identity::{GroupId, LogSeq, OrgId, UserId};
use mortise_relay::store::postgres::{PgStore, draw_lane};
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::book::Book;
use super::client::{Client, Field, State, Wish};
use super::weather::{Blow, Sky, Weather};
use super::{Door, Nats, Node, Postgres, Programs, Proxy, init};
use crate::bench::Progress;
use crate::bench::organisation::found;
use crate::history::{self, Fault, History, Tally, record};

const NODES: usize = 3;
const DEVICES: usize = 8;
const GROUPS: usize = 3;
const SUITE: u16 = 0x0001;
/// How long everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a node may take to come to a commit.
const CATCH: Duration = Duration::from_secs(10);
/// How long an order may take, and devices to hear of it: together less than the 2 s after which a database ends a
/// transaction that hangs.
const ANSWERED: Duration = Duration::from_millis(1_100);
const LOOKED: Duration = Duration::from_millis(400);

/// What a run has shown.
#[derive(Debug)]
pub struct Outcome {
    /// The checker's word: what was covered, or what is wrong.
    pub checked: Result<Tally, Fault>,
    /// What happened to the servers, by kind.
    pub blows: BTreeMap<&'static str, usize>,
    /// How long each part took, seconds: the servers and the organisation, the weather, coming to rest, checking.
    pub took: [f64; 4],
}

/// Why a run has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The servers, or the organisation, could not be had: nothing was shown.
    #[error("did not begin: {0:#}")]
    NotBegun(anyhow::Error),
    /// A client met what no node may say, a server did not come back, or it did not come to rest.
    #[error("{0:#}")]
    Broken(anyhow::Error),
}

/// Runs a seed under one weather.
///
/// # Errors
/// [`RunError`].
pub fn run(seed: u64, programs: &Programs, sky: Sky) -> Result<Outcome, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start a runtime")
        .map_err(RunError::NotBegun)?;
    runtime.block_on(async {
        let start = Instant::now();
        let prepared = Show::prepare(seed, programs, sky).await;
        let mut show = prepared.map_err(RunError::NotBegun)?;
        let outcome = show.go_on(start).await;
        if !matches!(&outcome, Ok(outcome) if outcome.checked.is_ok()) && programs.planted.is_none()
        {
            show.keep_logs(seed);
        }
        outcome.map_err(RunError::Broken)
    })
}

struct Show {
    postgres: Postgres,
    nats: Nats,
    nodes: Vec<Node>,
    field: Arc<Field>,
    clients: Vec<Client>,
    wish: watch::Sender<Wish>,
    leavers: Vec<UserId>,
    org: OrgId,
    history: History,
    weather: Weather,
    healing: JoinSet<()>,
    orders: watch::Sender<Vec<UserId>>,
    dir: TempDir,
}

impl Show {
    async fn prepare(seed: u64, programs: &Programs, sky: Sky) -> anyhow::Result<Self> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let postgres = Postgres::start_with_standby()?;
        let nats = Nats::start()?;
        let dir = tempfile::Builder::new()
            .prefix("mortise-cluster-")
            .tempdir()?;
        let first = dir.path().join("first");
        let mut claim = init(programs, &first, &postgres.address(), Some(&nats.address()))?;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let mut doors = Vec::new();
            for socket in postgres.sockets() {
                doors.push(Proxy::to(socket).await?);
            }
            nodes.push(Node::copy(programs, &first, number, doors)?);
        }
        start_all(&mut nodes)?;
        claim.relay.clone_from(&nodes[0].address);
        let founded = found(&claim, SUITE, DEVICES, &Progress::silent()).await?;
        let groups: Vec<GroupId> = (0..GROUPS)
            .map(|_| {
                let mut id = [0; 32];
                rng.fill_bytes(&mut id);
                GroupId(id)
            })
            .collect();
        let (wish, wishes) = watch::channel(Wish::Work);
        let (orders, asked) = watch::channel(Vec::new());
        let field = Arc::new(Field {
            org: founded.org,
            pin: claim.relay_key,
            book: Book::default(),
            nodes: Mutex::new(Vec::new()),
            avoided: Mutex::default(),
            states: Mutex::default(),
            orders: asked,
            commit_every: rng.random_range(5..40),
            pause_ms: *[4, 20].get(rng.random_range(0..2)).unwrap_or(&20),
        });
        let mut clients = Vec::new();
        for device in &founded.devices {
            let seeds = device.keys.context("a device without keys")?;
            let rng = ChaCha12Rng::seed_from_u64(rng.next_u64());
            let field = Arc::clone(&field);
            clients.push(Client::new(
                field,
                rng,
                &seeds,
                &groups,
                founded.head,
                wishes.clone(),
            ));
        }
        let weather = match sky {
            Sky::Everything => Weather::draw(&mut rng, NODES),
            Sky::AtCommits => Weather::at_commits(&mut rng, NODES),
        };
        let mut show = Self {
            postgres,
            nats,
            nodes,
            field,
            clients,
            wish,
            leavers: founded
                .devices
                .iter()
                .skip(1)
                .take(4)
                .map(|d| d.user)
                .collect(),
            org: founded.org,
            history: History {
                roster_before: founded.head.seq,
                ..History::default()
            },
            weather,
            healing: JoinSet::new(),
            orders,
            dir,
        };
        show.publish();
        if let Some(owner) = show.clients.first_mut() {
            owner.commands();
            owner.create_groups().await?;
        }
        Ok(show)
    }

    /// Tells the clients where nodes listen.
    fn publish(&self) {
        let addresses = self
            .nodes
            .iter()
            .map(|node| node.is_up().then(|| node.address.clone()));
        let mut nodes = self
            .field
            .nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *nodes = addresses.collect();
    }

    async fn go_on(&mut self, start: Instant) -> anyhow::Result<Outcome> {
        let prepared = Instant::now();
        let mut tasks = JoinSet::new();
        for client in std::mem::take(&mut self.clients) {
            tasks.spawn(client.run());
        }
        let mut blows = BTreeMap::new();
        for (pause, blow) in self.weather.blows.clone() {
            // A client that has met what no node may say ends everything at once.
            tokio::select! {
                biased;
                Some(ended) = tasks.join_next() => {
                    ended??;
                }
                () = super::pass(pause) => {}
            }
            if let Some(name) = tokio::task::block_in_place(|| self.strike(blow))? {
                *blows.entry(name).or_default() += 1;
            }
        }
        let healed = Instant::now();
        tokio::task::block_in_place(|| self.heal())?;
        self.wish.send_replace(Wish::Settle);
        let rested = self.rest(&mut tasks).await;
        self.wish.send_replace(Wish::Stop);
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        rested?;
        let rested = Instant::now();
        let checked = history::check(&self.finish()?);
        let ends = [prepared, healed, rested, Instant::now()];
        let starts = [start, prepared, healed, rested];
        Ok(Outcome {
            checked,
            blows,
            took: std::array::from_fn(|n| (ends[n] - starts[n]).as_secs_f64()),
        })
    }

    fn strike(&mut self, blow: Blow) -> anyhow::Result<Option<&'static str>> {
        Ok(Some(match blow {
            Blow::Calm => return Ok(None),
            Blow::KillNode(n) => {
                if let Some(node) = self.nodes.get_mut(n) {
                    node.kill();
                }
                self.publish();
                "nodes killed"
            }
            Blow::StartNodes => {
                let down = self.nodes.iter().filter(|node| !node.is_up());
                for proxy in down.flat_map(|node| &node.doors) {
                    proxy.set(Door::Open);
                }
                start_all(&mut self.nodes)?;
                self.publish();
                "nodes started"
            }
            Blow::StopNats => {
                self.nats.stop()?;
                "NATS stopped"
            }
            Blow::StartNats => {
                self.nats.go_on()?;
                "NATS started"
            }
            Blow::RestartPostgres => {
                self.postgres.restart(Signal::QUIT)?;
                "PostgreSQL restarted"
            }
            Blow::FailOver if self.postgres.has_standby() => {
                self.postgres.fail_over()?;
                "failovers"
            }
            Blow::FailOver => return Ok(None),
            Blow::Hold(n, ms) => {
                self.door(n, Door::Held, ms);
                "nodes held"
            }
            Blow::Cut(n, ms) => {
                self.door(n, Door::Shut, ms);
                "nodes cut off"
            }
            Blow::OrderAtCommit(n) => {
                let waiting = self.order_at_commit(n);
                return tokio::runtime::Handle::current().block_on(waiting);
            }
            Blow::Order => {
                let Some(user) = self.leavers.pop() else {
                    return Ok(None);
                };
                self.orders.send_modify(|orders| orders.push(user));
                "orders"
            }
        }))
    }

    /// Holds a node that has decided and not committed, has somebody removed on another one, and lets go before the
    /// database does. With the lane the order waits for that commit; without, it does not.
    async fn order_at_commit(&mut self, n: usize) -> anyhow::Result<Option<&'static str>> {
        let node = self.nodes.get(n).context("no such node")?;
        let field = Arc::clone(&self.field);
        let avoid = |node: Option<String>| {
            *field.avoided.lock().unwrap_or_else(PoisonError::into_inner) = node;
        };
        avoid(Some(node.address.clone()));
        let mut catching = JoinSet::new();
        for door in &node.doors {
            let mut caught = door.caught();
            let before = *caught.borrow();
            door.set(Door::HeldAtCommit);
            catching.spawn(async move { caught.wait_for(|now| *now > before).await.is_ok() });
        }
        let caught = tokio::time::timeout(CATCH, catching.join_next()).await;
        let mut happened = None;
        if caught.is_ok()
            && let Some(user) = self.leavers.pop()
        {
            let before = self.field.book.newest().map(|head| head.seq);
            self.orders.send_modify(|orders| orders.push(user));
            let until = Instant::now() + ANSWERED;
            while Instant::now() < until && self.field.book.newest().map(|head| head.seq) == before
            {
                super::pass(Duration::from_millis(10)).await;
            }
            // Whoever hears of the order looks where the logs are.
            super::pass(LOOKED).await;
            happened = Some("orders at a commit");
        }
        for door in &node.doors {
            door.set(Door::Open);
        }
        avoid(None);
        Ok(happened)
    }

    /// Moves the doors between a node and the database, and opens them again later.
    fn door(&mut self, n: usize, door: Door, ms: u64) {
        let Some(node) = self.nodes.get(n) else {
            return;
        };
        for proxy in &node.doors {
            proxy.set(door);
            let opener = proxy.opener();
            self.healing.spawn(async move {
                super::pass(Duration::from_millis(ms)).await;
                opener.open();
            });
        }
    }

    fn heal(&mut self) -> anyhow::Result<()> {
        self.healing.abort_all();
        for proxy in self.nodes.iter().flat_map(|node| &node.doors) {
            proxy.set(Door::Open);
        }
        self.nats.go_on()?;
        start_all(&mut self.nodes)?;
        self.publish();
        Ok(())
    }

    /// Waits until nobody has an open question and every admitted device has read every log to its end.
    async fn rest(&self, tasks: &mut JoinSet<anyhow::Result<Client>>) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            tokio::select! {
                biased;
                Some(ended) = tasks.join_next() => {
                    ended??;
                }
                () = super::pass(Duration::from_millis(50)) => {}
            }
            let states = self.states();
            if states.values().all(|state| state.is_quiet) && is_read(&states, &self.heads()?) {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "it does not come to rest: {states:?}"
            );
        }
    }

    fn states(&self) -> BTreeMap<mortise_protocol::identity::DeviceId, State> {
        let states = self.field.states.lock();
        states.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where each log ends.
    fn heads(&self) -> anyhow::Result<BTreeMap<GroupId, LogSeq>> {
        let logs = self.look(record::logs)?;
        Ok(logs
            .into_iter()
            .map(|(id, log)| (id, LogSeq(log.len() as u64)))
            .collect())
    }

    /// Reads the database: on a thread of its own, since the store waits.
    fn look<T: Send>(&self, what: impl FnOnce(&PgStore) -> T + Send) -> anyhow::Result<T> {
        let address = self.postgres.address();
        std::thread::scope(|scope| {
            let looking = scope.spawn(move || {
                let store = PgStore::open(&address, draw_lane()?)?;
                anyhow::Ok(what(&store))
            });
            let looked = looking.join();
            looked.map_err(|_| anyhow::anyhow!("the database does not hold what a relay writes"))?
        })
    }

    fn finish(&mut self) -> anyhow::Result<History> {
        let org = self.org;
        let (logs, roster) =
            self.look(|store| (record::logs(store), record::roster(store, org)))?;
        let mut history = self.field.book.take();
        history.roster_before = self.history.roster_before;
        (history.logs, history.roster) = (logs, roster);
        Ok(history)
    }

    /// Leaves what the nodes have said for whoever looks into a failure.
    fn keep_logs(&self, seed: u64) {
        let name = format!("mortise-cluster-failed-{}-{seed}", std::process::id());
        let kept = std::env::temp_dir().join(name);
        if copy_logs(self.dir.path(), &kept).is_ok() {
            eprintln!("what the nodes have said is in {}", kept.display());
        }
    }
}

/// Whether every admitted device has read every log.
fn is_read(
    states: &BTreeMap<mortise_protocol::identity::DeviceId, State>,
    heads: &BTreeMap<GroupId, LogSeq>,
) -> bool {
    let mut admitted = states.values().filter(|state| !state.is_removed);
    admitted.all(|state| {
        heads
            .iter()
            .all(|(group, head)| state.cursors.get(group) == Some(head))
    })
}

fn start_all(nodes: &mut [Node]) -> anyhow::Result<()> {
    nodes
        .iter_mut()
        .filter(|node| !node.is_up())
        .try_for_each(Node::start)
}

fn copy_logs(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
