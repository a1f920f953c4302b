//! `mortise read`.

use std::collections::BTreeMap;

use clap::Args;
use mortise_protocol::identity::{GroupId, LogSeq};

use super::Context;
use crate::error::CliError;
use crate::names::Names;
use crate::output::{HistoryLine, Report};

/// Lines that are asked for at a time.
const PAGE: usize = 500;

/// Show a group's messages
#[derive(Debug, Args)]
#[command(after_help = "\
Fetches what is new first. If the relay cannot be reached, shows what is stored and ends with exit
code 7; with --offline it does not try. A conversation that went on in another group is shown
whole, unless --after is given.

Examples:
  mortise read team
  mortise read team --after 120
  mortise --json read team | jq -r 'select(.event == \"message\") | .text'")]
pub struct Read {
    /// The group, by name or by the beginning of its id
    group: String,
    /// Only what comes after this position in the group's log
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
}

impl Read {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let freshness = cx.freshen().await?;
        let names = cx.names().await?;
        let group = names.find_group(&self.group)?;
        if self.after == 0 {
            for earlier in predecessors(cx, group).await? {
                show(cx, &names, earlier, LogSeq(0)).await?;
            }
        }
        show(cx, &names, group, LogSeq(self.after)).await?;
        freshness.finish()
    }
}

/// The groups that this one continues, oldest first.
async fn predecessors(cx: &Context, group: GroupId) -> Result<Vec<GroupId>, CliError> {
    let groups = cx.session.query(|engine| engine.groups()).await??;
    let before: BTreeMap<_, _> = groups
        .into_iter()
        .filter_map(|group| Some((group.id, group.predecessor?)))
        .collect();
    let mut chain = Vec::new();
    let mut next = before.get(&group);
    while let Some(id) = next.filter(|id| !chain.contains(*id)) {
        chain.push(*id);
        next = before.get(id);
    }
    chain.reverse();
    Ok(chain)
}

async fn show(
    cx: &Context,
    names: &Names,
    group: GroupId,
    mut after: LogSeq,
) -> Result<(), CliError> {
    loop {
        let page = cx
            .session
            .query(move |engine| engine.messages(group, after, PAGE))
            .await??;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.seq;
        for record in &page {
            let line = HistoryLine::new(group, record, names);
            cx.out.report(&Report::History(line)).await?;
        }
    }
}
