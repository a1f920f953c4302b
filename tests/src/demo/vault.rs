//! Copies of profiles: what a thief holds, or what a member held at an earlier moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use mortise_client::database;
use mortise_client::keystore::{self, DatabaseKey};
use mortise_client::machine::system_rng;
use mortise_client::profile::Profile;
use mortise_protocol::engine::Engine;
use mortise_protocol::store::SqliteStore;

use super::person::Person;
use super::process::copy_dir;

/// A copy of somebody's profile, and the key to it.
#[derive(Clone, Debug)]
pub struct ProfileCopy {
    dir: PathBuf,
    key: Arc<DatabaseKey>,
}

impl ProfileCopy {
    /// Copies somebody's profile as it is at this instant.
    ///
    /// # Errors
    /// When files cannot be copied, or the passphrase does not open them.
    pub fn take(person: &Person, label: &str) -> anyhow::Result<Self> {
        let dir = person.home().join(label);
        person.copy_profile(&dir)?;
        let key = keystore::open(&Profile::at(&dir), &person.passphrase)
            .with_context(|| format!("unlock a copy of {}'s profile", person.name))?;
        Ok(Self {
            dir,
            key: Arc::new(key),
        })
    }

    /// As [`ProfileCopy::take`], with the key of an earlier copy of the same profile.
    ///
    /// # Errors
    /// When files cannot be copied.
    pub fn take_again(&self, person: &Person, label: &str) -> anyhow::Result<Self> {
        let dir = person.home().join(label);
        person.copy_profile(&dir)?;
        Ok(Self {
            dir,
            key: Arc::clone(&self.key),
        })
    }

    /// Opens the database, to look into it and not to change it.
    ///
    /// # Errors
    /// When it does not open.
    pub fn store(&self) -> anyhow::Result<SqliteStore> {
        open(&self.dir, &self.key)
    }

    /// Brings a device to life on a fresh copy of the copy, which it may change.
    ///
    /// # Errors
    /// When it does not open.
    pub fn engine(&self, label: &str) -> anyhow::Result<Engine<SqliteStore>> {
        let scratch = self.dir.with_extension(label);
        copy_dir(&self.dir, &scratch)?;
        let store = open(&scratch, &self.key)?;
        Engine::open(store, Box::new(system_rng())).context("open a device on a copy")
    }
}

fn open(dir: &Path, key: &DatabaseKey) -> anyhow::Result<SqliteStore> {
    database::open(&Profile::at(dir), key).context("open a copy of a database")
}
