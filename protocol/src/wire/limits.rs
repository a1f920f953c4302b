//! Every limit of the protocol, in one place (REQ-040). Sizes are in bytes.

/// A framed application message, as MLS ciphertext.
pub const MAX_APPLICATION_BYTES: usize = 64 * 1024;
/// A commit entry, with all that it carries.
pub const MAX_COMMIT_BYTES: usize = 16 * 1024 * 1024;
/// One Welcome.
pub const MAX_WELCOME_BYTES: usize = 16 * 1024 * 1024;
/// A KeyPackage.
pub const MAX_KEY_PACKAGE_BYTES: usize = 16 * 1024;
/// KeyPackages that one device may stock.
pub const MAX_KEY_PACKAGES: usize = 100;
/// Devices whose KeyPackages one request may claim, and devices that one Welcome may name.
pub const MAX_DEVICES_PER_REQUEST: usize = 1_000;
/// A frame on a stream of an admitted device.
pub const MAX_FRAME_BYTES: usize = 2 * MAX_COMMIT_BYTES + 64 * 1024;
/// A frame on a stream of somebody who is not admitted yet.
pub const MAX_FRAME_BYTES_UNADMITTED: usize = 64 * 1024;
/// Roster entries in one answer.
pub const MAX_ROSTER_PAGE: usize = 256;
/// Bytes of roster entries or log records in one answer or push; at least one is always sent.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// Records that a subscriber may ask to be pushed before it grants more.
pub const MAX_CREDIT: u32 = 1_024;
/// Devices that may ask one group at a time to be let in anew.
pub const MAX_RESYNCS: usize = 64;
/// Welcomes in one answer.
pub const MAX_INBOX_PAGE: usize = 16;
/// Slots in one request or answer.
pub const MAX_SLOTS: usize = 256;
/// Concurrent request streams of one connection.
pub const MAX_STREAMS: u32 = 32;
/// How long an unauthenticated peer may stay, ms.
pub const UNADMITTED_TIMEOUT_MS: u64 = 60_000;
/// How long one connected device is preferred for committing a removal, ms.
pub const REMOVAL_LEASE_MS: u64 = 2_000;
/// KeyPackage lifetime, ms: 84 days.
pub const KEY_PACKAGE_LIFETIME_MS: u64 = 84 * 24 * 3_600 * 1_000;
/// Lifetime that must be left when a KeyPackage is added, ms: 56 days.
pub const KEY_PACKAGE_MIN_LEFT_MS: u64 = 56 * 24 * 3_600 * 1_000;
/// Roster entries that an owner or admin may append at once; orders are not counted (REQ-107).
pub const ADMIN_APPEND_BURST: u32 = 600;
/// The time in which an owner or admin earns one more, ms.
pub const ADMIN_APPEND_EVERY_MS: u64 = 1_000;
/// Roster entries that anybody else may append at once (REQ-107).
pub const APPEND_BURST: u32 = 20;
/// The time in which anybody else earns one more, ms.
pub const APPEND_EVERY_MS: u64 = 60_000;
/// Roster entries that a connection of a peer who is not admitted may try (REQ-107).
pub const UNADMITTED_APPENDS: u32 = 16;
/// How often owners' and admins' devices state the newest roster entry, ms (REQ-105).
pub const CHECKPOINT_EVERY_MS: u64 = 10 * 60 * 1_000;
/// How soon the relay takes another checkpoint of the same device, ms.
pub const CHECKPOINT_GAP_MS: u64 = 60 * 1_000;
/// Checkpoints in one answer.
pub const MAX_CHECKPOINTS: usize = 64;
/// Attestations that a group's row in an order's state holds, the first of the log (REQ-173).
pub const MAX_ATTESTED: usize = 8;
/// Receipts that the relay keeps for one order and group, the first that come (REQ-175).
pub const MAX_RECEIPTS: usize = 8;
/// Recipients of one receipt (REQ-175).
pub const MAX_RECEIPT_COPIES: usize = 16;
/// A receipt as it is sealed for one recipient.
pub const MAX_RECEIPT_BYTES: usize = 1_024;
