//! Opens the profile's SQLCipher database.

use std::path::Path;

use mortise_protocol::store::{SqliteStore, StoreError};
use rusqlite::{Connection, OpenFlags};

use crate::error::CliError;
use crate::keystore::DatabaseKey;
use crate::profile::{Profile, make_private};

/// Up to this size every page's MAC is checked when the database is opened; beyond it, as pages are read.
const CHECKED_WHOLE_BYTES: u64 = 32 * 1024 * 1024;

/// Makes the database of a new profile.
///
/// # Errors
/// [`CliError::DiskFull`], [`CliError::File`], [`CliError::Internal`].
pub fn create(profile: &Profile, key: &DatabaseKey) -> Result<SqliteStore, CliError> {
    // SQLite gives its other files the mode that this one has.
    make_private(&profile.database())?;
    Ok(SqliteStore::new(connect(&profile.database(), key)?)?)
}

/// Opens the database of a profile whose key was checked: what does not open now is damaged.
///
/// # Errors
/// [`CliError::Corrupt`], [`CliError::DiskFull`], [`CliError::Internal`].
pub fn open(profile: &Profile, key: &DatabaseKey) -> Result<SqliteStore, CliError> {
    let path = profile.database();
    let length = match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(corrupt("it is missing"));
        }
        other => other.map_err(CliError::file("read", &path))?.len(),
    };
    if length == 0 {
        return Err(corrupt("it is empty"));
    }
    let connection = connect(&path, key)?;
    if length <= CHECKED_WHOLE_BYTES {
        check_pages(&connection)?;
    }
    Ok(SqliteStore::new(connection)?)
}

fn connect(path: &Path, key: &DatabaseKey) -> Result<Connection, CliError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(StoreError::from)?;
    connection
        .pragma_update(None, "key", key.dangerous_pragma().as_str())
        .map_err(StoreError::from)?;
    // The first look: whether the key fits, and whether there is room for the files beside the database.
    connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
        .map_err(SqliteStore::explain_opening)?;
    Ok(connection)
}

/// SQLCipher's own check: one row per page whose MAC does not verify.
fn check_pages(connection: &Connection) -> Result<(), CliError> {
    let mut statement = connection
        .prepare("PRAGMA cipher_integrity_check")
        .map_err(StoreError::from)?;
    let mut rows = statement.query([]).map_err(StoreError::from)?;
    match rows.next().map_err(StoreError::from)? {
        None => Ok(()),
        Some(_) => Err(corrupt("a page is not what was written")),
    }
}

fn corrupt(reason: &str) -> CliError {
    CliError::Corrupt {
        file: "database (client.db)",
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::keystore;
    use mortise_protocol::store::{Reader as _, Space, Store as _, Write};

    const SPACE: Space = Space(7);

    fn fill(store: &mut SqliteStore) {
        let row = |n: u32| Write {
            space: SPACE,
            key: n.to_be_bytes().to_vec(),
            value: Some(b"plaintext canary".repeat(32)),
        };
        let rows: Vec<_> = (0..200).map(row).collect();
        store.apply(&rows).expect("apply");
    }

    fn profile(dir: &Path) -> (Profile, DatabaseKey) {
        let profile = Profile::at(dir);
        let key = keystore::create(&profile, "p", &mut crate::machine::system_rng()).expect("key");
        fill(&mut create(&profile, &key).expect("create"));
        (profile, key)
    }

    #[test]
    fn what_is_written_is_read_and_is_not_in_the_file() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let (profile, key) = profile(tmp.path());
        let store = open(&profile, &key).expect("open");
        assert!(
            store
                .read(SPACE, &7_u32.to_be_bytes())
                .expect("read")
                .is_some()
        );
        drop(store);
        let raw = std::fs::read(profile.database()).expect("read");
        assert!(!raw.windows(6).any(|window| window == b"canary"));
    }

    /// One flipped bit anywhere, a cut file, an empty one and a missing one are all found when it is opened.
    #[test]
    fn damage_is_found() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let (profile, key) = profile(tmp.path());
        let path = profile.database();
        let good = std::fs::read(&path).expect("read");
        for at in [20, good.len() / 2, good.len() - 100] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).expect("write");
            assert_eq!(
                open(&profile, &key).expect_err("bad").exit(),
                Exit::Corrupt,
                "byte {at}"
            );
        }
        let page = 4096;
        for bad in [
            &good[..good.len() / 2 + 17],
            &good[..good.len() - page],
            b"",
            b"not a database at all, and short",
        ] {
            std::fs::write(&path, bad).expect("write");
            let error = open(&profile, &key).expect_err("bad");
            assert_eq!(error.exit(), Exit::Corrupt, "{} bytes", bad.len());
        }
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(
            open(&profile, &key).expect_err("missing").exit(),
            Exit::Corrupt
        );
        std::fs::write(&path, good).expect("write");
        open(&profile, &key).expect("good again");
    }
}
