//! `mortise profile`.

use clap::Args;
use mortise_protocol::engine::{CommandKind, Event};

use super::{Context, values};
use crate::error::CliError;
use crate::output::Report;

/// Change your name, or another user's, as colleagues see it
#[derive(Debug, Args)]
#[command(after_help = "\
Names are sealed before they leave this device: the relay never sees them. Another user's name can
be changed by an owner or an admin.

Examples:
  mortise profile 'Ann Smith-Jones'
  mortise profile 'Bob (on leave)' --user Bob")]
pub struct Profile {
    /// The new name
    #[arg(value_parser = values::name)]
    name: String,
    /// Whose, by name or by the beginning of their id; without it, your own
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

impl Profile {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let user = match &self.user {
            Some(given) => cx.names().await?.find_user(given)?,
            None => cx.session.query(|engine| engine.user()).await?,
        };
        let name = self.name;
        let kind = CommandKind::SetProfile {
            user,
            name: name.clone(),
        };
        cx.carry_out("the new name", kind, |event| {
            matches!(event, Event::Done { .. }).then_some(())
        })
        .await?;
        let user = user.to_string();
        cx.out.report(&Report::ProfileSet { user, name }).await
    }
}
