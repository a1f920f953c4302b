//! One process per data directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held while a process works on a data directory; let go when it ends, however it ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process works on this data directory.
    #[error("another mortise-relay is working on {}: stop it first", .directory.display())]
    Held {
        /// Which.
        directory: PathBuf,
    },
    /// The lock file cannot be made.
    #[error("cannot lock {}: {error}", .directory.display())]
    Io {
        /// Which.
        directory: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl InstanceLock {
    /// Takes the lock of a data directory, without waiting.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let failed = |error: io::Error| LockError::Io {
            directory: directory.into(),
            error,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("lock"))
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(LockError::Held {
                directory: directory.into(),
            }),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().expect("dir");
        let held = InstanceLock::take(dir.path()).expect("free");
        assert!(matches!(
            InstanceLock::take(dir.path()),
            Err(LockError::Held { .. })
        ));
        drop(held);
        InstanceLock::take(dir.path()).expect("free again");
    }
}
