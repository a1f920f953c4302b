//! The roster as it would be while an entry is checked: new records laid over the old ones.
//!
//! It knows how records change together; who may change them is decided in `apply`.

use std::collections::{BTreeMap, BTreeSet};

use super::authority::Role;
use super::entry::{EntryTbs, Genesis, Head, SignedEntry};
use super::error::RosterError;
use super::policy::OrgPolicy;
use super::state::{
    Applied, DeviceRecord, DirectoryGeneration, InvitationRecord, InvitationStatus, Order, Roster,
    UserRecord, UserStatus,
};
use crate::identity::{DeviceId, GroupId, InvitationId, OrgId, PublicKey, UserId};

/// An entry found valid for one state, and what it changes there.
#[derive(Debug)]
pub struct CheckedEntry {
    pub(super) org: OrgId,
    pub(super) follows: Head,
    pub(super) changes: Changes,
    pub(super) applied: Applied,
}

impl CheckedEntry {
    /// What the entry will have changed.
    #[must_use]
    pub fn applied(&self) -> &Applied {
        &self.applied
    }
}

/// New and changed records.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) genesis: Option<Genesis>,
    pub(super) users: BTreeMap<UserId, UserRecord>,
    pub(super) devices: BTreeMap<DeviceId, DeviceRecord>,
    pub(super) invitations: BTreeMap<InvitationId, InvitationRecord>,
    pub(super) keys: BTreeSet<PublicKey>,
    pub(super) policy: Option<OrgPolicy>,
    pub(super) rotation: Option<DirectoryGeneration>,
    pub(super) closed_groups: BTreeSet<GroupId>,
}

/// Whether an entry's signatures have still to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signatures {
    /// It comes from somebody else.
    Unknown,
    /// It comes from the own store, where nothing is put before it was verified.
    Verified,
}

/// The roster as it would be, while an entry is checked.
pub(super) struct Draft<'a> {
    pub(super) base: &'a Roster,
    pub(super) tbs: &'a EntryTbs,
    pub(super) signatures: Signatures,
    pub(super) changes: Changes,
    pub(super) added_users: Vec<UserId>,
    pub(super) added_devices: Vec<DeviceId>,
    pub(super) burned: Vec<DeviceId>,
    pub(super) ordered_user: Option<UserId>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(base: &'a Roster, tbs: &'a EntryTbs, signatures: Signatures) -> Self {
        Self {
            base,
            tbs,
            signatures,
            changes: Changes::default(),
            added_users: Vec::new(),
            added_devices: Vec::new(),
            burned: Vec::new(),
            ordered_user: None,
        }
    }

    /// Takes a key for ever, as whatever kind (REQ-014).
    ///
    /// A point and its negative have one X25519 form, so the sign bit does not make another key.
    pub(super) fn claim_key(&mut self, key: PublicKey) -> Result<(), RosterError> {
        let mut unsigned = key;
        unsigned.0[31] &= 0x7f;
        if self.base.keys.contains(&unsigned) || !self.changes.keys.insert(unsigned) {
            return Err(RosterError::KeyReused { key });
        }
        Ok(())
    }

    pub(super) fn burn_all_of(&mut self, user: UserId) -> Result<(), RosterError> {
        let devices = self.user(user).map_or(Vec::new(), |u| u.devices.clone());
        for device in devices {
            if self.device(device).is_some_and(DeviceRecord::is_admitted) {
                self.burn(device)?;
            }
        }
        self.void_invitations(|i| i.user == user || i.issued_by_user == user)
    }

    pub(super) fn burn(&mut self, device: DeviceId) -> Result<(), RosterError> {
        let seq = self.tbs.seq;
        let mut record = self
            .device(device)
            .cloned()
            .ok_or(RosterError::UnknownDevice { device })?;
        record.revoked = Some(seq);
        self.changes.devices.insert(device, record);
        self.burned.push(device);
        Ok(())
    }

    /// Voids the open invitations that match (REQ-023).
    pub(super) fn void_invitations(
        &mut self,
        matches: impl Fn(&InvitationRecord) -> bool,
    ) -> Result<(), RosterError> {
        let at = self.tbs.seq;
        for id in self.open_invitations() {
            if self.invitation(id).is_some_and(&matches) {
                self.close_invitation(id, InvitationStatus::Voided { at })?;
            }
        }
        Ok(())
    }

    pub(super) fn open_invitations(&self) -> BTreeSet<InvitationId> {
        let base = self.base.invitations();
        let drafted = self.changes.invitations.iter().map(|(id, i)| (*id, i));
        base.chain(drafted)
            .filter(|(id, _)| {
                self.invitation(*id)
                    .is_some_and(|i| i.status == InvitationStatus::Open)
            })
            .map(|(id, _)| id)
            .collect()
    }

    pub(super) fn close_invitation(
        &mut self,
        invitation: InvitationId,
        status: InvitationStatus,
    ) -> Result<(), RosterError> {
        let mut record = self
            .invitation(invitation)
            .cloned()
            .ok_or(RosterError::InvitationUnknown { invitation })?;
        record.status = status;
        self.changes.invitations.insert(invitation, record);
        Ok(())
    }

    pub(super) fn has_owner(&self) -> bool {
        let base = self.base.users().map(|(id, _)| id);
        base.chain(self.changes.users.keys().copied()).any(|id| {
            self.user(id).is_some_and(|u| {
                u.last_role() == Role::Owner
                    && u.status == UserStatus::Active
                    && u.devices
                        .iter()
                        .any(|d| self.device(*d).is_some_and(DeviceRecord::is_admitted))
            })
        })
    }

    pub(super) fn user(&self, id: UserId) -> Option<&UserRecord> {
        self.changes.users.get(&id).or_else(|| self.base.user(id))
    }

    pub(super) fn device(&self, id: DeviceId) -> Option<&DeviceRecord> {
        self.changes
            .devices
            .get(&id)
            .or_else(|| self.base.device(id))
    }

    pub(super) fn invitation(&self, id: InvitationId) -> Option<&InvitationRecord> {
        self.changes
            .invitations
            .get(&id)
            .or_else(|| self.base.invitation(id))
    }

    /// The draft's copy of a user who is not removed.
    pub(super) fn user_mut(&mut self, user: UserId) -> Result<&mut UserRecord, RosterError> {
        let record = self.user(user).ok_or(RosterError::UnknownUser { user })?;
        if record.is_removed() {
            return Err(RosterError::UserRemoved { user });
        }
        let copy = record.clone();
        Ok(self.changes.users.entry(user).or_insert(copy))
    }

    pub(super) fn finish(self, entry: &SignedEntry) -> CheckedEntry {
        let (seq, entry_hash) = (self.tbs.seq, entry.hash());
        let is_order = self.ordered_user.is_some() || !self.burned.is_empty();
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for (id, record) in &self.changes.invitations {
            match record.status {
                InvitationStatus::Open => opened.push(*id),
                _ => closed.push(*id),
            }
        }
        let order = is_order.then_some(Order {
            seq,
            entry_hash,
            user: self.ordered_user,
            devices: self.burned,
            at_ms: self.tbs.issued_at_ms,
        });
        let policy_set = self.base.policy().is_some() && self.changes.policy.is_some();
        let rotated = self.changes.rotation.is_some();
        let closed_groups = self.changes.closed_groups.iter().copied().collect();
        CheckedEntry {
            org: self.tbs.org,
            follows: self.base.head(),
            changes: self.changes,
            applied: Applied {
                seq,
                hash: entry_hash,
                order,
                added_users: self.added_users,
                added_devices: self.added_devices,
                opened_invitations: opened,
                closed_invitations: closed,
                policy_set,
                rotated,
                closed_groups,
            },
        }
    }
}
