//! The rows that openmls's state is made of: their tags, their encoding, and what can go wrong with them.
//!
//! This module must never know what openmls's types mean, only how they are stored.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::pieces::is_in_pieces;
use super::{MLS, MlsStorage};
use crate::store::{Pair, StoreError};

/// The version byte of every value.
pub(super) const FORMAT: u8 = 1;

/// Octets of the sequence number in the key of a list's row.
const SEQUENCE_BYTES: usize = 8;

/// What a row of [`MLS`] holds; the number is the first octet of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Row {
    /// The group's local configuration.
    JoinConfig = 0x01,
    /// Whether the group is operational, has a pending commit, or was left.
    GroupState = 0x02,
    /// The public ratchet tree, in pieces.
    Tree = 0x03,
    /// The group context.
    Context = 0x04,
    /// The interim transcript hash.
    InterimTranscriptHash = 0x05,
    /// The confirmation tag of the last commit.
    ConfirmationTag = 0x06,
    /// The index of the own leaf.
    OwnLeafIndex = 0x07,
    /// The epoch's secrets.
    EpochSecrets = 0x08,
    /// The secret tree and what else decrypts messages; written again by every message, in pieces.
    MessageSecrets = 0x09,
    /// The resumption PSKs of past epochs.
    ResumptionPsks = 0x0a,
    /// The private keys of the own path, by group, epoch and leaf.
    EpochKeyPairs = 0x0b,
    /// List: leaf nodes of own Update proposals.
    OwnLeafNode = 0x0c,
    /// List: queued proposals; the proposal's reference ends the key.
    Proposal = 0x0d,
    /// A signature key pair, by public key.
    SignatureKeyPair = 0x10,
    /// The HPKE key pair of an own Update proposal, by public key.
    EncryptionKeyPair = 0x11,
    /// A key package with its private keys, by reference.
    KeyPackage = 0x12,
    /// An external PSK, by id.
    Psk = 0x13,
}

impl Row {
    /// The bit of a key's first octet that says that its row is a piece of the entity of that kind.
    pub(super) const PIECE: u8 = 0x80;
}

/// Why openmls's state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlsStorageError {
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored row is not what this version writes.
    #[error("the stored MLS state is damaged: {row:?}")]
    Damaged {
        /// Which kind of row.
        row: Row,
    },
    /// A key or an entity has no stored form; this is a bug.
    #[error("the MLS state could not be encoded: {row:?}")]
    Encode {
        /// Which kind of row.
        row: Row,
    },
}

/// What every operation on the rows returns.
pub(super) type Result<T> = std::result::Result<T, MlsStorageError>;

impl MlsStorage<'_, '_> {
    pub(super) fn put<K: Serialize, V: Serialize + ?Sized>(
        &self,
        row: Row,
        key: &K,
        value: &V,
    ) -> Result<()> {
        let (key, value) = (encode_key(row, key)?, encode(row, value)?);
        if is_in_pieces(row) {
            return self.put_pieces(key, value);
        }
        self.tx.put(MLS, key, value);
        Ok(())
    }

    pub(super) fn load<K: Serialize, V: DeserializeOwned>(
        &self,
        row: Row,
        key: &K,
    ) -> Result<Option<V>> {
        let key = encode_key(row, key)?;
        let value = if is_in_pieces(row) {
            self.load_pieces(row, &key)?
        } else {
            self.tx.get(MLS, &key)?
        };
        value.map(|value| decode(row, &value)).transpose()
    }

    pub(super) fn erase<K: Serialize>(&self, row: Row, key: &K) -> Result<()> {
        let key = encode_key(row, key)?;
        if is_in_pieces(row) {
            return self.erase_pieces(key);
        }
        self.tx.delete(MLS, key);
        Ok(())
    }

    /// Adds an element to the list of `group`; `label` ends its key.
    pub(super) fn append<G: Serialize, V: Serialize>(
        &self,
        row: Row,
        group: &G,
        label: &[u8],
        value: &V,
    ) -> Result<()> {
        let mut key = encode_key(row, group)?;
        let next = match self.tx.scan(MLS, &key)?.last() {
            None => 0,
            Some((last, _)) => sequence(&last[key.len()..])
                .and_then(|(sequence, _)| sequence.checked_add(1))
                .ok_or(MlsStorageError::Damaged { row })?,
        };
        key.extend_from_slice(&next.to_be_bytes());
        key.extend_from_slice(label);
        self.tx.put(MLS, key, encode(row, value)?);
        Ok(())
    }

    /// The list of `group` in the order of appending, each with its label.
    pub(super) fn list<G: Serialize>(&self, row: Row, group: &G) -> Result<Vec<Pair>> {
        let prefix = encode_key(row, group)?;
        let rows = self.tx.scan(MLS, &prefix)?.into_iter();
        rows.map(|(key, value)| {
            let (_, label) =
                sequence(&key[prefix.len()..]).ok_or(MlsStorageError::Damaged { row })?;
            Ok((label.to_vec(), value))
        })
        .collect()
    }

    /// Erases the first element of the list of `group` that has this label, if there is one.
    pub(super) fn erase_first<G: Serialize>(
        &self,
        row: Row,
        group: &G,
        label: &[u8],
    ) -> Result<()> {
        let prefix = encode_key(row, group)?;
        let first = self.tx.scan(MLS, &prefix)?.into_iter().find(|(key, _)| {
            sequence(&key[prefix.len()..]).is_some_and(|(_, found)| found == label)
        });
        if let Some((key, _)) = first {
            self.tx.delete(MLS, key);
        }
        Ok(())
    }

    /// Erases every row whose key starts with `row` and `group`.
    pub(super) fn erase_all<G: Serialize>(&self, row: Row, group: &G) -> Result<()> {
        for (key, _) in self.tx.scan(MLS, &encode_key(row, group)?)? {
            self.tx.delete(MLS, key);
        }
        Ok(())
    }
}

/// Splits what follows the group in the key of a list's row into its sequence number and its label.
fn sequence(suffix: &[u8]) -> Option<(u64, &[u8])> {
    let (sequence, label) = suffix.split_first_chunk::<SEQUENCE_BYTES>()?;
    Some((u64::from_be_bytes(*sequence), label))
}

/// Postcard puts a length before every octet string, so no group's key is the beginning of another's.
fn encode_key<K: Serialize>(row: Row, key: &K) -> Result<Vec<u8>> {
    postcard::to_extend(key, vec![row as u8]).map_err(|_| MlsStorageError::Encode { row })
}

pub(super) fn encode<V: Serialize + ?Sized>(row: Row, value: &V) -> Result<Vec<u8>> {
    let mut bytes = vec![FORMAT];
    let encoded = match row {
        // Its deletion policy for past epochs is an untagged enum, which only a self-describing format can read.
        Row::JoinConfig => ciborium::into_writer(value, &mut bytes)
            .ok()
            .map(|()| bytes),
        _ => postcard::to_extend(value, bytes).ok(),
    };
    encoded.ok_or(MlsStorageError::Encode { row })
}

pub(super) fn decode<V: DeserializeOwned>(row: Row, bytes: &[u8]) -> Result<V> {
    let decoded = match (row, bytes.split_first()) {
        (Row::JoinConfig, Some((&FORMAT, mut rest))) => ciborium::from_reader(&mut rest)
            .ok()
            .filter(|_| rest.is_empty()),
        (_, Some((&FORMAT, body))) => postcard::take_from_bytes(body)
            .ok()
            .and_then(|(value, rest)| rest.is_empty().then_some(value)),
        _ => None,
    };
    decoded.ok_or(MlsStorageError::Damaged { row })
}
