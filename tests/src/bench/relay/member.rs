//! A device on its connection, without MLS: it speaks the wire protocol, proves, submits and reads.
//!
//! The records are of the size and form of MLS messages, with the public header and the authenticated data that the
//! relay checks; what would be ciphertext is filler.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mortise_client::transport::{self, Connection};
use mortise_protocol::identity::{
    ClaimLink, Epoch, GroupId, Hash, LogSeq, OrgId, RosterSeq, SigningKey, encode,
};
use mortise_protocol::roster::Head;
use mortise_protocol::wire::aad::{AuthenticatedData, ContentType};
use mortise_protocol::wire::log::{AccessProof, LogCursor, Purpose, RecordBody, entry_hash};
use mortise_protocol::wire::{
    ClientToRelay, LogRecord, Push, RelayToClient, Request, RequestId, Response, Submission, limits,
};
use tls_codec::{TlsSerialize, TlsSize, VLByteVec};

use super::plan::{RECORD_BYTES, Seen};
use crate::bench::sample::now_us;

const CONNECT: Duration = Duration::from_secs(30);
const EPOCH: Epoch = Epoch(0);

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

/// A group as its members know it.
#[derive(Debug)]
pub(super) struct Group {
    id: GroupId,
    access: SigningKey,
    opening: Hash,
    aad: Vec<u8>,
}

impl Group {
    /// A group that is yet to be created.
    pub(super) fn new(seed: [u8; 32], roster: Head) -> Self {
        let id = GroupId(seed);
        let access = SigningKey::from_seed(&seed);
        let opening = entry_hash(id, EPOCH, &create(&access));
        let cursor = LogCursor::created(opening, RosterSeq(0));
        let aad = AuthenticatedData::new(roster.seq, roster.hash, cursor).to_bytes();
        Self {
            id,
            access,
            opening,
            aad,
        }
    }

    /// A record of [`RECORD_BYTES`], unlike any other, that ends with the time at which it was made.
    fn record(&self, filler: &mut u64) -> Vec<u8> {
        // What is around the ciphertext; lengths of this size take two bytes.
        let around = encode(&self.message(Vec::new())).len() + 1 + 1 + 2;
        let mut ciphertext = Vec::with_capacity(RECORD_BYTES);
        while ciphertext.len() < RECORD_BYTES - around - 8 {
            *filler = filler
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ciphertext.extend_from_slice(&filler.to_be_bytes());
        }
        ciphertext.truncate(RECORD_BYTES - around - 8);
        ciphertext.extend_from_slice(&now_us().to_be_bytes());
        let message = encode(&self.message(ciphertext));
        encode(&RecordBody::Message(message.into()))
    }

    fn message(&self, ciphertext: Vec<u8>) -> Message {
        Message {
            version: 1,
            wire_format: 2,
            group: self.id.0.to_vec().into(),
            epoch: EPOCH,
            content_type: ContentType::Application,
            aad: self.aad.clone().into(),
            sender_data: vec![0; 28].into(),
            ciphertext: ciphertext.into(),
        }
    }
}

fn create(access: &SigningKey) -> Vec<u8> {
    let access_key = access.public();
    encode(&RecordBody::Create { access_key })
}

/// When a record was made, from its last bytes.
fn made_at(record: &LogRecord) -> u64 {
    let stamp = record.payload.as_slice().last_chunk();
    stamp.map_or(0, |stamp| u64::from_be_bytes(*stamp))
}

/// A device's view of a group that it reads.
struct Reading {
    group: Arc<Group>,
    last: LogSeq,
    credit: u32,
}

/// A connected device.
pub(super) struct Member {
    connection: Connection,
    asked: u64,
    filler: u64,
    reading: HashMap<GroupId, Reading>,
    proofs: HashMap<GroupId, AccessProof>,
}

/// What a device does in a round.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Where it sends; one message after the other in turn.
    pub(super) to: Vec<Arc<Group>>,
    pub(super) in_flight: usize,
    pub(super) messages: usize,
    pub(super) expected: usize,
}

impl Member {
    /// Connects and greets.
    pub(super) async fn connect(
        claim: &ClaimLink,
        org: OrgId,
        key: Arc<SigningKey>,
        number: u64,
    ) -> anyhow::Result<Self> {
        let connection = transport::connect(&claim.relay, claim.relay_key, key, CONNECT).await?;
        let mut member = Self {
            connection,
            asked: 0,
            filler: now_us() ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            reading: HashMap::new(),
            proofs: HashMap::new(),
        };
        let roster_seq = RosterSeq(0);
        member.ask(Request::Hello { org, roster_seq }).await?;
        Ok(member)
    }

    fn send(&mut self, request: Request) -> anyhow::Result<RequestId> {
        self.asked += 1;
        let id = RequestId(self.asked);
        self.connection.send(&ClientToRelay { id, request })?;
        Ok(id)
    }

    async fn next(&mut self) -> anyhow::Result<RelayToClient> {
        match self.connection.recv().await {
            Some(frame) => Ok(frame),
            None => bail!("the relay is gone: {}", self.connection.end()),
        }
    }

    async fn ask(&mut self, request: Request) -> anyhow::Result<()> {
        let asked = self.send(request)?;
        loop {
            if let RelayToClient::Response { id, response } = self.next().await?
                && id == asked
            {
                return match response {
                    Response::Refused(refusal) => bail!("the relay refused: {refusal}"),
                    _ => Ok(()),
                };
            }
        }
    }

    /// Makes a group.
    pub(super) async fn create(&mut self, group: &Group) -> anyhow::Result<()> {
        let payload = create(&group.access).into();
        self.ask(Request::CreateGroup {
            group: group.id,
            payload,
        })
        .await
    }

    /// Reads a group from its start on, live.
    pub(super) async fn subscribe(&mut self, group: Arc<Group>) -> anyhow::Result<()> {
        self.subscribe_after(group, LogSeq(1)).await
    }

    /// The groups that it reads, and how far.
    pub(super) fn places(&self) -> Vec<(Arc<Group>, LogSeq)> {
        let reading = self.reading.values();
        reading.map(|r| (Arc::clone(&r.group), r.last)).collect()
    }

    /// Reads a group's log up to a position, page by page, each record once and in order.
    pub(super) async fn pull(&mut self, group: &Arc<Group>, upto: u64) -> anyhow::Result<()> {
        let mut reading = Reading {
            group: Arc::clone(group),
            last: LogSeq(1),
            credit: 0,
        };
        while reading.last.0 < upto {
            let request = self.subscription(&reading);
            let asked = self.send(request)?;
            let before = reading.last;
            let mut is_answered = false;
            // An answer, and at least one record.
            while !is_answered || reading.last == before {
                match self.next().await? {
                    RelayToClient::Response { id, response } if id == asked => match response {
                        Response::Refused(refusal) => bail!("the relay refused: {refusal}"),
                        _ => is_answered = true,
                    },
                    RelayToClient::Push(Push::Records { records, .. }) => {
                        for record in &records {
                            ensure!(record.seq == reading.last.next(), "a record is missing");
                            reading.last = record.seq;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Reads a group from behind a position on, live.
    pub(super) async fn subscribe_after(
        &mut self,
        group: Arc<Group>,
        last: LogSeq,
    ) -> anyhow::Result<()> {
        let id = group.id;
        let reading = Reading {
            group,
            last,
            credit: limits::MAX_CREDIT,
        };
        let request = self.subscription(&reading);
        self.reading.insert(id, reading);
        self.ask(request).await
    }

    fn proof(&self, group: &Group, purpose: Purpose) -> AccessProof {
        let binding = self.connection.binding();
        AccessProof::sign(
            &group.access,
            &binding,
            group.id,
            EPOCH,
            group.opening,
            purpose,
        )
    }

    fn subscription(&self, reading: &Reading) -> Request {
        Request::Subscribe {
            group: reading.group.id,
            epoch: EPOCH,
            after: reading.last,
            credit: limits::MAX_CREDIT,
            proof: self.proof(&reading.group, Purpose::Read),
        }
    }

    fn submit(&mut self, group: &Group) -> anyhow::Result<()> {
        let proof = match self.proofs.get(&group.id) {
            Some(proof) => proof.clone(),
            None => self.proof(group, Purpose::Append),
        };
        self.proofs.insert(group.id, proof.clone());
        let payload = group.record(&mut self.filler).into();
        let submission = Submission {
            group: group.id,
            epoch: EPOCH,
            payload,
            welcomes: Vec::new(),
            proof,
        };
        self.send(Request::Submit(submission)).map(drop)
    }

    /// One round: sends its share, and reads until everything expected has come, each record once and in order.
    pub(super) async fn work(&mut self, job: &Job) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let mut waiting = VecDeque::new();
        let to_send = if job.to.is_empty() { 0 } else { job.messages };
        let mut sent = 0;
        while seen.delays.len() < job.expected || seen.acks.len() < to_send {
            while sent < to_send && waiting.len() < job.in_flight {
                let group = Arc::clone(&job.to[sent % job.to.len()]);
                waiting.push_back(now_us());
                self.submit(&group)?;
                sent += 1;
            }
            match self.next().await? {
                RelayToClient::Response { response, .. } => match response {
                    Response::Appended { .. } => {
                        let since = waiting.pop_front().context("an answer to nothing")?;
                        seen.acks.push(now_us().saturating_sub(since));
                    }
                    Response::Refused(refusal) => bail!("the relay refused: {refusal}"),
                    _ => {}
                },
                RelayToClient::Push(Push::Records { group, records }) => {
                    self.take(group, &records, &mut seen)?;
                }
                RelayToClient::Push(_) => {}
            }
        }
        Ok(seen)
    }

    fn take(
        &mut self,
        group: GroupId,
        records: &[LogRecord],
        seen: &mut Seen,
    ) -> anyhow::Result<()> {
        let now = now_us();
        let reading = self.reading.get_mut(&group).context("a group not read")?;
        for record in records {
            ensure!(
                record.seq == reading.last.next(),
                "record {} came after {}",
                record.seq.0,
                reading.last.0
            );
            reading.last = record.seq;
            reading.credit = reading.credit.saturating_sub(1);
            seen.delays.push(now.saturating_sub(made_at(record)));
        }
        // Not earlier: what is under way would come twice.
        if reading.credit == 0 {
            reading.credit = limits::MAX_CREDIT;
            if let Some(reading) = self.reading.get(&group) {
                let request = self.subscription(reading);
                self.send(request)?;
            }
        }
        Ok(())
    }

    /// Reads nothing, and stays.
    pub(super) async fn wait_closed(&mut self) {
        while self.connection.recv().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_protocol::identity::decode;
    use mortise_protocol::wire::aad::PrivateHeader;

    #[test]
    fn a_record_is_what_the_relay_takes_and_as_long_as_it_says() {
        let head = Head {
            seq: RosterSeq(3),
            hash: Hash([4; 32]),
        };
        let group = Group::new([5; 32], head);
        let mut filler = 1;
        let (one, other) = (group.record(&mut filler), group.record(&mut filler));
        assert_eq!((one.len(), other.len()), (RECORD_BYTES, RECORD_BYTES));
        assert_ne!(one, other);
        let RecordBody::Message(message) = decode(&one).expect("a record") else {
            panic!("not a message");
        };
        let header = PrivateHeader::parse(message.as_slice()).expect("a header");
        assert_eq!((header.group, header.aad.roster_seq), (group.id, head.seq));
    }
}
