//! Every refusal that `rules` and `authority` do not provoke already, once, with its number.

use super::super::entry::sign_tbs;
use super::*;
use crate::identity::Signature;

fn rename(user: UserId) -> Op {
    Op::SetProfile {
        user,
        profile: profile(1),
    }
}

/// REQ-011, REQ-026: what is not an entry.
#[test]
fn bytes_that_are_no_entry() {
    let mut world = World::founded();
    let user = world.owner.user;
    world.refuses(&world.by_owner(vec![]), &RosterError::NoOps, 0x0205);
    let entry = world.by_owner(vec![rename(user)]);
    let mut trailing = entry.bytes().to_vec();
    trailing.push(0);
    let malformed = RosterError::Malformed(tls_codec::Error::TrailingData);
    world.refuses_bytes(&trailing, &malformed, 0x0203);
    for cut in 0..entry.bytes().len() {
        let result = world.roster.apply(&entry.bytes()[..cut]);
        assert!(matches!(result, Err(RosterError::Malformed(_))), "{cut}");
    }
    let (tbs, key) = (entry.tbs().clone(), &world.owner.mls);
    for version in [0, 2, 255] {
        let mut tbs = tbs.clone();
        tbs.version = version;
        let error = RosterError::WrongVersion { version };
        world.refuses(&sign_tbs(tbs, key), &error, 0x0202);
    }
    let org = OrgId([0; 32]);
    let tbs = EntryTbs { org, ..tbs };
    world.refuses(&sign_tbs(tbs, key), &RosterError::WrongOrg { org }, 0x0208);
}

/// Where the first operation's type stands in an entry by a device, after a one-byte length.
const OP_AT: usize = 1 + 32 + 8 + 32 + 8 + (1 + 16) + 1;

/// REQ-011: operations without a meaning, and unknown roles and signers.
#[test]
fn unknown_values_are_refused() {
    let world = World::founded();
    let role = Op::SetRole {
        user: world.owner.user,
        role: Role::Owner,
    };
    let entry = world.by_owner(vec![role]);
    assert_eq!(entry.bytes()[OP_AT..OP_AT + 2], [0x02, 0x20]);
    for op in [0x0101_u16, 0x0501, 0xffff] {
        let mut bytes = entry.bytes().to_vec();
        bytes[OP_AT..OP_AT + 2].copy_from_slice(&op.to_be_bytes());
        world.refuses_bytes(&bytes, &RosterError::UnknownOp { op }, 0x0204);
    }
    for (at, value) in [(OP_AT + 2 + 16, 0x11), (OP_AT - 18, 0x40)] {
        let mut bytes = entry.bytes().to_vec();
        bytes[at] = value;
        let unknown = tls_codec::Error::UnknownValue(value.into());
        world.refuses_bytes(&bytes, &RosterError::Malformed(unknown), 0x0203);
    }
}

/// REQ-003, REQ-011: a length has one encoding.
#[test]
fn a_length_that_is_not_minimal_is_refused() {
    let world = World::founded();
    let entry = world.by_owner(vec![rename(world.owner.user)]);
    let mut bytes = entry.bytes().to_vec();
    let length = bytes[OP_AT - 1];
    bytes.splice(OP_AT - 1..OP_AT, [0x40, length]);
    // Even signed by who may sign it.
    let signed = bytes.len() - 64;
    let signature: Signature = world.owner.mls.sign("roster entry", &bytes[..signed]);
    bytes.splice(signed.., signature.0);
    let malformed = RosterError::Malformed(tls_codec::Error::InvalidVectorLength);
    world.refuses_bytes(&bytes, &malformed, 0x0203);
}

/// REQ-010, REQ-024: the first entry.
#[test]
fn a_genesis_that_is_none() {
    let mut world = World::unfounded();
    let good = genesis_ops(&world.root, &world.owner);
    let by_root = |ops| world.signed(EntrySigner::Root, &world.root, ops);
    let mut admin = good.clone();
    admin[1] = Op::AddUser {
        user: world.owner.user,
        role: Role::Admin,
        profile: profile(1),
    };
    let mut stranger = good.clone();
    let device = Device {
        user: UserId([0xbb; 16]),
        mls: key_of(10),
        transport: key_of(11),
        seal: SealSecret::new(key_of(12)),
    };
    stranger[2] = Op::AddDevice(device.add(world.org()));
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    let longer = [good.clone(), vec![rename(world.owner.user)]].concat();
    for ops in [
        good[..2].to_vec(),
        good[1..].to_vec(),
        longer,
        swapped,
        admin,
        stranger,
    ] {
        world.refuses(&by_root(ops), &RosterError::GenesisShape, 0x0230);
    }
    let entry = world.by_owner(good.clone());
    world.refuses(&entry, &RosterError::GenesisShape, 0x0230);

    let other = key_of(50);
    let org = other.public().org_id();
    let entry = world.signed(EntrySigner::Root, &other, genesis_ops(&other, &world.owner));
    world.refuses(&entry, &RosterError::RootKeyMismatch { org }, 0x0231);
    let entry = world.signed(EntrySigner::Root, &other, good.clone());
    world.refuses(&entry, &RosterError::BadSignature, 0x0220);

    let mut doubled = good.clone();
    let Op::Genesis(genesis) = &mut doubled[0] else {
        panic!("Genesis comes first")
    };
    genesis.statement_key = world.root.public();
    let key = world.root.public();
    world.refuses(&by_root(doubled), &RosterError::KeyReused { key }, 0x0260);

    let genesis = world.genesis();
    world.apply(&genesis);
    let entry = world.signed(EntrySigner::Root, &world.root, good.clone());
    world.refuses(&entry, &RosterError::RootSignsGenesisOnly, 0x0233);
    let entry = world.by_owner(good[..1].to_vec());
    world.refuses(&entry, &RosterError::GenesisAgain, 0x0232);
}

/// REQ-011: who signs.
#[test]
fn signers_that_do_not_count() {
    let mut world = World::founded();
    let member = world.person(Role::Member);
    let device = member.id();
    let op = vec![rename(member.user)];
    let entry = world.signed(member.signer(), &world.owner.mls, op.clone());
    world.refuses(&entry, &RosterError::BadSignature, 0x0220);
    // The right person, the wrong key.
    let entry = world.signed(member.signer(), &member.transport, op.clone());
    world.refuses(&entry, &RosterError::BadSignature, 0x0220);
    let stranger = world.new_device(member.user);
    let entry = world.by(&stranger, op.clone());
    let unknown = RosterError::SignerUnknown {
        device: stranger.id(),
    };
    world.refuses(&entry, &unknown, 0x0221);
    // Gone within its own entry, and gone by then.
    let not_admitted = RosterError::SignerNotAdmitted { device };
    let revoke = Op::RevokeDevice { device };
    let entry = world.by(&member, vec![revoke.clone(), op[0].clone()]);
    world.refuses(&entry, &not_admitted, 0x0222);
    let entry = world.by(&member, vec![revoke]);
    world.apply(&entry);
    world.refuses(&world.by(&member, op), &not_admitted, 0x0222);
}

/// REQ-025 and the rest of a user's life.
#[test]
fn users_that_are_not_as_they_should_be() {
    let mut world = World::founded();
    let (present, gone) = (world.new_user(Role::Member), world.new_user(Role::Member));
    world.owner_does(vec![Op::RemoveUser { user: gone }]);
    let user = UserId([0xcc; 16]);
    let add = |user| Op::AddUser {
        user,
        role: Role::Guest,
        profile: profile(1),
    };
    let refuses = |op, error, code| world.refuses(&world.by_owner(vec![op]), &error, code);
    refuses(rename(user), RosterError::UnknownUser { user }, 0x0250);
    refuses(
        add(present),
        RosterError::UserExists { user: present },
        0x0251,
    );
    refuses(add(gone), RosterError::UserRemoved { user: gone }, 0x0252);
    for op in [
        rename(gone),
        Op::RemoveUser { user: gone },
        Op::SuspendUser { user: gone },
        Op::SetRole {
            user: gone,
            role: Role::Guest,
        },
    ] {
        refuses(op, RosterError::UserRemoved { user: gone }, 0x0252);
    }
    let twice = world.by_owner(vec![add(user), add(user)]);
    world.refuses(&twice, &RosterError::UserExists { user }, 0x0251);
    let both = vec![
        Op::SuspendUser { user: present },
        Op::SuspendUser {
            user: world.new_user(Role::Bot),
        },
    ];
    let Op::SuspendUser { user: second } = both[1] else {
        panic!("two suspensions")
    };
    let error = RosterError::OneUserPerOrder { user: second };
    world.refuses(&world.by_owner(both), &error, 0x0255);
    let user = present;
    world.owner_does(vec![Op::SuspendUser { user }]);
    let entry = world.by_owner(vec![Op::SuspendUser { user }]);
    world.refuses(&entry, &RosterError::AlreadySuspended { user }, 0x0253);
    // A removed user is not invited back either.
    let entry = world.new_invitation(gone).op();
    let removed = RosterError::UserRemoved { user: gone };
    world.refuses(&world.by_owner(vec![entry]), &removed, 0x0252);
}

/// REQ-012, REQ-013: devices.
#[test]
fn devices_that_are_not_as_they_should_be() {
    let mut world = World::founded();
    let member = world.person(Role::Member);
    let device = DeviceId([0xdd; 16]);
    let entry = world.by_owner(vec![Op::RevokeDevice { device }]);
    world.refuses(&entry, &RosterError::UnknownDevice { device }, 0x0262);
    let device = member.id();
    world.owner_does(vec![Op::RevokeDevice { device }]);
    let entry = world.by_owner(vec![Op::RevokeDevice { device }]);
    world.refuses(&entry, &RosterError::DeviceRevoked { device }, 0x0263);

    let new = world.new_device(member.user);
    let entry = world.by_owner(vec![Op::AddDevice(new.add(world.org()))]);
    let error = RosterError::AddDeviceNeedsInvitation {
        signer: world.owner.signer(),
    };
    world.refuses(&entry, &error, 0x0241);

    let invitation = world.invited(member.user);
    let device = new.id();
    let good = new.add(world.org());
    let borrowed = member.add(world.org());
    let mut forged = vec![good.clone(); 4];
    forged[0].mls_proof = good.transport_proof;
    forged[1].transport_proof = good.seal_proof;
    forged[2].seal_proof = good.mls_proof;
    // Somebody else's key, with their own proof for it.
    forged[3].seal_key = borrowed.seal_key;
    forged[3].seal_proof = borrowed.seal_proof;
    forged.push(new.add(OrgId([0; 32])));
    let mut other_user = Device {
        user: world.owner.user,
        ..new
    }
    .add(world.org());
    other_user.user = member.user;
    forged.push(other_user);
    for add in forged {
        let signer = EntrySigner::Invitation(invitation.id);
        let entry = world.signed(signer, &invitation.key, vec![Op::AddDevice(add)]);
        world.refuses(&entry, &RosterError::PossessionNotProven { device }, 0x0261);
    }
    let signer = EntrySigner::Invitation(invitation.id);
    let entry = world.signed(signer, &invitation.key, vec![Op::AddDevice(good)]);
    world.apply(&entry);
}

/// REQ-022: invitations.
#[test]
fn invitations_that_do_not_hold() {
    let mut world = World::founded();
    let user = world.new_user(Role::Member);
    let device = world.new_device(user);
    let missing = world.new_invitation(user);
    let invitation = missing.id;
    let unknown = RosterError::InvitationUnknown { invitation };
    world.refuses(&world.redeem(&missing, &device), &unknown, 0x0270);
    let cancel = |invitation| vec![Op::CancelInvite { invitation }];
    world.refuses(&world.by_owner(cancel(invitation)), &unknown, 0x0270);

    let open = world.invited(user);
    let invitation = open.id;
    let entry = Op::Invite {
        invitation,
        user,
        key: world.key().public(),
        expires_at_ms: u64::MAX,
    };
    let exists = RosterError::InvitationExists { invitation };
    world.refuses(&world.by_owner(vec![entry]), &exists, 0x0271);

    // One AddDevice, for its own user, by its own key.
    let scope = RosterError::InvitationScope { invitation };
    let signer = EntrySigner::Invitation(invitation);
    let add = Op::AddDevice(device.add(world.org()));
    let second = Op::AddDevice(world.new_device(user).add(world.org()));
    let other = world.new_device(world.owner.user);
    for ops in [
        vec![add.clone(), second],
        vec![add.clone(), rename(user)],
        vec![rename(user)],
        vec![Op::AddDevice(other.add(world.org()))],
    ] {
        world.refuses(&world.signed(signer, &open.key, ops), &scope, 0x0276);
    }
    let entry = world.signed(signer, &missing.key, vec![add]);
    world.refuses(&entry, &RosterError::BadSignature, 0x0220);

    // Once.
    world.apply(&world.redeem(&open, &device));
    let used = RosterError::InvitationUsed { invitation };
    let again = world.new_device(user);
    world.refuses(&world.redeem(&open, &again), &used, 0x0272);
    world.refuses(&world.by_owner(cancel(invitation)), &used, 0x0272);

    let taken_back = world.invited(user);
    let invitation = taken_back.id;
    world.owner_does(cancel(invitation));
    let cancelled = RosterError::InvitationCancelled { invitation };
    world.refuses(&world.redeem(&taken_back, &again), &cancelled, 0x0273);
    world.refuses(&world.by_owner(cancel(invitation)), &cancelled, 0x0273);
}
