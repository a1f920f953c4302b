//! Commits that MLS allows and Mortise does not (REQ-082, REQ-120 to REQ-126, REQ-153).

use mortise_protocol::engine::CommandKind;
use mortise_protocol::group::{
    GroupPolicy, PolicyChange, Predecessor, SUITE_CLASSICAL, Violation, WhoMayAdd,
};
use mortise_protocol::identity::{Epoch, GroupId, Hash, OrgId, SigningKey, UserId, encode};
use mortise_protocol::roster::Role;
use mortise_protocol::wire::RecordBody;
use mortise_protocol::wire::aad::AuthenticatedData;
use openmls::prelude::{
    BasicCredential, CredentialWithKey, Extension, ExtensionType, Extensions, LeafNodeParameters,
    RequiredCapabilitiesExtension,
};

use super::super::stage::{Forged, Path, Shown, Stage};
use super::super::{Package, Plan, Recipe, Villain};
use super::{AWAY, READ, Row, row};
use crate::world::World;

pub(super) fn rows() -> Vec<Row> {
    [who_commits(), who_is_added(), policies(), entries()]
        .into_iter()
        .flatten()
        .collect()
}

fn who_commits() -> Vec<Row> {
    vec![
        row(
            &["REQ-082.1", "SENDER_NOT_ADMITTED"],
            "a commit by a device that an order has removed",
            Violation::SenderNotAdmitted,
            AWAY,
            |stage| {
                let aad = stage.aad();
                stage.send_carrier();
                stage.order_unheard(Stage::VIC);
                commit_at(stage, aad)
            },
        ),
        row(
            &["REQ-082.1", "REQ-080", "IDENTITY_CHANGED"],
            "the committer's leaf takes another user's name",
            Violation::IdentityChanged,
            READ,
            |stage| {
                let user = stage.user(Stage::CY);
                let plan = Plan {
                    leaf: Some(leaf_of(stage.villain(), user)),
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        row(
            &["REQ-080", "BAD_CREDENTIAL"],
            "the committer's leaf takes a credential that is not of our form",
            Violation::BadCredential,
            READ,
            |stage| {
                let key = stage.villain().key.public();
                let credential = CredentialWithKey {
                    credential: BasicCredential::new(b"Vic".to_vec()).into(),
                    signature_key: key.0.to_vec().into(),
                };
                let leaf = LeafNodeParameters::builder().with_credential_with_key(credential);
                let plan = Plan {
                    leaf: Some(leaf.build()),
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        row(
            &["REQ-082.3", "REMOVE_NOT_ALLOWED"],
            "a member who is no group admin removes another user",
            Violation::RemoveNotAllowed,
            READ,
            |stage| {
                let removes = vec![stage.world.people[Stage::CY.0].device()];
                let plan = Plan {
                    removes,
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        row(
            &["REQ-082.5", "STALE_TREE"],
            "a commit that leaves a removed user's leaf in the tree",
            Violation::StaleTree,
            AWAY,
            |stage| {
                stage.order_unheard(Stage::CY);
                stage.commit(Plan::default())
            },
        ),
    ]
}

fn who_is_added() -> Vec<Row> {
    vec![
        row(
            &["REQ-082.2", "ADD_NOT_ADMITTED"],
            "a device is added that no roster names",
            Violation::AddNotAdmitted,
            READ,
            |stage| {
                let key = SigningKey::from_seed(&[77; 32]);
                stage.add(|world, villain| Package::stranger(world, villain, &key))
            },
        ),
        row(
            &["REQ-080", "REQ-082.2", "ADD_NOT_ADMITTED"],
            "a roster device is added with another organisation in its credential",
            Violation::AddNotAdmitted,
            READ,
            |stage| {
                let key = stage.world.signature_key(Stage::OUT);
                let user = stage.user(Stage::OUT);
                stage.add(|world, villain| {
                    Package::make(&Recipe {
                        user,
                        org: OrgId([1; 32]),
                        ..Recipe::new(world, villain, &key)
                    })
                })
            },
        ),
        row(
            &["REQ-082.2", "ADD_WRONG_KEY"],
            "a roster device is added with another signature key than the roster's: a KeyPackage that the relay swapped",
            Violation::AddWrongKey,
            READ,
            |stage| {
                let key = SigningKey::from_seed(&[77; 32]);
                let user = stage.user(Stage::OUT);
                let device = stage.world.people[Stage::OUT.0].device();
                stage.add(|world, villain| {
                    Package::make(&Recipe {
                        user,
                        device,
                        ..Recipe::new(world, villain, &key)
                    })
                })
            },
        ),
        row(
            &["REQ-080", "REQ-082.2", "ADD_WRONG_KEY"],
            "a roster device is added under another user's name",
            Violation::AddWrongKey,
            READ,
            |stage| {
                let key = stage.world.signature_key(Stage::OUT);
                stage.add(|world, villain| {
                    // Its user is the villain's own.
                    Package::make(&Recipe::new(world, villain, &key))
                })
            },
        ),
        row(
            &["REQ-082.2", "REQ-121", "ADD_NOT_ALLOWED"],
            "a member adds somebody where only group admins may",
            Violation::AddNotAllowed,
            READ,
            |stage| stage.add(|world, _| Package::stocked(world, Stage::OUT, SUITE_CLASSICAL)),
        )
        .after(|stage| stage.change(PolicyChange::WhoMayAdd(WhoMayAdd::Admins))),
        row(
            &["REQ-082.2", "REQ-121", "ADD_NOT_ALLOWED"],
            "a guest adds somebody",
            Violation::AddNotAllowed,
            READ,
            |stage| stage.add(|world, _| Package::stocked(world, Stage::OUT, SUITE_CLASSICAL)),
        )
        .after(|stage| {
            let user = stage.user(Stage::VIC);
            let role = Role::Guest;
            stage.does(Stage::OWNER, CommandKind::SetRole { user, role });
        }),
        row(
            &["REQ-126", "ADD_AFTER_LEAVING"],
            "somebody who left is added by a member who is no group admin",
            Violation::AddAfterLeaving,
            READ,
            |stage| stage.add(|world, _| Package::stocked(world, Stage::CY, SUITE_CLASSICAL)),
        )
        .after(|stage| {
            let group = stage.group;
            stage.does(Stage::CY, CommandKind::LeaveGroup { group });
        }),
        row(
            &["REQ-157", "REQ-082.3", "REMOVE_NOT_ALLOWED"],
            "a leaf is replaced by its own device's newest KeyPackage, which has not asked for that",
            Violation::RemoveNotAllowed,
            READ,
            |stage| {
                let device = stage.world.people[Stage::CY.0].device();
                let plan = Plan {
                    removes: vec![device],
                    adds: vec![Package::stocked(&stage.world, Stage::CY, SUITE_CLASSICAL)],
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        row(
            &["REQ-156", "REQ-157", "REMOVE_NOT_ALLOWED"],
            "a leaf is replaced with a KeyPackage that asks another group to be let in anew",
            Violation::RemoveNotAllowed,
            READ,
            |stage| replace_asking(stage, GroupId([9; 32])),
        ),
    ]
}

fn policies() -> Vec<Row> {
    vec![
        row(
            &["REQ-082.4", "REQ-094", "REQ-120", "POLICY_NOT_ALLOWED"],
            "a member who is no group admin renames the group and becomes its admin",
            Violation::PolicyNotAllowed,
            READ,
            |stage| {
                let user = stage.villain().user;
                stage.set_policy(|_| GroupPolicy::new("mine".into(), user))
            },
        ),
        row(
            &["REQ-120", "REQ-125", "POLICY_UNFIT"],
            "a group admin takes all admins away",
            Violation::PolicyUnfit,
            READ,
            |stage| {
                stage.set_policy(|policy| GroupPolicy {
                    admins: Vec::new(),
                    ..policy
                })
            },
        )
        .after(Stage::promote_villain),
        row(
            &["REQ-120", "REQ-125", "POLICY_UNFIT"],
            "a group admin makes somebody admin who is not in the group",
            Violation::PolicyUnfit,
            READ,
            |stage| {
                let out = stage.user(Stage::OUT);
                stage.set_policy(|mut policy| {
                    policy.admins.push(out);
                    policy
                })
            },
        )
        .after(Stage::promote_villain),
        row(
            &["REQ-125", "REQ-126", "POLICY_UNFIT"],
            "a group admin writes down that somebody left who did not",
            Violation::PolicyUnfit,
            READ,
            |stage| {
                let cy = stage.user(Stage::CY);
                stage.set_policy(|mut policy| {
                    policy.left.insert(cy);
                    policy
                })
            },
        )
        .after(Stage::promote_villain),
        row(
            &["REQ-153", "PREDECESSOR_CHANGED"],
            "a group admin claims that the group continues another one",
            Violation::PredecessorChanged,
            READ,
            |stage| {
                stage.set_policy(|policy| GroupPolicy {
                    predecessor: Some(Predecessor {
                        group: GroupId([9; 32]),
                        epoch: Epoch(1),
                        entry_hash: Hash([9; 32]),
                    }),
                    ..policy
                })
            },
        )
        .after(Stage::promote_villain),
        row(
            &["REQ-124", "REQ-125", "REQ-126", "POLICY_UNFIT"],
            "a commit carries out a leave and does not write down who left",
            Violation::PolicyUnfit,
            &[Path::Live],
            |stage| stage.commit(Plan::default()),
        )
        .after(Stage::meet_leave),
        row(
            &["REQ-094", "POLICY_MISSING"],
            "a commit takes the policy out of the GroupContext",
            Violation::PolicyMissing,
            READ,
            |stage| {
                let plan = Plan {
                    extensions: Some(without_policy()),
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
    ]
}

fn entries() -> Vec<Row> {
    vec![
        row(
            &["REQ-051", "REQ-082.6", "WRONG_ACCESS_KEY"],
            "the entry announces an access key that is not the next epoch's",
            Violation::WrongAccessKey,
            READ,
            |stage| {
                let plan = Plan {
                    access_key: Some(SigningKey::from_seed(&[3; 32]).public()),
                    ..Plan::default()
                };
                stage.commit(plan)
            },
        ),
        row(
            &["REQ-051", "REQ-082.6", "BAD_ENTRY_SIGNATURE"],
            "the entry is signed with a key that is not the committer's",
            Violation::BadEntrySignature,
            READ,
            |stage| {
                let plan = Plan {
                    entry_key: Some(SigningKey::from_seed(&[3; 32])),
                    ..Plan::default()
                };
                Shown::body(&stage.craft(plan).body)
            },
        ),
        row(
            &["REQ-051", "REQ-082.1", "BAD_ENTRY_SIGNATURE"],
            "the entry names another member's device as the committer",
            Violation::BadEntrySignature,
            READ,
            |stage| {
                let cy = stage.world.people[Stage::CY.0].device();
                let mut made = stage.craft(Plan::default());
                if let RecordBody::Commit(entry) = &mut made.body {
                    entry.device = cy;
                }
                Shown::body(&made.body)
            },
        ),
    ]
}

/// GroupContext extensions that require the policy, and have none.
pub(super) fn without_policy() -> Extensions<openmls::prelude::GroupContext> {
    let kind = ExtensionType::Unknown(mortise_protocol::group::GROUP_POLICY_EXTENSION);
    let required = RequiredCapabilitiesExtension::new(&[kind], &[], &[]);
    Extensions::from_vec(vec![Extension::RequiredCapabilities(required)]).expect("an extension")
}

/// The villain's leaf under another user's name.
pub(super) fn leaf_of(villain: &Villain, user: UserId) -> LeafNodeParameters {
    let credential = encode(&mortise_protocol::group::DeviceCredential {
        version: 1,
        org: villain.org,
        user,
        device: villain.device,
    });
    let credential = CredentialWithKey {
        credential: BasicCredential::new(credential).into(),
        signature_key: villain.key.public().0.to_vec().into(),
    };
    LeafNodeParameters::builder()
        .with_credential_with_key(credential)
        .build()
}

/// A commit based on what the villain has learnt by now of the roster, in the log as it was before.
fn commit_at(stage: &mut Stage, before: AuthenticatedData) -> Forged {
    let (roster_seq, roster_hash) = stage.villain().roster;
    let aad = AuthenticatedData {
        roster_seq,
        roster_hash,
        ..before
    };
    let plan = Plan {
        aad: Some(aad),
        ..Plan::default()
    };
    Shown::body(&stage.craft(plan).body)
}

/// Replaces Cy's leaf with one that asks a group to be let in anew.
fn replace_asking(stage: &mut Stage, group: GroupId) -> Forged {
    let key = stage.world.signature_key(Stage::CY);
    let (user, now_ms) = (stage.user(Stage::CY), stage.world.now_ms);
    let asked = mortise_protocol::group::Resync::new(group, Hash([0; 32]), now_ms);
    let removes = vec![stage.world.people[Stage::CY.0].device()];
    let (villain, world) = stage.both();
    let package = Package::make(&Recipe {
        user,
        resync: Some(encode(&asked)),
        ..Recipe::new(world, villain, &key)
    });
    let plan = Plan {
        removes,
        adds: vec![package],
        ..Plan::default()
    };
    stage.commit(plan)
}

impl Stage {
    pub(super) fn user(&self, who: crate::world::PersonId) -> UserId {
        self.world.people[who.0].user()
    }

    /// The authenticated data that an honest device would send now.
    pub(super) fn aad(&mut self) -> AuthenticatedData {
        let (villain, world) = self.both();
        villain.honest_aad(world)
    }

    pub(super) fn craft(&mut self, plan: Plan) -> super::super::Crafted {
        let (villain, world) = self.both();
        villain.commit(world, plan)
    }

    pub(super) fn commit(&mut self, plan: Plan) -> Forged {
        self.craft(plan).into()
    }

    /// A commit that adds one.
    pub(super) fn add(&mut self, package: impl FnOnce(&World, &Villain) -> Package) -> Forged {
        let (villain, world) = self.both();
        let plan = Plan {
            adds: vec![package(world, villain)],
            ..Plan::default()
        };
        self.commit(plan)
    }

    pub(super) fn set_policy(&mut self, change: impl FnOnce(GroupPolicy) -> GroupPolicy) -> Forged {
        let policy = change(self.villain().policy());
        let plan = Plan {
            policy: Some(policy),
            ..Plan::default()
        };
        self.commit(plan)
    }

    /// The group's admin changes its policy.
    pub(super) fn change(&mut self, change: PolicyChange) {
        let group = self.group;
        self.does(Self::ANN, CommandKind::ChangeGroup { group, change });
    }

    /// Cy asks to leave, and nobody has carried it out yet.
    fn meet_leave(&mut self) {
        let group = self.group;
        self.world
            .command(Self::CY, CommandKind::LeaveGroup { group });
        let is_met = |stage: &mut Self, who| {
            Villain::copy(&mut stage.world, who, group).look(|mls| mls.pending_proposals().count())
        };
        while is_met(self, Self::VIC) + is_met(self, Self::BOB) < 2 {
            assert!(self.world.advance(u64::MAX), "the leave is met");
        }
    }

    /// The group's admin trusts the villain.
    pub(super) fn promote_villain(&mut self) {
        let user = self.user(Self::VIC);
        self.change(PolicyChange::AddAdmin(user));
    }
}
