//! The embedded store: one SQLite file, opened with care, by one process at a time.
//!
//! A file that cannot be verified is refused, never repaired and never replaced (REQ-073): a relay that starts
//! empty after an accident would answer for a history it has lost. Writes are durable before they are acked
//! (REQ-070): WAL with `synchronous=FULL`, set by [`SqliteStore::new`].

mod lock;
pub mod postgres;

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mortise_protocol::store::{SqliteStore, StoreError};
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use lock::{InstanceLock, LockError};

/// Up to this size a start reads the whole file, bytes; `fsck` does so whatever its size.
const MAX_CHECKED_BYTES: u64 = 64 * 1024 * 1024;
/// A page of a new file. Of 4 KiB pages a row of 1 KiB takes a whole one beside its place in the tree (docs/performance.md).
const PAGE_BYTES: i64 = 8 * 1024;
/// What SQLite keeps of the file in memory, KiB.
const PAGE_CACHE_KIB: i64 = 64 * 1024;
/// The write-ahead log goes into the file when it is this long, in pages: a page that many batches have
/// changed is then written once.
const CHECKPOINT_PAGES: i64 = 4 * 1024;

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

/// Creates the database; only for `init`.
///
/// # Errors
/// [`OpenError`].
pub fn create(path: &Path) -> Result<SqliteStore, OpenError> {
    // Made here and not by SQLite, so that it is nobody else's from its first moment on.
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(OpenError::Exists { path: path.into() });
        }
        Err(error) => return Err(unusable(path, error.to_string())),
    }
    adopt(path, MAX_CHECKED_BYTES)
}

/// Opens the database of an existing relay: a small one after a quick check of every page, a large one after a look at
/// its schema and write-ahead log, since a start must not take as long as all that was ever said (REQ-197).
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    open_checking(path, MAX_CHECKED_BYTES)
}

fn open_checking(path: &Path, max_checked: u64) -> Result<SqliteStore, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing { path: path.into() });
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|error| unusable(path, error.to_string()))?;
    adopt(path, max_checked)
}

/// Opens the database and reads all of it: every page, every row, every index.
///
/// # Errors
/// [`OpenError`].
pub fn check(path: &Path) -> Result<SqliteStore, OpenError> {
    let store = open(path)?;
    store.check().map_err(|error| explain(path, error))?;
    Ok(store)
}

fn adopt(path: &Path, max_checked: u64) -> Result<SqliteStore, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| explain(path, error.into()))?;
    let bytes = std::fs::metadata(path).map_err(|error| unusable(path, error.to_string()))?;
    let question = if bytes.len() <= max_checked {
        "PRAGMA quick_check(1)"
    } else {
        "SELECT 'ok' FROM (SELECT count(*) FROM sqlite_schema)"
    };
    verify(&connection, question).map_err(|error| explain(path, error))?;
    tune(&connection).map_err(|error| explain(path, error.into()))?;
    SqliteStore::new(connection).map_err(|error| explain(path, error))
}

/// For a relay's load: many small logs that grow at once. None of it touches what is durable, or when.
fn tune(connection: &Connection) -> rusqlite::Result<()> {
    // Of a file that exists already, the page size stays what it is.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

fn verify(connection: &Connection, question: &str) -> Result<(), StoreError> {
    const DAMAGED: StoreError = StoreError::Corrupt {
        reason: "the quick check failed",
    };
    let verdict = connection.query_row(question, [], |row| row.get::<_, String>(0));
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(_) => Err(DAMAGED),
        // What a check of a damaged file fails with, besides the codes that say so themselves.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Err(DAMAGED),
        Err(error) => Err(SqliteStore::explain_opening(error)),
    }
}

fn explain(path: &Path, error: StoreError) -> OpenError {
    let path: PathBuf = path.into();
    match error {
        StoreError::Corrupt { .. } => OpenError::Corrupt { path },
        StoreError::Full => OpenError::Full { path },
        other => OpenError::Unusable {
            path,
            reason: other.to_string(),
        },
    }
}

fn unusable(path: &Path, reason: String) -> OpenError {
    OpenError::Unusable {
        path: path.into(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_protocol::store::{Reader as _, Space, Store as _, Write, conformance};
    use std::cell::Cell;
    use std::os::unix::fs::FileExt as _;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path)
            .expect("metadata")
            .permissions()
            .mode()
            & 0o777
    }

    fn filled(path: &Path) {
        let mut store = create(path).expect("create");
        let rows: Vec<Write> = (0_u32..2_000)
            .map(|n| Write {
                space: Space(1),
                key: n.to_be_bytes().to_vec(),
                value: Some(vec![7; 100]),
            })
            .collect();
        store.apply(&rows).expect("apply");
    }

    #[test]
    fn a_file_store_conforms() {
        let dir = tempfile::tempdir().expect("dir");
        let n = Cell::new(0);
        conformance::run(|| {
            n.set(n.get() + 1);
            create(&dir.path().join(n.get().to_string())).expect("create")
        });
    }

    #[test]
    fn what_was_written_is_there_after_opening_again_and_is_private() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("relay.db");
        filled(&path);
        assert_eq!(mode(&path), 0o600);
        let store = check(&path).expect("whole");
        assert_eq!(
            store.range(Space(1), b"", b"", 9_999).expect("range").len(),
            2_000
        );
    }

    #[test]
    fn a_missing_database_is_not_replaced() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("relay.db");
        assert!(matches!(open(&path), Err(OpenError::Missing { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn an_existing_database_is_not_overwritten() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("relay.db");
        filled(&path);
        assert!(matches!(create(&path), Err(OpenError::Exists { .. })));
    }

    /// REQ-197: a large file is opened by its schema, and `check` still reads all of it.
    #[test]
    fn a_large_database_is_checked_by_fsck() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("relay.db");
        filled(&path);
        open_checking(&path, 0).expect("open");
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        file.write_all_at(&[0xff; 8_192], 5 * 8_192)
            .expect("damage");
        open_checking(&path, 0).expect("the schema is whole");
        assert!(matches!(check(&path), Err(OpenError::Corrupt { .. })));
        file.write_all_at(&[0xff; 4_096], 50).expect("damage");
        let refused = open_checking(&path, 0);
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })));
    }

    /// REQ-073: damage is refused loudly.
    #[test]
    fn a_damaged_database_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("relay.db");
        filled(&path);
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        file.write_all_at(&[0xff; 4_096], 8_192).expect("damage");
        assert!(matches!(open(&path), Err(OpenError::Corrupt { .. })));
        file.write_all_at(b"not SQLite at all", 0).expect("damage");
        assert!(matches!(open(&path), Err(OpenError::Corrupt { .. })));
    }
}
