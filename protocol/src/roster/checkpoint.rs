//! Checkpoints: an owner or admin states which roster entry is the newest it knows, and when (REQ-105).
//!
//! They bound how long a relay can withhold the roster unnoticed. They are no part of the chain.

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

use super::authority::Role;
use super::entry::Head;
use super::state::Roster;
use crate::identity::{DeviceId, OrgId, Signature, SigningKey, encode};

const LABEL: &str = "checkpoint";

/// What is signed.
#[derive(TlsSerialize, TlsSize)]
struct Statement {
    org: OrgId,
    head: Head,
    issued_at_ms: u64,
    device: DeviceId,
}

/// A signed statement of where the roster ended at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Checkpoint {
    /// The organisation.
    pub org: OrgId,
    /// The newest entry that the signer held.
    pub head: Head,
    /// When, by the signer's clock, ms since 1970.
    pub issued_at_ms: u64,
    /// Who signs.
    pub device: DeviceId,
    /// By the device's MLS signature key.
    pub signature: Signature,
}

/// Why a checkpoint says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointFault {
    /// Not signed by an owner's or admin's device that was admitted at the entry it names.
    #[error("the checkpoint is not an owner's or admin's")]
    Signer,
    /// It names an entry beyond this chain, on which nothing can be judged yet.
    #[error("the checkpoint names an entry that is not here yet")]
    Beyond,
    /// It names an entry that is not the chain's: whoever let it pass has two rosters.
    #[error("the checkpoint names another roster")]
    Fork,
}

impl Checkpoint {
    /// States that `head` is the newest entry that this device knows.
    #[must_use]
    pub fn sign(
        org: OrgId,
        head: Head,
        issued_at_ms: u64,
        device: DeviceId,
        key: &SigningKey,
    ) -> Self {
        let statement = Statement {
            org,
            head,
            issued_at_ms,
            device,
        };
        Self {
            org,
            head,
            issued_at_ms,
            device,
            signature: key.sign(LABEL, &encode(&statement)),
        }
    }

    /// Checks signer, signature and entry against a chain (REQ-105).
    ///
    /// # Errors
    /// [`CheckpointFault`]. `Beyond` and `Fork` are said of properly signed ones only, by a device that the chain has as
    /// an owner's or admin's at the entry or, beyond the chain, at its end.
    pub fn verify(&self, roster: &Roster) -> Result<(), CheckpointFault> {
        let at = self.head.seq.min(roster.head().seq);
        let signer = roster
            .device(self.device)
            .filter(|device| self.org == roster.org() && device.is_admitted_at(at))
            .ok_or(CheckpointFault::Signer)?;
        let role = roster.role_at(signer.user, at);
        if !role.is_some_and(Role::administers) {
            return Err(CheckpointFault::Signer);
        }
        let statement = Statement {
            org: self.org,
            head: self.head,
            issued_at_ms: self.issued_at_ms,
            device: self.device,
        };
        signer
            .mls_signature_key
            .verify(LABEL, &encode(&statement), &self.signature)
            .map_err(|_| CheckpointFault::Signer)?;
        match roster.hash_at(self.head.seq) {
            Some(hash) if hash == self.head.hash => Ok(()),
            Some(_) => Err(CheckpointFault::Fork),
            None if self.head.seq > roster.head().seq => Err(CheckpointFault::Beyond),
            None => Err(CheckpointFault::Signer),
        }
    }
}
