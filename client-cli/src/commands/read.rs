//! `mortise read`.

use clap::Args;
use mortise_protocol::identity::LogSeq;

use super::Context;
use crate::error::CliError;
use crate::output::{HistoryLine, Report};

/// Lines that are asked for at a time.
const PAGE: usize = 500;

/// Show a group's messages
#[derive(Debug, Args)]
#[command(after_help = "\
Fetches what is new first. If the relay cannot be reached, shows what is stored and ends with exit
code 7; with --offline it does not try.

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
        let mut after = LogSeq(self.after);
        loop {
            let page = cx
                .session
                .query(move |engine| engine.messages(group, after, PAGE))
                .await??;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for record in &page {
                cx.out
                    .report(&Report::History(HistoryLine::new(group, record, &names)))
                    .await?;
            }
        }
        freshness.finish()
    }
}
