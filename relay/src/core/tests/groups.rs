//! Groups as their members know them; the ciphertext is made up.

use mortise_protocol::identity::{
    Epoch, GroupId, Hash, LogSeq, RosterSeq, Signature, SigningKey, encode,
};
use mortise_protocol::roster::Roster;
use mortise_protocol::store::Store;
use mortise_protocol::wire::aad::{AuthenticatedData, ContentType};
use mortise_protocol::wire::log::{
    AccessProof, CommitEntry, LogCursor, Purpose, RecordBody, entry_hash,
};
use mortise_protocol::wire::{Request, Response, Submission};
use tls_codec::{TlsSerialize, TlsSize, VLByteVec};

use super::fixture::{Device, World, binding, key};
use crate::core::ConnId;

/// What the relay sees of an MLS PrivateMessage.
#[derive(TlsSerialize, TlsSize)]
pub(super) struct FakeMessage {
    pub(super) version: u16,
    pub(super) wire_format: u16,
    pub(super) group: VLByteVec,
    pub(super) epoch: Epoch,
    pub(super) content_type: ContentType,
    pub(super) aad: VLByteVec,
    pub(super) sender_data: VLByteVec,
    pub(super) ciphertext: VLByteVec,
}

/// A group as its members know it: every epoch's access key and opening entry.
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) keys: Vec<SigningKey>,
    pub(super) openings: Vec<Hash>,
    made: u64,
}

impl Group {
    /// A group that is yet to be created.
    pub(super) fn new(n: u8) -> Self {
        let id = GroupId([n; 32]);
        let access = key(7, u64::from(n) << 32);
        let mut group = Self {
            id,
            keys: vec![access],
            openings: Vec::new(),
            made: 0,
        };
        let opening = entry_hash(id, Epoch(0), &group.create_payload());
        group.openings.push(opening);
        group
    }

    pub(super) fn create_payload(&self) -> Vec<u8> {
        let access_key = self.keys[0].public();
        encode(&RecordBody::Create { access_key })
    }

    pub(super) fn create_request(&self) -> Request {
        Request::CreateGroup {
            group: self.id,
            payload: self.create_payload().into(),
        }
    }

    /// A group that the relay has.
    pub(super) fn created<S: Store>(n: u8, world: &mut World<S>, conn: ConnId) -> Self {
        let group = Self::new(n);
        let answer = world.ask(conn, group.create_request());
        let seq = LogSeq(1);
        let fence = world.roster.fence();
        assert_eq!(answer, Response::Appended { seq, fence });
        group
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.openings.len() as u64 - 1)
    }

    pub(super) fn opening(&self, epoch: Epoch) -> Hash {
        self.openings[usize::try_from(epoch.0).expect("small")]
    }

    pub(super) fn access_key(&self, epoch: Epoch) -> &SigningKey {
        &self.keys[usize::try_from(epoch.0).expect("small")]
    }

    pub(super) fn proof(&self, conn: ConnId, epoch: Epoch, purpose: Purpose) -> AccessProof {
        let (key, opening) = (self.access_key(epoch), self.opening(epoch));
        AccessProof::sign(key, &binding(conn), self.id, epoch, opening, purpose)
    }

    /// An MLS message in the newest epoch, by a sender with this roster, unlike any before it.
    pub(super) fn message_at(
        &mut self,
        content_type: ContentType,
        (seq, hash): (RosterSeq, Hash),
        bytes: usize,
    ) -> FakeMessage {
        self.made += 1;
        let mut ciphertext = vec![0; bytes.max(8)];
        ciphertext[..8].copy_from_slice(&self.made.to_be_bytes());
        let cursor = LogCursor::created(self.opening(self.epoch()), RosterSeq(0));
        FakeMessage {
            version: 1,
            wire_format: 2,
            group: self.id.0.to_vec().into(),
            epoch: self.epoch(),
            content_type,
            aad: AuthenticatedData::new(seq, hash, cursor).to_bytes().into(),
            sender_data: vec![0; 28].into(),
            ciphertext: ciphertext.into(),
        }
    }

    pub(super) fn message(&mut self, content_type: ContentType, roster: &Roster) -> FakeMessage {
        self.message_at(content_type, at_head(roster), 32)
    }

    /// A submission in the newest epoch, with a good proof.
    pub(super) fn submission(&self, conn: ConnId, body: &RecordBody) -> Submission {
        Submission {
            group: self.id,
            epoch: self.epoch(),
            payload: encode(body).into(),
            welcomes: Vec::new(),
            proof: self.proof(conn, self.epoch(), Purpose::Append),
        }
    }

    /// A good application message.
    pub(super) fn chat(&mut self, conn: ConnId, roster: &Roster) -> Submission {
        let message = self.message(ContentType::Application, roster);
        self.submission(conn, &RecordBody::Message(encode(&message).into()))
    }

    /// A good commit, and the access key that it names.
    pub(super) fn commit(
        &mut self,
        conn: ConnId,
        device: &Device,
        roster: &Roster,
    ) -> (Submission, SigningKey) {
        let message = self.message(ContentType::Commit, roster);
        let next = key(7, (u64::from(self.id.0[0]) << 32) + self.made);
        let (epoch, commit) = (self.epoch(), encode(&message));
        let entry = CommitEntry::sign(self.id, epoch, commit, next.public(), &device.mls);
        (self.submission(conn, &RecordBody::Commit(entry)), next)
    }

    /// Follows a commit that was accepted.
    pub(super) fn follow(&mut self, commit: &Submission, next: SigningKey) {
        let opening = entry_hash(self.id, self.epoch().next(), commit.payload.as_slice());
        self.openings.push(opening);
        self.keys.push(next);
    }

    pub(super) fn say<S: Store>(&mut self, world: &mut World<S>, conn: ConnId) -> Response {
        let submission = self.chat(conn, &world.roster);
        world.ask(conn, Request::Submit(submission))
    }

    /// Commits and follows; the record's position.
    pub(super) fn rotate<S: Store>(
        &mut self,
        world: &mut World<S>,
        conn: ConnId,
        device: &Device,
    ) -> LogSeq {
        let (submission, next) = self.commit(conn, device, &world.roster);
        let seq = appended(world.ask(conn, Request::Submit(submission.clone())));
        self.follow(&submission, next);
        seq
    }

    pub(super) fn subscribe_request(
        &self,
        conn: ConnId,
        epoch: Epoch,
        after: u64,
        credit: u32,
    ) -> Request {
        Request::Subscribe {
            group: self.id,
            epoch,
            after: LogSeq(after),
            credit,
            proof: self.proof(conn, epoch, Purpose::Read),
        }
    }

    /// Subscribes to the newest epoch: `(head_seq, head_epoch, last_readable)`.
    pub(super) fn subscribe<S: Store>(
        &self,
        world: &mut World<S>,
        conn: ConnId,
        epoch: Epoch,
        after: u64,
        credit: u32,
    ) -> (u64, u64, u64) {
        match world.ask(conn, self.subscribe_request(conn, epoch, after, credit)) {
            Response::Subscribed {
                head_seq,
                head_epoch,
                last_readable,
                ..
            } => (head_seq.0, head_epoch.0, last_readable.0),
            other => panic!("not subscribed: {other:?}"),
        }
    }
}

pub(super) fn at_head(roster: &Roster) -> (RosterSeq, Hash) {
    let head = roster.head();
    (head.seq, head.hash)
}

pub(super) fn appended(answer: Response) -> LogSeq {
    match answer {
        Response::Appended { seq, .. } => seq,
        other => panic!("not appended: {other:?}"),
    }
}

pub(super) fn no_signature() -> Signature {
    Signature([0; 64])
}
