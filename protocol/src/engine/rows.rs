//! What the engine stores, and where. Stored types are not wire types; every value begins with a version byte.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::EngineError;
use super::roster_jobs::Rotation;
use crate::group::PolicyChange;
use crate::identity::{
    DeviceId, Epoch, GroupId, Hash, InvitationId, LogSeq, RosterSeq, UserId, encode, sha256,
};
use crate::store::{Space, Tx};
use crate::wire::RecordBody;
use crate::wire::log::LogCursor;

/// Identity, cursors, the directory keys; by name.
pub(super) const META: Space = Space(0x20);
/// Signed roster entries; by seq.
pub(super) const ROSTER: Space = Space(0x21);
/// [`GroupRow`]; by group.
pub(super) const GROUPS: Space = Space(0x22);
/// Log hashes of the current epoch; by group and count.
pub(super) const LOG_HASHES: Space = Space(0x23);
/// [`OutboxRow`]; by group and order.
pub(super) const OUTBOX: Space = Space(0x24);
/// [`IntentRow`]; by group and id.
pub(super) const INTENTS: Space = Space(0x25);
/// [`super::HistoryRecord`]; by group and log position.
pub(super) const HISTORY: Space = Space(0x26);
/// [`OrderRow`]; by group and order.
pub(super) const ORDERS: Space = Space(0x27);
/// [`RosterIntentRow`]; by id.
pub(super) const ROSTER_INTENTS: Space = Space(0x28);

/// [`ParentRow`]; by group.
pub(super) const PARENTS: Space = Space(0x2D);
/// [`RestartRow`]; by the group that ends.
pub(super) const RESTARTS: Space = Space(0x2E);

/// [`ResyncRow`]; by group.
pub(super) const RESYNCS: Space = Space(0x2F);

/// The root of the set that the relay has shown for an order (REQ-172); by order.
pub(super) const ORDER_SETS: Space = Space(0x30);

/// The opening entry of each of the newest epochs that this device was in; by group and epoch.
pub(super) const EPOCHS: Space = Space(0x31);

/// [`super::compared::ComparedRow`]; by user.
pub(super) const COMPARED: Space = Space(0x32);

/// The newest `s` of a leaf, a [`RosterSeq`]; by group and device.
pub(super) const LEAF_S: Space = Space(0x3A);

/// Intents with numbers from here on are the engine's own: nobody is told of them.
pub(super) const INTERNAL: u64 = 1 << 63;

/// In [`META`]: the seq and hash of the newest entry in [`ROSTER`], all signatures up to which were verified.
pub(super) const VERIFIED_HEAD: &[u8] = b"verified head";

/// In [`META`]: which layout all rows of the store have, openmls's included.
const SCHEMA: &[u8] = b"schema";
/// The layout that this version reads and writes. Raise it when a stored type changes, and openmls with it: postcard
/// names no fields, so that an old row might read as something else.
pub(super) const SCHEMA_VERSION: u32 = 1;

const VERSION: u8 = 1;

/// How a group stands for this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GroupStatus {
    /// Made here; the relay has not acknowledged it yet.
    Creating,
    /// A member.
    Active,
    /// Removed from it.
    Removed,
    /// What this device holds of it leads nowhere, or the relay was convicted.
    Stopped(String),
    /// The log has gone on with something that this device does not follow (REQ-152).
    Halted(Fault),
    /// The conversation goes on in another group.
    Continued(GroupId),
}

/// Why a group is halted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    /// The named rule.
    pub(super) reason: String,
    /// Who broke it.
    pub(super) culprit: DeviceId,
    pub(super) kind: FaultKind,
    /// When it was met, ms since 1970.
    pub(super) since_ms: u64,
    /// The relay says that others go on from there (REQ-154).
    pub(super) confirmed: bool,
}

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FaultKind {
    /// A commit that nobody honest follows.
    Public,
    /// A commit that this device cannot follow; others may (REQ-154).
    Private,
    /// A Restart by somebody who may not.
    FalseRestart,
}

impl Fault {
    /// Why nothing can be done here any more, if so: others have taken up what this device must not follow.
    pub(super) fn stopped(&self) -> Option<&str> {
        (self.confirmed && self.kind != FaultKind::Private).then_some(&self.reason)
    }
}

/// The epoch before a group's present one, as far as somebody may still go back to it (REQ-152).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ParentRow {
    pub(super) epoch: Epoch,
    pub(super) entry_hash: Hash,
    /// Who closed it.
    pub(super) committer: DeviceId,
    pub(super) admins: Vec<UserId>,
    /// Those of its members who might be entitled, by leaf.
    pub(super) members: Vec<(DeviceId, UserId)>,
}

/// An open question to be let in anew (REQ-156).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ResyncRow {
    /// The device's clock, ms since 1970; also what the answer is known by.
    pub(super) asked_at_ms: u64,
    #[serde(with = "serde_bytes")]
    pub(super) key_package: Vec<u8>,
    /// The commands that it answers, until the relay has the question.
    pub(super) intents: Vec<u64>,
    /// When the KeyPackage was made, the device's clock, ms since 1970.
    pub(super) made_at_ms: u64,
    /// How many answers in a row could not be taken.
    pub(super) refused: u32,
    /// It is not put before, ms since 1970.
    pub(super) not_before_ms: u64,
}

/// A successor that this device makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RestartRow {
    /// The commands that it answers.
    pub(super) intents: Vec<u64>,
    /// The group to be named, and the intent that fills it: a successor, once it is made; in a successor that has lost,
    /// its predecessor (REQ-161).
    pub(super) successor: Option<(GroupId, u64)>,
    /// The Restart is on its way or in the log.
    pub(super) submitted: bool,
}

/// A group, apart from what openmls keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRow {
    pub(super) name: String,
    pub(super) suite: u16,
    pub(super) status: GroupStatus,
    /// The newest record that was dealt with.
    pub(super) cursor: LogSeq,
    pub(super) epoch: Epoch,
    /// The opening entry of `epoch`.
    pub(super) entry_hash: Hash,
    pub(super) log_count: u32,
    pub(super) log_hash: Hash,
    /// The newest record's fence.
    pub(super) fence: RosterSeq,
    /// `s` of the newest commit.
    pub(super) commit_s: RosterSeq,
    /// The newest `s` of each leaf as older versions kept it; what is here moves to [`LEAF_S`] with the next commit.
    pub(super) old_leaf_s: BTreeMap<DeviceId, RosterSeq>,
    /// Records after this one have at least the fence `floor_fence`.
    pub(super) floor_seq: LogSeq,
    pub(super) floor_fence: RosterSeq,
    /// The log's newest record when the group was closed, if the relay has said (REQ-061).
    pub(super) ends_at: Option<LogSeq>,
    /// When this device's leaf is due for new keys, ms since 1970 (REQ-096).
    pub(super) refresh_at_ms: u64,
    /// The group that this one continues (REQ-153).
    pub(super) predecessor: Option<GroupId>,
    /// The predecessor's log has not named this group yet: it is not shown.
    pub(super) is_candidate: bool,
    /// When this device last asked to be let in anew, ms since 1970; 0 for never.
    pub(super) resynced_ms: u64,
    /// When it is this device's turn to warm the tree, ms since 1970; 0 for never (REQ-130).
    pub(super) warm_at_ms: u64,
    /// How long history is kept, days; `None` for ever (REQ-122).
    pub(super) retention_days: Option<u32>,
}

impl GroupRow {
    pub(super) fn log_cursor(&self) -> LogCursor {
        LogCursor {
            count: self.log_count,
            hash: self.log_hash,
        }
    }

    pub(super) fn set_log_cursor(&mut self, cursor: LogCursor) {
        self.log_count = cursor.count;
        self.log_hash = cursor.hash;
    }

    /// What the fence of the record at `seq` must at least be, by what the relay has said of an order (REQ-061).
    pub(super) fn floor(&self, seq: LogSeq) -> RosterSeq {
        if seq > self.floor_seq {
            self.floor_fence
        } else {
            RosterSeq(0)
        }
    }
}

/// What kind of record an outbox row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum OutboxKind {
    Create,
    Message,
    Commit,
    /// A proposal that this device be removed.
    Leave,
    /// For the order.
    Attestation(RosterSeq),
    Restart,
}

/// A record on its way; kept until it is met in the log or known not to be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutboxRow {
    pub(super) kind: OutboxKind,
    /// The intent that explains it; none for duties.
    pub(super) intent: Option<u64>,
    pub(super) epoch: Epoch,
    pub(super) record_id: Hash,
    #[serde(with = "serde_bytes")]
    pub(super) payload: Vec<u8>,
    /// For a commit that adds: the devices and the Welcome.
    pub(super) welcome: Option<(Vec<DeviceId>, serde_bytes::ByteBuf)>,
    /// For a message: what it says, since nobody can decrypt their own.
    pub(super) plaintext: Option<serde_bytes::ByteBuf>,
    /// The relay has it.
    pub(super) acked: bool,
}

impl OutboxRow {
    /// A record made in `epoch`, not sent yet.
    pub(super) fn new(
        kind: OutboxKind,
        intent: Option<u64>,
        epoch: Epoch,
        body: &RecordBody,
    ) -> Self {
        let payload = encode(body);
        Self {
            kind,
            intent,
            epoch,
            record_id: sha256(&payload),
            payload,
            welcome: None,
            plaintext: None,
            acked: false,
        }
    }

    /// Whether it was left over from an epoch before this one, without an answer, by a resync.
    pub(super) fn is_left_from(&self, epoch: Epoch) -> bool {
        self.kind == OutboxKind::Message && self.epoch < epoch
    }
}

/// The outbox row that holds a record, and its number; the record is hashed only if there is any row.
pub(super) fn find_outbox(
    tx: &Tx<'_>,
    group: GroupId,
    record_id: impl FnOnce() -> Hash,
) -> Result<Option<(u64, OutboxRow)>, EngineError> {
    let rows = of_group::<OutboxRow>(tx, OUTBOX, group)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let record_id = record_id();
    Ok(rows.into_iter().find(|(_, row)| row.record_id == record_id))
}

/// What the user wants of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Intent {
    Send {
        #[serde(with = "serde_bytes")]
        content: Vec<u8>,
    },
    Add {
        users: BTreeSet<UserId>,
    },
    Remove {
        user: UserId,
    },
    Change {
        change: PolicyChange,
    },
    Leave {
        /// The user knows that the leave is in the log.
        told: bool,
    },
}

/// An intent, and whether a record for it is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IntentRow {
    pub(super) intent: Intent,
    pub(super) in_flight: bool,
}

/// What this device owes a group because of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderRow {
    /// A commit that removed the order's devices was followed.
    pub(super) rotated: bool,
    /// This device's own statement is on its way or in the log.
    pub(super) attested: bool,
    /// Users other than ours whose devices have attested.
    pub(super) seen: BTreeSet<UserId>,
    /// The group's log had a record from before the order: the relay's set must hold it (REQ-172).
    pub(super) existed: bool,
    /// The root of the set that was proven to hold it.
    pub(super) proven: Option<Hash>,
    /// What this device has found when it attested, for its receipt.
    pub(super) found: Option<FoundRow>,
    /// The relay has the receipt, or enough others.
    pub(super) receipted: bool,
}

/// A group's state when this device attested (REQ-174).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FoundRow {
    pub(super) epoch: Epoch,
    pub(super) entry_hash: Hash,
    #[serde(with = "serde_bytes")]
    pub(super) tree_hash: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(super) transcript_hash: Vec<u8>,
    pub(super) rotated: bool,
    /// The device's clock, ms since 1970.
    pub(super) at_ms: u64,
}

/// A roster change that must survive a crash, with what was signed for it (REQ-108).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RosterIntentRow {
    /// `Vec<Op>` in the TLS presentation language.
    #[serde(with = "serde_bytes")]
    pub(super) ops: Vec<u8>,
    /// The device's own duty.
    pub(super) own: bool,
    pub(super) rotation: Rotation,
    pub(super) invite: Option<InviteRow>,
    pub(super) signed: Option<SignedRow>,
}

/// What makes an invitation's link; deleted in the step that hands it over. Wiped on drop.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InviteRow {
    pub(super) user: UserId,
    pub(super) invitation: InvitationId,
    pub(super) secret: [u8; 32],
    pub(super) pin: Option<[u8; 8]>,
}

/// What was signed last, and the directory key that it names, which is wiped on drop.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SignedRow {
    #[serde(with = "serde_bytes")]
    pub(super) entry: Vec<u8>,
    pub(super) parent_seq: RosterSeq,
    pub(super) parent_hash: Hash,
    pub(super) key: Option<[u8; 32]>,
}

/// `group || number`, so that a scan of the group's prefix is in numeric order.
pub(super) fn key(group: GroupId, number: u64) -> Vec<u8> {
    [&group.0[..], &number.to_be_bytes()].concat()
}

/// `group || device`.
pub(super) fn leaf_key(group: GroupId, device: DeviceId) -> Vec<u8> {
    [&group.0[..], &device.0].concat()
}

/// The number of a [`key`].
pub(super) fn number(key: &[u8]) -> Result<u64, EngineError> {
    key.last_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or(EngineError::Damaged { row: "a key" })
}

pub(super) fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, EngineError> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_allocvec(value).map_err(|_| EngineError::Bug("encode a row"))?);
    Ok(bytes)
}

pub(super) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EngineError> {
    const DAMAGED: EngineError = EngineError::Damaged { row: "a value" };
    match bytes.split_first() {
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            _ => Err(DAMAGED),
        },
        _ => Err(DAMAGED),
    }
}

/// Says in a new store which layout its rows have.
pub(super) fn put_schema(tx: &Tx<'_>) -> Result<(), EngineError> {
    put(tx, META, SCHEMA, &SCHEMA_VERSION)
}

/// Refuses a store whose rows have another layout; 0 is that of the versions which did not say.
pub(super) fn check_schema(tx: &Tx<'_>) -> Result<(), EngineError> {
    match load(tx, META, SCHEMA)?.unwrap_or(0) {
        SCHEMA_VERSION => Ok(()),
        found => Err(EngineError::OtherSchema {
            found,
            known: SCHEMA_VERSION,
        }),
    }
}

pub(super) fn put<T: Serialize>(
    tx: &Tx<'_>,
    space: Space,
    key: impl Into<Vec<u8>>,
    value: &T,
) -> Result<(), EngineError> {
    tx.put(space, key, to_bytes(value)?);
    Ok(())
}

pub(super) fn load<T: DeserializeOwned>(
    tx: &Tx<'_>,
    space: Space,
    key: &[u8],
) -> Result<Option<T>, EngineError> {
    tx.get(space, key)?.map(|v| from_bytes(&v)).transpose()
}

/// All rows of a group in a space keyed by [`key`].
pub(super) fn of_group<T: DeserializeOwned>(
    tx: &Tx<'_>,
    space: Space,
    group: GroupId,
) -> Result<Vec<(u64, T)>, EngineError> {
    tx.scan(space, &group.0)?
        .into_iter()
        .map(|(k, v)| Ok((number(&k)?, from_bytes(&v)?)))
        .collect()
}

/// How many epochs of a group a device remembers to have been in.
const MAX_EPOCHS: u64 = 1_024;

/// Remembers that this device was in a group's present epoch.
pub(super) fn remember_epoch(tx: &Tx<'_>, group: GroupId, row: &GroupRow) {
    let epoch = row.epoch.0;
    tx.put(EPOCHS, key(group, epoch), row.entry_hash.0);
    if let Some(oldest) = epoch.checked_sub(MAX_EPOCHS) {
        tx.delete(EPOCHS, key(group, oldest));
    }
}

/// Whether this device was in the epoch that an entry has opened, as far as it remembers.
pub(super) fn was_in(tx: &Tx<'_>, group: GroupId, entry: Hash) -> Result<bool, EngineError> {
    let epochs = tx.scan(EPOCHS, &group.0)?;
    Ok(epochs.iter().any(|(_, hash)| hash == &entry.0))
}

/// The number after the last one used in this space and group.
pub(super) fn next_number(tx: &Tx<'_>, name: &str) -> Result<u64, EngineError> {
    let key = format!("next {name}");
    let next: u64 = load(tx, META, key.as_bytes())?.unwrap_or(1);
    put(tx, META, key.into_bytes(), &(next + 1))?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_row() -> GroupRow {
        let fault = Fault {
            reason: "why".into(),
            culprit: DeviceId([1; 16]),
            kind: FaultKind::Private,
            since_ms: 2,
            confirmed: true,
        };
        GroupRow {
            name: "name".into(),
            suite: 3,
            status: GroupStatus::Halted(fault),
            cursor: LogSeq(4),
            epoch: Epoch(5),
            entry_hash: Hash([6; 32]),
            log_count: 7,
            log_hash: Hash([8; 32]),
            fence: RosterSeq(9),
            commit_s: RosterSeq(10),
            old_leaf_s: BTreeMap::from([(DeviceId([11; 16]), RosterSeq(12))]),
            floor_seq: LogSeq(13),
            floor_fence: RosterSeq(14),
            ends_at: Some(LogSeq(15)),
            refresh_at_ms: 16,
            predecessor: Some(GroupId([17; 32])),
            is_candidate: true,
            resynced_ms: 18,
            warm_at_ms: 19,
            retention_days: Some(20),
        }
    }

    fn outbox_row() -> OutboxRow {
        let bytes = |byte| serde_bytes::ByteBuf::from(vec![byte]);
        OutboxRow {
            kind: OutboxKind::Attestation(RosterSeq(21)),
            intent: Some(22),
            epoch: Epoch(23),
            record_id: Hash([24; 32]),
            payload: vec![25],
            welcome: Some((vec![DeviceId([26; 16])], bytes(27))),
            plaintext: Some(bytes(28)),
            acked: true,
        }
    }

    fn order_row() -> OrderRow {
        let found = FoundRow {
            epoch: Epoch(29),
            entry_hash: Hash([30; 32]),
            tree_hash: vec![31],
            transcript_hash: vec![32],
            rotated: true,
            at_ms: 33,
        };
        OrderRow {
            rotated: true,
            attested: true,
            seen: BTreeSet::from([UserId([34; 16])]),
            existed: true,
            proven: Some(Hash([35; 32])),
            found: Some(found),
            receipted: true,
        }
    }

    fn roster_intent_row() -> RosterIntentRow {
        let invite = InviteRow {
            user: UserId([36; 16]),
            invitation: InvitationId([37; 16]),
            secret: [38; 32],
            pin: Some([39; 8]),
        };
        let signed = SignedRow {
            entry: vec![40],
            parent_seq: RosterSeq(41),
            parent_hash: Hash([42; 32]),
            key: Some([43; 32]),
        };
        RosterIntentRow {
            ops: vec![44],
            own: true,
            rotation: Rotation::IfStale,
            invite: Some(invite),
            signed: Some(signed),
        }
    }

    /// Stored rows carry no names of fields: a type that has changed reads an old row as something else. If this fails,
    /// raise [`SCHEMA_VERSION`], so that nobody opens a store of the version before, and note the new digest.
    #[test]
    fn rows_have_the_layout_of_their_version() {
        let resync = ResyncRow {
            asked_at_ms: 45,
            key_package: vec![46],
            intents: vec![47],
            made_at_ms: 48,
            refused: 48,
            not_before_ms: 49,
        };
        let restart = RestartRow {
            intents: vec![50],
            successor: Some((GroupId([51; 32]), 52)),
            submitted: true,
        };
        let parent = ParentRow {
            epoch: Epoch(53),
            entry_hash: Hash([54; 32]),
            committer: DeviceId([55; 16]),
            admins: vec![UserId([56; 16])],
            members: vec![(DeviceId([57; 16]), UserId([58; 16]))],
        };
        let intents = [
            Intent::Send { content: vec![59] },
            Intent::Add {
                users: BTreeSet::from([UserId([60; 16])]),
            },
            Intent::Remove {
                user: UserId([61; 16]),
            },
            Intent::Change {
                change: PolicyChange::Name("name".into()),
            },
            Intent::Leave { told: true },
        ];
        let intents = intents.map(|intent| IntentRow {
            intent,
            in_flight: true,
        });
        let rows = [
            to_bytes(&group_row()),
            to_bytes(&outbox_row()),
            to_bytes(&order_row()),
            to_bytes(&roster_intent_row()),
            to_bytes(&resync),
            to_bytes(&restart),
            to_bytes(&parent),
            to_bytes(&intents),
        ];
        let rows = rows.into_iter().collect::<Result<Vec<_>, _>>();
        let digest = sha256(&rows.expect("rows").concat());
        let known = "faa5d5e7bea6f023da658b464656a73030ead846d1e6615e5f6021a7fb0bc0ee";
        assert_eq!((SCHEMA_VERSION, digest.to_string().as_str()), (1, known));
    }
}
