//! Welcomes that wait for devices, each stored once with the commit that it came with (REQ-053).

use std::collections::BTreeSet;

use mortise_protocol::identity::{DeviceId, GroupId, Hash, LogSeq, OrgId};
use mortise_protocol::store::{Pair, StoreError};
use mortise_protocol::wire::{InboxItem, Push, Response, WelcomeFor, limits};

use super::layout::{
    self, INBOX, INBOX_NEXT, InboxNextRecord, InboxRecord, WELCOMES, WELCOMES_LEFT,
    WelcomeLeftRecord, of_device, of_welcome,
};
use super::turn::{Answer, Caller, Turn};

impl Turn<'_> {
    /// Stores a commit's Welcomes for those of the named devices that are admitted, with the log's hash before the commit.
    pub(super) fn deliver_welcomes(
        &mut self,
        caller: &Caller,
        group: GroupId,
        (commit_seq, log_hash): (LogSeq, Hash),
        welcomes: &[WelcomeFor],
    ) -> Result<(), StoreError> {
        for (n, WelcomeFor { devices, welcome }) in (0..).zip(welcomes) {
            let item = InboxRecord {
                group,
                commit_seq,
                welcome: n,
                log_hash,
            };
            let devices: BTreeSet<DeviceId> = devices
                .iter()
                .copied()
                .filter(|device| {
                    let roster = self.rosters.at(caller.org);
                    roster.is_some_and(|roster| roster.is_admitted(*device))
                })
                .collect();
            if devices.is_empty() {
                continue;
            }
            let left = devices.len() as u64;
            layout::save_bytes(self.tx, WELCOMES, of_welcome(&item), welcome.as_slice());
            let key = of_welcome(&item);
            layout::save(self.tx, WELCOMES_LEFT, key, &WelcomeLeftRecord { left });
            for device in devices {
                self.delete_resync(caller.org, device, group);
                self.put_in_inbox(caller.org, device, &item)?;
                self.push_to_device(caller.org, device, &Push::InboxWaiting);
            }
        }
        Ok(())
    }

    fn put_in_inbox(
        &mut self,
        org: OrgId,
        device: DeviceId,
        item: &InboxRecord,
    ) -> Result<(), StoreError> {
        let inbox = of_device(org, device);
        let next: Option<InboxNextRecord> = layout::load(self.tx, INBOX_NEXT, &inbox)?;
        let seq = next.map_or(1, |record| record.next);
        layout::save(self.tx, INBOX, item_key(&inbox, seq), item);
        let next = seq.saturating_add(1);
        layout::save(self.tx, INBOX_NEXT, inbox, &InboxNextRecord { next });
        Ok(())
    }

    /// Deletes what the device has dealt with, and returns the oldest of the rest.
    pub(super) fn fetch_inbox(&mut self, caller: &Caller, after: u64) -> Answer {
        let inbox = of_device(caller.org, caller.device);
        self.delete_items(&inbox, after)?;
        let rows = self
            .tx
            .scan_from(INBOX, &inbox, &inbox, limits::MAX_INBOX_PAGE + 1)?;
        let mut items: Vec<InboxItem> = Vec::new();
        let mut bytes = 0;
        for row in rows.iter().take(limits::MAX_INBOX_PAGE) {
            let item = self.open_item(row)?;
            let size = item.welcome.as_slice().len() + item.entry.payload.as_slice().len();
            if !items.is_empty() && bytes + size > limits::MAX_PAGE_BYTES {
                break;
            }
            bytes += size;
            items.push(item);
        }
        let more = (rows.len() > items.len()).into();
        Ok(Response::Inbox { items, more })
    }

    fn open_item(&self, (key, row): &Pair) -> Result<InboxItem, StoreError> {
        let item: InboxRecord = layout::read(row)?;
        let welcome = layout::load_bytes(self.tx, WELCOMES, &of_welcome(&item))?;
        let welcome = welcome.ok_or(StoreError::Corrupt {
            reason: "an inbox item has no Welcome",
        })?;
        Ok(InboxItem {
            seq: u64::from_be_bytes(layout::key_tail(key)?),
            group: item.group,
            welcome: welcome.into(),
            entry: layout::load_log(self.tx, item.group, item.commit_seq)?,
            log_hash: item.log_hash,
        })
    }

    fn delete_items(&mut self, inbox: &[u8], up_to: u64) -> Result<(), StoreError> {
        for (key, row) in self.tx.scan(INBOX, inbox)? {
            if u64::from_be_bytes(layout::key_tail(&key)?) > up_to {
                break;
            }
            self.tx.delete(INBOX, key);
            self.release_welcome(&layout::read(&row)?)?;
        }
        Ok(())
    }

    /// Deletes a Welcome with the last inbox that refers to it.
    fn release_welcome(&mut self, item: &InboxRecord) -> Result<(), StoreError> {
        let key = of_welcome(item);
        let record: WelcomeLeftRecord = layout::load_existing(self.tx, WELCOMES_LEFT, &key)?;
        let left = record.left.saturating_sub(1);
        if left == 0 {
            self.tx.delete(WELCOMES, key.clone());
            self.tx.delete(WELCOMES_LEFT, key);
        } else {
            layout::save(self.tx, WELCOMES_LEFT, key, &WelcomeLeftRecord { left });
        }
        Ok(())
    }

    /// Whether anything waits for a device.
    pub(super) fn inbox_waiting(&self, org: OrgId, device: DeviceId) -> Result<bool, StoreError> {
        let inbox = of_device(org, device);
        Ok(!self.tx.scan_from(INBOX, &inbox, &inbox, 1)?.is_empty())
    }

    /// Deletes everything that waits for a device that an order named (REQ-062).
    pub(super) fn delete_inbox(&mut self, org: OrgId, device: DeviceId) -> Result<(), StoreError> {
        let inbox = of_device(org, device);
        self.delete_items(&inbox, u64::MAX)?;
        self.tx.delete(INBOX_NEXT, inbox);
        Ok(())
    }
}

fn item_key(inbox: &[u8], seq: u64) -> Vec<u8> {
    [inbox, &seq.to_be_bytes()].concat()
}
