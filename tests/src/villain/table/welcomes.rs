//! Welcomes that lead where nobody may go (REQ-053, REQ-093, REQ-158; RFC 9420 §12.4.3.1).

use mortise_protocol::engine::CommandKind;
use mortise_protocol::group::{SUITE_CLASSICAL, Violation};
use mortise_protocol::identity::{Epoch, GroupId, RosterSeq, SigningKey, decode, encode};
use mortise_protocol::roster::Role;
use mortise_protocol::wire::log::CommitEntry;
use mortise_protocol::wire::{InboxItem, RecordBody};

use super::super::stage::{Forged, Stage};
use super::super::{Package, Plan, Twist};
use super::{JOIN, Row, row};

pub(super) fn rows() -> Vec<Row> {
    [trees(), entries(), mls()].into_iter().flatten().collect()
}

fn welcome(
    rules: &'static [&'static str],
    how: &'static str,
    by: Violation,
    make: fn(&mut Stage) -> Forged,
) -> Row {
    row(rules, how, by, JOIN, make)
}

fn trees() -> Vec<Row> {
    vec![
        welcome(
            &["REQ-093", "STALE_TREE"],
            "a Welcome to a tree that holds a removed user's leaf",
            Violation::StaleTree,
            |stage| {
                stage.order_unheard(Stage::CY);
                stage.welcomes(Plan::default())
            },
        ),
        welcome(
            &["REQ-080", "REQ-093", "STALE_TREE"],
            "a Welcome to a tree with a device that no roster names",
            Violation::StaleTree,
            |stage| {
                let key = SigningKey::from_seed(&[77; 32]);
                let (villain, world) = stage.both();
                let adds = vec![Package::stranger(world, villain, &key)];
                stage.welcomes(Plan {
                    adds,
                    ..Plan::default()
                })
            },
        ),
        welcome(
            &["REQ-093", "SENDER_NOT_ADMITTED"],
            "a Welcome by a leaf that has taken another user's name",
            Violation::SenderNotAdmitted,
            |stage| {
                let user = stage.user(Stage::CY);
                let leaf = super::commits::leaf_of(stage.villain(), user);
                stage.welcomes(Plan {
                    leaf: Some(leaf),
                    ..Plan::default()
                })
            },
        ),
        welcome(
            &["REQ-093", "REQ-121", "ADD_NOT_ALLOWED"],
            "a Welcome by a guest",
            Violation::AddNotAllowed,
            |stage| stage.welcomes(Plan::default()),
        )
        .after(|stage| {
            let user = stage.user(Stage::VIC);
            let role = Role::Guest;
            stage.does(Stage::OWNER, CommandKind::SetRole { user, role });
        }),
        welcome(
            &["REQ-093", "REQ-431", "UNUSABLE_KEY"],
            "a Welcome to a tree with a parent whose public key is zeros",
            Violation::UnusableKey,
            |stage| stage.welcomes(super::mls::with_unusable_key(0)),
        ),
        welcome(
            &["REQ-093", "REQ-094", "POLICY_MISSING"],
            "a Welcome to a group without a policy",
            Violation::PolicyMissing,
            |stage| {
                stage.welcomes(Plan {
                    extensions: Some(super::commits::without_policy()),
                    ..Plan::default()
                })
            },
        ),
    ]
}

fn entries() -> Vec<Row> {
    vec![
        welcome(
            &["REQ-051", "REQ-093", "WRONG_ACCESS_KEY"],
            "a Welcome whose commit entry announces an access key that is not the epoch's",
            Violation::WrongAccessKey,
            |stage| {
                stage.welcomes(Plan {
                    access_key: Some(SigningKey::from_seed(&[3; 32]).public()),
                    ..Plan::default()
                })
            },
        ),
        welcome(
            &["REQ-051", "REQ-093", "BAD_ENTRY_SIGNATURE"],
            "a Welcome whose commit entry is not signed by the committer",
            Violation::BadEntrySignature,
            |stage| {
                stage.welcomes_changed(|item| {
                    change_entry(item, |entry| entry.signature.0[0] ^= 1);
                })
            },
        ),
        welcome(
            &["REQ-053", "REQ-093", "MALFORMED_RECORD"],
            "a Welcome that comes with no commit",
            Violation::MalformedRecord,
            |stage| {
                stage.welcomes_changed(|item| {
                    let access_key = SigningKey::from_seed(&[3; 32]).public();
                    item.entry.payload = encode(&RecordBody::Create { access_key }).into();
                })
            },
        ),
        welcome(
            &["REQ-093", "BAD_HEADER"],
            "a Welcome that is said to be for another group than its commit's",
            Violation::BadHeader,
            |stage| stage.welcomes_changed(|item| item.group = GroupId([9; 32])),
        ),
        welcome(
            &["REQ-093", "BAD_HEADER"],
            "a Welcome whose commit is said to be of another epoch",
            Violation::BadHeader,
            |stage| stage.welcomes_changed(|item| item.entry.epoch = Epoch(77)),
        ),
        welcome(
            &["REQ-084", "REQ-093", "BEHIND_FENCE"],
            "a Welcome whose commit is based on a roster from before its record's fence",
            Violation::BehindFence,
            |stage| {
                // The roster has more entries than the fence that it is given here, and fewer than the commit's `s`.
                stage.prove_newer();
                stage.welcomes_changed(|item| {
                    let header = header_of(item);
                    item.entry.fence = RosterSeq(header.0 + 1);
                })
            },
        ),
        welcome(
            &["REQ-048", "REQ-093", "ROSTER_FORK"],
            "a Welcome whose commit names another roster",
            Violation::RosterFork,
            |stage| {
                stage.welcomes_changed(|item| {
                    change_entry(item, |entry| {
                        let mut commit = entry.commit.as_slice().to_vec();
                        commit[ROSTER_HASH] ^= 1;
                        entry.commit = commit.into();
                    });
                })
            },
        ),
    ]
}

fn mls() -> Vec<Row> {
    vec![
        welcome(
            &["REQ-093", "valn1405", "RFC 9420 §12.4.3.1"],
            "a Welcome whose GroupInfo has a wrong signature",
            Violation::MlsRefused,
            |stage| stage.welcomes_twisted(Twist::bad_signature("GroupInfoTBS")),
        ),
        welcome(
            &["valn1411", "ValSem205"],
            "a Welcome whose GroupInfo has a wrong confirmation tag",
            Violation::MlsRefused,
            |stage| stage.welcomes_twisted(Twist::bad_confirmation_tag()),
        ),
        welcome(
            &["valn1407", "RFC 9420 §7.3"],
            "a Welcome to a tree with a leaf that is not signed",
            Violation::MlsRefused,
            |stage| stage.welcomes_twisted(Twist::bad_signature("LeafNodeTBS")),
        ),
        welcome(
            &["RFC 9420 §12.4.3.1"],
            "a Welcome whose ciphertext was changed",
            Violation::MlsRefused,
            |stage| {
                stage.welcomes_changed(|item| {
                    let mut welcome = item.welcome.as_slice().to_vec();
                    *welcome.last_mut().expect("bytes") ^= 1;
                    item.welcome = welcome.into();
                })
            },
        ),
        welcome(
            &["RFC 9420 §12.4.3.1"],
            "something that is no Welcome",
            Violation::MlsRefused,
            |stage| stage.welcomes_changed(|item| item.welcome = vec![0, 1, 0, 9].into()),
        ),
    ]
}

/// Where in a commit's bytes the roster hash begins: header, group, epoch, content type, length and version of the
/// authenticated data, `s` (REQ-045).
const ROSTER_HASH: usize = 4 + 33 + 8 + 1 + 2 + 1 + 8;

fn change_entry(item: &mut InboxItem, change: impl FnOnce(&mut CommitEntry)) {
    if let Ok(RecordBody::Commit(mut entry)) = decode(item.entry.payload.as_slice()) {
        change(&mut entry);
        item.entry.payload = encode(&RecordBody::Commit(entry)).into();
    }
}

/// The roster entry that an item's commit is based on.
fn header_of(item: &InboxItem) -> RosterSeq {
    let Ok(RecordBody::Commit(entry)) = decode(item.entry.payload.as_slice()) else {
        panic!("a commit")
    };
    let header = mortise_protocol::wire::aad::PrivateHeader::parse(entry.commit.as_slice());
    header.expect("a header").aad.roster_seq
}

impl Stage {
    fn welcomes_made(&mut self, mut plan: Plan) -> super::super::Crafted {
        let package = Package::stocked(&self.world, Self::OUT, SUITE_CLASSICAL);
        plan.adds.push(package);
        self.craft(plan)
    }

    /// A commit that adds the victim besides what it does, and its Welcome.
    fn welcomes(&mut self, plan: Plan) -> Forged {
        self.welcomes_made(plan).into()
    }

    /// A commit that adds the victim, with something wrong below openmls.
    fn welcomes_twisted(&mut self, twist: Twist) -> Forged {
        self.welcomes(Plan {
            twist,
            ..Plan::default()
        })
    }

    /// An honest commit that adds the victim, with a relay that changes what it hands on.
    fn welcomes_changed(&mut self, change: fn(&mut InboxItem)) -> Forged {
        Forged::Inbox(self.welcomes_made(Plan::default()), change)
    }

    /// The roster goes on without the villain's knowledge.
    fn prove_newer(&mut self) {
        let user = self.user(Self::GUS);
        let role = Role::Guest;
        self.does(Self::OWNER, CommandKind::SetRole { user, role });
    }
}
