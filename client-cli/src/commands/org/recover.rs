//! `mortise org recover`.

use std::path::PathBuf;

use clap::Args;
use mortise_protocol::engine::{Admission, AdmissionError, RelayAddress};
use mortise_protocol::identity::Hash;

use super::super::join::go_online;
use super::super::onboard::{Ground, prepare};
use super::super::{Global, values};
use super::root_key::RootKeyFile;
use crate::error::CliError;
use crate::machine::system_rng;
use crate::output::{Printer, Report};
use crate::profile::Way;

/// Become an owner by the organisation's root key, when its owners are gone
#[derive(Debug, Args)]
#[command(after_help = "\
Makes a new user, an owner, with this device: everybody sees it in the organisation's signed log.
Nothing else changes: whom you want out, remove with `mortise offboard`. Names are readable again
as colleagues come online; add yourself to groups by asking one of their admins.

The root key's file knows the relay it was founded on. If that has moved, name it, with the hash
of its key from `mortise whoami` on any device.

Examples:
  mortise org recover --root-key root.key --name 'Olga the second'
  mortise org recover --root-key root.key --name Olga --relay chat.example.org:4433 --relay-key 5f…")]
pub(super) struct Recover {
    /// The file that `mortise org create` wrote
    #[arg(long, value_name = "FILE")]
    root_key: PathBuf,
    /// Your name, as colleagues will see it; the relay never does
    #[arg(long, value_parser = values::name)]
    name: String,
    /// The relay, if it is not where the organisation was founded
    #[arg(long, value_name = "HOST:PORT", requires = "relay_key")]
    relay: Option<String>,
    /// SHA-256 of that relay's public key, 64 hex digits
    #[arg(long, value_name = "HASH", requires = "relay", value_parser = values::relay_key)]
    relay_key: Option<Hash>,
}

impl Recover {
    pub(super) async fn run(self, global: &Global, out: &Printer) -> Result<(), CliError> {
        let file = RootKeyFile::read(&self.root_key)?;
        let relay = self.relay(&file)?;
        let mut rng = system_rng();
        let (site, admission) = match prepare(global, Way::Recover)? {
            Ground::Fresh(site) => {
                let root = file.root;
                (
                    site,
                    Admission::recover(relay, file.org, root, &self.name, &mut rng),
                )
            }
            Ground::Interrupted(site, identity) => {
                out.note("going on with a recovery that was interrupted")
                    .await;
                let root = file.root;
                (
                    site,
                    Admission::resume_recovery(*identity, root, &self.name, &mut rng),
                )
            }
        };
        let mut admission = match admission {
            Ok(admission) => admission,
            Err(error) => return Err(self.unusable(&error)),
        };
        let site = site.admit(&mut admission, global.timeout).await?;
        let identity = admission.identity();
        let report = Report::OrgRecovered {
            org: identity.org.to_string(),
            user: identity.user.to_string(),
            device: identity.device.to_string(),
            name: self.name,
        };
        out.report(&report).await?;
        go_online(site, global, out).await
    }

    fn relay(&self, file: &RootKeyFile) -> Result<RelayAddress, CliError> {
        match (&self.relay, self.relay_key) {
            (Some(address), Some(key)) => Ok(RelayAddress {
                address: address.clone(),
                key,
            }),
            _ => file.relay.clone().ok_or_else(|| CliError::Usage {
                what: "the root key's file does not name a relay: give --relay and --relay-key"
                    .into(),
            }),
        }
    }

    fn unusable(&self, error: &AdmissionError) -> CliError {
        CliError::RootKey {
            path: self.root_key.clone(),
            reason: error.to_string(),
        }
    }
}
