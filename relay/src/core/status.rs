//! What an administrator may know: counts, never who talks to whom.

use mortise_protocol::identity::{DeviceId, OrgId, RosterSeq};
use mortise_protocol::roster::Roster;
use mortise_protocol::store::Store;

use super::layout::ORG_GROUPS;
use super::quotas::Quotas;
use super::{ConnId, Core, CoreError};

/// One organisation in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrgStatus {
    /// Which.
    pub org: OrgId,
    /// The roster's newest entry.
    pub roster_seq: RosterSeq,
    /// The newest order.
    pub fence: RosterSeq,
    /// Users that were not removed.
    pub users: usize,
    /// Admitted devices.
    pub devices: usize,
    /// Groups.
    pub groups: usize,
}

/// The relay in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its organisations, by id.
    pub orgs: Vec<OrgStatus>,
    /// Connections, admitted or not.
    pub connections: usize,
    /// Subscriptions of all connections.
    pub subscriptions: usize,
    /// Whether everything is refused because the store failed.
    pub stopped: bool,
    /// How much devices may ask (REQ-320).
    pub quotas: Quotas,
    /// Questions that were refused for these since the start.
    pub over_quota: u64,
}

impl Core {
    /// Whether the connection has said `Hello` and belongs to an admitted device, now.
    #[must_use]
    pub fn is_admitted(&self, conn: ConnId) -> bool {
        self.device_of(conn).is_some()
    }

    /// The admitted device that a connection belongs to, now.
    pub(super) fn device_of(&self, conn: ConnId) -> Option<DeviceId> {
        let connection = self.connections.at(conn)?;
        let roster = self.rosters.at(connection.hello?.0)?;
        let (device, record) = roster.device_by_transport_key(&connection.transport_key)?;
        record.is_admitted().then_some(device)
    }

    /// The relay in numbers.
    ///
    /// # Errors
    /// [`CoreError::Store`].
    pub fn status(&self, store: &dyn Store) -> Result<Status, CoreError> {
        let orgs = self
            .rosters
            .iter()
            .map(|roster| org_status(roster, store))
            .collect::<Result<_, _>>()?;
        Ok(Status {
            orgs,
            connections: self.connections.len(),
            subscriptions: self.connections.subscriptions_len(),
            stopped: self.stopped,
            quotas: self.rates.meter.quotas(),
            over_quota: self.rates.meter.refusals(),
        })
    }
}

fn org_status(roster: &Roster, store: &dyn Store) -> Result<OrgStatus, CoreError> {
    let org = roster.org();
    let groups = store.range(ORG_GROUPS, &org.0, &org.0, usize::MAX)?;
    Ok(OrgStatus {
        org,
        roster_seq: roster.head().seq,
        fence: roster.fence(),
        users: roster.users().filter(|(_, u)| !u.is_removed()).count(),
        devices: roster.devices().filter(|(_, d)| d.is_admitted()).count(),
        groups: groups.len(),
    })
}
