//! Records of the form that the relay checks, with filler where MLS has ciphertext, and the keys of their epochs.
//!
//! A commit carries the next epoch's access key in the clear, so that everybody who reads the log can go on.

use mortise_protocol::identity::{
    Epoch, GroupId, Hash, LogSeq, RosterSeq, SigningKey, decode, encode, sha256,
};
use mortise_protocol::roster::Head;
use mortise_protocol::wire::aad::{AuthenticatedData, ContentType};
use mortise_protocol::wire::log::{
    AccessProof, CommitEntry, ConnectionBinding, LogCursor, Purpose, RecordBody, entry_hash,
};
use mortise_protocol::wire::{LogRecord, Request, Submission, limits};
use tls_codec::{TlsSerialize, TlsSize, VLByteVec};

/// What the relay sees of an MLS PrivateMessage (RFC 9420 §6.3).
#[derive(TlsSerialize, TlsSize)]
struct Message {
    version: u16,
    wire_format: u16,
    group: VLByteVec,
    epoch: Epoch,
    content_type: ContentType,
    aad: VLByteVec,
    sender_data: VLByteVec,
    ciphertext: VLByteVec,
}

/// A group as somebody who reads its log knows it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) id: GroupId,
    pub(super) epoch: Epoch,
    pub(super) cursor: LogSeq,
    access: [u8; 32],
    opening: Hash,
}

impl Reading {
    /// At the beginning of a group, which everybody can compute from its id.
    pub(super) fn from_start(id: GroupId) -> Self {
        let access = sha256(&id.0).0;
        let opening = entry_hash(id, Epoch(0), &create(&access));
        Self {
            id,
            epoch: Epoch(0),
            cursor: LogSeq(0),
            access,
            opening,
        }
    }

    /// The question that makes the group.
    pub(super) fn create(&self) -> Request {
        Request::CreateGroup {
            group: self.id,
            payload: create(&self.access).into(),
        }
    }

    fn proof(&self, binding: &ConnectionBinding, purpose: Purpose) -> AccessProof {
        let key = SigningKey::from_seed(&self.access);
        AccessProof::sign(&key, binding, self.id, self.epoch, self.opening, purpose)
    }

    /// To read on.
    pub(super) fn subscribe(&self, binding: &ConnectionBinding) -> Request {
        Request::Subscribe {
            group: self.id,
            epoch: self.epoch,
            after: self.cursor,
            credit: limits::MAX_CREDIT,
            proof: self.proof(binding, Purpose::Read),
        }
    }

    /// To append these bytes, made earlier in this epoch.
    pub(super) fn submit(&self, binding: &ConnectionBinding, payload: Vec<u8>) -> Request {
        Request::Submit(Submission {
            group: self.id,
            epoch: self.epoch,
            payload: payload.into(),
            welcomes: Vec::new(),
            proof: self.proof(binding, Purpose::Append),
        })
    }

    /// A message unlike any other.
    pub(super) fn message(&self, head: Head, filler: [u8; 32]) -> Vec<u8> {
        let message = self.encode(head, ContentType::Application, filler);
        encode(&RecordBody::Message(message.into()))
    }

    /// A commit unlike any other.
    pub(super) fn commit(&self, head: Head, filler: [u8; 32], device: &SigningKey) -> Vec<u8> {
        let commit = self.encode(head, ContentType::Commit, filler);
        let next = SigningKey::from_seed(&filler).public();
        let entry = CommitEntry::sign(self.id, self.epoch, commit, next, device);
        encode(&RecordBody::Commit(entry))
    }

    fn encode(&self, head: Head, content_type: ContentType, filler: [u8; 32]) -> Vec<u8> {
        let cursor = LogCursor::created(self.opening, RosterSeq(0));
        let aad = AuthenticatedData::new(head.seq, head.hash, cursor).to_bytes();
        let mut ciphertext = vec![0; 128];
        ciphertext.extend_from_slice(&filler);
        encode(&Message {
            version: 1,
            wire_format: 2,
            group: self.id.0.to_vec().into(),
            epoch: self.epoch,
            content_type,
            aad: aad.into(),
            sender_data: vec![0; 28].into(),
            ciphertext: ciphertext.into(),
        })
    }

    /// Reads the next record; whether it has opened a new epoch. One that was read before changes nothing.
    pub(super) fn take(&mut self, record: &LogRecord) -> anyhow::Result<bool> {
        if record.seq <= self.cursor {
            return Ok(false);
        }
        anyhow::ensure!(
            record.seq == self.cursor.next(),
            "record {} of {:?} came after {}",
            record.seq,
            self.id,
            self.cursor
        );
        self.cursor = record.seq;
        let payload = record.payload.as_slice();
        let Ok(RecordBody::Commit(entry)) = decode(payload) else {
            return Ok(false);
        };
        let filler = entry.commit.as_slice().last_chunk().copied();
        self.access = filler.ok_or_else(|| anyhow::anyhow!("a commit without a key"))?;
        self.epoch = self.epoch.next();
        self.opening = entry_hash(self.id, self.epoch, payload);
        Ok(true)
    }
}

fn create(access: &[u8; 32]) -> Vec<u8> {
    let access_key = SigningKey::from_seed(access).public();
    encode(&RecordBody::Create { access_key })
}
