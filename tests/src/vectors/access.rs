//! Access keys and the proofs made with them: REQ-050, REQ-052.

use mortise_protocol::group::Crypto;
use mortise_protocol::identity::{Epoch, GroupId, Hash, PublicKey, Signature, SigningKey, sha256};
use mortise_protocol::wire::log::{ACCESS_KEY_LABEL, BINDING_LABEL};
use mortise_protocol::wire::{AccessProof, ConnectionBinding, Purpose, Refusal};
use openmls::prelude::HashType;
use openmls_traits::crypto::OpenMlsCrypto as _;
use serde_json::{Value, json};

use super::fields::{Fields, name_of};
use super::hex;

const GROUP: GroupId = GroupId([0x67; 32]);
const EPOCH: Epoch = Epoch(3);
const ENTRY: Hash = Hash([0xe4; 32]);
const BINDING: ConnectionBinding = ConnectionBinding([0xb1; 32]);

pub(super) fn vectors() -> Value {
    json!({
        "mls_exporter_label": ACCESS_KEY_LABEL,
        "tls_exporter_label": String::from_utf8_lossy(BINDING_LABEL),
        "keys": ([1_u8, 2].map(derived)),
        "proofs": proofs(),
    })
}

/// From an epoch's `exporter_secret` (RFC 9420, section 8) to the public half.
fn derived(number: u8) -> Value {
    let exporter_secret = [number; 32];
    let seed = mls_exporter(&exporter_secret, ACCESS_KEY_LABEL, &GROUP.0);
    json!({
        "exporter_secret": hex(exporter_secret),
        "group": hex(GROUP.0),
        "seed": hex(seed),
        "public_key": hex(SigningKey::from_seed(&seed).public().0),
    })
}

/// MLS-Exporter (RFC 9420, section 8.5) of 32 bytes; openmls has none that takes the secret.
fn mls_exporter(secret: &[u8], label: &str, context: &[u8]) -> [u8; 32] {
    let derived = expand_with_label(secret, label, &[]);
    expand_with_label(&derived, "exported", &sha256(context).0)
}

/// ExpandWithLabel (RFC 9420, section 8) of 32 bytes, for labels and contexts below 64 bytes.
fn expand_with_label(secret: &[u8], label: &str, context: &[u8]) -> [u8; 32] {
    let label = format!("MLS 1.0 {label}");
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("below 64 bytes");
    let info = [
        &[0, 32, length(label.as_bytes())][..],
        label.as_bytes(),
        &[length(context)],
        context,
    ]
    .concat();
    let expanded = Crypto::default()
        .hkdf_expand(HashType::Sha2_256, secret, &info, 32)
        .expect("32 bytes of HKDF");
    expanded.as_slice().try_into().expect("32 bytes")
}

/// What a proof is checked against.
struct Against {
    key: PublicKey,
    binding: ConnectionBinding,
    group: GroupId,
    epoch: Epoch,
    entry: Hash,
    purpose: Purpose,
}

/// What the relay holds, and what it answers.
///
/// That the proof names the log's own opening entry is the relay's to compare; the rest is the signature's.
fn decide(proof: &AccessProof, against: &Against) -> Option<Refusal> {
    let holds = proof.entry_hash == against.entry
        && proof
            .verify(
                &against.key,
                &against.binding,
                against.group,
                against.epoch,
                against.purpose,
            )
            .is_ok();
    (!holds).then_some(Refusal::AccessDenied)
}

fn proofs() -> Value {
    let key = SigningKey::from_seed(&[7; 32]);
    let read = AccessProof::sign(&key, &BINDING, GROUP, EPOCH, ENTRY, Purpose::Read);
    let append = AccessProof::sign(&key, &BINDING, GROUP, EPOCH, ENTRY, Purpose::Append);
    let reading = || Against {
        key: key.public(),
        binding: BINDING,
        group: GROUP,
        epoch: EPOCH,
        entry: ENTRY,
        purpose: Purpose::Read,
    };
    let mut forged = read.clone();
    forged.signature = Signature([0x51; 64]);
    let mut elsewhere = read.clone();
    elsewhere.entry_hash = Hash([0xe5; 32]);
    let cases = [
        ("to read", read.clone(), reading()),
        (
            "to append",
            append.clone(),
            Against {
                purpose: Purpose::Append,
                ..reading()
            },
        ),
        ("for the other purpose", append, reading()),
        (
            "replayed on another connection",
            read.clone(),
            Against {
                binding: ConnectionBinding([0xb2; 32]),
                ..reading()
            },
        ),
        (
            "of another group",
            read.clone(),
            Against {
                group: GroupId([0x68; 32]),
                ..reading()
            },
        ),
        (
            "of another epoch",
            read.clone(),
            Against {
                epoch: Epoch(4),
                ..reading()
            },
        ),
        (
            "of a log that forked",
            read.clone(),
            Against {
                entry: Hash([0xe5; 32]),
                ..reading()
            },
        ),
        (
            "an opening entry that was not signed",
            elsewhere,
            Against {
                entry: Hash([0xe5; 32]),
                ..reading()
            },
        ),
        (
            "by another epoch's key",
            read,
            Against {
                key: SigningKey::from_seed(&[8; 32]).public(),
                ..reading()
            },
        ),
        ("no signature", forged, reading()),
    ];
    cases
        .into_iter()
        .map(|(name, proof, against)| {
            json!({
                "name": name,
                "proof": proof.fields(),
                "access_key": against.key.fields(),
                "binding": hex(against.binding.0),
                "group": against.group.fields(),
                "epoch": against.epoch.fields(),
                "entry_hash": against.entry.fields(),
                "purpose": if against.purpose == Purpose::Read { "read" } else { "append" },
                "refusal": decide(&proof, &against).as_ref().map(name_of),
            })
        })
        .collect()
}
