//! What the chain says: users, devices, invitations, orders. Getters, and nothing that decides.

use std::collections::{BTreeMap, BTreeSet};

use super::authority::Role;
use super::draft::{Changes, CheckedEntry};
use super::entry::{EntrySigner, Genesis, Head};
use super::error::RosterError;
use super::policy::OrgPolicy;
use crate::identity::{
    DeviceId, GroupId, Hash, InvitationId, OrgId, PublicKey, RosterSeq, SealPublicKey,
    SealedProfile, UserId,
};

/// Whether a user belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserStatus {
    /// Belongs.
    Active,
    /// Does not, until an invitation is redeemed (REQ-025).
    Suspended {
        /// The order.
        at: RosterSeq,
    },
    /// Never again.
    Removed {
        /// The order.
        at: RosterSeq,
    },
}

/// A user of the organisation, present or past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Whether they belong.
    pub status: UserStatus,
    /// Their name, sealed under the directory key.
    pub profile: SealedProfile,
    /// The entry that added them.
    pub added: RosterSeq,
    /// Their roles, each from the entry that gave it, oldest first; never empty.
    pub roles: Vec<(RosterSeq, Role)>,
    /// Every device they ever had, oldest first.
    pub devices: Vec<DeviceId>,
    /// Who inherits from them, as the order that removed them says (REQ-391).
    pub successor: Option<UserId>,
}

impl UserRecord {
    /// The newest role, even of a removed user; a user without one would be a guest.
    pub(super) fn last_role(&self) -> Role {
        self.roles.last().map_or(Role::Guest, |(_, role)| *role)
    }

    /// Whether the user was removed.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        matches!(self.status, UserStatus::Removed { .. })
    }
}

/// A device, admitted or burned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Whose it is.
    pub user: UserId,
    /// Its MLS leaf's signature key.
    pub mls_signature_key: PublicKey,
    /// Its TLS raw public key.
    pub transport_key: PublicKey,
    /// What slots are sealed to.
    pub seal_key: SealPublicKey,
    /// The entry that admitted it.
    pub added: RosterSeq,
    /// The order that burned it.
    pub revoked: Option<RosterSeq>,
    /// What let it in: the root key, or an invitation.
    pub enrolled_by: EntrySigner,
}

impl DeviceRecord {
    /// Whether the device is admitted by the newest entry.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.revoked.is_none()
    }

    /// Whether the device was admitted once entry `seq` was applied.
    #[must_use]
    pub fn is_admitted_at(&self, seq: RosterSeq) -> bool {
        self.added <= seq && self.revoked.is_none_or(|revoked| seq < revoked)
    }
}

/// What became of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvitationStatus {
    /// Not redeemed; it may have expired.
    Open,
    /// Redeemed.
    Used {
        /// The entry.
        at: RosterSeq,
        /// The device that it admitted.
        device: DeviceId,
    },
    /// Taken back.
    Cancelled {
        /// The entry.
        at: RosterSeq,
    },
    /// Closed by what became of its issuer or of whom it is for (REQ-023).
    Voided {
        /// The entry.
        at: RosterSeq,
    },
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvitationRecord {
    /// For whom.
    pub user: UserId,
    /// The key that redeems it.
    pub key: PublicKey,
    /// From this time on it admits nobody; milliseconds since 1970.
    pub expires_at_ms: u64,
    /// The device that issued it.
    pub issued_by: DeviceId,
    /// That device's user.
    pub issued_by_user: UserId,
    /// The entry that issued it.
    pub issued: RosterSeq,
    /// What became of it.
    pub status: InvitationStatus,
}

/// An entry that removes or suspends a user, or revokes devices (REQ-019).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The entry's seq: the fence from here on.
    pub seq: RosterSeq,
    /// The entry's hash.
    pub entry_hash: Hash,
    /// Who was removed or suspended; `None` when only devices were revoked.
    pub user: Option<UserId>,
    /// Every device that the entry burned, in the order of burning; may be empty for a user who never joined.
    pub devices: Vec<DeviceId>,
    /// The entry's time, as its signer gave it.
    pub at_ms: u64,
}

/// One of the directory keys that the organisation has had, the first from Genesis (REQ-101).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryGeneration {
    /// The entry that named it, which is what profiles and slots call it by.
    pub since: RosterSeq,
    /// Hash of the key.
    pub commitment: Hash,
    /// The key before it, sealed under this one; empty for the first, and after a Recover.
    pub predecessor: Vec<u8>,
    /// Who signed that entry; its device, or the one that the root key's entry added, made the key.
    pub by: EntrySigner,
}

impl DirectoryGeneration {
    /// Whether who has this key can open the one before; not the first, and not after a Recover.
    #[must_use]
    pub fn opens_predecessor(&self) -> bool {
        !self.predecessor.is_empty()
    }
}

/// What an entry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The entry's seq.
    pub seq: RosterSeq,
    /// The entry's hash.
    pub hash: Hash,
    /// The order that it is, if it is one.
    pub order: Option<Order>,
    /// Users that it added.
    pub added_users: Vec<UserId>,
    /// Devices that it admitted.
    pub added_devices: Vec<DeviceId>,
    /// Invitations that it issued and that are still open.
    pub opened_invitations: Vec<InvitationId>,
    /// Invitations that it used, cancelled or voided.
    pub closed_invitations: Vec<InvitationId>,
    /// Whether it replaced the policy.
    pub policy_set: bool,
    /// Whether it named a new directory key; Genesis does.
    pub rotated: bool,
    /// Groups that it closed.
    pub closed_groups: Vec<GroupId>,
}

/// The state that a chain of entries leads to; equal chains give equal states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    pub(super) org: OrgId,
    pub(super) genesis: Option<Genesis>,
    pub(super) hashes: Vec<Hash>,
    pub(super) users: BTreeMap<UserId, UserRecord>,
    pub(super) devices: BTreeMap<DeviceId, DeviceRecord>,
    pub(super) by_transport_key: BTreeMap<PublicKey, DeviceId>,
    pub(super) invitations: BTreeMap<InvitationId, InvitationRecord>,
    /// Every key ever seen, of every kind, without its sign bit (REQ-014).
    pub(super) keys: BTreeSet<PublicKey>,
    pub(super) orders: Vec<Order>,
    /// The policy in force; `None` before Genesis.
    pub(super) policy: Option<OrgPolicy>,
    /// By generation; the newest is in force.
    pub(super) directory: Vec<DirectoryGeneration>,
    pub(super) closed_groups: BTreeMap<GroupId, RosterSeq>,
}

impl Roster {
    /// The roster that has no entry yet; the id alone decides which Genesis it takes (REQ-010).
    #[must_use]
    pub fn new(org: OrgId) -> Self {
        Self {
            org,
            genesis: None,
            hashes: Vec::new(),
            users: BTreeMap::new(),
            devices: BTreeMap::new(),
            by_transport_key: BTreeMap::new(),
            invitations: BTreeMap::new(),
            keys: BTreeSet::new(),
            orders: Vec::new(),
            policy: None,
            directory: Vec::new(),
            closed_groups: BTreeMap::new(),
        }
    }

    /// Validates an entry and applies it: all of it, or nothing (REQ-011).
    ///
    /// # Errors
    /// [`RosterError`]; the roster is unchanged.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<Applied, RosterError> {
        let checked = self.check(bytes)?;
        self.commit(checked)
    }

    /// Applies an entry that [`Roster::check`] found valid, once it is durable.
    ///
    /// # Errors
    /// [`RosterError::Conflict`] or `WrongOrg` if it was checked against another state.
    pub fn commit(&mut self, checked: CheckedEntry) -> Result<Applied, RosterError> {
        if checked.org != self.org {
            return Err(RosterError::WrongOrg { org: checked.org });
        }
        if checked.follows != self.head() {
            return Err(RosterError::Conflict { head: self.head() });
        }
        let CheckedEntry {
            changes, applied, ..
        } = checked;
        let Changes {
            genesis,
            users,
            devices,
            invitations,
            keys,
            policy,
            rotation,
            closed_groups,
        } = changes;
        self.genesis = self.genesis.take().or(genesis);
        for (id, device) in &devices {
            self.by_transport_key.insert(device.transport_key, *id);
        }
        self.users.extend(users);
        self.devices.extend(devices);
        self.invitations.extend(invitations);
        self.keys.extend(keys);
        self.policy = policy.or(self.policy.take());
        self.directory.extend(rotation);
        let closed = closed_groups.into_iter().map(|group| (group, applied.seq));
        self.closed_groups.extend(closed);
        self.hashes.push(applied.hash);
        self.orders.extend(applied.order.clone());
        Ok(applied)
    }

    /// Takes the place of an entry of which only the hash is known: what it changed stays unknown (REQ-176).
    ///
    /// Only for judging an excerpt. What follows is checked by every rule, on what is known. The first entry cannot be
    /// passed over, since it names the root key.
    ///
    /// # Errors
    /// [`RosterError::GenesisShape`] in place of the first entry.
    pub fn pass_over(&mut self, hash: Hash) -> Result<(), RosterError> {
        if self.hashes.is_empty() {
            return Err(RosterError::GenesisShape);
        }
        self.hashes.push(hash);
        Ok(())
    }

    /// The hashes of all entries, in order.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The organisation.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.org
    }

    /// Where the chain ends.
    #[must_use]
    pub fn head(&self) -> Head {
        self.hashes.last().map_or(Head::EMPTY, |hash| Head {
            seq: RosterSeq(self.hashes.len() as u64),
            hash: *hash,
        })
    }

    /// The hash of entry `seq`.
    #[must_use]
    pub fn hash_at(&self, seq: RosterSeq) -> Option<Hash> {
        let index = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.hashes.get(index).copied()
    }

    /// Seq of the newest order; 0 before the first (REQ-019).
    #[must_use]
    pub fn fence(&self) -> RosterSeq {
        self.orders.last().map_or(RosterSeq(0), |order| order.seq)
    }

    /// Every order, oldest first, at most one per entry (REQ-019).
    #[must_use]
    pub fn orders(&self) -> &[Order] {
        &self.orders
    }

    /// The order that entry `seq` is.
    #[must_use]
    pub fn order(&self, seq: RosterSeq) -> Option<&Order> {
        let index = self.orders.binary_search_by_key(&seq, |o| o.seq).ok()?;
        self.orders.get(index)
    }

    /// The root key; `None` before Genesis, as for the four below.
    #[must_use]
    pub fn root_key(&self) -> Option<PublicKey> {
        self.genesis.as_ref().map(|g| g.root_key)
    }

    /// The policy in force (REQ-100).
    #[must_use]
    pub fn policy(&self) -> Option<&OrgPolicy> {
        self.policy.as_ref()
    }

    /// The key by which the relay states what its logs hold.
    #[must_use]
    pub fn statement_key(&self) -> Option<PublicKey> {
        self.policy.as_ref().map(|p| p.statement_key)
    }

    /// The MLS ciphersuite of new groups.
    #[must_use]
    pub fn suite(&self) -> Option<u16> {
        self.policy.as_ref().map(|p| p.suite)
    }

    /// Hash of the directory key in force.
    #[must_use]
    pub fn directory_commitment(&self) -> Option<Hash> {
        self.directory.last().map(|d| d.commitment)
    }

    /// Every directory key that the organisation has had, oldest first (REQ-101).
    #[must_use]
    pub fn directory(&self) -> &[DirectoryGeneration] {
        &self.directory
    }

    /// The directory key that entry `generation` named.
    #[must_use]
    pub fn directory_of(&self, generation: RosterSeq) -> Option<&DirectoryGeneration> {
        let place = self
            .directory
            .binary_search_by_key(&generation, |d| d.since);
        self.directory.get(place.ok()?)
    }

    /// The entry that named the directory key in force; 0 before Genesis.
    #[must_use]
    pub fn directory_generation(&self) -> RosterSeq {
        self.directory.last().map_or(RosterSeq(0), |d| d.since)
    }

    /// Whether an order is newer than the directory key: whom it named may still know the key (REQ-101).
    #[must_use]
    pub fn directory_is_stale(&self) -> bool {
        let since = self.directory.last().map(|d| d.since);
        since.is_some_and(|since| since < self.fence())
    }

    /// The entry that closed a group (REQ-102).
    #[must_use]
    pub fn closed_at(&self, group: GroupId) -> Option<RosterSeq> {
        self.closed_groups.get(&group).copied()
    }

    /// A user, present or past.
    #[must_use]
    pub fn user(&self, user: UserId) -> Option<&UserRecord> {
        self.users.get(&user)
    }

    /// Every user, present and past, by id.
    pub fn users(&self) -> impl Iterator<Item = (UserId, &UserRecord)> {
        self.users.iter().map(|(id, user)| (*id, user))
    }

    /// The role that a user has now; none once removed.
    #[must_use]
    pub fn role(&self, user: UserId) -> Option<Role> {
        self.role_at(user, self.head().seq)
    }

    /// The role that a user had once entry `seq` was applied; none before they were added and once removed.
    ///
    /// A suspended user keeps the role; they have no device to use it.
    #[must_use]
    pub fn role_at(&self, user: UserId, seq: RosterSeq) -> Option<Role> {
        let record = self.users.get(&user)?;
        if matches!(record.status, UserStatus::Removed { at } if at <= seq) {
            return None;
        }
        let newest = record.roles.iter().rev().find(|(since, _)| *since <= seq)?;
        Some(newest.1)
    }

    /// Who inherits from a user who is removed at `seq`, if the order has named somebody (REQ-391).
    #[must_use]
    pub fn successor_at(&self, user: UserId, seq: RosterSeq) -> Option<UserId> {
        let record = self.users.get(&user)?;
        let is_gone = matches!(record.status, UserStatus::Removed { at } if at <= seq);
        record.successor.filter(|_| is_gone)
    }

    /// A device, admitted or burned.
    #[must_use]
    pub fn device(&self, device: DeviceId) -> Option<&DeviceRecord> {
        self.devices.get(&device)
    }

    /// The device with this TLS key, admitted *or burned*: ask [`DeviceRecord::is_admitted`].
    #[must_use]
    pub fn device_by_transport_key(&self, key: &PublicKey) -> Option<(DeviceId, &DeviceRecord)> {
        let id = *self.by_transport_key.get(key)?;
        Some((id, self.devices.get(&id)?))
    }

    /// Whether a device is admitted by the newest entry.
    #[must_use]
    pub fn is_admitted(&self, device: DeviceId) -> bool {
        self.device(device).is_some_and(DeviceRecord::is_admitted)
    }

    /// Whether a device was admitted once entry `seq` was applied: added by then, and not burned by then.
    #[must_use]
    pub fn device_admitted_at(&self, device: DeviceId, seq: RosterSeq) -> bool {
        self.device(device).is_some_and(|d| d.is_admitted_at(seq))
    }

    /// Every device, admitted and burned, by id.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceId, &DeviceRecord)> {
        self.devices.iter().map(|(id, device)| (*id, device))
    }

    /// A user's admitted devices, oldest first.
    pub fn devices_of(&self, user: UserId) -> impl Iterator<Item = (DeviceId, &DeviceRecord)> {
        self.devices_ever_of(user).filter(|(_, d)| d.is_admitted())
    }

    /// A user's devices, burned ones included, oldest first.
    pub fn devices_ever_of(&self, user: UserId) -> impl Iterator<Item = (DeviceId, &DeviceRecord)> {
        let ids = self.users.get(&user).map_or(&[][..], |u| &u.devices);
        ids.iter()
            .filter_map(|id| Some((*id, self.devices.get(id)?)))
    }

    /// An invitation, open or closed.
    #[must_use]
    pub fn invitation(&self, invitation: InvitationId) -> Option<&InvitationRecord> {
        self.invitations.get(&invitation)
    }

    /// Every invitation, open and closed, by id.
    pub fn invitations(&self) -> impl Iterator<Item = (InvitationId, &InvitationRecord)> {
        self.invitations.iter().map(|(id, record)| (*id, record))
    }

    /// The devices that entered by an invitation which `device` issued, burned ones included.
    pub fn enrolled_by_device(&self, device: DeviceId) -> impl Iterator<Item = DeviceId> {
        self.invitations
            .values()
            .filter(move |invitation| invitation.issued_by == device)
            .filter_map(|invitation| match invitation.status {
                InvitationStatus::Used { device, .. } => Some(device),
                _ => None,
            })
    }

    /// The devices that `device` let in, and those that these let in, and so on, burned ones included; without
    /// `device` itself (REQ-109).
    #[must_use]
    pub fn enrolled_transitively(&self, device: DeviceId) -> Vec<DeviceId> {
        let mut found = vec![device];
        let mut next = 0;
        while let Some(&issuer) = found.get(next) {
            next += 1;
            for enrolled in self.enrolled_by_device(issuer) {
                if !found.contains(&enrolled) {
                    found.push(enrolled);
                }
            }
        }
        found.split_off(1)
    }
}
