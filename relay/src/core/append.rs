//! The append rule (REQ-055): a pure function over plain values, so that every storage engine decides alike.
//!
//! [`decide`] must never read a store or a clock, and never write: the caller looks up [`Facts`] in the
//! transaction in which it then writes what [`Accepted`] says.

use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, LogSeq, PublicKey, RosterSeq, decode,
};
use mortise_protocol::wire::aad::{ContentType, HeaderError, PrivateHeader};
use mortise_protocol::wire::log::{
    AccessProof, Attestation, CommitEntry, ConnectionBinding, Purpose, RecordBody, Verdict,
    entry_hash,
};
use mortise_protocol::wire::restart::Restart;
use mortise_protocol::wire::{Refusal, Submission, WelcomeFor, limits};

use super::layout::{AppendedRecord, EpochRecord};

/// An admitted device on its connection.
#[derive(Clone, Copy, Debug)]
pub struct Appender {
    /// Which device.
    pub device: DeviceId,
    /// Its MLS signature key, from the roster.
    pub mls_signature_key: PublicKey,
    /// Its connection's TLS exporter value.
    pub binding: ConnectionBinding,
}

/// Where the group's log ends.
#[derive(Clone, Copy, Debug)]
pub struct LogHead {
    /// The newest record.
    pub seq: LogSeq,
    /// The newest epoch.
    pub epoch: Epoch,
    /// The newest epoch that is confirmed (REQ-151).
    pub confirmed: Epoch,
    /// Whether it has ended: the newest Restart, and whether one of them is this device's.
    pub end: Option<LogEnd>,
}

/// A log that a Restart has ended.
#[derive(Clone, Copy, Debug)]
pub struct LogEnd {
    /// The first Restart.
    pub seq: LogSeq,
    /// Whether the device that submits has appended one.
    pub by_appender: bool,
}

/// What the rule asks of the relay's roster, as it is in this transaction.
#[derive(Clone, Copy)]
pub struct RosterFacts<'a> {
    /// The newest order.
    pub fence: RosterSeq,
    /// The newest entry.
    pub head: RosterSeq,
    /// The chain: the hash of an entry.
    pub hash_at: &'a dyn Fn(RosterSeq) -> Option<Hash>,
    /// The entry hash of an order; `None` where there is none.
    pub order_hash: &'a dyn Fn(RosterSeq) -> Option<Hash>,
}

/// Everything that the rule depends on besides the submission itself.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Who submits; `None` for a device that is not admitted.
    pub appender: Option<Appender>,
    /// What this device was told when it appended these very bytes to this group before.
    pub duplicate: Option<AppendedRecord>,
    /// The log's end; `None` where the organisation has no such group.
    pub head: Option<LogHead>,
    /// The epoch that the submission names, if the group has or had it.
    pub epoch: Option<EpochRecord>,
    /// Whether this very proof was found valid before, for this epoch, on this connection.
    pub proven: bool,
    /// The roster.
    pub roster: RosterFacts<'a>,
    /// Whether the roster has closed the group (REQ-102).
    pub closed: bool,
}

/// A submission that is in the log: before, or as soon as the caller has written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was appended before; nothing is to be written.
    Before(AppendedRecord),
    /// It is to be appended there.
    Now(AppendedRecord, Effect),
}

/// What a new record does besides being in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Message,
    /// It closes the head's epoch and opens the next.
    Commit {
        /// The new epoch.
        next: EpochRecord,
    },
    /// It counts towards an order's status (REQ-065).
    Attestation {
        /// The order.
        order: RosterSeq,
        /// What is stated.
        verdict: Verdict,
    },
    /// It ends the log (REQ-150).
    Restart,
}

/// Decides one submission, in exactly this order (REQ-055): the device is admitted; not a duplicate; the
/// group exists; access is proven; the roster has not closed the group; the epoch is the head's; the record is
/// well-formed; its roster is neither behind nor another one; its own signatures hold. That a commit is the first for its
/// epoch follows: an accepted one moves the head. Each refusal carries what the device needs to recover (REQ-047).
///
/// # Errors
/// The [`Refusal`] of the first step that fails.
pub fn decide(submission: &Submission, facts: &Facts<'_>) -> Result<Accepted, Refusal> {
    let appender = facts.appender.ok_or(Refusal::NotAdmitted)?;
    if let Some(before) = facts.duplicate {
        return Ok(Accepted::Before(before));
    }
    let head = facts.head.ok_or(Refusal::UnknownGroup)?;
    let epoch = prove_access(submission, facts, &appender.binding)?;
    if facts.closed {
        return Err(Refusal::GroupClosed);
    }
    check_epoch(submission, &head)?;
    let claim = Claim::read(submission)?;
    claim.check_parent(submission, &head)?;
    check_roster(&claim, &epoch, &facts.roster)?;
    let appended = AppendedRecord {
        seq: head.seq.next(),
        fence: facts.roster.fence,
    };
    let effect = claim.check_signatures(submission, &appender, &epoch, &facts.roster)?;
    let effect = match effect {
        Signed::Message => Effect::Message,
        Signed::Restart => Effect::Restart,
        Signed::Attestation { order, verdict } => Effect::Attestation { order, verdict },
        Signed::Commit { next_access_key } => Effect::Commit {
            next: EpochRecord {
                access_key: next_access_key,
                entry_hash: entry_hash(
                    submission.group,
                    head.epoch.next(),
                    submission.payload.as_slice(),
                ),
                opening_seq: appended.seq,
                opening_s: claim.s,
            },
        },
    };
    Ok(Accepted::Now(appended, effect))
}

/// A record is of the head's epoch. A Restart may name an earlier parent, as long as no later epoch is confirmed; after
/// the first one nothing comes but others, one per device: whose counts is for the members to say (REQ-150, REQ-151).
fn check_epoch(submission: &Submission, head: &LogHead) -> Result<(), Refusal> {
    let is_head = submission.epoch == head.epoch;
    let is_restart = RecordBody::is_restart(submission.payload.as_slice());
    let is_open = is_head || is_restart && submission.epoch >= head.confirmed;
    match head.end {
        Some(end) if end.by_appender || !is_restart => {
            Err(Refusal::GroupRestarted { seq: end.seq })
        }
        _ if !is_open => Err(wrong_epoch(head)),
        _ => Ok(()),
    }
}

fn wrong_epoch(head: &LogHead) -> Refusal {
    Refusal::WrongEpoch {
        head_epoch: head.epoch,
        head_seq: head.seq,
    }
}

/// The key of the epoch that the submission names, proven on this connection (REQ-052).
///
/// A device that is behind cannot hold the head's key; the key of its own epoch earns it a `WRONG_EPOCH`.
fn prove_access(
    submission: &Submission,
    facts: &Facts<'_>,
    binding: &ConnectionBinding,
) -> Result<EpochRecord, Refusal> {
    let epoch = facts.epoch.ok_or(Refusal::AccessDenied)?;
    let Submission {
        group,
        epoch: number,
        proof,
        ..
    } = submission;
    // The opening entry names its key: a known proof of the same entry is one of the same key (REQ-196).
    let known = facts.proven && proof.entry_hash == epoch.entry_hash;
    if known || access_proven(proof, &epoch, binding, *group, *number, Purpose::Append) {
        Ok(epoch)
    } else {
        Err(Refusal::AccessDenied)
    }
}

/// Whether a proof holds for this epoch: its opening entry, its key, this connection and purpose (REQ-052).
pub(super) fn access_proven(
    proof: &AccessProof,
    epoch: &EpochRecord,
    binding: &ConnectionBinding,
    group: GroupId,
    number: Epoch,
    purpose: Purpose,
) -> bool {
    proof.entry_hash == epoch.entry_hash
        && proof
            .verify(&epoch.access_key, binding, group, number, purpose)
            .is_ok()
}

/// `max(fence, s of the head's opening commit) <= s <= roster head`, and the chain's hash at `s` (REQ-048, REQ-055).
fn check_roster(
    claim: &Claim,
    epoch: &EpochRecord,
    roster: &RosterFacts<'_>,
) -> Result<(), Refusal> {
    let at_least = roster.fence.max(epoch.opening_s);
    if claim.s < at_least {
        return Err(Refusal::RosterBehind {
            at_least,
            head_seq: roster.head,
        });
    }
    if claim.s > roster.head || (roster.hash_at)(claim.s) != Some(claim.roster_hash) {
        return Err(Refusal::RosterFork);
    }
    Ok(())
}

/// What a well-formed record says in public.
struct Claim {
    /// The sender's roster head.
    s: RosterSeq,
    roster_hash: Hash,
    body: RecordBody,
}

/// A record whose own signatures hold.
enum Signed {
    Message,
    Commit { next_access_key: PublicKey },
    Attestation { order: RosterSeq, verdict: Verdict },
    Restart,
}

impl Claim {
    fn read(submission: &Submission) -> Result<Self, Refusal> {
        let payload = submission.payload.as_slice();
        check_size(payload.len(), limits::MAX_COMMIT_BYTES)?;
        let body = decode(payload).map_err(|_| Refusal::Malformed)?;
        let is_commit = matches!(body, RecordBody::Commit(_));
        check_welcomes(&submission.welcomes, is_commit)?;
        let (s, roster_hash) = match &body {
            RecordBody::Create { .. } => return Err(Refusal::Malformed),
            RecordBody::Commit(entry) => {
                let message = entry.commit.as_slice();
                read_header(submission, message, |t| t == ContentType::Commit)?
            }
            RecordBody::Message(message) => {
                check_size(message.as_slice().len(), limits::MAX_APPLICATION_BYTES)?;
                read_header(submission, message.as_slice(), |t| t != ContentType::Commit)?
            }
            RecordBody::Attestation(Attestation { statement, .. }) => {
                if (statement.group, statement.epoch) != (submission.group, submission.epoch) {
                    return Err(Refusal::Malformed);
                }
                (statement.roster_seq, statement.roster_hash)
            }
            RecordBody::Restart(Restart { statement, .. }) => {
                if (statement.group, statement.parent_epoch) != (submission.group, submission.epoch)
                {
                    return Err(Refusal::Malformed);
                }
                (statement.roster_seq, statement.roster_hash)
            }
        };
        Ok(Self {
            s,
            roster_hash,
            body,
        })
    }

    /// Who goes back behind a commit says whose it is: a mere wish must not undo what it has not seen (REQ-150).
    fn check_parent(&self, submission: &Submission, head: &LogHead) -> Result<(), Refusal> {
        match &self.body {
            RecordBody::Restart(Restart { statement, .. })
                if statement.cause.culprit().is_none() && submission.epoch != head.epoch =>
            {
                Err(wrong_epoch(head))
            }
            _ => Ok(()),
        }
    }

    fn check_signatures(
        &self,
        submission: &Submission,
        appender: &Appender,
        epoch: &EpochRecord,
        roster: &RosterFacts<'_>,
    ) -> Result<Signed, Refusal> {
        match &self.body {
            RecordBody::Commit(entry) => check_commit(entry, submission, appender),
            RecordBody::Attestation(attestation) => {
                check_attestation(attestation, appender, epoch, roster)
            }
            RecordBody::Restart(restart) => check_restart(restart, appender, epoch),
            RecordBody::Create { .. } | RecordBody::Message(_) => Ok(Signed::Message),
        }
    }
}

/// `s` and its hash, from a header that says what the submission says (REQ-046).
fn read_header(
    submission: &Submission,
    message: &[u8],
    allowed: impl Fn(ContentType) -> bool,
) -> Result<(RosterSeq, Hash), Refusal> {
    let header = PrivateHeader::parse(message).map_err(|_: HeaderError| Refusal::Malformed)?;
    let same = (header.group, header.epoch) == (submission.group, submission.epoch);
    if !same || !allowed(header.content_type) {
        return Err(Refusal::Malformed);
    }
    Ok((header.aad.roster_seq, header.aad.roster_hash))
}

/// The committer is who submits, and vouches for the next access key (REQ-051).
fn check_commit(
    entry: &CommitEntry,
    submission: &Submission,
    appender: &Appender,
) -> Result<Signed, Refusal> {
    let key = &appender.mls_signature_key;
    if entry.device != appender.device
        || entry
            .verify(submission.group, submission.epoch, key)
            .is_err()
    {
        return Err(Refusal::Malformed);
    }
    Ok(Signed::Commit {
        next_access_key: entry.next_access_key,
    })
}

/// The statement is about the head and about an order, by who submits it, who holds the head's key (REQ-064).
fn check_attestation(
    attestation: &Attestation,
    appender: &Appender,
    epoch: &EpochRecord,
    roster: &RosterFacts<'_>,
) -> Result<Signed, Refusal> {
    let statement = &attestation.statement;
    if (roster.order_hash)(statement.order_seq) != Some(statement.order_hash) {
        return Err(Refusal::UnknownOrder);
    }
    if statement.device != appender.device
        || statement.entry_hash != epoch.entry_hash
        || attestation
            .verify(&appender.mls_signature_key, &epoch.access_key)
            .is_err()
    {
        return Err(Refusal::Malformed);
    }
    Ok(Signed::Attestation {
        order: statement.order_seq,
        verdict: statement.verdict,
    })
}

/// The restarter is who submits, and names the parent epoch's opening entry (REQ-150).
fn check_restart(
    restart: &Restart,
    appender: &Appender,
    epoch: &EpochRecord,
) -> Result<Signed, Refusal> {
    let statement = &restart.statement;
    if statement.device != appender.device
        || statement.parent_entry_hash != epoch.entry_hash
        || restart.verify(&appender.mls_signature_key).is_err()
    {
        return Err(Refusal::Malformed);
    }
    Ok(Signed::Restart)
}

/// Welcomes come with a commit, each for somebody, within the limits (REQ-053).
fn check_welcomes(welcomes: &[WelcomeFor], is_commit: bool) -> Result<(), Refusal> {
    if !is_commit && !welcomes.is_empty() {
        return Err(Refusal::Malformed);
    }
    for WelcomeFor { devices, welcome } in welcomes {
        if devices.is_empty() || welcome.as_slice().is_empty() {
            return Err(Refusal::Malformed);
        }
        check_size(welcome.as_slice().len(), limits::MAX_WELCOME_BYTES)?;
    }
    let devices = welcomes.iter().map(|w| w.devices.len()).sum();
    check_size(devices, limits::MAX_DEVICES_PER_REQUEST)
}

/// Refuses what is over a limit, in whatever unit.
pub(super) fn check_size(size: usize, limit: usize) -> Result<(), Refusal> {
    if size > limit {
        let limit = limit as u64;
        return Err(Refusal::TooLarge { limit });
    }
    Ok(())
}
