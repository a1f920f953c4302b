//! What can be seen of a device from outside, whichever stack it has.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::identity::{DeviceId, GroupId, LogSeq, UserId};

use super::group::{CommandId, Standing};

/// A device's view of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLook {
    /// Where it stands.
    pub standing: Standing,
    /// The MLS epoch.
    pub epoch: u64,
    /// The epoch authenticator (RFC 9420 §8.7); empty for who is out.
    pub authenticator: Vec<u8>,
    /// Devices in the tree, by leaf.
    pub members: Vec<(DeviceId, UserId)>,
    /// Group admins.
    pub admins: BTreeSet<UserId>,
}

/// A text that was sent in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it is in the log.
    pub seq: LogSeq,
    /// The epoch that it was sent in.
    pub epoch: u64,
    /// Whose it is.
    pub device: DeviceId,
    /// What it says.
    pub text: String,
}

/// What can be seen of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Every group that it knows.
    pub groups: BTreeMap<GroupId, GroupLook>,
    /// The authenticators of the epochs that it was seen in.
    pub epochs: BTreeMap<(GroupId, u64), Vec<u8>>,
    /// The texts that it shows.
    pub texts: BTreeMap<GroupId, Vec<Line>>,
    /// Whether it is connected and up to date, and nothing of its own is on its way.
    pub settled: bool,
    /// Whether it is not admitted any more.
    pub expelled: bool,
    /// How many of its own commits it has met; of the other stack only.
    pub commits: u64,
    /// What must not happen.
    pub faults: Vec<String>,
    /// What came of what it was asked to do.
    pub outcomes: BTreeMap<CommandId, Result<(), String>>,
}
