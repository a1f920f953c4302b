//! What an offboarding would do, as far as this device can know.

use mortise_protocol::engine::{GroupStatusView, GroupView};
use mortise_protocol::identity::UserId;
use mortise_protocol::roster::{EntrySigner, InvitationStatus, Role, Roster};

use super::Context;
use crate::driver::ClientEngine;
use crate::error::CliError;
use crate::names::Names;
use crate::output::{Person, Plan, PlannedGroup, Report};

/// Shows what removing a user would do; orders nothing.
///
/// # Errors
/// There is no such user, or what ended the session.
pub(super) async fn show(
    cx: &Context,
    given: &str,
    successor: Option<&str>,
) -> Result<(), CliError> {
    let freshness = cx.freshen().await?;
    let names = cx.names().await?;
    let user = names.find_user(given)?;
    let successor = successor.map(|given| names.find_user(given)).transpose()?;
    let plan = cx
        .session
        .query(move |engine| plan(engine, &names, user, successor))
        .await??;
    cx.out.report(&Report::Plan(plan)).await?;
    freshness.finish()
}

fn plan(
    engine: &mut ClientEngine,
    names: &Names,
    user: UserId,
    successor: Option<UserId>,
) -> Result<Plan, CliError> {
    let groups = engine.groups()?;
    let roster = engine.roster();
    let groups = groups
        .iter()
        .filter(|group| group.status == GroupStatusView::Active)
        .filter(|group| group.members.iter().any(|leaf| leaf.user == user))
        .map(|group| planned(roster, names, group, (user, successor)))
        .collect();
    let role = roster.user(user).and_then(|u| u.roles.last().copied());
    Ok(Plan {
        person: names.person(user),
        role: role.map_or_else(String::new, |(_, role)| role.to_string()),
        devices: roster
            .devices_of(user)
            .map(|(id, _)| id.to_string())
            .collect(),
        invitations: roster
            .invitations()
            .filter(|(_, i)| i.status == InvitationStatus::Open)
            .filter(|(_, i)| i.user == user || i.issued_by_user == user)
            .map(|(id, _)| id.to_string())
            .collect(),
        bots: bots(roster, user).map(|bot| names.person(bot)).collect(),
        groups,
    })
}

fn planned(
    roster: &Roster,
    names: &Names,
    group: &GroupView,
    (user, successor): (UserId, Option<UserId>),
) -> PlannedGroup {
    let loses_last_admin = group.loses_last_admin(user);
    let heir = group.heir_of(roster, user, successor);
    let heir = heir.filter(|_| loses_last_admin);
    PlannedGroup {
        group: group.id.to_string(),
        group_name: group.name.clone(),
        loses_last_admin,
        heir: heir.map(|heir| -> Person { names.person(heir) }),
    }
}

/// Bots with a device that an invitation of this user let in.
fn bots(roster: &Roster, user: UserId) -> impl Iterator<Item = UserId> + '_ {
    let let_in = move |by: EntrySigner| match by {
        EntrySigner::Invitation(id) => roster
            .invitation(id)
            .is_some_and(|i| i.issued_by_user == user),
        _ => false,
    };
    roster
        .users()
        .map(|(id, _)| id)
        .filter(move |id| *id != user && roster.role(*id) == Some(Role::Bot))
        .filter(move |id| roster.devices_of(*id).any(|(_, d)| let_in(d.enrolled_by)))
}
