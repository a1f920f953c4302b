//! A member's device in the hands of somebody who breaks every rule that its real keys let them break.
//!
//! It opens the device's own MLS state with openmls, past every check of the product, and makes commits, messages and
//! statements that no honest device would: [`Villain`]. What openmls itself would not write, [`Twist`] changes on its
//! way through the cryptography, before it is signed, hashed and encrypted, so that all of that is right again.
//!
//! It must never be part of anything but tests.

mod commit;
mod line;
mod packages;
mod records;
pub mod stage;
pub mod table;
mod twist;

pub use commit::Plan;
pub use line::Line;
pub use packages::{Package, Recipe};
pub use records::Crafted;
pub use twist::{Body, Twist};

use std::sync::Arc;

use mortise_protocol::engine::load_identity;
use mortise_protocol::group::Crypto;
use mortise_protocol::group::{
    GROUP_POLICY_EXTENSION, GroupPolicy, MlsProvider, storage::MlsStorage,
};
use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, OrgId, PublicKey, RosterSeq, SigningKey, UserId, decode,
};
use mortise_protocol::store::{MemoryStore, Tx, commit as commit_batch};
use mortise_protocol::wire::aad::AuthenticatedData;
use mortise_protocol::wire::log::{ACCESS_KEY_LABEL, LogCursor, entry_hash};
use mortise_protocol::wire::{LogRecord, RecordBody};
use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{MlsGroup, MlsMessageIn, Proposal};
use openmls_traits::OpenMlsProvider as _;

use crate::world::{PersonId, World, log_cursor};
use twist::VillainProvider;

/// A member's device and its keys, for one group.
pub struct Villain {
    /// Whose device it was.
    pub who: PersonId,
    /// The group.
    pub group: GroupId,
    /// The organisation.
    pub org: OrgId,
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Its MLS signature key.
    pub key: Arc<SigningKey>,
    /// Its transport key.
    pub transport_key: PublicKey,
    /// The roster that it bases its messages on: `s`, and the hash of that entry.
    pub roster: (RosterSeq, Hash),
    store: MemoryStore,
    crypto: Crypto,
}

impl Villain {
    /// Takes over somebody's device: its owner's program does not run any more.
    ///
    /// # Panics
    /// When the person is not admitted.
    pub fn take_over(world: &mut World, who: PersonId, group: GroupId) -> Self {
        world.put_to_sleep(who);
        Self::copy(world, who, group)
    }

    /// Copies somebody's device, as it is stored now; its owner notices nothing.
    ///
    /// # Panics
    /// When the person is not admitted.
    pub fn copy(world: &mut World, who: PersonId, group: GroupId) -> Self {
        let engine = world.people[who.0].engine_mut();
        let store = engine.store_mut().snapshot();
        let identity = load_identity(&store).expect("a store that reads");
        let identity = identity.expect("an identity");
        let head = engine.roster().head();
        Self {
            who,
            group,
            org: identity.org,
            user: identity.user,
            device: identity.device,
            key: identity.dangerous_mls_key(),
            transport_key: engine.transport_key().public(),
            roster: (head.seq, head.hash),
            store,
            crypto: Crypto::default(),
        }
    }

    /// Bases what it says from now on on somebody's newest roster entry.
    pub fn learn_roster(&mut self, world: &World, from: PersonId) {
        let head = world.people[from.0].engine().roster().head();
        self.roster = (head.seq, head.hash);
    }

    /// What it holds of the group, for looking at.
    ///
    /// # Panics
    /// When it holds nothing.
    pub fn look<T>(&self, look: impl FnOnce(&MlsGroup) -> T) -> T {
        let tx = Tx::new(&self.store);
        look(&load(&self.crypto, &tx, self.group))
    }

    /// Works with openmls directly; what it stores stays.
    fn with_mls<T>(
        &mut self,
        twist: &Twist,
        work: impl FnOnce(&mut MlsGroup, &VillainProvider<'_, '_>) -> T,
    ) -> T {
        let tx = Tx::new(&self.store);
        let storage = storage(&self.crypto, &tx);
        let provider = VillainProvider::new(&self.crypto, twist, storage);
        let mut mls = load(&self.crypto, &tx, self.group);
        let done = work(&mut mls, &provider);
        let batch = tx.into_batch().expect("a store in memory reads");
        commit_batch(&mut self.store, &batch).expect("a store in memory takes everything");
        done
    }

    /// The epoch that it is in.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.look(|mls| Epoch(mls.epoch().as_u64()))
    }

    /// The epoch's access key.
    ///
    /// # Panics
    /// When it is no member any more.
    #[must_use]
    pub fn access_key(&self) -> SigningKey {
        let secret = self.look(|mls| {
            mls.export_secret(
                &self.crypto,
                ACCESS_KEY_LABEL,
                mls.group_id().as_slice(),
                32,
            )
        });
        SigningKey::from_seed(&seed(&secret.expect("a member exports")))
    }

    /// The opening entry of its epoch, and where the epoch's log is now, as the relay has it.
    ///
    /// # Panics
    /// When the log does not hold its epoch.
    #[must_use]
    pub fn cursor(&self, world: &World) -> (Hash, LogCursor) {
        let epoch = self.epoch();
        let log = world.log(self.group);
        let opening = log
            .iter()
            .position(|record| match decode(record.payload.as_slice()) {
                Ok(RecordBody::Create { .. }) => epoch == Epoch(0),
                Ok(RecordBody::Commit(_)) => record.epoch.next() == epoch,
                _ => false,
            })
            .expect("the entry that opened this epoch");
        let record = &log[opening];
        let entry = entry_hash(self.group, epoch, record.payload.as_slice());
        let later = log[opening + 1..].iter();
        let in_epoch = later.take_while(|record| record.epoch == epoch && !is_commit(record));
        let end = opening + 1 + in_epoch.count();
        (entry, log_cursor(self.group, &log[..end]))
    }

    /// The authenticated data that an honest device would send now.
    #[must_use]
    pub fn honest_aad(&self, world: &World) -> AuthenticatedData {
        let (_, cursor) = self.cursor(world);
        AuthenticatedData::new(self.roster.0, self.roster.1, cursor)
    }

    /// The same device once more, with the same keys.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            key: self.key.clone(),
            store: self.store.clone(),
            crypto: Crypto::default(),
            ..*self
        }
    }

    /// A member's leaf.
    ///
    /// # Panics
    /// When the device has none.
    #[must_use]
    pub fn leaf(&self, device: DeviceId) -> u32 {
        self.look(|mls| commit::index_of(mls, device).u32())
    }

    /// Whether its own leave is in the log of this epoch.
    #[must_use]
    pub fn has_asked_to_leave(&self) -> bool {
        self.look(|mls| {
            let own = mls.own_leaf_index();
            let mut pending = mls.pending_proposals();
            pending.any(|p| matches!(p.proposal(), Proposal::Remove(r) if r.removed() == own))
        })
    }

    /// The group's policy.
    ///
    /// # Panics
    /// When it has none that reads.
    #[must_use]
    pub fn policy(&self) -> GroupPolicy {
        let bytes = self.look(|mls| mls.extensions().unknown(GROUP_POLICY_EXTENSION).cloned());
        GroupPolicy::from_bytes(&bytes.expect("a policy").0).expect("a policy that reads")
    }

    /// What openmls says to an MLS message, as this device, which forgets it again.
    #[must_use]
    pub fn judge(&self, message: &[u8]) -> String {
        let mut device = self.fork();
        device.with_mls(&Twist::default(), |mls, provider| {
            let message = MlsMessageIn::tls_deserialize_exact(message)
                .ok()
                .and_then(|m| m.try_into_protocol_message().ok());
            match message.map(|m| mls.process_message(provider, m)) {
                None => "not an MLS message".to_owned(),
                Some(Ok(_)) => "accepted".to_owned(),
                Some(Err(error)) => format!("{error:?}"),
            }
        })
    }

    /// Follows its own pending commit, whatever the others think of it.
    ///
    /// # Panics
    /// When there is none.
    pub fn follow(&mut self) {
        self.with_mls(&Twist::default(), |mls, provider| {
            mls.merge_pending_commit(provider)
                .expect("a pending commit");
        });
    }
}

fn is_commit(record: &LogRecord) -> bool {
    let body = decode(record.payload.as_slice());
    matches!(body, Ok(RecordBody::Commit(_)))
}

fn seed(secret: &[u8]) -> [u8; 32] {
    secret.try_into().expect("32 bytes were asked for")
}

fn storage<'a, 's>(crypto: &'a Crypto, tx: &'a Tx<'s>) -> MlsStorage<'a, 's> {
    *MlsProvider::new(crypto, tx).storage()
}

fn load(crypto: &Crypto, tx: &Tx<'_>, group: GroupId) -> MlsGroup {
    let id = openmls::prelude::GroupId::from_slice(&group.0);
    MlsGroup::load(&storage(crypto, tx), &id)
        .expect("a store that reads")
        .expect("the device holds the group")
}
