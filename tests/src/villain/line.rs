//! A connection of a villain's own: its device on another machine.

use mortise_protocol::identity::{Epoch, GroupId, LogSeq, SigningKey, encode};
use mortise_protocol::wire::log::{AccessProof, ConnectionBinding, Purpose};
use mortise_protocol::wire::{Refusal, RelayToClient, Request, Response, Submission, limits};
use mortise_relay::core::ConnId;

use super::{Crafted, Villain};
use crate::world::World;

/// An admitted connection to the relay.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    conn: ConnId,
    binding: ConnectionBinding,
}

impl Line {
    /// Connects as a villain's device.
    ///
    /// # Panics
    /// When the relay is down.
    pub fn open(world: &mut World, villain: &Villain) -> Self {
        let (conn, binding) = world.open_line(villain.transport_key);
        let line = Self { conn, binding };
        let hello = Request::Hello {
            org: villain.org,
            roster_seq: villain.roster.0,
        };
        line.ask(world, hello);
        line
    }

    /// Asks the relay; `None` while it writes, or when it has closed the connection.
    pub fn ask(self, world: &mut World, request: Request) -> Option<Response> {
        let heard = world.ask_on_line(self.conn, request);
        heard.into_iter().find_map(|frame| match frame {
            RelayToClient::Response { response, .. } => Some(response),
            RelayToClient::Push(_) => None,
        })
    }

    /// Submits what was made, with the access key of the epoch that it is for.
    ///
    /// # Errors
    /// What the relay refuses it with; STORAGE when it did not answer.
    pub fn submit(
        self,
        world: &mut World,
        by: &Villain,
        made: &Crafted,
    ) -> Result<LogSeq, Refusal> {
        let (entry_hash, _) = by.cursor(world);
        let proof = AccessProof::sign(
            &by.access_key(),
            &self.binding,
            by.group,
            made.epoch,
            entry_hash,
            Purpose::Append,
        );
        let submission = Submission {
            group: by.group,
            epoch: made.epoch,
            payload: encode(&made.body).into(),
            welcomes: made.welcomes.clone(),
            proof,
        };
        match self.ask(world, Request::Submit(submission)) {
            Some(Response::Appended { seq, .. }) => Ok(seq),
            Some(Response::Refused(refusal)) => Err(refusal),
            _ => Err(Refusal::Storage),
        }
    }

    /// Proves to the relay that this device holds the key of an epoch, as somebody does who has taken it up (REQ-151).
    ///
    /// # Errors
    /// What the relay refuses it with; STORAGE when it did not answer.
    ///
    /// # Panics
    /// When the log holds no commit that leads to that epoch.
    pub fn confirm(
        self,
        world: &mut World,
        group: GroupId,
        epoch: Epoch,
        access_key: &SigningKey,
    ) -> Result<(), Refusal> {
        let log = world.log(group);
        let opening = log
            .iter()
            .rfind(|r| r.epoch.next() == epoch && is_commit(r));
        let payload = opening.expect("the commit").payload.as_slice();
        let entry_hash = mortise_protocol::wire::log::entry_hash(group, epoch, payload);
        let purpose = Purpose::Read;
        let binding = &self.binding;
        let proof = AccessProof::sign(access_key, binding, group, epoch, entry_hash, purpose);
        let subscribe = Request::Subscribe {
            group,
            epoch,
            after: LogSeq(0),
            credit: limits::MAX_CREDIT,
            proof,
        };
        match self.ask(world, subscribe) {
            Some(Response::Subscribed { .. }) => Ok(()),
            Some(Response::Refused(refusal)) => Err(refusal),
            _ => Err(Refusal::Storage),
        }
    }
}

fn is_commit(record: &mortise_protocol::wire::LogRecord) -> bool {
    record.payload.as_slice().first() == Some(&2)
}
