//! `mortise group restart`, `resync` and `close`: for groups in trouble.

use clap::Args;
use mortise_protocol::engine::{CommandKind, Event};

use super::super::Context;
use super::find;
use crate::error::CliError;
use crate::output::Report;

/// Continue a conversation in a new group, with the organisation's present suite
#[derive(Debug, Args)]
#[command(after_help = "\
Only an admin of the group may. Its members are taken over, and what waits to be sent goes there;
the history stays one. It is the way to another ciphersuite (`mortise policy set --suite`), and
out of a group that is stopped. A group that somebody has damaged restarts by itself.

Examples:
  mortise group restart team")]
pub(super) struct Restart {
    /// The group, by name or by the beginning of its id
    group: String,
}

impl Restart {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let (names, group) = find(cx, &self.group).await?;
        let kind = CommandKind::RestartGroup { group };
        let successor = cx
            .carry_out("the restart", kind, |event| match event {
                Event::GroupContinued { successor, .. } => Some(successor),
                _ => None,
            })
            .await?;
        let report = Report::GroupContinued {
            group: group.to_string(),
            group_name: names.group(group),
            successor: successor.to_string(),
        };
        cx.out.report(&report).await
    }
}

/// Ask to be let into a group anew, because this device's state of it leads nowhere
#[derive(Debug, Args)]
#[command(after_help = "\
The first other member who is online removes this device's old state and adds a fresh one, in one
step. What was said in between stays unknown to this device, and the history shows the gap.

Examples:
  mortise group resync team")]
pub(super) struct Resync {
    /// The group, by name or by the beginning of its id
    group: String,
}

impl Resync {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let (names, group) = find(cx, &self.group).await?;
        let kind = CommandKind::ResyncGroup { group };
        cx.carry_out("the request", kind, |event| {
            matches!(event, Event::Done { .. }).then_some(())
        })
        .await?;
        let report = Report::ResyncAsked {
            group: group.to_string(),
            group_name: names.group(group),
        };
        cx.out.report(&report).await
    }
}

/// Close a group for everybody, by order of the organisation
#[derive(Debug, Args)]
#[command(after_help = "\
For owners and admins of the organisation, members of the group or not: for a group that its own
members cannot free. The relay takes nothing more for it, on any account; what members have, they
keep. A group that this device is not in is named by its whole id.

Examples:
  mortise group close team
  mortise group close 6fd0…64-digits-in-all")]
pub(super) struct Close {
    /// The group, by name, by the beginning of its id, or by its whole id
    group: String,
}

impl Close {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let names = cx.names().await?;
        let group = names.find_any_group(&self.group)?;
        let kind = CommandKind::CloseGroup { group };
        cx.carry_out("the closing", kind, |event| {
            matches!(event, Event::Done { .. } | Event::Ordered { .. }).then_some(())
        })
        .await?;
        let report = Report::GroupClosed {
            group: group.to_string(),
            group_name: names.group(group),
        };
        cx.out.report(&report).await
    }
}
