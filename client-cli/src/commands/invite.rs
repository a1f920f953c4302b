//! `mortise invite`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use mortise_protocol::engine::{CommandKind, Event, PinChoice};
use mortise_protocol::roster::Role;

use super::{Context, values};
use crate::error::CliError;
use crate::machine::now_ms;
use crate::output::Report;

/// Invite somebody, again if need be, or a further device of your own
#[derive(Debug, Args)]
#[command(after_help = "\
Prints a link. Whoever has it can join once, as that user, until it expires: hand it over on a
channel that you trust. The new device makes its own keys; you never know them. Where the
organisation's policy or --pin asks for it, there is a PIN besides, on standard error: tell it
over another channel than the link, by voice for example. Who has only one of the two cannot join.

--again is for somebody whose link was lost or has expired, and the way back after `mortise
suspend`.

Examples:
  mortise invite 'Ann Smith'
  mortise invite Bob --role admin --expires 24h --pin always
  mortise invite --again Bob
  mortise invite --device
  LINK=$(mortise invite Carol)")]
pub struct Invite {
    /// The person's name, as colleagues will see it; the relay never does
    #[arg(required_unless_present_any = ["device", "again"], conflicts_with_all = ["device", "again"],
          value_parser = values::name)]
    name: Option<String>,
    /// For a user who exists already, by name or by the beginning of their id
    #[arg(long, value_name = "USER", conflicts_with_all = ["device", "role"])]
    again: Option<String>,
    /// For a further device of your own, as `mortise devices add`
    #[arg(long, conflicts_with = "role")]
    device: bool,
    /// Their role: owner, admin, supervisor, auditor, member, guest or bot
    #[arg(long, default_value = "member", value_parser = values::role)]
    role: Role,
    /// How long the link can be used: 30m, 12h, 7d, 2w
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = values::span)]
    expires: Duration,
    /// Whether there is a PIN besides
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pin: PinRule,
}

/// When an invitation has a PIN.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PinRule {
    /// If the organisation's policy asks for it
    Auto,
    /// In any case
    Always,
    /// Not; refused where the policy asks for it
    Never,
}

impl From<PinRule> for PinChoice {
    fn from(rule: PinRule) -> Self {
        match rule {
            PinRule::Auto => Self::Policy,
            PinRule::Always => Self::Always,
            PinRule::Never => Self::Never,
        }
    }
}

impl Invite {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let expires_at_ms = expiry(self.expires);
        let pin = self.pin.into();
        if let Some(name) = &self.name
            && cx.names().await?.find_user(name).is_ok()
        {
            cx.out
                .note(&format!(
                    "there is a user called {name} already; a new link for them is `mortise invite --again {name}`"
                ))
                .await;
        }
        let kind = match (self.name, self.again) {
            (Some(name), _) => CommandKind::InviteUser {
                name,
                role: self.role,
                expires_at_ms,
                pin,
            },
            (None, Some(given)) => CommandKind::ReinviteUser {
                user: cx.names().await?.find_user(&given)?,
                expires_at_ms,
                pin,
            },
            (None, None) => CommandKind::InviteDevice { expires_at_ms, pin },
        };
        make(cx, kind, expires_at_ms).await
    }
}

/// From now on, as ms since 1970.
pub(super) fn expiry(span: Duration) -> u64 {
    let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    now_ms().saturating_add(span_ms)
}

/// Has an invitation made and prints it: the link on stdout, and the PIN, if there is one, beside it.
pub(super) async fn make(
    cx: &Context,
    kind: CommandKind,
    expires_at_ms: u64,
) -> Result<(), CliError> {
    let (user, link, pin) = cx
        .carry_out("the invitation", kind, |event| match event {
            Event::Invited {
                user, link, pin, ..
            } => Some((user, link, pin)),
            _ => None,
        })
        .await?;
    let (address, key) = cx
        .session
        .query(|engine| (engine.relay().address.clone(), engine.relay().key))
        .await?;
    let report = Report::Invited {
        user: user.to_string(),
        name: cx.names().await?.user(user),
        invitation: link.invitation().to_string(),
        expires_at_ms: Some(expires_at_ms),
        link: link.to_text(&address, key).to_string(),
        pin: pin.as_ref().map(|pin| pin.to_text().to_string()),
    };
    cx.out.report(&report).await?;
    if let Some(pin) = pin {
        cx.out
            .note(&format!("PIN {}", pin.to_text().as_str()))
            .await;
        cx.out
            .note("tell the PIN over another channel than the link: by voice, not in the same message")
            .await;
    }
    Ok(())
}
