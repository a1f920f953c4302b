//! What the relay stores: one [`Space`] per kind of row, keys big-endian so that order is order, no secrets.
//!
//! Every value begins with [`ROW_VERSION`]; what follows is a record in the TLS presentation language,
//! or the bytes of somebody else (a roster entry, a KeyPackage, a Welcome) as they came. An id is
//! written in full: `org` 32 bytes, `device` 16, `group` 32, `hash` 32, every number 8 unless said.

use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, LogSeq, OrgId, PublicKey, RosterSeq, UserId, decode, encode,
};
use mortise_protocol::store::{Space, StoreError, Tx};
use mortise_protocol::wire::log::Verdict;
use mortise_protocol::wire::{Flag, LogRecord};
use tls_codec::{Deserialize, Serialize, TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

/// The first byte of every value.
pub const ROW_VERSION: u8 = 1;

/// [`META_KEY`] -> [`MetaRecord`].
pub const META: Space = Space(0x01);
/// SHA-256 of an unused claim token -> nothing.
pub const CLAIM_TOKENS: Space = Space(0x02);
/// `org || seq` -> the signed entry.
pub const ROSTER: Space = Space(0x10);
/// `org || device || filler` -> [`SlotRecord`].
pub const SLOTS: Space = Space(0x11);
/// `org || device` -> nothing: nobody has left this device a slot of the newest directory key.
pub const SLOTLESS: Space = Space(0x12);
/// `org || device` -> the newest checkpoint of a device, and when it came.
pub const CHECKPOINTS: Space = Space(0x13);
/// `org || device || suite[2]` -> [`KeyQueueRecord`].
pub const KEY_QUEUES: Space = Space(0x20);
/// `org || device || suite[2] || n` -> a one-time KeyPackage; `n` as in [`KeyQueueRecord`].
pub const KEY_PACKAGES: Space = Space(0x21);
/// `org || device || suite[2]` -> the last-resort KeyPackage.
pub const LAST_RESORTS: Space = Space(0x22);
/// `group` -> [`GroupRecord`].
pub const GROUPS: Space = Space(0x30);
/// `org || group` -> [`OrgGroupRecord`].
pub const ORG_GROUPS: Space = Space(0x31);
/// `group || epoch` -> [`EpochRecord`]; kept for every epoch, so that a laggard can walk.
pub const EPOCHS: Space = Space(0x32);
/// `group || seq` -> `LogRecord`.
pub const LOG: Space = Space(0x33);
/// `group || epoch` -> [`UnconfirmedRecord`]; until the epoch, or a later one, is confirmed.
pub const UNCONFIRMED: Space = Space(0x35);
/// `group || seq` -> [`RestartRecord`]; one per device.
pub const RESTARTS: Space = Space(0x36);
/// `group || device` -> the KeyPackage with which it asks to be let in anew.
pub const RESYNCS: Space = Space(0x37);
/// `org || device || group` -> nothing; says where [`RESYNCS`] has a row of the device.
pub const RESYNC_GROUPS: Space = Space(0x38);
/// `group || record id || device` -> [`AppendedRecord`]: what the device was told.
pub const RECORD_IDS: Space = Space(0x34);
/// `group || seq of the commit || n[4]` -> the Welcome, once for all whom it is for.
pub const WELCOMES: Space = Space(0x40);
/// As [`WELCOMES`] -> [`WelcomeLeftRecord`].
pub const WELCOMES_LEFT: Space = Space(0x41);
/// `org || device || seq in the inbox` -> [`InboxRecord`].
pub const INBOX: Space = Space(0x42);
/// `org || device` -> [`InboxNextRecord`].
pub const INBOX_NEXT: Space = Space(0x43);
/// `org || order seq || group || device || verdict[1]` -> [`AttestedRecord`].
pub const ATTESTATIONS: Space = Space(0x50);

/// `org || order seq` -> [`OrderedRecord`].
pub const ORDERED: Space = Space(0x51);
/// `org || order seq || group || device` -> a [`SealedReceipt`](mortise_protocol::wire::SealedReceipt).
pub const RECEIPTS: Space = Space(0x52);

/// What every append looks at: small rows that a driver does well to keep in memory.
pub const HOT_SPACES: &[Space] = &[GROUPS, EPOCHS];

/// The one key of [`META`].
pub const META_KEY: &[u8] = b"relay";

/// Whose store this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct MetaRecord {
    /// The relay's statement key.
    pub statement_key: PublicKey,
}

/// A slot of the directory key.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct SlotRecord {
    /// When it was left, relay's clock, ms since 1970: the oldest makes room.
    pub at_ms: u64,
    /// The roster entry that named the directory key in it.
    pub generation: RosterSeq,
    /// HPKE's encapsulated key.
    pub enc: VLByteVec,
    /// HPKE's ciphertext.
    pub ciphertext: VLByteVec,
}

/// A device's one-time KeyPackages for one suite: those from `first` up to, not including, `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct KeyQueueRecord {
    /// The oldest.
    pub first: u64,
    /// Where the next one goes.
    pub next: u64,
    /// Whether there is a last-resort KeyPackage.
    pub last_resort: Flag,
}

/// A group, and where its log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct GroupRecord {
    /// Whose group it is.
    pub org: OrgId,
    /// The newest record.
    pub head_seq: LogSeq,
    /// The newest epoch.
    pub head_epoch: Epoch,
    /// The newest epoch that is confirmed (REQ-151).
    pub confirmed: Epoch,
    /// Whether [`RESTARTS`] has a row.
    pub restarted: Flag,
    /// The hash of the whole log (REQ-044).
    pub log_hash: Hash,
}

/// An epoch whose key nobody but its committer, and those whom it brought, has proven yet (REQ-151).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct UnconfirmedRecord {
    /// The committer's user.
    pub committer: UserId,
    /// Devices that the commit's Welcomes named.
    pub welcomed: Vec<DeviceId>,
}

/// A Restart in a log (REQ-150).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct RestartRecord {
    /// Its parent epoch.
    pub parent: Epoch,
    /// Who appended it.
    pub device: DeviceId,
}

/// A group of an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct OrgGroupRecord {
    /// The fence of its `Create`: an order up to it is older than the group.
    pub created_fence: RosterSeq,
}

/// An epoch of a group: what opens it, in both senses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct EpochRecord {
    /// The public half of its access key.
    pub access_key: PublicKey,
    /// Its opening entry's hash (REQ-043).
    pub entry_hash: Hash,
    /// Its opening entry's position; the closing one of the epoch before.
    pub opening_seq: LogSeq,
    /// `s` of its opening commit; of a `Create`, the fence.
    pub opening_s: RosterSeq,
}

/// What the appender of a record was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct AppendedRecord {
    /// Position in the log.
    pub seq: LogSeq,
    /// The fence stamped on it.
    pub fence: RosterSeq,
}

/// How many inboxes still refer to a Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct WelcomeLeftRecord {
    /// At 0 the Welcome is deleted.
    pub left: u64,
}

/// An item of a device's inbox, by reference: Welcome and commit are stored once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct InboxRecord {
    /// The group.
    pub group: GroupId,
    /// The commit's position in the group's log.
    pub commit_seq: LogSeq,
    /// Which of the commit's Welcomes.
    pub welcome: u32,
    /// The hash of the log before the commit (REQ-390).
    pub log_hash: Hash,
}

/// Where a device's next inbox item goes; never lowered, so that a cursor stays a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct InboxNextRecord {
    /// From 1.
    pub next: u64,
}

/// That a device has attested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct AttestedRecord {
    /// When it first did, relay's clock, ms since 1970.
    pub at_ms: u64,
    /// Where in the group's log.
    pub seq: LogSeq,
}

/// That an order was carried out (REQ-179).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct OrderedRecord {
    /// When the relay appended it, relay's clock, ms since 1970.
    pub at_ms: u64,
    /// How many connections of its devices were closed with that.
    pub closed: u32,
}

pub(super) fn of_org(org: OrgId, n: u64) -> Vec<u8> {
    [&org.0[..], &n.to_be_bytes()].concat()
}

pub(super) fn of_device(org: OrgId, device: DeviceId) -> Vec<u8> {
    [&org.0[..], &device.0].concat()
}

pub(super) fn of_suite(org: OrgId, device: DeviceId, suite: u16) -> Vec<u8> {
    [&org.0[..], &device.0, &suite.to_be_bytes()].concat()
}

pub(super) fn of_group(group: GroupId, n: u64) -> Vec<u8> {
    [&group.0[..], &n.to_be_bytes()].concat()
}

pub(super) fn of_org_group(org: OrgId, group: GroupId) -> Vec<u8> {
    [&org.0[..], &group.0].concat()
}

pub(super) fn of_resync(group: GroupId, device: DeviceId) -> Vec<u8> {
    [&group.0[..], &device.0].concat()
}

pub(super) fn of_resync_group(org: OrgId, device: DeviceId, group: GroupId) -> Vec<u8> {
    [&of_device(org, device)[..], &group.0].concat()
}

pub(super) fn of_record(group: GroupId, record: Hash, device: DeviceId) -> Vec<u8> {
    [&group.0[..], &record.0, &device.0].concat()
}

pub(super) fn of_welcome(item: &InboxRecord) -> Vec<u8> {
    let mut key = of_group(item.group, item.commit_seq.0);
    key.extend_from_slice(&item.welcome.to_be_bytes());
    key
}

pub(super) fn of_receipt(org: OrgId, order: RosterSeq, group: GroupId) -> Vec<u8> {
    [&of_org(org, order.0)[..], &group.0].concat()
}

/// What an attestation's key says after the order.
#[derive(Clone, Copy, Debug, TlsSerialize, TlsDeserialize, TlsSize)]
pub(super) struct AttestationKey {
    pub(super) group: GroupId,
    pub(super) device: DeviceId,
    pub(super) verdict: Verdict,
}

impl AttestationKey {
    const BYTES: usize = 32 + 16 + 1;

    pub(super) fn of(&self, org: OrgId, order: RosterSeq) -> Vec<u8> {
        [of_org(org, order.0), encode(self)].concat()
    }

    pub(super) fn read(key: &[u8]) -> Result<Self, StoreError> {
        decode(&key_tail::<{ Self::BYTES }>(key)?).map_err(|_| DAMAGED)
    }
}

pub(super) const DAMAGED: StoreError = StoreError::Corrupt {
    reason: "a row of the relay does not decode",
};

/// The last `N` bytes of a key.
pub(super) fn key_tail<const N: usize>(key: &[u8]) -> Result<[u8; N], StoreError> {
    key.last_chunk().copied().ok_or(DAMAGED)
}

/// A record, if there is one.
pub(super) fn load<T: Deserialize>(
    tx: &Tx<'_>,
    space: Space,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    tx.get(space, key)?.map(|row| read(&row)).transpose()
}

/// A record that another row says must be there.
pub(super) fn load_existing<T: Deserialize>(
    tx: &Tx<'_>,
    space: Space,
    key: &[u8],
) -> Result<T, StoreError> {
    load(tx, space, key)?.ok_or(DAMAGED)
}

/// A record from a row's value.
pub(super) fn read<T: Deserialize>(row: &[u8]) -> Result<T, StoreError> {
    decode(read_bytes(row)?).map_err(|_| DAMAGED)
}

pub(super) fn save<T: Serialize>(tx: &Tx<'_>, space: Space, key: impl Into<Vec<u8>>, record: &T) {
    tx.put(space, key, row_of(record));
}

/// Saves under a key that another row says is free.
pub(super) fn save_new<T: Serialize>(
    tx: &Tx<'_>,
    space: Space,
    key: impl Into<Vec<u8>>,
    record: &T,
) {
    tx.put_new(space, key, row_of(record));
}

/// A record as a row's value, written once.
fn row_of<T: Serialize>(record: &T) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + record.tls_serialized_len());
    row.push(ROW_VERSION);
    record
        .tls_serialize(&mut row)
        .expect("writing into memory fails only for vectors of 2^30 bytes, which no limit admits");
    row
}

/// Somebody else's bytes, if there are any.
pub(super) fn load_bytes(
    tx: &Tx<'_>,
    space: Space,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    tx.get(space, key)?
        .map(|row| read_bytes(&row).map(<[u8]>::to_vec))
        .transpose()
}

/// Somebody else's bytes from a row's value.
pub(super) fn read_bytes(row: &[u8]) -> Result<&[u8], StoreError> {
    match row.split_first() {
        Some((&ROW_VERSION, bytes)) => Ok(bytes),
        _ => Err(DAMAGED),
    }
}

pub(super) fn save_bytes(tx: &Tx<'_>, space: Space, key: impl Into<Vec<u8>>, bytes: &[u8]) {
    tx.put(space, key, [&[ROW_VERSION], bytes].concat());
}

/// A record of a group's log that must be there: the log has no gaps.
pub(super) fn load_log(tx: &Tx<'_>, group: GroupId, seq: LogSeq) -> Result<LogRecord, StoreError> {
    load_existing(tx, LOG, &of_group(group, seq.0))
}

/// So many records of a group's log from `from` on, all of which must be there.
pub(super) fn load_logs(
    tx: &Tx<'_>,
    group: GroupId,
    from: LogSeq,
    count: usize,
) -> Result<Vec<LogRecord>, StoreError> {
    let rows = tx.scan_from(LOG, &group.0, &of_group(group, from.0), count)?;
    let mut records = Vec::with_capacity(rows.len());
    let mut expected = from;
    for (_, row) in rows {
        let record: LogRecord = read(&row)?;
        if record.seq != expected {
            return Err(DAMAGED);
        }
        expected = expected.next();
        records.push(record);
    }
    if records.len() == count {
        Ok(records)
    } else {
        Err(DAMAGED)
    }
}
