//! Certificates on their own: whole, tampered with, and what they do not show.

use mortise_protocol::certificate::{WitnessKind, verify};
use mortise_protocol::identity::PublicKey;
use mortise_protocol::wire::GroupState;
use mortise_tests::vectors::certificates::{Scene, signers};

/// REQ-178: every kind of tampering is refused, by its name.
#[test]
fn each_case_is_decided_as_it_says() {
    for case in Scene::new().cases() {
        let error = verify(&case.file, case.root).err();
        let name = error.as_ref().map(|error| error.name());
        assert_eq!(name, case.error, "{}: {error:?}", case.name);
    }
}

/// REQ-178: a change of any byte is found.
#[test]
fn no_byte_can_be_changed() {
    let scene = Scene::new();
    let whole = scene.certificate(false);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(verify(&changed, scene.root()).is_err(), "byte {at}");
    }
}

/// REQ-176: what was stated is shown, with who stated it.
#[test]
fn a_certificate_shows_who_stated_what() {
    let scene = Scene::new();
    let shown = verify(&scene.certificate(false), scene.root()).expect("it holds");
    let states: Vec<GroupState> = shown.groups.iter().map(|g| g.state).collect();
    assert_eq!(
        states,
        [
            GroupState::Rotated,
            GroupState::Clean,
            GroupState::Sealed,
            GroupState::Ended
        ]
    );
    let first = &shown.groups[0];
    assert!(first.is_confirmed() && !shown.groups[1].is_confirmed());
    let receipts = first
        .witnesses
        .iter()
        .filter(|w| w.kind == WitnessKind::Receipt);
    assert_eq!(receipts.count(), 2);
    let vouching = first
        .witnesses
        .iter()
        .all(|w| signers().contains(&w.device));
    assert!(vouching && signers().contains(&shown.maker));
    assert!(shown.hidden > 0);
    assert_eq!(shown.order.devices.len(), 1);
}

/// REQ-177: no key of somebody who stated nothing, unless the whole roster is disclosed.
#[test]
fn bystanders_are_not_shown_unless_disclosed() {
    let scene = Scene::new();
    let holds = |file: &[u8], key: &PublicKey| file.windows(32).any(|at| at == key.0);
    let file = scene.certificate(false);
    assert!(scene.bystander.iter().all(|key| !holds(&file, key)));
    let whole = scene.certificate(true);
    assert!(scene.bystander.iter().all(|key| holds(&whole, key)));
    let shown = verify(&whole, scene.root()).expect("it holds");
    assert_eq!(shown.hidden, 0);
}
