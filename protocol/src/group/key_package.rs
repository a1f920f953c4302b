//! KeyPackages: made with our own lifetimes, read with our own checks.

use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::{
    Ciphersuite, KeyPackage, KeyPackageBuilder, KeyPackageIn, Lifetime, MlsMessageBodyIn,
    MlsMessageIn, MlsMessageOut, ProtocolVersion,
};

use super::validate::Leaf;
use super::{Crypto, DeviceCredential, Me, MlsProvider, MlsSigner, Resync, capabilities, keys};
use crate::identity::PublicKey;
use crate::wire::limits;

/// A KeyPackage that cannot be made or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyPackageError {
    /// The suite is not one of ours.
    #[error("ciphersuite {0:#06x} is not allowed")]
    Suite(u16),
    /// openmls could not make it; nothing was stored.
    #[error("a KeyPackage could not be made")]
    Make,
    /// It does not decode or verify.
    #[error("the KeyPackage is not valid")]
    Invalid,
    /// Its leaf's credential is not ours.
    #[error("the KeyPackage's credential is not of this protocol")]
    Credential,
    /// Less than 56 days are left, or it claims to live longer than 84 days.
    #[error("the KeyPackage's lifetime is not acceptable")]
    Lifetime,
}

/// How far a maker's clock may be ahead, seconds.
const CLOCK_SLACK_S: u64 = 3_600;

/// Makes a KeyPackage and stores its private keys; returns the MLSMessage (REQ-092).
///
/// # Errors
/// [`KeyPackageError::Suite`], [`KeyPackageError::Make`].
pub fn make_key_package(
    provider: &MlsProvider<'_, '_>,
    me: &Me<'_>,
    suite: u16,
    last_resort: bool,
    now_ms: u64,
) -> Result<Vec<u8>, KeyPackageError> {
    let builder = builder_of(suite, now_ms)?;
    let builder = if last_resort {
        builder.mark_as_last_resort()
    } else {
        builder
    };
    build(builder, provider, me, suite)
}

/// Makes a KeyPackage whose leaf asks a group to let this device in anew, and stores its private keys (REQ-156).
///
/// # Errors
/// [`KeyPackageError::Suite`], [`KeyPackageError::Make`].
pub fn make_resync_key_package(
    provider: &MlsProvider<'_, '_>,
    me: &Me<'_>,
    suite: u16,
    resync: &Resync,
    now_ms: u64,
) -> Result<Vec<u8>, KeyPackageError> {
    let extensions = resync.extensions().ok_or(KeyPackageError::Make)?;
    let builder = builder_of(suite, now_ms)?.leaf_node_extensions(extensions);
    build(builder, provider, me, suite)
}

fn builder_of(suite: u16, now_ms: u64) -> Result<KeyPackageBuilder, KeyPackageError> {
    let suite = suite_of(suite)?;
    let now_s = now_ms / 1_000;
    let lifetime = Lifetime::init(
        now_s.saturating_sub(CLOCK_SLACK_S),
        now_s + limits::KEY_PACKAGE_LIFETIME_MS / 1_000 - CLOCK_SLACK_S,
    );
    Ok(KeyPackage::builder()
        .key_package_lifetime(lifetime)
        .leaf_node_capabilities(capabilities(suite)))
}

fn build(
    builder: KeyPackageBuilder,
    provider: &MlsProvider<'_, '_>,
    me: &Me<'_>,
    suite: u16,
) -> Result<Vec<u8>, KeyPackageError> {
    let suite = suite_of(suite)?;
    let bundle = builder
        .build(suite, provider, &MlsSigner(me.key), me.credential())
        .map_err(|_| KeyPackageError::Make)?;
    MlsMessageOut::from(bundle.key_package().clone())
        .tls_serialize_detached()
        .map_err(|_| KeyPackageError::Make)
}

pub(super) fn suite_of(suite: u16) -> Result<Ciphersuite, KeyPackageError> {
    if !super::is_allowed_suite(suite) {
        return Err(KeyPackageError::Suite(suite));
    }
    Ciphersuite::try_from(suite).map_err(|_| KeyPackageError::Suite(suite))
}

/// A KeyPackage that has been checked, and whose it says it is.
#[derive(Clone, Debug)]
pub struct ReadKeyPackage {
    /// For a commit.
    pub(super) key_package: KeyPackage,
    /// Whose it says it is; compare with the roster.
    pub credential: DeviceCredential,
    /// The leaf's signature key; compare with the roster.
    pub key: PublicKey,
    /// What its leaf asks of a group, if it is for that.
    pub resync: Option<Resync>,
}

impl ReadKeyPackage {
    /// The leaf that it would become.
    #[must_use]
    pub fn leaf(&self) -> Leaf {
        Leaf {
            org: self.credential.org,
            user: self.credential.user,
            device: self.credential.device,
            key: self.key,
        }
    }
}

/// Reads and verifies a KeyPackage that was claimed from the relay (REQ-092).
///
/// # Errors
/// [`KeyPackageError`].
pub fn read_key_package(
    crypto: &Crypto,
    suite: u16,
    now_ms: u64,
    bytes: &[u8],
) -> Result<ReadKeyPackage, KeyPackageError> {
    let suite = suite_of(suite)?;
    let message =
        MlsMessageIn::tls_deserialize_exact(bytes).map_err(|_| KeyPackageError::Invalid)?;
    let MlsMessageBodyIn::KeyPackage(unverified) = message.extract() else {
        return Err(KeyPackageError::Invalid);
    };
    let key_package = KeyPackageIn::validate(unverified, crypto, ProtocolVersion::Mls10)
        .map_err(|_| KeyPackageError::Invalid)?;
    if key_package.ciphersuite() != suite {
        return Err(KeyPackageError::Invalid);
    }
    let lifetime = key_package.life_time();
    let now_s = now_ms / 1_000;
    let left = lifetime.not_after().saturating_sub(now_s);
    let whole = lifetime.not_after().saturating_sub(lifetime.not_before());
    if whole > limits::KEY_PACKAGE_LIFETIME_MS / 1_000
        || left < limits::KEY_PACKAGE_MIN_LEFT_MS / 1_000
    {
        return Err(KeyPackageError::Lifetime);
    }
    let leaf = key_package.leaf_node();
    // A Welcome is sealed to the one, and every commit to the other.
    let init_key = key_package.hpke_init_key().as_slice();
    keys::check(crypto, suite, init_key)
        .and_then(|()| keys::check_leaf(crypto, suite, leaf))
        .map_err(|_| KeyPackageError::Invalid)?;
    let credential =
        DeviceCredential::read(leaf.credential()).ok_or(KeyPackageError::Credential)?;
    let key = <[u8; 32]>::try_from(leaf.signature_key().as_slice())
        .map(PublicKey)
        .map_err(|_| KeyPackageError::Credential)?;
    let resync = Resync::read(leaf);
    Ok(ReadKeyPackage {
        key_package,
        credential,
        key,
        resync,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::SUITE_CLASSICAL;
    use crate::identity::{OrgId, SigningKey, UserId};
    use crate::store::{MemoryStore, Tx};

    const DAY_S: u64 = 24 * 3_600;

    /// What comes of reading a KeyPackage that lives from `from_s` to `to_s`, in seconds from now.
    fn read(from_s: i64, to_s: u64) -> Result<(), KeyPackageError> {
        let (store, crypto) = (MemoryStore::default(), Crypto::default());
        let tx = Tx::new(&store);
        let provider = MlsProvider::new(&crypto, &tx);
        let key = SigningKey::from_seed(&[1; 32]);
        let me = Me {
            org: OrgId([2; 32]),
            user: UserId([3; 16]),
            device: key.public().device_id(),
            key: &key,
        };
        // openmls holds lifetimes against its own clock.
        let now_s = Lifetime::new(0).not_after();
        let lifetime = Lifetime::init(now_s.saturating_add_signed(from_s), now_s + to_s);
        let builder = builder_of(SUITE_CLASSICAL, now_s * 1_000)?.key_package_lifetime(lifetime);
        let bytes = build(builder, &provider, &me, SUITE_CLASSICAL)?;
        read_key_package(&crypto, SUITE_CLASSICAL, now_s * 1_000, &bytes).map(drop)
    }

    /// REQ-092: 84 days in all and 56 days left are taken; a second more, or less, is not.
    #[test]
    fn lifetimes_have_limits() {
        assert_eq!(read(-3_600, 84 * DAY_S - 3_600), Ok(()));
        assert_eq!(
            read(-3_600, 84 * DAY_S - 3_599),
            Err(KeyPackageError::Lifetime)
        );
        assert_eq!(read(-3_600, 56 * DAY_S), Ok(()));
        assert_eq!(read(-3_600, 56 * DAY_S - 1), Err(KeyPackageError::Lifetime));
    }
}
