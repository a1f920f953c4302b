//! `mortise offboard`.

use std::time::Duration;

use clap::Args;

use super::order::{self, Measure};
use super::{Context, plan, values};
use crate::error::CliError;

/// Remove a user from the organisation and from every group
#[derive(Debug, Args)]
#[command(after_help = "\
From the moment this prints \"ordered\", no message from an honest device enters a group before the
removed user was put out of it, and the relay refuses their devices. Each group is then shown as
rotated (its keys were changed), clean (the user was not in it) or sealed (none of its members has
been online yet; nothing can be sent there before). Sealed groups finish by themselves; nobody has
to stay online for that. Giving the same order again shows how it stands.

Exit code 0: every group is rotated or clean. Exit code 9: some are still sealed.

With --dry-run nothing is ordered: it shows which devices, roles and invitations fall, which of your
groups are concerned, and who becomes admin where the user is the last one.

A group that loses its last admin goes to the member who has been in it longest, guests last. With
--successor it goes to that user, wherever they are a member and no guest; the order says so, signed.

Examples:
  mortise offboard Bob --dry-run
  mortise offboard Bob
  mortise offboard Bob --successor Cy
  mortise offboard Bob --wait 0
  mortise --json offboard 3fa9c1 --wait 60")]
pub struct Offboard {
    /// The user, by name or by the beginning of their id
    user: String,
    /// How long to wait until every group is rotated or clean, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = values::seconds)]
    wait: Duration,
    /// Who becomes admin of groups that lose their last one, by name or by the beginning of their id
    #[arg(long, value_name = "USER")]
    successor: Option<String>,
    /// Show what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Offboard {
    pub(super) fn leaves_at_once(&self) -> bool {
        self.wait.is_zero() || self.dry_run
    }

    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        if self.dry_run {
            return plan::show(cx, &self.user, self.successor.as_deref()).await;
        }
        let successor = self.successor.as_deref();
        order::against(cx, &self.user, Measure::Removal { successor }, self.wait).await
    }
}
