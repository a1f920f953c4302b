//! Certificates: one file that says, offline and without an account, who stated what about an order (REQ-176 to REQ-178).
//!
//! A certificate holds an excerpt of the roster that reaches from the organisation's root key to every signer, the
//! relay's signed state of every group, and members' attestations and receipts. It must never hold a name that opens
//! without the directory key, a content, or, unless its maker discloses it, a key of somebody who stated nothing.

mod compile;
mod error;
mod excerpt;
mod verify;

pub use compile::{Evidence, Maker, compile};
pub use error::{AttestationFault, CertificateError, ReceiptFault};
pub use verify::{VerifiedCertificate, VerifiedGroup, Witness, WitnessKind, verify};

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use crate::identity::{DeviceId, GroupId, Hash, OrgId, Signature};
use crate::wire::{Attestation, OrderGroupState, Receipt, SignedOrderState};

/// The one version of the format.
pub const CERTIFICATE_VERSION: u8 = 1;
/// The largest file that is read, bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 256 * 1024 * 1024;

const LABEL: &str = "certificate";

/// One entry of the roster in a certificate.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum ChainItem {
    /// Only its hash: it concerns nobody who states anything.
    #[tls_codec(discriminant = 0)]
    Hidden(Hash),
    /// The signed entry.
    #[tls_codec(discriminant = 1)]
    Shown(VLByteVec),
}

/// A group's whole ratchet tree, for an auditor who may see who else is in it (REQ-177).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct DisclosedTree {
    /// The group.
    pub group: GroupId,
    /// What an MLS ratchet_tree extension holds (RFC 9420, section 12.4.3.3).
    pub ratchet_tree: VLByteVec,
}

/// What the maker of a certificate signs.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct CertificateTbs {
    /// [`CERTIFICATE_VERSION`].
    pub version: u8,
    /// The organisation: the fingerprint of its root key.
    pub org: OrgId,
    /// The roster from Genesis to the head that the relay's state names.
    pub chain: Vec<ChainItem>,
    /// What the relay states.
    pub state: SignedOrderState,
    /// Every group of the order's set, by ascending id.
    pub groups: Vec<OrderGroupState>,
    /// The attestations that the rows name, in the same order.
    pub attestations: Vec<Attestation>,
    /// By group and signer, at most one of each.
    pub receipts: Vec<Receipt>,
    /// By group, at most one of each; empty unless the maker discloses them.
    pub trees: Vec<DisclosedTree>,
    /// When it was made, by the maker's clock, ms since 1970.
    pub at_ms: u64,
    /// Who made it.
    pub device: DeviceId,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Certificate {
    /// What is signed.
    pub tbs: CertificateTbs,
    /// By the maker's MLS signature key, label `certificate`.
    pub signature: Signature,
}
