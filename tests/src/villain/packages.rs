//! KeyPackages to add with: somebody's from the relay's stock, or made up.

use mortise_protocol::group::Crypto;
use mortise_protocol::group::{
    DeviceCredential, GROUP_POLICY_EXTENSION, MlsProvider, RESYNC_EXTENSION,
};
use mortise_protocol::identity::{DeviceId, OrgId, SigningKey, UserId, encode};
use mortise_protocol::store::{MemoryStore, Reader as _, Tx};
use mortise_relay::core::layout;
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialType, CredentialWithKey, Extension,
    ExtensionType, Extensions, KeyPackage, KeyPackageIn, LeafNode, Lifetime, MlsMessageBodyIn,
    MlsMessageIn, MlsMessageOut, ProtocolVersion, UnknownExtension,
};

use super::twist::VillainSigner;
use super::{Twist, Villain};
use crate::world::{PersonId, World};

/// A KeyPackage, and whose device it claims to be.
#[derive(Clone, Debug)]
pub struct Package {
    /// The device in its credential.
    pub device: DeviceId,
    pub(super) key_package: KeyPackage,
}

/// What a made-up KeyPackage says.
pub struct Recipe<'a> {
    /// The organisation in its credential.
    pub org: OrgId,
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Signs it.
    pub key: &'a SigningKey,
    /// Its ciphersuite.
    pub suite: u16,
    /// Its lifetime, seconds since 1970.
    pub lifetime_s: (u64, u64),
    /// The leaf's resync extension.
    pub resync: Option<Vec<u8>>,
    /// Whether the leaf can do what the group requires.
    pub is_capable: bool,
}

impl<'a> Recipe<'a> {
    /// A KeyPackage as an honest device of that key, of a villain's user and for its group, would make it.
    #[must_use]
    pub fn new(world: &World, villain: &Villain, key: &'a SigningKey) -> Self {
        let now_s = world.now_ms / 1_000;
        Self {
            org: villain.org,
            user: villain.user,
            device: key.public().device_id(),
            key,
            suite: villain.look(|mls| mls.ciphersuite().into()),
            lifetime_s: (now_s - 3_600, now_s + 80 * 24 * 3_600),
            resync: None,
            is_capable: true,
        }
    }
}

impl Package {
    /// The MLSMessage with it.
    ///
    /// # Panics
    /// When openmls does not encode it.
    #[must_use]
    pub fn to_message(&self) -> Vec<u8> {
        MlsMessageOut::from(self.key_package.clone())
            .tls_serialize_detached()
            .expect("a KeyPackage")
    }

    /// The KeyPackage.
    #[must_use]
    pub fn key_package(&self) -> &KeyPackage {
        &self.key_package
    }

    /// Takes a KeyPackage of somebody's device from the relay's stock, and leaves it there.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn stocked(world: &World, who: PersonId, suite: u16) -> Self {
        let engine = world.people[who.0].engine();
        let suite = suite.to_be_bytes();
        let prefix = [&engine.org().0[..], &engine.device().0, &suite].concat();
        let rows = world
            .disk
            .range(layout::KEY_PACKAGES, &prefix, &[], usize::MAX)
            .expect("the disk reads");
        let (_, row) = rows.last().expect("a KeyPackage in stock");
        Self::read(&row[1..])
    }

    /// Reads an MLSMessage with a KeyPackage.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let message = MlsMessageIn::tls_deserialize_exact(bytes).expect("an MLSMessage");
        let MlsMessageBodyIn::KeyPackage(unverified) = message.extract() else {
            panic!("a KeyPackage")
        };
        let crypto = Crypto::default();
        let key_package = KeyPackageIn::validate(unverified, &crypto, ProtocolVersion::Mls10);
        Self::of(key_package.expect("a valid KeyPackage"))
    }

    /// Makes one up for a device that no roster knows.
    ///
    /// # Panics
    /// When openmls does not make it.
    #[must_use]
    pub fn stranger(world: &World, by: &Villain, key: &SigningKey) -> Self {
        Self::make(&Recipe::new(world, by, key))
    }

    /// The KeyPackage, as it is in an Add.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.key_package
            .tls_serialize_detached()
            .expect("a KeyPackage")
    }

    fn of(key_package: KeyPackage) -> Self {
        let credential = DeviceCredential::read(key_package.leaf_node().credential());
        Self {
            device: credential.map_or(DeviceId([0; 16]), |c| c.device),
            key_package,
        }
    }

    /// Makes one up.
    ///
    /// # Panics
    /// When openmls does not make it.
    #[must_use]
    pub fn make(recipe: &Recipe<'_>) -> Self {
        let (crypto, store) = (Crypto::default(), MemoryStore::default());
        let tx = Tx::new(&store);
        let suite = Ciphersuite::try_from(recipe.suite).expect("a suite");
        let credential = encode(&DeviceCredential {
            version: 1,
            org: recipe.org,
            user: recipe.user,
            device: recipe.device,
        });
        let credential = CredentialWithKey {
            credential: BasicCredential::new(credential).into(),
            signature_key: recipe.key.public().0.to_vec().into(),
        };
        let mut builder = KeyPackage::builder()
            .key_package_lifetime(Lifetime::init(recipe.lifetime_s.0, recipe.lifetime_s.1))
            .leaf_node_capabilities(capabilities(suite, recipe.is_capable));
        if let Some(resync) = &recipe.resync {
            builder = builder.leaf_node_extensions(resync_extension(resync));
        }
        let twist = Twist::default();
        let signer = VillainSigner {
            key: recipe.key,
            twist: &twist,
        };
        let provider = MlsProvider::new(&crypto, &tx);
        let bundle = builder.build(suite, &provider, &signer, credential);
        Self::of(bundle.expect("a KeyPackage").into_key_package())
    }
}

fn resync_extension(resync: &[u8]) -> Extensions<LeafNode> {
    let extension = Extension::Unknown(RESYNC_EXTENSION, UnknownExtension(resync.to_vec()));
    Extensions::from_vec(vec![extension]).expect("an extension of a leaf")
}

fn capabilities(suite: Ciphersuite, is_capable: bool) -> Capabilities {
    let ours = [
        ExtensionType::LastResort,
        ExtensionType::Unknown(GROUP_POLICY_EXTENSION),
        ExtensionType::Unknown(RESYNC_EXTENSION),
    ];
    let extensions = if is_capable { &ours[..] } else { &[] };
    Capabilities::new(
        None,
        Some(&[suite]),
        Some(extensions),
        None,
        Some(&[CredentialType::Basic]),
    )
}
