//! `mortise-relay backup`: a data directory that a relay can be started on, made while the relay runs.
//!
//! The copy holds everything that was acknowledged before it was asked for, as it was at one moment (REQ-344). This module must never
//! write into a directory that holds anything.

use std::path::Path;

use crate::admin::{self, AdminError, AdminRequest};
use crate::core::{Core, CoreConfig, CoreError, Status};
use crate::data_dir::{DataDir, DataDirError};
use crate::store::{self, InstanceLock, LockError, OpenError};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// One of the two directories.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The relay that runs.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The database is not in the data directory.
    #[error(
        "the database is a shared one: back it up with its own tools (docs/cluster.md), and copy the data directory for its keys"
    )]
    Shared,
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store, or the copy.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy's content.
    #[error("the copy does not read as what a relay writes: {0}")]
    Core(#[from] CoreError),
}

/// Copies the relay in `dir` to `out`, and checks the copy as `fsck` would. Blocks.
///
/// # Errors
/// [`BackupError`]; a directory that is not empty is left as it is.
pub fn backup(dir: &DataDir, out: &Path) -> Result<Status, BackupError> {
    if dir.config()?.storage.is_some() {
        return Err(BackupError::Shared);
    }
    let copy = DataDir::make_empty(out)?;
    let _lock = match InstanceLock::take(dir.path()) {
        // Nobody works on it: opening it and closing it in order brings the journal into the database.
        Ok(lock) => {
            drop(store::open(&dir.database())?);
            Some(lock)
        }
        Err(LockError::Held { .. }) => {
            admin::ask(dir, AdminRequest::Flush)?;
            None
        }
        Err(error) => return Err(error.into()),
    };
    let database = store::copy(&dir.database(), &copy.database())?;
    copy.copy_files(dir)?;
    let core = Core::load(&database, CoreConfig::new(copy.statement_key()?))?;
    Ok(core.status(&database)?)
}
