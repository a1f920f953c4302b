//! What a decoded structure looks like in JSON: objects by the specification's field names, bytes in hexadecimal.

use mortise_protocol::certificate::{Certificate, CertificateTbs, ChainItem, DisclosedTree};
use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, InvitationId, LogSeq, OrgId, PublicKey, RosterSeq,
    SealPublicKey, Sealed, SealedProfile, Signature, Slot, UserId,
};
use mortise_protocol::roster::authority::Role;
use mortise_protocol::roster::{
    AddDevice, Checkpoint, EntrySigner, EntryTbs, Genesis, Op, OrgPolicy, RosterEntry,
    RotateDirectoryKey, Staleness,
};
use mortise_protocol::wire::aad::AuthenticatedData;
use mortise_protocol::wire::log::{Attestation, AttestationStatement, CommitEntry, Verdict};
use mortise_protocol::wire::restart::{Restart, RestartCause, RestartStatement};
use mortise_protocol::wire::{
    AccessProof, Attested, ClaimedKeyPackage, ClientToRelay, Flag, GroupState, GroupStatus,
    InboxItem, LogRecord, OrderGroupState, OrderPosition, OrderSet, OrderState, Push, Receipt,
    ReceiptFor, ReceiptId, ReceiptStatement, RecordBody, Refusal, RelayToClient, Request,
    RequestId, Response, RosterHead, SealedReceipt, SignedOrderSet, SignedOrderState, Submission,
    WelcomeFor,
};
use serde_json::{Map, Value, json};
use tls_codec::VLByteVec;

use super::hex;

/// A value with a form in JSON.
pub(super) trait Fields {
    fn fields(&self) -> Value;
}

macro_rules! bytes {
    ($($name:ty),*) => {$(
        impl Fields for $name {
            fn fields(&self) -> Value {
                json!(hex(self.0))
            }
        }
    )*};
}

macro_rules! number {
    ($($name:ty),*) => {$(
        impl Fields for $name {
            fn fields(&self) -> Value {
                json!(self.0)
            }
        }
    )*};
}

macro_rules! plain {
    ($($name:ty),*) => {$(
        impl Fields for $name {
            fn fields(&self) -> Value {
                json!(self)
            }
        }
    )*};
}

macro_rules! record {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Fields for $name {
            fn fields(&self) -> Value {
                json!({ $(stringify!($field): self.$field.fields()),* })
            }
        }
    )*};
}

macro_rules! named {
    ($($name:ident { $($variant:ident = $text:literal),* })*) => {$(
        impl Fields for $name {
            fn fields(&self) -> Value {
                json!(match self { $(Self::$variant => $text),* })
            }
        }
    )*};
}

/// A case of a `select`: its type, and beside it the fields that it has.
macro_rules! case {
    ($text:literal $(, $field:ident)*) => {
        json!({ "type": $text $(, stringify!($field): $field.fields())* })
    };
}

bytes!(
    OrgId,
    UserId,
    DeviceId,
    GroupId,
    InvitationId,
    Hash,
    PublicKey,
    Signature
);
number!(RosterSeq, Epoch, LogSeq, RequestId);
plain!(u8, u16, u32, u64);
named! {
    Flag { No = "no", Yes = "yes" }
    GroupState { Sealed = "sealed", Rotated = "rotated", Clean = "clean", Ended = "ended" }
    Verdict { Rotated = "rotated", Clean = "clean" }
    Staleness { Off = "off", Warn = "warn", Block = "block" }
}
record! {
    RosterHead { seq, hash }
    Genesis { root_key, statement_key, suite, directory_commitment }
    AddDevice { user, mls_signature_key, transport_key, seal_key, mls_proof, transport_proof, seal_proof }
    EntryTbs { version, org, seq, prev_hash, issued_at_ms, signer, ops }
    RosterEntry { tbs, signature }
    OrgPolicy { version, suite, pin_required, staleness, staleness_limit_ms, statement_key }
    RotateDirectoryKey { commitment, predecessor }
    Slot { device, filler, generation, enc, ciphertext }
    ClientToRelay { id, request }
    Submission { group, epoch, payload, welcomes, proof }
    WelcomeFor { devices, welcome }
    AccessProof { entry_hash, signature }
    ClaimedKeyPackage { device, key_package }
    InboxItem { seq, group, welcome, entry, log_hash }
    GroupStatus { group, state, attested_by, at_ms, rotated_at_ms, confirmed_at_ms }
    OrderSet { org, order_seq, order_hash, count, root }
    SignedOrderSet { set, signature }
    Attested { device, verdict, epoch, entry_hash, access_key, opened_at_ms, at_ms }
    OrderGroupState { group, state, epoch, entry_hash, attested }
    OrderState {
        org, order_seq, order_hash, appended_at_ms, closed, head, chain, count, set_root, root, at_ms
    }
    SignedOrderState { state, signature }
    ReceiptStatement {
        org, order_seq, order_hash, group, epoch, entry_hash, tree_hash, confirmed_transcript_hash, verdict, set_root,
        device, at_ms
    }
    Receipt { statement, signature }
    ReceiptId { order, group, device }
    Sealed { enc, ciphertext }
    ReceiptFor { recipient, sealed }
    SealedReceipt { id, copies }
    DisclosedTree { group, ratchet_tree }
    CertificateTbs {
        version, org, chain, state, groups, attestations, receipts, trees, at_ms, device
    }
    Certificate { tbs, signature }
    OrderPosition { group, seq, lease }
    LogRecord { seq, epoch, fence, at_ms, payload }
    CommitEntry { commit, next_access_key, device, signature }
    Attestation { statement, device_signature, access_signature }
    Restart { statement, signature }
    RestartStatement {
        group, parent_epoch, parent_entry_hash, cause, successor, roster_seq, roster_hash, device
    }
    AttestationStatement {
        order_seq, order_hash, group, entry_hash, epoch, roster_seq, roster_hash, verdict, device
    }
    AuthenticatedData { version, roster_seq, roster_hash, log_count, log_hash }
}

impl Fields for VLByteVec {
    fn fields(&self) -> Value {
        json!(hex(self.as_slice()))
    }
}

impl Fields for SealedProfile {
    fn fields(&self) -> Value {
        self.0.fields()
    }
}

impl Fields for SealPublicKey {
    fn fields(&self) -> Value {
        self.0.fields()
    }
}

impl Fields for Role {
    fn fields(&self) -> Value {
        json!(self.name())
    }
}

impl<T: Fields> Fields for Box<T> {
    fn fields(&self) -> Value {
        self.as_ref().fields()
    }
}

impl<T: Fields> Fields for Vec<T> {
    fn fields(&self) -> Value {
        self.iter().map(Fields::fields).collect()
    }
}

/// The fields of a case that is a structure of its own, with the type beside them.
fn with_type(text: &str, inner: &impl Fields) -> Value {
    let mut all = match inner.fields() {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    all.insert("type".into(), json!(text));
    Value::Object(all)
}

impl Fields for RestartCause {
    fn fields(&self) -> Value {
        match self {
            Self::Requested => case!("requested"),
            Self::FaultyCommit { culprit } => case!("faulty_commit", culprit),
            Self::FalseRestart { culprit } => case!("false_restart", culprit),
        }
    }
}

impl Fields for Checkpoint {
    fn fields(&self) -> Value {
        let tbs = json!({
            "org": self.org.fields(),
            "head": self.head.fields(),
            "issued_at_ms": self.issued_at_ms,
            "device": self.device.fields(),
        });
        json!({ "tbs": tbs, "signature": self.signature.fields() })
    }
}

impl Fields for ChainItem {
    fn fields(&self) -> Value {
        match self {
            Self::Hidden(hash) => case!("hidden", hash),
            Self::Shown(entry) => case!("shown", entry),
        }
    }
}

impl Fields for EntrySigner {
    fn fields(&self) -> Value {
        match self {
            Self::Root => case!("root"),
            Self::Device(device) => case!("device", device),
            Self::Invitation(invitation) => case!("invitation", invitation),
        }
    }
}

impl Fields for Op {
    fn fields(&self) -> Value {
        match self {
            Self::Genesis(genesis) => with_type("genesis", genesis),
            Self::AddUser {
                user,
                role,
                profile,
            } => case!("add_user", user, role, profile),
            Self::SetProfile { user, profile } => case!("set_profile", user, profile),
            Self::SetRole { user, role } => case!("set_role", user, role),
            Self::SuspendUser { user } => case!("suspend_user", user),
            Self::RemoveUser { user } => case!("remove_user", user),
            Self::NameSuccessor { user, successor } => case!("name_successor", user, successor),
            Self::Invite {
                invitation,
                user,
                key,
                expires_at_ms,
            } => case!("invite", invitation, user, key, expires_at_ms),
            Self::CancelInvite { invitation } => case!("cancel_invite", invitation),
            Self::AddDevice(add) => with_type("add_device", add),
            Self::RevokeDevice { device } => case!("revoke_device", device),
            Self::SetPolicy(policy) => with_type("set_policy", policy),
            Self::RotateDirectoryKey(rotation) => with_type("rotate_directory_key", rotation),
            Self::CloseGroup { group } => case!("close_group", group),
            Self::Recover => case!("recover"),
        }
    }
}

impl Fields for RecordBody {
    fn fields(&self) -> Value {
        match self {
            Self::Create { access_key } => case!("create", access_key),
            Self::Commit(entry) => with_type("commit", entry),
            Self::Message(message) => case!("message", message),
            Self::Attestation(attestation) => with_type("attestation", attestation),
            Self::Restart(restart) => with_type("restart", restart),
        }
    }
}

impl Fields for Request {
    fn fields(&self) -> Value {
        match self {
            Self::Hello { org, roster_seq } => case!("hello", org, roster_seq),
            Self::Found { claim_token, entry } => case!("found", claim_token, entry),
            Self::FetchRoster { after } => case!("fetch_roster", after),
            Self::AppendRoster { entry, slots } => case!("append_roster", entry, slots),
            Self::PutSlots { slots } => case!("put_slots", slots),
            Self::FetchSlots => case!("fetch_slots"),
            Self::FetchSlotless => case!("fetch_slotless"),
            Self::PutCheckpoint { checkpoint } => case!("put_checkpoint", checkpoint),
            Self::FetchCheckpoints => case!("fetch_checkpoints"),
            Self::PublishKeyPackages {
                suite,
                one_time,
                last_resort,
            } => case!("publish_key_packages", suite, one_time, last_resort),
            Self::ClaimKeyPackages { suite, devices } => {
                case!("claim_key_packages", suite, devices)
            }
            Self::CreateGroup { group, payload } => case!("create_group", group, payload),
            Self::Submit(submission) => with_type("submit", submission),
            Self::Subscribe {
                group,
                epoch,
                after,
                credit,
                proof,
            } => case!("subscribe", group, epoch, after, credit, proof),
            Self::AskResync { group, key_package } => case!("ask_resync", group, key_package),
            Self::FetchInbox { after } => case!("fetch_inbox", after),
            Self::OrderStatus { order } => case!("order_status", order),
            Self::OrderState { order } => case!("order_state", order),
            Self::OrderProof { order, group } => case!("order_proof", order, group),
            Self::PutReceipt { receipt } => case!("put_receipt", receipt),
            Self::FetchReceipts {
                order,
                after_group,
                after_device,
            } => case!("fetch_receipts", order, after_group, after_device),
        }
    }
}

impl Fields for RelayToClient {
    fn fields(&self) -> Value {
        match self {
            Self::Response { id, response } => case!("response", id, response),
            Self::Push(push) => case!("push", push),
        }
    }
}

impl Fields for Response {
    fn fields(&self) -> Value {
        match self {
            Self::Refused(refusal) => with_type("refused", refusal),
            Self::Hello {
                head,
                admitted,
                statement_key,
                now_ms,
                key_packages_left,
                has_last_resort,
                inbox_waiting,
            } => case!(
                "hello",
                head,
                admitted,
                statement_key,
                now_ms,
                key_packages_left,
                has_last_resort,
                inbox_waiting
            ),
            Self::Done => case!("done"),
            Self::RosterAppended { head } => case!("roster_appended", head),
            Self::Roster { entries, head } => case!("roster", entries, head),
            Self::Slots { slots } => case!("slots", slots),
            Self::Slotless { devices } => case!("slotless", devices),
            Self::Checkpoints { checkpoints } => case!("checkpoints", checkpoints),
            Self::KeyPackages { packages } => case!("key_packages", packages),
            Self::Appended { seq, fence } => case!("appended", seq, fence),
            Self::Subscribed {
                head_seq,
                head_epoch,
                last_readable,
                confirmed_epoch,
            } => case!(
                "subscribed",
                head_seq,
                head_epoch,
                last_readable,
                confirmed_epoch
            ),
            Self::Inbox { items, more } => case!("inbox", items, more),
            Self::OrderStatus {
                appended_at_ms,
                closed,
                groups,
            } => case!("order_status", appended_at_ms, closed, groups),
            Self::OrderState {
                state,
                groups,
                attestations,
            } => case!("order_state", state, groups, attestations),
            Self::OrderProof { set, index, path } => case!("order_proof", set, index, path),
            Self::Receipts { receipts, more } => case!("receipts", receipts, more),
        }
    }
}

impl Fields for Push {
    fn fields(&self) -> Value {
        match self {
            Self::RosterEntry { entry, positions } => case!("roster_entry", entry, positions),
            Self::SlotsWaiting => case!("slots_waiting"),
            Self::Checkpoint { checkpoint } => case!("checkpoint", checkpoint),
            Self::KeyPackagesLow { left } => case!("key_packages_low", left),
            Self::Records { group, records } => case!("records", group, records),
            Self::ResyncAsked {
                group,
                device,
                key_package,
            } => case!("resync_asked", group, device, key_package),
            Self::InboxWaiting => case!("inbox_waiting"),
        }
    }
}

/// The name that the specification has for a refusal: what its text begins with.
pub fn name_of(refusal: &impl std::fmt::Display) -> String {
    let text = refusal.to_string();
    text.split(':').next().unwrap_or_default().to_owned()
}

impl Fields for Refusal {
    fn fields(&self) -> Value {
        let mut all = match self {
            Self::TooLarge { limit } => json!({ "limit": limit }),
            Self::RosterConflict { head } => json!({ "head": head.fields() }),
            Self::RosterRule { code } => json!({ "rule": code }),
            Self::Clock { now_ms } => json!({ "now_ms": now_ms }),
            Self::GroupRestarted { seq } => json!({ "seq": seq.fields() }),
            Self::RateLimited { retry_after_ms } => json!({ "retry_after_ms": retry_after_ms }),
            Self::WrongEpoch {
                head_epoch,
                head_seq,
            } => json!({ "head_epoch": head_epoch.fields(), "head_seq": head_seq.fields() }),
            Self::RosterBehind { at_least, head_seq } => {
                json!({ "at_least": at_least.fields(), "head_seq": head_seq.fields() })
            }
            _ => json!({}),
        };
        all["code"] = json!(name_of(self));
        all
    }
}
