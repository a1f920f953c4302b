//! Messages that break the rules of section 10.2, and those of MLS framing (RFC 9420 §6).

use mortise_protocol::engine::CommandKind;
use mortise_protocol::group::Violation;
use mortise_protocol::identity::{Epoch, Hash, PublicKey, RosterSeq, encode};
use mortise_protocol::roster::Role;
use mortise_protocol::wire::RecordBody;
use mortise_protocol::wire::aad::AuthenticatedData;
use mortise_protocol::wire::log::CommitEntry;

use super::super::stage::{Forged, Shown, Stage};
use super::super::{Crafted, Plan, Twist};
use super::{AWAY, READ, Row, raw, row};

/// Octets of an MLSMessage before a group id of 32 bytes: version, wire format, and the id's length.
const BEFORE_GROUP: usize = 5;

pub(super) fn rows() -> Vec<Row> {
    [rosters(), logs(), headers(), contents(), frames()]
        .into_iter()
        .flatten()
        .collect()
}

fn rosters() -> Vec<Row> {
    vec![
        row(
            &["REQ-083", "SENDER_NOT_ADMITTED"],
            "a message by a device that an order has removed",
            Violation::SenderNotAdmitted,
            AWAY,
            |stage| {
                let aad = stage.aad();
                stage.send_carrier();
                stage.order_unheard(Stage::VIC);
                let aad = stage.newest(aad);
                stage.say(aad)
            },
        ),
        row(
            &["REQ-083", "STALE_TREE"],
            "a message to a tree that holds a removed user's leaf",
            Violation::StaleTree,
            AWAY,
            |stage| {
                stage.order_unheard(Stage::CY);
                let (villain, world) = stage.both();
                villain
                    .message(world, b"\xf6", None, &Twist::default())
                    .into()
            },
        ),
        row(
            &["REQ-084", "BEHIND_FENCE"],
            "a message based on a roster from before the order in force",
            Violation::BehindFence,
            READ,
            |stage| {
                let before = stage.aad();
                stage.world.remove(Stage::OWNER, Stage::GUS);
                stage.learn();
                let cursor = stage.aad();
                stage.say(AuthenticatedData {
                    roster_seq: before.roster_seq,
                    roster_hash: before.roster_hash,
                    ..cursor
                })
            },
        ),
        row(
            &["REQ-084", "ROSTER_SEQ_FELL"],
            "a message based on an older roster than the sender's message before",
            Violation::RosterSeqFell,
            READ,
            |stage| {
                let before = stage.aad();
                let user = stage.user(Stage::GUS);
                let role = Role::Guest;
                stage.does(Stage::OWNER, CommandKind::SetRole { user, role });
                let now = stage.newest(before);
                let (villain, world) = stage.both();
                let [newer, older] = [now, before]
                    .map(|aad| villain.message(world, b"\xf6", Some(aad), &Twist::default()));
                Forged::Submitted(vec![newer, older])
            },
        ),
        row(
            &["REQ-084", "ROSTER_SEQ_FELL"],
            "a message based on an older roster than the commit that opened its epoch",
            Violation::RosterSeqFell,
            READ,
            |stage| {
                let now = stage.aad();
                let hash = stage.hash_at(RosterSeq(1));
                stage.say(AuthenticatedData {
                    roster_seq: RosterSeq(1),
                    roster_hash: hash,
                    ..now
                })
            },
        ),
        row(
            &["REQ-045", "REQ-048", "ROSTER_FORK"],
            "a message that names another roster than the receiver's",
            Violation::RosterFork,
            READ,
            |stage| {
                let aad = stage.aad();
                stage.say(AuthenticatedData {
                    roster_hash: Hash([1; 32]),
                    ..aad
                })
            },
        ),
    ]
}

fn logs() -> Vec<Row> {
    vec![
        row(
            &["REQ-044", "REQ-086", "LOG_FORK"],
            "a message that names another log than the receiver's",
            Violation::LogFork,
            READ,
            |stage| {
                let aad = stage.aad();
                stage.send(AuthenticatedData {
                    log_hash: Hash([1; 32]),
                    ..aad
                })
            },
        ),
        row(
            &["REQ-086", "LOG_FORK"],
            "a message that names a longer log than there is",
            Violation::LogFork,
            READ,
            |stage| {
                let aad = stage.aad();
                stage.send(AuthenticatedData {
                    log_count: aad.log_count + 1,
                    ..aad
                })
            },
        ),
        row(
            &["REQ-085", "FENCE_FELL"],
            "a record with a fence below the one before it",
            Violation::FenceFell,
            READ,
            |_| Shown::fence(RosterSeq(0)),
        )
        .after(|stage| {
            stage.world.remove(Stage::OWNER, Stage::GUS);
            let group = stage.group;
            stage.world.say(Stage::ANN, group, "after the order");
            stage.world.settle();
        }),
    ]
}

fn headers() -> Vec<Row> {
    vec![
        row(
            &["REQ-003", "MALFORMED_RECORD"],
            "a payload with a byte too many",
            Violation::MalformedRecord,
            READ,
            |stage| {
                let mut payload = encode(&stage.text().body);
                payload.push(0);
                Shown::payload(payload)
            },
        ),
        row(
            &[
                "REQ-046",
                "REQ-081",
                "BAD_HEADER",
                "ValSem005",
                "ValSem007",
                "ValSem008",
                "ValSem009",
            ],
            "a PublicMessage",
            Violation::BadHeader,
            READ,
            |stage| stage.patched(3, 1),
        ),
        row(
            &["REQ-046", "BAD_HEADER", "ValSem002", "valn1307"],
            "a message of another group",
            Violation::BadHeader,
            READ,
            |stage| stage.patched(BEFORE_GROUP, 0xff),
        ),
        row(
            &["REQ-046", "BAD_HEADER", "ValSem003", "valn1201", "valn1307"],
            "a message of another epoch",
            Violation::BadHeader,
            READ,
            |stage| stage.patched(BEFORE_GROUP + 32 + 7, 0x7f),
        ),
        row(
            &["REQ-046", "BAD_HEADER"],
            "a record that is said to be of another epoch",
            Violation::BadHeader,
            READ,
            |stage| {
                let epoch = stage.villain().epoch();
                Forged::Shown(Shown {
                    epoch: Some(Epoch(epoch.0 + 7)),
                    ..Shown::default()
                })
            },
        ),
        row(
            &["REQ-081", "BAD_HEADER"],
            "a commit entry that holds an application message",
            Violation::BadHeader,
            READ,
            |stage| {
                let made = stage.text();
                let key = stage.villain().key.clone();
                let (group, next) = (stage.group, PublicKey([0; 32]));
                let bytes = message_of(&made).to_vec();
                let entry = CommitEntry::sign(group, made.epoch, bytes, next, &key);
                Shown::body(&RecordBody::Commit(entry))
            },
        ),
    ]
}

fn contents() -> Vec<Row> {
    vec![
        row(
            &["REQ-081", "FORBIDDEN_CONTENT"],
            "a message record that holds a commit",
            Violation::ForbiddenContent,
            READ,
            |stage| {
                let made = stage.craft(Plan::default());
                let bytes = message_of(&made).to_vec();
                Shown::body(&RecordBody::Message(bytes.into()))
            },
        ),
        row(
            &["REQ-043", "FORBIDDEN_CONTENT"],
            "a second Create record",
            Violation::ForbiddenContent,
            READ,
            |_| {
                let access_key = PublicKey([1; 32]);
                Shown::body(&RecordBody::Create { access_key })
            },
        ),
        row(
            &["REQ-081", "REQ-123", "FORBIDDEN_PROPOSAL"],
            "a proposal outside a commit to remove another's leaf",
            Violation::ForbiddenProposal,
            READ,
            |stage| {
                let other = stage.leaf(Stage::CY);
                stage.propose(move |_| raw::remove(other))
            },
        ),
        row(
            &["REQ-081", "REQ-123", "FORBIDDEN_PROPOSAL"],
            "a proposal outside a commit to restart the group with other parameters (ReInit)",
            Violation::ForbiddenProposal,
            READ,
            |stage| {
                let group = stage.group.0;
                stage.propose(move |_| raw::reinit(&group))
            },
        ),
        row(
            &["REQ-123", "LEAVE_TWICE"],
            "a second leave of a leaf in an epoch",
            Violation::LeaveTwice,
            READ,
            |stage| {
                let (villain, world) = stage.both();
                let twist = Twist::default();
                let [first, second] = [(); 2].map(|()| villain.leave(world, None, &twist));
                Forged::Submitted(vec![first, second])
            },
        ),
        row(
            &["REQ-095", "REQ-140", "BAD_CONTENT"],
            "a message that is no CBOR",
            Violation::BadContent,
            READ,
            |stage| stage.says(b"\xff"),
        ),
        row(
            &["REQ-140", "BAD_CONTENT"],
            "a message whose CBOR is not in the shortest form",
            Violation::BadContent,
            READ,
            |stage| stage.says(b"\x18\x01"),
        ),
    ]
}

fn frames() -> Vec<Row> {
    vec![
        row(
            &["REQ-087", "MLS_REFUSED", "ValSem006", "valn1202"],
            "ciphertext that does not decrypt",
            Violation::MlsRefused,
            READ,
            |stage| {
                let (villain, world) = stage.both();
                villain.noise(world).into()
            },
        )
        .openmls("UnableToDecrypt"),
        row(
            &["ValSem004", "valn1306"],
            "a sender that is no leaf of the tree",
            Violation::MlsRefused,
            READ,
            |stage| stage.twisted(Twist::sender(99)),
        )
        .openmls("UnableToDecrypt"),
        row(
            &["ValSem006", "valn1305"],
            "another member's leaf as the sender",
            Violation::MlsRefused,
            READ,
            |stage| {
                let sender = stage.leaf(Stage::CY);
                stage.twisted(Twist::sender(sender))
            },
        )
        .openmls("UnableToDecrypt"),
        row(
            &["ValSem010", "valn1203", "valn1301", "valn1302", "valn1304"],
            "a message with a wrong signature",
            Violation::MlsRefused,
            READ,
            |stage| stage.twisted(Twist::bad_signature("FramedContentTBS")),
        )
        .openmls("InvalidSignature"),
        row(
            &["ValSem011", "valn1303"],
            "a padding that is not zero",
            Violation::MlsRefused,
            READ,
            |stage| stage.twisted(Twist::bad_padding()),
        )
        .openmls("MalformedContent"),
        row(
            &["RFC 9420 §9.1"],
            "a key of the sender's ratchet that was used before",
            Violation::MlsRefused,
            READ,
            |stage| {
                let (villain, world) = stage.both();
                let mut again = villain.fork();
                let twist = Twist::default();
                let first = villain.message(world, b"\xf6", None, &twist);
                let second = again.message(world, b"\xf5", None, &twist);
                Forged::Submitted(vec![first, second])
            },
        ),
    ]
}

/// The MLS message in a record.
pub(super) fn message_of(made: &Crafted) -> &[u8] {
    match &made.body {
        RecordBody::Message(message) => message.as_slice(),
        RecordBody::Commit(entry) => entry.commit.as_slice(),
        _ => panic!("no MLS message"),
    }
}

impl Stage {
    /// Somebody's leaf.
    pub(super) fn leaf(&mut self, who: crate::world::PersonId) -> u32 {
        let device = self.world.people[who.0].device();
        self.villain().leaf(device)
    }

    pub(super) fn hash_at(&self, seq: RosterSeq) -> Hash {
        let roster = self.world.people[Self::OWNER.0].engine().roster();
        roster.hash_at(seq).expect("an entry")
    }

    /// The villain learns of all that the owner knows.
    fn learn(&mut self) {
        let (villain, world) = self.both();
        villain.learn_roster(world, Self::OWNER);
    }

    /// The same authenticated data at the newest roster entry.
    pub(super) fn newest(&mut self, before: AuthenticatedData) -> AuthenticatedData {
        let (villain, world) = self.both();
        villain.learn_roster(world, Self::OWNER);
        AuthenticatedData {
            roster_seq: villain.roster.0,
            roster_hash: villain.roster.1,
            ..before
        }
    }

    fn text(&mut self) -> Crafted {
        let (villain, world) = self.both();
        villain.message(world, b"\xf6", None, &Twist::default())
    }

    /// A message with this authenticated data, which an honest relay takes.
    fn send(&mut self, aad: AuthenticatedData) -> Forged {
        let (villain, world) = self.both();
        let twist = Twist::default();
        villain.message(world, b"\xf6", Some(aad), &twist).into()
    }

    /// A message with this authenticated data, which only a relay that lies shows.
    fn say(&mut self, aad: AuthenticatedData) -> Forged {
        let (villain, world) = self.both();
        let made = villain.message(world, b"\xf6", Some(aad), &Twist::default());
        Shown::body(&made.body)
    }

    /// A message with this content.
    fn says(&mut self, content: &[u8]) -> Forged {
        let (villain, world) = self.both();
        villain
            .message(world, content, None, &Twist::default())
            .into()
    }

    fn twisted(&mut self, twist: Twist) -> Forged {
        let (villain, world) = self.both();
        villain.message(world, b"\xf6", None, &twist).into()
    }

    /// A message with another byte in one place.
    fn patched(&mut self, at: usize, byte: u8) -> Forged {
        let mut bytes = message_of(&self.text()).to_vec();
        bytes[at] = byte;
        Shown::body(&RecordBody::Message(bytes.into()))
    }

    /// A proposal outside a commit.
    fn propose(&mut self, body: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Forged {
        let (villain, world) = self.both();
        villain.leave(world, None, &Twist::body(body)).into()
    }
}
