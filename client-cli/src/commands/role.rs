//! `mortise role`.

use clap::Args;
use mortise_protocol::engine::{CommandKind, Event};

use super::{Context, values};
use crate::error::CliError;
use crate::output::Report;

/// Change a user's role
#[derive(Debug, Args)]
#[command(after_help = "\
Roles: owner, admin, supervisor, auditor, member, guest, bot. Taking rights away voids every
invitation that the user has issued.

Examples:
  mortise role Ann admin
  mortise role 3fa9c1 guest")]
pub struct Role {
    /// The user, by name or by the beginning of their id
    user: String,
    /// The new role
    #[arg(value_parser = values::role)]
    role: mortise_protocol::roster::Role,
}

impl Role {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        cx.sync().await?;
        let names = cx.names().await?;
        let user = names.find_user(&self.user)?;
        let role = self.role;
        let present = cx
            .session
            .query(move |engine| engine.roster().role(user))
            .await?;
        // What is so already needs no entry that says it again.
        if present != Some(role) {
            let kind = CommandKind::SetRole { user, role };
            // A demotion is an order, and answered like one.
            cx.carry_out("the change of role", kind, |event| match event {
                Event::Done { .. } | Event::Ordered { .. } => Some(()),
                _ => None,
            })
            .await?;
        }
        let report = Report::RoleSet {
            user: user.to_string(),
            name: names.user(user),
            role: role.to_string(),
        };
        cx.out.report(&report).await
    }
}
