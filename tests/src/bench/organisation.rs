//! An organisation, made quickly: its keys by the bench, its roster entry by entry through the relay's front door.
//!
//! Every entry is signed as the rules want it and validated by the relay and by every device. What is short is how
//! the invitation keys come about: drawn at random, and not by Argon2id from a link.

use std::time::Duration;

use anyhow::bail;
use mortise_client::machine::{now_ms, system_rng};
use mortise_client::transport::{self, Connection};
use mortise_protocol::identity::{
    ClaimLink, DirectoryKey, InvitationId, OrgId, RosterSeq, SealSecret, SigningKey, UserId,
};
use mortise_protocol::roster::{
    AddDevice, EntrySigner, Genesis, Head, MAX_OPS, Op, Role, SignedEntry, sign_entry,
};
use mortise_protocol::wire::{ClientToRelay, RelayToClient, Request, RequestId, Response};
use rand::RngCore as _;
use rand::rngs::StdRng;

use super::Progress;
use super::worker::DeviceSeed;

/// Genesis, which names the directory key.
const FOUNDED: RosterSeq = RosterSeq(1);
/// Devices that are admitted on one connection: the relay closes a stranger's after a minute.
const STRANGER_ADMITS: usize = 200;
const CONNECT: Duration = Duration::from_secs(20);

/// An organisation whose devices are all admitted.
#[derive(Debug)]
pub(crate) struct Founded {
    pub(crate) org: OrgId,
    /// The directory key's bytes.
    pub(crate) directory: [u8; 32],
    /// The owner's device first, then one of each other user.
    pub(crate) devices: Vec<DeviceSeed>,
    /// The newest roster entry.
    pub(crate) head: Head,
}

/// Somebody's keys.
struct Keys {
    mls: SigningKey,
    transport: SigningKey,
    seal: SealSecret,
    seeds: [[u8; 32]; 3],
}

impl Keys {
    fn draw(rng: &mut StdRng) -> Self {
        let mut seeds = [[0; 32]; 3];
        for seed in &mut seeds {
            rng.fill_bytes(seed);
        }
        Self {
            mls: SigningKey::from_seed(&seeds[0]),
            transport: SigningKey::from_seed(&seeds[1]),
            seal: SealSecret::new(SigningKey::from_seed(&seeds[2])),
            seeds,
        }
    }

    fn add_device(&self, org: OrgId, user: UserId) -> Op {
        let add = AddDevice::sign(org, user, &self.mls, &self.transport, &self.seal);
        Op::AddDevice(add)
    }
}

/// Founds an organisation of `count` devices, each of a user of its own.
///
/// # Errors
/// When the relay refuses an entry, or is gone.
pub(crate) async fn found(
    claim: &ClaimLink,
    suite: u16,
    count: usize,
    progress: &Progress,
) -> anyhow::Result<Founded> {
    let mut rng = system_rng();
    let root = SigningKey::generate(&mut rng);
    let org = root.public().org_id();
    let directory = DirectoryKey::random(&mut rng);
    let owner = Keys::draw(&mut rng);
    let user = UserId::random(&mut rng);
    let ops = vec![
        Op::Genesis(Genesis {
            root_key: root.public(),
            statement_key: claim.statement_key,
            suite,
            directory_commitment: directory.commitment(),
        }),
        Op::AddUser {
            user,
            role: Role::Owner,
            profile: directory.seal_profile(&mut rng, FOUNDED, org, user, "user 0"),
        },
        owner.add_device(org, user),
    ];
    let genesis = sign_entry(org, Head::EMPTY, now_ms(), EntrySigner::Root, &root, ops);
    let mut clerk = Clerk {
        connection: dial(claim, SigningKey::from_seed(&owner.seeds[1])).await?,
        org,
        head: genesis.head(),
        asked: 0,
        rng,
    };
    clerk
        .ask(Request::Found {
            claim_token: claim.token.dangerous_bytes().to_vec().into(),
            entry: genesis.into_bytes().into(),
        })
        .await?;
    clerk.hello().await?;
    let mut devices = vec![DeviceSeed {
        user,
        keys: Some(owner.seeds),
    }];
    progress.say(&format!("admitting {count} devices"));
    let pending = clerk.invite(&owner.mls, &directory, count - 1).await?;
    for (nth, (user, invitation, key)) in pending.into_iter().enumerate() {
        if nth % STRANGER_ADMITS == 0 {
            // The owner may not append this often; somebody with an invitation may, for a minute.
            let stranger = SigningKey::generate(&mut clerk.rng);
            clerk.connection.close().await;
            clerk.connection = dial(claim, stranger).await?;
            clerk.hello().await?;
        }
        devices.push(clerk.admit(user, invitation, &key).await?);
    }
    clerk.connection.close().await;
    Ok(Founded {
        org,
        directory: *directory.dangerous_bytes(),
        devices,
        head: clerk.head,
    })
}

async fn dial(claim: &ClaimLink, key: SigningKey) -> anyhow::Result<Connection> {
    let key = std::sync::Arc::new(key);
    Ok(transport::connect(&claim.relay, claim.relay_key, key, CONNECT).await?)
}

type Invited = (UserId, InvitationId, SigningKey);

/// Writes the roster, as the owner's device.
struct Clerk {
    connection: Connection,
    org: OrgId,
    head: Head,
    asked: u64,
    rng: StdRng,
}

impl Clerk {
    async fn ask(&mut self, request: Request) -> anyhow::Result<()> {
        self.asked += 1;
        let id = RequestId(self.asked);
        self.connection.send(&ClientToRelay { id, request })?;
        loop {
            match self.connection.recv().await {
                Some(RelayToClient::Response { id: of, response }) if of == id => {
                    return match response {
                        Response::Refused(refusal) => bail!("the relay refused: {refusal}"),
                        _ => Ok(()),
                    };
                }
                // The owner is told of its own entries, too.
                Some(_) => {}
                None => bail!("the relay is gone: {}", self.connection.end()),
            }
        }
    }

    async fn hello(&mut self) -> anyhow::Result<()> {
        let (org, roster_seq) = (self.org, self.head.seq);
        self.ask(Request::Hello { org, roster_seq }).await
    }

    async fn append(
        &mut self,
        signer: EntrySigner,
        key: &SigningKey,
        ops: Vec<Op>,
    ) -> anyhow::Result<()> {
        let entry: SignedEntry = sign_entry(self.org, self.head, now_ms(), signer, key, ops);
        self.head = entry.head();
        let entry = entry.into_bytes().into();
        let slots = Vec::new();
        self.ask(Request::AppendRoster { entry, slots }).await
    }

    /// Adds users with an invitation each, as many as an entry holds.
    async fn invite(
        &mut self,
        owner: &SigningKey,
        directory: &DirectoryKey,
        count: usize,
    ) -> anyhow::Result<Vec<Invited>> {
        let signer = EntrySigner::Device(owner.public().device_id());
        let mut invited = Vec::with_capacity(count);
        while invited.len() < count {
            let mut ops = Vec::with_capacity(MAX_OPS);
            while ops.len() < MAX_OPS && invited.len() < count {
                let user = UserId::random(&mut self.rng);
                let invitation = InvitationId::random(&mut self.rng);
                let key = SigningKey::generate(&mut self.rng);
                let name = format!("user {}", invited.len() + 1);
                ops.push(Op::AddUser {
                    user,
                    role: Role::Member,
                    profile: directory.seal_profile(&mut self.rng, FOUNDED, self.org, user, &name),
                });
                ops.push(Op::Invite {
                    invitation,
                    user,
                    key: key.public(),
                    expires_at_ms: now_ms() + 3_600_000,
                });
                invited.push((user, invitation, key));
            }
            self.append(signer, owner, ops).await?;
        }
        Ok(invited)
    }

    async fn admit(
        &mut self,
        user: UserId,
        invitation: InvitationId,
        key: &SigningKey,
    ) -> anyhow::Result<DeviceSeed> {
        let keys = Keys::draw(&mut self.rng);
        let ops = vec![keys.add_device(self.org, user)];
        self.append(EntrySigner::Invitation(invitation), key, ops)
            .await?;
        Ok(DeviceSeed {
            user,
            keys: Some(keys.seeds),
        })
    }
}
