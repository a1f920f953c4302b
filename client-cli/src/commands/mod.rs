//! The command line: one file per verb, each with its arguments, its help and what it does.
//!
//! A verb works on a [`Context`], and cannot tell whether it runs in its own process or inside `mortise listen`.

mod certificate;
mod context;
mod devices;
mod exits;
mod group;
mod invite;
mod join;
mod listen;
mod offboard;
mod onboard;
mod order;
mod org;
mod plan;
mod policy;
mod profile;
mod read;
mod role;
mod roster;
mod send;
mod suspend;
mod users;
mod values;
mod verify;
mod whoami;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, FromArgMatches as _, Parser, Subcommand};

pub(crate) use self::context::read_process_stdin;
pub use self::context::{Context, Stdin};
pub use self::exits::command;
pub(crate) use self::listen::{Watch, unasked};
use crate::error::CliError;
use crate::exit::Exit;
use crate::profile::default_dir;

const FIRST_STEPS: &str = "\
Examples:
  mortise join --link-file invitation.txt
  mortise group list
  mortise send team 'Hello'
  mortise read team
  mortise listen";

/// End-to-end encrypted group messaging for organisations that run their own server.
#[derive(Debug, Parser)]
#[command(
    name = "mortise",
    version,
    max_term_width = 100,
    after_long_help = format!("{FIRST_STEPS}\n\n{}", Exit::table()),
    after_help = "See `mortise --help` for the exit codes, and `mortise COMMAND --help` for examples.",
    disable_help_subcommand = false
)]
pub struct Cli {
    /// Options that every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// What clap says of it; help and version too.
    pub fn read(args: impl IntoIterator<Item = String>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// Options that every verb takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The directory of this device's keys and messages [default: mortise/default in $XDG_DATA_HOME]
    #[arg(
        long,
        global = true,
        env = "MORTISE_PROFILE",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub profile: Option<PathBuf>,
    /// A file that holds the profile's passphrase; without it, the passphrase is asked for
    #[arg(
        long,
        global = true,
        env = "MORTISE_PASSPHRASE_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub passphrase_file: Option<PathBuf>,
    /// Print results as JSON, one object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for the relay, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = values::seconds)]
    pub timeout: Duration,
    /// Do not connect: show what is stored here, queue what is to be sent
    #[arg(long, global = true)]
    pub offline: bool,
}

impl Global {
    /// The profile that is meant.
    ///
    /// # Errors
    /// [`CliError::Usage`] on a machine without a home directory.
    pub fn profile(&self) -> Result<crate::profile::Profile, CliError> {
        match &self.profile {
            Some(dir) => Ok(crate::profile::Profile::at(dir)),
            None => Ok(crate::profile::Profile::at(default_dir()?)),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Found an organisation, or recover one whose owners are gone
    Org(org::Org),
    /// Join an organisation by an invitation link, as a new device
    Join(join::Join),
    /// Invite somebody, again if need be, or a further device of your own
    Invite(invite::Invite),
    /// List the organisation's users
    Users(users::Users),
    /// List devices, add one of your own, or revoke one
    Devices(devices::Devices),
    /// Show or verify the organisation's signed log
    Roster(roster::Roster),
    /// Change a user's role
    Role(role::Role),
    /// Change your name, or another user's, as colleagues see it
    Profile(profile::Profile),
    /// Show or change the organisation's policy
    Policy(policy::Policy),
    /// Create groups, change, repair and list them
    Group(group::Group),
    /// Send a message to a group
    Send(send::Send),
    /// Show a group's messages
    Read(read::Read),
    /// Stay online: receive, rotate keys, serve the other commands
    Listen(listen::Listen),
    /// Remove a user from the organisation and from every group
    Offboard(offboard::Offboard),
    /// Shut a user out of the organisation and of every group, until they are invited again
    Suspend(suspend::Suspend),
    /// Prove, to somebody who was not there, that a user was removed
    Certificate(certificate::CertificateArgs),
    /// Show who this device is
    Whoami(whoami::Whoami),
    /// Show the safety number to compare with another user
    Verify(verify::Verify),
}

impl Verb {
    /// Whether it works without a profile: it makes one, or needs none.
    #[must_use]
    pub fn needs_no_profile(&self) -> bool {
        match self {
            Self::Org(_) | Self::Join(_) => true,
            Self::Certificate(verb) => verb.needs_no_profile(),
            _ => false,
        }
    }

    /// The command line for a daemon, whose working directory is another one.
    #[must_use]
    pub fn elsewhere(&self, args: Vec<String>) -> Vec<String> {
        match self {
            Self::Certificate(verb) => verb.elsewhere(args),
            _ => args,
        }
    }

    /// Whether it is the daemon.
    #[must_use]
    pub fn is_listen(&self) -> bool {
        matches!(self, Self::Listen(_))
    }

    /// Whether it needs what is on stdin.
    #[must_use]
    pub fn reads_stdin(&self) -> bool {
        matches!(self, Self::Send(send) if send.reads_stdin())
    }

    /// Whether it shows only what is stored here, whatever the relay has.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Whoami(_))
    }

    /// Whether it stays until what it set off is done.
    #[must_use]
    pub fn stays(&self) -> bool {
        match self {
            Self::Whoami(_) => false,
            Self::Offboard(offboard) => !offboard.leaves_at_once(),
            Self::Suspend(suspend) => !suspend.leaves_at_once(),
            Self::Devices(devices) => !devices.leaves_at_once(),
            _ => true,
        }
    }

    /// Does it, on a profile that exists.
    ///
    /// # Errors
    /// What ended it; the error's exit code is the process's.
    pub async fn run(self, cx: &Context) -> Result<(), CliError> {
        match self {
            Self::Invite(verb) => verb.run(cx).await,
            Self::Users(verb) => verb.run(cx).await,
            Self::Devices(verb) => verb.run(cx).await,
            Self::Roster(verb) => verb.run(cx).await,
            Self::Role(verb) => verb.run(cx).await,
            Self::Profile(verb) => verb.run(cx).await,
            Self::Policy(verb) => verb.run(cx).await,
            Self::Group(verb) => verb.run(cx).await,
            Self::Send(verb) => verb.run(cx).await,
            Self::Read(verb) => verb.run(cx).await,
            Self::Offboard(verb) => verb.run(cx).await,
            Self::Suspend(verb) => verb.run(cx).await,
            Self::Certificate(verb) => verb.run(cx).await,
            Self::Whoami(verb) => verb.run(cx).await,
            Self::Verify(verb) => verb.run(cx).await,
            Self::Org(_) | Self::Join(_) | Self::Listen(_) => Err(CliError::Usage {
                what: "this command does not work through `mortise listen`".into(),
            }),
        }
    }

    /// Makes a profile, or does what needs none.
    ///
    /// # Errors
    /// As [`Verb::run`].
    pub async fn onboard(
        self,
        global: &Global,
        out: &crate::output::Printer,
    ) -> Result<(), CliError> {
        match self {
            Self::Org(verb) => verb.run(global, out).await,
            Self::Join(verb) => verb.run(global, out).await,
            Self::Certificate(verb) => verb.verify(out).await,
            _ => Err(CliError::Internal("this verb needs a profile".into())),
        }
    }
}
