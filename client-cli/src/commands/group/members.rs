//! `mortise group create`, `add` and `remove`.

use std::collections::BTreeSet;

use clap::Args;
use mortise_protocol::engine::{CommandKind, EngineError, Event};
use mortise_protocol::identity::{GroupId, UserId};

use super::super::{Context, values};
use super::{done, find};
use crate::driver::ClientEngine;
use crate::error::CliError;
use crate::output::Report;

/// Create a group, with these users
#[derive(Debug, Args)]
#[command(after_help = "\
You are its admin. The name is seen by members and never by the relay.

Examples:
  mortise group create team
  mortise group create team Ann Bob Carol")]
pub(super) struct Create {
    /// The group's name
    #[arg(value_parser = values::name)]
    name: String,
    /// Whom to add, by name or by the beginning of their id
    users: Vec<String>,
}

impl Create {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let members = cx.names().await?.find_users(&self.users)?;
        let alone = members.is_empty();
        let kind = CommandKind::CreateGroup {
            name: self.name.clone(),
            members,
        };
        let mut created = None;
        let added = cx
            .carry_out("the group", kind, |event| match event {
                Event::GroupCreated { group, .. } => {
                    created = Some(group);
                    alone.then_some(())
                }
                event => done(event),
            })
            .await;
        // The group may exist although its members could not be added: say so before the error.
        if let Some(group) = created {
            let report = Report::GroupCreated {
                group: group.to_string(),
                group_name: self.name,
            };
            cx.out.report(&report).await?;
        }
        added
    }
}

/// Add users to a group, with all their devices
#[derive(Debug, Args)]
#[command(after_help = "\
Whoever has left the group before can be added again by one of its admins only.

Examples:
  mortise group add team Dora
  mortise group add team Dora Emil")]
pub(super) struct Add {
    /// The group, by name or by the beginning of its id
    group: String,
    /// Whom to add, by name or by the beginning of their id
    #[arg(required = true)]
    users: Vec<String>,
}

impl Add {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let (names, group) = find(cx, &self.group).await?;
        let mut users = names.find_users(&self.users)?;
        let present = members(cx, group).await?;
        for user in users.extract_if(.., |user| present.contains(user)) {
            let who = names.user(user).unwrap_or_else(|| user.to_string());
            cx.out.note(&format!("{who} is in the group already")).await;
        }
        if users.is_empty() {
            return Ok(());
        }
        let report = Report::MembersAdded {
            group: group.to_string(),
            group_name: names.group(group),
            users: users.iter().map(|user| names.person(*user)).collect(),
        };
        let kind = CommandKind::AddMembers { group, users };
        cx.carry_out("the change", kind, done).await?;
        cx.out.report(&report).await
    }
}

/// The users all of whose admitted devices are in a group.
async fn members(cx: &Context, group: GroupId) -> Result<BTreeSet<UserId>, CliError> {
    let members = move |engine: &mut ClientEngine| -> Result<_, EngineError> {
        let views = engine.groups()?;
        let leaves = views.into_iter().find(|view| view.id == group);
        let leaves = leaves.map_or_else(Vec::new, |view| view.members);
        let devices: BTreeSet<_> = leaves.iter().map(|leaf| leaf.device).collect();
        let roster = engine.roster();
        let is_whole = |user: &UserId| {
            let mut all = roster.devices_of(*user);
            all.all(|(device, _)| devices.contains(&device))
        };
        Ok(leaves
            .iter()
            .map(|leaf| leaf.user)
            .filter(is_whole)
            .collect())
    };
    Ok(cx.session.query(members).await??)
}

/// Remove a user from one group (to remove somebody from everything: `mortise offboard`)
#[derive(Debug, Args)]
#[command(after_help = "\
Only an admin of the group may. To go yourself: `mortise group leave`.

Examples:
  mortise group remove team Bob")]
pub(super) struct Remove {
    /// The group, by name or by the beginning of its id
    group: String,
    /// Whom to remove, by name or by the beginning of their id
    user: String,
}

impl Remove {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let (names, group) = find(cx, &self.group).await?;
        let user = names.find_user(&self.user)?;
        let kind = CommandKind::RemoveMember { group, user };
        cx.carry_out("the change", kind, done).await?;
        let report = Report::MemberRemoved {
            group: group.to_string(),
            group_name: names.group(group),
            user: user.to_string(),
            name: names.user(user),
        };
        cx.out.report(&report).await
    }
}
