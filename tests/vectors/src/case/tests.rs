//! Every check can fail: a vector that is changed in one place is refused, in each suite. Runs on the official vectors.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::folder;

/// The folder that `./x vectors` uses; a relative one is relative to the repository.
fn vectors() -> Vec<VectorFile> {
    let dir = std::env::var_os("MORTISE_MLS_VECTORS")
        .map_or_else(|| PathBuf::from("../shared/vectors/mlswg"), PathBuf::from);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    folder::read(&PathBuf::from(root).join(dir)).unwrap_or_else(|error| panic!("{error}"))
}

/// Per ciphersuite that the provider has, the first case in which `place` is there.
fn samples(files: &[VectorFile], kind: Kind, place: &str) -> Vec<Value> {
    let mut samples: Vec<Value> = Vec::new();
    for case in files
        .iter()
        .filter(|f| f.kind == Some(kind))
        .flat_map(|f| &f.cases)
    {
        let suite = case.get("cipher_suite");
        let runs = suite.is_none_or(|suite| missing_suite(suite) == Ok(None));
        let there = case.pointer(place).is_some_and(|found| !found.is_null());
        if runs && there && samples.iter().all(|s| s.get("cipher_suite") != suite) {
            samples.push(case.clone());
        }
    }
    samples
}

fn run(kind: Kind, case: &Value) -> Outcome {
    run_case(&Scratch::new().expect("scratch"), kind, 0, case)
}

/// Another value of the same form: the next number, or the same bytes with the last one changed.
fn other(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_u64().map(|n| n + 1)),
        Value::String(hex) => {
            let (head, last) = hex.split_at(hex.len() - 1);
            json!(format!("{head}{}", if last == "0" { "1" } else { "0" }))
        }
        _ => panic!("neither a number nor bytes: {value}"),
    }
}

#[test]
fn a_changed_vector_fails() {
    let files = vectors();
    let places = [
        (Kind::CryptoBasics, "/ref_hash/out"),
        (Kind::CryptoBasics, "/expand_with_label/out"),
        (Kind::CryptoBasics, "/derive_secret/out"),
        (Kind::CryptoBasics, "/derive_tree_secret/out"),
        (Kind::CryptoBasics, "/sign_with_label/signature"),
        (Kind::CryptoBasics, "/encrypt_with_label/ciphertext"),
        (Kind::Deserialization, "/length"),
        (Kind::KeySchedule, "/epochs/0/exporter/secret"),
        (Kind::KeySchedule, "/epochs/0/membership_key"),
        (Kind::MessageProtection, "/proposal_pub"),
        (Kind::MessageProtection, "/commit_priv"),
        (Kind::MessageProtection, "/application"),
        (Kind::PassiveClient, "/initial_epoch_authenticator"),
        (Kind::PassiveClient, "/epochs/0/epoch_authenticator"),
        (Kind::PassiveClient, "/epochs/0/commit"),
        (Kind::PassiveClient, "/external_psks/0/psk"),
        (Kind::PassiveClient, "/init_priv"),
        (Kind::PskSecret, "/psk_secret"),
        (Kind::SecretTree, "/sender_data/nonce"),
        (Kind::SecretTree, "/leaves/0/0/handshake_key"),
        (Kind::TranscriptHashes, "/confirmed_transcript_hash_after"),
        (Kind::TranscriptHashes, "/interim_transcript_hash_after"),
        (Kind::TreeMath, "/root"),
        (Kind::TreeOperations, "/tree_after"),
        (Kind::TreeOperations, "/tree_hash_after"),
        (Kind::TreeValidation, "/tree_hashes/0"),
        (Kind::TreeValidation, "/resolutions/0/0"),
        (Kind::TreeValidation, "/group_id"),
        (Kind::TreeKem, "/update_paths/0/commit_secret"),
        (Kind::TreeKem, "/update_paths/0/tree_hash_after"),
        (Kind::Welcome, "/signer_pub"),
    ];
    for (kind, place) in places {
        let samples = samples(&files, kind, place);
        assert!(!samples.is_empty(), "no {} has {place}", kind.name());
        for good in samples {
            let name = format!("{} {:?} {place}", kind.name(), good.get("cipher_suite"));
            let outcome = run(kind, &good);
            assert!(matches!(outcome, Outcome::Passed(_)), "{name}: {outcome:?}");
            let mut bad = good.clone();
            let value = bad.pointer_mut(place).expect("just found");
            *value = other(value);
            let outcome = run(kind, &bad);
            assert!(matches!(outcome, Outcome::Failed(_)), "{name}: {outcome:?}");
        }
    }
}

/// Every field of `messages.json` is read: one that is a byte short is refused.
#[test]
fn a_message_that_is_cut_fails() {
    let good = samples(&vectors(), Kind::Messages, "/commit").remove(0);
    for field in good.as_object().expect("fields").keys() {
        let mut bad = good.clone();
        let text = bad[field].as_str().expect("bytes").to_owned();
        bad[field] = json!(text[..text.len() - 2]);
        let outcome = run(Kind::Messages, &bad);
        assert!(
            matches!(outcome, Outcome::Failed(_)),
            "{field}: {outcome:?}"
        );
    }
}

#[test]
fn a_suite_that_nobody_has_is_skipped_and_not_agreed_to() {
    let case = json!({ "initial_epoch_authenticator": "", "cipher_suite": 0xFFFF });
    let outcome = run(Kind::PassiveClient, &case);
    assert!(matches!(outcome, Outcome::Skipped(_)), "{outcome:?}");
    let result = FileResult {
        name: "x.json".into(),
        kind: Kind::PassiveClient.name(),
        outcomes: vec![outcome],
        ms: 0,
    };
    assert_eq!(result.unlisted().len(), 1);
}
