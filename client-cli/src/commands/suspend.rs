//! `mortise suspend`.

use std::time::Duration;

use clap::Args;

use super::order::{self, Measure};
use super::{Context, values};
use crate::error::CliError;

/// Shut a user out of the organisation and of every group, until they are invited again
#[derive(Debug, Args)]
#[command(after_help = "\
As `mortise offboard`, with the same output and exit codes, but that the user stays on the roster.
Their devices' keys are burned: the way back is `mortise invite --again USER`, and a new device.
Then add them to their groups again; the messages in between stay unknown to them.

Examples:
  mortise suspend Bob
  mortise suspend Bob --wait 60
  mortise invite --again Bob          # the way back")]
pub struct Suspend {
    /// The user, by name or by the beginning of their id
    user: String,
    /// How long to wait until every group is rotated or clean, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = values::seconds)]
    wait: Duration,
}

impl Suspend {
    pub(super) fn leaves_at_once(&self) -> bool {
        self.wait.is_zero()
    }

    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        order::against(cx, &self.user, Measure::Suspension, self.wait).await
    }
}
