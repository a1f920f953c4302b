"""Every structure of the spec, by its name there, in the order of the spec."""

from .presentation import EMPTY, U8, U16, U32, U64, Const, Enum, Fixed, Opaque, Select, Struct, Vector

KIB, MIB = 1 << 10, 1 << 20

# Section 15.
MESSAGE_LIMIT = 64 * KIB
COMMIT_LIMIT = 16 * MIB
WELCOME_LIMIT = 16 * MIB
KEY_PACKAGE_LIMIT = 16 * KIB
KEY_PACKAGES_LIMIT = 100
DEVICES_LIMIT = 1000
SLOT_LIMIT = 256
SLOTS_LIMIT = 256
CHECKPOINTS_LIMIT = 64
ENTRY_LIMIT = 65_536
OPS_LIMIT = 64
PROFILE_LIMIT = 1024
FRAME_LIMIT = 32 * MIB + 64 * KIB
ROSTER_PAGE_LIMIT = 256
INBOX_PAGE_LIMIT = 16
ATTESTED_LIMIT = 8
RECEIPT_COPIES_LIMIT = 16

# Section 2.
Bytes = Opaque()
Flag = Enum(1, no=0, yes=1)

# Section 3.
OrgId = GroupId = Hash = PublicKey = SealPublicKey = Fixed(32)
UserId = DeviceId = InvitationId = Fixed(16)
Signature = Fixed(64)
RosterSeq = Epoch = LogSeq = RequestId = U64
Labelled = Struct(label=Opaque(), content=Opaque())

# Section 5.
Role = Enum(1, owner=0x10, admin=0x20, supervisor=0x30, auditor=0x40, member=0x50, guest=0x60, bot=0x70)
SignerType = Enum(1, root=0x10, device=0x20, invitation=0x30)
EntrySigner = Select(
    SignerType, root=EMPTY, device=Struct(device=DeviceId), invitation=Struct(invitation=InvitationId)
)
OpType = Enum(
    2,
    genesis=0x0100,
    add_user=0x0200,
    set_profile=0x0210,
    set_role=0x0220,
    suspend_user=0x0230,
    remove_user=0x0240,
    name_successor=0x0250,
    invite=0x0300,
    cancel_invite=0x0310,
    add_device=0x0400,
    revoke_device=0x0410,
    set_policy=0x0500,
    rotate_directory_key=0x0510,
    close_group=0x0600,
    recover=0x0700,
)
# An operation that is not defined has a refusal of its own (section 5.3).
OpType.reason = lambda number: "unknown_op" if number >= 0x0100 else "unknown_enum"
SealedProfile = Opaque()
Staleness = Enum(1, off=0, warn=1, block=2)
OrgPolicy = Struct(
    version=U8,  # another one is BadPolicy, not WrongVersion
    suite=U16,
    pin_required=Flag,
    staleness=Staleness,
    staleness_limit_ms=U64,
    statement_key=PublicKey,
)
DevicePossession = Struct(
    org=OrgId, user=UserId, mls_signature_key=PublicKey, transport_key=PublicKey, seal_key=SealPublicKey
)
Op = Select(
    OpType,
    genesis=Struct(root_key=PublicKey, statement_key=PublicKey, suite=U16, directory_commitment=Hash),
    add_user=Struct(user=UserId, role=Role, profile=SealedProfile),
    set_profile=Struct(user=UserId, profile=SealedProfile),
    set_role=Struct(user=UserId, role=Role),
    suspend_user=Struct(user=UserId),
    remove_user=Struct(user=UserId),
    name_successor=Struct(user=UserId, successor=UserId),
    invite=Struct(invitation=InvitationId, user=UserId, key=PublicKey, expires_at_ms=U64),
    cancel_invite=Struct(invitation=InvitationId),
    add_device=Struct(
        user=UserId,
        mls_signature_key=PublicKey,
        transport_key=PublicKey,
        seal_key=SealPublicKey,
        mls_proof=Signature,
        transport_proof=Signature,
        seal_proof=Signature,
    ),
    revoke_device=Struct(device=DeviceId),
    set_policy=OrgPolicy,
    rotate_directory_key=Struct(commitment=Hash, predecessor=Opaque()),
    close_group=Struct(group=GroupId),
    recover=EMPTY,
)
EntryTbs = Struct(
    version=Const(1, 1),
    org=OrgId,
    seq=RosterSeq,
    prev_hash=Hash,
    issued_at_ms=U64,
    signer=EntrySigner,
    ops=Vector(Op),
)
RosterEntry = Struct(tbs=EntryTbs, signature=Signature)
RosterHead = Struct(seq=RosterSeq, hash=Hash)
CheckpointTbs = Struct(org=OrgId, head=RosterHead, issued_at_ms=U64, device=DeviceId)
Checkpoint = Struct(tbs=CheckpointTbs, signature=Signature)

# Section 6.
JoinLink = Struct(
    version=Const(1, 1),
    relay=Opaque(),
    relay_key=Hash,
    org=OrgId,
    pin_seq=RosterSeq,
    pin_hash=Hash,
    user=UserId,
    invitation=InvitationId,
    secret=Fixed(32),
    needs_pin=Flag,
)
ClaimLink = Struct(version=Const(1, 1), relay=Opaque(), relay_key=Hash, statement_key=PublicKey, token=Fixed(32))

# Section 7.
Slot = Struct(
    device=DeviceId, filler=DeviceId, generation=RosterSeq, enc=Opaque(SLOT_LIMIT), ciphertext=Opaque(SLOT_LIMIT)
)
SlotInfo = Struct(label=Opaque(), org=OrgId, device=DeviceId, generation=RosterSeq)
PredecessorAad = Struct(org=OrgId, generation=RosterSeq)

# Section 9 (before section 8, which uses it).
AccessProof = Struct(entry_hash=Hash, signature=Signature)
Purpose = Enum(1, read=1, append=2)
AccessTbs = Struct(binding=Fixed(32), group=GroupId, epoch=Epoch, entry_hash=Hash, purpose=Purpose)
EntryHashInput = Struct(group=GroupId, epoch=Epoch, payload_hash=Hash)
ChainInput = Struct(previous=Hash, record=Hash, fence=RosterSeq)
AuthenticatedData = Struct(
    version=Const(1, 1), roster_seq=RosterSeq, roster_hash=Hash, log_count=U32, log_hash=Hash
)
CommitEntry = Struct(
    commit=Opaque(COMMIT_LIMIT), next_access_key=PublicKey, device=DeviceId, signature=Signature
)
CommitEntryTbs = Struct(
    group=GroupId, epoch=Epoch, commit_hash=Hash, next_access_key=PublicKey, device=DeviceId
)
LogRecord = Struct(seq=LogSeq, epoch=Epoch, fence=RosterSeq, at_ms=U64, payload=Opaque())

# Section 11 (before section 9's RecordBody, which uses it).
Verdict = Enum(1, rotated=1, clean=2)
AttestationStatement = Struct(
    order_seq=RosterSeq,
    order_hash=Hash,
    group=GroupId,
    entry_hash=Hash,
    epoch=Epoch,
    roster_seq=RosterSeq,
    roster_hash=Hash,
    verdict=Verdict,
    device=DeviceId,
)
Attestation = Struct(statement=AttestationStatement, device_signature=Signature, access_signature=Signature)

RestartCause = Select(
    Enum(1, requested=1, faulty_commit=2, false_restart=3),
    requested=EMPTY,
    faulty_commit=Struct(culprit=DeviceId),
    false_restart=Struct(culprit=DeviceId),
)
RestartStatement = Struct(
    group=GroupId,
    parent_epoch=Epoch,
    parent_entry_hash=Hash,
    cause=RestartCause,
    successor=GroupId,
    roster_seq=RosterSeq,
    roster_hash=Hash,
    device=DeviceId,
)
Restart = Struct(statement=RestartStatement, signature=Signature)
RecordType = Enum(1, create=1, commit=2, message=3, attestation=4, restart=5)
RecordBody = Select(
    RecordType,
    create=Struct(access_key=PublicKey),
    commit=CommitEntry,
    message=Struct(message=Opaque(MESSAGE_LIMIT)),
    attestation=Attestation,
    restart=Restart,
)

# Sections 11.4 to 11.6.
GroupState = Enum(1, sealed=0, rotated=1, clean=2, ended=3)
OrderSet = Struct(org=OrgId, order_seq=RosterSeq, order_hash=Hash, count=U32, root=Hash)
SignedOrderSet = Struct(set=OrderSet, signature=Signature)
Attested = Struct(
    device=DeviceId,
    verdict=Verdict,
    epoch=Epoch,
    entry_hash=Hash,
    access_key=PublicKey,
    opened_at_ms=U64,
    at_ms=U64,
)
OrderGroupState = Struct(
    group=GroupId, state=GroupState, epoch=Epoch, entry_hash=Hash, attested=Vector(Attested, ATTESTED_LIMIT)
)
OrderState = Struct(
    org=OrgId,
    order_seq=RosterSeq,
    order_hash=Hash,
    appended_at_ms=U64,
    closed=U32,
    head=RosterHead,
    chain=Hash,
    count=U32,
    set_root=Hash,
    root=Hash,
    at_ms=U64,
)
SignedOrderState = Struct(state=OrderState, signature=Signature)
ReceiptStatement = Struct(
    org=OrgId,
    order_seq=RosterSeq,
    order_hash=Hash,
    group=GroupId,
    epoch=Epoch,
    entry_hash=Hash,
    tree_hash=Opaque(),
    confirmed_transcript_hash=Opaque(),
    verdict=Verdict,
    set_root=Hash,
    device=DeviceId,
    at_ms=U64,
)
Receipt = Struct(statement=ReceiptStatement, signature=Signature)
ReceiptId = Struct(order=RosterSeq, group=GroupId, device=DeviceId)
Sealed = Struct(enc=Opaque(), ciphertext=Opaque())
ReceiptFor = Struct(recipient=DeviceId, sealed=Sealed)
SealedReceipt = Struct(id=ReceiptId, copies=Vector(ReceiptFor, RECEIPT_COPIES_LIMIT))
ChainItem = Select(Enum(1, hidden=0, shown=1), hidden=Struct(hash=Hash), shown=Struct(entry=Opaque()))
DisclosedTree = Struct(group=GroupId, ratchet_tree=Opaque())
CertificateTbs = Struct(
    version=Const(1, 1),
    org=OrgId,
    chain=Vector(ChainItem),
    state=SignedOrderState,
    groups=Vector(OrderGroupState),
    attestations=Vector(Attestation),
    receipts=Vector(Receipt),
    trees=Vector(DisclosedTree),
    at_ms=U64,
    device=DeviceId,
)
Certificate = Struct(tbs=CertificateTbs, signature=Signature)

# Section 8.
WelcomeFor = Struct(devices=Vector(DeviceId, DEVICES_LIMIT), welcome=Opaque(WELCOME_LIMIT))
Submission = Struct(
    group=GroupId, epoch=Epoch, payload=Opaque(), welcomes=Vector(WelcomeFor), proof=AccessProof
)
RequestType = Enum(
    2,
    hello=0x0001,
    found=0x0101,
    fetch_roster=0x0102,
    append_roster=0x0103,
    put_slots=0x0104,
    fetch_slots=0x0105,
    fetch_slotless=0x0106,
    put_checkpoint=0x0107,
    fetch_checkpoints=0x0108,
    publish_key_packages=0x0201,
    claim_key_packages=0x0202,
    create_group=0x0301,
    submit=0x0302,
    subscribe=0x0303,
    ask_resync=0x0304,
    fetch_inbox=0x0401,
    order_status=0x0501,
    order_state=0x0502,
    order_proof=0x0503,
    put_receipt=0x0504,
    fetch_receipts=0x0505,
)
Request = Select(
    RequestType,
    hello=Struct(org=OrgId, roster_seq=RosterSeq),
    found=Struct(claim_token=Opaque(), entry=Opaque()),
    fetch_roster=Struct(after=RosterSeq),
    append_roster=Struct(entry=Opaque(), slots=Vector(Slot, SLOTS_LIMIT)),
    put_slots=Struct(slots=Vector(Slot, SLOTS_LIMIT)),
    fetch_slots=EMPTY,
    fetch_slotless=EMPTY,
    put_checkpoint=Struct(checkpoint=Checkpoint),
    fetch_checkpoints=EMPTY,
    publish_key_packages=Struct(
        suite=U16,
        one_time=Vector(Opaque(KEY_PACKAGE_LIMIT), KEY_PACKAGES_LIMIT),
        last_resort=Opaque(KEY_PACKAGE_LIMIT),
    ),
    claim_key_packages=Struct(suite=U16, devices=Vector(DeviceId, DEVICES_LIMIT)),
    create_group=Struct(group=GroupId, payload=Opaque()),
    submit=Submission,
    subscribe=Struct(group=GroupId, epoch=Epoch, after=LogSeq, credit=U32, proof=AccessProof),
    ask_resync=Struct(group=GroupId, key_package=Opaque(KEY_PACKAGE_LIMIT)),
    fetch_inbox=Struct(after=U64),
    order_status=Struct(order=RosterSeq),
    order_state=Struct(order=RosterSeq),
    order_proof=Struct(order=RosterSeq, group=GroupId),
    put_receipt=Struct(receipt=SealedReceipt),
    fetch_receipts=Struct(order=RosterSeq, after_group=GroupId, after_device=DeviceId),
)
ClientToRelay = Struct(id=RequestId, request=Request)

# Section 14.
RefusalCode = Enum(
    2,
    MALFORMED=0x0001,
    TOO_LARGE=0x0002,
    HELLO_FIRST=0x0003,
    STORAGE=0x0004,
    NOT_ADMITTED=0x0101,
    UNKNOWN_ORG=0x0102,
    CLAIM_TOKEN=0x0103,
    ROSTER_CONFLICT=0x0104,
    ROSTER_RULE=0x0105,
    CLOCK=0x0106,
    FORBIDDEN=0x0107,
    RATE_LIMITED=0x0108,
    UNKNOWN_GROUP=0x0301,
    GROUP_EXISTS=0x0302,
    ACCESS_DENIED=0x0303,
    WRONG_EPOCH=0x0304,
    ROSTER_BEHIND=0x0305,
    ROSTER_FORK=0x0306,
    GROUP_CLOSED=0x0307,
    GROUP_RESTARTED=0x0308,
    UNKNOWN_ORDER=0x0501,
)


class RefusalType(Select):
    """A code and the fields of its row, under the name `code` because `type` is the response's."""

    def read(self, cursor):
        inner = super().read(cursor)
        return {"code": inner.pop("type"), **inner}

    def encode(self, value):
        return super().encode({**value, "type": value["code"]})


_fields = {
    "TOO_LARGE": Struct(limit=U64),
    "ROSTER_CONFLICT": Struct(head=RosterHead),
    "ROSTER_RULE": Struct(rule=U16),
    "CLOCK": Struct(now_ms=U64),
    "RATE_LIMITED": Struct(retry_after_ms=U64),
    "GROUP_RESTARTED": Struct(seq=LogSeq),
    "WRONG_EPOCH": Struct(head_epoch=Epoch, head_seq=LogSeq),
    "ROSTER_BEHIND": Struct(at_least=RosterSeq, head_seq=RosterSeq),
}
Refusal = RefusalType(RefusalCode, **{name: _fields.get(name, EMPTY) for name in RefusalCode.values})

ClaimedKeyPackage = Struct(device=DeviceId, key_package=Opaque(KEY_PACKAGE_LIMIT))
InboxItem = Struct(seq=U64, group=GroupId, welcome=Opaque(WELCOME_LIMIT), entry=LogRecord, log_hash=Hash)
GroupStatus = Struct(
    group=GroupId,
    state=GroupState,
    attested_by=Vector(DeviceId),
    at_ms=U64,
    rotated_at_ms=U64,
    confirmed_at_ms=U64,
)
OrderPosition = Struct(group=GroupId, seq=LogSeq, lease=Flag)
ResponseType = Enum(
    2,
    refused=0x0000,
    hello=0x0001,
    done=0x0002,
    roster_appended=0x0101,
    roster=0x0102,
    slots=0x0105,
    slotless=0x0106,
    checkpoints=0x0108,
    key_packages=0x0202,
    appended=0x0302,
    subscribed=0x0303,
    inbox=0x0401,
    order_status=0x0501,
    order_state=0x0502,
    order_proof=0x0503,
    receipts=0x0505,
)
Response = Select(
    ResponseType,
    refused=Refusal,
    hello=Struct(
        head=RosterHead,
        admitted=Flag,
        statement_key=PublicKey,
        now_ms=U64,
        key_packages_left=U32,
        has_last_resort=Flag,
        inbox_waiting=Flag,
    ),
    done=EMPTY,
    roster_appended=Struct(head=RosterHead),
    roster=Struct(entries=Vector(Bytes, ROSTER_PAGE_LIMIT), head=RosterHead),
    slots=Struct(slots=Vector(Slot, SLOTS_LIMIT)),
    slotless=Struct(devices=Vector(DeviceId, SLOTS_LIMIT)),
    checkpoints=Struct(checkpoints=Vector(Checkpoint, CHECKPOINTS_LIMIT)),
    key_packages=Struct(packages=Vector(ClaimedKeyPackage, DEVICES_LIMIT)),
    appended=Struct(seq=LogSeq, fence=RosterSeq),
    subscribed=Struct(head_seq=LogSeq, head_epoch=Epoch, last_readable=LogSeq, confirmed_epoch=Epoch),
    inbox=Struct(items=Vector(InboxItem, INBOX_PAGE_LIMIT), more=Flag),
    order_status=Struct(appended_at_ms=U64, closed=U32, groups=Vector(GroupStatus)),
    order_state=Struct(
        state=SignedOrderState, groups=Vector(OrderGroupState), attestations=Vector(Attestation)
    ),
    order_proof=Struct(set=SignedOrderSet, index=U32, path=Vector(Hash)),
    receipts=Struct(receipts=Vector(SealedReceipt), more=Flag),
)
PushType = Enum(
    2,
    roster_entry=0x0101,
    slots_waiting=0x0105,
    checkpoint=0x0107,
    key_packages_low=0x0201,
    records=0x0303,
    resync_asked=0x0304,
    inbox_waiting=0x0401,
)
Push = Select(
    PushType,
    roster_entry=Struct(entry=Opaque(), positions=Vector(OrderPosition)),
    slots_waiting=EMPTY,
    checkpoint=Struct(checkpoint=Checkpoint),
    key_packages_low=Struct(left=U32),
    records=Struct(group=GroupId, records=Vector(LogRecord)),
    resync_asked=Struct(group=GroupId, device=DeviceId, key_package=Opaque(KEY_PACKAGE_LIMIT)),
    inbox_waiting=EMPTY,
)
RelayToClientType = Enum(1, response=1, push=2)
RelayToClient = Select(
    RelayToClientType, response=Struct(id=RequestId, response=Response), push=Struct(push=Push)
)

# RFC 9420, section 6: what the relay reads of a message.
ProtocolVersion = Enum(2, mls10=1)
WireFormat = Enum(
    2, mls_public_message=1, mls_private_message=2, mls_welcome=3, mls_group_info=4, mls_key_package=5
)
ContentType = Enum(1, application=1, proposal=2, commit=3)
PrivateMessage = Struct(
    version=ProtocolVersion,
    wire_format=WireFormat,
    group_id=Opaque(),
    epoch=U64,
    content_type=ContentType,
    authenticated_data=Opaque(),
    encrypted_sender_data=Opaque(),
    ciphertext=Opaque(),
)
KdfLabel = Struct(length=U16, label=Opaque(), context=Opaque())

# Section 10.
MemberCredential = Struct(version=Const(1, 1), org=OrgId, user=UserId, device=DeviceId)
WhoMayAdd = Enum(1, admins=1, members=2)
PolicyExtension = Struct(kind=U16, data=Opaque())
Resync = Struct(version=Const(1, 1), group=GroupId, entry_hash=Hash, asked_at_ms=U64)
Predecessor = Struct(group=GroupId, epoch=Epoch, entry_hash=Hash)
GroupPolicy = Struct(
    version=Const(1, 1),
    name=Opaque(256),
    topic=Opaque(1024),
    admins=Vector(UserId),
    who_may_add=WhoMayAdd,
    retention_days=U32,
    left=Vector(UserId),
    extensions=Vector(PolicyExtension),
    predecessor=Vector(Predecessor, 1),
)
