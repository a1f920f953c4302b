//! `mortise send`.

use std::time::Duration;

use clap::Args;
use mortise_protocol::engine::{CommandKind, Event};

use super::Context;
use crate::error::CliError;
use crate::output::Report;

/// Send a message to a group
#[derive(Debug, Args)]
#[command(after_help = "\
Without a connection the message is stored on this device and delivered by the next command or by
`mortise listen`; exit code 20 says so, and it must not be sent again.

Examples:
  mortise send team 'The build is green'
  git log -1 | mortise send team -
  mortise --json send 3fa9 'by the beginning of the group id'")]
pub struct Send {
    /// The group, by name or by the beginning of its id
    group: String,
    /// The message, or - for what is on stdin, without its last line break
    text: String,
}

impl Send {
    pub(super) fn reads_stdin(&self) -> bool {
        self.text == "-"
    }

    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let text = if self.reads_stdin() {
            cx.stdin.read().await?
        } else {
            self.text
        };
        if text.is_empty() {
            return Err(CliError::Usage {
                what: "there is nothing to send".into(),
            });
        }
        let within = time_left(cx).await?;
        let names = cx.names().await?;
        let group = names.find_group(&self.group)?;
        let kind = CommandKind::SendText { group, text };
        let seq = cx
            .carry_out_within(within, "the message", kind, |event| match event {
                Event::Appended { seq, .. } => Some(seq),
                _ => None,
            })
            .await?;
        let report = Report::Appended {
            group: group.to_string(),
            group_name: names.group(group),
            seq: seq.0,
        };
        cx.out.report(&report).await
    }
}

/// Catches up; a relay that does not answer does not keep the message from being stored, and is not waited for
/// twice.
async fn time_left(cx: &Context) -> Result<Duration, CliError> {
    if cx.offline {
        return Ok(Duration::ZERO);
    }
    match cx.session.wait_synced(cx.timeout).await {
        Ok(()) | Err(CliError::TimedOut { .. }) => Ok(cx.timeout),
        Err(CliError::Unreachable { .. } | CliError::Fingerprint(_) | CliError::NotHosted) => {
            Ok(Duration::ZERO)
        }
        Err(error) => Err(error),
    }
}
