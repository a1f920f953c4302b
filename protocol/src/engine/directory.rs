//! The directory keys of this device: names sealed and opened, slots given and taken, a new key when one is owed.
//!
//! A key once held is kept, by its commitment; the newest opens all before it (REQ-101). Names are sealed under the
//! newest only.

use rand::RngCore as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::link::Asked;
use super::roster_jobs::{RosterJob, Rotation};
use super::rows::{self, META};
use super::state::State;
use super::{EngineError, Event, IntentId};
use crate::identity::{
    DeviceId, DirectoryKey, Hash, RosterSeq, SealedProfile, Slot, UserId, open_slot, seal_slot,
};
use crate::roster::{Applied, EntrySigner, InvitationStatus, Op, Role};
use crate::store::Tx;
use crate::wire::{Request, limits};

const DIRECTORY_KEYS: &[u8] = b"directory keys";
/// How long an administrator's device leaves a rotation to the order's signer and to others, ms.
const ROTATION_DELAY_MS: u64 = 3_000;
/// How long a device leaves missing slots to whoever let the devices in, ms.
const FILL_DELAY_MS: u64 = 10_000;

/// What this device knows of the directory.
#[derive(Default)]
pub(super) struct Directory {
    keys: Vec<(Hash, DirectoryKey)>,
    /// When this device names a new key because an order brought none, ms since 1970.
    pub(super) rotate_at: Option<u64>,
    /// When this device asks who lacks a slot, ms since 1970.
    pub(super) fill_at: Option<u64>,
    /// When this device seals the names of others that a recovery has cut off, ms since 1970.
    pub(super) names_at: Option<u64>,
}

impl Directory {
    /// What is stored, and the key that an admission has left.
    pub(super) fn load(tx: &Tx<'_>, first: Option<DirectoryKey>) -> Result<Self, EngineError> {
        let stored: Option<Vec<[u8; 32]>> = rows::load(tx, META, DIRECTORY_KEYS)?;
        let mut this = Self::default();
        let stored = stored.unwrap_or_default().into_iter();
        for key in first
            .into_iter()
            .chain(stored.map(DirectoryKey::from_bytes))
        {
            this.insert(key);
        }
        Ok(this)
    }

    fn insert(&mut self, key: DirectoryKey) {
        let commitment = key.commitment();
        if self.key(commitment).is_none() {
            self.keys.push((commitment, key));
        }
    }

    fn key(&self, commitment: Hash) -> Option<&DirectoryKey> {
        let held = self.keys.iter().find(|(c, _)| *c == commitment);
        held.map(|(_, key)| key)
    }

    fn store(&self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let mut keys: Vec<[u8; 32]> = self
            .keys
            .iter()
            .map(|(_, key)| *key.dangerous_bytes())
            .collect();
        let stored = rows::put(tx, META, DIRECTORY_KEYS, &keys);
        keys.zeroize();
        stored
    }
}

impl State {
    /// Whether this device's user is an owner or admin now.
    pub(super) fn administers(&self) -> bool {
        let role = self.roster.role(self.identity.user);
        self.is_admitted() && role.is_some_and(Role::administers)
    }

    fn directory_key(&self, generation: RosterSeq) -> Option<&DirectoryKey> {
        let named = self.roster.directory_of(generation)?;
        self.directory.key(named.commitment)
    }

    /// The directory key in force, if it is here.
    pub(super) fn newest_directory_key(&self) -> Option<DirectoryKey> {
        self.directory_key(self.roster.directory_generation())
            .cloned()
    }

    pub(super) fn name_of(&self, user: UserId) -> Option<String> {
        let record = self.roster.user(user)?;
        self.open_name(user, &record.profile)
    }

    pub(super) fn open_name(&self, user: UserId, profile: &SealedProfile) -> Option<String> {
        self.directory_key(profile.generation()?)?
            .open_profile(self.identity.org, user, profile)
            .ok()
    }

    /// Seals a name under the newest key; none if that is not here.
    pub(super) fn seal_name(&mut self, user: UserId, name: &str) -> Option<SealedProfile> {
        let key = self.newest_directory_key()?;
        let (org, generation) = (self.identity.org, self.roster.directory_generation());
        Some(key.seal_profile(&mut self.rng, generation, org, user, name))
    }

    /// Seals the names in these operations under `new`, or else the newest key, if they are under an older one.
    ///
    /// A change that lost its race to an order must not show a name to whom the order named.
    pub(super) fn seal_again(&mut self, ops: &mut [Op], new: Option<(RosterSeq, &DirectoryKey)>) {
        let newest = self.newest_directory_key();
        let present = (self.roster.directory_generation(), newest.as_ref());
        let (generation, key) = new.map_or(present, |(seq, key)| (seq, Some(key)));
        let Some(key) = key else { return };
        for op in ops {
            let (Op::AddUser { user, profile, .. } | Op::SetProfile { user, profile }) = op else {
                continue;
            };
            if profile.generation() == Some(generation) {
                continue;
            }
            if let Some(name) = self.open_name(*user, profile).map(Zeroizing::new) {
                let org = self.identity.org;
                *profile = key.seal_profile(&mut self.rng, generation, org, *user, &name);
            }
        }
    }

    /// Keeps a key, and those before it that it opens.
    pub(super) fn hold_directory_key(
        &mut self,
        tx: &Tx<'_>,
        key: DirectoryKey,
    ) -> Result<(), EngineError> {
        self.directory.insert(key);
        let generations = self.roster.directory();
        for pair in generations.windows(2).rev() {
            let [before, this] = pair else { continue };
            let Some(key) = self.directory.key(this.commitment) else {
                continue;
            };
            if !this.opens_predecessor() || self.directory.key(before.commitment).is_some() {
                continue;
            }
            let opened = key.unwrap_predecessor(
                self.identity.org,
                this.since,
                &this.predecessor,
                before.commitment,
            );
            // A rotation whose signer wrapped something else loses the names before it, and nothing more.
            if let Ok(opened) = opened {
                self.directory.insert(opened);
            }
        }
        self.directory.store(tx)
    }

    /// A new key for every other device that will be admitted, as many as one request takes.
    ///
    /// Beyond that owners' and admins' devices come first, then others by id; holders fill the rest.
    pub(super) fn slots_for_all(
        &self,
        key: &DirectoryKey,
        generation: RosterSeq,
        burned: &[DeviceId],
    ) -> Vec<Slot> {
        let me = self.identity.device;
        let mut devices: Vec<_> = self
            .roster
            .devices()
            .filter(|(id, d)| d.is_admitted() && *id != me && !burned.contains(id))
            .collect();
        if devices.len() > limits::MAX_SLOTS {
            let administers = |user| self.roster.role(user).is_some_and(Role::administers);
            devices.sort_by_key(|(id, d)| (!administers(d.user), *id));
        }
        let ids: Vec<DeviceId> = devices.into_iter().map(|(id, _)| id).collect();
        self.slots_for(&ids, key, generation)
    }

    fn slots_for(
        &self,
        devices: &[DeviceId],
        key: &DirectoryKey,
        generation: RosterSeq,
    ) -> Vec<Slot> {
        let me = &self.identity;
        devices
            .iter()
            .filter(|id| **id != me.device)
            .filter_map(|id| {
                let device = self.roster.device(*id).filter(|d| d.is_admitted())?;
                // A key that nothing can be sealed to is the device's own loss.
                seal_slot(me.org, (*id, device.seal_key), me.device, generation, key).ok()
            })
            .take(limits::MAX_SLOTS)
            .collect()
    }

    /// What an entry means for the directory: new devices want a slot, a new key wants to be fetched.
    pub(super) fn follow_directory(&mut self, applied: &Applied) {
        if applied.rotated && self.newest_directory_key().is_none() {
            if let Some(link) = &mut self.link {
                link.slots_waiting = true;
            }
            return;
        }
        self.fill_slots(applied);
        let others = applied.added_devices.iter();
        if others.into_iter().any(|id| *id != self.identity.device) || applied.rotated {
            let at = self.now_ms + FILL_DELAY_MS + u64::from(self.rng.next_u32()) % FILL_DELAY_MS;
            self.directory.fill_at.get_or_insert(at);
        }
    }

    /// Leaves the directory key for devices that this device let in, or that an administrator must look after (REQ-031).
    fn fill_slots(&mut self, applied: &Applied) {
        let Some(key) = self.newest_directory_key() else {
            return;
        };
        let administers = self.administers();
        let me = self.identity.device;
        let let_in = |id: &DeviceId| match self.roster.device(*id).map(|d| d.enrolled_by) {
            Some(EntrySigner::Invitation(i)) => self.roster.invitation(i).is_some_and(|i| {
                i.issued_by == me && matches!(i.status, InvitationStatus::Used { .. })
            }),
            _ => false,
        };
        let devices: Vec<DeviceId> = applied
            .added_devices
            .iter()
            .filter(|id| administers || let_in(id))
            .copied()
            .collect();
        self.put_slots(&devices, &key);
    }

    fn put_slots(&mut self, devices: &[DeviceId], key: &DirectoryKey) {
        let slots = self.slots_for(devices, key, self.roster.directory_generation());
        if !slots.is_empty() && self.online().is_some() {
            self.ask(Asked::PutSlots, Request::PutSlots { slots });
        }
    }

    /// Fills what nobody has filled; asks again if there may be more.
    pub(super) fn handle_slotless(&mut self, devices: &[DeviceId]) {
        let Some(key) = self.newest_directory_key() else {
            return;
        };
        self.put_slots(devices, &key);
        if devices.len() >= limits::MAX_SLOTS {
            self.directory.fill_at = Some(self.now_ms + 1_000);
        }
    }

    pub(super) fn handle_slots(&mut self, tx: &Tx<'_>, slots: &[Slot]) -> Result<(), EngineError> {
        if self.newest_directory_key().is_some() {
            return Ok(());
        }
        let me = self.identity.clone();
        let key = slots.iter().find_map(|slot| {
            let named = self.roster.directory_of(slot.generation)?;
            let newest = self.roster.directory_commitment() == Some(named.commitment);
            let key = open_slot(me.org, slot, &me.seal, named.commitment);
            key.ok().filter(|_| newest)
        });
        if let Some(key) = key {
            self.hold_directory_key(tx, key)?;
            self.event(Event::DirectoryOpened);
        }
        Ok(())
    }

    /// Does what is due: a key that an order did not bring, a name that nobody can open, slots that are missing.
    pub(super) fn pump_directory(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        self.owe_rotation(tx)?;
        self.owe_names(tx)?;
        let now = self.now_ms;
        let due = self.directory.fill_at.is_some_and(|at| at <= now);
        let head = self.roster.head().seq;
        let holds = self.newest_directory_key().is_some();
        let Some(link) = self.online().filter(|link| link.relay_head <= head) else {
            return Ok(());
        };
        let may = holds && link.may_ask(&Asked::FetchSlotless);
        if may && (due || link.fill_waiting) {
            link.fill_waiting = false;
            self.directory.fill_at = None;
            self.ask(Asked::FetchSlotless, Request::FetchSlotless);
        }
        Ok(())
    }

    /// Until when something that others may do as well is left to them: a delay and as much jitter from when it was first
    /// owed. `None` when that is over.
    pub(super) fn left_to_others(&mut self, until: Option<u64>, delay_ms: u64) -> Option<u64> {
        let now = self.now_ms;
        let until =
            until.unwrap_or_else(|| now + delay_ms + u64::from(self.rng.next_u32()) % delay_ms);
        (until > now).then_some(until)
    }

    /// After an order without a new key an administrator's device names one, if nobody else has (REQ-101).
    fn owe_rotation(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let owed = self.roster.directory_is_stale()
            && self.administers()
            && self.newest_directory_key().is_some()
            && !self.rotates_by_itself();
        if !owed || self.online().is_none() {
            self.directory.rotate_at = None;
            return Ok(());
        }
        self.directory.rotate_at = self.left_to_others(self.directory.rotate_at, ROTATION_DELAY_MS);
        if self.directory.rotate_at.is_some() {
            return Ok(());
        }
        let job = RosterJob::new(IntentId(0), Vec::new(), Rotation::Always, None);
        let job = self.own_job(job);
        self.add_job(tx, job)
    }
}
