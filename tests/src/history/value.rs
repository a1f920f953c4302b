//! What a history is made of.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{DeviceId, Epoch, GroupId, Hash, LogSeq, RosterSeq};
use mortise_protocol::wire::Refusal;

/// What a record of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens a log.
    Create,
    /// Closes an epoch and opens the next.
    Commit,
    /// An application message or a leave.
    Message,
    /// A statement about an order.
    Attestation,
    /// Ends a log.
    Restart,
}

/// What a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// To append a record to a log.
    Append {
        /// The group.
        group: GroupId,
        /// The record's id.
        record: Hash,
    },
    /// To append an entry to the roster.
    AppendRoster {
        /// Where.
        seq: RosterSeq,
        /// The entry's hash.
        entry: Hash,
    },
    /// For the records of an epoch.
    Subscribe {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: the call may or may not have had its effect.
    Unknown,
    /// The record is there, with this fence.
    Appended {
        /// Where.
        seq: LogSeq,
        /// The fence stamped on it.
        fence: RosterSeq,
    },
    /// The entry is there.
    RosterAppended {
        /// Where.
        seq: RosterSeq,
    },
    /// The log ends there.
    Subscribed {
        /// The newest record.
        head_seq: LogSeq,
        /// The newest epoch.
        head_epoch: Epoch,
    },
    /// It was refused, and had no effect.
    Refused(Refusal),
}

/// A question, its answer, and when; times are positions on one clock that all clients share, in any unit.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asked.
    pub client: DeviceId,
    /// When it was sent.
    pub invoked: u64,
    /// When the answer was received, if it was.
    pub returned: Option<u64>,
    /// What was asked.
    pub question: Question,
    /// What was answered.
    pub reply: Reply,
}

/// A roster entry, as it stands in the end; the first is entry 1.
#[derive(Clone, Debug)]
pub struct RosterRow {
    /// Its hash.
    pub entry: Hash,
    /// The devices that it names, if it is an order.
    pub order: Option<BTreeSet<DeviceId>>,
}

/// A record, as it stands in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalRecord {
    /// Its place.
    pub seq: LogSeq,
    /// The epoch that it was sent in.
    pub epoch: Epoch,
    /// The fence stamped on it.
    pub fence: RosterSeq,
    /// Its id.
    pub record: Hash,
    /// What it is.
    pub kind: Kind,
    /// The sender's roster head; 0 for `Create`.
    pub based_on: RosterSeq,
}

/// A record that came to a device.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// To whom.
    pub client: DeviceId,
    /// When.
    pub at: u64,
    /// The group.
    pub group: GroupId,
    /// Where in its log.
    pub seq: LogSeq,
    /// With which fence.
    pub fence: RosterSeq,
    /// Which.
    pub record: Hash,
}

/// What an honest device made of somebody's message.
#[derive(Clone, Copy, Debug)]
pub struct Judgement {
    /// Whose judgement.
    pub client: DeviceId,
    /// The group.
    pub group: GroupId,
    /// The message.
    pub seq: LogSeq,
    /// Whether the user was shown it.
    pub accepted: bool,
}

/// Everything that a checker needs to know.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What was asked and answered.
    pub calls: Vec<Call>,
    /// What came unasked.
    pub deliveries: Vec<Delivery>,
    /// The roster in the end, from entry 1.
    pub roster: Vec<RosterRow>,
    /// How many of its entries are older than the recording.
    pub roster_before: RosterSeq,
    /// The logs in the end.
    pub logs: BTreeMap<GroupId, Vec<FinalRecord>>,
    /// The newest record of each log that is older than the recording.
    pub logs_before: BTreeMap<GroupId, LogSeq>,
    /// Who is in the tree of an epoch, as far as any honest member has said.
    pub trees: BTreeMap<(GroupId, Epoch), BTreeSet<DeviceId>>,
    /// What honest devices made of messages.
    pub judgements: Vec<Judgement>,
    /// Devices that do not keep the rules; everybody else is honest.
    pub liars: BTreeSet<DeviceId>,
}

impl History {
    /// The entry at a seq.
    #[must_use]
    pub fn entry(&self, seq: RosterSeq) -> Option<&RosterRow> {
        let index = usize::try_from(seq.0).ok()?.checked_sub(1)?;
        self.roster.get(index)
    }

    /// The orders, by seq.
    pub fn orders(&self) -> impl Iterator<Item = (RosterSeq, &BTreeSet<DeviceId>)> {
        let rows = (1..).map(RosterSeq).zip(&self.roster);
        rows.filter_map(|(seq, row)| Some((seq, row.order.as_ref()?)))
    }

    /// The first order that names a device.
    #[must_use]
    pub fn burned_at(&self, device: DeviceId) -> Option<RosterSeq> {
        self.orders()
            .find(|(_, devices)| devices.contains(&device))
            .map(|(seq, _)| seq)
    }

    /// The record at a place.
    #[must_use]
    pub fn record(&self, group: GroupId, seq: LogSeq) -> Option<&FinalRecord> {
        let index = usize::try_from(seq.0).ok()?.checked_sub(1)?;
        self.logs.get(&group)?.get(index)
    }

    /// Whether a record is older than the recording.
    pub(super) fn is_old(&self, group: GroupId, seq: LogSeq) -> bool {
        self.logs_before.get(&group).is_some_and(|old| seq <= *old)
    }
}
