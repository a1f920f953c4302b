//! The bytes of commits and proposals, for what openmls would not write (RFC 9420 §12).

use mortise_protocol::identity::SigningKey;
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _, VLBytes};

/// A vector with its length.
pub(super) fn vector(bytes: &[u8]) -> Vec<u8> {
    let vector = VLBytes::new(bytes.to_vec());
    vector.tls_serialize_detached().expect("a vector")
}

/// The vector that some bytes begin with, and the rest.
pub(super) fn take(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut rest = bytes;
    let vector = VLBytes::tls_deserialize(&mut rest).expect("a vector");
    (vector.as_slice().to_vec(), rest)
}

/// A signature with a label (RFC 9420 §5.1.2).
pub(super) fn sign(key: &SigningKey, label: &[u8], content: &[u8]) -> Vec<u8> {
    let label = [b"MLS 1.0 ", label].concat();
    let labelled = [vector(&label), vector(content)].concat();
    key.sign_as_is(&labelled).0.to_vec()
}

/// A commit's proposals, and the rest: its path.
pub(super) fn proposals_of(commit: &[u8]) -> (Vec<u8>, &[u8]) {
    take(commit)
}

/// The same commit with these proposals, each by value, and no others.
pub(super) fn with_proposals(commit: &[u8], proposals: &[Vec<u8>]) -> Vec<u8> {
    let (_, path) = proposals_of(commit);
    let by_value = proposals.iter().map(|p| [&[1][..], p].concat());
    let list: Vec<u8> = by_value.flatten().collect();
    [&vector(&list), path].concat()
}

/// A proposal of a type with this content.
pub(super) fn proposal(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], content].concat()
}

/// Remove of a leaf.
pub(super) fn remove(leaf: u32) -> Vec<u8> {
    proposal(3, &leaf.to_be_bytes())
}

/// PreSharedKey, external: an id and a nonce.
pub(super) fn external_psk(nonce_bytes: usize) -> Vec<u8> {
    let content = [
        vec![1],
        vector(b"known to nobody"),
        vector(&vec![7; nonce_bytes]),
    ];
    proposal(4, &content.concat())
}

/// PreSharedKey, resumption with this usage, of a group's epoch.
pub(super) fn resumption_psk(usage: u8, group: &[u8], epoch: u64) -> Vec<u8> {
    let content = [
        vec![2, usage],
        vector(group),
        epoch.to_be_bytes().to_vec(),
        vector(&[7; 32]),
    ];
    proposal(4, &content.concat())
}

/// ReInit of a group of suite 1.
pub(super) fn reinit(group: &[u8]) -> Vec<u8> {
    let content = [vector(group), vec![0, 1, 0, 1], vector(&[])];
    proposal(5, &content.concat())
}

/// ExternalInit.
pub(super) fn external_init() -> Vec<u8> {
    proposal(6, &vector(&[5; 32]))
}

/// GroupContextExtensions with one extension of a type.
pub(super) fn context_extension(kind: u16, content: &[u8]) -> Vec<u8> {
    let extension = [kind.to_be_bytes().to_vec(), vector(content)].concat();
    proposal(7, &vector(&extension))
}

/// SelfRemove.
pub(super) fn self_remove() -> Vec<u8> {
    proposal(10, &[])
}
