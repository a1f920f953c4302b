//! The authority table, cell by cell, against rules written a second time, in the function and in `apply`.

use super::super::authority::{check, markdown};
use super::*;
use crate::identity::GroupId;

/// The rules in prose, made code again: shares nothing with the table (REQ-016).
fn expected(actor: Role, operation: Operation, target: Target) -> bool {
    use Operation as O;
    let own = target == Target::Own;
    let whole = matches!(target, Target::Organisation | Target::WithOrder);
    match operation {
        O::SetPolicy => return whole && actor == Role::Owner,
        O::CloseGroup => return whole && matches!(actor, Role::Owner | Role::Admin),
        // Whoever may order may bring a key with the order.
        O::RotateDirectoryKey => {
            let admin = matches!(actor, Role::Owner | Role::Admin);
            return target == Target::WithOrder || (whole && admin);
        }
        _ if whole => return false,
        _ => {}
    }
    match actor {
        // Everything on everybody; but nobody can add themselves.
        Role::Owner => !(own && operation == O::AddUser),
        Role::Admin => target != Target::Role(Role::Owner) && !(own && operation == O::AddUser),
        Role::Guest => {
            own && [
                O::SetProfile,
                O::RemoveUser,
                O::CancelInvite,
                O::RevokeDevice,
            ]
            .contains(&operation)
        }
        _ => own && ![O::AddUser, O::SetRole, O::SuspendUser].contains(&operation),
    }
}

fn targets() -> impl Iterator<Item = Target> {
    [Target::Own, Target::Organisation, Target::WithOrder]
        .into_iter()
        .chain(Role::ALL.into_iter().map(Target::Role))
}

/// REQ-016: every cell of the table.
#[test]
fn every_cell_of_the_table() {
    for actor in Role::ALL {
        for operation in Operation::ALL {
            for target in targets() {
                assert_eq!(
                    check(actor, operation, target),
                    expected(actor, operation, target),
                    "{actor} {operation:?} {target:?}"
                );
            }
        }
    }
}

/// REQ-016: every cell again, by entries: `apply` asks the table, about the right target.
#[test]
fn every_cell_by_an_entry() {
    let mut world = World::founded();
    let actors = Role::ALL.map(|role| world.person(role));
    let others = Role::ALL.map(|role| world.person(role));
    // For each target an open invitation by the founder, to be taken back.
    let (mut own_invitations, mut other_invitations) = (Vec::new(), Vec::new());
    for index in 0..Role::ALL.len() {
        own_invitations.push(world.invited(actors[index].user).id);
        other_invitations.push(world.invited(others[index].user).id);
    }
    for (a, actor) in Role::ALL.into_iter().enumerate() {
        for operation in Operation::ALL {
            for target in targets() {
                let (device, role, open) = match target {
                    Target::Own | Target::Organisation => (&actors[a], actor, own_invitations[a]),
                    Target::WithOrder => continue,
                    Target::Role(role) => {
                        let t = Role::ALL.iter().position(|r| *r == role).expect("a role");
                        (&others[t], role, other_invitations[t])
                    }
                };
                let Some(op) = operation_on(&mut world, operation, target, device, role, open)
                else {
                    continue;
                };
                let entry = world.by(&actors[a], vec![op]);
                let result = world.roster.clone().apply(entry.bytes());
                let allowed = expected(actor, operation, target);
                let refusal = RosterError::Forbidden {
                    actor,
                    operation,
                    target,
                };
                assert_eq!(
                    result.as_ref().err(),
                    (!allowed).then_some(&refusal),
                    "{actor} {operation:?} {target:?}"
                );
            }
        }
    }
}

fn operation_on(
    world: &mut World,
    operation: Operation,
    target: Target,
    device: &Device,
    role: Role,
    open: InvitationId,
) -> Option<Op> {
    let user = device.user;
    let whole = target == Target::Organisation;
    Some(match operation {
        Operation::SetPolicy if whole => Op::SetPolicy(policy()),
        Operation::RotateDirectoryKey if whole => rotation(1),
        Operation::CloseGroup if whole => Op::CloseGroup {
            group: GroupId([1; 32]),
        },
        Operation::SetPolicy | Operation::RotateDirectoryKey | Operation::CloseGroup => {
            return None;
        }
        _ if whole => return None,
        Operation::AddUser if target == Target::Own => return None,
        Operation::AddUser => Op::AddUser {
            user: UserId([0xee; 16]),
            role,
            profile: profile(1),
        },
        Operation::SetProfile => Op::SetProfile {
            user,
            profile: profile(1),
        },
        Operation::SetRole => Op::SetRole {
            user,
            role: Role::Member,
        },
        Operation::SuspendUser => Op::SuspendUser { user },
        Operation::RemoveUser => Op::RemoveUser { user },
        Operation::Invite => world.new_invitation(user).op(),
        Operation::CancelInvite => Op::CancelInvite { invitation: open },
        Operation::RevokeDevice => Op::RevokeDevice {
            device: device.id(),
        },
    })
}

/// REQ-101: whoever signs an order may bring a new directory key with it, and alone only who administers.
#[test]
fn every_role_rotates_with_an_order() {
    let mut world = World::founded();
    for role in Role::ALL {
        let actor = world.person(role);
        let own = world.invited(actor.user);
        let other = world.joined(&own);
        let order = Op::RevokeDevice { device: other.id() };
        let entry = world.by(&actor, vec![rotation(2), order.clone()]);
        assert!(world.roster.check(entry.bytes()).is_ok(), "{role}");
        let entry = world.by(&actor, vec![order, rotation(2)]);
        assert!(world.roster.check(entry.bytes()).is_ok(), "{role}");
    }
}

/// REQ-016: a role can be given only by who may act on it, to others and to oneself.
#[test]
fn an_admin_makes_no_owner() {
    let mut world = World::founded();
    let admin = world.person(Role::Admin);
    let member = world.person(Role::Member);
    for user in [member.user, admin.user] {
        let make = |role| world.by(&admin, vec![Op::SetRole { user, role }]);
        let refusal = RosterError::Forbidden {
            actor: Role::Admin,
            operation: Operation::SetRole,
            target: Target::Role(Role::Owner),
        };
        world.refuses(&make(Role::Owner), &refusal, 0x0240);
        for role in &Role::ALL[1..] {
            assert!(world.roster.check(make(*role).bytes()).is_ok());
        }
    }
}

/// REQ-016: one who issued an invitation may take it back, whomever it is for.
#[test]
fn an_issuer_cancels_what_they_issued() {
    let mut world = World::founded();
    let member = world.person(Role::Member);
    let own = world.invited_by(&member, member.user);
    let entry = world.by(&member, vec![Op::CancelInvite { invitation: own.id }]);
    let applied = world.apply(&entry);
    assert_eq!(applied.closed_invitations, [own.id]);
}

/// REQ-016: what an entry's first operation takes from its signer, the second cannot use.
#[test]
fn rights_end_within_the_entry() {
    let mut world = World::founded();
    let admin = world.person(Role::Admin);
    let member = world.person(Role::Member);
    let step_down = Op::SetRole {
        user: admin.user,
        role: Role::Member,
    };
    let remove = Op::RemoveUser { user: member.user };
    let refusal = RosterError::Forbidden {
        actor: Role::Member,
        operation: Operation::RemoveUser,
        target: Target::Role(Role::Member),
    };
    let entry = world.by(&admin, vec![step_down.clone(), remove.clone()]);
    world.refuses(&entry, &refusal, 0x0240);
    let entry = world.by(&admin, vec![remove, step_down]);
    world.apply(&entry);
}

/// REQ-016: the specification embeds this text.
#[test]
fn the_table_prints_as_markdown() {
    let expected = "\
| operation | owner | admin | supervisor | auditor | member | guest | bot |
|---|---|---|---|---|---|---|---|
| AddUser | anybody | anybody but owners | - | - | - | - | - |
| SetProfile | anybody, own | anybody but owners, own | own | own | own | own | own |
| SetRole | anybody, own | anybody but owners, own | - | - | - | - | - |
| SuspendUser | anybody, own | anybody but owners, own | - | - | - | - | - |
| RemoveUser | anybody, own | anybody but owners, own | own | own | own | own | own |
| Invite | anybody, own | anybody but owners, own | own | own | own | - | own |
| CancelInvite | anybody, own | anybody but owners, own | own | own | own | own | own |
| RevokeDevice | anybody, own | anybody but owners, own | own | own | own | own | own |
| SetPolicy | yes | - | - | - | - | - | - |
| RotateDirectoryKey | yes | yes | with an order | with an order | with an order | with an order | with an order |
| CloseGroup | yes | yes | - | - | - | - | - |
";
    assert_eq!(markdown(), expected);
}

#[test]
fn roles_read_back_what_they_print() {
    for role in Role::ALL {
        assert_eq!(role.to_string().parse(), Ok(role));
    }
    assert!("king".parse::<Role>().is_err());
}
