//! A connection that an attacker drives by hand, with whatever key it is opened.

use mortise_protocol::identity::{GroupId, LogSeq, PublicKey, RosterSeq, encode};
use mortise_protocol::wire::log::{AccessProof, ConnectionBinding, Purpose};
use mortise_protocol::wire::{
    LogRecord, Push, Refusal, RelayToClient, Request, Response, Submission, limits,
};
use mortise_relay::core::ConnId;

use crate::villain::{Crafted, Villain};
use crate::world::World;

/// The connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    pub(super) conn: ConnId,
    pub(super) binding: ConnectionBinding,
}

impl Door {
    /// Knocks with this key, and says Hello; what comes unasked is kept.
    pub(super) fn open(world: &mut World, transport_key: PublicKey) -> Self {
        let (conn, binding) = world.open_line(transport_key);
        world.tap_line(conn);
        let door = Self { conn, binding };
        let org = world.people[0].engine().org();
        let roster_seq = world.people[0].engine().roster().head().seq;
        door.ask(world, Request::Hello { org, roster_seq });
        door
    }

    /// Asks; `None` when nothing is answered.
    pub(super) fn ask(self, world: &mut World, request: Request) -> Option<Response> {
        let heard = world.ask_on_line(self.conn, request);
        heard.into_iter().find_map(|frame| match frame {
            RelayToClient::Response { response, .. } => Some(response),
            RelayToClient::Push(_) => None,
        })
    }

    /// Submits, with a real proof of the epoch's key, made for this connection.
    pub(super) fn submit(
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

    /// Subscribes with the keys that `by` holds; whether the relay grants it.
    pub(super) fn subscribe(self, world: &mut World, by: &Villain) -> bool {
        let (entry_hash, _) = by.cursor(world);
        let (group, epoch) = (by.group, by.epoch());
        let key = by.access_key();
        let proof = AccessProof::sign(&key, &self.binding, group, epoch, entry_hash, Purpose::Read);
        let request = Request::Subscribe {
            group,
            epoch,
            after: LogSeq(0),
            credit: limits::MAX_CREDIT,
            proof,
        };
        matches!(self.ask(world, request), Some(Response::Subscribed { .. }))
    }

    /// Records under a fence from this one on that have come.
    pub(super) fn leaked(self, world: &World, group: GroupId, from: RosterSeq) -> usize {
        let pushed = world.tapped(self.conn).iter();
        let records = pushed.filter_map(|frame| match frame {
            RelayToClient::Push(Push::Records { group: g, records }) if *g == group => {
                Some(records)
            }
            _ => None,
        });
        let late = |record: &&LogRecord| record.fence >= from;
        records.flatten().filter(late).count()
    }
}
