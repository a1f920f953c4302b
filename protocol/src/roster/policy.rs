//! What an organisation decides once for everybody (REQ-100).

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

use super::entry::Genesis;
use crate::group::is_allowed_suite;
use crate::identity::PublicKey;
use crate::wire::Flag;

/// The version of every policy that this program makes and takes.
const POLICY_VERSION: u8 = 1;
/// The shortest limit: two checkpoints' distance, ms.
pub const MIN_STALENESS_LIMIT_MS: u64 = 20 * 60 * 1_000;
/// The longest limit: a year, ms.
pub const MAX_STALENESS_LIMIT_MS: u64 = 365 * 24 * 3_600 * 1_000;
/// The limit that Genesis sets: a day, ms.
const DEFAULT_STALENESS_LIMIT_MS: u64 = 24 * 3_600 * 1_000;

/// What a device does when it has seen no fresh statement of an owner or admin for too long (REQ-106).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum Staleness {
    /// Nothing.
    Off = 0,
    /// It tells its user.
    Warn = 1,
    /// It tells its user, and sends nothing in groups.
    Block = 2,
}

/// The organisation's policy.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct OrgPolicy {
    /// 1.
    pub version: u8,
    /// The MLS ciphersuite of new groups.
    pub suite: u16,
    /// Whether every invitation has a PIN beside its link (REQ-104).
    pub pin_required: Flag,
    /// What a device does without a fresh checkpoint.
    pub staleness: Staleness,
    /// How old the newest checkpoint may be, ms.
    pub staleness_limit_ms: u64,
    /// The key by which the relay states what its logs hold.
    pub statement_key: PublicKey,
}

impl OrgPolicy {
    /// The policy that Genesis sets.
    #[must_use]
    pub(super) fn of_genesis(genesis: &Genesis) -> Self {
        Self {
            version: POLICY_VERSION,
            suite: genesis.suite,
            pin_required: Flag::No,
            staleness: Staleness::Warn,
            staleness_limit_ms: DEFAULT_STALENESS_LIMIT_MS,
            statement_key: genesis.statement_key,
        }
    }

    /// Whether a device of this version can follow it.
    #[must_use]
    pub(super) fn is_known(&self) -> bool {
        let limits = MIN_STALENESS_LIMIT_MS..=MAX_STALENESS_LIMIT_MS;
        self.version == POLICY_VERSION
            && is_allowed_suite(self.suite)
            && limits.contains(&self.staleness_limit_ms)
    }
}
