//! Slots of the directory key, left by one device for another; the relay cannot open them.

use mortise_protocol::identity::{DeviceId, OrgId, Slot};
use mortise_protocol::roster::{Applied, EntrySigner};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::{Push, Refusal, Response, limits};

use super::append::check_size;
use super::layout::{self, SLOTLESS, SLOTS, SlotRecord, of_device};
use super::turn::{Answer, Caller, Failure, Turn};

/// `enc` and `ciphertext` of one slot together; 80 for DHKEM(X25519).
pub(super) const MAX_SLOT_BYTES: usize = 256;

impl Turn<'_> {
    /// Stores the caller's slots of the newest directory key for admitted devices, one for each; the earlier one is
    /// replaced.
    pub(super) fn put_slots(&mut self, caller: &Caller, slots: &[Slot]) -> Answer {
        check_slots(caller.device, slots)?;
        for device in self.store_slots(caller.org, slots)? {
            self.push_to_device(caller.org, device, &Push::SlotsWaiting);
        }
        Ok(Response::Done)
    }

    /// Stores slots; those of an older key, or for somebody who is not admitted, are no use to anybody.
    pub(super) fn store_slots(
        &mut self,
        org: OrgId,
        slots: &[Slot],
    ) -> Result<Vec<DeviceId>, Failure> {
        let mut stored = Vec::new();
        for slot in slots {
            let roster = self.roster(org)?;
            if roster.is_admitted(slot.device) && slot.generation == roster.directory_generation() {
                self.put_slot(org, slot)?;
                stored.push(slot.device);
            }
        }
        Ok(stored)
    }

    /// After an entry: who lacks the newest directory key now (REQ-101).
    ///
    /// Whoever made the key has it: the signing device, or the one that the root key's entry added.
    pub(super) fn note_slotless(&mut self, org: OrgId, signer: EntrySigner, applied: &Applied) {
        let Some(roster) = self.rosters.at(org) else {
            return;
        };
        let made = |device: DeviceId| match signer {
            EntrySigner::Device(maker) => device == maker,
            EntrySigner::Root => applied.added_devices.contains(&device),
            EntrySigner::Invitation(_) => false,
        };
        let lacking: Vec<DeviceId> = if applied.rotated {
            let devices = roster.devices().filter(|(_, d)| d.is_admitted());
            devices.map(|(id, _)| id).filter(|id| !made(*id)).collect()
        } else {
            applied.added_devices.clone()
        };
        for device in lacking {
            layout::save_bytes(self.tx, SLOTLESS, of_device(org, device), &[]);
        }
    }

    /// The devices that lack a slot, as many as one request can serve.
    pub(super) fn fetch_slotless(&mut self, caller: &Caller) -> Answer {
        let org = caller.org.0;
        let rows = self.tx.scan_from(SLOTLESS, &org, &org, limits::MAX_SLOTS)?;
        let devices = rows
            .iter()
            .map(|(key, _)| Ok(DeviceId(layout::key_tail(key)?)))
            .collect::<Result<_, StoreError>>()?;
        Ok(Response::Slotless { devices })
    }

    fn put_slot(&mut self, org: OrgId, slot: &Slot) -> Result<(), StoreError> {
        let record = SlotRecord {
            at_ms: self.now_ms,
            generation: slot.generation,
            enc: slot.enc.clone(),
            ciphertext: slot.ciphertext.clone(),
        };
        let key = [&of_device(org, slot.device)[..], &slot.filler.0].concat();
        if self.tx.get(SLOTS, &key)?.is_none() {
            self.make_room(org, slot.device)?;
        }
        layout::save(self.tx, SLOTS, key, &record);
        self.tx.delete(SLOTLESS, of_device(org, slot.device));
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
        let newest = self.roster(caller.org)?.directory_generation();
        let mut slots = Vec::new();
        for (key, row) in self.tx.scan(SLOTS, &of_device(caller.org, caller.device))? {
            let record: SlotRecord = layout::read(&row)?;
            if record.generation == newest {
                slots.push(Slot {
                    device: caller.device,
                    filler: DeviceId(layout::key_tail(&key)?),
                    generation: record.generation,
                    enc: record.enc,
                    ciphertext: record.ciphertext,
                });
            }
        }
        Ok(Response::Slots { slots })
    }

    /// Deletes what waits for a device that an order named (REQ-062).
    pub(super) fn delete_slots(&mut self, org: OrgId, device: DeviceId) -> Result<(), StoreError> {
        for (key, _) in self.tx.scan(SLOTS, &of_device(org, device))? {
            self.tx.delete(SLOTS, key);
        }
        self.tx.delete(SLOTLESS, of_device(org, device));
        Ok(())
    }
}

/// Whether these slots are of their filler's own making, and within the limits.
pub(super) fn check_slots(filler: DeviceId, slots: &[Slot]) -> Result<(), Refusal> {
    check_size(slots.len(), limits::MAX_SLOTS)?;
    for slot in slots {
        // Or else anybody could replace what others have left.
        if slot.filler != filler {
            return Err(Refusal::Malformed);
        }
        let bytes = slot.enc.as_slice().len() + slot.ciphertext.as_slice().len();
        check_size(bytes, MAX_SLOT_BYTES)?;
    }
    Ok(())
}
