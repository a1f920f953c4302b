//! A frame of every type, and bytes that are none: sections 4.1, 8, 9.1 and 14.

use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, LogSeq, OrgId, PublicKey, RosterSeq, Sealed, Signature, Slot,
    encode,
};
use mortise_protocol::wire::log::{AttestationStatement, Verdict};
use mortise_protocol::wire::{
    AccessProof, Attestation, Attested, Checkpoint, ClaimedKeyPackage, ClientToRelay, Flag,
    GroupState, GroupStatus, InboxItem, LogRecord, OrderGroupState, OrderPosition, OrderSet,
    OrderState, Push, ReceiptFor, ReceiptId, RecordBody, Refusal, RelayToClient, Request,
    RequestId, Response, RosterHead, SealedReceipt, SignedOrderSet, SignedOrderState, Submission,
    WelcomeFor, encode_frame, limits,
};
use serde_json::{Value, json};
use tls_codec::{Serialize, VLByteVec};

use super::fields::{Fields, name_of};
use super::hex;

const GROUP: GroupId = GroupId([0x67; 32]);
const DEVICE: DeviceId = DeviceId([0xd1; 16]);
const OTHER: DeviceId = DeviceId([0xd2; 16]);
const HEAD: RosterHead = RosterHead {
    seq: RosterSeq(9),
    hash: Hash([0x4a; 32]),
};
const PROOF: AccessProof = AccessProof {
    entry_hash: Hash([0xe4; 32]),
    signature: Signature([0x51; 64]),
};

pub(super) fn vectors() -> Value {
    json!({
        "client_to_relay": requests()
            .into_iter()
            .zip(1..)
            .map(|(request, id)| frame(&ClientToRelay { id: RequestId(id), request }))
            .collect::<Value>(),
        "relay_to_client": answers()
            .into_iter()
            .zip(1..)
            .map(|(response, id)| RelayToClient::Response { id: RequestId(id), response })
            .chain(pushes().into_iter().map(RelayToClient::Push))
            .map(|message| frame(&message))
            .collect::<Value>(),
        "refused": refused(),
        "refused_lengths": refused_lengths(),
    })
}

fn frame<T: Serialize + Fields>(value: &T) -> Value {
    json!({ "frame": hex(encode_frame(value)), "fields": value.fields() })
}

fn bytes(text: &str) -> VLByteVec {
    text.as_bytes().to_vec().into()
}

/// Long enough for a length of two bytes, and one of four.
fn long(length: usize) -> VLByteVec {
    vec![0x6c; length].into()
}

fn slot() -> Slot {
    Slot {
        device: DEVICE,
        filler: OTHER,
        generation: RosterSeq(7),
        enc: vec![0xec; 32].into(),
        ciphertext: vec![0xc7; 48].into(),
    }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        org: OrgId([0x0a; 32]),
        head: HEAD,
        issued_at_ms: 1_800_000_000_000,
        device: DEVICE,
        signature: Signature([0x51; 64]),
    }
}

fn requests() -> Vec<Request> {
    vec![
        Request::Hello {
            org: OrgId([0x0a; 32]),
            roster_seq: RosterSeq(0),
        },
        Request::Hello {
            org: OrgId([0xff; 32]),
            roster_seq: RosterSeq(u64::MAX),
        },
        Request::Found {
            claim_token: vec![0x70; 32].into(),
            entry: bytes("an entry"),
        },
        Request::FetchRoster {
            after: RosterSeq(256),
        },
        Request::AppendRoster {
            entry: long(64),
            slots: Vec::new(),
        },
        Request::AppendRoster {
            entry: long(64),
            slots: vec![slot()],
        },
        Request::PutSlots {
            slots: vec![slot(), slot()],
        },
        Request::FetchSlots,
        Request::FetchSlotless,
        Request::PutCheckpoint {
            checkpoint: checkpoint(),
        },
        Request::FetchCheckpoints,
        Request::PublishKeyPackages {
            suite: 0x004f,
            one_time: vec![bytes("a KeyPackage"), bytes("another")],
            last_resort: Vec::new().into(),
        },
        Request::ClaimKeyPackages {
            suite: 0x0001,
            devices: vec![DEVICE, OTHER],
        },
        Request::CreateGroup {
            group: GROUP,
            payload: encode(&RecordBody::Create {
                access_key: PublicKey([0xac; 32]),
            })
            .into(),
        },
        Request::Submit(Submission {
            group: GROUP,
            epoch: Epoch(3),
            payload: long(16_384),
            welcomes: vec![WelcomeFor {
                devices: vec![DEVICE],
                welcome: bytes("a Welcome"),
            }],
            proof: PROOF,
        }),
        Request::Subscribe {
            group: GROUP,
            epoch: Epoch(3),
            after: LogSeq(17),
            credit: limits::MAX_CREDIT,
            proof: PROOF,
        },
        Request::AskResync {
            group: GROUP,
            key_package: bytes("a KeyPackage"),
        },
        Request::FetchInbox { after: 5 },
        Request::OrderStatus {
            order: RosterSeq(9),
        },
        Request::OrderState {
            order: RosterSeq(9),
        },
        Request::OrderProof {
            order: RosterSeq(9),
            group: GROUP,
        },
        Request::PutReceipt {
            receipt: sealed_receipt(),
        },
        Request::FetchReceipts {
            order: RosterSeq(9),
            after_group: GROUP,
            after_device: DEVICE,
        },
    ]
}

fn sealed_receipt() -> SealedReceipt {
    SealedReceipt {
        id: ReceiptId {
            order: RosterSeq(9),
            group: GROUP,
            device: DEVICE,
        },
        copies: vec![ReceiptFor {
            recipient: OTHER,
            sealed: Sealed {
                enc: vec![0xec; 32].into(),
                ciphertext: vec![0xc7; 300].into(),
            },
        }],
    }
}

fn order_set() -> SignedOrderSet {
    SignedOrderSet {
        set: OrderSet {
            org: OrgId([0x0a; 32]),
            order_seq: RosterSeq(9),
            order_hash: HEAD.hash,
            count: 2,
            root: Hash([0x70; 32]),
        },
        signature: Signature([0x51; 64]),
    }
}

fn order_state() -> SignedOrderState {
    SignedOrderState {
        state: OrderState {
            org: OrgId([0x0a; 32]),
            order_seq: RosterSeq(9),
            order_hash: HEAD.hash,
            appended_at_ms: 1_800_000_000_000,
            closed: 2,
            head: HEAD,
            chain: Hash([0xca; 32]),
            count: 2,
            set_root: Hash([0x70; 32]),
            root: Hash([0x71; 32]),
            at_ms: 1_800_000_000_003,
        },
        signature: Signature([0x51; 64]),
    }
}

fn group_state(state: GroupState) -> OrderGroupState {
    let attested = Attested {
        device: DEVICE,
        verdict: Verdict::Clean,
        epoch: Epoch(3),
        entry_hash: Hash([0xe4; 32]),
        access_key: PublicKey([0xac; 32]),
        opened_at_ms: 1_800_000_000_000,
        at_ms: 1_800_000_000_001,
    };
    OrderGroupState {
        group: GROUP,
        state,
        epoch: Epoch(4),
        entry_hash: Hash([0xe5; 32]),
        attested: vec![attested],
    }
}

fn attestation() -> Attestation {
    Attestation {
        statement: AttestationStatement {
            order_seq: RosterSeq(9),
            order_hash: HEAD.hash,
            group: GROUP,
            entry_hash: Hash([0xe4; 32]),
            epoch: Epoch(3),
            roster_seq: HEAD.seq,
            roster_hash: HEAD.hash,
            verdict: Verdict::Clean,
            device: DEVICE,
        },
        device_signature: Signature([0x51; 64]),
        access_signature: Signature([0x52; 64]),
    }
}

fn record() -> LogRecord {
    LogRecord {
        seq: LogSeq(18),
        epoch: Epoch(3),
        fence: RosterSeq(9),
        at_ms: 1_800_000_000_000,
        payload: bytes("a payload"),
    }
}

fn answers() -> Vec<Response> {
    let mut all = vec![
        Response::Hello {
            head: HEAD,
            admitted: Flag::Yes,
            statement_key: PublicKey([0x57; 32]),
            now_ms: 1_800_000_000_000,
            key_packages_left: 100,
            has_last_resort: Flag::Yes,
            inbox_waiting: Flag::No,
        },
        Response::Done,
        Response::RosterAppended { head: HEAD },
        Response::Roster {
            entries: vec![bytes("an entry"), bytes("another")],
            head: HEAD,
        },
        Response::Roster {
            entries: Vec::new(),
            head: HEAD,
        },
        Response::Slots {
            slots: vec![slot()],
        },
        Response::Slotless {
            devices: vec![DEVICE, OTHER],
        },
        Response::Checkpoints {
            checkpoints: vec![checkpoint()],
        },
        Response::KeyPackages {
            packages: vec![ClaimedKeyPackage {
                device: DEVICE,
                key_package: bytes("a KeyPackage"),
            }],
        },
        Response::Appended {
            seq: LogSeq(18),
            fence: RosterSeq(9),
        },
        Response::Subscribed {
            head_seq: LogSeq(20),
            head_epoch: Epoch(4),
            last_readable: LogSeq(18),
            confirmed_epoch: Epoch(3),
        },
        Response::Inbox {
            items: vec![InboxItem {
                seq: 6,
                group: GROUP,
                welcome: bytes("a Welcome"),
                entry: record(),
                log_hash: Hash([0xe5; 32]),
            }],
            more: Flag::Yes,
        },
        Response::OrderStatus {
            appended_at_ms: 1_800_000_000_000,
            closed: 2,
            groups: [GroupState::Sealed, GroupState::Rotated, GroupState::Clean]
                .into_iter()
                .zip([vec![], vec![DEVICE], vec![DEVICE, OTHER]])
                .map(|(state, attested_by)| GroupStatus {
                    group: GROUP,
                    state,
                    at_ms: attested_by.len() as u64 * 1_800_000_000_000,
                    rotated_at_ms: 1_800_000_000_001,
                    confirmed_at_ms: 1_800_000_000_002,
                    attested_by,
                })
                .collect(),
        },
        Response::OrderState {
            state: Box::new(order_state()),
            groups: vec![
                group_state(GroupState::Ended),
                group_state(GroupState::Clean),
            ],
            attestations: vec![attestation()],
        },
        Response::OrderProof {
            set: order_set(),
            index: 1,
            path: vec![Hash([0x9a; 32]), Hash([0x9b; 32])],
        },
        Response::Receipts {
            receipts: vec![sealed_receipt()],
            more: Flag::Yes,
        },
    ];
    all.extend(refusals().into_iter().map(Response::Refused));
    all
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::Malformed,
        Refusal::TooLarge { limit: 65_536 },
        Refusal::HelloFirst,
        Refusal::Storage,
        Refusal::NotAdmitted,
        Refusal::UnknownOrg,
        Refusal::ClaimToken,
        Refusal::RosterConflict { head: HEAD },
        Refusal::RosterRule { code: 0x0240 },
        Refusal::Clock {
            now_ms: 1_800_000_000_000,
        },
        Refusal::Forbidden,
        Refusal::RateLimited {
            retry_after_ms: 60_000,
        },
        Refusal::UnknownGroup,
        Refusal::GroupExists,
        Refusal::AccessDenied,
        Refusal::WrongEpoch {
            head_epoch: Epoch(4),
            head_seq: LogSeq(20),
        },
        Refusal::RosterBehind {
            at_least: RosterSeq(9),
            head_seq: RosterSeq(10),
        },
        Refusal::RosterFork,
        Refusal::GroupClosed,
        Refusal::GroupRestarted { seq: LogSeq(19) },
        Refusal::UnknownOrder,
    ]
}

fn pushes() -> Vec<Push> {
    vec![
        Push::RosterEntry {
            entry: bytes("an entry"),
            positions: vec![OrderPosition {
                group: GROUP,
                seq: LogSeq(18),
                lease: Flag::Yes,
            }],
        },
        Push::SlotsWaiting,
        Push::Checkpoint {
            checkpoint: checkpoint(),
        },
        Push::KeyPackagesLow { left: 4 },
        Push::Records {
            group: GROUP,
            records: vec![record(), record()],
        },
        Push::ResyncAsked {
            group: GROUP,
            device: DEVICE,
            key_package: bytes("a KeyPackage"),
        },
        Push::InboxWaiting,
    ]
}

/// Bodies that no decoder may take, with why (REQ-003); the answer to all of them is MALFORMED.
fn refused() -> Value {
    let claim = encode(&ClientToRelay {
        id: RequestId(1),
        request: Request::ClaimKeyPackages {
            suite: 1,
            devices: vec![DEVICE],
        },
    });
    let done = encode(&RelayToClient::Response {
        id: RequestId(1),
        response: Response::Done,
    });
    let inbox = encode(&RelayToClient::Response {
        id: RequestId(1),
        response: Response::Inbox {
            items: Vec::new(),
            more: Flag::No,
        },
    });
    // The length of `devices`, one byte, is at 12: after the id, the type and the suite.
    let with_length = |length: &[u8]| [&claim[..12], length, &claim[13..]].concat();
    let cases: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("client_to_relay", "empty", "truncated", Vec::new()),
        (
            "client_to_relay",
            "the id cut",
            "truncated",
            claim[..7].to_vec(),
        ),
        (
            "client_to_relay",
            "the type cut",
            "truncated",
            claim[..9].to_vec(),
        ),
        (
            "client_to_relay",
            "a vector cut",
            "truncated",
            claim[..20].to_vec(),
        ),
        (
            "client_to_relay",
            "a length beyond the end",
            "truncated",
            with_length(&[17]),
        ),
        (
            "client_to_relay",
            "a length of 2^30 - 1",
            "truncated",
            with_length(&[0xbf, 0xff, 0xff, 0xff]),
        ),
        (
            "client_to_relay",
            "a length that splits an item",
            "truncated",
            with_length(&[15]),
        ),
        (
            "client_to_relay",
            "a byte more",
            "trailing_bytes",
            [&claim[..], &[0]].concat(),
        ),
        (
            "client_to_relay",
            "a length in two bytes for one",
            "length_form",
            with_length(&[0x40, 16]),
        ),
        (
            "client_to_relay",
            "a length in four bytes for one",
            "length_form",
            with_length(&[0x80, 0, 0, 16]),
        ),
        (
            "client_to_relay",
            "a length in eight bytes",
            "length_form",
            with_length(&[0xc0, 0, 0, 0, 0, 0, 0, 16]),
        ),
        (
            "client_to_relay",
            "a request of no type",
            "unknown_enum",
            vec![0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        ),
        (
            "relay_to_client",
            "a byte more",
            "trailing_bytes",
            [&done[..], &[0]].concat(),
        ),
        (
            "relay_to_client",
            "cut",
            "truncated",
            done[..done.len() - 1].to_vec(),
        ),
        (
            "relay_to_client",
            "neither answer nor push",
            "unknown_enum",
            [&[3], &done[1..]].concat(),
        ),
        (
            "relay_to_client",
            "an answer of no type",
            "unknown_enum",
            [&done[..9], &[0xff, 0xff]].concat(),
        ),
        (
            "relay_to_client",
            "a flag of 2",
            "unknown_enum",
            [&inbox[..inbox.len() - 1], &[2]].concat(),
        ),
        (
            "relay_to_client",
            "a refusal of no code",
            "unknown_enum",
            [&done[..9], &[0, 0, 0xff, 0xff]].concat(),
        ),
    ];
    cases
        .into_iter()
        .map(|(direction, name, reason, body)| {
            json!({ "direction": direction, "name": name, "reason": reason, "body": hex(body) })
        })
        .collect()
}

/// Lengths that are refused before anything is allocated (REQ-040, REQ-041).
fn refused_lengths() -> Value {
    let over = |limit: usize| u32::try_from(limit + 1).map_or([0; 4], u32::to_be_bytes);
    let too_large = |limit| name_of(&Refusal::TooLarge { limit });
    let malformed = name_of(&Refusal::Malformed);
    let unadmitted = limits::MAX_FRAME_BYTES_UNADMITTED;
    json!([
        { "header": hex([0; 4]), "limit": limits::MAX_FRAME_BYTES, "refusal": malformed },
        { "header": hex(over(limits::MAX_FRAME_BYTES)), "limit": limits::MAX_FRAME_BYTES, "refusal": too_large(0) },
        { "header": hex(over(unadmitted)), "limit": unadmitted, "refusal": too_large(0) },
        { "header": hex([0xff; 4]), "limit": limits::MAX_FRAME_BYTES, "refusal": too_large(0) },
    ])
}
