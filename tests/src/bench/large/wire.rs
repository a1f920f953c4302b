//! What the relay has stored of the group, by size: read from its database, which stays as it is.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mortise_protocol::identity::decode;
use mortise_protocol::wire::{LogRecord, RecordBody};
use mortise_relay::admin::{self, AdminRequest};
use mortise_relay::core::layout::{LOG, WELCOMES};
use mortise_relay::data_dir::DataDir;
use rusqlite::{Connection, OpenFlags};

/// The relay's database.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    path: PathBuf,
}

/// A record of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) bytes: usize,
    pub(super) is_commit: bool,
    pub(super) is_message: bool,
}

impl Wire {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            path: data.join("relay.db"),
        }
    }

    fn open(&self) -> anyhow::Result<Connection> {
        let data = self.path.parent().context("no data directory")?;
        // What came last may be in the journal alone.
        admin::ask(&DataDir::open(data)?, AdminRequest::Flush)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.path, flags).context("open the relay's database")
    }

    /// The log after this position, oldest first. There is one group on the relay.
    ///
    /// # Errors
    /// When a row is not what the relay writes.
    pub(super) fn log(&self, after: u64) -> anyhow::Result<Vec<Record>> {
        let connection = self.open()?;
        let mut statement =
            connection.prepare("SELECT value FROM kv WHERE space = ?1 ORDER BY key")?;
        let rows = statement.query_map([LOG.0], |row| row.get::<_, Vec<u8>>(0))?;
        let mut records = Vec::new();
        for row in rows {
            let row = row?;
            let (_, bytes) = row.split_first().context("an empty row")?;
            let record: LogRecord = decode(bytes).context("read a record")?;
            let payload = record.payload.as_slice();
            let body: RecordBody = decode(payload).context("read a record's body")?;
            if record.seq.0 > after {
                records.push(Record {
                    seq: record.seq.0,
                    bytes: payload.len(),
                    is_commit: matches!(body, RecordBody::Commit(_)),
                    is_message: matches!(body, RecordBody::Message(_)),
                });
            }
        }
        Ok(records)
    }

    /// The largest Welcome that waits for anybody now, bytes; 0 for none.
    ///
    /// # Errors
    /// What SQLite says.
    pub(super) fn largest_welcome(&self) -> anyhow::Result<u64> {
        let length = "SELECT coalesce(max(length(value)), 1) FROM kv WHERE space = ?1";
        let length: i64 = self
            .open()?
            .query_row(length, [WELCOMES.0], |row| row.get(0))?;
        Ok(u64::try_from(length).unwrap_or(1).saturating_sub(1))
    }
}
