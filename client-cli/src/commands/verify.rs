//! `mortise verify`.

use clap::Args;
use mortise_protocol::engine::{CommandKind, Event};

use super::Context;
use crate::error::CliError;
use crate::output::Report;

/// Show the safety number to compare with another user
#[derive(Debug, Args)]
#[command(after_help = "\
Both see the same sixty digits if, and only if, both see the same devices of each other. Compare
them over a call or in person; they change when one of you gets or loses a device. With --compared
this device remembers that they were the same, and tells you when they change.

Examples:
  mortise verify Bob
  mortise verify Bob --compared")]
pub struct Verify {
    /// The other user, by name or by the beginning of their id
    user: String,
    /// You have compared it, and it is the same
    #[arg(long)]
    compared: bool,
}

impl Verify {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let freshness = cx.freshen().await?;
        let names = cx.names().await?;
        let user = names.find_user(&self.user)?;
        let number = cx
            .session
            .query(move |engine| engine.safety_number(user))
            .await?
            .ok_or_else(|| CliError::NotAllowed("this user has no device to compare".into()))?;
        if self.compared {
            let kind = CommandKind::MarkCompared { user };
            cx.carry_out("the comparison", kind, |event| {
                matches!(event, Event::Done { .. }).then_some(())
            })
            .await?;
        }
        let compared = cx
            .session
            .query(move |engine| engine.compared(user))
            .await??;
        let report = Report::SafetyNumber {
            user: user.to_string(),
            name: names.user(user),
            number,
            compared_at_ms: compared.map(|c| c.at_ms),
            changed: compared.is_some_and(|c| c.changed),
        };
        cx.out.report(&report).await?;
        freshness.finish()
    }
}
