//! One batch being decided: the state it may change, its transaction, and who may ask what.

use std::collections::BTreeSet;

use mortise_protocol::identity::{DeviceId, OrgId, PublicKey, UserId};
use mortise_protocol::roster::Roster;
use mortise_protocol::store::{StoreError, Tx};
use mortise_protocol::wire::{ClientToRelay, ConnectionBinding, Push, Refusal, Request, Response};

use super::connections::Connections;
use super::order_state::OrderSets;
use super::outbox::Outbox;
use super::rate::Rates;
use super::rosters::Rosters;
use super::{ConnId, CoreConfig, Input, Output, StreamId};

/// Why there is no answer: the device is told, or the whole batch fails.
#[derive(Debug)]
pub(super) enum Failure {
    /// To this question; nothing was written for it.
    Refused(Refusal),
    /// The store failed.
    Store(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a handler gives. It must not write before it has decided not to refuse.
pub(super) type Answer = Result<Response, Failure>;

/// An admitted device on its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) conn: ConnId,
    pub(super) org: OrgId,
    pub(super) device: DeviceId,
    pub(super) user: UserId,
    pub(super) mls_signature_key: PublicKey,
    pub(super) binding: ConnectionBinding,
}

/// One batch.
pub(super) struct Turn<'a> {
    pub(super) config: &'a CoreConfig,
    pub(super) rosters: &'a mut Rosters,
    pub(super) connections: &'a mut Connections,
    pub(super) rates: &'a mut Rates,
    pub(super) order_sets: &'a mut OrderSets,
    pub(super) tx: &'a Tx<'a>,
    pub(super) now_ms: u64,
    pub(super) outbox: Outbox,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        config: &'a CoreConfig,
        rosters: &'a mut Rosters,
        connections: &'a mut Connections,
        rates: &'a mut Rates,
        order_sets: &'a mut OrderSets,
        tx: &'a Tx<'a>,
        now_ms: u64,
    ) -> Self {
        Self {
            config,
            rosters,
            connections,
            rates,
            order_sets,
            tx,
            now_ms,
            outbox: Outbox::default(),
        }
    }

    pub(super) fn into_outputs(self) -> Vec<Output> {
        self.outbox.into_outputs()
    }

    /// The batch in the order in which it is decided: as it came, but that an administrator's order, if it is the first
    /// thing on its connection, goes before the first roster entry: no flood of those outruns it (REQ-107).
    pub(super) fn sequence<'i>(&self, inputs: &'i [Input]) -> Vec<&'i Input> {
        let Some(at) = inputs.iter().position(is_append) else {
            return inputs.iter().collect();
        };
        let (before, after) = inputs.split_at(at);
        let mut seen: BTreeSet<ConnId> = before.iter().filter_map(connection).collect();
        let first = |input: &&Input| {
            connection(input).is_some_and(|conn| seen.insert(conn)) && self.is_urgent(input)
        };
        let (urgent, rest): (Vec<_>, Vec<_>) = after.iter().partition(first);
        before.iter().chain(urgent).chain(rest).collect()
    }

    /// Decides one input. A frame of a connection that is unknown, or was closed, is dropped.
    pub(super) fn handle(&mut self, input: &Input) -> Result<(), StoreError> {
        let Input::Frame {
            conn,
            stream,
            frame: ClientToRelay { id, request },
        } = input
        else {
            match input {
                Input::Moved(moved) => return self.follow(moved),
                Input::Disconnected { conn } => self.rates.forget(*conn),
                Input::Connected { .. } | Input::Frame { .. } => {}
            }
            self.connections.handle(input);
            return Ok(());
        };
        if !self.connections.contains(*conn) {
            return Ok(());
        }
        let pending = self.outbox.reserve(*conn, *stream, *id);
        let response = match self.answer(*conn, *stream, request) {
            Ok(response) => response,
            Err(Failure::Refused(refusal)) => Response::Refused(refusal),
            Err(Failure::Store(error)) => return Err(error),
        };
        self.outbox.answer(&pending, response);
        Ok(())
    }

    /// What anybody may ask, what needs a `Hello`, and what needs an admitted device (REQ-054).
    fn answer(&mut self, conn: ConnId, stream: StreamId, request: &Request) -> Answer {
        match request {
            Request::Hello { org, .. } => return self.hello(conn, stream, *org),
            Request::Found { claim_token, entry } => {
                return self.found(claim_token.as_slice(), entry.as_slice());
            }
            _ => {}
        }
        let org = self.org_of(conn).ok_or(Refusal::HelloFirst)?;
        match request {
            Request::FetchRoster { after } => return self.fetch_roster(conn, org, *after),
            Request::AppendRoster { entry, slots } => {
                return self.append_roster(conn, org, entry.as_slice(), slots);
            }
            _ => {}
        }
        let caller = self.caller(conn).ok_or(Refusal::NotAdmitted)?;
        self.answer_admitted(&caller, request)
    }

    fn answer_admitted(&mut self, caller: &Caller, request: &Request) -> Answer {
        self.charge(caller, request)?;
        match request {
            Request::PutSlots { slots } => self.put_slots(caller, slots),
            Request::FetchSlots => self.fetch_slots(caller),
            Request::FetchSlotless => self.fetch_slotless(caller),
            Request::PutCheckpoint { checkpoint } => self.put_checkpoint(caller, checkpoint),
            Request::FetchCheckpoints => self.fetch_checkpoints(caller),
            Request::PublishKeyPackages {
                suite,
                one_time,
                last_resort,
            } => self.publish_key_packages(caller, *suite, one_time, last_resort.as_slice()),
            Request::ClaimKeyPackages { suite, devices } => {
                self.claim_key_packages(caller, *suite, devices)
            }
            Request::CreateGroup { group, payload } => self.create_group(caller, *group, payload),
            Request::Submit(submission) => self.submit(caller, submission),
            Request::Subscribe {
                group,
                epoch,
                after,
                credit,
                proof,
            } => self.subscribe(caller, *group, *epoch, *after, *credit, proof),
            Request::AskResync { group, key_package } => {
                self.ask_resync(caller, *group, key_package)
            }
            Request::FetchInbox { after } => self.fetch_inbox(caller, *after),
            Request::OrderStatus { order } => self.order_status(caller, *order),
            Request::OrderState { order } => self.order_state(caller, *order),
            Request::OrderProof { order, group } => self.order_proof(caller, *order, *group),
            Request::PutReceipt { receipt } => self.put_receipt(caller, receipt),
            Request::FetchReceipts {
                order,
                after_group,
                after_device,
            } => self.fetch_receipts(caller, *order, (*after_group, *after_device)),
            // Answered before a device is asked for.
            Request::Hello { .. }
            | Request::Found { .. }
            | Request::FetchRoster { .. }
            | Request::AppendRoster { .. } => Err(Refusal::Malformed.into()),
        }
    }

    /// The organisation that the connection's `Hello` named.
    pub(super) fn org_of(&self, conn: ConnId) -> Option<OrgId> {
        Some(self.connections.at(conn)?.hello?.0)
    }

    /// The admitted device at the other end, by the roster as it is at this point of the batch (REQ-054).
    pub(super) fn caller(&self, conn: ConnId) -> Option<Caller> {
        let connection = self.connections.at(conn)?;
        let (org, _) = connection.hello?;
        let (device, record) = self
            .rosters
            .at(org)?
            .device_by_transport_key(&connection.transport_key)
            .filter(|(_, record)| record.is_admitted())?;
        Some(Caller {
            conn,
            org,
            device,
            user: record.user,
            mls_signature_key: record.mls_signature_key,
            binding: connection.binding,
        })
    }

    /// The roster of an organisation that a connection was greeted for.
    pub(super) fn roster(&self, org: OrgId) -> Result<&Roster, Refusal> {
        self.rosters.at(org).ok_or(Refusal::UnknownOrg)
    }

    /// Pushes to a connection, on the stream of its `Hello`.
    pub(super) fn push(&mut self, conn: ConnId, push: Push) {
        if let Some(stream) = self.stream_of(conn) {
            self.outbox.push(conn, stream, push);
        }
    }

    /// The stream for a connection's pushes.
    pub(super) fn stream_of(&self, conn: ConnId) -> Option<StreamId> {
        let (_, stream) = self.connections.at(conn)?.hello?;
        Some(stream)
    }

    /// Pushes to all connections of a device.
    pub(super) fn push_to_device(&mut self, org: OrgId, device: DeviceId, push: &Push) {
        let key = self
            .rosters
            .at(org)
            .and_then(|r| r.device(device))
            .map(|d| d.transport_key);
        for conn in key.map_or_else(Vec::new, |key| self.connections.of_key(org, key)) {
            self.push(conn, push.clone());
        }
    }
}

fn connection(input: &Input) -> Option<ConnId> {
    match input {
        Input::Connected { conn, .. }
        | Input::Disconnected { conn }
        | Input::Frame { conn, .. } => Some(*conn),
        Input::Moved(_) => None,
    }
}

fn is_append(input: &Input) -> bool {
    let Input::Frame { frame, .. } = input else {
        return false;
    };
    matches!(frame.request, Request::AppendRoster { .. })
}
