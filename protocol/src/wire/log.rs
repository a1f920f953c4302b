//! A group's log: what the records hold, what is hashed over them, and the keys that open them.

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use super::restart::Restart;
use crate::identity::{
    DeviceId, Epoch, GroupId, Hash, KeyError, LogSeq, PublicKey, RosterSeq, Signature, SigningKey,
    encode, hash, sha256,
};

/// The MLS exporter label of the access key (RFC 9420 §8.5), context: the group id, 32 bytes (REQ-050).
pub const ACCESS_KEY_LABEL: &str = "mortise relay access";

/// What a record is. The relay reads the discriminant and the public fields, never the ciphertext (REQ-041).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum RecordBody {
    /// Opens the log at epoch 0.
    #[tls_codec(discriminant = 1)]
    Create {
        /// The public half of epoch 0's access key.
        access_key: PublicKey,
    },
    /// An MLS commit; the first accepted one for an epoch closes it.
    #[tls_codec(discriminant = 2)]
    Commit(CommitEntry),
    /// An MLS PrivateMessage with an application message or a leave proposal.
    #[tls_codec(discriminant = 3)]
    Message(VLByteVec),
    /// A device's statement about this group after an order.
    #[tls_codec(discriminant = 4)]
    Attestation(Attestation),
    /// Ends the log; the conversation goes on in another group.
    #[tls_codec(discriminant = 5)]
    Restart(Restart),
}

impl RecordBody {
    /// `record_id = SHA-256(payload)`, so that resending is safe (REQ-042).
    #[must_use]
    pub fn record_id(&self) -> Hash {
        sha256(&encode(self))
    }

    /// Whether these bytes claim to be a Restart; nothing else of them is looked at.
    #[must_use]
    pub fn is_restart(payload: &[u8]) -> bool {
        payload.first() == Some(&5)
    }
}

/// A commit as it is submitted: the next epoch's key cannot be in the authenticated data, since that enters the
/// transcript and hence the exporter (REQ-051).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct CommitEntry {
    /// The MLSMessage (PrivateMessage) with the commit.
    pub commit: VLByteVec,
    /// The public half of the next epoch's access key.
    pub next_access_key: PublicKey,
    /// The committer.
    pub device: DeviceId,
    /// By the committer's MLS signature key, over group, epoch, hash of the commit, next key and device; label `commit entry`.
    pub signature: Signature,
}

const COMMIT_LABEL: &str = "commit entry";

impl CommitEntry {
    fn tbs(
        group: GroupId,
        epoch: Epoch,
        commit: &[u8],
        next_access_key: PublicKey,
        device: DeviceId,
    ) -> Vec<u8> {
        #[derive(TlsSerialize, TlsSize)]
        struct Tbs {
            group: GroupId,
            epoch: Epoch,
            commit_hash: Hash,
            next_access_key: PublicKey,
            device: DeviceId,
        }
        encode(&Tbs {
            group,
            epoch,
            commit_hash: sha256(commit),
            next_access_key,
            device,
        })
    }

    /// Makes the entry that closes `epoch` (the epoch that the commit is sent in).
    #[must_use]
    pub fn sign(
        group: GroupId,
        epoch: Epoch,
        commit: Vec<u8>,
        next_access_key: PublicKey,
        device_key: &SigningKey,
    ) -> Self {
        let device = device_key.public().device_id();
        let tbs = Self::tbs(group, epoch, &commit, next_access_key, device);
        Self {
            commit: commit.into(),
            next_access_key,
            device,
            signature: device_key.sign(COMMIT_LABEL, &tbs),
        }
    }

    /// Checks the committer's signature with its key from the roster (REQ-051).
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(&self, group: GroupId, epoch: Epoch, key: &PublicKey) -> Result<(), KeyError> {
        let tbs = Self::tbs(
            group,
            epoch,
            self.commit.as_slice(),
            self.next_access_key,
            self.device,
        );
        key.verify(COMMIT_LABEL, &tbs, &self.signature)
    }
}

/// What a device found in a group after an order (REQ-064).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum Verdict {
    /// A commit that removed the order's leaves was accepted.
    Rotated = 1,
    /// The tree held no leaf of the order's devices.
    Clean = 2,
}

/// A device's signed statement, in the group's log, about one group after an order (REQ-064).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Attestation {
    /// What is stated.
    pub statement: AttestationStatement,
    /// By the device's MLS signature key, label `attestation`.
    pub device_signature: Signature,
    /// By the epoch's access key, label `attestation access`.
    pub access_signature: Signature,
}

/// The signed part of an [`Attestation`].
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct AttestationStatement {
    /// The order's seq in the roster.
    pub order_seq: RosterSeq,
    /// The order's entry hash.
    pub order_hash: Hash,
    /// The group.
    pub group: GroupId,
    /// The opening entry of the epoch that the device looked at.
    pub entry_hash: Hash,
    /// That epoch; the log's head epoch when it is appended.
    pub epoch: Epoch,
    /// The device's roster head.
    pub roster_seq: RosterSeq,
    /// Its hash.
    pub roster_hash: Hash,
    /// What it found.
    pub verdict: Verdict,
    /// Who says so.
    pub device: DeviceId,
}

impl Attestation {
    /// Signs a statement with both keys.
    #[must_use]
    pub fn sign(
        statement: AttestationStatement,
        device_key: &SigningKey,
        access_key: &SigningKey,
    ) -> Self {
        let tbs = encode(&statement);
        Self {
            statement,
            device_signature: device_key.sign("attestation", &tbs),
            access_signature: access_key.sign("attestation access", &tbs),
        }
    }

    /// Checks both signatures (REQ-064).
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(&self, device: &PublicKey, access: &PublicKey) -> Result<(), KeyError> {
        let tbs = encode(&self.statement);
        device.verify("attestation", &tbs, &self.device_signature)?;
        access.verify("attestation access", &tbs, &self.access_signature)
    }
}

/// A record as the relay stores and pushes it.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct LogRecord {
    /// Position in the group's log, gapless from 1.
    pub seq: LogSeq,
    /// The epoch that it was sent in; for `Create`, 0.
    pub epoch: Epoch,
    /// The fence that was in force when it was appended (REQ-060).
    pub fence: RosterSeq,
    /// When the relay appended it, ms since 1970; for display only.
    pub at_ms: u64,
    /// The encoded [`RecordBody`], exactly as it was submitted.
    pub payload: VLByteVec,
}

impl LogRecord {
    /// The record's id (REQ-042).
    #[must_use]
    pub fn record_id(&self) -> Hash {
        sha256(self.payload.as_slice())
    }
}

/// The hash of the entry that opens `epoch`: a `Create` (epoch 0) or the commit that led to it (REQ-043).
#[must_use]
pub fn entry_hash(group: GroupId, epoch: Epoch, payload: &[u8]) -> Hash {
    let mut content = group.0.to_vec();
    content.extend_from_slice(&epoch.0.to_be_bytes());
    content.extend_from_slice(&sha256(payload).0);
    hash("entry", &content)
}

/// A position in one epoch of a group's log, and the hash of the whole log up to there (REQ-044).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCursor {
    /// Records since the epoch's opening entry, which is not counted.
    pub count: u32,
    /// The chain over all records since the log's first, whatever their epochs.
    pub hash: Hash,
}

impl LogCursor {
    /// The cursor at the log's first record, the Create of this entry hash.
    #[must_use]
    pub fn created(entry_hash: Hash, fence: RosterSeq) -> Self {
        Self {
            count: 0,
            hash: log_hash(&entry_hash, &entry_hash, fence),
        }
    }

    /// The cursor after one more record of the epoch.
    #[must_use]
    pub fn after(self, record_id: Hash, fence: RosterSeq) -> Self {
        Self {
            count: self.count.saturating_add(1),
            hash: log_hash(&self.hash, &record_id, fence),
        }
    }

    /// The cursor at the commit that opens the next epoch: the count begins anew, the hash goes on.
    #[must_use]
    pub fn opens(self, record_id: Hash, fence: RosterSeq) -> Self {
        Self {
            count: 0,
            hash: log_hash(&self.hash, &record_id, fence),
        }
    }
}

/// The hash of a log after one more record, from the hash before it (REQ-044).
#[must_use]
pub fn log_hash(previous: &Hash, record: &Hash, fence: RosterSeq) -> Hash {
    let mut content = previous.0.to_vec();
    content.extend_from_slice(&record.0);
    content.extend_from_slice(&fence.0.to_be_bytes());
    hash("log", &content)
}

/// What an access proof is for; a proof for one is none for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum Purpose {
    /// Subscribing to the records of an epoch.
    Read = 1,
    /// Appending in an epoch.
    Append = 2,
}

/// Proof of holding an epoch's access key, bound to the connection (REQ-052).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct AccessProof {
    /// The opening entry of the epoch.
    pub entry_hash: Hash,
    /// By the epoch's access key, label `access`.
    pub signature: Signature,
}

/// The TLS exporter value of a connection (RFC 8446 §7.5), label `EXPORTER-mortise-access`, no context, 32 bytes (REQ-052).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBinding(pub [u8; 32]);

/// The TLS exporter label of [`ConnectionBinding`].
pub const BINDING_LABEL: &[u8] = b"EXPORTER-mortise-access";

impl AccessProof {
    fn tbs(
        binding: &ConnectionBinding,
        group: GroupId,
        epoch: Epoch,
        entry_hash: Hash,
        purpose: Purpose,
    ) -> Vec<u8> {
        #[derive(TlsSerialize, TlsSize)]
        struct Tbs {
            binding: [u8; 32],
            group: GroupId,
            epoch: Epoch,
            entry_hash: Hash,
            purpose: Purpose,
        }
        encode(&Tbs {
            binding: binding.0,
            group,
            epoch,
            entry_hash,
            purpose,
        })
    }

    /// Proves that `access_key` is held, on this connection, for this purpose.
    #[must_use]
    pub fn sign(
        access_key: &SigningKey,
        binding: &ConnectionBinding,
        group: GroupId,
        epoch: Epoch,
        entry_hash: Hash,
        purpose: Purpose,
    ) -> Self {
        let tbs = Self::tbs(binding, group, epoch, entry_hash, purpose);
        Self {
            entry_hash,
            signature: access_key.sign("access", &tbs),
        }
    }

    /// Checks the proof against the epoch's access key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(
        &self,
        access_key: &PublicKey,
        binding: &ConnectionBinding,
        group: GroupId,
        epoch: Epoch,
        purpose: Purpose,
    ) -> Result<(), KeyError> {
        let tbs = Self::tbs(binding, group, epoch, self.entry_hash, purpose);
        access_key.verify("access", &tbs, &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-052: a proof is for one connection, group, epoch, entry and purpose.
    #[test]
    fn an_access_proof_is_useless_elsewhere() {
        let key = SigningKey::from_seed(&[1; 32]);
        let (binding, group, epoch) = (ConnectionBinding([2; 32]), GroupId([3; 32]), Epoch(4));
        let proof = AccessProof::sign(&key, &binding, group, epoch, Hash([5; 32]), Purpose::Read);
        let public = key.public();
        assert!(
            proof
                .verify(&public, &binding, group, epoch, Purpose::Read)
                .is_ok()
        );
        assert!(
            proof
                .verify(&public, &binding, group, epoch, Purpose::Append)
                .is_err()
        );
        assert!(
            proof
                .verify(
                    &public,
                    &ConnectionBinding([9; 32]),
                    group,
                    epoch,
                    Purpose::Read
                )
                .is_err()
        );
        assert!(
            proof
                .verify(&public, &binding, GroupId([9; 32]), epoch, Purpose::Read)
                .is_err()
        );
        assert!(
            proof
                .verify(&public, &binding, group, Epoch(9), Purpose::Read)
                .is_err()
        );
    }

    /// REQ-044: order, content and fence of every record are in the hash.
    #[test]
    fn a_log_cursor_depends_on_everything_before_it() {
        let start = LogCursor::created(Hash([1; 32]), RosterSeq(1));
        let (a, b) = (Hash([2; 32]), Hash([3; 32]));
        let ab = start.after(a, RosterSeq(1)).after(b, RosterSeq(1));
        assert_eq!(ab.count, 2);
        assert_ne!(ab, start.after(b, RosterSeq(1)).after(a, RosterSeq(1)));
        assert_ne!(ab, start.after(a, RosterSeq(1)).after(b, RosterSeq(2)));
        assert_ne!(ab.hash, start.after(a, RosterSeq(1)).hash);
    }

    /// REQ-044: what an epoch held, to its last record, is in the hash of every later one.
    #[test]
    fn a_log_cursor_goes_on_across_epochs() {
        let start = LogCursor::created(Hash([1; 32]), RosterSeq(1));
        let (message, commit) = (Hash([2; 32]), Hash([3; 32]));
        let without = start.opens(commit, RosterSeq(1));
        let with = start
            .after(message, RosterSeq(1))
            .opens(commit, RosterSeq(1));
        assert_eq!((with.count, without.count), (0, 0));
        assert_ne!(with.hash, without.hash);
        assert_eq!(without.hash, start.after(commit, RosterSeq(1)).hash);
    }

    /// REQ-051: the committer vouches for the next access key.
    #[test]
    fn a_commit_entry_with_another_key_does_not_verify() {
        let device = SigningKey::from_seed(&[1; 32]);
        let next = SigningKey::from_seed(&[2; 32]).public();
        let (group, epoch) = (GroupId([3; 32]), Epoch(4));
        let mut entry = CommitEntry::sign(group, epoch, vec![1, 2], next, &device);
        assert_eq!(entry.verify(group, epoch, &device.public()), Ok(()));
        assert!(entry.verify(group, Epoch(5), &device.public()).is_err());
        entry.next_access_key = device.public();
        assert!(entry.verify(group, epoch, &device.public()).is_err());
    }
}
