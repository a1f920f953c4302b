//! Everything that can end a command: what happened and why, what to do next, and the exit code.
//!
//! Text of an error may hold what the user typed and the names of their colleagues; it goes to the user's
//! own terminal and nowhere else.

mod convert;
mod table;

use std::path::{Path, PathBuf};

use mortise_protocol::identity::LinkError;
use mortise_protocol::wire::Refusal;

use crate::exit::Exit;
use crate::transport::TransportError;

/// Why a command did not do what was asked.
///
/// `Display` says what happened and why; [`CliError::advice`] says what to do; [`CliError::exit`] is the code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The command line parses, and makes no sense.
    #[error("{what}")]
    Usage {
        /// What is wrong with it.
        what: String,
    },

    /// Nothing there.
    #[error("there is no profile in {}", .dir.display())]
    NoProfile {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Founding or joining needs a fresh one.
    #[error("there is a profile in {} already", .dir.display())]
    ProfileExists {
        /// Where.
        dir: PathBuf,
    },
    /// Founding or joining began there and sent nothing yet.
    #[error("the profile in {} was begun and never finished", .dir.display())]
    ProfileUnfinished {
        /// Where.
        dir: PathBuf,
    },
    /// Somebody else holds the lock.
    #[error("another mortise is using this profile ({})", .dir.display())]
    ProfileLocked {
        /// Which.
        dir: PathBuf,
    },
    /// Its rows have a layout that this program does not read.
    #[error("the profile is of another version of mortise: {reason}")]
    OtherVersion {
        /// Which layouts.
        reason: String,
    },
    /// A file of the user's or of the profile cannot be read or written.
    #[error("cannot {doing} {}: {source}", .path.display())]
    File {
        /// "read", "write", …
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },

    /// What is to be written must not replace anything.
    #[error("{} exists already", .path.display())]
    FileExists {
        /// Which.
        path: PathBuf,
    },

    /// None was given and there is no terminal to ask on.
    #[error("no passphrase was given, and there is no terminal to ask for one")]
    NoPassphrase,
    /// An empty one.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The two prompts differ.
    #[error("the two passphrases differ")]
    PassphraseMismatch,
    /// Not the profile's.
    #[error("the passphrase is wrong")]
    WrongPassphrase,

    /// A file of the profile is damaged.
    #[error("the profile's {file} is damaged: {reason}")]
    Corrupt {
        /// Which file.
        file: &'static str,
        /// How it shows.
        reason: String,
    },
    /// No room.
    #[error("the disk is full; nothing was changed")]
    DiskFull,
    /// It does not write what it is given.
    #[error("this machine's disk fails: {reason}")]
    Disk {
        /// What the database was told.
        reason: String,
    },

    /// No answer.
    #[error("the relay cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// Another server, or somebody in between.
    #[error("{0}")]
    Fingerprint(TransportError),

    /// It shows what no honest relay shows.
    #[error("{reason}")]
    Distrusted {
        /// What convicts it.
        reason: String,
    },

    /// After an order.
    #[error(
        "{sealed} of {groups} groups are still sealed: none of their members has been online since the order"
    )]
    Sealed {
        /// How many are not done.
        sealed: usize,
        /// Of how many.
        groups: usize,
    },

    /// Removed, suspended or revoked.
    #[error(
        "the organisation does not admit this device any more: it was removed, suspended or revoked"
    )]
    Expelled,
    /// Founding or joining broke off at the worst moment, and the relay never saw it.
    #[error("the relay does not know this device: joining was interrupted before it arrived")]
    JoinInterrupted,

    /// It does not read.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// The link is one with a PIN.
    #[error("the link needs a PIN, none was given, and there is no terminal to ask for one")]
    PinMissing,
    /// It is not that of the link; nothing is used up.
    #[error("the PIN is wrong, or the link is damaged")]
    WrongPin,
    /// It reads, and the relay or the roster does not take it.
    #[error("the link cannot be used: {reason}")]
    LinkRefused {
        /// Why.
        reason: String,
    },

    /// The file does not hold this organisation's root key.
    #[error("the root key in {} cannot be used: {reason}", .path.display())]
    RootKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },

    /// It was changed, or never held.
    #[error("the certificate does not hold: {0}")]
    Certificate(#[from] mortise_protocol::certificate::CertificateError),

    /// No administrator has confirmed the roster for too long, and the policy forbids to send.
    #[error("{0}")]
    Stale(String),

    /// Nothing of that name or id.
    #[error("there is no {what} \"{given}\"")]
    Unknown {
        /// "user", "group", "device".
        what: &'static str,
        /// What was typed.
        given: String,
    },
    /// Several.
    #[error("\"{given}\" is more than one {what}: {}", .candidates.join(", "))]
    Ambiguous {
        /// "user", "group", "device".
        what: &'static str,
        /// What was typed.
        given: String,
        /// Name and short id of each.
        candidates: Vec<String>,
    },

    /// Roles, group admins, or the state of things.
    #[error("{0}")]
    NotAllowed(String),
    /// Everybody may, and it is not possible as things stand; the text says what to do.
    #[error("{what}")]
    NotNow {
        /// What stands in the way.
        what: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// Over a limit.
    #[error("{0}")]
    TooLarge(String),
    /// By the relay.
    #[error("the relay refused: {0}")]
    Refused(Refusal),
    /// It is another relay, or it has lost the organisation.
    #[error("the relay does not host this organisation")]
    NotHosted,
    /// Time is up.
    #[error("{what} was not done within {} s", .after_ms / 1000)]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long, ms.
        after_ms: u64,
    },
    /// What was asked for is stored on this device, and could not be delivered yet.
    #[error("{cause}; {what} is stored on this device and not sent yet")]
    Queued {
        /// "the message", …
        what: &'static str,
        /// Why not.
        cause: Box<CliError>,
    },

    /// The daemon died or hangs.
    #[error("the `mortise listen` that holds this profile {reason}")]
    Daemon {
        /// What it did.
        reason: String,
    },
    /// Whoever reads our output has gone.
    #[error("nobody reads the output any more")]
    OutputGone,
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl CliError {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        table::row(self).0
    }

    /// What to do next.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        table::row(self).1
    }

    /// Why what was asked for is queued.
    #[must_use]
    pub fn cause(&self) -> Option<&Self> {
        match self {
            Self::Queued { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// Whether what was asked for is stored and will be delivered later.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        matches!(self, Self::Queued { .. })
    }

    /// For `map_err` on file operations: a full disk has its own error.
    pub(crate) fn file(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::File {
                doing,
                path: path.as_ref().into(),
                source,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_the_exit_code_of_its_kind() {
        let exit = |refusal: Refusal| CliError::from(refusal).exit();
        assert_eq!(exit(Refusal::Storage), Exit::Refused);
        assert_eq!(exit(Refusal::UnknownOrg), Exit::NotHosted);
        assert_eq!(exit(Refusal::NotAdmitted), Exit::NotAdmitted);
        assert_eq!(exit(Refusal::ClaimToken), Exit::Link);
        assert_eq!(exit(Refusal::TooLarge { limit: 1 }), Exit::TooLarge);
        assert_eq!(exit(Refusal::RosterRule { code: 0x0275 }), Exit::Link);
        assert_eq!(exit(Refusal::RosterRule { code: 0x0240 }), Exit::NotAllowed);
        assert_eq!(exit(Refusal::RosterRule { code: 0x0220 }), Exit::Refused);
    }

    #[test]
    fn what_is_queued_has_its_own_code_unless_something_is_wrong() {
        let queued = |cause| CliError::Queued {
            what: "the message",
            cause: Box::new(cause),
        };
        let unreachable = queued(CliError::Unreachable { reason: "x".into() });
        assert_eq!(unreachable.exit(), Exit::Queued);
        assert!(unreachable.is_queued());
        assert_eq!(
            unreachable.cause().map(CliError::exit),
            Some(Exit::Unreachable)
        );
        assert_eq!(queued(CliError::NotHosted).exit(), Exit::NotHosted);
        let full = queued(CliError::Refused(Refusal::Storage));
        assert_eq!(full.exit(), Exit::Queued);
        assert!(full.advice().contains("operator"));
    }

    #[test]
    fn a_full_disk_is_told_from_other_file_errors() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(CliError::file("write", "x")(full).exit(), Exit::DiskFull);
        let other = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(CliError::file("write", "x")(other).exit(), Exit::Profile);
    }
}
