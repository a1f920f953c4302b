//! Frames between device and relay: TLS presentation language, sizes, refusals (REQ-040 to REQ-049).
//!
//! A frame is `uint32 length; opaque body[length]`. The length is checked before anything is allocated.
//! This module must never interpret what is encrypted.

pub mod aad;
mod close;
mod frame;
pub mod limits;
pub mod log;
pub mod merkle;
mod order;
mod receipt;
pub mod restart;

pub use crate::roster::{Checkpoint, Head as RosterHead};
pub use close::CloseCode;
pub use frame::{FRAME_HEADER_BYTES, FrameError, decode_frame_length, encode_frame};
pub use log::{AccessProof, Attestation, ConnectionBinding, LogRecord, Purpose, RecordBody};
pub use order::{
    Attested, OrderGroupState, OrderSet, OrderState, SignedOrderSet, SignedOrderState, chain_hash,
    set_tree, state_tree,
};
pub use receipt::{Receipt, ReceiptFor, ReceiptId, ReceiptStatement, SealedReceipt, open_receipt};

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use crate::identity::{DeviceId, Epoch, GroupId, Hash, LogSeq, OrgId, PublicKey, RosterSeq, Slot};

/// The protocol on the wire (TLS ALPN).
pub const ALPN: &[u8] = b"mortise/1";

/// A boolean on the wire: 0 or 1, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum Flag {
    /// false
    No = 0,
    /// true
    Yes = 1,
}

impl From<bool> for Flag {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

impl From<Flag> for bool {
    fn from(flag: Flag) -> Self {
        flag == Flag::Yes
    }
}

/// Matches an answer to its question; chosen by the device, unique on its connection.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, TlsSerialize, TlsDeserialize, TlsSize,
)]
pub struct RequestId(pub u64);

/// What a device sends.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct ClientToRelay {
    /// Chosen by the device.
    pub id: RequestId,
    /// The question.
    pub request: Request,
}

/// Every question that a device may ask. Discriminants are spaced by topic and leave room.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u16)]
pub enum Request {
    /// First on a connection: names the organisation. Pushes go to the stream that carried it.
    #[tls_codec(discriminant = 0x0001)]
    Hello {
        /// The organisation.
        org: OrgId,
        /// The newest roster entry that the device holds; 0 for none.
        roster_seq: RosterSeq,
    },

    /// Founds the organisation with the relay's one-time claim token.
    #[tls_codec(discriminant = 0x0101)]
    Found {
        /// The token that the relay printed.
        claim_token: VLByteVec,
        /// The Genesis entry.
        entry: VLByteVec,
    },
    /// Roster entries after `after`. Somebody not admitted gets the one entry at `after + 1` only.
    #[tls_codec(discriminant = 0x0102)]
    FetchRoster {
        /// The newest entry that the device holds.
        after: RosterSeq,
    },
    /// Appends a signed roster entry (compare-and-swap on its own seq and prev_hash).
    #[tls_codec(discriminant = 0x0103)]
    AppendRoster {
        /// The signed entry.
        entry: VLByteVec,
        /// With a new directory key: that key for the other devices, stored in the same transaction (REQ-101).
        slots: Vec<Slot>,
    },
    /// Leaves slots of the directory key for other devices.
    #[tls_codec(discriminant = 0x0104)]
    PutSlots {
        /// One per device.
        slots: Vec<Slot>,
    },
    /// The slots for this device.
    #[tls_codec(discriminant = 0x0105)]
    FetchSlots,
    /// The devices that nobody has left a slot of the newest directory key for (REQ-101).
    #[tls_codec(discriminant = 0x0106)]
    FetchSlotless,
    /// States what this owner's or admin's device holds for the newest entry (REQ-105).
    #[tls_codec(discriminant = 0x0107)]
    PutCheckpoint {
        /// The statement.
        checkpoint: Checkpoint,
    },
    /// The newest checkpoint of each signer (REQ-105).
    #[tls_codec(discriminant = 0x0108)]
    FetchCheckpoints,

    /// Stocks KeyPackages for others to claim.
    #[tls_codec(discriminant = 0x0201)]
    PublishKeyPackages {
        /// The MLS ciphersuite that they are for.
        suite: u16,
        /// Each is claimed once.
        one_time: Vec<VLByteVec>,
        /// Handed out when no other is left; replaces the earlier one. Empty vector: keep the earlier one.
        last_resort: VLByteVec,
    },
    /// Takes one KeyPackage for each of these devices.
    #[tls_codec(discriminant = 0x0202)]
    ClaimKeyPackages {
        /// The MLS ciphersuite.
        suite: u16,
        /// Whose.
        devices: Vec<DeviceId>,
    },

    /// Creates a group's log.
    #[tls_codec(discriminant = 0x0301)]
    CreateGroup {
        /// Random; refused if it exists.
        group: GroupId,
        /// An encoded [`RecordBody::Create`].
        payload: VLByteVec,
    },
    /// Appends a record to a group's log.
    #[tls_codec(discriminant = 0x0302)]
    Submit(Submission),
    /// Asks for the records of one epoch after `after`, and for later ones as they come, `credit` in all.
    ///
    /// Replaces the connection's earlier subscription to the group. Ends with the epoch's closing commit.
    #[tls_codec(discriminant = 0x0303)]
    Subscribe {
        /// The group.
        group: GroupId,
        /// The epoch whose key is proven.
        epoch: Epoch,
        /// The newest record that the device holds.
        after: LogSeq,
        /// How many records may be pushed, at most [`limits::MAX_CREDIT`].
        credit: u32,
        /// Proof for [`Purpose::Read`].
        proof: AccessProof,
    },

    /// Asks the members of a group to let this device in anew (REQ-156); replaces its earlier question.
    #[tls_codec(discriminant = 0x0304)]
    AskResync {
        /// The group.
        group: GroupId,
        /// A KeyPackage whose leaf says that it is for this.
        key_package: VLByteVec,
    },

    /// Welcomes for this device after `after`.
    #[tls_codec(discriminant = 0x0401)]
    FetchInbox {
        /// The newest item that the device has dealt with; those up to it are deleted.
        after: u64,
    },

    /// The state of every group with regard to an order.
    #[tls_codec(discriminant = 0x0501)]
    OrderStatus {
        /// The order.
        order: RosterSeq,
    },
    /// What the relay states about an order, signed, and what it rests on (REQ-173).
    #[tls_codec(discriminant = 0x0502)]
    OrderState {
        /// The order.
        order: RosterSeq,
    },
    /// Proof that a group is in the order's set (REQ-172); for who subscribes to it.
    #[tls_codec(discriminant = 0x0503)]
    OrderProof {
        /// The order.
        order: RosterSeq,
        /// The group.
        group: GroupId,
    },
    /// Leaves a receipt for owners and auditors (REQ-175).
    #[tls_codec(discriminant = 0x0504)]
    PutReceipt {
        /// The receipt; it names this device.
        receipt: SealedReceipt,
    },
    /// The receipts about an order that are sealed to this device, after one of them.
    #[tls_codec(discriminant = 0x0505)]
    FetchReceipts {
        /// The order.
        order: RosterSeq,
        /// The group of the last one that the device has; zeros for none.
        after_group: GroupId,
        /// Its signer; zeros for none.
        after_device: DeviceId,
    },
}

/// A record on its way into a group's log.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Submission {
    /// The group.
    pub group: GroupId,
    /// The epoch that it was made in.
    pub epoch: Epoch,
    /// The encoded [`RecordBody`].
    pub payload: VLByteVec,
    /// For a commit that adds devices: what they need, stored in the same transaction.
    pub welcomes: Vec<WelcomeFor>,
    /// Proof for [`Purpose::Append`].
    pub proof: AccessProof,
}

/// A Welcome and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct WelcomeFor {
    /// The devices that it adds.
    pub devices: Vec<DeviceId>,
    /// The MLSMessage with the Welcome, ratchet tree included.
    pub welcome: VLByteVec,
}

/// A Welcome as it waits for a device, with the commit entry that it came with (REQ-053).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct InboxItem {
    /// Position in this device's inbox.
    pub seq: u64,
    /// The group.
    pub group: GroupId,
    /// The MLSMessage with the Welcome.
    pub welcome: VLByteVec,
    /// The record of the commit that added the device; its epoch is the one before the Welcome's.
    pub entry: LogRecord,
    /// The hash of the log before that record: where the joiner's cursor goes on from (REQ-390).
    pub log_hash: Hash,
}

/// What the relay sends.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum RelayToClient {
    /// The answer to one question.
    #[tls_codec(discriminant = 1)]
    Response {
        /// Whose answer.
        id: RequestId,
        /// The answer.
        response: Response,
    },
    /// Something that happened.
    #[tls_codec(discriminant = 2)]
    Push(Push),
}

/// Every answer.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u16)]
pub enum Response {
    /// The question was refused.
    #[tls_codec(discriminant = 0x0000)]
    Refused(Refusal),
    /// To `Hello`.
    #[tls_codec(discriminant = 0x0001)]
    Hello {
        /// The roster's head.
        head: RosterHead,
        /// Whether the connection's key belongs to an admitted device.
        admitted: Flag,
        /// The relay's statement key.
        statement_key: PublicKey,
        /// The relay's clock, ms since 1970.
        now_ms: u64,
        /// One-time KeyPackages left for this device, over all suites.
        key_packages_left: u32,
        /// Whether a last-resort KeyPackage is stocked.
        has_last_resort: Flag,
        /// Whether Welcomes are waiting.
        inbox_waiting: Flag,
    },
    /// Done; nothing to say.
    #[tls_codec(discriminant = 0x0002)]
    Done,
    /// To `Found` and `AppendRoster`: the head after it.
    #[tls_codec(discriminant = 0x0101)]
    RosterAppended {
        /// The roster's head.
        head: RosterHead,
    },
    /// To `FetchRoster`.
    #[tls_codec(discriminant = 0x0102)]
    Roster {
        /// Signed entries in order.
        entries: Vec<VLByteVec>,
        /// The roster's head, for progress.
        head: RosterHead,
    },
    /// To `FetchSlots`.
    #[tls_codec(discriminant = 0x0105)]
    Slots {
        /// The slots.
        slots: Vec<Slot>,
    },
    /// To `FetchSlotless`, as many as a `PutSlots` can serve.
    #[tls_codec(discriminant = 0x0106)]
    Slotless {
        /// Admitted devices.
        devices: Vec<DeviceId>,
    },
    /// To `FetchCheckpoints`.
    #[tls_codec(discriminant = 0x0108)]
    Checkpoints {
        /// One per signer, the newest first.
        checkpoints: Vec<Checkpoint>,
    },
    /// To `ClaimKeyPackages`: one per device that had any, in the order asked.
    #[tls_codec(discriminant = 0x0202)]
    KeyPackages {
        /// Device and its KeyPackage.
        packages: Vec<ClaimedKeyPackage>,
    },
    /// To `CreateGroup` and `Submit`: durable, at this position.
    #[tls_codec(discriminant = 0x0302)]
    Appended {
        /// Position in the log.
        seq: LogSeq,
        /// The fence stamped on it.
        fence: RosterSeq,
    },
    /// To `Subscribe`: where the epoch and the log end now.
    #[tls_codec(discriminant = 0x0303)]
    Subscribed {
        /// The newest record in the log.
        head_seq: LogSeq,
        /// The newest epoch.
        head_epoch: Epoch,
        /// The newest record that this epoch's key opens, a Restart aside.
        last_readable: LogSeq,
        /// The newest epoch that somebody other than its committer has proven; a hint (REQ-154).
        confirmed_epoch: Epoch,
    },
    /// To `FetchInbox`.
    #[tls_codec(discriminant = 0x0401)]
    Inbox {
        /// Oldest first.
        items: Vec<InboxItem>,
        /// Whether there are more.
        more: Flag,
    },
    /// To `OrderStatus`.
    #[tls_codec(discriminant = 0x0501)]
    OrderStatus {
        /// When the relay appended the order, relay's clock, ms since 1970: from then on it is the fence.
        appended_at_ms: u64,
        /// How many connections of the order's devices it closed with that.
        closed: u32,
        /// A row per group that existed when the order was given.
        groups: Vec<GroupStatus>,
    },
    /// To `OrderState`.
    #[tls_codec(discriminant = 0x0502)]
    OrderState {
        /// What the relay states.
        state: Box<SignedOrderState>,
        /// Every group of the order's set, by ascending id.
        groups: Vec<OrderGroupState>,
        /// The attestations that the rows name, in the same order.
        attestations: Vec<Attestation>,
    },
    /// To `OrderProof`.
    #[tls_codec(discriminant = 0x0503)]
    OrderProof {
        /// The order's set.
        set: SignedOrderSet,
        /// The group's place in it.
        index: u32,
        /// Its audit path, from the bottom up.
        path: Vec<Hash>,
    },
    /// To `FetchReceipts`, by group and signer.
    #[tls_codec(discriminant = 0x0505)]
    Receipts {
        /// Each with the one copy that is for this device.
        receipts: Vec<SealedReceipt>,
        /// Whether there are more.
        more: Flag,
    },
}

/// A KeyPackage that was claimed.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct ClaimedKeyPackage {
    /// Whose.
    pub device: DeviceId,
    /// The MLSMessage with the KeyPackage.
    pub key_package: VLByteVec,
}

/// How a group stands with regard to an order (REQ-065).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum GroupState {
    /// Nobody has been online; nothing can be sent there before somebody was.
    Sealed = 0,
    /// A removal commit was accepted.
    Rotated = 1,
    /// A named device states that the tree holds no leaf of the user.
    Clean = 2,
    /// The log has ended with a Restart: nothing is ever sent there again.
    Ended = 3,
}

/// One group's row in an order's status.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Its state.
    pub state: GroupState,
    /// Devices that attested.
    pub attested_by: Vec<DeviceId>,
    /// When the first attestation was appended, relay's clock, ms since 1970; 0 for none.
    pub at_ms: u64,
    /// When the first epoch that was attested as rotated was opened, relay's clock, ms since 1970; 0 for none.
    pub rotated_at_ms: u64,
    /// When a device of a second user attested, relay's clock, ms since 1970; 0 for not yet.
    pub confirmed_at_ms: u64,
}

/// Where a group's log stood at an order (REQ-061).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct OrderPosition {
    /// A group that this connection subscribes to.
    pub group: GroupId,
    /// The log's newest record when the order was appended; every later one has its fence.
    pub seq: LogSeq,
    /// Whether this device is asked to commit the removal first (REQ-063).
    pub lease: Flag,
}

/// Everything that the relay says unasked, on the stream that carried `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u16)]
pub enum Push {
    /// A roster entry was appended.
    #[tls_codec(discriminant = 0x0101)]
    RosterEntry {
        /// The signed entry.
        entry: VLByteVec,
        /// For an order: where the subscribed groups stood.
        positions: Vec<OrderPosition>,
    },
    /// A slot for this device was left.
    #[tls_codec(discriminant = 0x0105)]
    SlotsWaiting,
    /// Somebody has stated the newest entry.
    #[tls_codec(discriminant = 0x0107)]
    Checkpoint {
        /// The statement.
        checkpoint: Checkpoint,
    },
    /// Few one-time KeyPackages are left.
    #[tls_codec(discriminant = 0x0201)]
    KeyPackagesLow {
        /// How many.
        left: u32,
    },
    /// Records of a subscribed group, in order.
    #[tls_codec(discriminant = 0x0303)]
    Records {
        /// The group.
        group: GroupId,
        /// In order, without a gap.
        records: Vec<LogRecord>,
    },
    /// A device asks the members to let it in anew.
    #[tls_codec(discriminant = 0x0304)]
    ResyncAsked {
        /// The group.
        group: GroupId,
        /// Who asks.
        device: DeviceId,
        /// The KeyPackage that it gave.
        key_package: VLByteVec,
    },
    /// A Welcome is waiting.
    #[tls_codec(discriminant = 0x0401)]
    InboxWaiting,
}

/// Why the relay refuses, with what the device needs to recover (REQ-047).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u16)]
#[non_exhaustive]
pub enum Refusal {
    /// The frame does not decode, or is not allowed here.
    #[error("MALFORMED: the relay could not read the request")]
    #[tls_codec(discriminant = 0x0001)]
    Malformed,
    /// Over a limit.
    #[error("TOO_LARGE: over the limit of {limit}")]
    #[tls_codec(discriminant = 0x0002)]
    TooLarge {
        /// The limit, bytes or items.
        limit: u64,
    },
    /// `Hello` must come first.
    #[error("HELLO_FIRST: the connection has not said which organisation it is for")]
    #[tls_codec(discriminant = 0x0003)]
    HelloFirst,
    /// The relay's disk is full or its store failed; nothing was changed.
    #[error("STORAGE: the relay cannot store anything now")]
    #[tls_codec(discriminant = 0x0004)]
    Storage,

    /// The connection's key is not an admitted device's.
    #[error("NOT_ADMITTED: this device is not admitted to the organisation")]
    #[tls_codec(discriminant = 0x0101)]
    NotAdmitted,
    /// The relay does not host this organisation.
    #[error("UNKNOWN_ORG: the relay does not host this organisation")]
    #[tls_codec(discriminant = 0x0102)]
    UnknownOrg,
    /// The claim token is wrong or was used.
    #[error("CLAIM_TOKEN: the claim token is wrong or was used")]
    #[tls_codec(discriminant = 0x0103)]
    ClaimToken,
    /// The entry does not follow the head.
    #[error("ROSTER_CONFLICT: the roster has moved on to entry {}", head.seq)]
    #[tls_codec(discriminant = 0x0104)]
    RosterConflict {
        /// The head to sign against.
        head: RosterHead,
    },
    /// The entry breaks a rule of the roster.
    #[error("ROSTER_RULE: the entry breaks rule {code}")]
    #[tls_codec(discriminant = 0x0105)]
    RosterRule {
        /// `RosterError::code`.
        code: u16,
    },
    /// The entry's time is not the relay's.
    #[error("CLOCK: the device's clock is off; the relay's says {now_ms} ms since 1970")]
    #[tls_codec(discriminant = 0x0106)]
    Clock {
        /// The relay's clock.
        now_ms: u64,
    },
    /// The device's role does not allow this.
    #[error("FORBIDDEN: this role may not do that")]
    #[tls_codec(discriminant = 0x0107)]
    Forbidden,
    /// Too many roster entries by this user (REQ-107).
    #[error("RATE_LIMITED: too many changes; try again in {} s", retry_after_ms.div_ceil(1_000))]
    #[tls_codec(discriminant = 0x0108)]
    RateLimited {
        /// How long to wait, ms.
        retry_after_ms: u64,
    },

    /// No such group, or not in this organisation.
    #[error("UNKNOWN_GROUP: no such group")]
    #[tls_codec(discriminant = 0x0301)]
    UnknownGroup,
    /// The group id is taken.
    #[error("GROUP_EXISTS: the group id is taken")]
    #[tls_codec(discriminant = 0x0302)]
    GroupExists,
    /// The proof of the epoch's access key does not hold.
    #[error("ACCESS_DENIED: the epoch's access key was not proven")]
    #[tls_codec(discriminant = 0x0303)]
    AccessDenied,
    /// The log is in another epoch.
    #[error("WRONG_EPOCH: the log is in epoch {head_epoch}")]
    #[tls_codec(discriminant = 0x0304)]
    WrongEpoch {
        /// The log's epoch.
        head_epoch: Epoch,
        /// The log's newest record.
        head_seq: LogSeq,
    },
    /// `s` is below the fence or below the epoch's opening commit's.
    #[error("ROSTER_BEHIND: the message is based on a roster before entry {at_least}")]
    #[tls_codec(discriminant = 0x0305)]
    RosterBehind {
        /// What `s` must at least be.
        at_least: RosterSeq,
        /// The roster's head.
        head_seq: RosterSeq,
    },
    /// `s` is beyond the head, or the hash is not the chain's at `s`: one of the two is lying (REQ-048).
    #[error("ROSTER_FORK: the message names a roster that is not the relay's")]
    #[tls_codec(discriminant = 0x0306)]
    RosterFork,
    /// The roster has closed the group (REQ-102).
    #[error("GROUP_CLOSED: an administrator has closed the group")]
    #[tls_codec(discriminant = 0x0307)]
    GroupClosed,
    /// The log has ended with a Restart.
    #[error("GROUP_RESTARTED: the conversation goes on in another group")]
    #[tls_codec(discriminant = 0x0308)]
    GroupRestarted {
        /// Where the Restart is in the log.
        seq: LogSeq,
    },
    /// The order is unknown.
    #[error("UNKNOWN_ORDER: there is no order at that roster entry")]
    #[tls_codec(discriminant = 0x0501)]
    UnknownOrder,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{decode, encode};

    /// REQ-041: every kind of frame decodes to what was encoded; truncated or longer ones are refused.
    #[test]
    fn frames_read_back_and_nothing_else_does() {
        let frames = [
            ClientToRelay {
                id: RequestId(1),
                request: Request::FetchSlots,
            },
            ClientToRelay {
                id: RequestId(2),
                request: Request::Submit(Submission {
                    group: GroupId([1; 32]),
                    epoch: Epoch(2),
                    payload: vec![1, 2, 3].into(),
                    welcomes: vec![WelcomeFor {
                        devices: vec![DeviceId([3; 16])],
                        welcome: vec![4].into(),
                    }],
                    proof: AccessProof {
                        entry_hash: Hash([5; 32]),
                        signature: crate::identity::Signature([6; 64]),
                    },
                }),
            },
        ];
        for frame in frames {
            let bytes = encode(&frame);
            assert_eq!(decode::<ClientToRelay>(&bytes).as_ref(), Ok(&frame));
            for cut in 0..bytes.len() {
                assert!(decode::<ClientToRelay>(&bytes[..cut]).is_err());
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(decode::<ClientToRelay>(&longer).is_err());
        }
    }

    #[test]
    fn an_unknown_request_is_refused() {
        assert!(decode::<ClientToRelay>(&[0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).is_err());
    }
}
