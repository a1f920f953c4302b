//! openmls's storage over one open transaction.
//!
//! [`MlsStorage`] maps every call of openmls's storage trait onto rows of one [`Space`], [`MLS`]. A row's key is
//! its [`Row`] tag followed by the postcard form of openmls's key; its value is a version byte followed by the
//! postcard form of the entity. The two lists (own leaf nodes, queued proposals) are one row per element, with a
//! big-endian sequence number after the group, so that appending rewrites nothing. The two entities that grow with the group,
//! the ratchet tree and the message secrets, are kept in pieces (see `pieces`).
//!
//! Postcard does not describe itself: the fields of openmls's types are the format. A change of openmls's version
//! or features is a change of format, and needs a new version byte and a migration.
//!
//! This module must never write past the transaction: what openmls stores is durable only once the caller commits
//! it, together with what the caller derived from it.

mod pieces;
mod rows;
#[cfg(test)]
mod tests;

use openmls_traits::OpenMlsProvider;
use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};

pub use self::rows::{MlsStorageError, Row};
use self::rows::{Result, decode, encode};
use super::Crypto;
use crate::store::{Space, Tx};

/// The table that holds openmls's state.
pub const MLS: Space = Space(0x10);

/// openmls's provider over one open transaction.
#[derive(Debug)]
pub struct MlsProvider<'a, 's> {
    crypto: &'a Crypto,
    storage: MlsStorage<'a, 's>,
}

impl<'a, 's> MlsProvider<'a, 's> {
    /// A provider that computes with `crypto` and stores into `tx`.
    #[must_use]
    pub fn new(crypto: &'a Crypto, tx: &'a Tx<'s>) -> Self {
        Self {
            crypto,
            storage: MlsStorage { tx },
        }
    }
}

impl<'a, 's> OpenMlsProvider for MlsProvider<'a, 's> {
    type CryptoProvider = Crypto;
    type RandProvider = Crypto;
    type StorageProvider = MlsStorage<'a, 's>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &Self::CryptoProvider {
        self.crypto
    }

    fn rand(&self) -> &Self::RandProvider {
        self.crypto
    }
}

/// openmls's storage over one open transaction.
#[derive(Clone, Copy, Debug)]
pub struct MlsStorage<'a, 's> {
    tx: &'a Tx<'s>,
}

/// The entities that are one row per key: `Row(key => entity): write, read, delete`.
///
/// `K` and `V` stand in the order in which openmls's trait has the key's and the entity's type parameters.
/// `+ Row` after `delete` names further rows of that key that go with it.
macro_rules! single_rows {
    ($($row:ident($key:ident => $value:ident):
        $write:ident<$w1:ident, $w2:ident>, $read:ident<$r1:ident, $r2:ident>, $delete:ident $(+ $also:ident)?;)*) => {$(
        fn $write<$w1, $w2>(&self, key: &K, value: &V) -> Result<()>
        where
            K: traits::$key<CURRENT_VERSION>,
            V: traits::$value<CURRENT_VERSION>,
        {
            self.put(Row::$row, key, value)
        }

        fn $read<$r1, $r2>(&self, key: &K) -> Result<Option<V>>
        where
            K: traits::$key<CURRENT_VERSION>,
            V: traits::$value<CURRENT_VERSION>,
        {
            self.load(Row::$row, key)
        }

        fn $delete<K: traits::$key<CURRENT_VERSION>>(&self, key: &K) -> Result<()> {
            $(self.erase_all(Row::$also, key)?;)?
            self.erase(Row::$row, key)
        }
    )*};
}

impl StorageProvider<CURRENT_VERSION> for MlsStorage<'_, '_> {
    type Error = MlsStorageError;

    single_rows! {
        JoinConfig(GroupId => MlsGroupJoinConfig):
            write_mls_join_config<K, V>, mls_group_join_config<K, V>, delete_group_config;
        // Only the deletion of a whole group deletes its state. A member who was removed still holds the key pairs of
        // its last epoch then, and openmls looks for those of the epoch after it: nothing else would erase them.
        GroupState(GroupId => GroupState):
            write_group_state<V, K>, group_state<V, K>, delete_group_state + EpochKeyPairs;
        Tree(GroupId => TreeSync):
            write_tree<K, V>, tree<K, V>, delete_tree;
        Context(GroupId => GroupContext):
            write_context<K, V>, group_context<K, V>, delete_context;
        InterimTranscriptHash(GroupId => InterimTranscriptHash):
            write_interim_transcript_hash<K, V>, interim_transcript_hash<K, V>, delete_interim_transcript_hash;
        ConfirmationTag(GroupId => ConfirmationTag):
            write_confirmation_tag<K, V>, confirmation_tag<K, V>, delete_confirmation_tag;
        OwnLeafIndex(GroupId => LeafNodeIndex):
            write_own_leaf_index<K, V>, own_leaf_index<K, V>, delete_own_leaf_index;
        EpochSecrets(GroupId => GroupEpochSecrets):
            write_group_epoch_secrets<K, V>, group_epoch_secrets<K, V>, delete_group_epoch_secrets;
        MessageSecrets(GroupId => MessageSecrets):
            write_message_secrets<K, V>, message_secrets<K, V>, delete_message_secrets;
        ResumptionPsks(GroupId => ResumptionPskStore):
            write_resumption_psk_store<K, V>, resumption_psk_store<K, V>, delete_all_resumption_psk_secrets;
        SignatureKeyPair(SignaturePublicKey => SignatureKeyPair):
            write_signature_key_pair<K, V>, signature_key_pair<K, V>, delete_signature_key_pair;
        EncryptionKeyPair(EncryptionKey => HpkeKeyPair):
            write_encryption_key_pair<K, V>, encryption_key_pair<V, K>, delete_encryption_key_pair;
        KeyPackage(HashReference => KeyPackage):
            write_key_package<K, V>, key_package<K, V>, delete_key_package;
        Psk(PskId => PskBundle):
            write_psk<K, V>, psk<V, K>, delete_psk;
    }

    fn write_encryption_epoch_key_pairs<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
        HpkeKeyPair: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
        key_pairs: &[HpkeKeyPair],
    ) -> Result<()> {
        self.put(
            Row::EpochKeyPairs,
            &(group_id, epoch, leaf_index),
            key_pairs,
        )
    }

    fn encryption_epoch_key_pairs<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
        HpkeKeyPair: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
    ) -> Result<Vec<HpkeKeyPair>> {
        let stored = self.load(Row::EpochKeyPairs, &(group_id, epoch, leaf_index))?;
        Ok(stored.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
    ) -> Result<()> {
        self.erase(Row::EpochKeyPairs, &(group_id, epoch, leaf_index))
    }

    fn append_own_leaf_node<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        LeafNode: traits::LeafNode<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        leaf_node: &LeafNode,
    ) -> Result<()> {
        self.append(Row::OwnLeafNode, group_id, &[], leaf_node)
    }

    fn own_leaf_nodes<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        LeafNode: traits::LeafNode<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
    ) -> Result<Vec<LeafNode>> {
        let rows = self.list(Row::OwnLeafNode, group_id)?;
        rows.iter()
            .map(|(_, value)| decode(Row::OwnLeafNode, value))
            .collect()
    }

    fn delete_own_leaf_nodes<GroupId: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &GroupId,
    ) -> Result<()> {
        self.erase_all(Row::OwnLeafNode, group_id)
    }

    fn queue_proposal<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
        QueuedProposal: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        proposal_ref: &ProposalRef,
        proposal: &QueuedProposal,
    ) -> Result<()> {
        let label = encode(Row::Proposal, proposal_ref)?;
        self.append(Row::Proposal, group_id, &label, proposal)
    }

    fn queued_proposal_refs<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
    ) -> Result<Vec<ProposalRef>> {
        let rows = self.list(Row::Proposal, group_id)?;
        rows.iter()
            .map(|(label, _)| decode(Row::Proposal, label))
            .collect()
    }

    fn queued_proposals<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
        QueuedProposal: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
    ) -> Result<Vec<(ProposalRef, QueuedProposal)>> {
        let rows = self.list(Row::Proposal, group_id)?;
        rows.iter()
            .map(|(label, value)| {
                Ok((decode(Row::Proposal, label)?, decode(Row::Proposal, value)?))
            })
            .collect()
    }

    /// Removes the oldest proposal with this reference, as openmls does in memory.
    fn remove_proposal<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        proposal_ref: &ProposalRef,
    ) -> Result<()> {
        self.erase_first(
            Row::Proposal,
            group_id,
            &encode(Row::Proposal, proposal_ref)?,
        )
    }

    fn clear_proposal_queue<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
    ) -> Result<()> {
        self.erase_all(Row::Proposal, group_id)
    }
}
