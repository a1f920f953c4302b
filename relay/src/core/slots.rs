//! Slots of the directory key, left by one device for another; the relay cannot open them.

use mortise_protocol::identity::{DeviceId, OrgId, Slot};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::{Push, Refusal, Response, limits};

use super::append::check_size;
use super::layout::{self, SLOTS, SlotRecord, of_device};
use super::turn::{Answer, Caller, Turn};

/// `enc` and `ciphertext` of one slot together; 80 for DHKEM(X25519).
pub(super) const MAX_SLOT_BYTES: usize = 256;

impl Turn<'_> {
    /// Stores the caller's slots for admitted devices, one for each; the earlier one is replaced.
    pub(super) fn put_slots(&mut self, caller: &Caller, slots: &[Slot]) -> Answer {
        check_size(slots.len(), limits::MAX_SLOTS)?;
        for slot in slots {
            // Or else anybody could replace what others have left.
            if slot.filler != caller.device {
                return Err(Refusal::Malformed.into());
            }
            let bytes = slot.enc.as_slice().len() + slot.ciphertext.as_slice().len();
            check_size(bytes, MAX_SLOT_BYTES)?;
        }
        for slot in slots {
            if self.roster(caller.org)?.is_admitted(slot.device) {
                self.put_slot(caller.org, slot)?;
                self.push_to_device(caller.org, slot.device, &Push::SlotsWaiting);
            }
        }
        Ok(Response::Done)
    }

    fn put_slot(&mut self, org: OrgId, slot: &Slot) -> Result<(), StoreError> {
        let record = SlotRecord {
            at_ms: self.now_ms,
            enc: slot.enc.clone(),
            ciphertext: slot.ciphertext.clone(),
        };
        let key = [&of_device(org, slot.device)[..], &slot.filler.0].concat();
        if self.tx.get(SLOTS, &key)?.is_none() {
            self.make_room(org, slot.device)?;
        }
        layout::save(self.tx, SLOTS, key, &record);
        Ok(())
    }

    /// Deletes the oldest slot of a full set: nobody can keep a new directory key from a device by filling it.
    fn make_room(&mut self, org: OrgId, device: DeviceId) -> Result<(), StoreError> {
        let rows = self.tx.scan(SLOTS, &of_device(org, device))?;
        if rows.len() < limits::MAX_SLOTS {
            return Ok(());
        }
        let mut ages = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            ages.push((layout::read::<SlotRecord>(&row)?.at_ms, key));
        }
        if let Some((_, oldest)) = ages.into_iter().min() {
            self.tx.delete(SLOTS, oldest);
        }
        Ok(())
    }

    /// The slots for the caller.
    pub(super) fn fetch_slots(&mut self, caller: &Caller) -> Answer {
        let rows = self.tx.scan(SLOTS, &of_device(caller.org, caller.device))?;
        let slots = rows
            .iter()
            .map(|(key, row)| {
                let record: SlotRecord = layout::read(row)?;
                Ok(Slot {
                    device: caller.device,
                    filler: DeviceId(layout::key_tail(key)?),
                    enc: record.enc,
                    ciphertext: record.ciphertext,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Response::Slots { slots })
    }

    /// Deletes what waits for a device that an order named (REQ-062).
    pub(super) fn delete_slots(&mut self, org: OrgId, device: DeviceId) -> Result<(), StoreError> {
        for (key, _) in self.tx.scan(SLOTS, &of_device(org, device))? {
            self.tx.delete(SLOTS, key);
        }
        Ok(())
    }
}
