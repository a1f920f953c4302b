//! What a batch is going to need of a store that is far away: read from the questions, before anything is decided.
//!
//! A plan saves journeys and decides nothing: a row that it does not name is read when it is asked for, and a batch
//! that goes further than its [`Reach`] says is refused by the store and planned anew.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{OrgId, sha256};
use mortise_protocol::roster::SignedEntry;
use mortise_protocol::store::Space;
use mortise_protocol::wire::{ClientToRelay, Request, Submission};

use super::layout::{
    EPOCHS, GROUPS, ORG_GROUPS, RECORD_IDS, ROSTER, of_group, of_org, of_org_group, of_record,
};
use super::moved::PAGE;
use super::{ConnId, Core, Input, Moved};

/// What a batch does to the store, as far as others must be kept out (REQ-300).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It reads, at one moment.
    Reads,
    /// It writes under this node's lane.
    Writes,
    /// It may add to the roster: no node writes meanwhile.
    Roster,
}

/// One batch of one organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose.
    pub org: OrgId,
    /// How far it goes.
    pub reach: Reach,
    /// Rows that the batch changes and others want too: locked, in this order, before anything is read.
    pub locks: BTreeSet<Vec<u8>>,
    /// The table of the locked rows.
    pub locked_space: Space,
    /// Rows that are going to be read.
    pub wanted: BTreeMap<Space, BTreeSet<Vec<u8>>>,
    /// The range that holds the roster entries that this node has not seen: prefix, start, and how many.
    pub unseen: (Space, Vec<u8>, Vec<u8>, usize),
}

impl Plan {
    /// To look at the store as it is at one moment, whoever's it is.
    #[must_use]
    pub fn reading() -> Self {
        let org = OrgId([0; 32]);
        Self {
            org,
            reach: Reach::Reads,
            locks: BTreeSet::new(),
            locked_space: GROUPS,
            wanted: BTreeMap::new(),
            unseen: (ROSTER, org.0.to_vec(), of_org(org, 0), 0),
        }
    }

    fn want(&mut self, space: Space, key: Vec<u8>) {
        self.wanted.entry(space).or_default().insert(key);
    }

    fn reach(&mut self, reach: Reach) {
        self.reach = self.reach.max(reach);
    }

    fn submission(&mut self, submission: &Submission) {
        let (group, epoch) = (submission.group, submission.epoch);
        self.reach(Reach::Writes);
        self.locks.insert(group.0.to_vec());
        self.want(EPOCHS, of_group(group, epoch.0));
        self.want(EPOCHS, of_group(group, epoch.next().0));
    }
}

impl Core {
    /// Whose question it is, as far as this core knows: of a connection, what its `Hello` has said.
    #[must_use]
    pub fn org_of(&self, conn: ConnId, frame: &ClientToRelay) -> Option<OrgId> {
        match &frame.request {
            Request::Hello { org, .. } => Some(*org),
            Request::Found { entry, .. } => {
                let entry = SignedEntry::parse(entry.as_slice()).ok()?;
                Some(entry.tbs().org)
            }
            _ => self.connections.at(conn)?.hello.map(|(org, _)| org),
        }
    }

    /// What a batch of one organisation is going to need.
    #[must_use]
    pub fn plan(&self, org: OrgId, inputs: &[Input]) -> Plan {
        let known = self.rosters.at(org).map_or(0, |roster| roster.head().seq.0);
        let mut plan = Plan {
            org,
            reach: Reach::Reads,
            locks: BTreeSet::new(),
            locked_space: GROUPS,
            wanted: BTreeMap::new(),
            unseen: (ROSTER, org.0.to_vec(), of_org(org, known + 1), PAGE),
        };
        for input in inputs {
            match input {
                Input::Frame { conn, frame, .. } => self.plan_frame(&mut plan, *conn, frame),
                Input::Moved(Moved::Log(_, group, _)) => {
                    plan.want(GROUPS, group.0.to_vec());
                    for (_, subscription) in self.connections.subscribers(*group) {
                        let next = of_group(*group, subscription.epoch.next().0);
                        plan.want(EPOCHS, next);
                    }
                }
                _ => {}
            }
        }
        plan
    }

    fn plan_frame(&self, plan: &mut Plan, conn: ConnId, frame: &ClientToRelay) {
        match &frame.request {
            Request::Submit(submission) => {
                plan.submission(submission);
                let record = sha256(submission.payload.as_slice());
                if let Some(device) = self.device_of(conn) {
                    plan.want(RECORD_IDS, of_record(submission.group, record, device));
                }
            }
            Request::CreateGroup { group, payload } => {
                plan.reach(Reach::Writes);
                plan.want(GROUPS, group.0.to_vec());
                plan.want(EPOCHS, of_group(*group, 0));
                plan.want(ORG_GROUPS, of_org_group(plan.org, *group));
                let record = sha256(payload.as_slice());
                if let Some(device) = self.device_of(conn) {
                    plan.want(RECORD_IDS, of_record(*group, record, device));
                }
            }
            Request::Subscribe { group, epoch, .. } => {
                plan.want(GROUPS, group.0.to_vec());
                plan.want(EPOCHS, of_group(*group, epoch.0));
                plan.want(EPOCHS, of_group(*group, epoch.next().0));
            }
            Request::Found { .. } | Request::AppendRoster { .. } => plan.reach(Reach::Roster),
            Request::PutSlots { .. }
            | Request::PutCheckpoint { .. }
            | Request::PublishKeyPackages { .. }
            | Request::ClaimKeyPackages { .. }
            | Request::AskResync { .. }
            | Request::FetchInbox { .. }
            | Request::PutReceipt { .. } => plan.reach(Reach::Writes),
            Request::Hello { .. }
            | Request::FetchRoster { .. }
            | Request::FetchSlots
            | Request::FetchSlotless
            | Request::FetchCheckpoints
            | Request::OrderStatus { .. }
            | Request::OrderState { .. }
            | Request::OrderProof { .. }
            | Request::FetchReceipts { .. } => {}
        }
    }
}
