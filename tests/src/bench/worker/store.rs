//! A device's store: SQLCipher as the client has it, with a raw key, so that no passphrase is hashed.

use std::path::Path;

use anyhow::Context as _;
use mortise_protocol::store::SqliteStore;
use rusqlite::Connection;

/// Opens the database of a device in `dir`, or makes it.
///
/// # Errors
/// What SQLite says.
pub(in crate::bench) fn open(dir: &Path, number: usize) -> anyhow::Result<SqliteStore> {
    let path = dir.join(format!("device-{number:04}.db"));
    let mut key = [7; 32];
    let start = u64::try_from(number).unwrap_or(u64::MAX);
    key[..8].copy_from_slice(&start.to_be_bytes());
    let connection = Connection::open(&path).with_context(|| format!("open {}", path.display()))?;
    let raw = format!("x'{}'", data_encoding::HEXLOWER.encode(&key));
    connection
        .pragma_update(None, "key", raw)
        .context("key a database")?;
    Ok(SqliteStore::new(connection)?)
}
