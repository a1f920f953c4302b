//! `mortise verify`.

use clap::Args;

use super::Context;
use crate::error::CliError;
use crate::output::Report;

/// Show the safety number to compare with another user
#[derive(Debug, Args)]
#[command(after_help = "\
Both see the same sixty digits if, and only if, both see the same devices of each other. Compare
them over a call or in person; they change when one of you gets or loses a device.

Examples:
  mortise verify Bob")]
pub struct Verify {
    /// The other user, by name or by the beginning of their id
    user: String,
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
        let report = Report::SafetyNumber {
            user: user.to_string(),
            name: names.user(user),
            number,
        };
        cx.out.report(&report).await?;
        freshness.finish()
    }
}
