//! Many users who have joined and published a KeyPackage, and whose devices then stay off: to fill groups with.

use mortise_protocol::group::{Crypto, Me, MlsProvider, make_key_package};
use mortise_protocol::identity::{InvitationId, SealSecret, SealedProfile, SigningKey, UserId};
use mortise_protocol::roster::{AddDevice, EntrySigner, Op, Role, sign_entry};
use mortise_protocol::store::{MemoryStore, Reader as _, Space, Tx};
use mortise_protocol::wire::Request;
use mortise_relay::core::{ConnId, Input};

use super::{PersonId, World};

/// Users whom one roster entry invites.
const PER_ENTRY: usize = 16;

impl World {
    /// A device's MLS signature key, from its disk: for what an honest engine would not sign.
    ///
    /// # Panics
    /// When the disk does not hold it.
    #[must_use]
    pub fn signature_key(&mut self, who: PersonId) -> SigningKey {
        /// Where a device keeps its identity.
        const META: Space = Space(0x20);
        let device = self.people[who.0].device();
        let store = self.people[who.0].engine_mut().store_mut();
        let identity = store.read(META, b"identity").expect("a disk that reads");
        let identity = identity.expect("an identity");
        let seeds = identity.windows(32).filter_map(|w| w.try_into().ok());
        seeds
            .map(|seed| SigningKey::from_seed(&seed))
            .find(|key| key.public().device_id() == device)
            .expect("the key of this device")
    }

    /// Lets `owner` invite this many users, who all join and publish a KeyPackage.
    ///
    /// # Panics
    /// When the relay does not take it.
    pub fn crowd(&mut self, owner: PersonId, size: usize, suite: u16) -> Vec<UserId> {
        let key = self.signature_key(owner);
        let transport = self.people[owner.0].engine().transport_key().public();
        let line = self.open_line(transport).0;
        let crowd: Vec<Member> = (0..size).map(|_| Member::new(&mut self.rng)).collect();
        for some in crowd.chunks(PER_ENTRY) {
            let ops = some.iter().flat_map(Member::invite).collect();
            let signer = EntrySigner::Device(key.public().device_id());
            self.append(line, owner, signer, &key, ops);
            for member in some {
                let add = Op::AddDevice(member.add_device(self.people[owner.0].engine().org()));
                let signer = EntrySigner::Invitation(member.invitation);
                self.append(line, owner, signer, &member.invited, vec![add]);
            }
        }
        for member in &crowd {
            let line = self.open_line(member.transport.public()).0;
            let org = self.people[owner.0].engine().org();
            let roster_seq = self.people[owner.0].engine().roster().head().seq;
            self.ask_on_line(line, Request::Hello { org, roster_seq });
            let package = member.key_package(self, owner, suite);
            self.ask_on_line(
                line,
                Request::PublishKeyPackages {
                    suite,
                    one_time: vec![package.into()],
                    last_resort: Vec::new().into(),
                },
            );
            self.relay_step(vec![Input::Disconnected { conn: line }]);
        }
        self.settle();
        crowd.iter().map(|member| member.user).collect()
    }

    /// Appends an entry and waits until `owner` has followed it.
    fn append(
        &mut self,
        line: ConnId,
        owner: PersonId,
        signer: EntrySigner,
        key: &SigningKey,
        ops: Vec<Op>,
    ) {
        let engine = self.people[owner.0].engine();
        let (org, head) = (engine.org(), engine.roster().head());
        self.ask_on_line(
            line,
            Request::Hello {
                org,
                roster_seq: head.seq,
            },
        );
        let entry = sign_entry(org, head, self.now_ms, signer, key, ops);
        let entry = entry.bytes().to_vec().into();
        let slots = Vec::new();
        self.ask_on_line(line, Request::AppendRoster { entry, slots });
        self.settle();
        let after = self.people[owner.0].engine().roster().head();
        assert_eq!(after.seq, head.seq.next(), "the relay takes the entry");
    }
}

/// Somebody in the crowd.
struct Member {
    user: UserId,
    invitation: InvitationId,
    invited: SigningKey,
    mls: SigningKey,
    transport: SigningKey,
    seal: SealSecret,
}

impl Member {
    fn new(rng: &mut impl rand::RngCore) -> Self {
        let mut key = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            SigningKey::from_seed(&seed)
        };
        let (invited, mls, transport, seal) = (key(), key(), key(), key());
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        Self {
            user: UserId(id),
            invitation: InvitationId(id),
            invited,
            mls,
            transport,
            seal: SealSecret::new(seal),
        }
    }

    fn invite(&self) -> [Op; 2] {
        [
            Op::AddUser {
                user: self.user,
                role: Role::Member,
                profile: SealedProfile(vec![0; 16].into()),
            },
            Op::Invite {
                invitation: self.invitation,
                user: self.user,
                key: self.invited.public(),
                expires_at_ms: u64::MAX,
            },
        ]
    }

    fn add_device(&self, org: mortise_protocol::identity::OrgId) -> AddDevice {
        AddDevice::sign(org, self.user, &self.mls, &self.transport, &self.seal)
    }

    fn key_package(&self, world: &World, owner: PersonId, suite: u16) -> Vec<u8> {
        let (crypto, store) = (Crypto::default(), MemoryStore::default());
        let tx = Tx::new(&store);
        let me = Me {
            org: world.people[owner.0].engine().org(),
            user: self.user,
            device: self.mls.public().device_id(),
            key: &self.mls,
        };
        let provider = MlsProvider::new(&crypto, &tx);
        make_key_package(&provider, &me, suite, false, world.now_ms).expect("a KeyPackage")
    }
}
