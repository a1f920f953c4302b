//! What the bench and its worker processes say to each other: JSON, one value per line.

use anyhow::Context as _;
use mortise_protocol::engine::{DeviceKeys, Identity, RelayAddress};
use mortise_protocol::identity::{DirectoryKey, Hash, OrgId, SealSecret, SigningKey, UserId};
use serde::{Deserialize, Serialize};

use super::device::SeenDevice;

/// The name of the file that says who is who.
pub const FIXTURE: &str = "fixture.json";

/// The organisation, for every worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fixture {
    /// Which organisation.
    pub org: OrgId,
    /// `host:port` of the relay.
    pub relay: String,
    /// The hash of its certificate's key.
    pub relay_key: Hash,
    /// The directory key.
    pub directory: [u8; 32],
    /// By number.
    pub devices: Vec<DeviceSeed>,
}

impl Fixture {
    /// A device's identity, with the directory key; none for a device that joins by a link.
    pub(in crate::bench) fn identity(&self, number: usize) -> anyhow::Result<Option<Identity>> {
        let seed = self.devices.get(number).context("no such device")?;
        let Some([mls, transport, seal]) = &seed.keys else {
            return Ok(None);
        };
        let relay = RelayAddress {
            address: self.relay.clone(),
            key: self.relay_key,
        };
        let keys = DeviceKeys {
            mls: SigningKey::from_seed(mls),
            transport: SigningKey::from_seed(transport),
            seal: SealSecret::new(SigningKey::from_seed(seal)),
        };
        let directory = DirectoryKey::from_bytes(self.directory);
        let identity = Identity::with_keys(self.org, seed.user, relay, keys);
        Ok(Some(identity.with_directory(directory)))
    }
}

/// One device's keys. They are worth nothing outside this bench.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceSeed {
    /// Whose.
    pub user: UserId,
    /// Of the MLS signature key, of the transport key, of the sealing key; none for a device that joins by a link.
    pub keys: Option<[[u8; 32]; 3]>,
}

/// What the bench wants of a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Starts a device.
    Start {
        /// Which.
        device: usize,
    },
    /// Starts the others.
    StartAll {
        /// How many come online at a time.
        at_once: usize,
    },
    /// Has a device redeem an invitation.
    Join {
        /// Which.
        device: usize,
        /// The link.
        link: String,
    },
    /// Has a device do something.
    Do {
        /// Which.
        device: usize,
        /// What.
        what: What,
    },
    /// Shows what the devices have seen.
    Look {
        /// Records of the log are shown from after this position on.
        after: u64,
    },
    /// Shows lines of a device's history.
    Lines {
        /// Whose.
        device: usize,
        /// After this position of the log.
        after: u64,
    },
    /// Shows every device's group.
    States,
    /// Shows what every device has sent and received.
    Traffic,
}

/// What a device can be asked to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Invite somebody.
    Invite {
        /// Their name.
        name: String,
    },
    /// Create the group.
    Create {
        /// Its members.
        users: Vec<UserId>,
    },
    /// Send a text to the group.
    Send {
        /// The text.
        text: String,
    },
    /// Order a user's removal.
    RemoveUser {
        /// Whose.
        user: UserId,
    },
    /// Ask how the groups stand.
    OrderStatus {
        /// With regard to which order.
        order: u64,
    },
}

/// A worker's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done, or under way.
    Done,
    /// It cannot be done.
    Failed {
        /// Why.
        why: String,
    },
    /// To [`Ask::Look`], by number.
    Look {
        /// What each has seen.
        devices: Vec<SeenDevice>,
    },
    /// To [`Ask::Lines`].
    Lines {
        /// Oldest first.
        lines: Vec<Line>,
    },
    /// To [`Ask::States`], by number: the epoch and the epoch authenticator, for who is in the group.
    States {
        /// What each has.
        states: Vec<Option<(u64, Vec<u8>)>>,
    },
    /// To [`Ask::Traffic`], by number: UDP payload bytes sent and received.
    Traffic {
        /// What each has cost.
        traffic: Vec<(u64, u64)>,
    },
}

/// What came of something that a device was asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// `invited`, `created`, `appended`, `done`, `ordered`, `status`.
    pub what: String,
    /// When it was asked, microseconds since 1970.
    pub asked_us: u64,
    /// When it was answered.
    pub at_us: u64,
    /// A position in the log or the roster.
    pub number: u64,
    /// A link, or an order's status.
    pub text: String,
    /// The invited user.
    pub user: Option<UserId>,
}

/// A line of a group's history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Its position in the log.
    pub seq: u64,
    /// The relay's clock, ms since 1970.
    pub at_ms: u64,
    /// `added`, `rotated`, `refreshed`, `text` or another.
    pub kind: String,
}
