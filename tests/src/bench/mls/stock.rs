//! openmls as it comes: its RustCrypto provider, its signer, its storage of one JSON value per key.
//!
//! openmls's SQLite storage links another SQLite than this workspace. So its memory storage, which encodes in the same way,
//! keeps the values, and those that a step has changed are written as rows, in one transaction, to a database
//! like the others'. Finding out which they are is not counted.

use std::collections::HashMap;

use anyhow::{Context as _, anyhow, bail, ensure};
use mortise_protocol::store::{Space, Write};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, KeyPackageIn, LeafNodeIndex,
    MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent, ProtocolVersion, StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::OpenMlsProvider as _;

use super::disk::{Disk, uncounted};
use super::stack::{Commit, Device};

const ROWS: Space = Space(1);
/// As the product pads.
const PADDING_BYTES: usize = 128;

pub(super) struct Stock {
    disk: Disk,
    provider: OpenMlsRustCrypto,
    /// What is on the disk.
    stored: HashMap<Vec<u8>, Vec<u8>>,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
    suite: Ciphersuite,
    group: Option<MlsGroup>,
}

impl Stock {
    /// Writes what the step has changed.
    fn persist(&mut self) -> anyhow::Result<()> {
        let rows = uncounted(|| {
            let values = self.provider.storage().values.read();
            let values = values.map_err(|_| anyhow!("a lock is poisoned"))?;
            let changed = values
                .iter()
                .filter(|(key, value)| self.stored.get(*key) != Some(value));
            let mut rows: Vec<Write> = changed
                .map(|(key, value)| Write {
                    space: ROWS,
                    key: key.clone(),
                    value: Some(value.clone()),
                })
                .collect();
            let gone = self.stored.keys().filter(|key| !values.contains_key(*key));
            rows.extend(gone.map(|key| Write {
                space: ROWS,
                key: key.clone(),
                value: None,
            }));
            self.stored.clone_from(&values);
            Ok(rows)
        })?;
        self.disk.write(&rows)
    }
}

impl Device for Stock {
    fn new(number: usize, suite: u16, is_kept: bool) -> anyhow::Result<Self> {
        let suite = Ciphersuite::try_from(suite).map_err(|_| anyhow!("no such suite"))?;
        let provider = OpenMlsRustCrypto::default();
        let signer = SignatureKeyPair::new(suite.signature_algorithm())
            .map_err(|_| anyhow!("make a key"))?;
        // As long as a credential of the product.
        let name = format!("{number:065}").into_bytes();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name).into(),
            signature_key: signer.public().into(),
        };
        Ok(Self {
            disk: Disk::new(is_kept)?,
            provider,
            stored: HashMap::new(),
            signer,
            credential,
            suite,
            group: None,
        })
    }

    fn key_package(&mut self) -> anyhow::Result<Vec<u8>> {
        let capabilities =
            openmls::prelude::Capabilities::new(None, Some(&[self.suite]), None, None, None);
        let bundle = KeyPackage::builder()
            .leaf_node_capabilities(capabilities)
            .build(
                self.suite,
                &self.provider,
                &self.signer,
                self.credential.clone(),
            )?;
        let message = MlsMessageOut::from(bundle.key_package().clone());
        let bytes = message.tls_serialize_detached()?;
        self.persist()?;
        Ok(bytes)
    }

    fn create(&mut self) -> anyhow::Result<()> {
        let capabilities =
            openmls::prelude::Capabilities::new(None, Some(&[self.suite]), None, None, None);
        let group = MlsGroup::builder()
            .ciphersuite(self.suite)
            .with_wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .padding_size(PADDING_BYTES)
            .with_capabilities(capabilities)
            .build(&self.provider, &self.signer, self.credential.clone())?;
        self.group = Some(group);
        self.persist()
    }

    fn join(&mut self, welcome: &[u8]) -> anyhow::Result<()> {
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .padding_size(PADDING_BYTES)
            .build();
        let message = MlsMessageIn::tls_deserialize_exact(welcome)?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            bail!("not a Welcome");
        };
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None)?;
        self.group = Some(staged.into_group(&self.provider)?);
        self.persist()
    }

    fn add(&mut self, key_packages: &[Vec<u8>]) -> anyhow::Result<Commit> {
        let mut adds = Vec::new();
        for bytes in key_packages {
            let message = MlsMessageIn::tls_deserialize_exact(bytes.as_slice())?;
            let MlsMessageBodyIn::KeyPackage(package) = message.extract() else {
                bail!("not a KeyPackage");
            };
            let package: KeyPackageIn = package;
            adds.push(package.validate(self.provider.crypto(), ProtocolVersion::Mls10)?);
        }
        let group = self.group.as_mut().context("no group")?;
        let (commit, welcome, _) =
            group.add_members_without_update(&self.provider, &self.signer, &adds)?;
        let commit = Commit {
            commit: commit.tls_serialize_detached()?,
            welcome: Some(welcome.tls_serialize_detached()?),
        };
        self.persist()?;
        Ok(commit)
    }

    fn commit(&mut self, remove: Option<u32>) -> anyhow::Result<Commit> {
        let group = self.group.as_mut().context("no group")?;
        let commit = match remove {
            Some(leaf) => {
                let gone = [LeafNodeIndex::new(leaf)];
                group.remove_members(&self.provider, &self.signer, &gone)?.0
            }
            None => {
                let parameters = openmls::prelude::LeafNodeParameters::default();
                let bundle = group.self_update(&self.provider, &self.signer, parameters)?;
                bundle.into_commit()
            }
        };
        let commit = Commit {
            commit: commit.tls_serialize_detached()?,
            welcome: None,
        };
        self.persist()?;
        Ok(commit)
    }

    fn apply_own(&mut self) -> anyhow::Result<()> {
        let group = self.group.as_mut().context("no group")?;
        group.merge_pending_commit(&self.provider)?;
        self.persist()
    }

    fn follow(&mut self, commit: &[u8]) -> anyhow::Result<()> {
        let group = self.group.as_mut().context("no group")?;
        let message = MlsMessageIn::tls_deserialize_exact(commit)?.try_into_protocol_message()?;
        let processed = group.process_message(&self.provider, message)?;
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            bail!("not a commit");
        };
        group.merge_staged_commit(&self.provider, *staged)?;
        self.persist()
    }

    fn send(&mut self, text: &[u8]) -> anyhow::Result<Vec<u8>> {
        let group = self.group.as_mut().context("no group")?;
        let message = group.create_message(&self.provider, &self.signer, text)?;
        let bytes = message.tls_serialize_detached()?;
        self.persist()?;
        Ok(bytes)
    }

    fn receive(&mut self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let group = self.group.as_mut().context("no group")?;
        let message = MlsMessageIn::tls_deserialize_exact(message)?.try_into_protocol_message()?;
        let processed = group.process_message(&self.provider, message)?;
        let ProcessedMessageContent::ApplicationMessage(message) = processed.into_content() else {
            bail!("not a message");
        };
        let bytes = message.into_bytes();
        self.persist()?;
        Ok(bytes)
    }

    fn authenticator(&self) -> anyhow::Result<Vec<u8>> {
        let group = self.group.as_ref().context("no group")?;
        ensure!(group.is_active(), "not a member");
        Ok(group.epoch_authenticator().as_slice().to_vec())
    }
}
