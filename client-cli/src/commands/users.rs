//! `mortise users`.

use clap::Args;
use mortise_protocol::identity::UserId;
use mortise_protocol::roster::{UserRecord, UserStatus};

use super::Context;
use crate::driver::ClientEngine;
use crate::error::CliError;
use crate::output::{self, Person, Report};

/// List the organisation's users
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise users
  mortise users --all
  mortise --json users | jq -r 'select(.status == \"invited\") | .name'")]
pub struct Users {
    /// Also those who were removed
    #[arg(long)]
    all: bool,
}

impl Users {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let freshness = cx.freshen().await?;
        let all = self.all;
        let users = cx
            .session
            .query(move |engine| {
                let shown = |user: &UserRecord| all || !user.is_removed();
                let roster = engine.roster().users().filter(|(_, user)| shown(user));
                roster
                    .map(|(id, user)| row(engine, id, user))
                    .collect::<Vec<_>>()
            })
            .await?;
        for user in users {
            cx.out.report(&Report::User(user)).await?;
        }
        freshness.finish()
    }
}

fn row(engine: &ClientEngine, id: UserId, user: &UserRecord) -> output::User {
    let devices = engine.roster().devices_of(id).count();
    output::User {
        person: Person {
            user: id.to_string(),
            name: engine.name_of(id),
        },
        role: user
            .roles
            .last()
            .map_or_else(|| "guest".into(), |(_, role)| role.to_string()),
        status: match user.status {
            UserStatus::Removed { .. } => "removed",
            UserStatus::Suspended { .. } => "suspended",
            UserStatus::Active if devices == 0 => "invited",
            UserStatus::Active => "active",
        },
        devices,
        me: id == engine.user(),
    }
}
