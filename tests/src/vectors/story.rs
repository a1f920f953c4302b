//! A small organisation whose roster is written down, entry by entry.

use mortise_protocol::identity::{
    DeviceId, Hash, InvitationId, OrgId, SealSecret, SealedProfile, SigningKey, UserId, encode,
};
use mortise_protocol::roster::authority::Role;
use mortise_protocol::roster::{
    AddDevice, EntrySigner, EntryTbs, Genesis, Head, InvitationStatus, Op, Roster, RosterEntry,
    UserStatus,
};
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::hex;

pub(super) const HOUR_MS: u64 = 3_600_000;
/// The time of every entry, unless a case says otherwise.
pub(super) const NOW_MS: u64 = 1_800_000_000_000;

/// The key of a number, from the seed of 32 bytes of that number.
pub(super) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

/// A device of the story, with its keys' numbers.
pub(super) struct Device {
    pub(super) user: UserId,
    first_key: u8,
}

impl Device {
    /// A device with the keys `first_key`, and the two after it.
    pub(super) fn new(user: u8, first_key: u8) -> Self {
        Self {
            user: UserId([user; 16]),
            first_key,
        }
    }

    pub(super) fn mls(&self) -> SigningKey {
        key(self.first_key)
    }

    pub(super) fn id(&self) -> DeviceId {
        self.mls().public().device_id()
    }

    pub(super) fn add(&self, org: OrgId) -> AddDevice {
        AddDevice::sign(
            org,
            self.user,
            &self.mls(),
            &key(self.first_key + 1),
            &SealSecret::new(key(self.first_key + 2)),
        )
    }
}

/// An invitation of the story; the number of its key is that of its id.
#[derive(Clone, Copy)]
pub(super) struct Invitation(pub(super) u8);

impl Invitation {
    pub(super) fn id(self) -> InvitationId {
        InvitationId([self.0; 16])
    }

    pub(super) fn op(self, user: UserId) -> Op {
        Op::Invite {
            invitation: self.id(),
            user,
            key: key(self.0).public(),
            expires_at_ms: NOW_MS + HOUR_MS,
        }
    }
}

pub(super) fn profile(bytes: usize) -> SealedProfile {
    SealedProfile(vec![0x70; bytes].into())
}

pub(super) fn add_user(user: u8, role: Role) -> Op {
    Op::AddUser {
        user: UserId([user; 16]),
        role,
        profile: profile(20),
    }
}

/// The organisation, and what has been written down about it.
pub(super) struct Story {
    pub(super) roster: Roster,
    pub(super) entries: Vec<Vec<u8>>,
    written: Vec<Value>,
    refused: Vec<Value>,
}

pub(super) const ROOT: u8 = 1;
pub(super) const STATEMENT: u8 = 2;

impl Story {
    pub(super) fn new() -> Self {
        Self {
            roster: Roster::new(key(ROOT).public().org_id()),
            entries: Vec::new(),
            written: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn org(&self) -> OrgId {
        self.roster.org()
    }

    pub(super) fn genesis_ops(&self, owner: &Device) -> Vec<Op> {
        vec![
            Op::Genesis(Genesis {
                root_key: key(ROOT).public(),
                statement_key: key(STATEMENT).public(),
                suite: 0x004f,
                directory_commitment: Hash([3; 32]),
            }),
            Op::AddUser {
                user: owner.user,
                role: Role::Owner,
                profile: profile(20),
            },
            Op::AddDevice(owner.add(self.org())),
        ]
    }

    /// What an entry on the head says.
    pub(super) fn tbs(&self, signer: EntrySigner, ops: Vec<Op>) -> EntryTbs {
        let Head { seq, hash } = self.roster.head();
        EntryTbs {
            version: 1,
            org: self.org(),
            seq: seq.next(),
            prev_hash: hash,
            issued_at_ms: NOW_MS,
            signer,
            ops,
        }
    }

    pub(super) fn by(&self, device: &Device, ops: Vec<Op>) -> Vec<u8> {
        sign(
            self.tbs(EntrySigner::Device(device.id()), ops),
            &device.mls(),
        )
    }

    pub(super) fn by_root(&self, ops: Vec<Op>) -> Vec<u8> {
        sign(self.tbs(EntrySigner::Root, ops), &key(ROOT))
    }

    pub(super) fn redeem(&self, invitation: Invitation, device: &Device) -> Vec<u8> {
        let ops = vec![Op::AddDevice(device.add(self.org()))];
        sign(
            self.tbs(EntrySigner::Invitation(invitation.id()), ops),
            &key(invitation.0),
        )
    }

    /// The next entry of the story, which is taken.
    pub(super) fn take(&mut self, name: &str, seed: u8, entry: Vec<u8>) {
        self.roster.apply(&entry).expect(name);
        let decoded: RosterEntry = mortise_protocol::identity::decode(&entry).expect(name);
        self.written.push(json!({
            "name": name,
            "signer_seed": hex([seed; 32]),
            "entry": hex(&entry),
            "fields": decoded.fields(),
            "state": state(&self.roster),
        }));
        self.entries.push(entry);
    }

    /// An entry that is not taken now, for this reason.
    pub(super) fn refuse(&mut self, name: &str, expected: &str, entry: &[u8]) {
        let refusal = self.roster.clone().apply(entry).expect_err(name);
        let refused = variant(&refusal);
        assert_eq!(refused, expected, "{name}");
        self.write_refusal(name, &refused, refusal.code(), entry);
    }

    fn write_refusal(&mut self, name: &str, refused: &str, code: u16, entry: &[u8]) {
        // Only for size is an entry refused that is longer than this: what follows the front is zeros.
        let front = entry.len().min(8_192);
        self.refused.push(json!({
            "name": name,
            "after_seq": self.roster.head().seq.0,
            "entry": hex(&entry[..front]),
            "padded_to_bytes": entry.len(),
            "refusal": refused,
            "code": code,
        }));
    }

    /// An entry that the relay refuses for its time, at `now_ms`.
    pub(super) fn refuse_at(&mut self, name: &str, now_ms: u64, entry: &[u8]) {
        let code = 0x0211;
        self.write_refusal(name, "IssueTime", code, entry);
        let last = self.refused.last_mut().expect("written just now");
        last["relay_now_ms"] = json!(now_ms);
    }

    pub(super) fn into_json(self) -> Value {
        json!({
            "organisation": hex(self.org().0),
            "entries": self.written,
            "refused": self.refused,
        })
    }
}

pub(super) fn sign(tbs: EntryTbs, key: &SigningKey) -> Vec<u8> {
    let signature = key.sign("roster entry", &encode(&tbs));
    encode(&RosterEntry { tbs, signature })
}

/// The name of an error's variant, which is its name in the specification.
pub fn variant(error: &impl std::fmt::Debug) -> String {
    format!("{error:?}")
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect()
}

/// What a reader of the chain knows after an entry; made for comparison, so that nothing is left out.
pub fn state(roster: &Roster) -> Value {
    let users: Map<String, Value> = roster
        .users()
        .map(|(id, user)| {
            let status = match user.status {
                UserStatus::Active => "active",
                UserStatus::Suspended { .. } => "suspended",
                UserStatus::Removed { .. } => "removed",
            };
            let role = user.roles.last().map(|(_, role)| role.name());
            let seen = json!({ "role": role, "status": status });
            (hex(id.0), seen)
        })
        .collect();
    let devices: Map<String, Value> = roster
        .devices()
        .map(|(id, device)| {
            let burned = device.revoked.map_or(0, |seq| seq.0);
            let seen = json!({
                "user": hex(device.user.0), "added": device.added.0, "burned": burned,
            });
            (hex(id.0), seen)
        })
        .collect();
    let invitations: Map<String, Value> = roster
        .invitations()
        .map(|(id, invitation)| {
            let status = match invitation.status {
                InvitationStatus::Open => "open",
                InvitationStatus::Used { .. } => "used",
                InvitationStatus::Cancelled { .. } => "cancelled",
                InvitationStatus::Voided { .. } => "voided",
            };
            let seen = json!({ "user": hex(invitation.user.0), "status": status });
            (hex(id.0), seen)
        })
        .collect();
    json!({
        "seq": roster.head().seq.0,
        "hash": hex(roster.head().hash.0),
        "fence": roster.fence().0,
        "users": users,
        "devices": devices,
        "invitations": invitations,
        "policy": roster.policy().map(Fields::fields),
        "directory_generation": roster.directory_generation().0,
    })
}
