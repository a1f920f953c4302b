//! Who this device is: stored once, before anything is sent that depends on it.

use std::sync::Arc;

use rand::RngCore;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::rows::{META, check_schema, from_bytes, load, put, put_schema, to_bytes};
use super::{EngineError, RelayAddress};
use crate::identity::{
    DeviceId, DirectoryKey, Hash, OrgId, RosterSeq, SealSecret, SigningKey, UserId,
};
use crate::store::{Reader, Store, Tx, Write, commit};

const IDENTITY: &[u8] = b"identity";
const DIRECTORY_KEY: &[u8] = b"directory key";

/// The three keys of a device (REQ-012, REQ-013).
#[derive(Debug)]
pub struct DeviceKeys {
    /// Signs its MLS leaf and its statements.
    pub mls: SigningKey,
    /// Its TLS raw public key.
    pub transport: SigningKey,
    /// What slots are sealed to.
    pub seal: SealSecret,
}

/// A device's keys and what it knows about where it belongs.
#[derive(Debug)]
pub struct Identity {
    /// The organisation.
    pub org: OrgId,
    /// Whose device.
    pub user: UserId,
    /// Which device.
    pub device: DeviceId,
    /// Where the relay is.
    pub relay: RelayAddress,
    pub(super) mls: Arc<SigningKey>,
    pub(super) transport: Arc<SigningKey>,
    pub(super) seal: Arc<SealSecret>,
    /// Roster entries whose hashes are known beforehand: the chain must contain them (REQ-020).
    pub(super) pins: Vec<(RosterSeq, Hash)>,
    /// Only a founder has it from the start.
    pub(super) directory: Option<DirectoryKey>,
}

#[derive(Serialize, Deserialize)]
struct IdentityRow {
    org: OrgId,
    user: UserId,
    relay: String,
    relay_key: Hash,
    mls: [u8; 32],
    transport: [u8; 32],
    seal: [u8; 32],
    pins: Vec<(RosterSeq, Hash)>,
}

impl Drop for IdentityRow {
    fn drop(&mut self) {
        self.mls.zeroize();
        self.transport.zeroize();
        self.seal.zeroize();
    }
}

impl Identity {
    /// The key that signs for this device, for tools that act in its name, such as a test of a member that lies.
    #[must_use]
    pub fn dangerous_mls_key(&self) -> Arc<SigningKey> {
        self.mls.clone()
    }

    pub(super) fn generate(
        rng: &mut dyn RngCore,
        org: OrgId,
        user: UserId,
        relay: RelayAddress,
    ) -> Self {
        let keys = DeviceKeys {
            mls: SigningKey::generate(rng),
            transport: SigningKey::generate(rng),
            seal: SealSecret::new(SigningKey::generate(rng)),
        };
        Self::with_keys(org, user, relay, keys)
    }

    /// The identity of a device whose keys the roster knows, or will.
    #[must_use]
    pub fn with_keys(org: OrgId, user: UserId, relay: RelayAddress, keys: DeviceKeys) -> Self {
        Self {
            org,
            user,
            device: keys.mls.public().device_id(),
            relay,
            mls: Arc::new(keys.mls),
            transport: Arc::new(keys.transport),
            seal: Arc::new(keys.seal),
            pins: Vec::new(),
            directory: None,
        }
    }

    /// With the directory key, which only a founder has from the start; others find it in a slot (REQ-031).
    #[must_use]
    pub fn with_directory(mut self, key: DirectoryKey) -> Self {
        self.directory = Some(key);
        self
    }

    pub(super) fn load(reader: &dyn Reader) -> Result<Option<Self>, EngineError> {
        let tx = Tx::new(reader);
        let Some(bytes) = tx.get(META, IDENTITY)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        check_schema(&tx)?;
        let row: IdentityRow = from_bytes(&bytes)?;
        let mls = SigningKey::from_seed(&row.mls);
        Ok(Some(Self {
            org: row.org,
            user: row.user,
            device: mls.public().device_id(),
            relay: RelayAddress {
                address: row.relay.clone(),
                key: row.relay_key,
            },
            mls: Arc::new(mls),
            transport: Arc::new(SigningKey::from_seed(&row.transport)),
            seal: Arc::new(SealSecret::new(SigningKey::from_seed(&row.seal))),
            pins: row.pins.clone(),
            directory: load::<[u8; 32]>(&tx, META, DIRECTORY_KEY)?.map(DirectoryKey::from_bytes),
        }))
    }

    pub(super) fn store(&self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let row = IdentityRow {
            org: self.org,
            user: self.user,
            relay: self.relay.address.clone(),
            relay_key: self.relay.key,
            mls: *self.mls.dangerous_seed(),
            transport: *self.transport.dangerous_seed(),
            seal: *self.seal.proving_key().dangerous_seed(),
            pins: self.pins.clone(),
        };
        put_schema(tx)?;
        tx.put(META, IDENTITY, to_bytes(&row)?);
        if let Some(key) = &self.directory {
            store_directory_key(tx, key)?;
        }
        Ok(())
    }
}

pub(super) fn store_directory_key(tx: &Tx<'_>, key: &DirectoryKey) -> Result<(), EngineError> {
    put(tx, META, DIRECTORY_KEY, &*key.dangerous_bytes())
}

/// Whether the store holds an identity.
///
/// # Errors
/// [`EngineError`].
pub fn has_identity(store: &dyn Reader) -> Result<bool, EngineError> {
    Ok(Identity::load(store)?.is_some())
}

/// Stores the identity, durably.
///
/// # Errors
/// [`EngineError`].
pub fn save_identity<S: Store>(store: &mut S, identity: &Identity) -> Result<(), EngineError> {
    let batch: Vec<Write> = {
        let tx = Tx::new(store);
        identity.store(&tx)?;
        tx.into_batch()?
    };
    commit(store, &batch)?;
    Ok(())
}

/// The stored identity, for taking up an admission that was interrupted.
///
/// # Errors
/// [`EngineError`].
pub fn load_identity(store: &dyn Reader) -> Result<Option<Identity>, EngineError> {
    Identity::load(store)
}
