//! `mortise org`.

mod create;
mod recover;
mod root_key;

use clap::{Args, Subcommand};

use super::Global;
use crate::error::CliError;
use crate::output::Printer;

/// Found an organisation, or recover one whose owners are gone
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise org create --claim-file claim.txt --name Olga --root-key-out root.key
  mortise org recover --root-key root.key --name 'Olga the second'")]
pub struct Org {
    #[command(subcommand)]
    verb: OrgVerb,
}

#[derive(Debug, Subcommand)]
enum OrgVerb {
    Create(create::Create),
    Recover(recover::Recover),
}

impl Org {
    pub(super) async fn run(self, global: &Global, out: &Printer) -> Result<(), CliError> {
        match self.verb {
            OrgVerb::Create(verb) => verb.run(global, out).await,
            OrgVerb::Recover(verb) => verb.run(global, out).await,
        }
    }
}
