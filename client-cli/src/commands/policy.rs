//! `mortise policy`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use mortise_protocol::engine::{CommandKind, Event};
use mortise_protocol::roster::{
    MAX_STALENESS_LIMIT_MS, MIN_STALENESS_LIMIT_MS, OrgPolicy, Staleness,
};

use super::{Context, values};
use crate::error::CliError;
use crate::output::{self, Report};

/// Show or change the organisation's policy
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise policy show
  mortise policy set --pin required")]
pub struct Policy {
    #[command(subcommand)]
    verb: PolicyVerb,
}

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// Show the organisation's policy
    #[command(after_help = "\
Examples:
  mortise policy show
  mortise --json policy show | jq -r .suite")]
    Show,
    Set(Set),
}

/// Change the organisation's policy; what is not named stays as it is
#[derive(Debug, Args)]
#[command(after_help = "\
The suite holds for new groups; a group that exists moves to it with `mortise group restart`.
Owners and admins confirm the roster while they are online (every ten minutes): `--staleness` says
what a device does that has seen no such confirmation for longer than `--staleness-limit`. `block`
suits organisations where some administrator's device is always online: nobody can send anything
while none is.

Examples:
  mortise policy set --pin required
  mortise policy set --suite 0x0001
  mortise policy set --staleness block --staleness-limit 2h")]
#[group(required = true, multiple = true)]
struct Set {
    /// The MLS ciphersuite of new groups: 0x004F (hybrid post-quantum) or 0x0001
    #[arg(long, value_parser = values::suite)]
    suite: Option<u16>,
    /// Whether every invitation has a PIN, which is told over another channel than the link
    #[arg(long, value_name = "WHEN")]
    pin: Option<PinRule>,
    /// What a device does when no owner or admin has confirmed the roster for too long
    #[arg(long, value_name = "WHAT")]
    staleness: Option<StalenessRule>,
    /// How long is too long: 20m, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    staleness_limit: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PinRule {
    /// Every invitation has one
    Required,
    /// Whoever invites decides
    Optional,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StalenessRule {
    /// Nothing
    Off,
    /// It says so
    Warn,
    /// It says so, and sends nothing
    Block,
}

impl Policy {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        match self.verb {
            PolicyVerb::Show => show(cx).await,
            PolicyVerb::Set(set) => set.run(cx).await,
        }
    }
}

async fn show(cx: &Context) -> Result<(), CliError> {
    let freshness = cx.freshen().await?;
    if let Some(policy) = stored(cx).await? {
        cx.out.report(&Report::Policy(row(&policy))).await?;
    }
    freshness.finish()
}

/// The policy; `None` before the roster has come.
async fn stored(cx: &Context) -> Result<Option<OrgPolicy>, CliError> {
    cx.session.query(|engine| engine.policy().cloned()).await
}

impl Set {
    async fn run(self, cx: &Context) -> Result<(), CliError> {
        let bounds = MIN_STALENESS_LIMIT_MS..=MAX_STALENESS_LIMIT_MS;
        if self
            .limit_ms()
            .is_some_and(|limit| !bounds.contains(&limit))
        {
            return Err(CliError::Usage {
                what: "--staleness-limit must be at least 20 minutes and at most 365 days".into(),
            });
        }
        cx.sync().await?;
        let mut policy = stored(cx).await?.ok_or_else(|| CliError::NotNow {
            what: "the organisation's roster has not arrived yet".into(),
            advice: "try again when the relay can be reached",
        })?;
        self.change(&mut policy);
        let row = row(&policy);
        let kind = CommandKind::SetPolicy { policy };
        cx.carry_out("the change of policy", kind, |event| {
            matches!(event, Event::Done { .. }).then_some(())
        })
        .await?;
        cx.out.report(&Report::Policy(row)).await
    }

    fn change(&self, policy: &mut OrgPolicy) {
        if let Some(suite) = self.suite {
            policy.suite = suite;
        }
        if let Some(pin) = self.pin {
            policy.pin_required = matches!(pin, PinRule::Required).into();
        }
        if let Some(rule) = self.staleness {
            policy.staleness = match rule {
                StalenessRule::Off => Staleness::Off,
                StalenessRule::Warn => Staleness::Warn,
                StalenessRule::Block => Staleness::Block,
            };
        }
        if let Some(limit_ms) = self.limit_ms() {
            policy.staleness_limit_ms = limit_ms;
        }
    }

    fn limit_ms(&self) -> Option<u64> {
        let limit = self.staleness_limit?;
        Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
    }
}

fn row(policy: &OrgPolicy) -> output::Policy {
    output::Policy {
        suite: format!("0x{:04X}", policy.suite),
        pin: if policy.pin_required.into() {
            "required"
        } else {
            "optional"
        },
        staleness: match policy.staleness {
            Staleness::Off => "off",
            Staleness::Warn => "warn",
            Staleness::Block => "block",
        },
        staleness_limit_ms: policy.staleness_limit_ms,
    }
}
