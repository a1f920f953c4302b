//! The roster's rules, under entries of every kind by everybody, each well signed or not.

use mortise_protocol::identity::{
    DeviceId, GroupId, Hash, InvitationId, SealSecret, SealedProfile, SigningKey, UserId,
};
use mortise_protocol::roster::{
    AddDevice, EntrySigner, Genesis, Op, OrgPolicy, Role, Roster, RotateDirectoryKey, Staleness,
    UserStatus, sign_entry,
};
use mortise_protocol::wire::Flag;

use super::Bytes;

const NOW_MS: u64 = 1_800_000_000_000;
/// Users, devices, invitations and groups that a chain knows by number.
const FEW: usize = 6;
const ROLES: [Role; 7] = [
    Role::Owner,
    Role::Admin,
    Role::Supervisor,
    Role::Auditor,
    Role::Member,
    Role::Guest,
    Role::Bot,
];
const ROOT: u8 = 250;
const OWNER: u8 = 0;

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

/// The signature key of a numbered device; its other keys are the two numbers after.
fn device_key(number: usize) -> SigningKey {
    key(100 + 3 * u8::try_from(number).unwrap_or(0))
}

fn device(number: usize) -> DeviceId {
    device_key(number).public().device_id()
}

fn invitation_key(number: usize) -> SigningKey {
    key(200 + u8::try_from(number).unwrap_or(0))
}

fn user(number: usize) -> UserId {
    UserId([u8::try_from(number).unwrap_or(0); 16])
}

fn invitation(number: usize) -> InvitationId {
    InvitationId([u8::try_from(number).unwrap_or(0); 16])
}

fn profile(byte: u8) -> SealedProfile {
    SealedProfile(vec![byte; 20].into())
}

struct Chain {
    roster: Roster,
    taken: Vec<Vec<u8>>,
}

impl Chain {
    fn founded() -> Self {
        let root = key(ROOT);
        let mut chain = Self {
            roster: Roster::new(root.public().org_id()),
            taken: Vec::new(),
        };
        let ops = vec![
            Op::Genesis(Genesis {
                root_key: root.public(),
                statement_key: key(251).public(),
                suite: 0x004F,
                directory_commitment: Hash([1; 32]),
            }),
            Op::AddUser {
                user: user(usize::from(OWNER)),
                role: Role::Owner,
                profile: profile(0),
            },
            Op::AddDevice(chain.new_device(user(usize::from(OWNER)), 0)),
        ];
        let founded = chain.append(EntrySigner::Root, &root, ops);
        assert!(founded, "a good Genesis is taken");
        chain
    }

    fn new_device(&self, user: UserId, number: usize) -> AddDevice {
        let first = 100 + 3 * u8::try_from(number).unwrap_or(0);
        AddDevice::sign(
            self.roster.org(),
            user,
            &key(first),
            &key(first + 1),
            &SealSecret::new(key(first + 2)),
        )
    }

    /// Appends an entry if the rules allow it, and holds the roster to its promises either way.
    fn append(&mut self, signer: EntrySigner, key: &SigningKey, ops: Vec<Op>) -> bool {
        let (org, head) = (self.roster.org(), self.roster.head());
        let entry = sign_entry(org, head, NOW_MS, signer, key, ops);
        self.offer(entry.bytes())
    }

    fn offer(&mut self, entry: &[u8]) -> bool {
        let before = self.roster.clone();
        match self.roster.apply(entry) {
            Ok(_) => {
                assert_eq!(self.roster.head().seq, before.head().seq.next());
                assert!(
                    self.roster.fence() >= before.fence(),
                    "the fence never falls"
                );
                assert!(
                    self.roster.clone().apply(entry).is_err(),
                    "an entry is taken once"
                );
                self.taken.push(entry.to_vec());
                self.check(&before);
                true
            }
            Err(_) => {
                assert_eq!(
                    self.roster.head(),
                    before.head(),
                    "a refusal changes nothing"
                );
                assert_eq!(self.roster.fence(), before.fence());
                false
            }
        }
    }

    fn check(&self, before: &Roster) {
        let owners = |roster: &Roster| {
            roster
                .users()
                .filter(|(id, u)| {
                    roster.role(*id) == Some(Role::Owner) && u.status == UserStatus::Active
                })
                .count()
        };
        assert!(owners(&self.roster) > 0, "an owner is left (REQ-017)");
        let mut keys: Vec<_> = self
            .roster
            .devices()
            .flat_map(|(_, d)| [d.mls_signature_key, d.transport_key])
            .collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all, "a key is used once (REQ-014)");
        for (id, _) in before.devices().filter(|(_, d)| !d.is_admitted()) {
            assert!(!self.roster.is_admitted(id), "a burned device stays burned");
        }
        for (id, was) in before.users() {
            let is = self.roster.user(id).map(|u| u.status);
            if was.is_removed() {
                assert_eq!(is, Some(was.status), "who is removed stays removed");
            }
        }
        for (id, device) in self.roster.devices().filter(|(_, d)| d.is_admitted()) {
            let status = self.roster.user(device.user).map(|u| u.status);
            assert_eq!(status, Some(UserStatus::Active), "{id:?} is somebody's");
        }
    }

    /// What a stranger makes of the entries is what we have.
    fn replay(&self) {
        let mut again = Roster::new(self.roster.org());
        for entry in &self.taken {
            again.apply(entry).expect("taken before");
        }
        assert_eq!(again.head(), self.roster.head());
        assert_eq!(again.fence(), self.roster.fence());
        let mut stored = Roster::new(self.roster.org());
        for entry in &self.taken {
            stored.replay(entry).expect("taken before");
        }
        assert_eq!(stored.head(), self.roster.head());
        assert_eq!(stored.fence(), self.roster.fence());
    }

    fn op(&self, bytes: &mut Bytes<'_>) -> Op {
        let (one, other) = (bytes.below(FEW), bytes.below(FEW));
        match bytes.below(14) {
            0 => Op::AddUser {
                user: user(one),
                role: ROLES[bytes.below(ROLES.len())],
                profile: profile(bytes.byte()),
            },
            1 => Op::SetProfile {
                user: user(one),
                profile: profile(bytes.byte()),
            },
            2 => Op::SetRole {
                user: user(one),
                role: ROLES[bytes.below(ROLES.len())],
            },
            3 => Op::SuspendUser { user: user(one) },
            4 => Op::RemoveUser { user: user(one) },
            5 | 6 => Op::Invite {
                invitation: invitation(other),
                user: user(one),
                key: invitation_key(bytes.below(FEW)).public(),
                expires_at_ms: NOW_MS + 1_000,
            },
            7 => Op::CancelInvite {
                invitation: invitation(other),
            },
            8 | 9 => Op::AddDevice(self.new_device(user(one), other)),
            10 => Op::RevokeDevice {
                device: device(one),
            },
            11 => Op::SetPolicy(OrgPolicy {
                version: 1 + u8::from(bytes.one_in(8)),
                suite: 1,
                pin_required: Flag::Yes,
                staleness: Staleness::Block,
                staleness_limit_ms: 86_400_000 * u64::from(bytes.byte()),
                statement_key: key(251).public(),
            }),
            12 => Op::RotateDirectoryKey(RotateDirectoryKey {
                commitment: Hash([bytes.byte(); 32]),
                predecessor: vec![7; bytes.below(100)].into(),
            }),
            _ => match bytes.below(4) {
                0 => Op::Recover,
                1 => Op::NameSuccessor {
                    user: user(one),
                    successor: user(other),
                },
                _ => Op::CloseGroup {
                    group: GroupId([bytes.byte(); 32]),
                },
            },
        }
    }

    fn signer(bytes: &mut Bytes<'_>) -> (EntrySigner, SigningKey) {
        let number = bytes.below(FEW);
        match bytes.below(6) {
            0 => (
                EntrySigner::Invitation(invitation(number)),
                invitation_key(bytes.below(FEW)),
            ),
            1 => (EntrySigner::Root, key(ROOT)),
            _ => (EntrySigner::Device(device(number)), device_key(number)),
        }
    }
}

/// Entries of one to four operations, by anybody.
pub(super) fn chain(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut chain = Chain::founded();
    while !bytes.is_empty() {
        let (signer, key) = Chain::signer(&mut bytes);
        let count = 1 + bytes.below(4);
        let ops = (0..count).map(|_| chain.op(&mut bytes)).collect();
        chain.append(signer, &key, ops);
    }
    chain.replay();
}

/// Any bytes as the entry after Genesis; the first byte says whether they are a good entry's, changed.
pub(super) fn entry(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut chain = Chain::founded();
    if bytes.one_in(4) {
        chain.offer(bytes.rest());
        return;
    }
    let ops = (0..=bytes.below(3)).map(|_| chain.op(&mut bytes)).collect();
    let (org, head) = (chain.roster.org(), chain.roster.head());
    let signer = EntrySigner::Device(device(0));
    let good = sign_entry(org, head, NOW_MS, signer, &device_key(0), ops);
    let mut changed = good.bytes().to_vec();
    bytes.mangle(&mut changed);
    if changed != good.bytes() {
        assert!(!chain.offer(&changed), "every byte is signed (REQ-011)");
    }
    chain.offer(good.bytes());
    chain.replay();
}
