//! Runs the other stack's device: a task that owns it and its connection, as the client's driver does for the engine.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mortise_client::machine::now_ms;
use mortise_client::transport::{Connection, TransportError, connect};
use mortise_protocol::engine::RelayAddress;
use mortise_protocol::identity::{
    DeviceId, GroupId, JoinLink, RosterSeq, SealSecret, SigningKey, UserId, derive_invitation_key,
};
use mortise_protocol::roster::{AddDevice, EntrySigner, Head, Op, sign_entry};
use mortise_protocol::wire::{
    ClientToRelay, CloseCode, Refusal, RelayToClient, Request, RequestId, Response,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::crypto::OneSuite;
use super::device::{Device, Setup};
use super::group::{CommandId, Standing, Wish};
use super::view::{GroupLook, View};

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(20);
/// Questions that may wait for a device.
const QUEUE: usize = 64;

/// How a device of the other stack behaves where the protocol leaves it free.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The suite of its KeyPackages.
    pub suite: OneSuite,
    /// Whether commits that only add have a path.
    pub always_path: bool,
    /// How long it lets others do what nobody was asked to do, ms.
    pub patience_ms: u64,
    /// Of its own randomness; mls-rs draws from the operating system.
    pub seed: u64,
}

enum Ask {
    Wish(CommandId, GroupId, Wish),
    Create(
        CommandId,
        String,
        Vec<UserId>,
        oneshot::Sender<anyhow::Result<GroupId>>,
    ),
    Online(bool),
}

/// A running device of the other stack.
#[derive(Debug)]
pub struct OtherDevice {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub device: DeviceId,
    asks: mpsc::Sender<Ask>,
    view: watch::Receiver<View>,
    task: JoinHandle<()>,
}

impl Drop for OtherDevice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OtherDevice {
    /// Enters by an invitation (section 6), and runs.
    ///
    /// # Errors
    /// When the relay does not let it in.
    pub async fn join(
        link: &str,
        manner: Manner,
        changed: Arc<watch::Sender<u64>>,
    ) -> anyhow::Result<Self> {
        let link = JoinLink::parse(link)?;
        let mut rng = StdRng::seed_from_u64(manner.seed);
        let [mls, transport, seal] = std::array::from_fn(|_| SigningKey::generate(&mut rng));
        let (mls, transport) = (Arc::new(mls), Arc::new(transport));
        let relay = RelayAddress {
            address: link.relay.clone(),
            key: link.relay_key,
        };
        let add = AddDevice::sign(
            link.org,
            link.user,
            &mls,
            &transport,
            &SealSecret::new(seal),
        );
        let own = enter(&link, &relay, &transport, add).await?;
        let device = Device::new(Setup {
            org: link.org,
            user: link.user,
            mls,
            pins: vec![(link.pin_seq, link.pin_hash), (own.seq, own.hash)],
            suite: manner.suite,
            always_path: manner.always_path,
            patience_ms: manner.patience_ms,
            seed: manner.seed,
        });
        let (user, id) = (link.user, device.me.device);
        let (asks, inbox) = mpsc::channel(QUEUE);
        let (publish, view) = watch::channel(View::default());
        let actor = Actor {
            device,
            relay,
            transport,
            line: None,
            wanted: true,
            publish,
            changed,
        };
        Ok(Self {
            user,
            device: id,
            asks,
            view,
            task: tokio::spawn(actor.run(inbox)),
        })
    }

    /// What can be seen of it now.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Asks for something in a group.
    ///
    /// # Errors
    /// When the device has ended.
    pub async fn wish(&self, id: CommandId, group: GroupId, wish: Wish) -> anyhow::Result<()> {
        self.ask(Ask::Wish(id, group, wish)).await
    }

    /// Creates a group with these users.
    ///
    /// # Errors
    /// What mls-rs says, or when the device has ended.
    pub async fn create(
        &self,
        id: CommandId,
        name: &str,
        users: Vec<UserId>,
    ) -> anyhow::Result<GroupId> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Create(id, name.to_owned(), users, reply))
            .await?;
        answer.await.context("the device has ended")?
    }

    /// Connects, or hangs up.
    ///
    /// # Errors
    /// When the device has ended.
    pub async fn go(&self, online: bool) -> anyhow::Result<()> {
        self.ask(Ask::Online(online)).await
    }

    async fn ask(&self, ask: Ask) -> anyhow::Result<()> {
        self.asks
            .send(ask)
            .await
            .ok()
            .context("the device has ended")
    }
}

/// Redeems an invitation; the entry that let the device in.
async fn enter(
    link: &JoinLink,
    relay: &RelayAddress,
    transport: &Arc<SigningKey>,
    add: AddDevice,
) -> anyhow::Result<Head> {
    let key =
        tokio::task::block_in_place(|| derive_invitation_key(&link.secret, None, link.invitation));
    let mut line = connect(&relay.address, relay.key, Arc::clone(transport), CONNECT).await?;
    let hello = Request::Hello {
        org: link.org,
        roster_seq: RosterSeq(0),
    };
    let Response::Hello { mut head, .. } = exchange(&mut line, 1, hello).await? else {
        bail!("no Hello");
    };
    // Whoever loses the compare-and-swap signs again on the head that the refusal names.
    for id in 2.. {
        let signer = EntrySigner::Invitation(link.invitation);
        let ops = vec![Op::AddDevice(add.clone())];
        let entry = sign_entry(link.org, head, now_ms(), signer, &key, ops);
        let own = entry.head();
        let append = Request::AppendRoster {
            entry: entry.into_bytes().into(),
            slots: Vec::new(),
        };
        match exchange(&mut line, id, append).await? {
            Response::RosterAppended { .. } => {
                line.close().await;
                return Ok(own);
            }
            Response::Refused(Refusal::RosterConflict { head: newer }) => head = newer,
            other => bail!("the invitation was not taken: {other:?}"),
        }
    }
    bail!("the invitation was not taken")
}

async fn exchange(line: &mut Connection, id: u64, request: Request) -> anyhow::Result<Response> {
    let id = RequestId(id);
    line.send(&ClientToRelay { id, request })?;
    loop {
        match line.recv().await {
            Some(RelayToClient::Response { id: of, response }) if of == id => return Ok(response),
            Some(_) => {}
            None => bail!("the connection ended: {}", line.end()),
        }
    }
}

struct Actor {
    device: Device,
    relay: RelayAddress,
    transport: Arc<SigningKey>,
    line: Option<Connection>,
    /// Whether it shall be connected.
    wanted: bool,
    publish: watch::Sender<View>,
    changed: Arc<watch::Sender<u64>>,
}

enum Step {
    Ask(Option<Ask>),
    Frame(Option<RelayToClient>),
    Time,
}

impl Actor {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            if self.wanted && self.line.is_none() && !self.device.expelled {
                self.dial().await;
            }
            self.flush();
            self.show();
            let wake = self.device.wake_ms();
            // Biased: what is wished goes before what the relay sends, and both before the clock.
            let step = tokio::select! {
                biased;
                ask = asks.recv() => Step::Ask(ask),
                frame = frame(&mut self.line) => Step::Frame(frame),
                () = until(wake) => Step::Time,
            };
            match step {
                Step::Ask(None) => return,
                Step::Ask(Some(ask)) => self.asked(ask).await,
                Step::Frame(Some(frame)) => self.device.handle_frame(now_ms(), frame),
                Step::Frame(None) => self.lost(),
                Step::Time => self.device.tick(now_ms()),
            }
        }
    }

    async fn dial(&mut self) {
        let key = Arc::clone(&self.transport);
        match connect(&self.relay.address, self.relay.key, key, CONNECT).await {
            Ok(line) => {
                self.device.connected(line.binding());
                self.line = Some(line);
            }
            Err(error) => {
                self.wanted = false;
                self.device.faults.push(format!("no connection: {error}"));
            }
        }
    }

    fn lost(&mut self) {
        let Some(line) = self.line.take() else { return };
        self.device.disconnected();
        match line.end() {
            TransportError::Closed { code } if code == CloseCode::REMOVED => {
                self.device.expel();
            }
            error => {
                self.wanted = false;
                self.device
                    .faults
                    .push(format!("the connection was lost: {error}"));
            }
        }
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Wish(id, group, wish) => self.device.wish(id, group, wish),
            Ask::Create(id, name, users, reply) => {
                let made = self.device.create_group(id, &name, users);
                // Whoever asked may have gone.
                let _ = reply.send(made);
            }
            Ask::Online(online) => {
                self.wanted = online;
                if let Some(line) = self.line.take_if(|_| !online) {
                    self.device.disconnected();
                    line.close().await;
                }
            }
        }
    }

    fn flush(&mut self) {
        let frames = self.device.take_frames();
        let Some(line) = &self.line else { return };
        for frame in frames {
            // An end of the connection is met where frames come in.
            if let Err(TransportError::Backlogged) = line.send(&frame) {
                self.device.faults.push("too much to send".into());
            }
        }
    }

    /// Shows what there is now, and tells who waits for a change.
    fn show(&mut self) {
        let outcomes = self.device.take_outcomes();
        let device = &self.device;
        let (online, wanted) = (self.line.is_some(), self.wanted);
        self.publish.send_modify(|view| {
            view.outcomes.extend(outcomes);
            view.expelled = device.expelled;
            view.commits = device.commits;
            view.faults.clone_from(&device.faults);
            view.settled =
                device.expelled || (online == wanted && device.is_up_to_date() && device.is_idle());
            for (id, held) in &device.groups {
                let epochs = held.epochs.iter();
                view.epochs
                    .extend(epochs.map(|(epoch, a)| ((*id, *epoch), a.clone())));
                view.texts.insert(*id, held.texts.clone());
                let epoch = held.epoch().0;
                let members = held.tree.leaves.iter();
                let out = held.standing == Standing::Removed;
                let authenticator = held.epochs.get(&epoch).filter(|_| !out);
                view.groups.insert(
                    *id,
                    GroupLook {
                        standing: held.standing,
                        epoch,
                        authenticator: authenticator.cloned().unwrap_or_default(),
                        members: members.map(|l| (l.leaf.device, l.leaf.user)).collect(),
                        admins: held.tree.policy.admins.iter().copied().collect(),
                    },
                );
            }
        });
        self.changed.send_modify(|count| *count += 1);
    }
}

/// The next frame of a line; never, without one.
async fn frame(line: &mut Option<Connection>) -> Option<RelayToClient> {
    match line {
        Some(line) => line.recv().await,
        None => pending().await,
    }
}

/// Until that time, ms since 1970; for ever, without one.
async fn until(wake_ms: Option<u64>) {
    match wake_ms {
        Some(wake) => {
            let wait = Duration::from_millis(wake.saturating_sub(now_ms()));
            // house: allow(honest-tests): the device's own timer (REQ-063), as the driver has one
            tokio::time::sleep(wait).await;
        }
        None => pending().await,
    }
}
