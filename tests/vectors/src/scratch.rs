//! A SQLCipher database that lives as long as one case, opened as a device opens its own.

use mortise_protocol::group::{Crypto, MlsProvider};
use mortise_protocol::store::{SqliteStore, Tx, commit};
use rusqlite::Connection;
use tempfile::TempDir;

/// A store in an encrypted file, and the crypto that goes with it.
pub(crate) struct Scratch {
    dir: TempDir,
    store: SqliteStore,
    crypto: Crypto,
}

impl Scratch {
    /// A new, empty database.
    ///
    /// # Errors
    /// What the file system or SQLite says.
    pub(crate) fn new() -> Result<Self, String> {
        let dir = TempDir::new().map_err(say)?;
        Ok(Self {
            store: open(&dir)?,
            dir,
            crypto: Crypto::default(),
        })
    }

    /// Closes the file and opens it again: what is not in it is gone.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn reopen(&mut self) -> Result<(), String> {
        self.store = open(&self.dir)?;
        Ok(())
    }

    /// Does one thing in a transaction that is dropped, whatever comes of it.
    ///
    /// # Errors
    /// What the thing says is wrong.
    pub(crate) fn rehearse(
        &self,
        act: impl FnOnce(&MlsProvider<'_, '_>) -> Result<(), String>,
    ) -> Result<(), String> {
        act(&MlsProvider::new(&self.crypto, &Tx::new(&self.store)))
    }

    /// Does one thing in one transaction, which is committed if it succeeds and dropped if not.
    ///
    /// # Errors
    /// What the thing says is wrong, or the store.
    pub(crate) fn step<T>(
        &mut self,
        act: impl FnOnce(&MlsProvider<'_, '_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let tx = Tx::new(&self.store);
        let done = act(&MlsProvider::new(&self.crypto, &tx))?;
        let batch = tx.into_batch().map_err(say)?;
        commit(&mut self.store, &batch).map_err(say)?;
        Ok(done)
    }
}

/// The same steps as a device's: the key first, then WAL and the table.
fn open(dir: &TempDir) -> Result<SqliteStore, String> {
    let connection = Connection::open(dir.path().join("client.db")).map_err(say)?;
    let key = format!("x'{}'", "5a".repeat(32));
    connection.pragma_update(None, "key", key).map_err(say)?;
    SqliteStore::new(connection).map_err(say)
}

/// An error of a library, for a report.
pub(crate) fn say(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a step stores is there when the file is opened again, encrypted; a step that fails leaves nothing.
    #[test]
    fn the_file_is_encrypted_and_keeps_what_is_committed() {
        use mortise_protocol::group::storage::MLS;
        use mortise_protocol::store::Reader as _;
        use openmls::schedule::PreSharedKeyId;

        let mut scratch = Scratch::new().expect("scratch");
        let psk = |name: &[u8]| PreSharedKeyId::external(name.to_vec(), vec![]);
        scratch
            .step(|provider| psk(b"kept").store(provider, b"canary").map_err(say))
            .expect("stored");
        let failed: Result<(), _> = scratch.step(|provider| {
            psk(b"dropped").store(provider, b"canary").map_err(say)?;
            Err("no".into())
        });
        assert!(failed.is_err());
        scratch.reopen().expect("reopened");
        let rows = scratch.store.range(MLS, &[], &[], 10).expect("read");
        assert_eq!(rows.len(), 1);
        assert!(rows[0].1.windows(6).any(|w| w == b"canary"));
        for entry in std::fs::read_dir(scratch.dir.path()).expect("folder") {
            let raw = std::fs::read(entry.expect("entry").path()).expect("file");
            assert!(!raw.windows(6).any(|w| w == b"canary"));
            assert!(!raw.starts_with(b"SQLite"));
        }
    }
}
