//! `mortise join`.

use std::path::{Path, PathBuf};

use clap::Args;
use mortise_protocol::engine::Admission;
use mortise_protocol::identity::{JoinLink, Pin};
use zeroize::Zeroizing;

use super::context::read_process_stdin;
use super::onboard::{Ground, Site, prepare};
use super::{Global, values};
use crate::error::CliError;
use crate::machine::system_rng;
use crate::output::{Printer, Report};
use crate::passphrase;
use crate::profile::{Way, read_limited};

/// A link is below 1 KiB.
const MAX_LINK_BYTES: u64 = 64 * 1024;

/// Join an organisation by an invitation link, as a new device
#[derive(Debug, Args)]
#[command(after_help = "\
Makes this device's keys and a profile, protected by a passphrase that you choose. A link works
once. If it needs a PIN, which whoever invited you tells you, it is asked for on the terminal; a
wrong one uses nothing up. Other users of this machine can see a link on the command line: prefer
--link-file or -. If this is interrupted, run it again with the same link.

Examples:
  mortise join 'mortise://join/AbC…'
  mortise join --link-file invitation.txt --passphrase-file pass.txt
  mortise join --link-file invitation.txt --pin ABCD-2345
  mortise --profile ./bob join - < invitation.txt")]
pub struct Join {
    /// The link, or - for what is on stdin
    #[arg(required_unless_present = "link_file", conflicts_with = "link_file")]
    link: Option<String>,
    /// A file that holds the link
    #[arg(long, value_name = "FILE")]
    link_file: Option<PathBuf>,
    /// The PIN that goes with the link, if there is one
    #[arg(long, value_name = "PIN", value_parser = values::pin)]
    pin: Option<Pin>,
}

impl Join {
    pub(super) async fn run(self, global: &Global, out: &Printer) -> Result<(), CliError> {
        let text = read_link(self.link.as_deref(), self.link_file.as_deref()).await?;
        let link = JoinLink::parse(&text)?;
        let pin = pin(&link, self.pin, out).await?;
        let (site, mut admission) = match prepare(global, Way::Join)? {
            Ground::Fresh(site) => {
                let mut rng = system_rng();
                let admission = Admission::join_with_pin(link, pin.as_ref(), &mut rng);
                (site, admission)
            }
            Ground::Interrupted(site, identity) => {
                if (identity.org, identity.user) != (link.org, link.user) {
                    return Err(CliError::ProfileUnfinished {
                        dir: site.profile.dir().into(),
                    });
                }
                out.note("going on with a join that was interrupted").await;
                let admission = Admission::resume_with_pin(*identity, link, pin.as_ref());
                (site, admission)
            }
        };
        let site = site.admit(&mut admission, global.timeout).await?;
        let identity = admission.identity();
        let report = Report::Joined {
            org: identity.org.to_string(),
            user: identity.user.to_string(),
            device: identity.device.to_string(),
        };
        out.report(&report).await?;
        go_online(site, global, out).await
    }
}

/// The PIN, if the link needs one; what it does not need is not used.
async fn pin(link: &JoinLink, given: Option<Pin>, out: &Printer) -> Result<Option<Pin>, CliError> {
    match (link.needs_pin, given) {
        (true, Some(pin)) => Ok(Some(pin)),
        (true, None) => {
            let typed = passphrase::ask("PIN of the invitation: ")?.ok_or(CliError::PinMissing)?;
            Pin::parse(&typed).map(Some).map_err(|_| CliError::WrongPin)
        }
        (false, Some(_)) => {
            out.note("this link takes no PIN; the one given is not used")
                .await;
            Ok(None)
        }
        (false, None) => Ok(None),
    }
}

/// Catches up once, so that colleagues can add the device to groups.
///
/// # Errors
/// What waiting does not cure; the device is admitted all the same.
pub(super) async fn go_online(site: Site, global: &Global, out: &Printer) -> Result<(), CliError> {
    let (session, _profile, _lock) = site.start(global.timeout)?;
    let synced = session.wait_synced(global.timeout).await;
    session.close().await;
    match synced {
        Err(error @ (CliError::Unreachable { .. } | CliError::TimedOut { .. })) => {
            let text = format!("admitted, and not online yet ({error}); the next command goes on");
            out.note(&text).await;
            Ok(())
        }
        other => other,
    }
}

/// A link from the command line, a file, or stdin.
pub(super) async fn read_link(
    given: Option<&str>,
    file: Option<&Path>,
) -> Result<Zeroizing<String>, CliError> {
    if let Some(path) = file {
        let bytes = Zeroizing::new(read_limited(path, MAX_LINK_BYTES)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| CliError::Usage {
            what: format!("{} does not hold a link", path.display()),
        })?;
        return Ok(Zeroizing::new(text.trim().to_owned()));
    }
    match given {
        Some("-") | None => Ok(Zeroizing::new(
            read_process_stdin().await?.trim().to_owned(),
        )),
        Some(link) => Ok(Zeroizing::new(link.trim().to_owned())),
    }
}
