//! KeyPackages that devices stock for others: each one-time one is handed out once, the last resort when none is left.

use std::collections::BTreeSet;

use mortise_protocol::identity::{DeviceId, Hash, OrgId, sha256};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::{ClaimedKeyPackage, Flag, Push, Refusal, Response, limits};
use tls_codec::VLByteVec;

use super::append::check_size;
use super::layout::{
    self, KEY_PACKAGES, KEY_QUEUES, KeyQueueRecord, LAST_RESORTS, of_device, of_suite,
};
use super::turn::{Answer, Caller, Failure, Turn};

/// With fewer left after a claim, the owner is told.
const LOW: u64 = 5;
/// Suites that one device may stock KeyPackages for.
pub(super) const MAX_SUITES: usize = 8;

impl KeyQueueRecord {
    const EMPTY: Self = Self {
        first: 0,
        next: 0,
        last_resort: Flag::No,
    };

    fn left(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }
}

impl Turn<'_> {
    /// Stocks KeyPackages; one that is in stock already is not stocked twice, so that resending is safe.
    pub(super) fn publish_key_packages(
        &mut self,
        caller: &Caller,
        suite: u16,
        one_time: &[VLByteVec],
        last_resort: &[u8],
    ) -> Answer {
        check_size(one_time.len(), limits::MAX_KEY_PACKAGES)?;
        for package in one_time {
            if package.as_slice().is_empty() {
                return Err(Refusal::Malformed.into());
            }
            check_size(package.as_slice().len(), limits::MAX_KEY_PACKAGE_BYTES)?;
        }
        check_size(last_resort.len(), limits::MAX_KEY_PACKAGE_BYTES)?;
        let key = of_suite(caller.org, caller.device, suite);
        let mut queue = self.key_queue(caller, &key)?;
        let mut stocked = self.stocked(&key, &queue)?;
        let new: Vec<&[u8]> = one_time
            .iter()
            .map(VLByteVec::as_slice)
            .filter(|package| stocked.insert(sha256(package)))
            .collect();
        check_size(stocked.len(), limits::MAX_KEY_PACKAGES)?;
        for package in new {
            layout::save_bytes(
                self.tx,
                KEY_PACKAGES,
                package_key(&key, queue.next),
                package,
            );
            queue.next += 1;
        }
        if !last_resort.is_empty() {
            layout::save_bytes(self.tx, LAST_RESORTS, key.clone(), last_resort);
            queue.last_resort = Flag::Yes;
        }
        layout::save(self.tx, KEY_QUEUES, key, &queue);
        Ok(Response::Done)
    }

    /// The queue of a suite that the device stocks, or a new one if it stocks few enough.
    fn key_queue(&self, caller: &Caller, key: &[u8]) -> Result<KeyQueueRecord, Failure> {
        if let Some(queue) = layout::load(self.tx, KEY_QUEUES, key)? {
            return Ok(queue);
        }
        let suites = self.key_queues(caller.org, caller.device)?;
        check_size(suites.len() + 1, MAX_SUITES)?;
        Ok(KeyQueueRecord::EMPTY)
    }

    fn stocked(&self, key: &[u8], queue: &KeyQueueRecord) -> Result<BTreeSet<Hash>, StoreError> {
        let mut hashes = BTreeSet::new();
        for n in queue.first..queue.next {
            if let Some(package) = layout::load_bytes(self.tx, KEY_PACKAGES, &package_key(key, n))?
            {
                hashes.insert(sha256(&package));
            }
        }
        Ok(hashes)
    }

    /// Hands out one KeyPackage for each of the devices that are admitted and have any.
    pub(super) fn claim_key_packages(
        &mut self,
        caller: &Caller,
        suite: u16,
        devices: &[DeviceId],
    ) -> Answer {
        check_size(devices.len(), limits::MAX_DEVICES_PER_REQUEST)?;
        let mut seen = BTreeSet::new();
        let mut packages = Vec::new();
        for &device in devices {
            if !seen.insert(device) || !self.roster(caller.org)?.is_admitted(device) {
                continue;
            }
            if let Some(bytes) = self.claim_one(caller.org, device, suite)? {
                packages.push(ClaimedKeyPackage {
                    device,
                    key_package: bytes.into(),
                });
            }
        }
        Ok(Response::KeyPackages { packages })
    }

    fn claim_one(
        &mut self,
        org: OrgId,
        device: DeviceId,
        suite: u16,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = of_suite(org, device, suite);
        let Some(mut queue) = layout::load::<KeyQueueRecord>(self.tx, KEY_QUEUES, &key)? else {
            return Ok(None);
        };
        let package = if queue.left() > 0 {
            let oldest = package_key(&key, queue.first);
            let package = layout::load_bytes(self.tx, KEY_PACKAGES, &oldest)?;
            self.tx.delete(KEY_PACKAGES, oldest);
            queue.first += 1;
            layout::save(self.tx, KEY_QUEUES, key, &queue);
            package
        } else {
            layout::load_bytes(self.tx, LAST_RESORTS, &key)?
        };
        if queue.left() < LOW {
            let left = u32::try_from(queue.left()).unwrap_or(u32::MAX);
            self.push_to_device(org, device, &Push::KeyPackagesLow { left });
        }
        Ok(package)
    }

    /// One-time KeyPackages left over all suites, and whether any suite has a last resort.
    pub(super) fn count_key_packages(
        &self,
        org: OrgId,
        device: DeviceId,
    ) -> Result<(u32, bool), StoreError> {
        let queues = self.key_queues(org, device)?;
        let left: u64 = queues.iter().map(KeyQueueRecord::left).sum();
        let last_resort = queues.iter().any(|q| q.last_resort.into());
        Ok((u32::try_from(left).unwrap_or(u32::MAX), last_resort))
    }

    fn key_queues(&self, org: OrgId, device: DeviceId) -> Result<Vec<KeyQueueRecord>, StoreError> {
        let rows = self.tx.scan(KEY_QUEUES, &of_device(org, device))?;
        rows.iter().map(|(_, row)| layout::read(row)).collect()
    }

    /// Deletes the stock of a device that an order named (REQ-062).
    pub(super) fn delete_key_packages(
        &mut self,
        org: OrgId,
        device: DeviceId,
    ) -> Result<(), StoreError> {
        for space in [KEY_PACKAGES, LAST_RESORTS, KEY_QUEUES] {
            for (key, _) in self.tx.scan(space, &of_device(org, device))? {
                self.tx.delete(space, key);
            }
        }
        Ok(())
    }
}

fn package_key(queue: &[u8], n: u64) -> Vec<u8> {
    [queue, &n.to_be_bytes()].concat()
}
