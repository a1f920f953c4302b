//! The store on SQLite: one table, opened (and keyed, where it is SQLCipher) by the caller.

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{Pair, Reader, Space, Store, StoreError, Write, after_prefix};

/// A [`Store`] over a connection that the caller has opened.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt {
                reason: "the file is not a database that this key opens",
            },
            _ => Self::Backend {
                reason: error.to_string(),
            },
        }
    }
}

/// `SQLITE_IOERR_SHMSIZE`: the file that goes with the write-ahead log could not be made as large as it must be.
const SHARED_MEMORY_SIZE: i32 = 10 | (19 << 8);

impl SqliteStore {
    /// The layout's version, kept in `user_version`: the file holds every row.
    pub const LAYOUT: i64 = 1;
    /// The version of a file of which newer rows may be in a journal beside it: who knows of none must not open it.
    pub const LAYOUT_WITH_JOURNAL: i64 = 2;

    /// What an error means that comes before the first write: a disk without room for the files beside the
    /// database shows as one, and nothing was changed. (Later, only SQLite's own word on a full disk counts.)
    #[must_use]
    pub fn explain_opening(error: rusqlite::Error) -> StoreError {
        match error.sqlite_error() {
            Some(code) if code.extended_code == SHARED_MEMORY_SIZE => StoreError::Full,
            _ => error.into(),
        }
    }

    /// Takes over an open connection, sets WAL with `synchronous=FULL` and makes the table if it is missing (REQ-070).
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a file that is no database of ours, [`StoreError::Backend`] for a newer layout.
    pub fn new(connection: Connection) -> Result<Self, StoreError> {
        Self::knowing(connection, Self::LAYOUT)
    }

    /// As [`SqliteStore::new`], for a caller that reads the journal, too.
    ///
    /// # Errors
    /// As [`SqliteStore::new`].
    pub fn new_beside_journal(connection: Connection) -> Result<Self, StoreError> {
        Self::knowing(connection, Self::LAYOUT_WITH_JOURNAL)
    }

    fn knowing(connection: Connection, newest: i64) -> Result<Self, StoreError> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match found {
            0 => {
                connection.execute_batch(
                    "BEGIN;
                     CREATE TABLE kv (space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
                                      PRIMARY KEY (space, key)) WITHOUT ROWID;
                     PRAGMA user_version = 1;
                     COMMIT;",
                )?;
            }
            known if (Self::LAYOUT..=newest).contains(&known) => {}
            newer => {
                return Err(StoreError::Backend {
                    reason: format!("layout {newer} is newer than this program knows ({newest})"),
                });
            }
        }
        Ok(Self { connection })
    }

    /// Reads every page and row; `Ok` when the file is whole.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not.
    pub fn check(&self) -> Result<(), StoreError> {
        let verdict: String =
            self.connection
                .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict == "ok" {
            Ok(())
        } else {
            Err(StoreError::Corrupt {
                reason: "the integrity check failed",
            })
        }
    }
}

impl Reader for SqliteStore {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT value FROM kv WHERE space = ?1 AND key = ?2")?
            .query_row(params![space.0, key], |row| row.get(0))
            .optional()?)
    }

    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let start = from.max(prefix);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let pairs = if let Some(end) = after_prefix(prefix) {
            self.connection
                .prepare_cached(
                    "SELECT key, value FROM kv WHERE space = ?1 AND key >= ?2 AND key < ?3 ORDER BY key LIMIT ?4",
                )?
                .query_map(params![space.0, start, end, limit], read)?
                .collect::<Result<_, _>>()?
        } else {
            self.connection
                .prepare_cached(
                    "SELECT key, value FROM kv WHERE space = ?1 AND key >= ?2 ORDER BY key LIMIT ?3",
                )?
                .query_map(params![space.0, start, limit], read)?
                .collect::<Result<_, _>>()?
        };
        Ok(pairs)
    }
}

/// A change of a row that somebody else holds: table, key, and the value or `None` to delete.
pub type RowChange<'r> = (Space, &'r [u8], Option<&'r [u8]>);

impl SqliteStore {
    /// Applies all changes in order, durably, or none of them; and sets the layout's version, where one is given.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was applied.
    pub fn apply_rows<'r>(
        &mut self,
        rows: impl IntoIterator<Item = RowChange<'r>>,
        layout: Option<i64>,
    ) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT OR REPLACE INTO kv (space, key, value) VALUES (?1, ?2, ?3)",
            )?;
            let mut delete =
                transaction.prepare_cached("DELETE FROM kv WHERE space = ?1 AND key = ?2")?;
            for (space, key, value) in rows {
                match value {
                    Some(value) => put.execute(params![space.0, key, value])?,
                    None => delete.execute(params![space.0, key])?,
                };
            }
        }
        if let Some(layout) = layout {
            transaction.pragma_update(None, "user_version", layout)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Store for SqliteStore {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let rows = writes.iter();
        let rows = rows.map(|write| (write.space, &write.key[..], write.value.as_deref()));
        self.apply_rows(rows, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        super::super::conformance::run(|| {
            SqliteStore::new(Connection::open_in_memory().expect("open")).expect("layout")
        });
    }

    #[test]
    fn a_file_with_a_journal_is_for_who_knows_of_journals() {
        let beside_journal = || {
            let connection = Connection::open_in_memory().expect("open");
            let layout = SqliteStore::LAYOUT_WITH_JOURNAL;
            let set = connection.pragma_update(None, "user_version", layout);
            set.expect("pragma");
            connection
        };
        SqliteStore::new(beside_journal()).expect_err("rows may be missing");
        SqliteStore::new_beside_journal(beside_journal()).expect("known");
    }

    #[test]
    fn rows_and_layout_change_together() {
        let mut store = SqliteStore::new(Connection::open_in_memory().expect("open")).expect("new");
        let rows = [(Space(1), &b"k"[..], Some(&b"v"[..]))];
        store.apply_rows(rows, Some(2)).expect("apply");
        let layout = store
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0));
        assert_eq!(layout, Ok(2_i64));
        assert_eq!(
            store.read(Space(1), b"k").expect("read"),
            Some(b"v".to_vec())
        );
    }

    #[test]
    fn a_newer_layout_is_refused_untouched() {
        let connection = Connection::open_in_memory().expect("open");
        connection
            .pragma_update(None, "user_version", 9)
            .expect("pragma");
        let error = SqliteStore::new(connection).expect_err("newer layout");
        assert!(error.to_string().contains("newer"));
    }
}
