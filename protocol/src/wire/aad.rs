//! What the relay reads of an MLS PrivateMessage: its public header and our authenticated data.

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use super::log::LogCursor;
use crate::identity::{Epoch, GroupId, Hash, RosterSeq, decode, encode};

/// The authenticated data of every MLS message in a Mortise group, version 1 (REQ-045).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct AuthenticatedData {
    /// 1.
    pub version: u8,
    /// The sender's roster head: `s`.
    pub roster_seq: RosterSeq,
    /// The hash of the roster entry at `s`.
    pub roster_hash: Hash,
    /// The sender's cursor in this epoch's log: records counted.
    pub log_count: u32,
    /// The sender's cursor in this epoch's log: the chain over them.
    pub log_hash: Hash,
}

impl AuthenticatedData {
    /// The authenticated data of a sender with this roster head and this log cursor.
    #[must_use]
    pub fn new(roster_seq: RosterSeq, roster_hash: Hash, cursor: LogCursor) -> Self {
        Self {
            version: 1,
            roster_seq,
            roster_hash,
            log_count: cursor.count,
            log_hash: cursor.hash,
        }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

/// MLS content types (RFC 9420 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum ContentType {
    /// An application message.
    Application = 1,
    /// A proposal.
    Proposal = 2,
    /// A commit.
    Commit = 3,
}

/// The public header of an MLSMessage that holds a PrivateMessage (RFC 9420 §6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateHeader {
    /// The group, which must be 32 bytes in Mortise.
    pub group: GroupId,
    /// The epoch that it was encrypted in.
    pub epoch: Epoch,
    /// What it holds.
    pub content_type: ContentType,
    /// Our authenticated data.
    pub aad: AuthenticatedData,
}

/// An MLS message whose header is not one that Mortise allows (REQ-046).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Truncated, trailing bytes, or not an MLSMessage.
    #[error("not a well-formed MLS message")]
    Malformed,
    /// Not MLS 1.0, or not a PrivateMessage.
    #[error("not an MLS 1.0 PrivateMessage")]
    WireFormat,
    /// The authenticated data is not ours, or of another version.
    #[error("the authenticated data is not of version 1")]
    AuthenticatedData,
}

impl PrivateHeader {
    /// Reads the header of an MLSMessage without its ciphertext being touched (REQ-046).
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn parse(message: &[u8]) -> Result<Self, HeaderError> {
        #[derive(TlsDeserialize, TlsSize)]
        struct Raw {
            version: u16,
            wire_format: u16,
            group: VLByteVec,
            epoch: Epoch,
            content_type: ContentType,
            aad: VLByteVec,
            _sender_data: VLByteVec,
            _ciphertext: VLByteVec,
        }
        const MLS10: u16 = 1;
        const PRIVATE_MESSAGE: u16 = 2;
        if message.get(..4).is_some_and(|h| h != [0, 1, 0, 2]) {
            return Err(HeaderError::WireFormat);
        }
        let raw: Raw = decode(message).map_err(|_| HeaderError::Malformed)?;
        if raw.version != MLS10 || raw.wire_format != PRIVATE_MESSAGE {
            return Err(HeaderError::WireFormat);
        }
        let group = <[u8; 32]>::try_from(raw.group.as_slice())
            .map(GroupId)
            .map_err(|_| HeaderError::Malformed)?;
        let aad: AuthenticatedData =
            decode(raw.aad.as_slice()).map_err(|_| HeaderError::AuthenticatedData)?;
        if aad.version != 1 {
            return Err(HeaderError::AuthenticatedData);
        }
        Ok(Self {
            group,
            epoch: raw.epoch,
            content_type: raw.content_type,
            aad,
        })
    }
}
