//! What a device's state is written to, and the processor time that it takes.

use std::cell::Cell;

use cpu_time::ProcessTime;
use mortise_protocol::store::{SqliteStore, Store as _, Write};
use rusqlite::Connection;
use tempfile::TempDir;

/// A database as the client has it: SQLCipher, `synchronous=FULL`, in a directory that goes with it.
pub(super) struct Disk {
    pub(super) store: SqliteStore,
    _dir: Option<TempDir>,
}

impl Disk {
    /// A new one; for a device that is not kept, in memory.
    pub(super) fn new(is_kept: bool) -> anyhow::Result<Self> {
        if !is_kept {
            return Ok(Self {
                store: SqliteStore::new(Connection::open_in_memory()?)?,
                _dir: None,
            });
        }
        let dir = TempDir::with_prefix("mortise-bench-")?;
        let connection = Connection::open(dir.path().join("device.db"))?;
        connection.pragma_update(None, "key", format!("x'{}'", "07".repeat(32)))?;
        Ok(Self {
            store: SqliteStore::new(connection)?,
            _dir: Some(dir),
        })
    }

    /// Writes rows in one transaction.
    pub(super) fn write(&mut self, rows: &[Write]) -> anyhow::Result<()> {
        Ok(self.store.apply(rows)?)
    }
}

thread_local! {
    static UNCOUNTED_NS: Cell<u64> = const { Cell::new(0) };
}

/// Runs something, and says what processor time it has cost this process, ns: openmls encrypts on several threads.
pub(super) fn timed<T>(what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, u64)> {
    UNCOUNTED_NS.set(0);
    let start = ProcessTime::now();
    let value = what()?;
    let cost = elapsed_ns(start);
    Ok((value, cost.saturating_sub(UNCOUNTED_NS.get())))
}

/// Runs something that is the bench's own and counts for nobody.
pub(super) fn uncounted<T>(what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = ProcessTime::now();
    let value = what()?;
    UNCOUNTED_NS.set(UNCOUNTED_NS.get() + elapsed_ns(start));
    Ok(value)
}

fn elapsed_ns(since: ProcessTime) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
