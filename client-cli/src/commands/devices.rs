//! `mortise devices`.

use std::time::Duration;

use clap::{Args, Subcommand};
use mortise_protocol::engine::CommandKind;
use mortise_protocol::identity::UserId;

use super::{Context, order, values};
use crate::driver::ClientEngine;
use crate::error::CliError;
use crate::names::Names;
use crate::output::{self, Report};

/// List devices, or revoke one
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  mortise devices
  mortise devices Bob --all
  mortise devices revoke 3fa9c1"
)]
pub struct Devices {
    #[command(subcommand)]
    verb: Option<DevicesVerb>,
    /// Only this user's
    user: Option<String>,
    /// Also those that were revoked
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum DevicesVerb {
    /// Revoke a device: it is put out of the organisation and of every group
    #[command(after_help = "\
Waits until every group was rotated, as `mortise offboard` does, with the same exit codes.

Examples:
  mortise devices revoke 3fa9c1
  mortise devices revoke 3fa9c1 --wait 60")]
    Revoke {
        /// The device, by the beginning of its id
        device: String,
        /// How long to wait until every group is rotated or clean, in seconds
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = values::seconds)]
        wait: Duration,
    },
}

impl Devices {
    pub(super) fn leaves_at_once(&self) -> bool {
        matches!(&self.verb, Some(DevicesVerb::Revoke { wait, .. }) if wait.is_zero())
    }

    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        match self.verb {
            Some(DevicesVerb::Revoke { device, wait }) => revoke(cx, &device, wait).await,
            None => list(cx, self.user.as_deref(), self.all).await,
        }
    }
}

async fn list(cx: &Context, user: Option<&str>, all: bool) -> Result<(), CliError> {
    let freshness = cx.freshen().await?;
    let names = cx.names().await?;
    let user = user.map(|given| names.find_user(given)).transpose()?;
    let devices = cx
        .session
        .query(move |engine| rows(engine, &names, user, all))
        .await?;
    for device in devices {
        cx.out.report(&Report::Device(device)).await?;
    }
    freshness.finish()
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

async fn revoke(cx: &Context, given: &str, wait: Duration) -> Result<(), CliError> {
    cx.sync().await?;
    let names = cx.names().await?;
    let device = names.find_device(given)?;
    let earlier = cx
        .session
        .query(move |engine| engine.roster().device(device).and_then(|d| d.revoked))
        .await?;
    let kind = CommandKind::RevokeDevice {
        device,
        and_enrolled: false,
    };
    let seq = order::give(cx, earlier, kind).await?;
    let report = Report::Ordered {
        seq: seq.0,
        user: None,
        name: None,
        device: Some(device.to_string()),
        already: earlier.is_some(),
    };
    cx.out.report(&report).await?;
    order::follow(cx, seq, wait).await
}
