//! `mortise group`.

mod change;
mod leave;
mod members;
mod repair;
mod show;

use clap::{Args, Subcommand};
use mortise_protocol::engine::Event;
use mortise_protocol::identity::{GroupId, LogSeq};

pub(super) use self::change::Retention;
use super::Context;
use crate::error::CliError;
use crate::names::Names;

/// Create groups, change, repair and list them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise group create team Ann Bob
  mortise group list
  mortise group rename team 'Design team'")]
pub struct Group {
    #[command(subcommand)]
    verb: GroupVerb,
}

#[derive(Debug, Subcommand)]
enum GroupVerb {
    Create(members::Create),
    Add(members::Add),
    Remove(members::Remove),
    List(show::List),
    #[command(visible_alias = "info")]
    Show(show::Show),
    Rename(change::Rename),
    Topic(change::Topic),
    Admin(change::Admin),
    Policy(change::Policy),
    Leave(leave::Leave),
    Restart(repair::Restart),
    Resync(repair::Resync),
    Close(repair::Close),
}

impl Group {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        match self.verb {
            GroupVerb::Create(verb) => verb.run(cx).await,
            GroupVerb::Add(verb) => verb.run(cx).await,
            GroupVerb::Remove(verb) => verb.run(cx).await,
            GroupVerb::List(verb) => verb.run(cx).await,
            GroupVerb::Show(verb) => verb.run(cx).await,
            GroupVerb::Rename(verb) => verb.run(cx).await,
            GroupVerb::Topic(verb) => verb.run(cx).await,
            GroupVerb::Admin(verb) => verb.run(cx).await,
            GroupVerb::Policy(verb) => verb.run(cx).await,
            GroupVerb::Leave(verb) => verb.run(cx).await,
            GroupVerb::Restart(verb) => verb.run(cx).await,
            GroupVerb::Resync(verb) => verb.run(cx).await,
            GroupVerb::Close(verb) => verb.run(cx).await,
        }
    }
}

/// Catches up, and finds a group by what was given.
async fn find(cx: &Context, given: &str) -> Result<(Names, GroupId), CliError> {
    cx.sync().await?;
    let names = cx.names().await?;
    let group = names.find_group(given)?;
    Ok((names, group))
}

/// Where in the log it is, once it counts; nowhere, if there was no need.
fn appended(event: Event) -> Option<Option<LogSeq>> {
    match event {
        Event::Appended { seq, .. } => Some(Some(seq)),
        Event::Done { .. } => Some(None),
        _ => None,
    }
}

/// A change of members is in force.
fn done(event: Event) -> Option<()> {
    matches!(event, Event::Done { .. } | Event::Appended { .. }).then_some(())
}
