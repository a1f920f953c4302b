//! Proposals that are switched off or that MLS forbids, inside commits that are right but for them (RFC 9420 §12).

use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID, Violation};
use mortise_protocol::identity::SigningKey;

use super::super::stage::{Forged, Stage};
use super::super::{Package, Plan, Recipe, Twist};
use super::mls::RawPackage;
use super::{READ, Row, raw, row};

pub(super) fn rows() -> Vec<Row> {
    [switched_off(), psks(), removes(), contexts(), adds()]
        .into_iter()
        .flatten()
        .collect()
}

/// Refused by openmls, by this name.
fn mls(
    rules: &'static [&'static str],
    how: &'static str,
    name: &'static str,
    make: fn(&mut Stage) -> Forged,
) -> Row {
    row(rules, how, Violation::MlsRefused, READ, make).openmls(name)
}

fn switched_off() -> Vec<Row> {
    vec![
        row(
            &["REQ-081", "REQ-082.7", "FORBIDDEN_PROPOSAL"],
            "a commit with a ReInit",
            Violation::ForbiddenProposal,
            READ,
            |stage| {
                let group = stage.group.0;
                stage.proposes(move || vec![raw::reinit(&group)])
            },
        ),
        mls(
            &["REQ-081", "valn0310"],
            "a commit by a member with an ExternalInit",
            "ExternalInit",
            |stage| stage.proposes(|| vec![raw::external_init()]),
        ),
        mls(
            &["REQ-081", "ValSem200", "valn0303"],
            "a commit with a SelfRemove by value",
            "UnsupportedProposalType",
            |stage| stage.proposes(|| vec![raw::self_remove()]),
        ),
        mls(
            &["REQ-081", "ValSem113", "valn0311"],
            "a proposal of a type that no member supports",
            "UnsupportedProposalType",
            |stage| stage.proposes(|| vec![raw::proposal(0xF0FF, &raw::vector(b"custom"))]),
        ),
        mls(
            &["REQ-082.7", "RFC 9420 §12.4.2"],
            "a proposal by reference that nobody was sent",
            "MissingProposal",
            |stage| {
                let reference = [vec![2], raw::vector(&[7; 32])].concat();
                stage.rewrites(move |commit| {
                    let (_, path) = raw::proposals_of(commit);
                    [&raw::vector(&reference), path].concat()
                })
            },
        ),
        mls(
            &["ValSem111", "valn0302"],
            "a commit with an Update of the committer's own",
            "CommitterIncludedOwnUpdate",
            |stage| {
                let (key, group) = (stage.villain().key.clone(), stage.group.0);
                let index = stage.leaf(Stage::VIC);
                stage.rewrites(move |commit| {
                    let leaf = super::mls::update_of(commit, &key, &group, index);
                    raw::with_proposals(commit, &[raw::proposal(2, &leaf)])
                })
            },
        ),
    ]
}

fn psks() -> Vec<Row> {
    vec![
        mls(
            &["REQ-081", "REQ-082.7", "valn1205"],
            "a commit with the epoch's resumption PSK, which no member keeps",
            "KeyNotFound",
            |stage| {
                let (group, epoch) = (stage.group.0, stage.villain().epoch().0);
                stage.proposes(move || vec![raw::resumption_psk(1, &group, epoch)])
            },
        ),
        mls(
            &["valn1205"],
            "a commit with a PSK that only its sender knows",
            "PskError",
            |stage| stage.proposes(|| vec![raw::external_psk(32)]),
        ),
        mls(
            &["ValSem401", "valn0803"],
            "a PSK whose nonce has another length than the suite's hash",
            "NonceLengthMismatch",
            |stage| stage.proposes(|| vec![raw::external_psk(31)]),
        ),
        mls(
            &["ValSem402", "valn0801", "valn0802"],
            "a resumption PSK for the use of branching",
            "UsageMismatch",
            |stage| {
                let (group, epoch) = (stage.group.0, stage.villain().epoch().0);
                stage.proposes(move || vec![raw::resumption_psk(3, &group, epoch)])
            },
        ),
        mls(
            &["ValSem403", "valn0307"],
            "the same PSK twice",
            "Duplicate",
            |stage| stage.proposes(|| vec![raw::external_psk(32), raw::external_psk(32)]),
        ),
    ]
}

fn removes() -> Vec<Row> {
    vec![
        mls(
            &["ValSem108", "valn0701"],
            "a leaf that is removed and is not there",
            "UnknownMemberRemoval",
            |stage| stage.proposes(|| vec![raw::remove(99)]),
        ),
        mls(
            &["ValSem200", "valn0303"],
            "the committer's own leaf is removed",
            "SelfRemoval",
            |stage| {
                let leaf = stage.leaf(Stage::VIC);
                stage.proposes(move || vec![raw::remove(leaf)])
            },
        ),
        mls(
            &["ValSem201", "valn1206"],
            "a removal without a path",
            "RequiredPathNotFound",
            |stage| {
                let leaf = stage.leaf(Stage::CY);
                stage.rewrites(move |commit| {
                    let made = raw::with_proposals(commit, &[raw::remove(leaf)]);
                    let (list, _) = raw::proposals_of(&made);
                    [raw::vector(&list), vec![0]].concat()
                })
            },
        ),
    ]
}

fn contexts() -> Vec<Row> {
    vec![
        mls(
            &["ValSem208", "valn0308"],
            "two GroupContextExtensions proposals",
            "GroupContextExtension",
            |stage| {
                stage.proposes(|| {
                    // Of equal proposals openmls sees one.
                    let [one, other] = [b"1", b"2"].map(|b| raw::context_extension(0xF0A1, b));
                    vec![one, other]
                })
            },
        ),
        mls(
            &["ValSem209", "valn1001", "valn0502"],
            "a GroupContext extension that no member supports",
            "ExtensionNotInRequiredCapabilities",
            |stage| stage.proposes(|| vec![raw::context_extension(0xF0FE, b"")]),
        ),
    ]
}

fn adds() -> Vec<Row> {
    vec![
        mls(
            &[
                "ValSem101",
                "valn0111",
                "valn0305",
                "valn0306",
                "ADD_TWICE",
                "REQ-082.2",
            ],
            "a device that is in the tree is added again",
            "DuplicateSignatureKey",
            |stage| {
                let package = Package::stocked(&stage.world, Stage::CY, SUITE_CLASSICAL);
                stage.adds_raw(vec![package])
            },
        ),
        mls(
            &["ValSem102"],
            "two KeyPackages with one init key",
            "DuplicateInitKey",
            |stage| {
                stage
                    .adds_beside_outsider(|made, theirs| made.init_key.clone_from(&theirs.init_key))
            },
        ),
        mls(
            &["ValSem103", "valn0112", "valn1209"],
            "two KeyPackages with one encryption key",
            "DuplicateEncryptionKey",
            |stage| {
                stage.adds_beside_outsider(|made, theirs| {
                    let key = &theirs.leaf.encryption_key;
                    made.leaf.encryption_key.clone_from(key);
                })
            },
        ),
        mls(
            &["ValSem104", "valn0204"],
            "a KeyPackage whose init key is its encryption key",
            "InitKeyEqualsEncryptionKey",
            |stage| {
                stage.adds_beside_outsider(|made, _| {
                    made.init_key.clone_from(&made.leaf.encryption_key);
                })
            },
        ),
        row(
            &["REQ-431", "UNUSABLE_KEY"],
            "a KeyPackage whose leaf has a public key of zeros",
            Violation::UnusableKey,
            READ,
            |stage| {
                let key = SigningKey::from_seed(&[78; 32]);
                let (villain, world) = stage.both();
                let mut made = RawPackage::of(&Package::stranger(world, villain, &key).bytes());
                made.leaf.encryption_key.fill(0);
                // An MLSMessage's version and wire format, which openmls reads it from (RFC 9420 §6).
                let message = [vec![0, 1, 0, 5], made.sign(&key)].concat();
                stage.commit(Plan {
                    adds: vec![Package::read(&message)],
                    ..Plan::default()
                })
            },
        ),
        mls(
            &["ValSem105", "valn0501", "valn0201", "valn0202"],
            "a KeyPackage of another ciphersuite",
            "InvalidAddProposalCiphersuite",
            |stage| {
                let key = stage.world.signature_key(Stage::OUT);
                stage.makes_up(&key, |recipe| Recipe {
                    suite: SUITE_HYBRID,
                    ..recipe
                })
            },
        ),
        mls(
            &["ValSem106", "valn0103", "valn0113"],
            "a KeyPackage whose leaf cannot do what the group requires",
            "InsufficientCapabilities",
            |stage| {
                let key = SigningKey::from_seed(&[78; 32]);
                stage.makes_up(&key, |recipe| Recipe {
                    is_capable: false,
                    ..recipe
                })
            },
        ),
        mls(
            &["valn0203", "valn0108"],
            "a KeyPackage with a wrong signature",
            "KeyPackage",
            |stage| {
                let package = Package::stocked(&stage.world, Stage::OUT, SUITE_CLASSICAL);
                let mut bytes = package.bytes();
                *bytes.last_mut().expect("a signature") ^= 1;
                stage.proposes(move || vec![raw::proposal(1, &bytes)])
            },
        ),
    ]
}

impl Stage {
    /// A commit with these proposals by value, which openmls would not put there.
    fn proposes(&mut self, proposals: impl Fn() -> Vec<Vec<u8>> + Send + Sync + 'static) -> Forged {
        self.rewrites(move |commit| raw::with_proposals(commit, &proposals()))
    }

    /// A commit with another body.
    pub(super) fn rewrites(
        &mut self,
        body: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Forged {
        let plan = Plan {
            twist: Twist::body(body),
            ..Plan::default()
        };
        self.commit(plan)
    }

    /// A commit that adds these, whatever openmls thinks of it.
    fn adds_raw(&mut self, packages: Vec<Package>) -> Forged {
        self.proposes(move || {
            let adds = packages.iter().map(|p| raw::proposal(1, &p.bytes()));
            adds.collect()
        })
    }

    /// A commit that adds somebody, and a KeyPackage of the villain's user that is made to look like theirs.
    fn adds_beside_outsider(&mut self, change: fn(&mut RawPackage, &RawPackage)) -> Forged {
        let key = SigningKey::from_seed(&[78; 32]);
        let (villain, world) = self.both();
        let theirs = Package::stocked(world, Self::OUT, SUITE_CLASSICAL).bytes();
        let made = Package::make(&Recipe::new(world, villain, &key)).bytes();
        let mut raw = RawPackage::of(&made);
        change(&mut raw, &RawPackage::of(&theirs));
        let made = raw.sign(&key);
        self.proposes(move || [&theirs, &made].map(|p| raw::proposal(1, p)).to_vec())
    }

    /// A KeyPackage of the villain's user, changed, in a commit.
    fn makes_up(&mut self, key: &SigningKey, change: fn(Recipe<'_>) -> Recipe<'_>) -> Forged {
        let (villain, world) = self.both();
        let package = Package::make(&change(Recipe::new(world, villain, key)));
        self.adds_raw(vec![package])
    }
}
