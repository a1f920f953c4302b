//! `mortise group list` and `show`.

use std::collections::BTreeSet;

use clap::Args;
use mortise_protocol::engine::{GroupStatusView, GroupView};
use mortise_protocol::identity::UserId;

use super::super::Context;
use crate::error::CliError;
use crate::names::Names;
use crate::output::{GroupInfo, Member, Report, who_may_add};

/// List the groups that this device is in
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise group list
  mortise group list --all
  mortise --json group list | jq -r .group_name")]
pub(super) struct List {
    /// Also those that are over for this device: left, closed, continued in another group
    #[arg(long)]
    all: bool,
}

impl List {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let freshness = cx.freshen().await?;
        let groups = cx.session.query(|engine| engine.groups()).await??;
        for group in groups {
            let (status, _) = status(&group.status);
            if self.all || matches!(status, "active" | "stopped") {
                cx.out.report(&row(group, status)).await?;
            }
        }
        freshness.finish()
    }
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

/// Show a group's members, its policy and its state
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise group show team
  mortise --json group show team | jq -r '.members[] | select(.admin) | .name'")]
pub(super) struct Show {
    /// The group, by name or by the beginning of its id
    group: String,
}

impl Show {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let freshness = cx.freshen().await?;
        let names = cx.names().await?;
        let id = names.find_group(&self.group)?;
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
        topic: group.topic.clone(),
        status,
        reason,
        who_may_add: who_may_add(group.who_may_add),
        retention_days: group.retention_days,
        predecessor: group.predecessor.map(|id| id.to_string()),
        successor: group.successor.map(|id| id.to_string()),
        suite: format!("0x{:04X}", group.suite),
        epoch: group.epoch,
        epoch_authenticator: data_encoding::HEXLOWER.encode(&group.epoch_authenticator),
        members: users_in(group).into_iter().map(member).collect(),
    }
}

fn users_in(group: &GroupView) -> BTreeSet<UserId> {
    group.members.iter().map(|member| member.user).collect()
}

fn status(status: &GroupStatusView) -> (&'static str, Option<String>) {
    match status {
        GroupStatusView::Active => ("active", None),
        GroupStatusView::Removed => ("removed", None),
        GroupStatusView::Stopped(reason) => ("stopped", Some(reason.clone())),
        GroupStatusView::Continued { .. } => ("continued", None),
        GroupStatusView::Closed => ("closed", None),
    }
}
