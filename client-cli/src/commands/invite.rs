//! `mortise invite`.

use std::time::Duration;

use clap::Args;
use mortise_protocol::engine::{CommandKind, Event};
use mortise_protocol::roster::Role;

use super::{Context, values};
use crate::error::CliError;
use crate::machine::now_ms;
use crate::output::Report;

/// Invite somebody, or a further device of your own
#[derive(Debug, Args)]
#[command(after_help = "\
Prints a link. Whoever has it can join once, as that user, until it expires: hand it over on a channel
that you trust. The new device makes its own keys; you never know them.

Examples:
  mortise invite 'Ann Smith'
  mortise invite Bob --role admin --expires 24h
  mortise invite --device
  LINK=$(mortise invite Carol)")]
pub struct Invite {
    /// The person's name, as colleagues will see it; the relay never does
    #[arg(required_unless_present = "device", conflicts_with = "device", value_parser = values::name)]
    name: Option<String>,
    /// For a further device of your own
    #[arg(long, conflicts_with = "role")]
    device: bool,
    /// Their role: owner, admin, supervisor, auditor, member, guest or bot
    #[arg(long, default_value = "member", value_parser = values::role)]
    role: Role,
    /// How long the link can be used: 30m, 12h, 7d, 2w
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = values::span)]
    expires: Duration,
}

impl Invite {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let span_ms = u64::try_from(self.expires.as_millis()).unwrap_or(u64::MAX);
        let expires_at_ms = now_ms().saturating_add(span_ms);
        let kind = match &self.name {
            Some(name) => CommandKind::InviteUser {
                name: name.clone(),
                role: self.role,
                expires_at_ms,
            },
            None => CommandKind::InviteDevice { expires_at_ms },
        };
        let (user, link) = cx
            .carry_out("the invitation", kind, |event| match event {
                Event::Invited { user, link, .. } => Some((user, link)),
                _ => None,
            })
            .await?;
        let (address, key) = cx
            .session
            .query(|engine| (engine.relay().address.clone(), engine.relay().key))
            .await?;
        let name = match self.name {
            Some(name) => Some(name),
            None => cx.names().await?.user(user),
        };
        let report = Report::Invited {
            user: user.to_string(),
            name,
            invitation: link.invitation().to_string(),
            expires_at_ms: Some(expires_at_ms),
            link: link.to_text(&address, key).to_string(),
        };
        cx.out.report(&report).await
    }
}
