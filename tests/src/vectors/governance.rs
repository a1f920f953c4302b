//! The rest of the story: policy, directory keys, closed groups, a lost owner; and checkpoints (REQ-100 to REQ-105).

use mortise_protocol::identity::{GroupId, Hash, RosterSeq, UserId, WRAPPED_KEY_BYTES};
use mortise_protocol::roster::authority::Role;
use mortise_protocol::roster::{
    Checkpoint, CheckpointFault, EntrySigner, Head, MAX_STALENESS_LIMIT_MS, MIN_STALENESS_LIMIT_MS,
    Op, OrgPolicy, Roster, RotateDirectoryKey, Staleness,
};
use mortise_protocol::wire::Flag;
use serde_json::{Value, json};

use super::fields::Fields;
use super::roster::People;
use super::story::{
    Device, Invitation, NOW_MS, ROOT, STATEMENT, Story, add_user, key, sign, variant,
};

const GROUP: GroupId = GroupId([0x67; 32]);
const ANN: u8 = 10;

fn policy() -> OrgPolicy {
    OrgPolicy {
        version: 1,
        suite: 0x0001,
        pin_required: Flag::Yes,
        staleness: Staleness::Block,
        staleness_limit_ms: MIN_STALENESS_LIMIT_MS,
        statement_key: key(STATEMENT).public(),
    }
}

fn rotation(commitment: u8, predecessor_bytes: usize) -> Op {
    Op::RotateDirectoryKey(RotateDirectoryKey {
        commitment: Hash([commitment; 32]),
        predecessor: vec![0x9e; predecessor_bytes].into(),
    })
}

pub(super) fn take(story: &mut Story, people: &People) {
    policies(story, people);
    directory_keys(story, people);
    closed_groups(story, people);
    recovery(story, people);
}

fn policies(story: &mut Story, people: &People) {
    let cases = [
        (
            "a policy of version 2",
            OrgPolicy {
                version: 2,
                ..policy()
            },
        ),
        (
            "a policy with a suite of no meaning",
            OrgPolicy {
                suite: 2,
                ..policy()
            },
        ),
        (
            "a limit under 20 minutes",
            OrgPolicy {
                staleness_limit_ms: MIN_STALENESS_LIMIT_MS - 1,
                ..policy()
            },
        ),
        (
            "a limit over a year",
            OrgPolicy {
                staleness_limit_ms: MAX_STALENESS_LIMIT_MS + 1,
                ..policy()
            },
        ),
    ];
    for (name, bad) in cases {
        let entry = story.by(&people.ann, vec![Op::SetPolicy(bad)]);
        story.refuse(name, "BadPolicy", &entry);
    }
    let used = OrgPolicy {
        statement_key: key(ROOT).public(),
        ..policy()
    };
    let entry = story.by(&people.ann, vec![Op::SetPolicy(used)]);
    story.refuse("a statement key that is the root key", "KeyReused", &entry);
    let entry = story.by(&people.ann, vec![Op::SetPolicy(policy())]);
    story.take("Ann sets the policy", ANN, entry);
    let other_relay = OrgPolicy {
        statement_key: key(3).public(),
        staleness_limit_ms: MAX_STALENESS_LIMIT_MS,
        ..policy()
    };
    let entry = story.by(&people.ann, vec![Op::SetPolicy(other_relay)]);
    story.take("Ann moves to another relay", ANN, entry);
    let back = story.by(&people.ann, vec![Op::SetPolicy(policy())]);
    story.refuse("back to the relay's key before", "KeyReused", &back);
}

fn directory_keys(story: &mut Story, people: &People) {
    let entry = story.by(
        &people.ann,
        vec![
            add_user(0x0e, Role::Admin),
            add_user(0x0f, Role::Member),
            Invitation(90).op(UserId([0x0e; 16])),
            Invitation(91).op(UserId([0x0f; 16])),
        ],
    );
    story.take("Ann adds and invites Eve and Fay", ANN, entry);
    let (eve, fay) = (Device::new(0x0e, 100), Device::new(0x0f, 110));
    let entry = story.redeem(Invitation(90), &eve);
    story.take("Eve joins", 90, entry);
    let entry = story.redeem(Invitation(91), &fay);
    story.take("Fay joins", 91, entry);

    let whole = WRAPPED_KEY_BYTES;
    let mut refused = |name: &str, refusal: &str, by: &Device, ops: Vec<Op>| {
        let entry = story.by(by, ops);
        story.refuse(name, refusal, &entry);
    };
    let leave = Op::RemoveUser { user: fay.user };
    let heir = |successor: UserId| Op::NameSuccessor {
        user: fay.user,
        successor,
    };
    let shape = "SuccessorShape";
    let alone = vec![heir(eve.user)];
    refused("a successor without a removal", shape, &eve, alone);
    let late = vec![leave.clone(), heir(eve.user)];
    refused("a successor after the removal", "UserRemoved", &eve, late);
    let own = vec![heir(fay.user), leave.clone()];
    refused("who goes as the successor", shape, &eve, own);
    let gone = vec![heir(people.cy.user), leave.clone()];
    refused("a removed user as the successor", shape, &eve, gone);
    let other = Op::RemoveUser { user: eve.user };
    let other = vec![heir(eve.user), other];
    refused("a successor of somebody who stays", shape, &eve, other);
    let of_eve = Op::NameSuccessor {
        user: eve.user,
        successor: fay.user,
    };
    refused(
        "a member names an admin's successor",
        "Forbidden",
        &fay,
        vec![of_eve],
    );
    refused(
        "a member names a key without an order",
        "Forbidden",
        &fay,
        vec![rotation(4, whole)],
    );
    refused(
        "a member sets the policy",
        "Forbidden",
        &fay,
        vec![Op::SetPolicy(policy())],
    );
    refused(
        "an admin sets the policy",
        "Forbidden",
        &eve,
        vec![Op::SetPolicy(policy())],
    );
    refused(
        "a key that Genesis named",
        "RotationShape",
        &eve,
        vec![rotation(3, whole)],
    );
    refused(
        "a predecessor of 59 bytes",
        "RotationShape",
        &eve,
        vec![rotation(4, whole - 1)],
    );
    refused(
        "no predecessor",
        "RotationShape",
        &eve,
        vec![rotation(4, 0)],
    );
    refused(
        "two keys at once",
        "RotationShape",
        &eve,
        vec![rotation(4, whole), rotation(5, whole)],
    );
    refused(
        "who goes chooses the key",
        "RotationShape",
        &fay,
        vec![rotation(4, whole), leave],
    );

    let named = Op::NameSuccessor {
        user: fay.user,
        successor: eve.user,
    };
    let order = vec![named, Op::RemoveUser { user: fay.user }, rotation(4, whole)];
    let entry = story.by(&eve, order);
    story.take(
        "Eve removes Fay, inherits, and names a new directory key",
        100,
        entry,
    );
    let device = people.ann.id();
    let own_second = vec![Op::RevokeDevice { device }, rotation(5, whole)];
    let entry = story.by(&people.ann, own_second);
    story.refuse(
        "the last owner's device, before the key",
        "LastOwner",
        &entry,
    );
    let entry = story.by(&eve, vec![rotation(6, whole)]);
    story.take("Eve names another key, without an order", 100, entry);
}

fn closed_groups(story: &mut Story, people: &People) {
    let close = || vec![Op::CloseGroup { group: GROUP }];
    let eve = Device::new(0x0e, 100);
    let twice = [close(), close()].concat();
    let entry = story.by(&people.ann, twice);
    story.refuse("a group closed twice by one entry", "GroupClosed", &entry);
    let entry = story.by(&eve, close());
    story.take("Eve closes a group", 100, entry);
    let entry = story.by(&people.ann, close());
    story.refuse("a group closed again", "GroupClosed", &entry);
}

fn recovery(story: &mut Story, people: &People) {
    let gil = Device::new(0x10, 120);
    let good = vec![
        Op::Recover,
        add_user(0x10, Role::Owner),
        Op::AddDevice(gil.add(story.org())),
        rotation(7, 0),
    ];
    let with = |at: usize, op: Op| {
        let mut ops = good.clone();
        ops[at] = op;
        ops
    };
    let cases = [
        ("Recover without a directory key", good[..3].to_vec()),
        ("Recover of an admin", with(1, add_user(0x10, Role::Admin))),
        (
            "Recover with a predecessor",
            with(3, rotation(7, WRAPPED_KEY_BYTES)),
        ),
        (
            "Recover with a device of somebody else",
            with(1, add_user(0x11, Role::Owner)),
        ),
        (
            "Recover and more",
            [good.clone(), vec![rotation(8, 0)]].concat(),
        ),
    ];
    for (name, ops) in cases {
        let entry = story.by_root(ops);
        story.refuse(name, "RecoverShape", &entry);
    }
    let entry = story.by(&people.ann, good[..1].to_vec());
    story.refuse("Recover by a device", "RecoverShape", &entry);
    let entry = story.by_root(good[1..].to_vec());
    story.refuse(
        "by the root key, without Recover",
        "RootSignsGenesisOnly",
        &entry,
    );
    let entry = story.by_root(with(3, rotation(6, 0)));
    story.refuse(
        "Recover with a key that was named before",
        "RotationShape",
        &entry,
    );
    let entry = story.by_root(with(1, add_user(0x0a, Role::Owner)));
    story.refuse(
        "Recover of another user than the device's",
        "RecoverShape",
        &entry,
    );
    let tbs = story.tbs(EntrySigner::Root, good.clone());
    story.refuse(
        "Recover by another key",
        "BadSignature",
        &sign(tbs, &key(9)),
    );
    let entry = story.by_root(good);
    story.take("The root key makes Gil an owner", ROOT, entry);
}

/// Checkpoints against the whole chain (REQ-105).
pub(super) fn checkpoints(story: &Story, people: &People) -> Value {
    let roster = &story.roster;
    let head = roster.head();
    let at = |seq: u64| Head {
        seq: RosterSeq(seq),
        hash: roster.hash_at(RosterSeq(seq)).unwrap_or(Hash([0xee; 32])),
    };
    let sign = |head: Head, device: &Device| {
        Checkpoint::sign(story.org(), head, NOW_MS, device.id(), &device.mls())
    };
    let mut changed = sign(head, &people.ann);
    changed.issued_at_ms += 1;
    let mut of_eve = sign(head, &people.ann);
    of_eve.device = Device::new(0x0e, 100).id();
    let forked = Head {
        hash: Hash([0xee; 32]),
        ..head
    };
    let cases = [
        ("of the head, by an owner", sign(head, &people.ann)),
        (
            "of an earlier entry, by an admin who is removed later",
            sign(at(5), &people.bob),
        ),
        ("by a member", sign(at(5), &people.cy)),
        (
            "by an admin whose device is revoked",
            sign(head, &people.bob),
        ),
        ("before its device was admitted", sign(at(2), &people.bob)),
        ("a bit changed", changed),
        ("by another device than it says", of_eve),
        (
            "of an entry that is not the chain's",
            sign(forked, &people.ann),
        ),
        ("beyond the head", sign(at(head.seq.0 + 1), &people.ann)),
        ("of no entry", sign(at(0), &people.ann)),
    ];
    cases
        .into_iter()
        .map(|(name, checkpoint)| {
            json!({
                "name": name,
                "checkpoint": hex_of(&checkpoint),
                "fields": checkpoint.fields(),
                "fault": fault(&checkpoint, roster),
            })
        })
        .collect()
}

fn hex_of(checkpoint: &Checkpoint) -> String {
    super::hex(mortise_protocol::identity::encode(checkpoint))
}

/// `Signer`, `Beyond` or `Fork`; nothing where it holds.
fn fault(checkpoint: &Checkpoint, roster: &Roster) -> Option<String> {
    let fault: CheckpointFault = checkpoint.verify(roster).err()?;
    Some(variant(&fault))
}
