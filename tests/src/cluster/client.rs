//! A device that goes from node to node: it reads every group, writes into them, and asks again what was not answered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use mortise_client::machine::now_ms;
use mortise_client::transport::{self, Connection};
use mortise_protocol::identity::{
    DeviceId, GroupId, Hash, LogSeq, OrgId, RosterSeq, SigningKey, UserId,
};
use mortise_protocol::roster::{EntrySigner, Head, Op, SignedEntry, sign_entry};
use mortise_protocol::wire::{
    ClientToRelay, Push, Refusal, RelayToClient, Request, RequestId, Response,
};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _};
use rand_chacha::ChaCha12Rng;
use tokio::sync::watch;

use super::book::{Asked, Book};
use super::records::Reading;

const CONNECT: Duration = Duration::from_secs(2);
/// Questions of one device that may be under way.
const IN_FLIGHT: usize = 8;
/// Connections that are tried before anything happens.
const TRIES: usize = 10;
/// Records after which a device gives new credit.
const RENEW: u64 = 500;

/// What the clients of a run share.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) org: OrgId,
    pub(super) pin: Hash,
    pub(super) book: Book,
    /// Where the nodes listen, as far as they run.
    pub(super) nodes: Mutex<Vec<Option<String>>>,
    /// A node that whoever gives orders keeps away from.
    pub(super) avoided: Mutex<Option<String>>,
    /// Users whom the owner is to remove.
    pub(super) orders: watch::Receiver<Vec<UserId>>,
    /// How far each device is.
    pub(super) states: Mutex<BTreeMap<DeviceId, State>>,
    /// One commit in so many records.
    pub(super) commit_every: u32,
    /// The pause between two records of one device, ms at most.
    pub(super) pause_ms: u64,
}

/// How far a device is.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Nothing of its is open.
    pub(super) is_quiet: bool,
    pub(super) is_removed: bool,
    pub(super) cursors: BTreeMap<GroupId, LogSeq>,
}

impl Field {
    /// The nodes that a device may connect to.
    fn up(&self, commands: bool) -> Vec<String> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        let up = nodes.iter().flatten();
        up.filter(|node| !commands || avoided.as_ref() != Some(*node))
            .cloned()
            .collect()
    }
}

/// What somebody who runs the show asks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To write and read.
    Work,
    /// To write nothing more, to have everything answered, and to read to the end.
    Settle,
    /// To go.
    Stop,
}

/// A record, or a roster entry, whose fate is not known yet.
#[derive(Clone, Debug)]
enum Open {
    Record(Box<Reading>, Vec<u8>),
    Order(Order),
}

/// An order that was given.
#[derive(Clone, Debug)]
struct Order {
    user: UserId,
    entry: Vec<u8>,
    /// Where the roster ends with it.
    head: Head,
}

/// One device.
pub(super) struct Client {
    pub(super) field: Arc<Field>,
    pub(super) rng: ChaCha12Rng,
    pub(super) mls: SigningKey,
    pub(super) transport: Arc<SigningKey>,
    pub(super) groups: Vec<Reading>,
    pub(super) head: Head,
    /// How many of the orders were given; only the owner's device gives any.
    ordered: Option<usize>,
    /// Orders that met a roster whose end was not known here, and that end.
    overtaken: Vec<(Order, RosterSeq)>,
    /// The entries that were learned.
    chain: BTreeMap<RosterSeq, Hash>,
    pub(super) wish: watch::Receiver<Wish>,
    unsettled: VecDeque<Open>,
    is_removed: bool,
}

/// One connection of a device.
struct Line {
    connection: Connection,
    /// Of the node.
    address: String,
    asked: u64,
    pending: HashMap<RequestId, (Asked, Option<Open>)>,
}

impl Client {
    pub(super) fn new(
        field: Arc<Field>,
        rng: ChaCha12Rng,
        seeds: &[[u8; 32]; 3],
        groups: &[GroupId],
        head: Head,
        wish: watch::Receiver<Wish>,
    ) -> Self {
        Self {
            field,
            rng,
            mls: SigningKey::from_seed(&seeds[0]),
            transport: Arc::new(SigningKey::from_seed(&seeds[1])),
            groups: groups.iter().map(|id| Reading::from_start(*id)).collect(),
            head,
            ordered: None,
            overtaken: Vec::new(),
            chain: BTreeMap::new(),
            wish,
            unsettled: VecDeque::new(),
            is_removed: false,
        }
    }

    pub(super) fn device(&self) -> DeviceId {
        self.mls.public().device_id()
    }

    /// Makes the groups, on one connection.
    pub(super) async fn create_groups(&mut self) -> anyhow::Result<()> {
        let mut line = self.connect_patiently().await?;
        for group in self.groups.clone() {
            let request = group.create();
            self.ask(&mut line, request, None)?;
        }
        while !line.pending.is_empty() {
            match line.connection.recv().await {
                Some(frame) => self.hear(&mut line, frame)?,
                None => bail!("the relay is gone"),
            }
        }
        line.connection.close().await;
        Ok(())
    }

    /// Works until it is told to stop.
    pub(super) async fn run(mut self) -> anyhow::Result<Self> {
        while *self.wish.borrow() != Wish::Stop {
            self.is_away();
            let Ok(mut line) = self.connect().await else {
                self.idle(Duration::from_millis(30)).await;
                continue;
            };
            let result = self.work(&mut line).await;
            // Whatever was not answered is asked again: on the next connection, perhaps of another node.
            let left = line.pending.into_values().filter_map(|(_, open)| open);
            self.unsettled.extend(left);
            line.connection.close().await;
            if let Err(error) = result
                && error.downcast_ref::<Gone>().is_none()
            {
                return Err(error);
            }
        }
        Ok(self)
    }

    /// Connects on a machine that has much else to do.
    async fn connect_patiently(&mut self) -> anyhow::Result<Line> {
        for _ in 0..TRIES {
            if let Ok(line) = self.connect().await {
                return Ok(line);
            }
        }
        self.connect().await
    }

    /// Whoever is not connected does not know what there is.
    fn is_away(&self) {
        let mut states = self
            .field
            .states
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get_mut(&self.device()) {
            state.is_quiet = false;
        }
    }

    async fn idle(&self, time: Duration) {
        let mut wish = self.wish.clone();
        let _ = tokio::time::timeout(time, wish.wait_for(|wish| *wish == Wish::Stop)).await;
    }

    async fn connect(&mut self) -> anyhow::Result<Line> {
        let up = self.field.up(self.ordered.is_some());
        let Some(address) = up.choose(&mut self.rng).cloned() else {
            bail!("no node runs");
        };
        let key = Arc::clone(&self.transport);
        let connection = transport::connect(&address, self.field.pin, key, CONNECT).await?;
        let mut line = Line {
            connection,
            address,
            asked: 0,
            pending: HashMap::new(),
        };
        let (org, roster_seq) = (self.field.org, self.head.seq);
        self.ask(&mut line, Request::Hello { org, roster_seq }, None)?;
        // A greeting that is not answered in time is a node that has lost its database.
        let greeted = tokio::time::timeout(CONNECT * 5, async {
            while !line.pending.is_empty() {
                match line.connection.recv().await {
                    Some(frame) => self.hear(&mut line, frame)?,
                    None => return Err(Gone.into()),
                }
            }
            Ok(())
        });
        match greeted.await {
            Ok(result) => result.map(|()| line),
            Err(_) => Err(Gone.into()),
        }
    }

    fn ask(&self, line: &mut Line, request: Request, open: Option<Open>) -> anyhow::Result<()> {
        line.asked += 1;
        let id = RequestId(line.asked);
        let asked = self.field.book.ask(self.device(), &request);
        line.pending.insert(id, (asked, open));
        let sent = line.connection.send(&ClientToRelay { id, request });
        sent.map_err(|_| Gone.into())
    }

    async fn work(&mut self, line: &mut Line) -> anyhow::Result<()> {
        let after = self.head.seq;
        self.ask(line, Request::FetchRoster { after }, None)?;
        let binding = line.connection.binding();
        for group in self.groups.clone() {
            self.ask(line, group.subscribe(&binding), None)?;
        }
        // How long it stays with one node.
        let stay = Duration::from_millis(self.rng.random_range(300..4_000));
        let until = tokio::time::Instant::now() + stay;
        loop {
            self.report(line);
            // What a machine that is still there says of a port that nobody listens on; QUIC by itself notices after 30 s.
            if !self
                .field
                .up(self.ordered.is_some())
                .contains(&line.address)
            {
                return Err(Gone.into());
            }
            let wish = *self.wish.borrow();
            let is_over = tokio::time::Instant::now() > until && wish == Wish::Work;
            if wish == Wish::Stop || is_over && !self.is_removed {
                return Ok(());
            }
            let pause = Duration::from_millis(self.rng.random_range(0..self.field.pause_ms));
            // Biased: what was told is heard before anything more is said.
            tokio::select! {
                biased;
                frame = line.connection.recv() => match frame {
                    Some(frame) => self.hear(line, frame)?,
                    None => return Err(Gone.into()),
                },
                () = super::pass(pause) => self.act(line)?,
            }
        }
    }

    /// Says the next thing.
    fn act(&mut self, line: &mut Line) -> anyhow::Result<()> {
        if line.pending.len() >= IN_FLIGHT {
            return Ok(());
        }
        let binding = line.connection.binding();
        if let Some(open) = self.unsettled.pop_front() {
            let request = match &open {
                Open::Record(reading, payload) => reading.submit(&binding, payload.clone()),
                Open::Order(order) => append(order.entry.clone()),
            };
            return self.ask(line, request, Some(open));
        }
        if let Some(user) = self.next_order() {
            return self.order(line, user);
        }
        if *self.wish.borrow() != Wish::Work {
            return Ok(());
        }
        let Some(group) = self.groups.choose(&mut self.rng).cloned() else {
            return Ok(());
        };
        if self.rng.random_ratio(1, 20) {
            return self.ask(line, group.subscribe(&binding), None);
        }
        let mut filler = [0; 32];
        self.rng.fill_bytes(&mut filler);
        let head = match self.field.book.newest() {
            // A removed device knows from somebody what the roster's newest entry is.
            Some(newest) if self.is_removed || self.rng.random_ratio(1, 10) => newest,
            _ => self.head,
        };
        let payload = if self.rng.random_ratio(1, self.field.commit_every) {
            group.commit(head, filler, &self.mls)
        } else {
            group.message(head, filler)
        };
        let request = group.submit(&binding, payload.clone());
        self.ask(line, request, Some(Open::Record(Box::new(group), payload)))
    }

    /// This device gives the orders.
    pub(super) fn commands(&mut self) {
        self.ordered = Some(0);
    }

    fn next_order(&mut self) -> Option<UserId> {
        let known = self.head.seq;
        if let Some(at) = self.overtaken.iter().position(|(_, end)| *end <= known) {
            let (order, _) = self.overtaken.swap_remove(at);
            // What overtook it may be itself: sent on an earlier connection, and never answered.
            if self.chain.get(&order.head.seq) != Some(&order.head.hash) {
                return Some(order.user);
            }
        }
        let given = self.ordered.as_mut()?;
        let user = self.field.orders.borrow().get(*given).copied()?;
        *given += 1;
        Some(user)
    }

    fn has_orders(&self) -> bool {
        let asked = self.field.orders.borrow().len();
        self.ordered.is_some_and(|given| given < asked) || !self.overtaken.is_empty()
    }

    /// Removes a user.
    fn order(&mut self, line: &mut Line, user: UserId) -> anyhow::Result<()> {
        let signer = EntrySigner::Device(self.device());
        let ops = vec![Op::RemoveUser { user }];
        let entry = sign_entry(self.field.org, self.head, now_ms(), signer, &self.mls, ops);
        let head = entry.head();
        let entry = entry.into_bytes();
        let request = append(entry.clone());
        self.ask(
            line,
            request,
            Some(Open::Order(Order { user, entry, head })),
        )
    }

    fn hear(&mut self, line: &mut Line, frame: RelayToClient) -> anyhow::Result<()> {
        match &frame {
            RelayToClient::Response { id, response } => {
                let Some((asked, open)) = line.pending.remove(id) else {
                    bail!("an answer to nothing");
                };
                self.field.book.answer(asked, &frame);
                self.settle(line, response, open)
            }
            RelayToClient::Push(Push::Records { group, records }) => {
                self.field.book.deliver(self.device(), *group, records);
                self.read(line, *group, records)
            }
            RelayToClient::Push(Push::RosterEntry { entry, .. }) => {
                self.learn(line, entry.as_slice())
            }
            RelayToClient::Push(_) => Ok(()),
        }
    }

    fn settle(
        &mut self,
        line: &mut Line,
        response: &Response,
        open: Option<Open>,
    ) -> anyhow::Result<()> {
        match response {
            Response::Hello { admitted, .. } => self.is_removed = !bool::from(*admitted),
            Response::Roster { entries, head } => {
                for entry in entries {
                    self.learn(line, entry.as_slice())?;
                }
                if self.head.seq < head.seq && !entries.is_empty() {
                    let after = self.head.seq;
                    self.ask(line, Request::FetchRoster { after }, None)?;
                }
            }
            Response::RosterAppended { head } => self.field.book.learn(*head),
            Response::Refused(Refusal::RosterConflict { head }) => {
                if let Some(Open::Order(order)) = open {
                    self.overtaken.push((order, head.seq));
                    let after = self.head.seq;
                    self.ask(line, Request::FetchRoster { after }, None)?;
                }
            }
            // It was not written, and is wanted.
            Response::Refused(Refusal::Storage) => self.unsettled.extend(open),
            Response::Refused(Refusal::RosterFork) if !self.is_removed => {
                bail!("the relay takes our roster for another one")
            }
            Response::Refused(Refusal::NotAdmitted) => self.is_removed = true,
            _ => {}
        }
        Ok(())
    }

    fn learn(&mut self, line: &mut Line, entry: &[u8]) -> anyhow::Result<()> {
        let head = SignedEntry::parse(entry)?.head();
        if head.seq <= self.head.seq {
            return Ok(());
        }
        if head.seq != self.head.seq.next() {
            // Pushed before what lies between was answered: a node may know more at the greeting than was read from the other.
            let after = self.head.seq;
            return self.ask(line, Request::FetchRoster { after }, None);
        }
        self.head = head;
        self.chain.insert(head.seq, head.hash);
        self.field.book.learn(head);
        // Who hears of an entry looks at where the logs are: that is a read after it.
        let binding = line.connection.binding();
        for group in self.groups.clone() {
            self.ask(line, group.subscribe(&binding), None)?;
        }
        Ok(())
    }

    fn read(
        &mut self,
        line: &mut Line,
        group: GroupId,
        records: &[mortise_protocol::wire::LogRecord],
    ) -> anyhow::Result<()> {
        let Some(reading) = self.groups.iter_mut().find(|reading| reading.id == group) else {
            bail!("records of a group that is not read");
        };
        let mut is_new = false;
        let before = reading.cursor.0 / RENEW;
        for record in records {
            is_new |= reading.take(record)?;
        }
        // The credit is not yet spent, and what is under way may come twice.
        if is_new || reading.cursor.0 / RENEW > before {
            let request = reading.subscribe(&line.connection.binding());
            self.ask(line, request, None)?;
        }
        Ok(())
    }

    /// Says how far it is.
    fn report(&self, line: &Line) {
        let state = State {
            is_quiet: line.pending.is_empty() && self.unsettled.is_empty() && !self.has_orders(),
            is_removed: self.is_removed,
            cursors: self.groups.iter().map(|g| (g.id, g.cursor)).collect(),
        };
        let mut states = self
            .field
            .states
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        states.insert(self.device(), state);
    }
}

fn append(entry: Vec<u8>) -> Request {
    Request::AppendRoster {
        entry: entry.into(),
        slots: Vec::new(),
    }
}

/// The connection is gone, or leads nowhere: the next one may be better.
#[derive(Debug, thiserror::Error)]
#[error("the connection is gone")]
struct Gone;
