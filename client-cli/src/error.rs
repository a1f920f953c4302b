//! Everything that can end a command: what happened and why, what to do next, and the exit code.
//!
//! Text of an error may hold what the user typed and the names of their colleagues; it goes to the user's
//! own terminal and nowhere else.

use std::path::{Path, PathBuf};

use mortise_protocol::engine::CommandError;
use mortise_protocol::identity::LinkError;
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::{CloseCode, Refusal};

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
    /// It reads, and the relay or the roster does not take it.
    #[error("the link cannot be used: {reason}")]
    LinkRefused {
        /// Why.
        reason: String,
    },

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
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::NoProfile { .. }
            | Self::ProfileExists { .. }
            | Self::ProfileUnfinished { .. }
            | Self::ProfileLocked { .. }
            | Self::FileExists { .. }
            | Self::File { .. } => Exit::Profile,
            Self::NoPassphrase
            | Self::EmptyPassphrase
            | Self::PassphraseMismatch
            | Self::WrongPassphrase => Exit::Passphrase,
            Self::Corrupt { .. } => Exit::Corrupt,
            Self::DiskFull => Exit::DiskFull,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Fingerprint(_) => Exit::Fingerprint,
            Self::Distrusted { .. } => Exit::Distrusted,
            Self::Sealed { .. } => Exit::Sealed,
            Self::Expelled | Self::JoinInterrupted => Exit::NotAdmitted,
            Self::Link(_) | Self::LinkRefused { .. } => Exit::Link,
            Self::Unknown { .. } | Self::Ambiguous { .. } => Exit::Unknown,
            Self::NotAllowed(_) | Self::NotNow { .. } => Exit::NotAllowed,
            Self::TooLarge(_) => Exit::TooLarge,
            Self::Refused(_) => Exit::Refused,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::Queued { cause, .. } => cause.exit(),
            Self::Daemon { .. } => Exit::Daemon,
            Self::OutputGone => Exit::Ok,
            Self::Internal(_) => Exit::Internal,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "see `mortise help` and the examples in each command's --help",
            Self::NoProfile { .. } => {
                "join with `mortise join LINK`, found with `mortise org create`, or name another --profile"
            }
            Self::ProfileExists { .. } => {
                "use it as it is, or name another directory with --profile"
            }
            Self::ProfileUnfinished { .. } => {
                "run `mortise join` (or `mortise org create`) with the same link again"
            }
            Self::ProfileLocked { .. } => "wait for it to end, or stop it; then try again",
            Self::File { .. } => "check that the path exists and that you may use it",
            Self::FileExists { .. } => {
                "name another file, or move that one away; the key of a founding that was interrupted is worth nothing"
            }
            Self::NoPassphrase => "give --passphrase-file FILE, or set MORTISE_PASSPHRASE_FILE",
            Self::EmptyPassphrase => "choose a passphrase of several words",
            Self::PassphraseMismatch => "type the same passphrase twice",
            Self::WrongPassphrase => {
                "try again; nobody can reset it: without it, join again with a fresh invitation"
            }
            Self::Corrupt { .. } => {
                "keep the directory for examination, revoke this device from another one and join again with a fresh invitation"
            }
            Self::DiskFull => "free some space and run the command again",
            Self::Unreachable { .. } => {
                "check the network and that the relay runs, then run the command again"
            }
            Self::Fingerprint(_) => {
                "do not go on: ask the relay's operator, over another channel, which key it has"
            }
            Self::Distrusted { .. } => {
                "do not go on: nothing more is sent to it; compare `mortise roster verify` with colleagues, and tell the relay's operator"
            }
            Self::Sealed { .. } => {
                "nothing needs doing: each finishes by itself when one of its members comes online, and nothing can be sent there before"
            }
            Self::Expelled => {
                "ask an administrator for a fresh invitation and join with another --profile; the local history can still be read"
            }
            Self::JoinInterrupted => {
                "run `mortise join` (or `mortise org create`) with the same link again"
            }
            Self::Link(LinkError::Version) => "update mortise",
            Self::Link(_) => "copy the whole link, on one line, from where you got it",
            Self::LinkRefused { .. } => "ask whoever gave it to you for a fresh one",
            Self::Unknown { what: "group", .. } => "see `mortise group list`",
            Self::Unknown { what: "device", .. } => "see `mortise devices`",
            Self::Unknown { .. } => "see `mortise users`",
            Self::Ambiguous { .. } => "use the id, or enough of it",
            Self::NotAllowed(_) => {
                "ask somebody who may: an owner, an administrator, or an admin of the group"
            }
            Self::NotNow { advice, .. } => advice,
            Self::TooLarge(_) => "send less at a time",
            Self::Refused(Refusal::Storage) => {
                "the relay's operator must free some space; nothing was lost, try again then"
            }
            Self::Refused(Refusal::Clock { .. }) => "set this machine's clock",
            Self::Refused(_) => "try again; if it stays, tell the relay's operator",
            Self::TimedOut { .. } => "try again, with a larger --timeout if the network is slow",
            Self::Queued { cause, .. } if matches!(**cause, Self::Refused(Refusal::Storage)) => {
                "do not repeat it: once the relay's operator has freed some space, the next command, or `mortise listen`, delivers it"
            }
            Self::Queued { .. } => {
                "do not repeat it: the next command, or `mortise listen`, delivers it"
            }
            Self::Daemon { .. } => {
                "see whether it happened before you repeat it; start `mortise listen` again"
            }
            Self::OutputGone => "",
            Self::Internal(_) => "please report this",
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

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::DiskFull,
            StoreError::Corrupt { reason } => Self::Corrupt {
                file: "database",
                reason: reason.into(),
            },
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<TransportError> for CliError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::WrongFingerprint { .. } => Self::Fingerprint(error),
            TransportError::Closed { code } if code == CloseCode::REMOVED => Self::Expelled,
            other => Self::Unreachable {
                reason: other.to_string(),
            },
        }
    }
}

impl From<Refusal> for CliError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge { .. } => Self::TooLarge(format!("the relay refused: {refusal}")),
            Refusal::NotAdmitted => Self::Expelled,
            Refusal::Forbidden => Self::NotAllowed(refusal.to_string()),
            Refusal::ClaimToken => Self::LinkRefused {
                reason: refusal.to_string(),
            },
            // The roster's own numbers: its rules on roles and users, and on invitations.
            Refusal::RosterRule { code } if (0x0240..0x0260).contains(&code) => Self::NotAllowed(
                format!("the organisation's rules do not allow that ({refusal})"),
            ),
            Refusal::RosterRule { code } if (0x0270..0x0280).contains(&code) => Self::LinkRefused {
                reason: invitation_rule(code).into(),
            },
            other => Self::Refused(other),
        }
    }
}

/// What `RosterError::code` says about an invitation.
fn invitation_rule(code: u16) -> &'static str {
    match code {
        0x0270 => "the organisation does not know the invitation",
        0x0271 => "the invitation exists already",
        0x0272 => "it was used already",
        0x0273 => "it was withdrawn",
        0x0274 => "it is void, because whoever issued it may not invite any more",
        0x0275 => "it has expired",
        _ => "it does not cover this",
    }
}

impl From<CommandError> for CliError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::UnknownGroup => Self::Unknown {
                what: "group",
                given: "that was meant".into(),
            },
            CommandError::UnknownUser => Self::Unknown {
                what: "user",
                given: "that was meant".into(),
            },
            CommandError::NoKeyPackages { .. } => Self::NotNow {
                what: error.to_string(),
                advice: "once they have joined and been online, add them with `mortise group add`",
            },
            CommandError::NoDirectoryKey => Self::NotNow {
                what: error.to_string(),
                advice: "try again when a colleague has been online",
            },
            CommandError::NotAMember
            | CommandError::ContinuedWithout
            | CommandError::Stopped { .. } => Self::NotNow {
                what: error.to_string(),
                advice: "`mortise read` still shows its history; a group admin can create another group",
            },
            CommandError::TooLong { .. } => Self::TooLarge(error.to_string()),
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::Expelled => Self::Expelled,
            other => Self::NotAllowed(other.to_string()),
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
        assert_eq!(exit(Refusal::NotAdmitted), Exit::NotAdmitted);
        assert_eq!(exit(Refusal::ClaimToken), Exit::Link);
        assert_eq!(exit(Refusal::TooLarge { limit: 1 }), Exit::TooLarge);
        assert_eq!(exit(Refusal::RosterRule { code: 0x0275 }), Exit::Link);
        assert_eq!(exit(Refusal::RosterRule { code: 0x0240 }), Exit::NotAllowed);
        assert_eq!(exit(Refusal::RosterRule { code: 0x0220 }), Exit::Refused);
    }

    #[test]
    fn a_queued_error_keeps_its_cause_s_code() {
        let error = CliError::Queued {
            what: "the message",
            cause: Box::new(CliError::Unreachable { reason: "x".into() }),
        };
        assert_eq!(error.exit(), Exit::Unreachable);
        assert!(error.is_queued());
    }

    #[test]
    fn a_full_disk_is_told_from_other_file_errors() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(CliError::file("write", "x")(full).exit(), Exit::DiskFull);
        let other = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(CliError::file("write", "x")(other).exit(), Exit::Profile);
    }
}
