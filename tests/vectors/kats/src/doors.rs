//! The one way in: a kind of vector and one case of it.

use openmls_rust_crypto::OpenMlsRustCrypto;
use serde::de::DeserializeOwned;

use crate::group::mls_group::tests_and_kats::kats::welcome;
use crate::group::tests_and_kats::kats::{messages, transcript_hashes};
use crate::schedule::tests_and_kats::kats::{key_schedule, psk_secret};
use crate::tree::tests_and_kats::kats::{kat_message_protection, secret_tree};
use crate::treesync::tests_and_kats::kats::{
    kat_tree_operations, kat_tree_validation, kat_treekem,
};
use crate::{
    binary_tree::array_representation::kat_treemath, ciphersuite::tests_and_kats::kat_crypto_basics,
};

/// Runs openmls's check of one case of a kind, which is named as its file in the working group's set, on `provider` wherever openmls lets the caller choose one.
///
/// # Errors
/// What openmls says is wrong.
///
/// # Panics
/// Where openmls's check asserts: catch it, it is the same as an error. Cases of a ciphersuite that the provider does
/// not have pass unchecked: do not ask.
pub fn run(
    kind: &str,
    case: &serde_json::Value,
    provider: &impl crate::storage::OpenMlsProvider,
) -> Result<(), String> {
    match kind {
        "crypto-basics" => {
            kat_crypto_basics::run_test_vector(read(case)?, &OpenMlsRustCrypto::default())
        }
        "key-schedule" => key_schedule::run_test_vector(read(case)?, provider).map_err(say),
        "message-protection" => kat_message_protection::run_test_vector(read(case)?, provider),
        "messages" => messages::run_test_vector(read(case)?).map_err(say),
        "psk_secret" => psk_secret::run_test_vector(read(case)?, provider),
        "secret-tree" => secret_tree::run_test_vector(read(case)?, provider),
        "transcript-hashes" => Ok(transcript_hashes::run_test_vector(read(case)?)),
        "tree-math" => kat_treemath::run_test_vector(read(case)?).map_err(say),
        "tree-operations" => kat_tree_operations::run_test_vector(read(case)?, provider),
        "tree-validation" => kat_tree_validation::run_test_vector(read(case)?, provider),
        "treekem" => Ok(kat_treekem::run_test_vector(read(case)?, provider)),
        "welcome" => welcome::run_test_vector(read(case)?).map_err(say),
        _ => Err(format!("openmls has no check of {kind:?}")),
    }
}

fn read<T: DeserializeOwned>(case: &serde_json::Value) -> Result<T, String> {
    T::deserialize(case).map_err(say)
}

fn say(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}
