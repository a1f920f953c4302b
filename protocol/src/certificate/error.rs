//! Why a certificate says nothing: each kind of defect has its name.

use crate::identity::{DeviceId, GroupId, OrgId, RosterSeq};
use crate::roster::RosterError;

/// Why a certificate does not verify (REQ-178).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// It does not decode.
    #[error("the file is damaged, or is not a certificate")]
    Malformed,
    /// It is of a later version.
    #[error("the certificate has version {version}, which this program does not know")]
    WrongVersion {
        /// Which.
        version: u8,
    },
    /// It is another organisation's.
    #[error("the certificate is of another organisation, whose root key has the fingerprint {org}")]
    WrongRoot {
        /// Whose.
        org: OrgId,
    },
    /// An entry of the roster is forged, or does not follow from those before.
    #[error("entry {seq} of the roster does not follow from those before it: {reason}")]
    Chain {
        /// Which entry.
        seq: RosterSeq,
        /// The rule that it breaks.
        reason: RosterError,
    },
    /// Its maker is unknown or was not admitted, or did not sign these bytes.
    #[error("the certificate is not signed by the device that it names as its maker")]
    Maker {
        /// Which device.
        device: DeviceId,
    },
    /// There is no order at the entry that the relay's state names.
    #[error("entry {seq} of the roster is no order")]
    NotAnOrder {
        /// Which entry.
        seq: RosterSeq,
    },
    /// The relay's state is about another organisation, order or roster.
    #[error("the relay's statement is about another order or another roster")]
    OtherState,
    /// The relay did not sign the state.
    #[error("the relay has not signed the statement")]
    RelaySignature,
    /// The groups are not those that the relay signed for.
    #[error("the groups are not those that the relay has signed for")]
    Groups,
    /// A group's row does not follow from its attestations.
    #[error("group {group} is not what its attestations say")]
    Row {
        /// Which group.
        group: GroupId,
    },
    /// An attestation counts for nothing.
    #[error("an attestation about group {group} {fault}")]
    Attestation {
        /// Which group.
        group: GroupId,
        /// Whose.
        device: DeviceId,
        /// Why.
        fault: AttestationFault,
    },
    /// There are more or fewer attestations than the rows name.
    #[error("attestations are missing, or there are too many")]
    AttestationCount,
    /// A receipt counts for nothing.
    #[error("a receipt about group {group} {fault}")]
    Receipt {
        /// Which group.
        group: GroupId,
        /// Whose.
        device: DeviceId,
        /// Why.
        fault: ReceiptFault,
    },
    /// Two members state different things about one epoch of one group.
    #[error("two statements about the same epoch of group {group} contradict each other")]
    Contradiction {
        /// Which group.
        group: GroupId,
    },
    /// A disclosed tree is not what its signer, or a receipt, says; or it holds a leaf of those who were put out.
    #[error("the disclosed tree of group {group} {reason}")]
    Tree {
        /// Which group.
        group: GroupId,
        /// Why.
        reason: &'static str,
    },
}

impl CertificateError {
    /// The stable name, as the vectors have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongVersion { .. } => "wrong_version",
            Self::WrongRoot { .. } => "wrong_root",
            Self::Chain { .. } => "chain",
            Self::Maker { .. } => "maker",
            Self::NotAnOrder { .. } => "not_an_order",
            Self::OtherState => "other_state",
            Self::RelaySignature => "relay_signature",
            Self::Groups => "groups",
            Self::Row { .. } => "row",
            Self::Attestation { .. } => "attestation",
            Self::AttestationCount => "attestation_count",
            Self::Receipt { .. } => "receipt",
            Self::Contradiction { .. } => "contradiction",
            Self::Tree { .. } => "tree",
        }
    }
}

/// What is wrong with an attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestationFault {
    /// It is about something else than the row says.
    #[error("is about something else than the relay's row")]
    Other,
    /// Its signer is not on the roster, or was not admitted when it signed.
    #[error("is by a device that was not admitted")]
    Signer,
    /// The device or the access key did not sign it.
    #[error("has a wrong signature")]
    Signature,
}

/// What is wrong with a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptFault {
    /// It is about another organisation, order or group.
    #[error("is about something else")]
    Other,
    /// Its signer is not on the roster, or was put out by this order or before it.
    #[error("is by a device that was not admitted")]
    Signer,
    /// The device did not sign it.
    #[error("has a wrong signature")]
    Signature,
    /// The relay had shown its signer other groups than it signed for here.
    #[error("names another set of groups: the relay has signed two")]
    OtherSet,
    /// Receipts are not in order, or there are two by one device.
    #[error("is there twice, or out of order")]
    Order,
}
