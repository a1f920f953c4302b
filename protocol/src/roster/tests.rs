//! A small organisation to test on, and the life of a chain.

mod authority;
mod checkpoints;
mod governance;
mod refusals;
mod rules;

use super::*;
use crate::identity::{
    DeviceId, Hash, InvitationId, OrgId, RosterSeq, SealSecret, SealedProfile, SigningKey, UserId,
};

const HOUR_MS: u64 = 3_600_000;
/// The time of every entry, unless a test says otherwise.
const NOW_MS: u64 = 1_800_000_000_000;

struct Device {
    user: UserId,
    mls: SigningKey,
    transport: SigningKey,
    seal: SealSecret,
}

impl Device {
    fn id(&self) -> DeviceId {
        self.mls.public().device_id()
    }

    fn signer(&self) -> EntrySigner {
        EntrySigner::Device(self.id())
    }

    fn add(&self, org: OrgId) -> AddDevice {
        AddDevice::sign(org, self.user, &self.mls, &self.transport, &self.seal)
    }
}

struct Invitation {
    id: InvitationId,
    user: UserId,
    key: SigningKey,
}

impl Invitation {
    fn op(&self) -> Op {
        Op::Invite {
            invitation: self.id,
            user: self.user,
            key: self.key.public(),
            expires_at_ms: NOW_MS + HOUR_MS,
        }
    }
}

struct World {
    roster: Roster,
    root: SigningKey,
    owner: Device,
    log: Vec<Vec<u8>>,
    drawn: u64,
}

fn profile(bytes: usize) -> SealedProfile {
    SealedProfile(vec![7; bytes].into())
}

/// The policy of Genesis, as an owner would set it again.
fn policy() -> OrgPolicy {
    OrgPolicy {
        version: 1,
        suite: 0x004f,
        pin_required: crate::wire::Flag::No,
        staleness: Staleness::Warn,
        staleness_limit_ms: 24 * HOUR_MS,
        statement_key: key_of(2).public(),
    }
}

/// A new directory key that nobody has.
fn rotation(n: u8) -> Op {
    Op::RotateDirectoryKey(RotateDirectoryKey {
        commitment: Hash([n; 32]),
        predecessor: vec![n; crate::identity::WRAPPED_KEY_BYTES].into(),
    })
}

fn key_of(number: u64) -> SigningKey {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_seed(&seed)
}

fn genesis_ops(root: &SigningKey, owner: &Device) -> Vec<Op> {
    vec![
        Op::Genesis(Genesis {
            root_key: root.public(),
            statement_key: key_of(2).public(),
            suite: 0x004f,
            directory_commitment: Hash([3; 32]),
        }),
        Op::AddUser {
            user: owner.user,
            role: Role::Owner,
            profile: profile(20),
        },
        Op::AddDevice(owner.add(root.public().org_id())),
    ]
}

impl World {
    /// An organisation before its Genesis.
    fn unfounded() -> Self {
        let root = key_of(1);
        Self {
            roster: Roster::new(root.public().org_id()),
            root,
            owner: Device {
                user: UserId([1; 16]),
                mls: key_of(10),
                transport: key_of(11),
                seal: SealSecret::new(key_of(12)),
            },
            log: Vec::new(),
            drawn: 100,
        }
    }

    fn founded() -> Self {
        let mut world = Self::unfounded();
        let genesis = world.genesis();
        world.apply(&genesis);
        world
    }

    fn genesis(&self) -> SignedEntry {
        let ops = genesis_ops(&self.root, &self.owner);
        self.signed(EntrySigner::Root, &self.root, ops)
    }

    fn org(&self) -> OrgId {
        self.roster.org()
    }

    fn seq(&self) -> RosterSeq {
        self.roster.head().seq
    }

    fn signed(&self, signer: EntrySigner, key: &SigningKey, ops: Vec<Op>) -> SignedEntry {
        sign_entry(self.org(), self.roster.head(), NOW_MS, signer, key, ops)
    }

    fn by(&self, device: &Device, ops: Vec<Op>) -> SignedEntry {
        self.signed(device.signer(), &device.mls, ops)
    }

    fn by_owner(&self, ops: Vec<Op>) -> SignedEntry {
        self.by(&self.owner, ops)
    }

    fn redeem(&self, invitation: &Invitation, device: &Device) -> SignedEntry {
        let ops = vec![Op::AddDevice(device.add(self.org()))];
        self.signed(EntrySigner::Invitation(invitation.id), &invitation.key, ops)
    }

    #[track_caller]
    fn apply(&mut self, entry: &SignedEntry) -> Applied {
        let applied = self.roster.apply(entry.bytes()).expect("a valid entry");
        self.log.push(entry.bytes().to_vec());
        applied
    }

    #[track_caller]
    fn owner_does(&mut self, ops: Vec<Op>) -> Applied {
        let entry = self.by_owner(ops);
        self.apply(&entry)
    }

    /// Refused with exactly this error and this number, and nothing changed.
    #[track_caller]
    fn refuses(&self, entry: &SignedEntry, error: &RosterError, code: u16) {
        self.refuses_bytes(entry.bytes(), error, code);
    }

    #[track_caller]
    fn refuses_bytes(&self, bytes: &[u8], error: &RosterError, code: u16) {
        let mut roster = self.roster.clone();
        assert_eq!(roster.apply(bytes).as_ref(), Err(error));
        assert_eq!(roster, self.roster, "a refused entry changes nothing");
        assert_eq!(error.code(), code);
    }

    fn key(&mut self) -> SigningKey {
        self.drawn += 1;
        key_of(self.drawn)
    }

    fn new_device(&mut self, user: UserId) -> Device {
        Device {
            user,
            mls: self.key(),
            transport: self.key(),
            seal: SealSecret::new(self.key()),
        }
    }

    fn new_user(&mut self, role: Role) -> UserId {
        self.drawn += 1;
        let mut id = [5; 16];
        id[..8].copy_from_slice(&self.drawn.to_be_bytes());
        let user = UserId(id);
        self.owner_does(vec![Op::AddUser {
            user,
            role,
            profile: profile(20),
        }]);
        user
    }

    fn new_invitation(&mut self, user: UserId) -> Invitation {
        let key = self.key();
        let mut id = [6; 16];
        id[..8].copy_from_slice(&self.drawn.to_be_bytes());
        Invitation {
            id: InvitationId(id),
            user,
            key,
        }
    }

    /// An open invitation for `user`, issued by `issuer`.
    fn invited_by(&mut self, issuer: &Device, user: UserId) -> Invitation {
        let invitation = self.new_invitation(user);
        let entry = self.by(issuer, vec![invitation.op()]);
        self.apply(&entry);
        invitation
    }

    /// An open invitation for `user`, issued by the owner.
    fn invited(&mut self, user: UserId) -> Invitation {
        let invitation = self.new_invitation(user);
        self.owner_does(vec![invitation.op()]);
        invitation
    }

    fn joined(&mut self, invitation: &Invitation) -> Device {
        let device = self.new_device(invitation.user);
        let entry = self.redeem(invitation, &device);
        self.apply(&entry);
        device
    }

    /// A user of `role` with one device.
    fn person(&mut self, role: Role) -> Device {
        let user = self.new_user(role);
        let invitation = self.invited(user);
        self.joined(&invitation)
    }
}

/// REQ-010, REQ-012, REQ-019, REQ-022: a member comes, takes a second device, and goes.
#[test]
fn a_chain_from_genesis_to_removal() {
    let mut world = World::unfounded();
    assert_eq!(world.roster.head(), Head::EMPTY);
    assert_eq!(world.roster.root_key(), None);
    let genesis = world.genesis();
    let applied = world.apply(&genesis);
    assert_eq!((applied.seq, applied.hash), (RosterSeq(1), genesis.hash()));
    assert_eq!(applied.added_users, [world.owner.user]);
    assert_eq!(applied.added_devices, [world.owner.id()]);
    assert_eq!(applied.order, None);
    assert_eq!(world.roster.root_key(), Some(world.root.public()));
    assert_eq!(world.roster.statement_key(), Some(key_of(2).public()));
    assert_eq!(world.roster.suite(), Some(0x004f));
    assert_eq!(world.roster.directory_commitment(), Some(Hash([3; 32])));

    let user = UserId([2; 16]);
    let invitation = world.new_invitation(user);
    let applied = world.owner_does(vec![
        Op::AddUser {
            user,
            role: Role::Member,
            profile: profile(30),
        },
        invitation.op(),
    ]);
    assert_eq!(applied.opened_invitations, [invitation.id]);
    let phone = world.joined(&invitation);
    let own = world.invited_by(&phone, user);
    let laptop = world.joined(&own);
    let devices = |world: &World| -> Vec<DeviceId> {
        world.roster.devices_of(user).map(|(id, _)| id).collect()
    };
    assert_eq!(devices(&world), [phone.id(), laptop.id()]);
    let enrolled: Vec<_> = world.roster.enrolled_by_device(phone.id()).collect();
    assert_eq!(enrolled, [laptop.id()]);
    let record = world.roster.device(laptop.id()).expect("device");
    assert_eq!(record.enrolled_by, EntrySigner::Invitation(own.id));
    assert_eq!(
        world
            .roster
            .device_by_transport_key(&laptop.transport.public()),
        Some((laptop.id(), record))
    );
    assert_eq!(world.roster.fence(), RosterSeq(0));

    let applied = world.owner_does(vec![Op::RemoveUser { user }]);
    let order = applied.order.expect("a removal is an order");
    assert_eq!(
        order,
        Order {
            seq: world.seq(),
            entry_hash: world.roster.head().hash,
            user: Some(user),
            devices: vec![phone.id(), laptop.id()],
            at_ms: NOW_MS,
        }
    );
    assert_eq!(world.roster.orders(), std::slice::from_ref(&order));
    assert_eq!(world.roster.order(world.seq()), Some(&order));
    assert_eq!(world.roster.fence(), world.seq());
    assert!(devices(&world).is_empty());
    assert_eq!(world.roster.devices_ever_of(user).count(), 2);
    assert_eq!(world.roster.role(user), None);
}

/// REQ-011: equal bytes lead to equal states, and the state knows every hash.
#[test]
fn replaying_a_chain_gives_the_same_state() {
    let mut world = World::founded();
    let member = world.person(Role::Member);
    let guest = world.person(Role::Guest);
    world.owner_does(vec![Op::SuspendUser { user: guest.user }]);
    world.owner_does(vec![Op::RevokeDevice {
        device: member.id(),
    }]);
    let mut replayed = Roster::new(world.org());
    for (index, bytes) in world.log.iter().enumerate() {
        let applied = replayed.apply(bytes).expect("a valid entry");
        let entry = SignedEntry::parse(bytes).expect("well-formed");
        assert_eq!(entry.hash(), applied.hash);
        assert_eq!(entry.head(), replayed.head());
        assert_eq!(entry.bytes(), bytes);
        let seq = RosterSeq(index as u64 + 1);
        assert_eq!(replayed.hash_at(seq), Some(applied.hash));
    }
    assert_eq!(replayed, world.roster);
    let mut restarted = Roster::new(world.org());
    for bytes in &world.log {
        restarted.replay(bytes).expect("a stored entry");
    }
    assert_eq!(restarted, world.roster, "from the own store");
    let again = restarted.replay(&world.log[0]);
    assert!(
        matches!(again, Err(RosterError::Conflict { .. })),
        "{again:?}"
    );
    assert_eq!(replayed.hash_at(RosterSeq(0)), None);
    assert_eq!(replayed.hash_at(world.seq().next()), None);
}

/// REQ-011: no byte of an entry can be changed, whoever signed it.
#[test]
fn a_changed_byte_anywhere_is_refused() {
    let mut world = World::unfounded();
    let genesis = world.genesis();
    every_flip_is_refused(&world, &genesis);
    world.apply(&genesis);
    let user = world.new_user(Role::Member);
    let invitation = world.new_invitation(user);
    let invite = world.by_owner(vec![invitation.op()]);
    every_flip_is_refused(&world, &invite);
    world.apply(&invite);
    let device = world.new_device(user);
    let join = world.redeem(&invitation, &device);
    every_flip_is_refused(&world, &join);
    world.apply(&join);
}

fn every_flip_is_refused(world: &World, entry: &SignedEntry) {
    let mut roster = world.roster.clone();
    for index in 0..entry.bytes().len() {
        for bit in [0x01, 0x80] {
            let mut bytes = entry.bytes().to_vec();
            bytes[index] ^= bit;
            assert!(roster.apply(&bytes).is_err(), "byte {index} bit {bit:#x}");
        }
    }
    assert_eq!(roster, world.roster);
}

/// REQ-015: of two entries on one head the second is refused, and re-signed it is taken.
#[test]
fn one_of_two_concurrent_entries_wins() {
    let mut world = World::founded();
    let user = world.new_user(Role::Member);
    let invitation = world.invited(user);
    let device = world.new_device(user);
    let join = world.redeem(&invitation, &device);
    let other = world.by_owner(vec![Op::SetProfile {
        user,
        profile: profile(1),
    }]);
    let checked = world.roster.check(join.bytes()).expect("valid so far");
    assert_eq!(checked.applied().added_devices, [device.id()]);
    world.apply(&other);
    let head = world.roster.head();
    assert_eq!(head, other.head());
    world.refuses(&join, &RosterError::Conflict { head }, 0x0210);
    assert_eq!(
        world.roster.commit(checked),
        Err(RosterError::Conflict { head })
    );
    world.refuses(&other, &RosterError::Conflict { head }, 0x0210);
    // The same proofs of possession, on the new head (REQ-013).
    let Op::AddDevice(add) = join.tbs().ops[0].clone() else {
        panic!("a join is an AddDevice")
    };
    let signer = EntrySigner::Invitation(invitation.id);
    let again = world.signed(signer, &invitation.key, vec![Op::AddDevice(add)]);
    world.apply(&again);
}

/// REQ-015: seq and prev_hash are each compared.
#[test]
fn seq_and_prev_hash_are_both_compared() {
    let mut world = World::founded();
    let user = world.new_user(Role::Member);
    let head = world.roster.head();
    let op = Op::RemoveUser { user };
    for wrong in [
        Head {
            seq: head.seq.next(),
            hash: head.hash,
        },
        Head {
            seq: RosterSeq(head.seq.0 - 1),
            hash: head.hash,
        },
        Head {
            seq: head.seq,
            hash: Hash([0; 32]),
        },
        Head::EMPTY,
    ] {
        let (signer, key) = (world.owner.signer(), &world.owner.mls);
        let entry = sign_entry(world.org(), wrong, NOW_MS, signer, key, vec![op.clone()]);
        world.refuses(&entry, &RosterError::Conflict { head }, 0x0210);
    }
}
