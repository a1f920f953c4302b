//! `mortise offboard`.

use std::time::Duration;

use clap::Args;
use mortise_protocol::engine::CommandKind;
use mortise_protocol::roster::UserStatus;

use super::{Context, order, values};
use crate::error::CliError;
use crate::output::Report;

/// Remove a user from the organisation and from every group
#[derive(Debug, Args)]
#[command(after_help = "\
From the moment this prints \"ordered\", no message from an honest device enters a group before the
removed user was put out of it, and the relay refuses their devices. Each group is then shown as
rotated (its keys were changed), clean (the user was not in it) or sealed (none of its members has
been online yet; nothing can be sent there before). Sealed groups finish by themselves; nobody has
to stay online for that. Giving the same order again shows how it stands.

Exit code 0: every group is rotated or clean. Exit code 9: some are still sealed.

Examples:
  mortise offboard Bob
  mortise offboard Bob --wait 0
  mortise --json offboard 3fa9c1 --wait 60")]
pub struct Offboard {
    /// The user, by name or by the beginning of their id
    user: String,
    /// How long to wait until every group is rotated or clean, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = values::seconds)]
    wait: Duration,
}

impl Offboard {
    pub(super) fn leaves_at_once(&self) -> bool {
        self.wait.is_zero()
    }

    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let names = cx.names().await?;
        let user = names.find_user(&self.user)?;
        let (myself, status) = cx
            .session
            .query(move |engine| {
                let status = engine.roster().user(user).map(|record| record.status);
                (engine.user() == user, status)
            })
            .await?;
        let earlier = match status {
            Some(UserStatus::Removed { at }) => Some(at),
            _ => None,
        };
        let kind = CommandKind::RemoveUser { user };
        let seq = order::give(cx, earlier, kind).await?;
        let report = Report::Ordered {
            seq: seq.0,
            user: Some(user.to_string()),
            name: names.user(user),
            device: None,
            already: earlier.is_some(),
        };
        cx.out.report(&report).await?;
        if myself {
            cx.out
                .note("this device has left with its user; the others finish the groups")
                .await;
            return Ok(());
        }
        order::follow(cx, seq, self.wait).await
    }
}
