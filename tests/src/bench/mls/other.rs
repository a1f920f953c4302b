//! mls-rs, with `write_to_storage` after every step, into a database like the others'.
//!
//! Its cryptography is its RustCrypto provider (and for suite 0x004F the KEM of `mixed`): the AWS-LC one links another
//! AWS-LC than this workspace.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail};
use mls_rs::client_builder::{
    BaseConfig, WithCryptoProvider, WithGroupStateStorage, WithIdentityProvider, WithMlsRules,
};
use mls_rs::error::IntoAnyError;
use mls_rs::group::ReceivedMessage;
use mls_rs::identity::SigningIdentity;
use mls_rs::identity::basic::{BasicCredential, BasicIdentityProvider};
use mls_rs::mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions};
use mls_rs::{
    CipherSuiteProvider as _, Client, CryptoProvider as _, ExtensionList, Group, GroupStateStorage,
    MlsMessage,
};
use mls_rs_core::group::{EpochRecord, GroupState};
use mortise_protocol::store::{Reader as _, Space, StoreError, Write};
use zeroize::Zeroizing;

use super::disk::Disk;
use super::stack::{Commit, Device};
use crate::mixed::OneSuite;

const STATES: Space = Space(1);
const EPOCHS: Space = Space(2);

type Config = WithMlsRules<
    DefaultMlsRules,
    WithIdentityProvider<
        BasicIdentityProvider,
        WithCryptoProvider<OneSuite, WithGroupStateStorage<Rows, BaseConfig>>,
    >,
>;

/// mls-rs's storage of groups, as rows.
#[derive(Clone)]
struct Rows(Arc<Mutex<Disk>>);

/// A row could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RowError(String);

impl IntoAnyError for RowError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

impl From<StoreError> for RowError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

fn epoch_key(group: &[u8], epoch: u64) -> Vec<u8> {
    [group, &epoch.to_be_bytes()].concat()
}

impl Rows {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupStateStorage for Rows {
    type Error = RowError;

    fn state(&self, group_id: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, RowError> {
        let value = self.disk().store.read(STATES, group_id)?;
        Ok(value.map(Zeroizing::new))
    }

    fn epoch(
        &self,
        group_id: &[u8],
        epoch_id: u64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, RowError> {
        let key = epoch_key(group_id, epoch_id);
        Ok(self.disk().store.read(EPOCHS, &key)?.map(Zeroizing::new))
    }

    fn write(
        &mut self,
        state: GroupState,
        epoch_inserts: Vec<EpochRecord>,
        epoch_updates: Vec<EpochRecord>,
    ) -> Result<(), RowError> {
        let epochs = epoch_inserts.iter().chain(&epoch_updates);
        let mut rows: Vec<Write> = epochs
            .map(|epoch| Write {
                space: EPOCHS,
                key: epoch_key(&state.id, epoch.id),
                value: Some(epoch.data.to_vec()),
            })
            .collect();
        // As many past epochs as mls-rs keeps by default.
        for epoch in &epoch_inserts {
            if let Some(old) = epoch.id.checked_sub(3) {
                rows.push(Write {
                    space: EPOCHS,
                    key: epoch_key(&state.id, old),
                    value: None,
                });
            }
        }
        rows.push(Write {
            space: STATES,
            key: state.id.clone(),
            value: Some(state.data.to_vec()),
        });
        self.disk()
            .write(&rows)
            .map_err(|error| RowError(error.to_string()))
    }

    fn max_epoch_id(&self, group_id: &[u8]) -> Result<Option<u64>, RowError> {
        let rows = self
            .disk()
            .store
            .range(EPOCHS, group_id, group_id, usize::MAX)?;
        let last = rows.last().and_then(|(key, _)| key.last_chunk());
        Ok(last.map(|bytes| u64::from_be_bytes(*bytes)))
    }
}

pub(super) struct Other {
    client: Client<Config>,
    group: Option<Group<Config>>,
}

impl Other {
    fn step<T>(
        &mut self,
        work: impl FnOnce(&mut Group<Config>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let group = self.group.as_mut().context("no group")?;
        let value = work(group)?;
        group.write_to_storage()?;
        Ok(value)
    }
}

impl Device for Other {
    fn new(number: usize, suite: u16, is_kept: bool) -> anyhow::Result<Self> {
        let suite = OneSuite::new(suite).context("no such suite")?;
        let provider = suite
            .cipher_suite_provider(suite.id())
            .context("no such suite")?;
        let (secret, public) = provider.signature_key_generate()?;
        // As long as a credential of the product.
        let credential = BasicCredential::new(format!("{number:065}").into_bytes());
        let identity = SigningIdentity::new(credential.into_credential(), public);
        let rules = DefaultMlsRules::default()
            .with_commit_options(
                CommitOptions::new()
                    .with_ratchet_tree_extension(true)
                    .with_path_required(false)
                    .with_single_welcome_message(true),
            )
            .with_encryption_options(EncryptionOptions::new(
                true,
                mls_rs::client_builder::PaddingMode::StepFunction,
            ));
        let client = Client::builder()
            .group_state_storage(Rows(Arc::new(Mutex::new(Disk::new(is_kept)?))))
            .crypto_provider(suite)
            .identity_provider(BasicIdentityProvider::new())
            .mls_rules(rules)
            .signing_identity(identity, secret, suite.id())
            .build();
        Ok(Self {
            client,
            group: None,
        })
    }

    fn key_package(&mut self) -> anyhow::Result<Vec<u8>> {
        let (leaf, package) = (ExtensionList::new(), ExtensionList::new());
        let message = self
            .client
            .generate_key_package_message(leaf, package, None)?;
        Ok(message.to_bytes()?)
    }

    fn create(&mut self) -> anyhow::Result<()> {
        let (context, leaf) = (ExtensionList::new(), ExtensionList::new());
        self.group = Some(self.client.create_group(context, leaf, None)?);
        self.step(|_| Ok(()))
    }

    fn join(&mut self, welcome: &[u8]) -> anyhow::Result<()> {
        let welcome = MlsMessage::from_bytes(welcome)?;
        let (group, _) = self.client.join_group(None, &welcome, None)?;
        self.group = Some(group);
        self.step(|_| Ok(()))
    }

    fn add(&mut self, key_packages: &[Vec<u8>]) -> anyhow::Result<Commit> {
        self.step(|group| {
            let mut builder = group.commit_builder();
            for package in key_packages {
                builder = builder.add_member(MlsMessage::from_bytes(package)?)?;
            }
            let out = builder.build()?;
            let welcome = out.welcome_messages.first().context("no Welcome")?;
            Ok(Commit {
                commit: out.commit_message.to_bytes()?,
                welcome: Some(welcome.to_bytes()?),
            })
        })
    }

    fn commit(&mut self, remove: Option<u32>) -> anyhow::Result<Commit> {
        self.step(|group| {
            let mut builder = group.commit_builder();
            if let Some(leaf) = remove {
                builder = builder.remove_member(leaf)?;
            }
            Ok(Commit {
                commit: builder.build()?.commit_message.to_bytes()?,
                welcome: None,
            })
        })
    }

    fn apply_own(&mut self) -> anyhow::Result<()> {
        self.step(|group| {
            group.apply_pending_commit()?;
            Ok(())
        })
    }

    fn follow(&mut self, commit: &[u8]) -> anyhow::Result<()> {
        self.step(|group| {
            let message = MlsMessage::from_bytes(commit)?;
            match group.process_incoming_message(message)? {
                ReceivedMessage::Commit(_) => Ok(()),
                _ => bail!("not a commit"),
            }
        })
    }

    fn send(&mut self, text: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.step(|group| {
            let message = group.encrypt_application_message(text, Vec::new())?;
            Ok(message.to_bytes()?)
        })
    }

    fn receive(&mut self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.step(|group| {
            let message = MlsMessage::from_bytes(message)?;
            match group.process_incoming_message(message)? {
                ReceivedMessage::ApplicationMessage(message) => Ok(message.data().to_vec()),
                _ => bail!("not a message"),
            }
        })
    }

    fn authenticator(&self) -> anyhow::Result<Vec<u8>> {
        let group = self.group.as_ref().context("no group")?;
        Ok(group.epoch_authenticator()?.as_bytes().to_vec())
    }
}
