//! `mortise group leave`.

use std::time::Duration;

use clap::Args;
use mortise_protocol::engine::{CommandKind, GroupStatusView};
use mortise_protocol::identity::GroupId;
use tokio::time::Instant;

use super::super::{Context, values};
use super::{appended, find};
use crate::error::CliError;
use crate::output::Report;

/// How often the group is looked at while its members are waited for.
const POLL: Duration = Duration::from_millis(100);

/// Leave a group, with all devices
#[derive(Debug, Args)]
#[command(after_help = "\
Puts the wish to leave into the group's log; from then on nothing can be sent there. The first
other member who is online carries it out, which changes the group's keys. What was received stays
readable. Only an admin of the group can add you again.

Examples:
  mortise group leave team
  mortise group leave team --wait 60")]
pub(super) struct Leave {
    /// The group, by name or by the beginning of its id
    group: String,
    /// How long to wait until a member has carried it out, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = values::seconds)]
    wait: Duration,
}

impl Leave {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let (names, group) = find(cx, &self.group).await?;
        let kind = CommandKind::LeaveGroup { group };
        let seq = cx
            // Nowhere: nobody else is there to carry it out.
            .carry_out("the wish to leave", kind, appended)
            .await?;
        let gone = is_gone_within(cx, group, self.wait).await?;
        let report = Report::GroupLeft {
            group: group.to_string(),
            group_name: names.group(group),
            seq: seq.map(|seq| seq.0),
            done: gone,
        };
        cx.out.report(&report).await
    }
}

async fn is_gone_within(cx: &Context, id: GroupId, wait: Duration) -> Result<bool, CliError> {
    let until = Instant::now() + wait;
    loop {
        let groups = cx.session.query(|engine| engine.groups()).await??;
        let active = groups
            .iter()
            .any(|group| group.id == id && group.status == GroupStatusView::Active);
        if !active || Instant::now() >= until {
            return Ok(!active);
        }
        tokio::time::sleep(POLL).await;
    }
}
