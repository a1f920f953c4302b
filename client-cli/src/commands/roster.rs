//! `mortise roster`.

use clap::{Args, Subcommand};
use mortise_protocol::roster::{self, EntrySigner, Op, RosterError, SignedEntry};

use super::Context;
use crate::driver::ClientEngine;
use crate::error::CliError;
use crate::names::Names;
use crate::output::Report;

/// Show or verify the organisation's signed log
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise roster log
  mortise roster verify")]
pub struct Roster {
    #[command(subcommand)]
    verb: RosterVerb,
}

#[derive(Debug, Subcommand)]
enum RosterVerb {
    /// Show every entry: who did what, when
    #[command(after_help = "\
Examples:
  mortise roster log
  mortise --json roster log | tail -1")]
    Log,
    /// Check every signature and every rule again, from the founding on
    #[command(after_help = "\
Examples:
  mortise roster verify
  mortise --json roster verify | jq -r .head_hash    # compare with a colleague's")]
    Verify,
}

impl Roster {
    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        let freshness = cx.freshen().await?;
        match self.verb {
            RosterVerb::Log => log(cx).await?,
            RosterVerb::Verify => verify(cx).await?,
        }
        freshness.finish()
    }
}

async fn log(cx: &Context) -> Result<(), CliError> {
    let names = cx.names().await?;
    let entries = cx.session.query(|engine| engine.roster_entries()).await??;
    for bytes in entries {
        let entry = SignedEntry::parse(&bytes).map_err(|error| damaged(&error))?;
        let tbs = entry.tbs();
        let report = Report::RosterEntry {
            seq: tbs.seq.0,
            hash: entry.hash().to_string(),
            at_ms: tbs.issued_at_ms,
            signer: signer(&tbs.signer, &names),
            changes: tbs.ops.iter().map(|op| change(op, &names)).collect(),
        };
        cx.out.report(&report).await?;
    }
    Ok(())
}

async fn verify(cx: &Context) -> Result<(), CliError> {
    let report = cx.session.query(replay).await??;
    cx.out.report(&report).await
}

/// Applies every stored entry to an empty roster and compares with what the engine believes.
fn replay(engine: &mut ClientEngine) -> Result<Report, CliError> {
    let mut fresh = roster::Roster::new(engine.org());
    for bytes in engine.roster_entries()? {
        fresh.apply(&bytes).map_err(|error| damaged(&error))?;
    }
    if &fresh != engine.roster() {
        return Err(CliError::Corrupt {
            file: "copy of the roster",
            reason: "its entries do not lead to the state that is used".into(),
        });
    }
    Ok(Report::RosterVerified {
        org: fresh.org().to_string(),
        entries: fresh.head().seq.0,
        head_hash: fresh.head().hash.to_string(),
    })
}

fn damaged(error: &RosterError) -> CliError {
    CliError::Corrupt {
        file: "copy of the roster",
        reason: error.to_string(),
    }
}

fn signer(signer: &EntrySigner, names: &Names) -> String {
    match signer {
        EntrySigner::Root => "the root key".into(),
        EntrySigner::Device(device) => match names.owner(*device) {
            Some(user) => format!("{} (device {})", who(names, user), short(device)),
            None => format!("device {}", short(device)),
        },
        EntrySigner::Invitation(invitation) => format!("invitation {}", short(invitation)),
    }
}

fn change(op: &Op, names: &Names) -> String {
    match op {
        Op::Genesis(genesis) => format!("founded, suite 0x{:04X}", genesis.suite),
        Op::AddUser { user, role, .. } => format!("added {} as {role}", who(names, *user)),
        Op::SetProfile { user, .. } => format!("renamed {}", who(names, *user)),
        Op::SetRole { user, role } => format!("made {} {role}", who(names, *user)),
        Op::SuspendUser { user } => format!("suspended {}", who(names, *user)),
        Op::RemoveUser { user } => format!("removed {}", who(names, *user)),
        Op::NameSuccessor { user, successor } => format!(
            "named {} to inherit from {}",
            who(names, *successor),
            who(names, *user)
        ),
        Op::Invite {
            invitation, user, ..
        } => {
            format!("invited {} ({})", who(names, *user), short(invitation))
        }
        Op::CancelInvite { invitation } => format!("withdrew invitation {}", short(invitation)),
        Op::AddDevice(device) => {
            format!(
                "admitted device {} of {}",
                short(&device.device()),
                who(names, device.user)
            )
        }
        Op::RevokeDevice { device } => format!("revoked device {}", short(device)),
        Op::SetPolicy(_) => "set the organisation's policy".into(),
        Op::RotateDirectoryKey(_) => "changed the key that names are sealed under".into(),
        Op::CloseGroup { group } => format!("closed group {}", short(group)),
        Op::Recover => "recovered the organisation".into(),
    }
}

fn who(names: &Names, user: mortise_protocol::identity::UserId) -> String {
    names.user(user).unwrap_or_else(|| short(&user))
}

fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(8).collect()
}
