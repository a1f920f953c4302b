//! A relay on a temporary directory, an organisation founded on it, and bare QUIC clients that break rules.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mortise_client::transport::{Connection, TransportError, connect, tls};
use mortise_protocol::identity::{
    DeviceId, DirectoryKey, Hash, InvitationId, OrgId, RosterSeq, SealSecret, SealedProfile,
    SigningKey, UserId, decode,
};
use mortise_protocol::roster::{
    AddDevice, EntrySigner, Genesis, Head, Op, Role, SignedEntry, sign_entry,
};
use mortise_protocol::wire::{
    ClientToRelay, Flag, RelayToClient, Request, RequestId, Response, encode_frame,
};
use mortise_relay::config::ConfigFile;
use mortise_relay::data_dir::DataDir;
use mortise_relay::{Relay, RelayConfig, RunningRelay};
use quinn::crypto::rustls::QuicClientConfig;
use tempfile::TempDir;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn key(n: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[n; 32]))
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    u64::try_from(since.as_millis()).expect("clock")
}

/// A relay and its data directory.
pub(crate) struct Fixture {
    pub(crate) relay: RunningRelay,
    pub(crate) dir: TempDir,
}

pub(crate) fn config(dir: &TempDir) -> RelayConfig {
    RelayConfig::new(dir.path().join("data"))
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let listen = "127.0.0.1:0".parse().expect("address");
        DataDir::init(&dir.path().join("data"), listen, None).expect("init");
        let mut config = config(&dir);
        change(&mut config);
        let relay = Relay::start(config).await.expect("start");
        Self { relay, dir }
    }

    pub(crate) fn address(&self) -> String {
        self.relay.local_addr().to_string()
    }

    pub(crate) async fn connect(&self, key: Arc<SigningKey>) -> Result<Connection, TransportError> {
        connect(&self.address(), self.relay.fingerprint(), key, PATIENCE).await
    }

    /// A QUIC connection without the client library's manners.
    pub(crate) async fn bare(&self, key: Arc<SigningKey>) -> (quinn::Endpoint, quinn::Connection) {
        let tls = tls::client_config(key, self.relay.fingerprint(), tls::WrongPin::default());
        let config = bare_config(tls.expect("config"));
        let (endpoint, connecting) = dial(&self.relay, config);
        (endpoint, connecting.await.expect("handshake"))
    }

    /// Stops the relay and starts it again on the same directory.
    pub(crate) async fn restart(self) -> Self {
        self.relay.shutdown().await;
        let relay = Relay::start(config(&self.dir)).await.expect("start again");
        Self {
            relay,
            dir: self.dir,
        }
    }

    /// Lets one admitted connection at a time take the whole place.
    pub(crate) fn write_config(&self, change: impl FnOnce(&mut ConfigFile)) {
        let path = self.dir.path().join("data/relay.toml");
        let text = std::fs::read_to_string(&path).expect("read");
        let mut config: ConfigFile = toml::from_str(&text).expect("toml");
        change(&mut config);
        std::fs::write(&path, toml::to_string(&config).expect("toml")).expect("write");
    }
}

pub(crate) fn bare_config(tls: rustls::ClientConfig) -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("suite")))
}

pub(crate) fn dial(
    relay: &RunningRelay,
    config: quinn::ClientConfig,
) -> (quinn::Endpoint, quinn::Connecting) {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("address")).expect("bind");
    let connecting = endpoint
        .connect_with(config, relay.local_addr(), "relay.mortise.invalid")
        .expect("connect");
    (endpoint, connecting)
}

pub(crate) fn ask(id: u64, request: Request) -> ClientToRelay {
    ClientToRelay {
        id: RequestId(id),
        request,
    }
}

pub(crate) fn hello(org: OrgId) -> Request {
    Request::Hello {
        org,
        roster_seq: RosterSeq(0),
    }
}

/// Asks on a well-behaved connection, and waits for the answer; pushes before it are returned too.
pub(crate) async fn exchange(
    connection: &mut Connection,
    id: u64,
    request: Request,
) -> (Response, Vec<RelayToClient>) {
    connection.send(&ask(id, request)).expect("send");
    let mut pushes = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, connection.recv()).await;
        match next.expect("in time") {
            Some(RelayToClient::Response { id: of, response }) if of == RequestId(id) => {
                return (response, pushes);
            }
            Some(other) => pushes.push(other),
            None => panic!("the connection ended: {}", connection.end()),
        }
    }
}

/// Reads one frame from a bare stream.
pub(crate) async fn read_frame(recv: &mut quinn::RecvStream) -> RelayToClient {
    let mut header = [0; 4];
    recv.read_exact(&mut header).await.expect("header");
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    recv.read_exact(&mut body).await.expect("body");
    decode(&body).expect("decode")
}

/// Writes bytes on a stream of their own and reads the one answer.
pub(crate) async fn raw_exchange(quic: &quinn::Connection, bytes: &[u8]) -> RelayToClient {
    let (mut send, mut recv) = quic.open_bi().await.expect("open");
    // A relay that refuses by length may stop the stream before all is written.
    let _ = send.write_all(bytes).await;
    read_frame(&mut recv).await
}

pub(crate) fn frame_bytes(id: u64, request: Request) -> Vec<u8> {
    encode_frame(&ask(id, request))
}

/// A device and its keys.
pub(crate) struct Device {
    pub(crate) user: UserId,
    pub(crate) mls: SigningKey,
    pub(crate) transport: Arc<SigningKey>,
    seal: SealSecret,
}

impl Device {
    pub(crate) fn new(n: u8, user: UserId) -> Self {
        let key = |kind| SigningKey::from_seed(&[n.wrapping_add(kind); 32]);
        Self {
            user,
            mls: key(60),
            transport: Arc::new(key(120)),
            seal: SealSecret::new(key(180)),
        }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.mls.public().device_id()
    }

    fn add(&self, org: OrgId) -> Op {
        Op::AddDevice(AddDevice::sign(
            org,
            self.user,
            &self.mls,
            &self.transport,
            &self.seal,
        ))
    }
}

/// An organisation with one owner, as its owner's device sees it.
pub(crate) struct Organisation {
    pub(crate) org: OrgId,
    pub(crate) owner: Device,
    pub(crate) head: Head,
}

impl Organisation {
    /// Founds an organisation, and returns the owner's connection after its `Hello`.
    pub(crate) async fn found(fixture: &Fixture) -> (Self, Connection) {
        let claim = fixture.relay.claim_link().await.expect("claim");
        let root = SigningKey::from_seed(&[250; 32]);
        let org = root.public().org_id();
        let owner = Device::new(1, UserId([1; 16]));
        let genesis = Op::Genesis(Genesis {
            root_key: root.public(),
            statement_key: claim.statement_key,
            suite: 1,
            directory_commitment: DirectoryKey::from_bytes([7; 32]).commitment(),
        });
        let add_user = Op::AddUser {
            user: owner.user,
            role: Role::Owner,
            profile: SealedProfile(vec![0; 16].into()),
        };
        let ops = vec![genesis, add_user, owner.add(org)];
        let entry = sign_entry(org, Head::EMPTY, now_ms(), EntrySigner::Root, &root, ops);
        let mut connection = fixture
            .connect(Arc::clone(&owner.transport))
            .await
            .expect("connect");
        let request = Request::Found {
            claim_token: claim.token.dangerous_bytes().to_vec().into(),
            entry: entry.bytes().to_vec().into(),
        };
        let (answer, _) = exchange(&mut connection, 1, request).await;
        assert!(
            matches!(answer, Response::RosterAppended { .. }),
            "{answer:?}"
        );
        let head = entry.head();
        let organisation = Self { org, owner, head };
        organisation.greet(&mut connection, 2).await;
        (organisation, connection)
    }

    /// `Hello` from an admitted device.
    pub(crate) async fn greet(&self, connection: &mut Connection, id: u64) {
        let (answer, _) = exchange(connection, id, hello(self.org)).await;
        let admitted = matches!(
            answer,
            Response::Hello {
                admitted: Flag::Yes,
                ..
            }
        );
        assert!(admitted, "{answer:?}");
    }

    /// Signs an entry as the owner's device.
    pub(crate) fn sign(&mut self, ops: Vec<Op>) -> Request {
        let signer = EntrySigner::Device(self.owner.id());
        let entry = sign_entry(self.org, self.head, now_ms(), signer, &self.owner.mls, ops);
        self.append(&entry)
    }

    fn append(&mut self, entry: &SignedEntry) -> Request {
        self.head = entry.head();
        Request::AppendRoster {
            entry: entry.bytes().to_vec().into(),
            slots: Vec::new(),
        }
    }

    /// Invites another device of the owner.
    pub(crate) async fn invite_device(&mut self, owner: &mut Connection, n: u8) -> Device {
        let device = Device::new(n, self.owner.user);
        let invite = self.sign(vec![Op::Invite {
            invitation: InvitationId([n; 16]),
            user: device.user,
            key: invitation_key(n).public(),
            expires_at_ms: now_ms() + 3_600_000,
        }]);
        let (answer, _) = exchange(owner, 900, invite).await;
        assert!(
            matches!(answer, Response::RosterAppended { .. }),
            "{answer:?}"
        );
        device
    }

    /// Signs the entry by which an invited device joins.
    pub(crate) fn redeem(&mut self, device: &Device, n: u8) -> Request {
        let signer = EntrySigner::Invitation(InvitationId([n; 16]));
        let ops = vec![device.add(self.org)];
        let key = invitation_key(n);
        let entry = sign_entry(self.org, self.head, now_ms(), signer, &key, ops);
        self.append(&entry)
    }

    /// Invites and admits another device of the owner.
    pub(crate) async fn add_device(&mut self, owner: &mut Connection, n: u8) -> Device {
        let device = self.invite_device(owner, n).await;
        let redeem = self.redeem(&device, n);
        let (answer, _) = exchange(owner, 901, redeem).await;
        assert!(
            matches!(answer, Response::RosterAppended { .. }),
            "{answer:?}"
        );
        device
    }
}

fn invitation_key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

pub(crate) const NOBODY: OrgId = OrgId([9; 32]);
pub(crate) const WRONG_PIN: Hash = Hash([9; 32]);
