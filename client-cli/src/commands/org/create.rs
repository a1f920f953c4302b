//! `mortise org create`.

use std::path::PathBuf;

use clap::Args;
use mortise_protocol::engine::Admission;
use mortise_protocol::identity::{ClaimLink, OrgId};

use super::super::join::{go_online, read_link};
use super::super::onboard::{Ground, Site, prepare};
use super::super::{Global, values};
use super::root_key::RootKeyFile;
use crate::error::CliError;
use crate::machine::{now_ms, system_rng};
use crate::output::{Printer, Report};
use crate::profile::Way;

/// Found an organisation on a relay, with you as its owner
#[derive(Debug, Args)]
#[command(after_help = "\
The relay's operator gives you the claim link, which `mortise-relay init` prints; it works once.
The root key is the organisation's last resort: it signs the founding, and a new owner when all
owners are gone (`mortise org recover`). Move its file to a place that is not online, and keep two
copies.

Examples:
  mortise org create --claim 'mortise://claim/AbC…' --name 'Olga Owner' --root-key-out root.key
  mortise org create --claim - --name Olga --suite 0x0001 --root-key-out /media/root.key < claim.txt")]
pub(super) struct Create {
    /// The relay's claim link, or - for what is on stdin
    #[arg(long, value_name = "LINK", required_unless_present = "claim_file")]
    claim: Option<String>,
    /// A file that holds the claim link
    #[arg(long, value_name = "FILE", conflicts_with = "claim")]
    claim_file: Option<PathBuf>,
    /// Your name, as colleagues will see it; the relay never does
    #[arg(long, value_parser = values::name)]
    name: String,
    /// The MLS ciphersuite of new groups: 0x004F (hybrid post-quantum) or 0x0001
    #[arg(long, default_value = "0x004F", value_parser = values::suite)]
    suite: u16,
    /// Where to write the organisation's root key; the file must not exist
    #[arg(long, value_name = "FILE")]
    root_key_out: PathBuf,
}

impl Create {
    pub(super) async fn run(self, global: &Global, out: &Printer) -> Result<(), CliError> {
        let text = read_link(self.claim.as_deref(), self.claim_file.as_deref()).await?;
        let claim = ClaimLink::parse(&text)?;
        let site = match prepare(global, Way::Found)? {
            Ground::Fresh(site) => site,
            Ground::Interrupted(site, identity) => {
                out.note("looking whether an interrupted founding has arrived")
                    .await;
                let founded = self.founded(identity.org, identity.user, identity.device);
                match self.take_up(site, global).await? {
                    None => return out.report(&founded).await,
                    Some(site) => site,
                }
            }
        };
        let (mut admission, root) =
            Admission::found(&claim, &self.name, self.suite, &mut system_rng(), now_ms());
        let identity = admission.identity();
        let founded = self.founded(identity.org, identity.user, identity.device);
        let file = RootKeyFile {
            org: identity.org,
            root,
            relay: Some(identity.relay.clone()),
        };
        if let Err(error) = file.write(&self.root_key_out) {
            site.wipe()?;
            return Err(error);
        }
        drop(file);
        let profile = site.profile.clone();
        let site = match site.admit(&mut admission, global.timeout).await {
            Ok(site) => site,
            Err(error) => {
                // Of an organisation that does not exist, the key is worth nothing.
                if !profile.exists() {
                    let _ = std::fs::remove_file(&self.root_key_out);
                }
                return Err(error);
            }
        };
        out.report(&founded).await?;
        go_online(site, global, out).await
    }

    /// `None` if the interrupted founding turns out to have succeeded; an empty profile if it has not.
    async fn take_up(&self, site: Site, global: &Global) -> Result<Option<Site>, CliError> {
        let (session, profile, lock) = site.start(global.timeout)?;
        let result = session.wait_synced(global.timeout).await;
        session.close().await;
        drop(lock);
        match result {
            Ok(()) => {
                profile.mark_finished()?;
                Ok(None)
            }
            Err(CliError::Expelled) => {
                profile.wipe(&profile.lock()?)?;
                match prepare(global, Way::Found)? {
                    Ground::Fresh(site) => Ok(Some(site)),
                    Ground::Interrupted(..) => Err(CliError::JoinInterrupted),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn founded(
        &self,
        org: OrgId,
        user: mortise_protocol::identity::UserId,
        device: mortise_protocol::identity::DeviceId,
    ) -> Report {
        Report::OrgCreated {
            org: org.to_string(),
            user: user.to_string(),
            device: device.to_string(),
            name: self.name.clone(),
            suite: format!("0x{:04X}", self.suite),
            root_key_file: self.root_key_out.display().to_string(),
        }
    }
}
