//! A device's store: SQLCipher as the client has it, with a raw key, so that no passphrase is hashed.

use std::path::Path;

use anyhow::Context as _;
use mortise_protocol::store::SqliteStore;
use rusqlite::Connection;

/// Opens the database at `path`, or makes it.
///
/// # Errors
/// What SQLite says.
pub(super) fn open(path: &Path, key: &[u8; 32]) -> anyhow::Result<SqliteStore> {
    let connection = Connection::open(path).with_context(|| format!("open {}", path.display()))?;
    let raw = format!("x'{}'", data_encoding::HEXLOWER.encode(key));
    connection
        .pragma_update(None, "key", raw)
        .context("key a database")?;
    Ok(SqliteStore::new(connection)?)
}
