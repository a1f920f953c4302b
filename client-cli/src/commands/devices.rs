//! `mortise devices`.

use std::time::Duration;

use clap::{Args, Subcommand};
use mortise_protocol::engine::CommandKind;
use mortise_protocol::identity::UserId;

use super::{Context, invite, order, values};
use crate::driver::ClientEngine;
use crate::error::CliError;
use crate::names::Names;
use crate::output::{self, Report};

/// List devices, add one of your own, or revoke one
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  mortise devices
  mortise devices list Bob --all
  mortise devices add
  mortise devices revoke 3fa9c1"
)]
pub struct Devices {
    #[command(subcommand)]
    verb: Option<DevicesVerb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum DevicesVerb {
    List(List),
    Add(Add),
    Revoke(Revoke),
}

impl Devices {
    pub(super) fn leaves_at_once(&self) -> bool {
        matches!(&self.verb, Some(DevicesVerb::Revoke(revoke)) if revoke.wait.is_zero())
    }

    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        match self.verb {
            Some(DevicesVerb::List(verb)) => verb.run(cx).await,
            Some(DevicesVerb::Add(verb)) => verb.run(cx).await,
            Some(DevicesVerb::Revoke(verb)) => verb.run(cx).await,
            None => self.list.run(cx).await,
        }
    }
}

/// List the organisation's devices
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise devices list
  mortise devices list Bob --all
  mortise --json devices list | jq -r 'select(.this) | .device'")]
struct List {
    /// Only this user's
    user: Option<String>,
    /// Also those that were revoked
    #[arg(long)]
    all: bool,
}

impl List {
    async fn run(self, cx: &Context) -> Result<(), CliError> {
        let freshness = cx.freshen().await?;
        let names = cx.names().await?;
        let user = self.user.map(|given| names.find_user(&given)).transpose()?;
        let devices = cx
            .session
            .query(move |engine| rows(engine, &names, user, self.all))
            .await?;
        for device in devices {
            cx.out.report(&Report::Device(device)).await?;
        }
        freshness.finish()
    }
}

fn rows(
    engine: &ClientEngine,
    names: &Names,
    user: Option<UserId>,
    all: bool,
) -> Vec<output::Device> {
    engine
        .roster()
        .devices()
        .filter(|(_, device)| user.is_none_or(|user| device.user == user))
        .filter(|(_, device)| all || device.is_admitted())
        .map(|(id, device)| output::Device {
            device: id.to_string(),
            person: names.person(device.user),
            status: if device.is_admitted() {
                "admitted"
            } else {
                "revoked"
            },
            added: device.added.0,
            revoked: device.revoked.map(|seq| seq.0),
            this: id == engine.device(),
        })
        .collect()
}

/// Make an invitation for a further device of your own
#[derive(Debug, Args)]
#[command(after_help = "\
Prints a link for `mortise join` on the other device. It makes its own keys, and the devices that
you have bring it into your groups; it sees what is said from then on.

Examples:
  mortise devices add
  mortise devices add --expires 30m")]
struct Add {
    /// How long the link can be used: 30m, 12h, 7d, 2w
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = values::span)]
    expires: Duration,
    /// Whether there is a PIN besides
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pin: invite::PinRule,
}

impl Add {
    async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let expires_at_ms = invite::expiry(self.expires);
        let pin = self.pin.into();
        let kind = CommandKind::InviteDevice { expires_at_ms, pin };
        invite::make(cx, kind, expires_at_ms).await
    }
}

/// Revoke a device, and those it let in: they are put out of the organisation and of every group
#[derive(Debug, Args)]
#[command(after_help = "\
Whoever had the device may have let others in with it: the further devices of the same user that
it invited, and those that they invited, are shown and revoked with it, unless --only is given.
Waits until every group was rotated, as `mortise offboard` does, with the same exit codes.

Examples:
  mortise devices revoke 3fa9c1
  mortise devices revoke 3fa9c1 --only
  mortise devices revoke 3fa9c1 --wait 60")]
struct Revoke {
    /// The device, by the beginning of its id
    device: String,
    /// Not those that it let in
    #[arg(long)]
    only: bool,
    /// How long to wait until every group is rotated or clean, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = values::seconds)]
    wait: Duration,
}

impl Revoke {
    async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let names = cx.names().await?;
        let device = names.find_device(&self.device)?;
        let (me, earlier, enrolled) = cx
            .session
            .query(move |engine| {
                let earlier = engine.roster().device(device).and_then(|d| d.revoked);
                (engine.device(), earlier, engine.revoked_with(device))
            })
            .await?;
        let myself = device == me || !self.only && enrolled.contains(&me);
        let enrolled: Vec<_> = enrolled.iter().map(ToString::to_string).collect();
        if self.only && !enrolled.is_empty() {
            let ids = enrolled.join(", ");
            cx.out
                .note(&format!("it has let in, and these stay: {ids}"))
                .await;
        }
        let kind = CommandKind::RevokeDevice {
            device,
            and_enrolled: !self.only,
        };
        let seq = order::give(cx, earlier, kind).await?;
        let report = Report::Ordered {
            measure: "revocation",
            seq: seq.0,
            user: None,
            name: None,
            device: Some(device.to_string()),
            and_devices: if self.only { Vec::new() } else { enrolled },
            already: earlier.is_some(),
        };
        cx.out.report(&report).await?;
        if myself {
            return order::without_this_device(cx).await;
        }
        order::follow(cx, seq, self.wait).await
    }
}
