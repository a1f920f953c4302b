//! Everything that touches openmls: creating, joining, committing, opening messages, and the rules for what is accepted.
//!
//! openmls is confined to this module (and its storage adapter). It must never accept anything that
//! [`validate`] has not passed, and never keep an in-memory group whose transaction was dropped.
//!
//! Inputs: [`Group::create`], [`Group::join`], [`Group::open`], [`Group::merge`], [`Group::commit`],
//! [`Group::encrypt`]. Getters: [`Group::members`], [`Group::policy`], [`Group::access_key`].

mod credential;
mod crypto;
mod key_package;
mod keys;
mod mls;
mod policy;
mod resync;
pub mod storage;
mod tree;
pub mod validate;

pub use credential::{CREDENTIAL_VERSION, DeviceCredential};
pub use crypto::Crypto;
pub use key_package::{
    KeyPackageError, ReadKeyPackage, make_key_package, make_resync_key_package, read_key_package,
};
pub use mls::{
    Changes, CommitOut, Group, GroupError, JoinedGroup, LeaveProposal, Member, Opened, StagedChange,
};
pub use policy::{
    GROUP_POLICY_EXTENSION, GroupPolicy, MAX_GROUP_NAME_BYTES, MAX_TOPIC_BYTES, PolicyChange,
    PolicyExtension, Predecessor, WhoMayAdd,
};
pub use resync::{RESYNC_EXTENSION, Resync};
pub use storage::MlsProvider;
pub use tree::ReadTree;
pub use validate::Violation;

use openmls::prelude::{Capabilities, Ciphersuite, CredentialType, ExtensionType};
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;

use crate::identity::{DeviceId, OrgId, SigningKey, UserId};

/// The classical suite (RFC 9420 §17.1).
pub const SUITE_CLASSICAL: u16 = 0x0001;
/// The hybrid post-quantum suite (draft-ietf-mls-pq-ciphersuites); the default of new organisations.
pub const SUITE_HYBRID: u16 = 0x004F;

/// Whether groups of this suite are allowed.
#[must_use]
pub fn is_allowed_suite(suite: u16) -> bool {
    matches!(suite, SUITE_CLASSICAL | SUITE_HYBRID)
}

/// This device, as far as MLS needs to know it.
#[derive(Debug)]
pub struct Me<'a> {
    /// The organisation.
    pub org: OrgId,
    /// Whose device.
    pub user: UserId,
    /// Which device.
    pub device: DeviceId,
    /// Its MLS signature key.
    pub key: &'a SigningKey,
}

/// Lets openmls sign with our key type.
struct MlsSigner<'a>(&'a SigningKey);

impl Signer for MlsSigner<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign_as_is(payload).0.to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// What every leaf says it can do (REQ-081, REQ-094).
fn capabilities(suite: Ciphersuite) -> Capabilities {
    Capabilities::new(
        None,
        Some(&[suite]),
        Some(&[
            ExtensionType::LastResort,
            ExtensionType::Unknown(GROUP_POLICY_EXTENSION),
            ExtensionType::Unknown(RESYNC_EXTENSION),
        ]),
        None,
        Some(&[CredentialType::Basic]),
    )
}
