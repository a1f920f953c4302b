//! What entries do over time: boundaries, orders, suspension, invitations that close.

use super::*;

/// REQ-019: membership of a device at a seq, at both boundaries.
#[test]
fn a_device_is_admitted_from_its_entry_until_its_order() {
    let mut world = World::founded();
    let member = world.person(Role::Member);
    let added = world.seq();
    world.new_user(Role::Guest);
    let revoke = Op::RevokeDevice {
        device: member.id(),
    };
    let applied = world.owner_does(vec![revoke]);
    let revoked = world.seq();
    let order = applied.order.expect("an order");
    assert_eq!((order.user, order.devices), (None, vec![member.id()]));
    let at = |seq| world.roster.device_admitted_at(member.id(), seq);
    assert!(!at(RosterSeq(added.0 - 1)));
    assert!(at(added));
    assert!(at(RosterSeq(revoked.0 - 1)));
    assert!(!at(revoked));
    assert!(!at(revoked.next()));
    assert!(!world.roster.is_admitted(member.id()));
    assert!(!world.roster.is_admitted(DeviceId([0; 16])));
    assert_eq!(world.roster.fence(), revoked);
}

/// REQ-016: roles at a seq, at every boundary.
#[test]
fn a_role_holds_from_its_entry_until_the_next() {
    let mut world = World::founded();
    let user = world.person(Role::Member).user;
    let added = world.roster.user(user).expect("user").added;
    world.owner_does(vec![Op::SetRole {
        user,
        role: Role::Admin,
    }]);
    let raised = world.seq();
    world.owner_does(vec![Op::RemoveUser { user }]);
    let removed = world.seq();
    let at = |seq| world.roster.role_at(user, seq);
    assert_eq!(at(RosterSeq(added.0 - 1)), None);
    assert_eq!(at(added), Some(Role::Member));
    assert_eq!(at(RosterSeq(raised.0 - 1)), Some(Role::Member));
    assert_eq!(at(raised), Some(Role::Admin));
    assert_eq!(at(RosterSeq(removed.0 - 1)), Some(Role::Admin));
    assert_eq!(at(removed), None);
    assert_eq!(world.roster.role(user), None);
}

/// REQ-019: removal, suspension and revocation move the fence; nothing else does.
#[test]
fn the_fence_is_the_newest_order() {
    let mut world = World::founded();
    let a = world.person(Role::Member);
    let b = world.person(Role::Member);
    let never_joined = world.new_user(Role::Guest);
    let open = world.invited(a.user).id;
    world.owner_does(vec![Op::CancelInvite { invitation: open }]);
    world.owner_does(vec![Op::SetRole {
        user: a.user,
        role: Role::Guest,
    }]);
    assert_eq!(world.roster.fence(), RosterSeq(0));
    for op in [
        Op::RevokeDevice { device: a.id() },
        Op::SuspendUser { user: b.user },
        Op::RemoveUser { user: b.user },
        Op::RemoveUser { user: never_joined },
    ] {
        world.owner_does(vec![op]);
        assert_eq!(world.roster.fence(), world.seq());
    }
    assert_eq!(world.roster.orders().len(), 4);
}

/// REQ-019: an entry is one order, about one user at most, and names every device that it burns.
#[test]
fn an_entry_is_one_order() {
    let mut world = World::founded();
    let leaver = world.person(Role::Admin);
    let invitation = world.new_invitation(leaver.user);
    let entry = world.by(&leaver, vec![invitation.op()]);
    world.apply(&entry);
    let second = world.joined(&invitation);
    let other = world.person(Role::Member);
    let applied = world.owner_does(vec![
        Op::RevokeDevice {
            device: second.id(),
        },
        Op::RemoveUser { user: leaver.user },
        Op::RevokeDevice { device: other.id() },
    ]);
    let order = applied.order.expect("an order");
    assert_eq!(order.user, Some(leaver.user));
    assert_eq!(order.devices, [second.id(), leaver.id(), other.id()]);
    assert_eq!(world.roster.orders(), [order]);
}

/// REQ-391: an order may name who inherits, in the operation right before the removal, by whoever may remove.
#[test]
fn an_order_may_name_a_successor() {
    let mut world = World::founded();
    let (gone, heir) = (world.person(Role::Admin), world.person(Role::Member));
    let suspended = world.person(Role::Member);
    world.owner_does(vec![Op::SuspendUser {
        user: suspended.user,
    }]);
    let user = gone.user;
    let remove = Op::RemoveUser { user };
    let named = |successor| Op::NameSuccessor { user, successor };
    let shape = RosterError::SuccessorShape { user };
    for ops in [
        vec![named(heir.user)],
        vec![named(heir.user), named(heir.user), remove.clone()],
        vec![named(heir.user), Op::SuspendUser { user }],
        vec![named(user), remove.clone()],
        vec![named(suspended.user), remove.clone()],
        vec![named(UserId([0x77; 16])), remove.clone()],
    ] {
        let entry = world.by_owner(ops);
        world.refuses(&entry, &shape, 0x0256);
    }
    assert_eq!(world.roster.successor_at(user, world.seq()), None);
    world.owner_does(vec![named(heir.user), remove]);
    let at = world.seq();
    assert_eq!(world.roster.successor_at(user, at), Some(heir.user));
    let before = RosterSeq(at.0 - 1);
    assert_eq!(world.roster.successor_at(user, before), None);
}

/// REQ-025: suspension burns keys; an invitation brings the user back, the old keys never.
#[test]
fn a_suspended_user_returns_with_new_keys() {
    let mut world = World::founded();
    let before = world.person(Role::Member);
    let user = before.user;
    world.owner_does(vec![Op::SuspendUser { user }]);
    let at = world.seq();
    let status = |world: &World| world.roster.user(user).expect("user").status;
    assert_eq!(status(&world), UserStatus::Suspended { at });
    assert_eq!(world.roster.role(user), Some(Role::Member));
    let device = before.id();
    let entry = world.by(
        &before,
        vec![Op::SetProfile {
            user,
            profile: profile(1),
        }],
    );
    world.refuses(&entry, &RosterError::SignerNotAdmitted { device }, 0x0222);

    let invitation = world.invited(user);
    let key = before.mls.public();
    let entry = world.redeem(&invitation, &before);
    world.refuses(&entry, &RosterError::KeyReused { key }, 0x0260);
    assert_eq!(status(&world), UserStatus::Suspended { at });
    let after = world.joined(&invitation);
    assert_eq!(status(&world), UserStatus::Active);
    assert!(world.roster.is_admitted(after.id()));
    assert!(!world.roster.is_admitted(before.id()));
}

/// REQ-014: no key returns, as whatever kind, nor as its own negative.
#[test]
fn a_key_is_used_once_for_ever() {
    let mut world = World::founded();
    let gone = world.person(Role::Member);
    world.owner_does(vec![Op::RemoveUser { user: gone.user }]);
    let user = world.new_user(Role::Member);
    let invitation = world.invited(user);
    let used = [
        gone.mls.dangerous_seed(),
        gone.transport.dangerous_seed(),
        gone.seal.proving_key().dangerous_seed(),
        world.root.dangerous_seed(),
        key_of(2).dangerous_seed(),
        invitation.key.dangerous_seed(),
    ];
    for seed in used {
        let old = || SigningKey::from_seed(&seed);
        let key = old().public();
        for kind in 0..3 {
            let mut device = world.new_device(user);
            match kind {
                0 => device.mls = old(),
                1 => device.transport = old(),
                _ => device.seal = SealSecret::new(old()),
            }
            let entry = world.redeem(&invitation, &device);
            world.refuses(&entry, &RosterError::KeyReused { key }, 0x0260);
        }
        let mut negative = key;
        negative.0[31] ^= 0x80;
        for key in [key, negative] {
            let op = Op::Invite {
                invitation: InvitationId([0xaa; 16]),
                user,
                key,
                expires_at_ms: NOW_MS + 1,
            };
            let entry = world.by_owner(vec![op]);
            world.refuses(&entry, &RosterError::KeyReused { key }, 0x0260);
        }
    }
    let mut device = world.new_device(user);
    device.transport = SigningKey::from_seed(&device.mls.dangerous_seed());
    let key = device.mls.public();
    let entry = world.redeem(&invitation, &device);
    world.refuses(&entry, &RosterError::KeyReused { key }, 0x0260);
}

/// REQ-022: the entry's own time decides, and the invitation is open until just before it expires.
#[test]
fn an_invitation_expires_by_the_entrys_own_time() {
    let mut world = World::founded();
    let user = world.new_user(Role::Member);
    let invitation = world.invited(user);
    let device = world.new_device(user);
    let at = |issued_at_ms| {
        sign_entry(
            world.org(),
            world.roster.head(),
            issued_at_ms,
            EntrySigner::Invitation(invitation.id),
            &invitation.key,
            vec![Op::AddDevice(device.add(world.org()))],
        )
    };
    let expired = RosterError::InvitationExpired {
        invitation: invitation.id,
    };
    world.refuses(&at(NOW_MS + HOUR_MS), &expired, 0x0275);
    assert!(world.roster.check(at(NOW_MS + HOUR_MS - 1).bytes()).is_ok());
}

/// REQ-022: only the relay has a clock, and it takes ten minutes either way.
#[test]
fn the_relays_clock_bounds_an_entrys_time() {
    let skew = MAX_ISSUE_SKEW_MS;
    for issued in [NOW_MS - skew, NOW_MS, NOW_MS + skew] {
        assert_eq!(check_issue_time(issued, NOW_MS, skew), Ok(()));
    }
    for issued_at_ms in [0, NOW_MS - skew - 1, NOW_MS + skew + 1, u64::MAX] {
        let error = RosterError::IssueTime {
            issued_at_ms,
            now_ms: NOW_MS,
        };
        assert_eq!(error.code(), 0x0211);
        assert_eq!(check_issue_time(issued_at_ms, NOW_MS, skew), Err(error));
    }
}

/// What happens to an invitation issued by `issuer` for `user` when the owner does `op`.
fn voided_by(world: &mut World, invitation: &Invitation, op: Op) -> bool {
    let before = world.roster.clone();
    let applied = world.owner_does(vec![op]);
    let device = world.new_device(invitation.user);
    let join = world.redeem(invitation, &device);
    let result = world.roster.check(join.bytes()).map(|_| ());
    let voided = applied.closed_invitations.contains(&invitation.id);
    if voided {
        let refusal = RosterError::InvitationVoided {
            invitation: invitation.id,
        };
        world.refuses(&join, &refusal, 0x0274);
    } else {
        assert_eq!(result, Ok(()));
    }
    world.roster = before;
    voided
}

/// REQ-023: what becomes of an issuer, and of whom an invitation is for, closes it.
#[test]
fn invitations_are_voided_with_those_who_stand_behind_them() {
    let mut world = World::founded();
    let admin = world.person(Role::Admin);
    let user = world.person(Role::Supervisor).user;
    let invitation = world.invited_by(&admin, user);
    let set = |user, role| Op::SetRole { user, role };
    for (op, expected) in [
        (Op::RemoveUser { user: admin.user }, true),
        (Op::SuspendUser { user: admin.user }, true),
        (set(admin.user, Role::Member), true),
        (set(admin.user, Role::Owner), false),
        (Op::RevokeDevice { device: admin.id() }, true),
        (Op::SuspendUser { user }, true),
        (set(user, Role::Member), true),
        (set(user, Role::Guest), true),
        (set(user, Role::Auditor), false),
        (set(user, Role::Admin), false),
        // The admin may not invite an owner's device, so not by an old invitation either.
        (set(user, Role::Owner), true),
        (
            Op::CancelInvite {
                invitation: world.invited(user).id,
            },
            false,
        ),
    ] {
        let said = format!("{op:?}");
        assert_eq!(voided_by(&mut world, &invitation, op), expected, "{said}");
    }
    // A removed user's invitation is voided too, and says so.
    world.owner_does(vec![Op::RemoveUser { user }]);
    let device = world.new_device(user);
    let refusal = RosterError::InvitationVoided {
        invitation: invitation.id,
    };
    world.refuses(&world.redeem(&invitation, &device), &refusal, 0x0274);
}

/// REQ-023: a user's own invitation survives a promotion.
#[test]
fn a_promotion_keeps_what_could_be_issued_again() {
    let mut world = World::founded();
    let member = world.person(Role::Member);
    let own = world.invited_by(&member, member.user);
    for role in [Role::Admin, Role::Owner] {
        let user = member.user;
        assert!(!voided_by(&mut world, &own, Op::SetRole { user, role }));
    }
}

/// REQ-017: an organisation keeps an active owner with an admitted device.
#[test]
fn the_last_owner_stays() {
    let mut world = World::founded();
    let (user, device) = (world.owner.user, world.owner.id());
    let ways = [
        Op::RemoveUser { user },
        Op::SuspendUser { user },
        Op::SetRole {
            user,
            role: Role::Admin,
        },
        Op::RevokeDevice { device },
    ];
    let all_refused = |world: &World| {
        for op in &ways {
            let entry = world.by_owner(vec![op.clone()]);
            world.refuses(&entry, &RosterError::LastOwner { user }, 0x0254);
        }
    };
    all_refused(&world);
    // An owner who never joined is no owner yet; a suspended one is none any more.
    let second = world.new_user(Role::Owner);
    all_refused(&world);
    let invitation = world.invited(second);
    let _device = world.joined(&invitation);
    for op in &ways {
        let entry = world.by_owner(vec![op.clone()]);
        assert!(world.roster.check(entry.bytes()).is_ok());
    }
    world.owner_does(vec![Op::SuspendUser { user: second }]);
    all_refused(&world);
    // One of two devices may go.
    let own = world.invited(user);
    world.joined(&own);
    let entry = world.by_owner(vec![Op::RevokeDevice { device }]);
    assert!(world.roster.check(entry.bytes()).is_ok());
    let again = world.by_owner(vec![Op::SetRole {
        user,
        role: Role::Owner,
    }]);
    assert!(world.roster.check(again.bytes()).is_ok());
}

/// REQ-026: every limit, at it and one beyond.
#[test]
fn limits_hold_exactly() {
    let world = World::founded();
    let user = world.owner.user;
    let rename = |bytes| Op::SetProfile {
        user,
        profile: profile(bytes),
    };
    let ok = |ops| world.roster.check(world.by_owner(ops).bytes()).is_ok();
    assert!(ok(vec![rename(1); MAX_OPS]));
    let entry = world.by_owner(vec![rename(1); MAX_OPS + 1]);
    world.refuses(&entry, &RosterError::TooManyOps { ops: 65 }, 0x0206);

    assert!(ok(vec![rename(MAX_PROFILE_BYTES)]));
    let add = |bytes| Op::AddUser {
        user: UserId([9; 16]),
        role: Role::Bot,
        profile: profile(bytes),
    };
    assert!(ok(vec![add(MAX_PROFILE_BYTES)]));
    for op in [rename(MAX_PROFILE_BYTES + 1), add(MAX_PROFILE_BYTES + 1)] {
        let entry = world.by_owner(vec![op]);
        world.refuses(
            &entry,
            &RosterError::ProfileTooLarge { bytes: 1025 },
            0x0207,
        );
    }

    let filled = |last| {
        let mut ops = vec![rename(MAX_PROFILE_BYTES); 62];
        ops.push(rename(last));
        world.by_owner(ops)
    };
    let room = 100 + MAX_ENTRY_BYTES - filled(100).bytes().len();
    assert_eq!(filled(room).bytes().len(), MAX_ENTRY_BYTES);
    assert!(world.roster.check(filled(room).bytes()).is_ok());
    let too_large = RosterError::TooLarge { bytes: 65_537 };
    world.refuses(&filled(room + 1), &too_large, 0x0201);
}
