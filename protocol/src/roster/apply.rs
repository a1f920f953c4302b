//! The one validation function: everything that decides whether an entry is taken.
//!
//! An entry is checked against a draft laid over the roster, operation by operation, each seeing what
//! those before it did; the roster itself is not touched until all of it is found valid.

use std::collections::BTreeMap;

use super::authority::{self, Operation, Role, Target};
use super::draft::{CheckedEntry, Draft, Signatures};
use super::entry::{AddDevice, EntrySigner, Head, Op, SignedEntry};
use super::error::RosterError;
use super::state::{
    Applied, DeviceRecord, InvitationRecord, InvitationStatus, Roster, UserRecord, UserStatus,
};
use crate::identity::{DeviceId, InvitationId, PublicKey, SealedProfile, UserId};

impl Roster {
    /// Validates an entry without applying it, for a relay that must make it durable in between.
    ///
    /// # Errors
    /// [`RosterError`].
    pub fn check(&self, bytes: &[u8]) -> Result<CheckedEntry, RosterError> {
        self.check_entry(bytes, Signatures::Unknown)
    }

    /// Applies an entry of the own store once more, which was found valid before it was stored there.
    ///
    /// Every rule is applied; only signatures and proofs of possession are not verified again, which would make a start
    /// as slow as the roster is long.
    ///
    /// # Errors
    /// [`RosterError`]; the roster is unchanged.
    pub fn replay(&mut self, stored: &[u8]) -> Result<Applied, RosterError> {
        let checked = self.check_entry(stored, Signatures::Verified)?;
        self.commit(checked)
    }

    fn check_entry(
        &self,
        bytes: &[u8],
        signatures: Signatures,
    ) -> Result<CheckedEntry, RosterError> {
        let entry = SignedEntry::parse(bytes)?;
        let tbs = entry.tbs();
        let head = self.head();
        if tbs.org != self.org {
            return Err(RosterError::WrongOrg { org: tbs.org });
        }
        if tbs.seq != head.seq.next() || tbs.prev_hash != head.hash {
            return Err(RosterError::Conflict { head });
        }
        let mut draft = Draft::new(self, tbs, signatures);
        if head == Head::EMPTY {
            draft.found(&entry)?;
        } else {
            match tbs.signer {
                EntrySigner::Root => draft.recover(&entry)?,
                EntrySigner::Device(device) => draft.by_device(device, &entry)?,
                EntrySigner::Invitation(invitation) => draft.by_invitation(invitation, &entry)?,
            }
        }
        Ok(draft.finish(&entry))
    }
}

/// Who acts, for the table.
#[derive(Clone, Copy)]
pub(super) struct Actor {
    pub(super) device: DeviceId,
    pub(super) user: UserId,
    pub(super) role: Role,
}

impl Draft<'_> {
    pub(super) fn verify(&self, entry: &SignedEntry, key: &PublicKey) -> Result<(), RosterError> {
        match self.signatures {
            Signatures::Unknown => entry.verify(key),
            Signatures::Verified => Ok(()),
        }
    }

    /// The first entry: Genesis, its owner, the owner's device, by the root key (REQ-010, REQ-024).
    fn found(&mut self, entry: &SignedEntry) -> Result<(), RosterError> {
        let (
            EntrySigner::Root,
            [
                Op::Genesis(genesis),
                Op::AddUser {
                    user,
                    role: Role::Owner,
                    profile,
                },
                Op::AddDevice(device),
            ],
        ) = (self.tbs.signer, self.tbs.ops.as_slice())
        else {
            return Err(RosterError::GenesisShape);
        };
        if device.user != *user {
            return Err(RosterError::GenesisShape);
        }
        let org = genesis.root_key.org_id();
        if org != self.tbs.org {
            return Err(RosterError::RootKeyMismatch { org });
        }
        self.verify(entry, &genesis.root_key)?;
        self.claim_key(genesis.root_key)?;
        self.claim_key(genesis.statement_key)?;
        self.changes.genesis = Some(genesis.clone());
        self.found_policy(genesis);
        self.add_user(*user, Role::Owner, profile)?;
        self.add_device(device)
    }

    /// An entry by an admitted device: each operation as the authority table has it (REQ-016).
    fn by_device(&mut self, device: DeviceId, entry: &SignedEntry) -> Result<(), RosterError> {
        let key = self
            .base
            .device(device)
            .ok_or(RosterError::SignerUnknown { device })?
            .mls_signature_key;
        self.verify(entry, &key)?;
        for (i, op) in self.tbs.ops.iter().enumerate() {
            // Looked up anew each time: an operation may have taken the signer's own rights.
            let actor = self.actor(device)?;
            match op {
                Op::NameSuccessor { user, successor } => {
                    let next = self.tbs.ops.get(i + 1);
                    self.name_successor(actor, *user, *successor, next)?;
                }
                op => self.operate(actor, op)?,
            }
        }
        self.require_rotation_by_who_stays(device)
    }

    /// An entry by an invitation: one AddDevice for its own user, once (REQ-022).
    fn by_invitation(
        &mut self,
        invitation: InvitationId,
        entry: &SignedEntry,
    ) -> Result<(), RosterError> {
        let record = self
            .base
            .invitation(invitation)
            .ok_or(RosterError::InvitationUnknown { invitation })?;
        self.verify(entry, &record.key)?;
        require_open(invitation, record.status)?;
        if self.tbs.issued_at_ms >= record.expires_at_ms {
            return Err(RosterError::InvitationExpired { invitation });
        }
        let [Op::AddDevice(add)] = self.tbs.ops.as_slice() else {
            return Err(RosterError::InvitationScope { invitation });
        };
        if add.user != record.user {
            return Err(RosterError::InvitationScope { invitation });
        }
        self.add_device(add)?;
        let used = InvitationStatus::Used {
            at: self.tbs.seq,
            device: add.device(),
        };
        self.close_invitation(invitation, used)
    }

    fn operate(&mut self, actor: Actor, op: &Op) -> Result<(), RosterError> {
        match op {
            Op::Genesis(_) => Err(RosterError::GenesisAgain),
            Op::AddDevice(_) => Err(RosterError::AddDeviceNeedsInvitation {
                signer: self.tbs.signer,
            }),
            Op::AddUser {
                user,
                role,
                profile,
            } => {
                allow(actor, Operation::AddUser, Target::Role(*role))?;
                self.add_user(*user, *role, profile)
            }
            Op::SetProfile { user, profile } => {
                self.allow_on(actor, Operation::SetProfile, *user)?;
                self.user_mut(*user)?.profile = profile.clone();
                Ok(())
            }
            Op::SetRole { user, role } => self.set_role(actor, *user, *role),
            Op::SuspendUser { user } => self.suspend_user(actor, *user),
            Op::RemoveUser { user } => self.remove_user(actor, *user),
            Op::NameSuccessor { user, .. } => Err(RosterError::SuccessorShape { user: *user }),
            Op::Invite {
                invitation,
                user,
                key,
                expires_at_ms,
            } => self.invite(actor, *invitation, *user, *key, *expires_at_ms),
            Op::CancelInvite { invitation } => self.cancel_invite(actor, *invitation),
            Op::RevokeDevice { device } => self.revoke_device(actor, *device),
            Op::SetPolicy(policy) => self.set_policy(actor, policy),
            Op::RotateDirectoryKey(rotation) => self.rotate_directory_key(actor, rotation),
            Op::CloseGroup { group } => self.close_group(actor, *group),
            Op::Recover => Err(RosterError::RecoverShape),
        }
    }

    fn set_role(&mut self, actor: Actor, user: UserId, role: Role) -> Result<(), RosterError> {
        self.allow_on(actor, Operation::SetRole, user)?;
        allow(actor, Operation::SetRole, Target::Role(role))?;
        let seq = self.tbs.seq;
        let record = self.user_mut(user)?;
        let before = record.last_role();
        record.roles.push((seq, role));
        if role.rank() < before.rank() {
            self.void_invitations(|i| i.user == user || i.issued_by_user == user)?;
        } else {
            self.void_beyond_authority(user)?;
        }
        self.require_owner(user, before)
    }

    fn suspend_user(&mut self, actor: Actor, user: UserId) -> Result<(), RosterError> {
        let role = self.allow_on(actor, Operation::SuspendUser, user)?;
        self.order_about(user)?;
        let at = self.tbs.seq;
        let record = self.user_mut(user)?;
        if matches!(record.status, UserStatus::Suspended { .. }) {
            return Err(RosterError::AlreadySuspended { user });
        }
        record.status = UserStatus::Suspended { at };
        self.burn_all_of(user)?;
        self.require_owner(user, role)
    }

    fn remove_user(&mut self, actor: Actor, user: UserId) -> Result<(), RosterError> {
        let role = self.allow_on(actor, Operation::RemoveUser, user)?;
        self.order_about(user)?;
        let at = self.tbs.seq;
        self.user_mut(user)?.status = UserStatus::Removed { at };
        self.burn_all_of(user)?;
        self.require_owner(user, role)
    }

    /// Says who inherits from the user whom the next operation removes (REQ-391).
    fn name_successor(
        &mut self,
        actor: Actor,
        user: UserId,
        successor: UserId,
        next: Option<&Op>,
    ) -> Result<(), RosterError> {
        self.allow_on(actor, Operation::RemoveUser, user)?;
        let belongs = self
            .user(successor)
            .is_some_and(|record| record.status == UserStatus::Active);
        if !belongs || successor == user || next != Some(&Op::RemoveUser { user }) {
            return Err(RosterError::SuccessorShape { user });
        }
        self.user_mut(user)?.successor = Some(successor);
        Ok(())
    }

    fn invite(
        &mut self,
        actor: Actor,
        invitation: InvitationId,
        user: UserId,
        key: PublicKey,
        expires_at_ms: u64,
    ) -> Result<(), RosterError> {
        self.allow_on(actor, Operation::Invite, user)?;
        if self.invitation(invitation).is_some() {
            return Err(RosterError::InvitationExists { invitation });
        }
        self.claim_key(key)?;
        let record = InvitationRecord {
            user,
            key,
            expires_at_ms,
            issued_by: actor.device,
            issued_by_user: actor.user,
            issued: self.tbs.seq,
            status: InvitationStatus::Open,
        };
        self.changes.invitations.insert(invitation, record);
        Ok(())
    }

    fn cancel_invite(&mut self, actor: Actor, id: InvitationId) -> Result<(), RosterError> {
        let record = self
            .invitation(id)
            .ok_or(RosterError::InvitationUnknown { invitation: id })?;
        let (status, user, issuer) = (record.status, record.user, record.issued_by_user);
        if issuer == actor.user {
            allow(actor, Operation::CancelInvite, Target::Own)?;
        } else {
            self.allow_on(actor, Operation::CancelInvite, user)?;
        }
        require_open(id, status)?;
        self.close_invitation(id, InvitationStatus::Cancelled { at: self.tbs.seq })
    }

    fn revoke_device(&mut self, actor: Actor, device: DeviceId) -> Result<(), RosterError> {
        let record = self
            .device(device)
            .ok_or(RosterError::UnknownDevice { device })?;
        let (user, revoked) = (record.user, record.revoked);
        let role = self.allow_on(actor, Operation::RevokeDevice, user)?;
        if revoked.is_some() {
            return Err(RosterError::DeviceRevoked { device });
        }
        self.burn(device)?;
        // Whoever holds the lost device must not come back by an invitation that it issued.
        self.void_invitations(|i| i.issued_by == device)?;
        self.require_owner(user, role)
    }

    pub(super) fn add_user(
        &mut self,
        user: UserId,
        role: Role,
        profile: &SealedProfile,
    ) -> Result<(), RosterError> {
        if let Some(known) = self.user(user) {
            return Err(if known.is_removed() {
                RosterError::UserRemoved { user }
            } else {
                RosterError::UserExists { user }
            });
        }
        let record = UserRecord {
            status: UserStatus::Active,
            profile: profile.clone(),
            added: self.tbs.seq,
            roles: vec![(self.tbs.seq, role)],
            devices: Vec::new(),
            successor: None,
        };
        self.changes.users.insert(user, record);
        self.added_users.push(user);
        Ok(())
    }

    /// Admits a device and lifts its user's suspension (REQ-012, REQ-013, REQ-025).
    pub(super) fn add_device(&mut self, add: &AddDevice) -> Result<(), RosterError> {
        let device = add.device();
        if self.signatures == Signatures::Unknown {
            add.verify(self.tbs.org)
                .map_err(|_| RosterError::PossessionNotProven { device })?;
        }
        for key in [add.mls_signature_key, add.transport_key, add.seal_key.0] {
            self.claim_key(key)?;
        }
        if self.device(device).is_some() {
            // Another key with the same half of its hash.
            let key = add.mls_signature_key;
            return Err(RosterError::KeyReused { key });
        }
        let user = self.user_mut(add.user)?;
        user.status = UserStatus::Active;
        user.devices.push(device);
        let record = DeviceRecord {
            user: add.user,
            mls_signature_key: add.mls_signature_key,
            transport_key: add.transport_key,
            seal_key: add.seal_key,
            added: self.tbs.seq,
            revoked: None,
            enrolled_by: self.tbs.signer,
        };
        self.changes.devices.insert(device, record);
        self.added_devices.push(device);
        Ok(())
    }

    /// Notes whom this entry's order is about: one user, so that a certificate has one subject (REQ-019).
    fn order_about(&mut self, user: UserId) -> Result<(), RosterError> {
        if self.ordered_user.is_some_and(|other| other != user) {
            return Err(RosterError::OneUserPerOrder { user });
        }
        self.ordered_user = Some(user);
        Ok(())
    }

    /// Voids what could no longer be issued, lest an admin's invitation admit a device to a new owner (REQ-023).
    fn void_beyond_authority(&mut self, user: UserId) -> Result<(), RosterError> {
        let Some(role) = self.user(user).map(UserRecord::last_role) else {
            return Ok(());
        };
        let issuers: BTreeMap<UserId, Role> = self
            .open_invitations()
            .into_iter()
            .filter_map(|id| {
                let issuer = self.invitation(id)?.issued_by_user;
                Some((issuer, self.user(issuer)?.last_role()))
            })
            .collect();
        self.void_invitations(|i| {
            let (issuer, whom) = (i.issued_by_user, i.user);
            let target = if issuer == whom {
                Target::Own
            } else {
                Target::Role(role)
            };
            let allowed = issuers
                .get(&issuer)
                .is_some_and(|actor| authority::check(*actor, Operation::Invite, target));
            whom == user && !allowed
        })
    }

    /// Refuses what leaves no active owner with an admitted device (REQ-017).
    fn require_owner(&self, user: UserId, was: Role) -> Result<(), RosterError> {
        if was != Role::Owner || self.has_owner() {
            return Ok(());
        }
        Err(RosterError::LastOwner { user })
    }

    fn actor(&self, device: DeviceId) -> Result<Actor, RosterError> {
        let record = self
            .device(device)
            .filter(|d| d.is_admitted())
            .ok_or(RosterError::SignerNotAdmitted { device })?;
        let user = self
            .user(record.user)
            .filter(|u| u.status == UserStatus::Active)
            .ok_or(RosterError::SignerNotAdmitted { device })?;
        Ok(Actor {
            device,
            user: record.user,
            role: user.last_role(),
        })
    }

    /// Asks the table about a user who is not removed, and returns that user's role.
    fn allow_on(
        &self,
        actor: Actor,
        operation: Operation,
        user: UserId,
    ) -> Result<Role, RosterError> {
        let record = self.user(user).ok_or(RosterError::UnknownUser { user })?;
        if record.is_removed() {
            return Err(RosterError::UserRemoved { user });
        }
        let role = record.last_role();
        let target = if user == actor.user {
            Target::Own
        } else {
            Target::Role(role)
        };
        allow(actor, operation, target)?;
        Ok(role)
    }
}

pub(super) fn allow(actor: Actor, operation: Operation, target: Target) -> Result<(), RosterError> {
    if authority::check(actor.role, operation, target) {
        return Ok(());
    }
    Err(RosterError::Forbidden {
        actor: actor.role,
        operation,
        target,
    })
}

fn require_open(invitation: InvitationId, status: InvitationStatus) -> Result<(), RosterError> {
    match status {
        InvitationStatus::Open => Ok(()),
        InvitationStatus::Used { .. } => Err(RosterError::InvitationUsed { invitation }),
        InvitationStatus::Cancelled { .. } => Err(RosterError::InvitationCancelled { invitation }),
        InvitationStatus::Voided { .. } => Err(RosterError::InvitationVoided { invitation }),
    }
}
