//! A relay on a store in memory, and an organisation with real signatures.

use mortise_protocol::identity::{
    DeviceId, DirectoryKey, InvitationId, OrgId, PublicKey, RosterSeq, SealSecret, SealedProfile,
    SigningKey, UserId, sha256,
};
use mortise_protocol::roster::{
    AddDevice, EntrySigner, Genesis, Op, Role, Roster, SignedEntry, sign_entry,
};
use mortise_protocol::store::{MemoryStore, Store};
use mortise_protocol::wire::log::ConnectionBinding;
use mortise_protocol::wire::{
    ClientToRelay, LogRecord, Push, Refusal, RelayToClient, Request, RequestId, Response,
};

pub(super) use super::groups::*;
use crate::core::{ConnId, Core, CoreConfig, Input, Output, StreamId};

pub(super) const START_MS: u64 = 1_700_000_000_000;
pub(super) const TOKEN: &[u8] = b"claim me";
/// The stream of `Hello`, for pushes; answers to anything else go to [`ASK`].
pub(super) const LIVE: StreamId = StreamId(1);
pub(super) const ASK: StreamId = StreamId(2);

/// A key that nothing else has.
pub(super) fn key(kind: u8, n: u64) -> SigningKey {
    let mut seed = [kind; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    SigningKey::from_seed(&seed)
}

pub(super) fn statement_key() -> PublicKey {
    key(1, 0).public()
}

pub(super) fn binding(conn: ConnId) -> ConnectionBinding {
    ConnectionBinding(sha256(&conn.0.to_be_bytes()).0)
}

/// A device and its keys.
pub(super) struct Device {
    pub(super) user: UserId,
    pub(super) mls: SigningKey,
    pub(super) transport: SigningKey,
    pub(super) seal: SealSecret,
}

impl Device {
    pub(super) fn new(n: u64, user: UserId) -> Self {
        Self {
            user,
            mls: key(2, n),
            transport: key(3, n),
            seal: SealSecret::new(key(4, n)),
        }
    }

    pub(super) fn id(&self) -> DeviceId {
        self.mls.public().device_id()
    }

    pub(super) fn add(&self, org: OrgId) -> Op {
        let (mls, transport) = (&self.mls, &self.transport);
        Op::AddDevice(AddDevice::sign(org, self.user, mls, transport, &self.seal))
    }
}

/// The relay, its organisation as the test knows it, and what the relay has said.
pub(super) struct World<S = MemoryStore> {
    pub(super) store: S,
    pub(super) core: Core,
    pub(super) roster: Roster,
    pub(super) owner: Device,
    pub(super) now_ms: u64,
    pub(super) outputs: Vec<Output>,
    last_id: u64,
}

pub(super) fn org_root(n: u64) -> SigningKey {
    key(5, n)
}

pub(super) fn genesis(root: &SigningKey, owner: &Device, statement_key: PublicKey) -> SignedEntry {
    let org = root.public().org_id();
    let ops = vec![
        Op::Genesis(Genesis {
            root_key: root.public(),
            statement_key,
            suite: 1,
            directory_commitment: DirectoryKey::from_bytes([7; 32]).commitment(),
        }),
        Op::AddUser {
            user: owner.user,
            role: Role::Owner,
            profile: SealedProfile(vec![0; 16].into()),
        },
        owner.add(org),
    ];
    let head = Roster::new(org).head();
    sign_entry(org, head, START_MS, EntrySigner::Root, root, ops)
}

impl World {
    /// A relay without an organisation; it holds one claim token.
    pub(super) fn empty() -> Self {
        Self::on(MemoryStore::default())
    }

    /// A relay with an organisation and its owner.
    pub(super) fn founded() -> Self {
        let mut world = Self::empty();
        world.found();
        world
    }
}

impl<S: Store> World<S> {
    pub(super) fn on(mut store: S) -> Self {
        let mut core = Core::load(&store, CoreConfig::new(key(1, 0))).expect("load");
        core.add_claim_token(&mut store, sha256(TOKEN))
            .expect("token");
        let root = org_root(0);
        Self {
            store,
            core,
            roster: Roster::new(root.public().org_id()),
            owner: Device::new(0, UserId([0; 16])),
            now_ms: START_MS,
            outputs: Vec::new(),
            last_id: 0,
        }
    }

    pub(super) fn found(&mut self) {
        let entry = genesis(&org_root(0), &self.owner, statement_key());
        let conn = self.connect_key(self.owner.transport.public());
        let answer = self.ask(conn, found(TOKEN, entry.bytes()));
        let head = entry.head();
        assert_eq!(answer, Response::RosterAppended { head });
        self.roster.apply(entry.bytes()).expect("genesis");
    }

    pub(super) fn org(&self) -> OrgId {
        self.roster.org()
    }

    fn fresh(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn step(&mut self, inputs: Vec<Input>) {
        let outputs = self.core.step(&mut self.store, self.now_ms, inputs);
        self.outputs.extend(Output::singly(outputs));
    }

    pub(super) fn connect_key(&mut self, transport_key: PublicKey) -> ConnId {
        let conn = ConnId(self.fresh());
        self.step(vec![Input::Connected {
            conn,
            transport_key,
            binding: binding(conn),
        }]);
        conn
    }

    pub(super) fn hello(&mut self, conn: ConnId, org: OrgId) -> Response {
        let roster_seq = RosterSeq(0);
        let (input, id) = self.frame(conn, Request::Hello { org, roster_seq });
        self.step(vec![match input {
            Input::Frame { conn, frame, .. } => Input::Frame {
                conn,
                stream: LIVE,
                frame,
            },
            other => other,
        }]);
        self.response(conn, id)
    }

    /// Connects with this key and greets.
    pub(super) fn greet(&mut self, transport_key: PublicKey) -> ConnId {
        let conn = self.connect_key(transport_key);
        let answer = self.hello(conn, self.org());
        assert!(matches!(answer, Response::Hello { .. }), "{answer:?}");
        conn
    }

    pub(super) fn online(&mut self, device: &Device) -> ConnId {
        self.greet(device.transport.public())
    }

    pub(super) fn owner_online(&mut self) -> ConnId {
        self.greet(self.owner.transport.public())
    }

    pub(super) fn frame(&mut self, conn: ConnId, request: Request) -> (Input, RequestId) {
        let id = RequestId(self.fresh());
        let frame = ClientToRelay { id, request };
        let stream = ASK;
        (
            Input::Frame {
                conn,
                stream,
                frame,
            },
            id,
        )
    }

    /// Asks one question in a batch of its own.
    pub(super) fn ask(&mut self, conn: ConnId, request: Request) -> Response {
        let mut answers = self.ask_all(vec![(conn, request)]);
        answers.pop().expect("an answer").expect("an answer")
    }

    pub(super) fn refused(&mut self, conn: ConnId, request: Request) -> Refusal {
        match self.ask(conn, request) {
            Response::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Asks several questions in one batch.
    pub(super) fn ask_all(&mut self, questions: Vec<(ConnId, Request)>) -> Vec<Option<Response>> {
        let (inputs, ids): (Vec<_>, Vec<_>) = questions
            .into_iter()
            .map(|(conn, request)| {
                let (input, id) = self.frame(conn, request);
                (input, (conn, id))
            })
            .unzip();
        self.step(inputs);
        ids.into_iter()
            .map(|(conn, id)| self.take_response(conn, id))
            .collect()
    }

    fn response(&mut self, conn: ConnId, id: RequestId) -> Response {
        self.take_response(conn, id).expect("an answer")
    }

    fn take_response(&mut self, to: ConnId, id: RequestId) -> Option<Response> {
        let at = self.outputs.iter().position(|output| {
            matches!(output, Output::Send { conn, frame: RelayToClient::Response { id: i, .. }, .. }
                if *conn == to && *i == id)
        })?;
        match self.outputs.remove(at) {
            Output::Send {
                frame: RelayToClient::Response { response, .. },
                ..
            } => Some(response),
            _ => None,
        }
    }

    /// Takes everything that was pushed to a connection; all of it came on the stream of its `Hello`.
    pub(super) fn pushes(&mut self, to: ConnId) -> Vec<Push> {
        let mut pushes = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Send {
                conn,
                stream,
                frame: RelayToClient::Push(push),
            } if *conn == to => {
                assert_eq!(*stream, LIVE);
                pushes.push(push.clone());
                false
            }
            _ => true,
        });
        pushes
    }

    /// The records that were pushed to a connection, whatever else was.
    pub(super) fn records(&mut self, to: ConnId) -> Vec<LogRecord> {
        self.pushes(to)
            .into_iter()
            .filter_map(|push| match push {
                Push::Records { records, .. } => Some(records),
                _ => None,
            })
            .flatten()
            .collect()
    }

    pub(super) fn seqs(&mut self, to: ConnId) -> Vec<u64> {
        self.records(to).iter().map(|r| r.seq.0).collect()
    }

    /// An entry on the present head.
    pub(super) fn entry(&self, signer: EntrySigner, key: &SigningKey, ops: Vec<Op>) -> SignedEntry {
        let head = self.roster.head();
        sign_entry(self.org(), head, self.now_ms, signer, key, ops)
    }

    pub(super) fn owner_entry(&self, ops: Vec<Op>) -> SignedEntry {
        let signer = EntrySigner::Device(self.owner.id());
        self.entry(signer, &self.owner.mls, ops)
    }

    /// Appends what must be accepted.
    pub(super) fn append(&mut self, conn: ConnId, entry: &SignedEntry) {
        let head = entry.head();
        let answer = self.ask(conn, append_roster(entry));
        assert_eq!(answer, Response::RosterAppended { head });
        self.roster.apply(entry.bytes()).expect("as the relay did");
    }

    /// The owner appends these operations.
    pub(super) fn order(&mut self, conn: ConnId, ops: Vec<Op>) -> RosterSeq {
        let entry = self.owner_entry(ops);
        self.append(conn, &entry);
        entry.tbs().seq
    }

    /// Adds a user and invites a device; gives the invitation's key.
    pub(super) fn invite(
        &mut self,
        owner: ConnId,
        role: Role,
    ) -> (UserId, InvitationId, SigningKey) {
        let n = self.fresh();
        let user = UserId(
            sha256(&n.to_be_bytes()).0[..16]
                .try_into()
                .expect("16 bytes"),
        );
        let invitation = InvitationId(user.0);
        let invitation_key = key(6, n);
        let ops = vec![
            Op::AddUser {
                user,
                role,
                profile: SealedProfile(vec![0; 16].into()),
            },
            Op::Invite {
                invitation,
                user,
                key: invitation_key.public(),
                expires_at_ms: self.now_ms + 1_000_000,
            },
        ];
        let entry = self.owner_entry(ops);
        self.append(owner, &entry);
        (user, invitation, invitation_key)
    }

    /// Adds a user of this role, whose device joins and stays online.
    pub(super) fn join(&mut self, owner: ConnId, role: Role) -> (Device, ConnId) {
        let (user, invitation, invitation_key) = self.invite(owner, role);
        let device = Device::new(self.fresh(), user);
        let conn = self.online(&device);
        let ops = vec![device.add(self.org())];
        let entry = self.entry(EntrySigner::Invitation(invitation), &invitation_key, ops);
        self.append(conn, &entry);
        (device, conn)
    }

    /// What the relay would be after a restart.
    pub(super) fn restarted(&self) -> Core {
        Core::load(&self.store, CoreConfig::new(key(1, 0))).expect("load")
    }
}

pub(super) fn found(token: &[u8], entry: &[u8]) -> Request {
    Request::Found {
        claim_token: token.to_vec().into(),
        entry: entry.to_vec().into(),
    }
}

pub(super) fn append_roster(entry: &SignedEntry) -> Request {
    Request::AppendRoster {
        entry: entry.bytes().to_vec().into(),
        slots: Vec::new(),
    }
}
