//! A user's further devices come into the user's groups by themselves (REQ-127).
//!
//! What is wanted follows from the roster and the tree alone, so that nothing of it has to survive a restart.

use std::collections::BTreeSet;

use rand::RngCore as _;

use super::EngineError;
use super::election::{Election, turns};
use super::outbound::Work;
use super::pursue::Claim;
use super::state::{Chore, State};
use crate::group::Changes;
use crate::identity::{DeviceId, GroupId};
use crate::store::Tx;
use crate::wire::limits;

/// Stands for "own devices" where a claim names the intent that it is for: intents are numbered from 1.
pub(super) const OWN_DEVICES: u64 = 0;
/// How long after a claim that found no KeyPackage the first next one is made, ms; it doubles up to an hour.
const FIRST_RETRY_MS: u64 = 2_000;
const LAST_RETRY_MS: u64 = 3_600_000;

/// How long a new device is given to publish its KeyPackages, ms.
const SETTLING_MS: u64 = 1_000;

/// Devices that had no KeyPackage, and when they are asked for again.
pub(super) struct Absent {
    devices: BTreeSet<DeviceId>,
    wait_ms: u64,
}

impl State {
    /// Adds this user's admitted devices that are not in the tree; returns whether nothing can be done about it now.
    ///
    /// The user's devices that are in the tree take turns, so that mostly one of them asks for KeyPackages.
    pub(super) fn add_own_devices(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
    ) -> Result<bool, EngineError> {
        let chore = (work.id, Chore::OwnDevices);
        let wanted = self.own_devices_outside(work);
        if wanted.is_empty() {
            self.chores.remove(&chore);
            self.absent.remove(&work.id);
            self.forget_own_claim(work.id);
            return Ok(true);
        }
        if self
            .claims
            .get(&work.id)
            .is_some_and(|c| c.intent == OWN_DEVICES)
        {
            return self.use_own_claim(tx, work, &wanted);
        }
        let known = self.absent.get(&work.id).map(|absent| &absent.devices);
        if known.is_some_and(|known| wanted.iter().any(|d| !known.contains(d))) {
            self.absent.remove(&work.id);
            self.chores.remove(&chore);
        }
        let due = match self.chores.get(&chore) {
            Some(at) => *at,
            None => self.now_ms + self.turn_delay_ms(work),
        };
        self.chores.insert(chore, due);
        if due > self.now_ms {
            return Ok(self.absent.contains_key(&work.id));
        }
        if self.must_attest_first(tx, work)? {
            return Ok(false);
        }
        self.ask_claim(work, OWN_DEVICES, wanted, BTreeSet::new());
        Ok(false)
    }

    /// Commits what was claimed, or comes back later.
    fn use_own_claim(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        wanted: &[DeviceId],
    ) -> Result<bool, EngineError> {
        let chore = (work.id, Chore::OwnDevices);
        let Some(claim) = self.claims.get_mut(&work.id) else {
            return Ok(true);
        };
        let Some(packages) = claim.packages.take() else {
            if self.link.as_ref().is_some_and(|l| !l.asks_claim(work.id)) {
                self.claims.remove(&work.id);
            }
            return Ok(false);
        };
        self.claims.remove(&work.id);
        let mut adds = packages;
        adds.retain(|p| wanted.contains(&p.credential.device));
        if adds.is_empty() {
            let longer = |absent: &Absent| (absent.wait_ms * 2).min(LAST_RETRY_MS);
            let wait_ms = self.absent.get(&work.id).map_or(FIRST_RETRY_MS, longer);
            let devices = wanted.iter().copied().collect();
            self.absent.insert(work.id, Absent { devices, wait_ms });
            self.chores.insert(chore, self.now_ms + wait_ms);
            return Ok(true);
        }
        // If the commit loses its race, what is missing then is looked at again.
        self.chores.remove(&chore);
        let changes = Changes {
            adds,
            ..Changes::default()
        };
        self.commit(tx, work, None, changes)?;
        Ok(false)
    }

    fn own_devices_outside(&self, work: &Work<'_>) -> Vec<DeviceId> {
        let user = self.identity.user;
        let leaves = work.group.leaves();
        let own = self.roster.devices_of(user).map(|(device, _)| device);
        own.filter(|device| !leaves.iter().any(|l| l.device == *device))
            .collect()
    }

    /// How long this device leaves the work to the user's others that are in the group, ms.
    fn turn_delay_ms(&mut self, work: &Work<'_>) -> u64 {
        let own = work
            .group
            .leaves()
            .iter()
            .filter(|l| l.user == self.identity.user)
            .map(|l| l.device);
        let me = self.identity.device;
        let before = Election::Duty.before(work.id, work.row.epoch.0, me, own);
        let jitter = u64::from(self.rng.next_u32() % 100);
        SETTLING_MS + turns(before, 20) * limits::REMOVAL_LEASE_MS + jitter
    }

    fn forget_own_claim(&mut self, group: GroupId) {
        if self
            .claims
            .get(&group)
            .is_some_and(|c: &Claim| c.intent == OWN_DEVICES)
        {
            self.claims.remove(&group);
        }
    }
}
