//! The database: one SQLite file, opened with care.
//!
//! A file that cannot be verified is refused, never repaired and never replaced (REQ-073): a relay that starts
//! empty after an accident would answer for a history it has lost. WAL with `synchronous=FULL`, set by [`SqliteStore`].

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mortise_protocol::store::{SqliteStore, StoreError};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{OpenError, applied};

/// Up to this size a start reads the whole file, bytes; `fsck` does so whatever its size.
pub(super) const MAX_CHECKED_BYTES: u64 = 64 * 1024 * 1024;
/// A page of a new file. Of 4 KiB pages a row of 1 KiB takes a whole one beside its place in the tree (docs/performance.md).
const PAGE_BYTES: i64 = 8 * 1024;
/// What the mover keeps of the file in memory, KiB; a batch's places in the trees.
const MOVER_CACHE_KIB: i64 = 64 * 1024;
/// What who reads keeps of it, KiB; the hot rows are kept elsewhere.
const READER_CACHE_KIB: i64 = 16 * 1024;
/// The write-ahead log goes into the file when it is this long, in pages: a page that many transactions have
/// changed is then written once.
const CHECKPOINT_PAGES: i64 = 4 * 1024;
/// How long one connection waits for the other, where SQLite makes it.
const BUSY: Duration = Duration::from_secs(10);

/// Both connections to a database.
pub(super) struct Connections {
    /// For who answers.
    pub(super) reader: SqliteStore,
    /// For the mover: the only one that writes.
    pub(super) mover: SqliteStore,
}

/// Makes the file: here and not by SQLite, so that it is nobody else's from its first moment on.
pub(super) fn make(path: &Path) -> Result<(), OpenError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(OpenError::Exists { path: path.into() })
        }
        Err(error) => Err(unusable(path, error.to_string())),
    }
}

/// Opens and verifies the file: all of it up to `max_checked` bytes, else its schema and write-ahead log.
pub(super) fn open(path: &Path, max_checked: u64) -> Result<Connections, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing { path: path.into() });
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|error| unusable(path, error.to_string()))?;
    let mover = connect(path, max_checked, MOVER_CACHE_KIB)?;
    // The second look at the same file is a short one.
    let reader = connect(path, 0, READER_CACHE_KIB)?;
    Ok(Connections { reader, mover })
}

fn connect(path: &Path, max_checked: u64, cache_kib: i64) -> Result<SqliteStore, OpenError> {
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
    tune(&connection, cache_kib).map_err(|error| explain(path, error.into()))?;
    SqliteStore::new_beside_journal(connection).map_err(|error| explain(path, error))
}

/// For a relay's load: many small logs that grow at once. None of it touches what is durable, or when.
fn tune(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    // Of a file that exists already, the page size stays what it is.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

/// Copies the database as it is at one moment into the empty file `to`, makes the copy forget the journal, and reads all of it.
pub(super) fn copy(path: &Path, to: &Path) -> Result<SqliteStore, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let explain_from = |error: rusqlite::Error| explain(path, error.into());
    let from = Connection::open_with_flags(path, flags).map_err(explain_from)?;
    from.busy_timeout(BUSY).map_err(explain_from)?;
    let name = to
        .to_str()
        .ok_or_else(|| unusable(to, "the path is not UTF-8".into()))?;
    let copied = from.execute("VACUUM INTO ?1", [name]);
    copied.map_err(|error| explain(to, error.into()))?;
    let mut copy = connect(to, 0, READER_CACHE_KIB)?;
    let checked = applied::forget(&mut copy).and_then(|()| copy.check());
    checked.map_err(|error| explain(to, error))?;
    let synced = File::open(to).and_then(|file| file.sync_all());
    synced.map_err(|error| unusable(to, error.to_string()))?;
    Ok(copy)
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

pub(super) fn explain(path: &Path, error: StoreError) -> OpenError {
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

pub(super) fn unusable(path: &Path, reason: String) -> OpenError {
    OpenError::Unusable {
        path: path.into(),
        reason,
    }
}
