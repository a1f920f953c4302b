//! `mortise group rename`, `topic`, `admin` and `policy`: what only a group's admins change.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use mortise_protocol::engine::{CommandKind, PolicyChange, WhoMayAdd};
use mortise_protocol::identity::GroupId;

use super::super::{Context, values};
use super::{appended, find};
use crate::error::CliError;
use crate::names::Names;
use crate::output::{Report, policy_changes};

/// Give a group another name
#[derive(Debug, Args)]
#[command(after_help = "\
Only an admin of the group may. Members see the new name; the relay sees neither.

Examples:
  mortise group rename team 'Design team'")]
pub(super) struct Rename {
    /// The group, by name or by the beginning of its id
    group: String,
    /// The new name
    #[arg(value_parser = values::name)]
    name: String,
}

impl Rename {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let (names, group) = find(cx, &self.group).await?;
        change(cx, &names, group, vec![PolicyChange::Name(self.name)]).await
    }
}

/// Say what a group is about
#[derive(Debug, Args)]
#[command(after_help = "\
Only an admin of the group may. An empty topic takes it away.

Examples:
  mortise group topic team 'Everything about the spring release'
  mortise group topic team ''")]
pub(super) struct Topic {
    /// The group, by name or by the beginning of its id
    group: String,
    /// The topic, on one line
    #[arg(value_parser = values::topic)]
    topic: String,
}

impl Topic {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let (names, group) = find(cx, &self.group).await?;
        change(cx, &names, group, vec![PolicyChange::Topic(self.topic)]).await
    }
}

/// Make members admins of a group, or take that away
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise group admin add team Bob
  mortise group admin remove team Bob")]
pub(super) struct Admin {
    #[command(subcommand)]
    verb: AdminVerb,
}

#[derive(Debug, Subcommand)]
enum AdminVerb {
    /// Make a member an admin of the group
    #[command(after_help = "\
An admin can change the group's name, topic, policy and admins, remove members, and restart it.

Examples:
  mortise group admin add team Bob")]
    Add(AdminArgs),
    /// Take an admin of the group their rights; they stay a member
    #[command(after_help = "\
The last admin stays: name another one first.

Examples:
  mortise group admin remove team Bob")]
    Remove(AdminArgs),
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// The group, by name or by the beginning of its id
    group: String,
    /// The member, by name or by the beginning of their id
    user: String,
}

impl Admin {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let (args, add) = match self.verb {
            AdminVerb::Add(args) => (args, true),
            AdminVerb::Remove(args) => (args, false),
        };
        let (names, group) = find(cx, &args.group).await?;
        let user = names.find_user(&args.user)?;
        let wanted = if add {
            PolicyChange::AddAdmin(user)
        } else {
            PolicyChange::RemoveAdmin(user)
        };
        change(cx, &names, group, vec![wanted]).await
    }
}

/// Change who may add members to a group, and how long its messages are kept
#[derive(Debug, Args)]
#[command(after_help = "\
Only an admin of the group may; `mortise group show` shows what holds. Retention is what members'
devices are told to keep: a device deletes what is older, and nobody can make a dishonest one do
so.

Examples:
  mortise group policy team --who-may-add admins
  mortise group policy team --retention 90d
  mortise group policy team --retention forever")]
#[command(group(ArgGroup::new("changes").required(true).multiple(true)))]
pub(super) struct Policy {
    /// The group, by name or by the beginning of its id
    group: String,
    /// Who may add members; guests never may
    #[arg(long, value_name = "WHO", group = "changes")]
    who_may_add: Option<Who>,
    /// How long devices keep the group's messages: whole days, as 90d or 12w, or `forever`
    #[arg(long, value_name = "TIME", group = "changes", value_parser = values::retention)]
    retention: Option<Retention>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Who {
    /// The group's admins
    Admins,
    /// Every member
    Members,
}

/// Days; `None` for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Retention(pub(in super::super) Option<u32>);

impl Policy {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let who = self.who_may_add.map(|who| match who {
            Who::Admins => PolicyChange::WhoMayAdd(WhoMayAdd::Admins),
            Who::Members => PolicyChange::WhoMayAdd(WhoMayAdd::Members),
        });
        let retention = self.retention.map(|r| PolicyChange::Retention(r.0));
        let (names, group) = find(cx, &self.group).await?;
        change(
            cx,
            &names,
            group,
            who.into_iter().chain(retention).collect(),
        )
        .await
    }
}

async fn change(
    cx: &Context,
    names: &Names,
    group: GroupId,
    changes: Vec<PolicyChange>,
) -> Result<(), CliError> {
    for change in changes {
        let described = policy_changes(std::slice::from_ref(&change), names);
        let kind = CommandKind::ChangeGroup { group, change };
        let seq = cx
            // Nowhere: it was so already.
            .carry_out("the change", kind, appended)
            .await?;
        let report = Report::GroupChanged {
            group: group.to_string(),
            group_name: names.group(group),
            seq: seq.map(|seq| seq.0),
            changes: described,
        };
        cx.out.report(&report).await?;
    }
    Ok(())
}
