//! A certificate in the hands of whoever made it: any bytes, a good file that was changed, and a good file whose maker has
//! changed what it holds and signed that again.
//!
//! What verifies must say what the relay and the members have signed, and not a word more.

use std::cell::OnceCell;

use mortise_protocol::certificate::{CertificateTbs, VerifiedCertificate, verify};
use mortise_protocol::identity::{decode, encode};

use super::Bytes;
use crate::vectors::certificates::Scene;

thread_local! {
    static SCENE: OnceCell<Scene> = const { OnceCell::new() };
}

/// The first byte says what is done to which file.
pub(super) fn certificate(bytes: &[u8]) {
    SCENE.with(|cell| {
        let scene = cell.get_or_init(Scene::new);
        let mut bytes = Bytes::new(bytes);
        let disclosed = bytes.one_in(2);
        match bytes.below(4) {
            0 => drop(verify(bytes.rest(), scene.root())),
            1 => damaged(scene, disclosed, &mut bytes),
            2 => reencoded(scene, disclosed, &mut bytes),
            _ => rearranged(scene, disclosed, &mut bytes),
        }
    });
}

/// A change of any byte is found (REQ-178).
fn damaged(scene: &Scene, disclosed: bool, bytes: &mut Bytes<'_>) {
    let whole = scene.certificate(disclosed);
    let mut changed = whole.clone();
    bytes.mangle(&mut changed);
    assert!(changed == whole || verify(&changed, scene.root()).is_err());
}

/// The maker changes bytes of what it signs.
fn reencoded(scene: &Scene, disclosed: bool, bytes: &mut Bytes<'_>) {
    let mut changed = encode(&scene.tbs(disclosed));
    bytes.mangle(&mut changed);
    if let Ok(tbs) = decode(&changed) {
        judge(scene, tbs);
    }
}

/// The maker leaves out, doubles and swaps statements, rows and entries.
fn rearranged(scene: &Scene, disclosed: bool, bytes: &mut Bytes<'_>) {
    let mut tbs = scene.tbs(disclosed);
    while !bytes.is_empty() {
        match bytes.below(6) {
            0 => rearrange(bytes, &mut tbs.chain),
            1 => rearrange(bytes, &mut tbs.groups),
            2 => rearrange(bytes, &mut tbs.attestations),
            3 => rearrange(bytes, &mut tbs.receipts),
            4 => {
                let at = bytes.below(256);
                if let Some(row) = tbs.groups.get_mut(at % 8) {
                    rearrange(bytes, &mut row.attested);
                }
            }
            _ => tbs.at_ms ^= u64::from(bytes.byte()),
        }
    }
    judge(scene, tbs);
}

fn rearrange<T: Clone>(bytes: &mut Bytes<'_>, items: &mut Vec<T>) {
    if items.is_empty() {
        return;
    }
    let (at, other) = (
        bytes.below(256) % items.len(),
        bytes.below(256) % items.len(),
    );
    match bytes.below(3) {
        0 => drop(items.remove(at)),
        1 => items.insert(other, items[at].clone()),
        _ => items.swap(at, other),
    }
}

/// What verifies says nothing that was not signed by others: the same state of every group, and no further witness.
fn judge(scene: &Scene, tbs: CertificateTbs) {
    let honest = verify(&scene.certificate(false), scene.root()).expect("it holds");
    let Ok(shown) = verify(&scene.signed_by_maker(tbs), scene.root()) else {
        return;
    };
    assert_eq!(shown.state, honest.state, "the relay has signed one state");
    assert_eq!(shown.order, honest.order);
    assert_eq!(states(&shown), states(&honest));
    for (shown, honest) in shown.groups.iter().zip(&honest.groups) {
        let mut witnesses = shown.witnesses.iter();
        assert!(witnesses.all(|witness| honest.witnesses.contains(witness)));
        assert!(
            shown.witnesses.len() <= honest.witnesses.len(),
            "nobody counts twice"
        );
    }
}

fn states(shown: &VerifiedCertificate) -> Vec<impl PartialEq + std::fmt::Debug> {
    let groups = shown.groups.iter();
    groups.map(|group| (group.group, group.state)).collect()
}
