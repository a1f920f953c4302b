//! What MLS carries for a group: credentials and policies, section 10.

use std::collections::BTreeSet;

use mortise_protocol::group::{
    CREDENTIAL_VERSION, DeviceCredential, GroupPolicy, PolicyExtension, Predecessor, Resync,
    Violation, WhoMayAdd,
};
use mortise_protocol::identity::{DeviceId, Epoch, GroupId, Hash, OrgId, UserId, encode};
use openmls::prelude::BasicCredential;
use serde_json::{Value, json};

use super::fields::{Fields, name_of};
use super::hex;

pub(super) fn vectors() -> Value {
    json!({
        "credentials": credentials(),
        "policies": policies(),
        "refused_policies": refused_policies(),
        "resyncs": [resync()],
    })
}

fn policies() -> Value {
    [GroupPolicy::new("Lunch".into(), UserId([0x0a; 16])), full()]
        .iter()
        .map(|policy| json!({ "policy": hex(policy.to_bytes()), "fields": policy.fields() }))
        .collect()
}

/// What the extension 0xF0A2 of a leaf holds (REQ-156).
fn resync() -> Value {
    let (group, entry, at_ms) = (GroupId([0x67; 32]), Hash([0xe4; 32]), 1_800_000_000_000);
    json!({
        "resync": hex(encode(&Resync::new(group, entry, at_ms))),
        "fields": {
            "version": 1,
            "group": group.fields(),
            "entry_hash": entry.fields(),
            "asked_at_ms": at_ms,
        },
    })
}

/// Identities of basic credentials; what is not of the form is refused with BAD_CREDENTIAL (REQ-080).
fn credentials() -> Value {
    let good = encode(&DeviceCredential {
        version: CREDENTIAL_VERSION,
        org: OrgId([0x0a; 32]),
        user: UserId([0x0b; 16]),
        device: DeviceId([0xd1; 16]),
    });
    let mut newer = good.clone();
    newer[0] = 2;
    let cases = [
        ("good", good.clone()),
        ("of version 2", newer),
        ("cut", good[..good.len() - 1].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
    ];
    cases
        .into_iter()
        .map(|(name, identity)| {
            let read = DeviceCredential::read(&BasicCredential::new(identity.clone()).into());
            let refusal = read.is_none().then(|| name_of(&Violation::BadCredential));
            json!({
                "name": name,
                "identity": hex(identity),
                "fields": read.map(|read| json!({
                    "version": read.version,
                    "org": read.org.fields(),
                    "user": read.user.fields(),
                    "device": read.device.fields(),
                })),
                "refusal": refusal,
            })
        })
        .collect()
}

fn full() -> GroupPolicy {
    GroupPolicy {
        name: "Grüße".into(),
        topic: "what comes next".into(),
        admins: vec![UserId([0x0b; 16]), UserId([0x0a; 16])],
        who_may_add: WhoMayAdd::Admins,
        retention_days: Some(30),
        left: BTreeSet::from([UserId([0x0c; 16]), UserId([0x0d; 16])]),
        extensions: vec![PolicyExtension {
            kind: 7,
            data: vec![1, 2].into(),
        }],
        predecessor: Some(Predecessor {
            group: GroupId([0x67; 32]),
            epoch: Epoch(3),
            entry_hash: Hash([0xe4; 32]),
        }),
    }
}

impl Fields for WhoMayAdd {
    fn fields(&self) -> Value {
        json!(match self {
            Self::Admins => "admins",
            Self::Members => "members",
        })
    }
}

impl Fields for Predecessor {
    fn fields(&self) -> Value {
        json!({
            "group": self.group.fields(),
            "epoch": self.epoch.fields(),
            "entry_hash": self.entry_hash.fields(),
        })
    }
}

impl Fields for PolicyExtension {
    fn fields(&self) -> Value {
        json!({ "kind": self.kind, "data": self.data.fields() })
    }
}

impl Fields for GroupPolicy {
    fn fields(&self) -> Value {
        let left: Vec<UserId> = self.left.iter().copied().collect();
        let predecessor: Vec<Predecessor> = self.predecessor.into_iter().collect();
        json!({
            "version": 1,
            "name": hex(&self.name),
            "topic": hex(&self.topic),
            "admins": self.admins.fields(),
            "who_may_add": self.who_may_add.fields(),
            "retention_days": self.retention_days.unwrap_or(0),
            "left": left.fields(),
            "extensions": self.extensions.fields(),
            "predecessor": predecessor.fields(),
        })
    }
}

/// Where `needle` begins in `bytes`.
fn position(bytes: &[u8], needle: &[u8]) -> usize {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .expect("it is there")
}

/// What is no policy of this version, and makes a GroupContext refused (REQ-094).
fn refused_policies() -> Value {
    let good = full().to_bytes();
    let changed = |change: &dyn Fn(&mut GroupPolicy)| {
        let mut policy = full();
        change(&mut policy);
        policy.to_bytes()
    };
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let left = position(&good, &[0x0c; 16]);
    let mut unsorted = good.clone();
    unsorted[left..left + 32].rotate_left(16);
    let mut doubled = good.clone();
    doubled[left + 16..left + 32].fill(0x0c);
    let who = position(&good, &[0x0a; 16]) + 16;
    let cases = [
        ("of version 2", with(0, 2)),
        (
            "a name of 257 bytes",
            changed(&|p| p.name = "n".repeat(257)),
        ),
        ("a name that is not UTF-8", with(2, 0xff)),
        (
            "a topic of 1,025 bytes",
            changed(&|p| p.topic = "t".repeat(1_025)),
        ),
        (
            "an admin twice",
            changed(&|p| p.admins = vec![UserId([0x0a; 16]); 2]),
        ),
        ("who may add, of no meaning", with(who, 3)),
        ("users who left in another order", unsorted),
        ("a user who left twice", doubled),
        ("cut", good[..good.len() - 1].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
        ("nothing", Vec::new()),
    ];
    cases
        .into_iter()
        .map(|(name, bytes)| {
            assert!(GroupPolicy::from_bytes(&bytes).is_none(), "{name}");
            json!({
                "name": name,
                "policy": hex(bytes),
                "refusal": name_of(&Violation::PolicyMissing),
            })
        })
        .collect()
}
