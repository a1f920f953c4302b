//! The database's row about its journal: which one, and up to where it is in.

use mortise_protocol::store::{Reader as _, Space, SqliteStore, StoreError};

use super::frame::{JournalId, Lsn, Segment};
use super::segments::Applied;
use super::table::Table;

/// The engine's own table, which no core uses.
const ENGINE: Space = Space(0);
const KEY: &[u8] = b"journal";
const VERSION: u8 = 1;

/// What the row says; `None` in a database that never had a journal.
///
/// # Errors
/// [`StoreError`].
pub(super) fn load(database: &SqliteStore) -> Result<Option<Applied>, StoreError> {
    const DAMAGED: StoreError = StoreError::Corrupt {
        reason: "the row about the journal does not decode",
    };
    let Some(row) = database.read(ENGINE, KEY)? else {
        return Ok(None);
    };
    let row: [u8; 34] = row.try_into().map_err(|_| DAMAGED)?;
    let number = |at: usize| u64::from_be_bytes(row[at..at + 8].try_into().unwrap_or([0; 8]));
    if row[0] != VERSION || row[1] > 1 {
        return Err(DAMAGED);
    }
    Ok(Some(Applied {
        journal: JournalId(row[2..18].try_into().map_err(|_| DAMAGED)?),
        lsn: Lsn(number(18)),
        segment: Segment(number(26)),
        closed: row[1] == 1,
    }))
}

/// Stores rows, and in the same transaction that the database is up to there now.
///
/// While the journal may hold what the database lacks, the database has another layout: a program that knows no journal refuses it.
///
/// # Errors
/// [`StoreError`]; nothing was changed.
pub(super) fn store(
    database: &mut SqliteStore,
    rows: &Table,
    to: Applied,
) -> Result<(), StoreError> {
    let mut row = vec![VERSION, u8::from(to.closed)];
    row.extend_from_slice(&to.journal.0);
    row.extend_from_slice(&to.lsn.0.to_be_bytes());
    row.extend_from_slice(&to.segment.0.to_be_bytes());
    let layout = if to.closed {
        SqliteStore::LAYOUT
    } else {
        SqliteStore::LAYOUT_WITH_JOURNAL
    };
    let own = std::iter::once((ENGINE, KEY, Some(&row[..])));
    database.apply_rows(own.chain(rows.rows()), Some(layout))
}

/// Makes a database that is complete in itself forget its journal.
///
/// # Errors
/// [`StoreError`]; nothing was changed.
pub(super) fn forget(database: &mut SqliteStore) -> Result<(), StoreError> {
    let none = std::iter::once((ENGINE, KEY, None));
    database.apply_rows(none, Some(SqliteStore::LAYOUT))
}
