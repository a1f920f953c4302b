//! A passive client: joins a group by its Welcome and follows it, on the product's provider and store.
//!
//! Mortise's own groups admit no public messages, no pre-shared keys and no foreign credentials; that policy lies
//! above openmls (`mortise_protocol::group`), and these vectors are plain MLS below it.

use ciborium::Value as Cbor;
use mortise_protocol::group::MlsProvider;
use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    GroupId, HpkePrivateKey, KeyPackage, KeyPackageBundle, MIXED_PLAINTEXT_WIRE_FORMAT_POLICY,
    MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider as _,
    ProcessedMessageContent, RatchetTreeIn, StagedWelcome,
};
use openmls::schedule::PreSharedKeyId;
use openmls_traits::storage::StorageProvider as _;
use serde::Deserialize;

use crate::case::Hex;
use crate::scratch::{Scratch, say};

/// Resumption secrets that are kept: more than the largest vector goes back.
const RESUMPTION_PSKS: usize = 16;

/// A case of `passive-client-*.json`.
#[derive(Deserialize)]
pub(crate) struct Case {
    external_psks: Vec<ExternalPsk>,
    key_package: Hex,
    encryption_priv: Hex,
    init_priv: Hex,
    welcome: Hex,
    ratchet_tree: Option<Hex>,
    initial_epoch_authenticator: Hex,
    epochs: Vec<Epoch>,
}

#[derive(Deserialize)]
struct ExternalPsk {
    psk_id: Hex,
    psk: Hex,
}

#[derive(Deserialize)]
struct Epoch {
    proposals: Vec<Hex>,
    commit: Hex,
    epoch_authenticator: Hex,
}

/// Where the group is between two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// In the file alone, which is closed and opened again before each epoch.
    Stored,
    /// In memory, as long as the device runs; the file follows.
    InMemory,
}

/// Runs one case; `keep` says how the client holds its group.
///
/// # Errors
/// What is refused, or differs from what the vector expects.
pub(crate) fn run(case: &Case, keep: Keep) -> Result<(), String> {
    let mut scratch = Scratch::new()?;
    scratch.step(|provider| prepare(provider, case))?;
    scratch.reopen()?;
    let group = scratch.step(|provider| join(provider, case))?;
    let mut client = Client {
        id: group.group_id().clone(),
        held: (keep == Keep::InMemory).then_some(group),
        scratch,
    };
    client.expect("after joining", &case.initial_epoch_authenticator)?;
    for (n, epoch) in case.epochs.iter().enumerate() {
        if keep == Keep::Stored {
            client.scratch.reopen()?;
        }
        for message in epoch.proposals.iter().chain([&epoch.commit]) {
            client
                .follow(message)
                .map_err(|e| format!("epoch {n}: {e}"))?;
        }
        client.expect(&format!("epoch {n}"), &epoch.epoch_authenticator)?;
    }
    // Whatever was held in memory, the file has it too.
    client.held = None;
    let last = case
        .epochs
        .last()
        .map_or(&case.initial_epoch_authenticator, |e| {
            &e.epoch_authenticator
        });
    client.scratch.reopen()?;
    client.expect("at the end, from the file", last)
}

/// Stores what the client has before it is invited: pre-shared keys, and its KeyPackage with the private keys.
fn prepare(provider: &MlsProvider<'_, '_>, case: &Case) -> Result<(), String> {
    for psk in &case.external_psks {
        PreSharedKeyId::external(psk.psk_id.0.clone(), Vec::new())
            .store(provider, &psk.psk.0)
            .map_err(say)?;
    }
    let bundle = bundle(case)?;
    let reference = bundle
        .key_package()
        .hash_ref(provider.crypto())
        .map_err(say)?;
    provider
        .storage()
        .write_key_package(&reference, &bundle)
        .map_err(say)
}

/// The bundle as openmls stores it: there is no other way to give openmls private keys that it has not made, and its
/// own reading of a KeyPackage refuses one whose lifetime has passed since the vectors were made.
fn bundle(case: &Case) -> Result<KeyPackageBundle, String> {
    let message = MlsMessageIn::tls_deserialize_exact(&case.key_package.0).map_err(say)?;
    let MlsMessageBodyIn::KeyPackage(unverified) = message.extract() else {
        return Err("the KeyPackage is none".into());
    };
    let key_package: KeyPackage = Cbor::serialized(&unverified)
        .map_err(say)?
        .deserialized()
        .map_err(say)?;
    let private = |key: &Hex| Cbor::serialized(&HpkePrivateKey::from(key.0.clone())).map_err(say);
    let field = |name: &str, value| (Cbor::from(name), value);
    Cbor::Map(vec![
        field("key_package", Cbor::serialized(&key_package).map_err(say)?),
        field("private_init_key", private(&case.init_priv)?),
        field(
            "private_encryption_key",
            Cbor::Map(vec![field("key", private(&case.encryption_priv)?)]),
        ),
    ])
    .deserialized()
    .map_err(say)
}

fn join(provider: &MlsProvider<'_, '_>, case: &Case) -> Result<MlsGroup, String> {
    let config = MlsGroupJoinConfig::builder()
        .use_ratchet_tree_extension(true)
        .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
        .number_of_resumption_psks(RESUMPTION_PSKS)
        .build();
    let message = MlsMessageIn::tls_deserialize_exact(&case.welcome.0).map_err(say)?;
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
        return Err("the Welcome is none".into());
    };
    let mut builder = StagedWelcome::build_from_welcome(provider, &config, welcome)
        .map_err(say)?
        .skip_lifetime_validation();
    if let Some(tree) = &case.ratchet_tree {
        builder =
            builder.with_ratchet_tree(RatchetTreeIn::tls_deserialize_exact(&tree.0).map_err(say)?);
    }
    let staged = builder.build().map_err(say)?;
    staged.into_group(provider).map_err(say)
}

struct Client {
    scratch: Scratch,
    id: GroupId,
    held: Option<MlsGroup>,
}

impl Client {
    /// Processes a proposal or follows a commit, in one transaction.
    fn follow(&mut self, message: &Hex) -> Result<(), String> {
        let held = self.held.take();
        let hold = held.is_some();
        let group = self.scratch.step(|provider| {
            let mut group = held.map_or_else(|| load(provider, &self.id), Ok)?;
            process(provider, &mut group, &message.0)?;
            Ok(group)
        })?;
        self.held = hold.then_some(group);
        Ok(())
    }

    fn expect(&mut self, when: &str, authenticator: &Hex) -> Result<(), String> {
        let found = match &self.held {
            Some(group) => group.epoch_authenticator().as_slice().to_vec(),
            None => self.scratch.step(|provider| {
                let group = load(provider, &self.id)?;
                Ok(group.epoch_authenticator().as_slice().to_vec())
            })?,
        };
        if found == authenticator.0 {
            Ok(())
        } else {
            Err(format!("{when}: another epoch authenticator"))
        }
    }
}

fn load(provider: &MlsProvider<'_, '_>, id: &GroupId) -> Result<MlsGroup, String> {
    MlsGroup::load(provider.storage(), id)
        .map_err(say)?
        .ok_or_else(|| "the group is not in the store".into())
}

fn process(
    provider: &MlsProvider<'_, '_>,
    group: &mut MlsGroup,
    message: &[u8],
) -> Result<(), String> {
    let message = MlsMessageIn::tls_deserialize_exact(message).map_err(say)?;
    let message = message.try_into_protocol_message().map_err(say)?;
    let processed = group.process_message(provider, message).map_err(say)?;
    match processed.into_content() {
        ProcessedMessageContent::ProposalMessage(proposal) => group
            .store_pending_proposal(provider.storage(), *proposal)
            .map_err(say),
        ProcessedMessageContent::StagedCommitMessage(staged) => {
            group.merge_staged_commit(provider, *staged).map_err(say)
        }
        _ => Err("neither a proposal nor a commit".into()),
    }
}
