//! Attestations and Restarts that do not hold (REQ-064, REQ-150, REQ-152).

use mortise_protocol::group::Violation;
use mortise_protocol::identity::{Epoch, GroupId, Hash, SigningKey};
use mortise_protocol::wire::RecordBody;
use mortise_protocol::wire::log::{Attestation, AttestationStatement, Verdict};
use mortise_protocol::wire::restart::{Restart, RestartCause, RestartStatement};

use super::super::stage::{Forged, Shown, Stage};
use super::{READ, Row, row};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = attestations();
    for row in &mut rows {
        if let super::Check::Refused(attempt) = &mut row.check {
            attempt.setup = |stage| {
                stage.world.remove(Stage::OWNER, Stage::GUS);
            };
        }
    }
    rows.extend(restarts());
    rows
}

fn attestations() -> Vec<Row> {
    vec![
        row(
            &["REQ-064", "BAD_ATTESTATION"],
            "an attestation about another entry than the one that opened the epoch",
            Violation::BadAttestation,
            READ,
            |stage| {
                stage.attest(|said| AttestationStatement {
                    entry_hash: Hash([0; 32]),
                    ..said
                })
            },
        ),
        row(
            &["REQ-064", "BAD_ATTESTATION"],
            "an attestation for an order that there is not",
            Violation::BadAttestation,
            READ,
            |stage| {
                stage.attest(|said| AttestationStatement {
                    order_hash: Hash([0; 32]),
                    ..said
                })
            },
        ),
        row(
            &["REQ-064", "BAD_ATTESTATION"],
            "an attestation in another member's name",
            Violation::BadAttestation,
            READ,
            |stage| {
                let device = stage.world.people[Stage::CY.0].device();
                stage.attest(|said| AttestationStatement { device, ..said })
            },
        ),
        row(
            &["REQ-064", "BAD_ATTESTATION"],
            "an attestation without the epoch's access key",
            Violation::BadAttestation,
            READ,
            |stage| {
                let (villain, world) = stage.both();
                let said = villain.statement(world, Verdict::Clean);
                let wrong = SigningKey::from_seed(&[5; 32]);
                let made = Attestation::sign(said, &villain.key, &wrong);
                Shown::body(&RecordBody::Attestation(made))
            },
        ),
        row(
            &["REQ-048", "REQ-064", "BAD_ATTESTATION"],
            "an attestation on another roster",
            Violation::BadAttestation,
            READ,
            |stage| {
                stage.attest(|said| AttestationStatement {
                    roster_hash: Hash([0; 32]),
                    ..said
                })
            },
        ),
    ]
}

fn restarts() -> Vec<Row> {
    vec![
        row(
            &["REQ-150", "REQ-152", "RESTART_NOT_ALLOWED"],
            "a member who is no group admin ends an intact group",
            Violation::RestartNotAllowed,
            READ,
            |stage| {
                let (villain, world) = stage.both();
                let successor = GroupId([9; 32]);
                villain
                    .restart(world, RestartCause::Requested, successor)
                    .into()
            },
        ),
        row(
            &["REQ-152", "RESTART_NOT_ALLOWED"],
            "a member ends the group for a fault that nobody has seen",
            Violation::RestartNotAllowed,
            READ,
            |stage| {
                let culprit = stage.world.people[Stage::ANN.0].device();
                let (villain, world) = stage.both();
                let cause = RestartCause::FaultyCommit { culprit };
                villain.restart(world, cause, GroupId([9; 32])).into()
            },
        ),
        row(
            &["REQ-150", "BAD_RESTART"],
            "a Restart in another member's name",
            Violation::BadRestart,
            READ,
            |stage| {
                let device = stage.world.people[Stage::ANN.0].device();
                stage.ends(|said| RestartStatement { device, ..said })
            },
        ),
        row(
            &["REQ-150", "BAD_RESTART"],
            "a Restart of another group",
            Violation::BadRestart,
            READ,
            |stage| {
                stage.ends(|said| RestartStatement {
                    group: GroupId([8; 32]),
                    ..said
                })
            },
        ),
        row(
            &["REQ-150", "BAD_RESTART"],
            "a Restart whose parent is not the epoch that its record says",
            Violation::BadRestart,
            READ,
            |stage| {
                stage.ends(|said| RestartStatement {
                    parent_epoch: Epoch(said.parent_epoch.0 + 1),
                    ..said
                })
            },
        ),
        row(
            &["REQ-048", "REQ-152", "BAD_RESTART"],
            "a Restart on another roster",
            Violation::BadRestart,
            READ,
            |stage| {
                stage.ends(|said| RestartStatement {
                    roster_hash: Hash([0; 32]),
                    ..said
                })
            },
        ),
    ]
}

impl Stage {
    /// An attestation that says something else than the truth, signed with the villain's keys.
    fn attest(&mut self, lie: impl FnOnce(AttestationStatement) -> AttestationStatement) -> Forged {
        let (villain, world) = self.both();
        let said = lie(villain.statement(world, Verdict::Clean));
        Shown::body(&villain.attest(said).body)
    }

    /// A Restart that says something else than the truth, signed with the villain's key.
    fn ends(&mut self, lie: impl FnOnce(RestartStatement) -> RestartStatement) -> Forged {
        let (villain, world) = self.both();
        let made = villain.restart(world, RestartCause::Requested, GroupId([9; 32]));
        let RecordBody::Restart(restart) = made.body else {
            panic!("a Restart")
        };
        let restart = Restart::sign(lie(restart.statement), &villain.key);
        Shown::body(&RecordBody::Restart(restart))
    }
}
