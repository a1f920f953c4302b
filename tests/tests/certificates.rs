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

mod evidence {
    //! Whole: devices, their relay, and what becomes of a group that the relay hides.

    use std::collections::BTreeSet;

    use mortise_protocol::certificate::{Evidence, VerifiedCertificate, WitnessKind, verify};
    use mortise_protocol::engine::{Alarm, CertificationError, CommandKind, Event};
    use mortise_protocol::group::SUITE_CLASSICAL;
    use mortise_protocol::identity::{GroupId, RosterSeq};
    use mortise_protocol::wire::{GroupState, Refusal, RelayToClient, Response};
    use mortise_tests::world::{Liar, PersonId, World};

    const CY: PersonId = PersonId(2);

    /// What an owner's device has collected about an order.
    fn collect(world: &mut World, who: PersonId, order: RosterSeq) -> Evidence {
        let wanted = world.command(who, CommandKind::CollectEvidence { order });
        world.settle();
        let found = world.people[who.0]
            .events
            .iter()
            .find_map(|event| match event {
                Event::Evidence { id, evidence } if *id == wanted => {
                    Some(evidence.as_ref().clone())
                }
                _ => None,
            });
        found.expect("evidence")
    }

    fn make(
        world: &mut World,
        who: PersonId,
        evidence: Evidence,
        disclose: bool,
    ) -> Result<VerifiedCertificate, CertificationError> {
        let now_ms = world.now_ms;
        let engine = world.people[who.0].engine_mut();
        let file = engine.certificate(now_ms, evidence, disclose)?;
        let root = engine.org();
        Ok(verify(&file, root).expect("it was verified when it was made"))
    }

    /// REQ-174, REQ-175, REQ-176: who rotates leaves a receipt, the owner opens it, and all of it makes a certificate.
    #[test]
    fn receipts_of_members_are_in_the_owner_s_certificate() {
        let (mut world, people) = World::with_people(
            21,
            SUITE_CLASSICAL,
            &["Ann", "Bob", "Cy", "Dot", "Eve", "Fay"],
        );
        let [ann, bob, cy, dot, eve, fay] = people[..] else {
            panic!("six people")
        };
        let theirs = world.group(bob, &[bob, cy, dot]);
        let ours = world.group(ann, &[ann, bob, dot, eve, fay]);
        let order = world.remove(ann, dot);
        world.settle();
        let evidence = collect(&mut world, ann, order);
        assert!(!evidence.receipts.is_empty());
        let shown = make(&mut world, ann, evidence.clone(), false).expect("it holds");
        let of = |id: GroupId| {
            shown
                .groups
                .iter()
                .find(|g| g.group == id)
                .expect("in the set")
        };
        for group in [theirs, ours] {
            assert_eq!(of(group).state, GroupState::Rotated);
            let receipts = of(group).witnesses.iter();
            assert!(receipts.filter(|w| w.kind == WitnessKind::Receipt).count() > 0);
        }
        // REQ-177: an auditor sees who is in the groups of the maker, and that the departed is not.
        let whole = make(&mut world, ann, evidence, true).expect("it holds");
        let tree = |id: GroupId| {
            whole
                .groups
                .iter()
                .find(|g| g.group == id)
                .and_then(|g| g.tree.clone())
        };
        assert_eq!(tree(theirs), None);
        let users: BTreeSet<_> = tree(ours)
            .expect("disclosed")
            .iter()
            .map(|leaf| leaf.user)
            .collect();
        let expected = [ann, bob, eve, fay].map(|who| world.people[who.0].user());
        assert_eq!(users, BTreeSet::from(expected));
    }

    /// REQ-172: a group that the relay leaves out is missed by whoever is in it, before any certificate is made.
    #[test]
    fn a_certificate_without_a_group_of_ours_is_not_made() {
        let (mut world, people) = World::with_people(22, SUITE_CLASSICAL, &["Ann", "Bob", "Cy"]);
        let [ann, bob, cy] = people[..] else {
            panic!("three people")
        };
        let group = world.group(ann, &[ann, bob, cy]);
        let order = world.remove(ann, cy);
        world.settle();
        let mut evidence = collect(&mut world, ann, order);
        evidence.groups.clear();
        match make(&mut world, ann, evidence.clone(), false) {
            Err(CertificationError::Omitted { groups }) => assert_eq!(groups, [group]),
            other => panic!("made: {other:?}"),
        }
        let mut other = collect(&mut world, ann, order);
        other.state.state.set_root.0[0] ^= 1;
        let made = make(&mut world, ann, other, false);
        assert!(matches!(made, Err(CertificationError::TwoSets)), "{made:?}");
    }

    /// What the relay makes of the proof for Cy.
    enum Lie {
        Deny,
        Forge,
    }

    impl Liar for Lie {
        fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
            let RelayToClient::Response { response, .. } = frame else {
                return true;
            };
            if let (true, Response::OrderProof { set, .. }) = (to == CY, &mut *response) {
                match self {
                    Self::Deny => *response = Response::Refused(Refusal::UnknownGroup),
                    Self::Forge => set.set.root.0[0] ^= 1,
                }
            }
            true
        }
    }

    fn told(lie: Lie) {
        let (mut world, people) =
            World::with_people(23, SUITE_CLASSICAL, &["Ann", "Bob", "Cy", "Dot"]);
        let [ann, bob, cy, dot] = people[..] else {
            panic!("four people")
        };
        let group = world.group(bob, &[bob, cy, dot]);
        world.liar = Some(Box::new(lie));
        let order = world.remove(ann, dot);
        world.settle();
        let expected = Alarm::OmittedGroup { group, order };
        assert!(world.alarms(cy).any(|alarm| *alarm == expected));
        assert_eq!(world.alarms(bob).next(), None);
    }

    /// REQ-172: a relay that denies a group to a member, or forges the proof, is found out by that member.
    #[test]
    fn a_group_that_is_left_out_is_alarmed_by_its_members() {
        told(Lie::Deny);
        told(Lie::Forge);
    }
}
