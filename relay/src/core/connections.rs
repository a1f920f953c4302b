//! Who is connected and what they subscribe to: the only state that the relay keeps in memory alone.

use std::collections::BTreeSet;

use mortise_protocol::identity::{Epoch, GroupId, LogSeq, OrgId, PublicKey};
use mortise_protocol::wire::ConnectionBinding;
use mortise_protocol::wire::log::{AccessProof, Purpose};

use super::journal::Journal;
use super::proofs::Proofs;
use super::subscribers::Subscribers;
use super::{ConnId, Input, StreamId};

/// A connection, as far as decisions need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) transport_key: PublicKey,
    pub(super) binding: ConnectionBinding,
    /// What its `Hello` said: the organisation, and the stream for pushes.
    pub(super) hello: Option<(OrgId, StreamId)>,
}

/// A connection's interest in one epoch of a group: fixed size, whatever the reader does (REQ-056).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) epoch: Epoch,
    /// The record that it waits for; once missed, the device pulls from its cursor.
    pub(super) next_seq: LogSeq,
    pub(super) credit: u32,
    /// Where its pushes go.
    pub(super) stream: StreamId,
    /// The epoch is closed and read; only a Restart that names it as its parent is still to come (REQ-150).
    pub(super) awaits_restart: bool,
    /// What exists did not fit a page: it is the device's to ask for the rest, and nothing is pushed until then.
    pub(super) pulls: bool,
}

const FIRST: ConnId = ConnId(0);
const LAST: ConnId = ConnId(u64::MAX);
const FIRST_GROUP: GroupId = GroupId([0; 32]);
const LAST_GROUP: GroupId = GroupId([0xff; 32]);

/// Every connection and subscription.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_id: Journal<ConnId, Connection>,
    by_key: Journal<(OrgId, PublicKey, ConnId), ()>,
    subscribers: Subscribers,
    groups: Journal<(ConnId, GroupId), ()>,
    proofs: Proofs,
    /// Groups whose subscribers have not been pushed all that there is.
    unfinished: Vec<(OrgId, GroupId)>,
}

impl Connections {
    /// Takes note of who comes and goes; a frame is not its business.
    pub(super) fn handle(&mut self, input: &Input) {
        match input {
            Input::Connected {
                conn,
                transport_key,
                binding,
            } => self.by_id.insert(
                *conn,
                Connection {
                    transport_key: *transport_key,
                    binding: *binding,
                    hello: None,
                },
            ),
            Input::Disconnected { conn } => self.remove(*conn),
            Input::Frame { .. } | Input::Moved(_) => {}
        }
    }

    pub(super) fn remove(&mut self, conn: ConnId) {
        for group in self.groups_of(conn) {
            self.unsubscribe(conn, group);
        }
        self.proofs.forget(conn);
        let Some(connection) = self.by_id.remove(conn) else {
            return;
        };
        if let Some((org, _)) = connection.hello {
            self.by_key.remove((org, connection.transport_key, conn));
        }
    }

    /// Notes what a `Hello` says.
    pub(super) fn greet(&mut self, conn: ConnId, org: OrgId, pushes: StreamId) {
        if let Some(mut connection) = self.by_id.at(conn) {
            connection.hello = Some((org, pushes));
            self.by_id.insert(conn, connection);
            self.by_key
                .insert((org, connection.transport_key, conn), ());
        }
        for group in self.groups_of(conn) {
            if let Some(mut subscription) = self.subscribers.at(group, conn) {
                subscription.stream = pushes;
                self.subscribers.set(group, conn, subscription);
            }
        }
    }

    pub(super) fn at(&self, conn: ConnId) -> Option<Connection> {
        self.by_id.at(conn)
    }

    pub(super) fn contains(&self, conn: ConnId) -> bool {
        self.by_id.at(conn).is_some()
    }

    /// Every connection of an organisation, with its TLS key.
    pub(super) fn of_org(&self, org: OrgId) -> Vec<(PublicKey, ConnId)> {
        let keys = (org, PublicKey([0; 32]), FIRST)..=(org, PublicKey([0xff; 32]), LAST);
        self.by_key
            .range(keys)
            .map(|((_, key, conn), ())| (key, conn))
            .collect()
    }

    /// The connections of one device.
    pub(super) fn of_key(&self, org: OrgId, key: PublicKey) -> Vec<ConnId> {
        self.by_key
            .range((org, key, FIRST)..=(org, key, LAST))
            .map(|((_, _, conn), ())| conn)
            .collect()
    }

    pub(super) fn subscribe(&mut self, conn: ConnId, group: GroupId, to: Subscription) {
        self.subscribers.set(group, conn, to);
        self.groups.insert((conn, group), ());
    }

    pub(super) fn unsubscribe(&mut self, conn: ConnId, group: GroupId) {
        self.subscribers.remove(group, conn);
        self.groups.remove((conn, group));
    }

    /// A connection's subscription to a group.
    pub(super) fn subscription(&self, conn: ConnId, group: GroupId) -> Option<Subscription> {
        self.subscribers.at(group, conn)
    }

    /// A group's subscriptions, by connection.
    pub(super) fn subscribers(&self, group: GroupId) -> &[(ConnId, Subscription)] {
        self.subscribers.of(group)
    }

    /// A group's subscriptions, to be changed in place.
    pub(super) fn subscribers_mut(
        &mut self,
        group: GroupId,
    ) -> impl Iterator<Item = (ConnId, &mut Subscription)> {
        self.subscribers.of_mut(group)
    }

    /// Whether this very proof was found valid before.
    pub(super) fn has_proven(
        &self,
        conn: ConnId,
        group: GroupId,
        epoch: Epoch,
        purpose: Purpose,
        proof: &AccessProof,
    ) -> bool {
        self.proofs.has(conn, group, epoch, purpose, proof)
    }

    /// Remembers a proof that was found valid.
    pub(super) fn note_proof(
        &mut self,
        conn: ConnId,
        group: GroupId,
        epoch: Epoch,
        purpose: Purpose,
        proof: &AccessProof,
    ) {
        self.proofs.note(conn, group, epoch, purpose, proof);
    }

    /// The groups that a connection subscribes to.
    pub(super) fn groups_of(&self, conn: ConnId) -> Vec<GroupId> {
        self.groups
            .range((conn, FIRST_GROUP)..=(conn, LAST_GROUP))
            .map(|((_, group), ())| group)
            .collect()
    }

    /// Every group that somebody reads.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.subscribers.groups()
    }

    /// Every organisation that somebody was greeted for.
    pub(super) fn orgs(&self) -> BTreeSet<OrgId> {
        let hellos = self.by_id.range(..).filter_map(|(_, c)| c.hello);
        hellos.map(|(org, _)| org).collect()
    }

    pub(super) fn note_unfinished(&mut self, org: OrgId, group: GroupId) {
        self.unfinished.push((org, group));
    }

    pub(super) fn take_unfinished(&mut self) -> Vec<(OrgId, GroupId)> {
        std::mem::take(&mut self.unfinished)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn subscriptions_len(&self) -> usize {
        self.subscribers.len()
    }

    pub(super) fn keep(&mut self) {
        self.by_id.keep();
        self.by_key.keep();
        self.subscribers.keep();
        self.groups.keep();
    }

    pub(super) fn revert(&mut self) {
        self.by_id.revert();
        self.by_key.revert();
        self.subscribers.revert();
        self.groups.revert();
    }
}
