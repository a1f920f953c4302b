//! Operations about the organisation as a whole: its policy, its directory key, closed groups, a lost owner.

use super::apply::{Actor, allow};
use super::authority::{Operation, Role, Target};
use super::draft::Draft;
use super::entry::{Genesis, Op, RotateDirectoryKey, SignedEntry};
use super::error::RosterError;
use super::policy::OrgPolicy;
use super::state::DirectoryGeneration;
use crate::identity::{DeviceId, GroupId, Hash, WRAPPED_KEY_BYTES};

impl Draft<'_> {
    /// What Genesis says about the organisation is its first policy and directory key (REQ-100, REQ-101).
    pub(super) fn found_policy(&mut self, genesis: &Genesis) {
        self.changes.policy = Some(OrgPolicy::of_genesis(genesis));
        self.name_directory_key(genesis.directory_commitment, &[]);
    }

    /// An entry by the root key after Genesis: a new owner, and nothing that takes anything away (REQ-103).
    pub(super) fn recover(&mut self, entry: &SignedEntry) -> Result<(), RosterError> {
        let root_key = self.base.root_key().ok_or(RosterError::GenesisShape)?;
        self.verify(entry, &root_key)?;
        let ops = self.tbs.ops.as_slice();
        if !ops.contains(&Op::Recover) {
            return Err(RosterError::RootSignsGenesisOnly);
        }
        let [
            Op::Recover,
            Op::AddUser {
                user,
                role: Role::Owner,
                profile,
            },
            Op::AddDevice(device),
            Op::RotateDirectoryKey(rotation),
        ] = ops
        else {
            return Err(RosterError::RecoverShape);
        };
        // The root key opens no slot: whoever recovers does not have the key before.
        if device.user != *user || !rotation.predecessor.as_slice().is_empty() {
            return Err(RosterError::RecoverShape);
        }
        self.add_user(*user, Role::Owner, profile)?;
        self.add_device(device)?;
        self.require_new_commitment(rotation.commitment)?;
        self.name_directory_key(rotation.commitment, &[]);
        Ok(())
    }

    /// Replaces the policy (REQ-100).
    pub(super) fn set_policy(
        &mut self,
        actor: Actor,
        policy: &OrgPolicy,
    ) -> Result<(), RosterError> {
        allow(actor, Operation::SetPolicy, Target::Organisation)?;
        if !policy.is_known() {
            return Err(RosterError::BadPolicy);
        }
        let before = self.changes.policy.as_ref().or(self.base.policy());
        if before.is_none_or(|before| before.statement_key != policy.statement_key) {
            self.claim_key(policy.statement_key)?;
        }
        self.changes.policy = Some(policy.clone());
        Ok(())
    }

    /// Names a new directory key: in an order's entry whoever signs the order, alone owners and admins (REQ-101).
    pub(super) fn rotate_directory_key(
        &mut self,
        actor: Actor,
        rotation: &RotateDirectoryKey,
    ) -> Result<(), RosterError> {
        let target = if self.tbs.ops.iter().any(Op::is_order) {
            Target::WithOrder
        } else {
            Target::Organisation
        };
        allow(actor, Operation::RotateDirectoryKey, target)?;
        let predecessor = rotation.predecessor.as_slice();
        if self.changes.rotation.is_some() || predecessor.len() != WRAPPED_KEY_BYTES {
            return Err(RosterError::RotationShape);
        }
        self.require_new_commitment(rotation.commitment)?;
        self.name_directory_key(rotation.commitment, predecessor);
        Ok(())
    }

    /// A key that was in use before would be known to whom an order since then has named.
    fn require_new_commitment(&self, commitment: Hash) -> Result<(), RosterError> {
        let known = self.base.directory();
        if known.iter().any(|d| d.commitment == commitment) {
            return Err(RosterError::RotationShape);
        }
        Ok(())
    }

    fn name_directory_key(&mut self, commitment: Hash, predecessor: &[u8]) {
        self.changes.rotation = Some(DirectoryGeneration {
            since: self.tbs.seq,
            commitment,
            predecessor: predecessor.to_vec(),
            by: self.tbs.signer,
        });
    }

    /// Who goes must not choose the key of those who stay.
    pub(super) fn require_rotation_by_who_stays(
        &self,
        signer: DeviceId,
    ) -> Result<(), RosterError> {
        if self.changes.rotation.is_some() && self.burned.contains(&signer) {
            return Err(RosterError::RotationShape);
        }
        Ok(())
    }

    /// Ends a group, for ever (REQ-102).
    pub(super) fn close_group(&mut self, actor: Actor, group: GroupId) -> Result<(), RosterError> {
        allow(actor, Operation::CloseGroup, Target::Organisation)?;
        if self.base.closed_at(group).is_some() || !self.changes.closed_groups.insert(group) {
            return Err(RosterError::GroupClosed { group });
        }
        Ok(())
    }
}
