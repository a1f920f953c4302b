//! `mortise group`.

use clap::{Args, Subcommand};
use mortise_protocol::engine::{CommandKind, Event, GroupStatusView, GroupView};
use mortise_protocol::identity::UserId;

use super::{Context, values};
use crate::error::CliError;
use crate::names::Names;
use crate::output::{GroupInfo, Member, Report};

/// Create groups, change and list them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise group create team Ann Bob
  mortise group list")]
pub struct Group {
    #[command(subcommand)]
    verb: GroupVerb,
}

#[derive(Debug, Subcommand)]
enum GroupVerb {
    /// Create a group, with these users
    #[command(after_help = "\
You are its admin. The name is seen by members and never by the relay.

Examples:
  mortise group create team
  mortise group create team Ann Bob Carol")]
    Create {
        /// The group's name
        #[arg(value_parser = values::name)]
        name: String,
        /// Whom to add, by name or by the beginning of their id
        users: Vec<String>,
    },
    /// Add users to a group, with all their devices
    #[command(after_help = "\
Examples:
  mortise group add team Dora")]
    Add {
        /// The group, by name or by the beginning of its id
        group: String,
        /// Whom to add, by name or by the beginning of their id
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Remove a user from one group (to remove somebody from everything: `mortise offboard`)
    #[command(after_help = "\
Examples:
  mortise group remove team Bob")]
    Remove {
        /// The group, by name or by the beginning of its id
        group: String,
        /// Whom to remove, by name or by the beginning of their id
        user: String,
    },
    /// List the groups that this device is in
    #[command(after_help = "\
Examples:
  mortise group list
  mortise --json group list | jq -r .group_name")]
    List {
        /// Also those that this device was removed from
        #[arg(long)]
        all: bool,
    },
    /// Show a group's members and its state
    #[command(after_help = "\
Examples:
  mortise group info team")]
    Info {
        /// The group, by name or by the beginning of its id
        group: String,
    },
}

impl Group {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        match self.verb {
            GroupVerb::Create { name, users } => create(cx, name, &users).await,
            GroupVerb::Add { group, users } => add(cx, &group, &users).await,
            GroupVerb::Remove { group, user } => remove(cx, &group, &user).await,
            GroupVerb::List { all } => list(cx, all).await,
            GroupVerb::Info { group } => info(cx, &group).await,
        }
    }
}

async fn create(cx: &Context, name: String, users: &[String]) -> Result<(), CliError> {
    cx.sync().await?;
    let members = cx.names().await?.find_users(users)?;
    let alone = members.is_empty();
    let kind = CommandKind::CreateGroup {
        name: name.clone(),
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
            group_name: name,
        };
        cx.out.report(&report).await?;
    }
    added
}

async fn add(cx: &Context, group: &str, users: &[String]) -> Result<(), CliError> {
    cx.sync().await?;
    let names = cx.names().await?;
    let group = names.find_group(group)?;
    let users = names.find_users(users)?;
    let report = Report::MembersAdded {
        group: group.to_string(),
        group_name: names.group(group),
        users: users.iter().map(|user| names.person(*user)).collect(),
    };
    let kind = CommandKind::AddMembers { group, users };
    cx.carry_out("the change", kind, done).await?;
    cx.out.report(&report).await
}

async fn remove(cx: &Context, group: &str, user: &str) -> Result<(), CliError> {
    cx.sync().await?;
    let names = cx.names().await?;
    let group = names.find_group(group)?;
    let user = names.find_user(user)?;
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

fn done(event: Event) -> Option<()> {
    matches!(event, Event::Done { .. } | Event::Appended { .. }).then_some(())
}

async fn list(cx: &Context, all: bool) -> Result<(), CliError> {
    let freshness = cx.freshen().await?;
    let groups = cx.session.query(|engine| engine.groups()).await??;
    for group in groups {
        let (status, _) = status(&group.status);
        if all || status != "removed" {
            cx.out.report(&row(group, status)).await?;
        }
    }
    freshness.finish()
}

fn row(group: GroupView, status: &'static str) -> Report {
    Report::Group {
        group: group.id.to_string(),
        members: users_in(&group).len(),
        devices: group.members.len(),
        group_name: group.name,
        status,
        epoch: group.epoch,
    }
}

async fn info(cx: &Context, given: &str) -> Result<(), CliError> {
    let freshness = cx.freshen().await?;
    let names = cx.names().await?;
    let id = names.find_group(given)?;
    let groups = cx.session.query(|engine| engine.groups()).await??;
    let group = groups
        .into_iter()
        .find(|group| group.id == id)
        .ok_or_else(|| CliError::Internal("the group has gone".into()))?;
    cx.out
        .report(&Report::GroupInfo(details(&group, &names)))
        .await?;
    freshness.finish()
}

fn details(group: &GroupView, names: &Names) -> GroupInfo {
    let (status, reason) = status(&group.status);
    let member = |user: UserId| Member {
        person: names.person(user),
        devices: group
            .members
            .iter()
            .filter(|member| member.user == user)
            .map(|member| member.device.to_string())
            .collect(),
        admin: group.admins.contains(&user),
    };
    GroupInfo {
        group: group.id.to_string(),
        group_name: group.name.clone(),
        status,
        reason,
        suite: format!("0x{:04X}", group.suite),
        epoch: group.epoch,
        epoch_authenticator: data_encoding::HEXLOWER.encode(&group.epoch_authenticator),
        members: users_in(group).into_iter().map(member).collect(),
    }
}

fn users_in(group: &GroupView) -> std::collections::BTreeSet<UserId> {
    group.members.iter().map(|member| member.user).collect()
}

fn status(status: &GroupStatusView) -> (&'static str, Option<String>) {
    match status {
        GroupStatusView::Active => ("active", None),
        GroupStatusView::Removed => ("removed", None),
        GroupStatusView::Stopped(reason) => ("stopped", Some(reason.clone())),
        GroupStatusView::Continued { successor } => ("continued", Some(successor.to_string())),
        GroupStatusView::Closed => ("closed", None),
    }
}
