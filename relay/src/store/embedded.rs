//! The embedded engine: a journal that makes batches durable, and SQLite behind it.
//!
//! A batch is one frame and one sync (REQ-070). Until it is in the database its rows are read from memory. What memory
//! holds is bounded: beyond that, batches wait for the mover. Which engine this is, and why, is in ARCHITECTURE.md.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mortise_protocol::store::{Pair, Reader, Space, SqliteStore, Store, StoreError, Write};
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};

use super::applied;
use super::frame::{self, JournalId, Lsn, Place, Segment};
use super::mover::{self, Pace, Shared, State, Stop};
use super::segments::{self, Applied, JournalError, Pool, Writer, store_error};
use super::table::{Table, over};

/// How a relay moves its journal: few large transactions; what waits is at most 96 MiB in the journal, and some more in memory.
pub(super) const PACE: Pace = Pace {
    bytes: 24 * 1024 * 1024,
    after: Duration::from_secs(1),
    max_waiting: 96 * 1024 * 1024,
};

/// Why the engine does not start.
#[derive(Debug)]
pub(super) enum StartError {
    Journal(JournalError),
    Store(StoreError),
}

impl From<JournalError> for StartError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::Journal(error.into())
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A [`Store`] in one directory, of which this process is the only user.
///
/// Dropping it moves everything into the database and closes both.
#[derive(Debug)]
pub struct EmbeddedStore {
    database: PathBuf,
    reader: SqliteStore,
    journal: JournalId,
    writer: Writer,
    next: Lsn,
    shared: Arc<Shared>,
    mover: Option<JoinHandle<()>>,
    /// A sync failed: nobody knows what the disk holds.
    failed: Option<StoreError>,
}

/// What a store takes on disk, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSizes {
    /// The database, and its write-ahead log.
    pub database_bytes: u64,
    /// The journal's segments, written or not.
    pub journal_bytes: u64,
    /// What is in the journal and not yet in the database.
    pub waiting_bytes: u64,
}

/// What other threads may ask of a store.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    shared: Arc<Shared>,
    database: PathBuf,
}

impl StoreHandle {
    /// Waits until the database holds every batch that was acknowledged before the call. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot; the journal holds what the database lacks.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.shared.flush()
    }

    /// What the store takes now.
    #[must_use]
    pub fn sizes(&self) -> StoreSizes {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut log = self.database.clone().into_os_string();
        log.push("-wal");
        StoreSizes {
            database_bytes: length(&self.database) + length(log.as_ref()),
            journal_bytes: segments::size(&super::journal_of(&self.database)),
            waiting_bytes: self.shared.lock().bytes() as u64,
        }
    }
}

impl EmbeddedStore {
    /// Takes over two connections to one database and the journal beside it, verifies the journal, and reads what the database lacks
    /// of it (REQ-340). A database that never had a journal gets one.
    pub(super) fn start(
        reader: SqliteStore,
        mut database: SqliteStore,
        path: &Path,
        pace: Pace,
    ) -> Result<Self, StartError> {
        let dir = &super::journal_of(path);
        let stored = applied::load(&reader)?;
        let is_there = !segments::list(dir)?.is_empty();
        let (moved, (pool, writer, found)) = match stored {
            // Everything is in the database, and its journal may have been left behind: a copy of a stopped relay's.
            Some(applied) if is_there || !applied.closed => (applied, Pool::recover(dir, applied)?),
            _ => {
                segments::clear_unused(dir)?;
                let (pool, writer) = Pool::create(dir)?;
                (Self::fresh()?, (pool, writer, Vec::new()))
            }
        };
        let mut waiting = Table::default();
        let mut newest = moved;
        for found in found {
            waiting.take(frame::rows(&found.frame)?, found.frame.len());
            (newest.lsn, newest.segment) = (found.lsn, found.segment);
        }
        let open = Applied {
            closed: false,
            ..moved
        };
        if stored != Some(open) {
            applied::store(&mut database, &Table::default(), open)?;
        }
        newest.closed = false;
        let shared = Shared::new(pace, (waiting, newest), open, writer.number, pool);
        let shared = Arc::new(shared);
        let with_mover = Arc::clone(&shared);
        let mover = std::thread::Builder::new()
            .name("mover".into())
            .spawn(move || mover::run(&with_mover, database))?;
        Ok(Self {
            database: path.into(),
            reader,
            journal: open.journal,
            writer,
            next: newest.lsn.next(),
            shared,
            mover: Some(mover),
            failed: None,
        })
    }

    /// Ends as a process that is killed: nothing is moved any more.
    #[cfg(test)]
    pub(super) fn abandon(mut self) {
        self.failed = Some(StoreError::Full);
    }

    fn fresh() -> Result<Applied, StartError> {
        let mut id = [0; 16];
        let drawn = rand::rngs::OsRng.try_fill_bytes(&mut id);
        drawn.map_err(std::io::Error::other)?;
        Ok(Applied {
            journal: JournalId(id),
            lsn: Lsn(0),
            segment: Segment(1),
            closed: false,
        })
    }

    /// For other threads.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        StoreHandle {
            shared: Arc::clone(&self.shared),
            database: self.database.clone(),
        }
    }

    /// Moves everything into the database, and reads all of that.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not whole.
    pub fn check(&self) -> Result<(), StoreError> {
        self.shared.flush()?;
        self.reader.check()
    }

    /// Writes one frame; it is in no table yet.
    fn journal(&mut self, writes: &[Write], bytes: usize) -> Result<bytes::Bytes, StoreError> {
        if !self.writer.has_room(bytes) {
            let next = self.shared.pool().after(self.writer.number);
            self.writer = next.map_err(|error| store_error(&error))?;
            self.shared.lock().current = self.writer.number;
        }
        let place = Place {
            journal: self.journal,
            segment: self.writer.number,
            lsn: self.next,
        };
        let frame = frame::encode(writes, place)?;
        if let Err(error) = self.writer.write(&frame) {
            let error = store_error(&error);
            self.writer.forget();
            // A full disk says so before it takes anything for written; the next batch goes over it.
            if !matches!(error, StoreError::Full) {
                self.failed = Some(error.clone());
            }
            return Err(error);
        }
        if let Err(error) = self.writer.sync(&frame) {
            let error = StoreError::Backend {
                reason: format!("the journal: {error}"),
            };
            self.writer.forget();
            self.failed = Some(error.clone());
            return Err(error);
        }
        Ok(frame)
    }
}

impl Store for EmbeddedStore {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let bytes = frame::encoded_len(writes);
        self.shared.wait_for_room(bytes)?;
        let frame = self.journal(writes, bytes)?;
        let rows = frame::rows(&frame)?;
        let mut state = self.shared.lock();
        state.waiting.take(rows, bytes);
        state.newest.lsn = self.next;
        state.newest.segment = self.writer.number;
        self.shared.came(&state, bytes);
        self.next = self.next.next();
        Ok(())
    }
}

impl Reader for EmbeddedStore {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.shared.lock();
        let moving = || state.moving.as_ref()?.table.at(space, key);
        match state.waiting.at(space, key).or_else(moving) {
            Some(value) => Ok(value.as_ref().map(|value| value.to_vec())),
            // Under the lock: what is moved meanwhile must not be missed in both places.
            None => self.reader.read(space, key),
        }
    }

    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let state = self.shared.lock();
        let mut from = from.max(prefix).to_vec();
        let mut pairs = Vec::new();
        while pairs.len() < limit {
            let asked = limit - pairs.len();
            let page = self.reader.range(space, prefix, &from, asked)?;
            let last = (page.len() == asked).then(|| page.last().map(|(key, _)| key.clone()));
            merge(&state, space, prefix, &from, page, limit, &mut pairs);
            match last.flatten() {
                Some(last) => from = [&last[..], &[0]].concat(),
                None => break,
            }
        }
        Ok(pairs)
    }
}

/// A page of the database and the rows in memory from `from` on, in key order; up to the page's end, if it is full.
fn merge(
    state: &State,
    space: Space,
    prefix: &[u8],
    from: &[u8],
    page: Vec<Pair>,
    limit: usize,
    pairs: &mut Vec<Pair>,
) {
    let is_full = page.len() == limit - pairs.len();
    let end = page.last().map(|(key, _)| key.clone());
    let empty = Table::default();
    let moving = state.moving.as_ref().map_or(&empty, |moving| &moving.table);
    let memory = over(state.waiting.from(space, from), moving.from(space, from));
    let mut memory = memory
        .take_while(|(key, _)| key.starts_with(prefix))
        .take_while(|(key, _)| !is_full || end.as_deref().is_some_and(|end| *key <= end))
        .peekable();
    let mut page = page.into_iter().peekable();
    while pairs.len() < limit {
        let below = page.peek().map(|(key, _)| &key[..]);
        let above = memory.peek().map(|(key, _)| *key);
        match (above, below) {
            (None, None) => return,
            (None, Some(_)) => pairs.extend(page.next()),
            (Some(above), Some(below)) if above > below => pairs.extend(page.next()),
            (Some(above), below) => {
                if below == Some(above) {
                    page.next();
                }
                if let Some((key, Some(value))) = memory.next() {
                    pairs.push((key.to_vec(), value.to_vec()));
                }
            }
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        let is_sound = self.failed.is_none() && !std::thread::panicking();
        self.shared
            .stop(if is_sound { Stop::Orderly } else { Stop::Now });
        if let Some(mover) = self.mover.take() {
            // It has said itself why, if it could not.
            let _ = mover.join();
        }
    }
}
