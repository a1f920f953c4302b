//! The embedded store: a journal and a SQLite database behind it, in one directory, used by one process at a time.
//!
//! ```text
//! relay.db         SQLite: everything but what came last
//! relay.journal/   what came last, in segments ([`EmbeddedStore`])
//! ```
//! What cannot be verified is refused, never repaired and never replaced (REQ-073).

mod applied;
mod database;
mod embedded;
mod frame;
#[cfg(test)]
mod journal_tests;
mod lock;
mod mover;
pub mod postgres;
mod segments;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use mortise_protocol::store::{SqliteStore, StoreError};

pub use embedded::{EmbeddedStore, StoreHandle, StoreSizes};
pub use lock::{InstanceLock, LockError};

use database::{Connections, MAX_CHECKED_BYTES, explain, unusable};
use embedded::{PACE, StartError};
use mover::Pace;
use segments::JournalError;

/// Why there is no store to work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is not there.
    #[error("there is no database at {}: restore it from a backup; a relay must never start empty in its place", .path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// The file is there already.
    #[error("there is a database at {} already: it was left as it is", .path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("the database {} is damaged: keep a copy of it, restore the last backup, and check the disk; nothing was changed", .path.display())]
    Corrupt {
        /// Where.
        path: PathBuf,
    },
    /// Part of the journal is not there.
    #[error("the journal {} is not complete: what was acknowledged last is in it; restore it, or the last backup into an empty directory", .path.display())]
    JournalMissing {
        /// Where.
        path: PathBuf,
    },
    /// The journal is not what was written, or not this database's.
    #[error("the journal {} cannot be used: {reason}; keep a copy of the data directory, restore the last backup into an empty one, and check the disk; nothing was changed", .path.display())]
    JournalDamaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The disk is full.
    #[error("the disk that holds {} is full: make room and start again", .path.display())]
    Full {
        /// Where.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot open the database {}: {reason}", .path.display())]
    Unusable {
        /// Where.
        path: PathBuf,
        /// What the system or SQLite said.
        reason: String,
    },
}

/// Creates the store; only for `init`.
///
/// # Errors
/// [`OpenError`].
pub fn create(path: &Path) -> Result<EmbeddedStore, OpenError> {
    database::make(path)?;
    open(path)
}

/// Opens the store of an existing relay: a small database after a quick check of every page, a large one after a look at
/// its schema and write-ahead log, since a start must not take as long as all that was ever said (REQ-197); the journal after
/// a check of every frame that the database lacks (REQ-340). A database without a journal gets one.
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path) -> Result<EmbeddedStore, OpenError> {
    open_with(path, MAX_CHECKED_BYTES, PACE)
}

fn open_with(path: &Path, max_checked: u64, pace: Pace) -> Result<EmbeddedStore, OpenError> {
    let Connections { reader, mover } = database::open(path, max_checked)?;
    EmbeddedStore::start(reader, mover, path, pace).map_err(|error| match error {
        StartError::Store(error) => explain(path, error),
        StartError::Journal(error) => explain_journal(journal_of(path), error),
    })
}

/// Opens the store and reads all of it: every frame, every page, every row, every index.
///
/// # Errors
/// [`OpenError`].
pub fn check(path: &Path) -> Result<EmbeddedStore, OpenError> {
    let store = open(path)?;
    store.check().map_err(|error| explain(path, error))?;
    Ok(store)
}

/// Copies the database as it is at one moment, while a relay may write to it, and reads all of the copy. What is in the journal
/// alone is not in it: see [`StoreHandle::flush`].
///
/// # Errors
/// [`OpenError`]; a copy that is not whole was removed.
pub fn copy(path: &Path, to: &Path) -> Result<SqliteStore, OpenError> {
    database::make(to)?;
    let copied = database::copy(path, to);
    if copied.is_err() {
        let _ = std::fs::remove_file(to);
    }
    copied
}

/// Where a database's journal is.
#[must_use]
pub fn journal_of(database: &Path) -> PathBuf {
    database.with_extension("journal")
}

fn explain_journal(path: PathBuf, error: JournalError) -> OpenError {
    match error {
        JournalError::Missing => OpenError::JournalMissing { path },
        JournalError::Damaged(reason) => OpenError::JournalDamaged { path, reason },
        JournalError::Io(error) => match segments::store_error(&error) {
            StoreError::Full => OpenError::Full { path },
            _ => unusable(&path, error.to_string()),
        },
    }
}
