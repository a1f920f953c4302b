//! Who belongs to the organisation: an append-only, hash-chained, signed log of users, devices and roles.
//!
//! [`Roster::apply`] is the one validation function; the relay and every client call it on the same
//! bytes and reach the same state. This module must never know a clock or a socket, and nothing in it
//! may depend on who runs it: what only the relay can judge (its clock) is [`check_issue_time`].
//!
//! Inputs: [`Roster::apply`], or [`Roster::check`] and [`Roster::commit`] with a durable write between.
//! Getters: everything else on [`Roster`]. Entries are made by [`sign_entry`].

mod apply;
pub mod authority;
mod checkpoint;
mod draft;
mod entry;
mod error;
mod governance;
mod policy;
mod state;
#[cfg(test)]
mod tests;

pub use authority::{Operation, Role, Target, check as check_authority};
pub use checkpoint::{Checkpoint, CheckpointFault};
pub use draft::CheckedEntry;
pub use entry::{
    AddDevice, ENTRY_VERSION, EntrySigner, EntryTbs, Genesis, Head, MAX_ENTRY_BYTES, MAX_OPS,
    MAX_PROFILE_BYTES, Op, RosterEntry, RotateDirectoryKey, SignedEntry, sign_entry,
};
pub use error::RosterError;
pub use policy::{MAX_STALENESS_LIMIT_MS, MIN_STALENESS_LIMIT_MS, OrgPolicy, Staleness};
pub use state::{
    Applied, DeviceRecord, DirectoryGeneration, InvitationRecord, InvitationStatus, Order, Roster,
    UserRecord, UserStatus,
};

/// How far an entry's time may be from the relay's clock: 10 minutes.
pub const MAX_ISSUE_SKEW_MS: u64 = 10 * 60 * 1000;

/// Checks an entry's time against a clock; for the relay only, before [`Roster::apply`] (REQ-022).
///
/// Clients never call it: an entry is as valid in a year as it is today.
///
/// # Errors
/// [`RosterError::IssueTime`] when the two are more than `max_skew_ms` apart.
pub fn check_issue_time(
    issued_at_ms: u64,
    now_ms: u64,
    max_skew_ms: u64,
) -> Result<(), RosterError> {
    if issued_at_ms.abs_diff(now_ms) > max_skew_ms {
        return Err(RosterError::IssueTime {
            issued_at_ms,
            now_ms,
        });
    }
    Ok(())
}
