//! Why an entry is refused: one variant per rule.

use super::authority::{Operation, Role, Target};
use super::entry::{EntrySigner, Head};
use crate::identity::{DeviceId, GroupId, InvitationId, OrgId, PublicKey, UserId};

/// An entry that the roster does not take; the roster is unchanged.
///
/// All but [`Conflict`](Self::Conflict) and [`IssueTime`](Self::IssueTime) are the sender's fault for good.
/// Ids are fields, never text: what is printed here may be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RosterError {
    /// Longer than `MAX_ENTRY_BYTES` (REQ-026).
    #[error("the entry is too large: {bytes} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Of a version that this program does not know (REQ-011).
    #[error("the entry is of version {version}, which this program does not know")]
    WrongVersion {
        /// Its version.
        version: u8,
    },
    /// Not an entry, not canonical, or with trailing bytes (REQ-011).
    #[error("the entry is malformed")]
    Malformed(#[source] tls_codec::Error),
    /// An operation that has no meaning yet (REQ-011).
    #[error("the entry holds an operation of unknown type {op:#06x}")]
    UnknownOp {
        /// Its type.
        op: u16,
    },
    /// It changes nothing (REQ-026).
    #[error("the entry holds no operation")]
    NoOps,
    /// More than `MAX_OPS` (REQ-026).
    #[error("the entry holds too many operations: {ops}")]
    TooManyOps {
        /// How many.
        ops: usize,
    },
    /// Longer than `MAX_PROFILE_BYTES` (REQ-026).
    #[error("a sealed profile is too large: {bytes} bytes")]
    ProfileTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Of another organisation (REQ-011).
    #[error("the entry belongs to another organisation")]
    WrongOrg {
        /// The organisation that it names.
        org: OrgId,
    },
    /// It does not follow the head: sign again on top of it (REQ-015).
    #[error("the roster has moved on to entry {}", head.seq)]
    Conflict {
        /// Where the chain ends now.
        head: Head,
    },
    /// The relay's clock and the entry's time are too far apart (REQ-022).
    #[error("the entry's time {issued_at_ms} is too far from the clock's {now_ms}")]
    IssueTime {
        /// What the entry says.
        issued_at_ms: u64,
        /// What the clock says.
        now_ms: u64,
    },
    /// Not by the key that the signer has (REQ-011).
    #[error("the entry's signature does not verify")]
    BadSignature,
    /// The signer is no device of this roster (REQ-011).
    #[error("the signing device is unknown")]
    SignerUnknown {
        /// The device.
        device: DeviceId,
    },
    /// The signer is revoked, or its user gone, at this entry or within it (REQ-011).
    #[error("the signing device is no longer admitted")]
    SignerNotAdmitted {
        /// The device.
        device: DeviceId,
    },
    /// The first entry is not Genesis, owner, device, by the root key (REQ-024).
    #[error("the first entry is not a proper Genesis")]
    GenesisShape,
    /// The organisation's id is not the hash of the root key (REQ-010).
    #[error("the root key is not the one that the organisation's id names")]
    RootKeyMismatch {
        /// The organisation whose root key it is.
        org: OrgId,
    },
    /// Genesis again (REQ-024).
    #[error("Genesis comes first and once")]
    GenesisAgain,
    /// The root key signs Genesis and Recover, and nothing else (REQ-024, REQ-103).
    #[error("the root key signs Genesis and Recover only")]
    RootSignsGenesisOnly,
    /// Recover without its owner, device and directory key, or by another key than the root key (REQ-103).
    #[error("the entry is not a proper Recover")]
    RecoverShape,
    /// The role does not allow it (REQ-016).
    #[error("a user who is {actor} may not {}", operation.on(*target))]
    Forbidden {
        /// The actor's role.
        actor: Role,
        /// What was asked.
        operation: Operation,
        /// On whom.
        target: Target,
    },
    /// A device is admitted by an invitation, or by Genesis, and by nothing else (REQ-022).
    #[error("a device is added by an invitation only")]
    AddDeviceNeedsInvitation {
        /// Who signed.
        signer: EntrySigner,
    },
    /// No such user.
    #[error("the user is unknown")]
    UnknownUser {
        /// The user.
        user: UserId,
    },
    /// The id is taken, for ever.
    #[error("the user exists already")]
    UserExists {
        /// The user.
        user: UserId,
    },
    /// Removed users do not return under the same id.
    #[error("the user was removed")]
    UserRemoved {
        /// The user.
        user: UserId,
    },
    /// Suspended already (REQ-025).
    #[error("the user is suspended already")]
    AlreadySuspended {
        /// The user.
        user: UserId,
    },
    /// The organisation would be left without an owner who has a device (REQ-017).
    #[error("the last owner cannot be removed, suspended or demoted, nor lose the last device")]
    LastOwner {
        /// The owner.
        user: UserId,
    },
    /// An entry removes or suspends at most one user, so that an order has one subject (REQ-019).
    #[error("an entry removes or suspends one user at most")]
    OneUserPerOrder {
        /// The second user.
        user: UserId,
    },
    /// A successor who does not belong or is who goes, or none that the removal follows at once (REQ-391).
    #[error("the entry does not name a successor properly")]
    SuccessorShape {
        /// Whose.
        user: UserId,
    },
    /// The key was seen before, as whatever kind (REQ-014).
    #[error("the key was used before in this organisation")]
    KeyReused {
        /// The key.
        key: PublicKey,
    },
    /// One of the three proofs does not verify (REQ-013).
    #[error("possession of the device's keys is not proven")]
    PossessionNotProven {
        /// The device.
        device: DeviceId,
    },
    /// No such device.
    #[error("the device is unknown")]
    UnknownDevice {
        /// The device.
        device: DeviceId,
    },
    /// Revoked already.
    #[error("the device is revoked already")]
    DeviceRevoked {
        /// The device.
        device: DeviceId,
    },
    /// No such invitation (REQ-022).
    #[error("the invitation is unknown")]
    InvitationUnknown {
        /// The invitation.
        invitation: InvitationId,
    },
    /// The id is taken, for ever (REQ-022).
    #[error("the invitation exists already")]
    InvitationExists {
        /// The invitation.
        invitation: InvitationId,
    },
    /// Redeemed already (REQ-022).
    #[error("the invitation was used already")]
    InvitationUsed {
        /// The invitation.
        invitation: InvitationId,
    },
    /// Taken back (REQ-022).
    #[error("the invitation was cancelled")]
    InvitationCancelled {
        /// The invitation.
        invitation: InvitationId,
    },
    /// Voided by what became of its issuer or of whom it is for (REQ-023).
    #[error("the invitation was voided")]
    InvitationVoided {
        /// The invitation.
        invitation: InvitationId,
    },
    /// Too late by the entry's own time (REQ-022).
    #[error("the invitation has expired")]
    InvitationExpired {
        /// The invitation.
        invitation: InvitationId,
    },
    /// An invitation signs one AddDevice for its own user and nothing else (REQ-022).
    #[error("the invitation does not cover this entry")]
    InvitationScope {
        /// The invitation.
        invitation: InvitationId,
    },
    /// A version, suite or time limit that this program does not take (REQ-100).
    #[error("the organisation's policy is not one that this program takes")]
    BadPolicy,
    /// For the relay only: the policy names another relay's statement key (REQ-100).
    #[error("the policy names the statement key of another relay")]
    ForeignStatementKey,
    /// A second rotation in one entry, a key named before, a predecessor of the wrong form, or a signer whom the entry
    /// burns (REQ-101).
    #[error("the entry does not rotate the directory key properly")]
    RotationShape,
    /// Closed already (REQ-102).
    #[error("the group is closed already")]
    GroupClosed {
        /// The group.
        group: GroupId,
    },
}

impl RosterError {
    /// The stable number of this refusal, on the wire and in logs; 0x0200 to 0x02ff.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 0x0201,
            Self::WrongVersion { .. } => 0x0202,
            Self::Malformed(_) => 0x0203,
            Self::UnknownOp { .. } => 0x0204,
            Self::NoOps => 0x0205,
            Self::TooManyOps { .. } => 0x0206,
            Self::ProfileTooLarge { .. } => 0x0207,
            Self::WrongOrg { .. } => 0x0208,
            Self::Conflict { .. } => 0x0210,
            Self::IssueTime { .. } => 0x0211,
            Self::BadSignature => 0x0220,
            Self::SignerUnknown { .. } => 0x0221,
            Self::SignerNotAdmitted { .. } => 0x0222,
            Self::GenesisShape => 0x0230,
            Self::RootKeyMismatch { .. } => 0x0231,
            Self::GenesisAgain => 0x0232,
            Self::RootSignsGenesisOnly => 0x0233,
            Self::RecoverShape => 0x0234,
            Self::Forbidden { .. } => 0x0240,
            Self::AddDeviceNeedsInvitation { .. } => 0x0241,
            Self::UnknownUser { .. } => 0x0250,
            Self::UserExists { .. } => 0x0251,
            Self::UserRemoved { .. } => 0x0252,
            Self::AlreadySuspended { .. } => 0x0253,
            Self::LastOwner { .. } => 0x0254,
            Self::OneUserPerOrder { .. } => 0x0255,
            Self::SuccessorShape { .. } => 0x0256,
            Self::KeyReused { .. } => 0x0260,
            Self::PossessionNotProven { .. } => 0x0261,
            Self::UnknownDevice { .. } => 0x0262,
            Self::DeviceRevoked { .. } => 0x0263,
            Self::InvitationUnknown { .. } => 0x0270,
            Self::InvitationExists { .. } => 0x0271,
            Self::InvitationUsed { .. } => 0x0272,
            Self::InvitationCancelled { .. } => 0x0273,
            Self::InvitationVoided { .. } => 0x0274,
            Self::InvitationExpired { .. } => 0x0275,
            Self::InvitationScope { .. } => 0x0276,
            Self::BadPolicy => 0x0280,
            Self::ForeignStatementKey => 0x0281,
            Self::RotationShape => 0x0282,
            Self::GroupClosed { .. } => 0x0283,
        }
    }
}
