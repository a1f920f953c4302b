//! The record that ends a group's log and names the group that continues the conversation (REQ-150).

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

use crate::identity::{
    DeviceId, Epoch, GroupId, Hash, KeyError, PublicKey, RosterSeq, Signature, SigningKey, encode,
};

const LABEL: &str = "restart";

/// Why a conversation goes on in another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum RestartCause {
    /// A group admin wants it, for instance for another ciphersuite.
    #[tls_codec(discriminant = 1)]
    Requested,
    /// The commit that closed the parent epoch is not followed.
    #[tls_codec(discriminant = 2)]
    FaultyCommit {
        /// Who sent it.
        culprit: DeviceId,
    },
    /// The log holds a Restart by somebody who may not.
    #[tls_codec(discriminant = 3)]
    FalseRestart {
        /// Who sent it.
        culprit: DeviceId,
    },
}

impl RestartCause {
    /// Who is left out of the successor.
    #[must_use]
    pub fn culprit(self) -> Option<DeviceId> {
        match self {
            Self::Requested => None,
            Self::FaultyCommit { culprit } | Self::FalseRestart { culprit } => Some(culprit),
        }
    }

    /// The cause as a line for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Requested => "RESTART_REQUESTED: a group admin continues the conversation",
            Self::FaultyCommit { .. } => "FAULTY_COMMIT: a member's commit is not followed",
            Self::FalseRestart { .. } => "FALSE_RESTART: somebody who may not ended the group",
        }
    }
}

/// The signed part of a [`Restart`].
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct RestartStatement {
    /// The group that ends.
    pub group: GroupId,
    /// The last good epoch.
    pub parent_epoch: Epoch,
    /// Its opening entry.
    pub parent_entry_hash: Hash,
    /// Why.
    pub cause: RestartCause,
    /// The group that continues the conversation.
    pub successor: GroupId,
    /// The restarter's roster head.
    pub roster_seq: RosterSeq,
    /// Its hash.
    pub roster_hash: Hash,
    /// The restarter.
    pub device: DeviceId,
}

/// Ends a log: nothing but another Restart comes after it (REQ-150).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Restart {
    /// What is stated.
    pub statement: RestartStatement,
    /// By the restarter's MLS signature key, label `restart`.
    pub signature: Signature,
}

impl Restart {
    /// Signs a statement.
    #[must_use]
    pub fn sign(statement: RestartStatement, device_key: &SigningKey) -> Self {
        let signature = device_key.sign(LABEL, &encode(&statement));
        Self {
            statement,
            signature,
        }
    }

    /// Checks the signature with the restarter's key from the roster.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(&self, device: &PublicKey) -> Result<(), KeyError> {
        device.verify(LABEL, &encode(&self.statement), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-150: the restarter vouches for everything that a Restart says.
    #[test]
    fn a_changed_restart_does_not_verify() {
        let key = SigningKey::from_seed(&[1; 32]);
        let statement = RestartStatement {
            group: GroupId([2; 32]),
            parent_epoch: Epoch(3),
            parent_entry_hash: Hash([4; 32]),
            cause: RestartCause::FaultyCommit {
                culprit: DeviceId([5; 16]),
            },
            successor: GroupId([6; 32]),
            roster_seq: RosterSeq(7),
            roster_hash: Hash([8; 32]),
            device: key.public().device_id(),
        };
        let mut restart = Restart::sign(statement, &key);
        assert_eq!(restart.verify(&key.public()), Ok(()));
        let other = SigningKey::from_seed(&[9; 32]);
        assert!(restart.verify(&other.public()).is_err());
        restart.statement.cause = RestartCause::Requested;
        assert!(restart.verify(&key.public()).is_err());
    }
}
