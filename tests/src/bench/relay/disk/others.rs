//! The engines that the relay's is compared with: SQLite alone, and fjall.

use std::path::Path;

use anyhow::Context as _;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use mortise_protocol::store::{SqliteStore, Store as _};
use mortise_relay::core::layout::{GROUPS, LOG, RECORD_IDS};
use rusqlite::Connection;

use super::{Heads, Sink};

/// SQLite without a journal before it, as the relay had it until 2026-11-30.
pub(super) struct Sqlite {
    store: SqliteStore,
    heads: Heads,
}

impl Sqlite {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "page_size", 8 * 1024)?;
        connection.pragma_update(None, "cache_size", -64 * 1024)?;
        connection.pragma_update(None, "wal_autocheckpoint", 4 * 1024)?;
        Ok(Self {
            store: SqliteStore::new(connection)?,
            heads: Heads::of_nobody(),
        })
    }
}

impl Sink for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn append(&mut self, batch: usize) -> anyhow::Result<()> {
        Ok(self.store.apply(&self.heads.next(batch)?)?)
    }
}

/// fjall with a keyspace for each of the tables.
pub(super) struct Fjall {
    database: Database,
    keyspaces: Vec<(mortise_protocol::store::Space, Keyspace)>,
    heads: Heads,
}

impl Fjall {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let database = Database::builder(path).open()?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        let keyspaces = vec![
            (LOG, keyspace("log")?),
            (RECORD_IDS, keyspace("ids")?),
            (GROUPS, keyspace("groups")?),
        ];
        Ok(Self {
            database,
            keyspaces,
            heads: Heads::of_nobody(),
        })
    }
}

impl Sink for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn append(&mut self, batch: usize) -> anyhow::Result<()> {
        let mut writes = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for write in self.heads.next(batch)? {
            let keyspace = self
                .keyspaces
                .iter()
                .find(|(space, _)| *space == write.space);
            let (_, keyspace) = keyspace.context("an unknown table")?;
            writes.insert(keyspace, write.key, write.value.context("a row")?);
        }
        Ok(writes.commit()?)
    }
}
