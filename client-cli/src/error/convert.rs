//! What the errors of the other layers mean to whoever has typed a command.

use mortise_protocol::engine::CommandError;
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::{CloseCode, Refusal};

use super::CliError;
use crate::transport::TransportError;

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::DiskFull,
            StoreError::Corrupt { reason } => Self::Corrupt {
                file: "database",
                reason: reason.into(),
            },
            StoreError::Backend { reason } => Self::Disk { reason },
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
            Refusal::UnknownOrg => Self::NotHosted,
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
        let not_now = |advice| Self::NotNow {
            what: error.to_string(),
            advice,
        };
        match error {
            CommandError::UnknownGroup => unknown("group"),
            CommandError::UnknownUser => unknown("user"),
            CommandError::NoKeyPackages { .. } => {
                not_now("once they have joined and been online, add them with `mortise group add`")
            }
            CommandError::NoDirectoryKey => not_now("try again when a colleague has been online"),
            CommandError::NotAMember | CommandError::GroupClosed => not_now(
                "`mortise read` still shows its history; a new group is `mortise group create`",
            ),
            CommandError::ContinuedWithout => not_now(
                "ask one of its members for `mortise group add`; `mortise read` shows what was said before",
            ),
            CommandError::Stopped { .. } => not_now(
                "`mortise read` still shows its history; a group admin runs `mortise group restart`",
            ),
            CommandError::Leaving => not_now(
                "it is over when another member comes online; a group admin can add you again",
            ),
            CommandError::PinRequired => {
                not_now("leave --pin away, or change it with `mortise policy set --pin optional`")
            }
            CommandError::LastAdmin => not_now("first `mortise group admin add GROUP USER`"),
            CommandError::NotInGroup => not_now("first `mortise group add GROUP USER`"),
            CommandError::HasLeft { .. } => not_now("ask an admin of the group to add them"),
            CommandError::LeaveInstead => not_now("`mortise group leave GROUP`"),
            CommandError::TooLong { .. } => Self::TooLarge(error.to_string()),
            CommandError::Stale { .. } => Self::Stale(error.to_string()),
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::Expelled => Self::Expelled,
            other => Self::NotAllowed(other.to_string()),
        }
    }
}

fn unknown(what: &'static str) -> CliError {
    CliError::Unknown {
        what,
        given: "that was meant".into(),
    }
}
