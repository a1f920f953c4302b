//! The data directory: what is in it, how it is made, how its secrets are read.
//!
//! ```text
//! relay.toml       what the operator decides
//! relay.db         the store: the database        relay.journal/   what came last (unless relay.toml names a shared one)
//! certificate.der  what devices see        certificate.key  PKCS#8, 0600
//! statement.key    Ed25519 seed, 0600      lock, admin.sock while a relay runs
//! ```
//! This module must never overwrite a file, and never print a secret.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mortise_protocol::identity::{ClaimLink, SigningKey};
use mortise_protocol::store::Store;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use crate::claim::{ClaimIssuer, token_hash};
use crate::config::ConfigFile;
use crate::core::{Core, CoreConfig, CoreError};
use crate::net::tls::{ServerIdentity, TlsError};
use crate::store::postgres::{ConnectError, PgStore, draw_lane};
use crate::store::{self, OpenError};

/// Why a data directory cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// There is something already.
    #[error("{} is not empty: choose another directory; nothing was changed", .path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// There is no relay here.
    #[error("{} is not a relay's data directory: make one with `mortise-relay init`", .path.display())]
    NotInitialised {
        /// Which.
        path: PathBuf,
    },
    /// The configuration does not parse.
    #[error("{} does not parse: {reason}", .path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A secret that others can read.
    #[error("{} can be read by others: run `chmod 600 {}`, and consider the key known", .path.display(), .path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
    },
    /// A key file that holds no key.
    #[error("{} is damaged: restore it from a backup", .path.display())]
    DamagedKey {
        /// Which file.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The shared database.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The database's content.
    #[error(transparent)]
    Core(#[from] CoreError),
}

/// What `init` has made.
#[derive(Debug)]
pub struct Initialised {
    /// Address, fingerprint, statement key and claim token, for the founder of one organisation.
    pub claim: ClaimLink,
    /// Whether the address in it is only a guess that works on this machine.
    pub address_is_local: bool,
}

/// A relay's data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Makes a data directory, 0700, with everything that a relay needs.
    ///
    /// # Errors
    /// [`DataDirError`]; a directory that is not empty is left as it is.
    pub fn init(
        path: &Path,
        listen: SocketAddr,
        public_address: Option<String>,
    ) -> Result<Initialised, DataDirError> {
        Self::init_with(path, &ConfigFile::new(listen, public_address))
    }

    /// As [`DataDir::init`], with this configuration; where it names a shared database, the relay's tables are made there.
    ///
    /// # Errors
    /// As [`DataDir::init`]; a database that holds a relay is left as it is.
    pub fn init_with(path: &Path, config: &ConfigFile) -> Result<Initialised, DataDirError> {
        let dir = Self { path: path.into() };
        dir.make()?;
        let listen = config.listen;
        // Before any file: a database that refuses leaves an empty directory, in which `init` can be tried again.
        let shared = config
            .storage
            .as_ref()
            .map(|address| PgStore::create(address, draw_lane()?));
        let shared = shared.transpose()?;
        let identity = ServerIdentity::generate()?;
        let seed = draw_seed().map_err(|error| dir.io("statement.key", error))?;
        let statement_key = SigningKey::from_seed(&seed);
        let issuer = ClaimIssuer {
            relay: config.address(listen),
            relay_key: identity.fingerprint()?,
            statement_key: statement_key.public(),
        };
        let claim = issuer.issue().map_err(|error| dir.io("relay.db", error))?;

        dir.write("certificate.der", identity.certificate())?;
        dir.write("certificate.key", identity.dangerous_key())?;
        dir.write("statement.key", seed.as_ref())?;
        let mut store: Box<dyn Store> = match shared {
            None => Box::new(store::create(&dir.database())?),
            Some(shared) => Box::new(shared),
        };
        let mut core = Core::load(&store, CoreConfig::new(statement_key))?;
        core.add_claim_token(&mut store, token_hash(&claim))?;
        drop(store);
        // Last: with it the directory is a relay's.
        dir.write("relay.toml", config_text(config).as_bytes())?;
        dir.sync()?;
        Ok(Initialised {
            claim,
            address_is_local: config.public_address.is_none() && listen.ip().is_unspecified(),
        })
    }

    /// A data directory that `init` has made.
    ///
    /// # Errors
    /// [`DataDirError::NotInitialised`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        if path.join("relay.toml").is_file() {
            Ok(Self { path: path.into() })
        } else {
            Err(DataDirError::NotInitialised { path: path.into() })
        }
    }

    /// Makes an empty directory, 0700, for a copy.
    ///
    /// # Errors
    /// [`DataDirError`]; a directory that is not empty is left as it is.
    pub(crate) fn make_empty(path: &Path) -> Result<Self, DataDirError> {
        let dir = Self { path: path.into() };
        dir.make()?;
        Ok(dir)
    }

    /// Copies everything but the store from `other`; the configuration last: with it the directory is a relay's.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub(crate) fn copy_files(&self, other: &Self) -> Result<(), DataDirError> {
        for name in [
            "certificate.der",
            "certificate.key",
            "statement.key",
            "relay.toml",
        ] {
            let bytes = std::fs::read(other.path.join(name)).map(Zeroizing::new);
            let bytes = bytes.map_err(|error| other.io(name, error))?;
            self.write(name, &bytes)?;
        }
        self.sync()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join("relay.db")
    }

    /// The admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    /// Opens the relay's database, wherever it is: for a command that does not run the relay.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open_store(&self) -> Result<Box<dyn Store>, DataDirError> {
        Ok(match self.config()?.storage {
            None => Box::new(store::open(&self.database())?),
            Some(address) => Box::new(PgStore::open(&address, draw_lane()?)?),
        })
    }

    /// Reads `relay.toml`.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn config(&self) -> Result<ConfigFile, DataDirError> {
        let path = self.path.join("relay.toml");
        let text = std::fs::read_to_string(&path).map_err(|error| self.io("relay.toml", error))?;
        toml::from_str(&text).map_err(|error| DataDirError::Config {
            path,
            reason: error.message().into(),
        })
    }

    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn identity(&self) -> Result<ServerIdentity, DataDirError> {
        let certificate = std::fs::read(self.path.join("certificate.der"))
            .map_err(|error| self.io("certificate.der", error))?;
        Ok(ServerIdentity::from_der(
            certificate,
            self.secret("certificate.key")?,
        ))
    }

    /// Reads the key that the relay signs its statements with.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn statement_key(&self) -> Result<SigningKey, DataDirError> {
        let bytes = self.secret("statement.key")?;
        let seed = bytes
            .as_slice()
            .try_into()
            .map(Zeroizing::new)
            .map_err(|_| DataDirError::DamagedKey {
                path: self.path.join("statement.key"),
            })?;
        Ok(SigningKey::from_seed(&seed))
    }

    fn make(&self) -> Result<(), DataDirError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path);
        made.map_err(|error| self.io("", error))?;
        let mut entries = std::fs::read_dir(&self.path).map_err(|error| self.io("", error))?;
        if entries.next().is_some() {
            return Err(DataDirError::NotEmpty {
                path: self.path.clone(),
            });
        }
        // An empty directory that was there before may be anybody's.
        std::fs::set_permissions(&self.path, Permissions::from_mode(0o700))
            .map_err(|error| self.io("", error))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path.join(name))
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        written.map_err(|error| self.io(name, error))
    }

    fn secret(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, DataDirError> {
        let path = self.path.join(name);
        let metadata = std::fs::metadata(&path).map_err(|error| self.io(name, error))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(DataDirError::TooOpen { path });
        }
        let bytes = std::fs::read(&path).map_err(|error| self.io(name, error))?;
        Ok(Zeroizing::new(bytes))
    }

    fn sync(&self) -> Result<(), DataDirError> {
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| self.io("", error))
    }

    fn io(&self, name: &str, error: io::Error) -> DataDirError {
        DataDirError::Io {
            path: self.path.join(name),
            error,
        }
    }
}

fn draw_seed() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    OsRng
        .try_fill_bytes(seed.as_mut())
        .map_err(io::Error::other)?;
    Ok(seed)
}

fn config_text(config: &ConfigFile) -> String {
    let body = toml::to_string(config).expect("addresses, a string and a number have a TOML form");
    format!("# The Mortise relay's configuration; read when it starts.\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULT_LISTEN;

    #[test]
    fn what_init_makes_is_private_and_reads_back() {
        let parent = tempfile::tempdir().expect("dir");
        let path = parent.path().join("data");
        let made = DataDir::init(&path, DEFAULT_LISTEN, None).expect("init");
        assert_eq!(made.claim.relay, "127.0.0.1:4433");
        assert!(made.address_is_local);
        let mode = |path: &Path| {
            std::fs::metadata(path)
                .expect("metadata")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&path) & 0o777, 0o700);
        for entry in std::fs::read_dir(&path).expect("read") {
            let entry = entry.expect("entry").path();
            let private = if entry.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&entry) & 0o777, private, "{}", entry.display());
        }
        let dir = DataDir::open(&path).expect("open");
        assert_eq!(dir.config().expect("config").listen, DEFAULT_LISTEN);
        let identity = dir.identity().expect("identity");
        assert_eq!(
            identity.fingerprint().expect("fingerprint"),
            made.claim.relay_key
        );
        dir.statement_key().expect("statement key");
    }

    #[test]
    fn init_refuses_a_directory_that_is_not_empty() {
        let dir = tempfile::tempdir().expect("dir");
        DataDir::init(&dir.path().join("a"), DEFAULT_LISTEN, None).expect("init");
        for path in [dir.path().join("a"), dir.path().into()] {
            let again = DataDir::init(&path, DEFAULT_LISTEN, None);
            assert!(matches!(again, Err(DataDirError::NotEmpty { .. })));
        }
        let nowhere = DataDir::open(dir.path());
        assert!(matches!(nowhere, Err(DataDirError::NotInitialised { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let parent = tempfile::tempdir().expect("dir");
        let path = parent.path().join("data");
        DataDir::init(&path, DEFAULT_LISTEN, None).expect("init");
        let key = path.join("statement.key");
        std::fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("chmod");
        let dir = DataDir::open(&path).expect("open");
        assert!(matches!(
            dir.statement_key(),
            Err(DataDirError::TooOpen { .. })
        ));
    }

    /// REQ-024: only the hash of a claim token is stored.
    #[test]
    fn the_claim_token_is_nowhere_on_disk() {
        let parent = tempfile::tempdir().expect("dir");
        let path = parent.path().join("data");
        let made = DataDir::init(&path, DEFAULT_LISTEN, None).expect("init");
        let needle = made.claim.token.dangerous_bytes();
        let files = |dir: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(dir).expect("read");
            entries.map(|entry| entry.expect("entry").path()).collect()
        };
        let journal = files(&path.join("relay.journal"));
        assert!(!journal.is_empty());
        let plain = files(&path).into_iter().filter(|file| file.is_file());
        for file in plain.chain(journal) {
            let bytes = std::fs::read(file).expect("read");
            assert!(!bytes.windows(needle.len()).any(|window| window == needle));
        }
    }
}
