//! `mortise whoami`.

use clap::Args;

use super::Context;
use crate::error::CliError;
use crate::machine::now_ms;
use crate::output::{self, Person, Report};

/// Show who this device is
#[derive(Debug, Args)]
#[command(after_help = "\
Shows what is stored on this device; it does not connect.

Examples:
  mortise whoami
  mortise --json whoami | jq -r .device")]
pub struct Whoami {}

impl Whoami {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let report = cx
            .session
            .query(|engine| output::Whoami {
                org: engine.org().to_string(),
                person: Person {
                    user: engine.user().to_string(),
                    name: engine.name_of(engine.user()),
                },
                role: engine
                    .roster()
                    .role(engine.user())
                    .map(|role| role.to_string()),
                device: engine.device().to_string(),
                relay: engine.relay().address.clone(),
                relay_key: engine.relay().key.to_string(),
                roster_seq: engine.roster().head().seq.0,
                confirmed_ms_ago: engine.checkpoint_age_ms(now_ms()),
                expelled: engine.is_expelled(),
            })
            .await?;
        cx.out.report(&Report::Whoami(report)).await
    }
}
