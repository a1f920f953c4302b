//! One row per error: the exit code, and what to do next.

use mortise_protocol::identity::LinkError;
use mortise_protocol::wire::Refusal;

use super::CliError;
use crate::exit::Exit;

/// The row of an error.
#[rustfmt::skip]
pub(super) fn row(error: &CliError) -> (Exit, &'static str) {
    use CliError as E;
    match error {
        E::Usage { .. } => (Exit::Usage, "see `mortise help` and the examples in each command's --help"),

        E::NoProfile { .. } => (Exit::Profile,
            "join with `mortise join LINK`, found with `mortise org create`, or name another --profile"),
        E::ProfileExists { .. } => (Exit::Profile, "use it as it is, or name another directory with --profile"),
        E::ProfileUnfinished { .. } => (Exit::Profile,
            "run `mortise join` (or `mortise org create`) with the same link again"),
        E::ProfileLocked { .. } => (Exit::Profile, "wait for it to end, or stop it; then try again"),
        E::OtherVersion { .. } => (Exit::Profile,
            "use the mortise that wrote it; or revoke this device from another one and join again with a fresh invitation"),
        E::File { .. } => (Exit::Profile, "check that the path exists and that you may use it"),
        E::FileExists { .. } => (Exit::Profile,
            "name another file, or move that one away; the key of a founding that was interrupted is worth nothing"),

        E::NoPassphrase => (Exit::Passphrase, "give --passphrase-file FILE, or set MORTISE_PASSPHRASE_FILE"),
        E::EmptyPassphrase => (Exit::Passphrase, "choose a passphrase of several words"),
        E::PassphraseMismatch => (Exit::Passphrase, "type the same passphrase twice"),
        E::WrongPassphrase => (Exit::Passphrase,
            "try again; nobody can reset it: without it, join again with a fresh invitation"),

        E::Corrupt { .. } => (Exit::Corrupt,
            "keep the directory for examination, revoke this device from another one and join again with a fresh invitation"),
        E::Disk { .. } => (
            Exit::Disk,
            "check the disk and run the command again: what was acknowledged is kept, what was not may be missing",
        ),
        E::DiskFull => (Exit::DiskFull, "free some space and run the command again"),

        E::Unreachable { .. } => (Exit::Unreachable,
            "check the network and that the relay runs, then run the command again"),
        E::Fingerprint(_) => (Exit::Fingerprint,
            "do not go on: ask the relay's operator, over another channel, which key it has"),
        E::Distrusted { .. } => (Exit::Distrusted,
            "do not go on: nothing more is sent to it; compare `mortise roster verify` with colleagues, and tell the relay's operator"),
        E::NotHosted => (Exit::NotHosted,
            "ask the relay's operator whether it is the right relay and its data are whole; nothing that is stored here is lost"),

        E::Sealed { .. } => (Exit::Sealed,
            "nothing needs doing: each finishes by itself when one of its members comes online, and nothing can be sent there before"),
        E::Expelled => (Exit::NotAdmitted,
            "ask an administrator for a fresh invitation and join with another --profile; the local history can still be read"),
        E::JoinInterrupted => (Exit::NotAdmitted,
            "run `mortise join` (or `mortise org create`) with the same link again"),

        E::Link(LinkError::Version) => (Exit::Link, "update mortise"),
        E::Link(_) => (Exit::Link, "copy the whole link, on one line, from where you got it"),
        E::PinMissing => (Exit::Link, "give --pin PIN; whoever invited you knows it"),
        E::WrongPin => (Exit::Link,
            "nothing is used up: try again with the same link, and ask for the PIN again if need be"),
        E::LinkRefused { .. } => (Exit::Link, "ask whoever gave it to you for a fresh one"),

        E::RootKey { .. } => (Exit::RootKey, "take the file that `mortise org create` wrote, or its other copy"),
        E::Certificate(_) => (Exit::Certificate,
            "do not rely on it: get it again from who made it, and check the fingerprint over another channel"),
        E::Stale(_) => (Exit::Stale,
            "nothing was sent: ask an owner or an administrator to come online, or to change `mortise policy set --staleness`"),

        E::Unknown { what: "group", .. } => (Exit::Unknown, "see `mortise group list`"),
        E::Unknown { what: "device", .. } => (Exit::Unknown, "see `mortise devices`"),
        E::Unknown { .. } => (Exit::Unknown, "see `mortise users`"),
        E::Ambiguous { .. } => (Exit::Unknown, "use the id, or enough of it"),

        E::NotAllowed(_) => (Exit::NotAllowed,
            "ask somebody who may: an owner, an administrator, or an admin of the group"),
        E::NotNow { advice, .. } => (Exit::NotAllowed, advice),
        E::TooLarge(_) => (Exit::TooLarge, "send less at a time"),

        E::Refused(Refusal::Storage) => (Exit::Refused,
            "the relay's operator must free some space; nothing was lost, try again then"),
        E::Refused(Refusal::Clock { .. }) => (Exit::Refused, "set this machine's clock"),
        E::Refused(_) => (Exit::Refused, "try again; if it stays, tell the relay's operator"),
        E::TimedOut { .. } => (Exit::TimedOut, "try again, with a larger --timeout if the network is slow"),
        E::Queued { cause, .. } => queued(cause),

        E::Daemon { .. } => (Exit::Daemon,
            "see whether it happened before you repeat it; start `mortise listen` again"),
        E::OutputGone => (Exit::Ok, ""),
        E::Internal(_) => (Exit::Internal, "please report this"),
    }
}

/// What is queued goes by itself, unless somebody has to put something right first.
#[rustfmt::skip]
fn queued(cause: &CliError) -> (Exit, &'static str) {
    match cause {
        CliError::Fingerprint(_) | CliError::NotHosted => row(cause),
        CliError::Refused(Refusal::Storage) => (Exit::Queued,
            "do not repeat it: once the relay's operator has freed some space, the next command, or `mortise listen`, delivers it"),
        _ => (Exit::Queued, "do not repeat it: the next command, or `mortise listen`, delivers it"),
    }
}
