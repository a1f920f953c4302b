//! Every refusal of a roster entry (section 5.3), each provoked where the story stands.

use mortise_protocol::identity::{Hash, InvitationId, OrgId, UserId};
use mortise_protocol::roster::authority::Role;
use mortise_protocol::roster::{
    EntrySigner, Genesis, Head, MAX_ISSUE_SKEW_MS, Op, check_issue_time,
};

use super::roster::{NO_DEVICE, People};
use super::story::{
    Device, HOUR_MS, Invitation, NOW_MS, ROOT, Story, add_user, key, profile, sign,
};

fn rename(user: UserId) -> Op {
    Op::SetProfile {
        user,
        profile: profile(1),
    }
}

pub(super) fn of_genesis(story: &mut Story, people: &People) {
    let good = story.genesis_ops(&people.ann);
    let with = |at: usize, op: Op| {
        let mut ops = good.clone();
        ops[at] = op;
        ops
    };
    let cases = [
        ("Genesis without a device", good[..2].to_vec()),
        ("Genesis of an admin", with(1, add_user(0x0a, Role::Admin))),
        (
            "Genesis with a device of somebody else",
            with(2, Op::AddDevice(people.bob.add(story.org()))),
        ),
        (
            "Genesis and one operation more",
            [good.clone(), vec![rename(people.ann.user)]].concat(),
        ),
    ];
    for (name, ops) in cases {
        story.refuse(name, "GenesisShape", &story.by_root(ops));
    }
    let entry = story.by(&people.ann, good.clone());
    story.refuse("Genesis signed by a device", "GenesisShape", &entry);
    let other = key(9);
    let Op::Genesis(genesis) = good[0].clone() else {
        return;
    };
    let stranger = Genesis {
        root_key: other.public(),
        ..genesis.clone()
    };
    let tbs = story.tbs(EntrySigner::Root, with(0, Op::Genesis(stranger)));
    story.refuse("another root key", "RootKeyMismatch", &sign(tbs, &other));
    let tbs = story.tbs(EntrySigner::Root, good.clone());
    story.refuse(
        "Genesis signed by another key",
        "BadSignature",
        &sign(tbs, &other),
    );
    let doubled = Genesis {
        statement_key: genesis.root_key,
        ..genesis
    };
    let entry = story.by_root(with(0, Op::Genesis(doubled)));
    story.refuse("the statement key is the root key", "KeyReused", &entry);
}

pub(super) fn of_the_only_owner(story: &mut Story, people: &People) {
    let user = people.ann.user;
    let device = people.ann.id();
    let demote = Op::SetRole {
        user,
        role: Role::Admin,
    };
    for (name, op) in [
        ("the last owner removed", Op::RemoveUser { user }),
        ("the last owner suspended", Op::SuspendUser { user }),
        ("the last owner demoted", demote),
        (
            "the last owner's device revoked",
            Op::RevokeDevice { device },
        ),
    ] {
        let entry = story.by(&people.ann, vec![op]);
        story.refuse(name, "LastOwner", &entry);
    }
}

/// Where the first operation's type stands in an entry by a device, after a one-byte length.
const OP_AT: usize = 1 + 32 + 8 + 32 + 8 + (1 + 16) + 1;

pub(super) fn of_bytes(story: &mut Story, people: &People) {
    let role = Op::SetRole {
        user: people.cy.user,
        role: Role::Guest,
    };
    let good = story.by(&people.ann, vec![role]);
    let mut long = good.clone();
    long.resize(64 * 1024 + 1, 0);
    story.refuse("a byte over 65,536", "TooLarge", &long);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    story.refuse("version 0", "WrongVersion", &with(0, 0));
    story.refuse("version 2", "WrongVersion", &with(0, 2));
    story.refuse("nothing", "Malformed", &[]);
    story.refuse("cut", "Malformed", &good[..good.len() - 1]);
    story.refuse("cut in the header", "Malformed", &good[..40]);
    story.refuse("a byte more", "Malformed", &[&good[..], &[0]].concat());
    story.refuse("a signer of no type", "Malformed", &with(OP_AT - 18, 0x40));
    story.refuse("a role of no meaning", "Malformed", &with(OP_AT + 18, 0x11));
    story.refuse("an operation below 0x0100", "Malformed", &with(OP_AT, 0x00));
    story.refuse(
        "a length in two bytes for one",
        "Malformed",
        &long_length(&good, people),
    );
    for (name, high, low) in [
        ("the operation after genesis's number", 0x01, 0x01),
        ("the last operation", 0xff, 0xff),
    ] {
        let mut bytes = with(OP_AT, high);
        bytes[OP_AT + 1] = low;
        story.refuse(name, "UnknownOp", &bytes);
    }
    let mut of_ann = |name: &str, refusal: &str, ops| {
        let entry = story.by(&people.ann, ops);
        story.refuse(name, refusal, &entry);
    };
    of_ann("no operation", "NoOps", Vec::new());
    let invitation = InvitationId([0xee; 16]);
    let many = vec![Op::CancelInvite { invitation }; 65];
    of_ann("65 operations", "TooManyOps", many);
    let user = people.cy.user;
    let large = Op::SetProfile {
        user,
        profile: profile(1025),
    };
    of_ann("a profile of 1,025 bytes", "ProfileTooLarge", vec![large]);
}

/// The same entry with the length of its operations in two bytes, and signed so.
fn long_length(entry: &[u8], people: &People) -> Vec<u8> {
    let mut bytes = entry[..entry.len() - 64].to_vec();
    bytes.splice(OP_AT - 1..OP_AT, [0x40, entry[OP_AT - 1]]);
    let signature = people.ann.mls().sign("roster entry", &bytes);
    [&bytes[..], &signature.0].concat()
}

pub(super) fn of_signers(story: &mut Story, people: &People) {
    let ops = vec![rename(people.cy.user)];
    let signer = EntrySigner::Device(people.cy.id());
    let good = story.by(&people.cy, ops.clone());
    let head = story.roster.head();

    let mut tbs = story.tbs(signer, ops.clone());
    tbs.org = OrgId([0xee; 32]);
    story.refuse(
        "of another organisation",
        "WrongOrg",
        &sign(tbs, &people.cy.mls()),
    );
    let newest = story.entries[story.entries.len() - 1].clone();
    story.refuse("the newest entry again", "Conflict", &newest);
    let mut forked = |name, Head { seq, hash }| {
        let mut tbs = story.tbs(signer, ops.clone());
        (tbs.seq, tbs.prev_hash) = (seq, hash);
        story.refuse(name, "Conflict", &sign(tbs, &people.cy.mls()));
    };
    let next = head.seq.next();
    forked(
        "on another entry of the same seq",
        Head {
            seq: next,
            hash: Hash([0xee; 32]),
        },
    );
    forked(
        "a seq left out",
        Head {
            seq: next.next(),
            hash: head.hash,
        },
    );
    forked(
        "the head's own seq",
        Head {
            seq: head.seq,
            hash: head.hash,
        },
    );

    let too_late = NOW_MS + MAX_ISSUE_SKEW_MS + 1;
    for (name, now_ms) in [
        ("10 minutes and a millisecond old", too_late),
        (
            "10 minutes and a millisecond ahead",
            NOW_MS - MAX_ISSUE_SKEW_MS - 1,
        ),
    ] {
        let refused = check_issue_time(NOW_MS, now_ms, MAX_ISSUE_SKEW_MS);
        assert!(refused.is_err(), "{name}");
        story.refuse_at(name, now_ms, &good);
    }

    let mut flipped = good.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    story.refuse("a bit of the signature changed", "BadSignature", &flipped);
    let mut changed = good.clone();
    changed[OP_AT + 2] ^= 1;
    story.refuse("a bit of what is signed changed", "BadSignature", &changed);
    let by_other = sign(story.tbs(signer, ops.clone()), &people.ann.mls());
    story.refuse(
        "signed by another device than it says",
        "BadSignature",
        &by_other,
    );
    let stranger = EntrySigner::Device(NO_DEVICE);
    let unknown = sign(story.tbs(stranger, ops.clone()), &people.cy.mls());
    story.refuse(
        "signed by a device that nobody has",
        "SignerUnknown",
        &unknown,
    );
    let user = people.cy.user;
    let leave = story.by(&people.cy, vec![Op::RemoveUser { user }, ops[0].clone()]);
    story.refuse(
        "signed by a device that is gone after its first operation",
        "SignerNotAdmitted",
        &leave,
    );
    let entry = story.by_root(ops);
    story.refuse("signed by the root key", "RootSignsGenesisOnly", &entry);
    let again = story.genesis_ops(&people.ann)[..1].to_vec();
    let entry = story.by(&people.ann, again);
    story.refuse("Genesis again", "GenesisAgain", &entry);
}

pub(super) fn of_roles(story: &mut Story, people: &People) {
    let (ann, cy, nobody) = (people.ann.user, people.cy.user, UserId([0xee; 16]));
    let (device, user) = (people.ann.id(), ann);
    let cases = [
        (
            "a member adds a user",
            &people.cy,
            add_user(0x0e, Role::Guest),
        ),
        (
            "a member renames another",
            &people.cy,
            rename(people.bob.user),
        ),
        (
            "a member makes itself an owner",
            &people.cy,
            Op::SetRole {
                user: cy,
                role: Role::Owner,
            },
        ),
        (
            "a member invites somebody",
            &people.cy,
            Invitation(29).op(people.bob.user),
        ),
        (
            "an admin adds an owner",
            &people.bob,
            add_user(0x0e, Role::Owner),
        ),
        (
            "an admin removes an owner",
            &people.bob,
            Op::RemoveUser { user },
        ),
        (
            "an admin revokes an owner's device",
            &people.bob,
            Op::RevokeDevice { device },
        ),
        (
            "an admin makes itself an owner",
            &people.bob,
            Op::SetRole {
                user: people.bob.user,
                role: Role::Owner,
            },
        ),
        (
            "forbidden comes before the id is taken",
            &people.cy,
            add_user(0x0a, Role::Guest),
        ),
    ];
    for (name, by, op) in cases {
        let entry = story.by(by, vec![op]);
        story.refuse(name, "Forbidden", &entry);
    }
    let second = [rename(cy), Op::RemoveUser { user: ann }];
    let entry = story.by(&people.bob, second.to_vec());
    story.refuse(
        "the second operation is forbidden, and so the first one too",
        "Forbidden",
        &entry,
    );
    let cases = [
        (
            "a user that nobody added",
            "UnknownUser",
            vec![rename(nobody)],
        ),
        (
            "a user id that is taken",
            "UserExists",
            vec![add_user(0x0c, Role::Guest)],
        ),
        (
            "the same user added twice",
            "UserExists",
            vec![add_user(0x0e, Role::Guest), add_user(0x0e, Role::Guest)],
        ),
        (
            "a device that nobody has",
            "UnknownDevice",
            vec![Op::RevokeDevice { device: NO_DEVICE }],
        ),
        (
            "two users suspended by one entry",
            "OneUserPerOrder",
            vec![
                Op::SuspendUser { user: cy },
                Op::SuspendUser {
                    user: people.bob.user,
                },
            ],
        ),
    ];
    for (name, refusal, ops) in cases {
        let entry = story.by(&people.ann, ops);
        story.refuse(name, refusal, &entry);
    }
}

pub(super) fn of_invitations(story: &mut Story, people: &People) {
    let fresh = Device::new(0x0c, 70);
    let entry = story.by(&people.ann, vec![Op::AddDevice(fresh.add(story.org()))]);
    story.refuse(
        "a device added by a device",
        "AddDeviceNeedsInvitation",
        &entry,
    );
    let entry = story.redeem(Invitation(29), &fresh);
    story.refuse(
        "an invitation that nobody issued",
        "InvitationUnknown",
        &entry,
    );
    let entry = story.redeem(Invitation(22), &fresh);
    story.refuse("an invitation redeemed twice", "InvitationUsed", &entry);
    let taken = Op::Invite {
        invitation: Invitation(22).id(),
        user: people.cy.user,
        key: key(29).public(),
        expires_at_ms: NOW_MS + HOUR_MS,
    };
    let entry = story.by(&people.ann, vec![taken]);
    story.refuse("an invitation id that is taken", "InvitationExists", &entry);
    let cancel = |number| Op::CancelInvite {
        invitation: Invitation(number).id(),
    };
    let entry = story.by(&people.ann, vec![cancel(29)]);
    story.refuse(
        "taking back what nobody issued",
        "InvitationUnknown",
        &entry,
    );
    let entry = story.by(&people.ann, vec![cancel(22)]);
    story.refuse("taking back what was redeemed", "InvitationUsed", &entry);

    let open = story.by(&people.bob, vec![Invitation(27).op(people.cy.user)]);
    story.take("Bob invites another device of Cy's", 30, open);
    let signer = EntrySigner::Invitation(Invitation(27).id());
    let add = |device: &Device| Op::AddDevice(device.add(story.org()));
    let others = [
        (
            "two devices by one invitation",
            vec![add(&fresh), add(&Device::new(0x0c, 80))],
        ),
        (
            "another operation by an invitation",
            vec![rename(people.cy.user)],
        ),
        (
            "a device of another user by an invitation",
            vec![add(&Device::new(0x0b, 70))],
        ),
    ];
    for (name, ops) in others {
        let entry = sign(story.tbs(signer, ops), &key(27));
        story.refuse(name, "InvitationScope", &entry);
    }
    let tbs = story.tbs(signer, vec![Op::AddDevice(fresh.add(story.org()))]);
    story.refuse(
        "an invitation's entry by another key",
        "BadSignature",
        &sign(tbs.clone(), &key(29)),
    );
    let mut late = tbs;
    late.issued_at_ms = NOW_MS + HOUR_MS;
    story.refuse(
        "at the time of expiry",
        "InvitationExpired",
        &sign(late, &key(27)),
    );
}

pub(super) fn of_keys(story: &mut Story, people: &People) {
    let signer = EntrySigner::Invitation(Invitation(27).id());
    let good = Device::new(0x0c, 70).add(story.org());
    let mut forged = [good.clone(), good.clone(), good.clone(), good.clone()];
    forged[0].mls_proof = good.transport_proof;
    forged[1].transport_proof = good.seal_proof;
    forged[2].seal_proof = good.mls_proof;
    forged[3] = Device::new(0x0c, 70).add(OrgId([0xee; 32]));
    for (name, add) in [
        "the MLS signature key not proven",
        "the transport key not proven",
        "the sealing key not proven",
        "keys proven for another organisation",
    ]
    .into_iter()
    .zip(forged)
    {
        let entry = sign(story.tbs(signer, vec![Op::AddDevice(add)]), &key(27));
        story.refuse(name, "PossessionNotProven", &entry);
    }
    // Two of its keys are Cy's first device's second and third.
    let entry = story.redeem(Invitation(27), &Device::new(0x0c, 41));
    story.refuse("keys of another device, proven", "KeyReused", &entry);
    let mut key_of_invitation = key(22).public();
    let mut invite = |name: &str, key| {
        let op = Op::Invite {
            invitation: Invitation(28).id(),
            user: people.cy.user,
            key,
            expires_at_ms: NOW_MS + HOUR_MS,
        };
        let entry = story.by(&people.ann, vec![op]);
        story.refuse(name, "KeyReused", &entry);
    };
    invite("the key of a used invitation", key_of_invitation);
    key_of_invitation.0[31] ^= 0x80;
    invite("a used key with the other sign", key_of_invitation);
    invite("the root key as an invitation's", key(ROOT).public());
}

pub(super) fn after_cancelling(story: &mut Story, people: &People) {
    let entry = story.redeem(Invitation(24), &Device::new(0x0c, 70));
    story.refuse(
        "an invitation that was taken back",
        "InvitationCancelled",
        &entry,
    );
    let invitation = Invitation(24).id();
    let entry = story.by(&people.ann, vec![Op::CancelInvite { invitation }]);
    story.refuse("taken back twice", "InvitationCancelled", &entry);
}

pub(super) fn after_voiding(story: &mut Story, people: &People) {
    let dots = Device::new(0x0d, 70);
    let entry = story.redeem(Invitation(23), &dots);
    story.refuse(
        "an admin's invitation of a new owner",
        "InvitationVoided",
        &entry,
    );
    let invitation = Invitation(23).id();
    let entry = story.by(&people.ann, vec![Op::CancelInvite { invitation }]);
    story.refuse("taking back what is void", "InvitationVoided", &entry);
}

pub(super) fn after_revoking(story: &mut Story, people: &People) {
    let device = people.cys_second.id();
    let entry = story.by(&people.cys_second, vec![rename(people.cy.user)]);
    story.refuse("signed by a revoked device", "SignerNotAdmitted", &entry);
    let entry = story.by(&people.cy, vec![Op::RevokeDevice { device }]);
    story.refuse("revoked twice", "DeviceRevoked", &entry);
}

pub(super) fn after_suspending(story: &mut Story, people: &People) {
    let user = people.cy.user;
    let entry = story.by(&people.ann, vec![Op::SuspendUser { user }]);
    story.refuse("suspended twice", "AlreadySuspended", &entry);
    let entry = story.by(&people.cy, vec![rename(user)]);
    story.refuse(
        "signed by a suspended user's device",
        "SignerNotAdmitted",
        &entry,
    );
}

pub(super) fn after_removing(story: &mut Story, people: &People) {
    let (user, device) = (people.cy.user, people.cys_third.id());
    let cases = [
        (
            "a removed user's id added again",
            add_user(0x0c, Role::Member),
        ),
        ("a removed user renamed", rename(user)),
        ("a removed user removed", Op::RemoveUser { user }),
        ("a removed user suspended", Op::SuspendUser { user }),
        ("a removed user invited", Invitation(29).op(user)),
        (
            "a removed user's device revoked",
            Op::RevokeDevice { device },
        ),
    ];
    for (name, op) in cases {
        let entry = story.by(&people.ann, vec![op]);
        story.refuse(name, "UserRemoved", &entry);
    }
    let entry = story.by(&people.cys_third, vec![rename(user)]);
    story.refuse(
        "signed by a removed user's device",
        "SignerNotAdmitted",
        &entry,
    );
}
