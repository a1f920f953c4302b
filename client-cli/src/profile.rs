//! A profile: the private directory (0700) that holds one device's keys and database, and its lock.
//!
//! Every file in it is 0600. One process at a time works on it: whoever holds the lock. This module must
//! never look into the database or the key file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// Where a profile is when nobody says otherwise: `$XDG_DATA_HOME/mortise/default`.
///
/// # Errors
/// [`CliError::Usage`] on a machine without a home directory.
pub fn default_dir() -> Result<PathBuf, CliError> {
    directories::ProjectDirs::from("", "", "mortise")
        .map(|dirs| dirs.data_dir().join("default"))
        .ok_or_else(|| CliError::Usage {
            what: "this account has no home directory; name one with --profile".into(),
        })
}

/// The files of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    dir: PathBuf,
}

/// Proof that this process is the only one that works on the profile; let go on drop.
#[derive(Debug)]
pub struct ProfileLock {
    _file: File,
}

/// The two ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// `mortise org create`.
    Found,
    /// `mortise join`.
    Join,
    /// `mortise org recover`.
    Recover,
}

/// What founding or joining writes down before anybody knows how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unfinished {
    version: u8,
    /// Which of the two it is.
    pub way: Way,
    /// Whether something that uses up the link may have reached the relay.
    pub sent: bool,
}

impl Unfinished {
    /// The mark; `sent` once something that uses up the link goes out.
    #[must_use]
    pub const fn new(way: Way, sent: bool) -> Self {
        Self {
            version: 1,
            way,
            sent,
        }
    }
}

impl Profile {
    /// The profile in this directory, which need not exist.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The salted header from which the database's key is derived.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.dir.join("client.key")
    }

    /// The SQLCipher database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.dir.join("client.db")
    }

    /// Where the daemon listens, unless the path is too long for a socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("mortise.sock")
    }

    /// Where the daemon notes that it listens elsewhere.
    #[must_use]
    pub fn socket_note(&self) -> PathBuf {
        self.dir.join("socket")
    }

    fn unfinished_file(&self) -> PathBuf {
        self.dir.join("unfinished")
    }

    /// Whether there is one.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.key_file().exists() || self.database().exists()
    }

    /// Fails if there is none.
    ///
    /// # Errors
    /// [`CliError::NoProfile`].
    pub fn must_exist(&self) -> Result<(), CliError> {
        if self.exists() {
            return Ok(());
        }
        Err(CliError::NoProfile {
            dir: self.dir.clone(),
        })
    }

    /// Makes the directory if it is missing, and private if it is not.
    ///
    /// # Errors
    /// [`CliError::File`], [`CliError::DiskFull`].
    pub fn make_dir(&self) -> Result<(), CliError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(CliError::file("make the directory", &self.dir))?;
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))
            .map_err(CliError::file("protect the directory", &self.dir))
    }

    /// Takes the lock, or says that somebody else has it.
    ///
    /// # Errors
    /// [`CliError::ProfileLocked`]; [`CliError::File`].
    pub fn lock(&self) -> Result<ProfileLock, CliError> {
        let path = self.dir.join("lock");
        let file = private()
            .truncate(false)
            .create(true)
            .open(&path)
            .map_err(CliError::file("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(ProfileLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(CliError::ProfileLocked {
                dir: self.dir.clone(),
            }),
            Err(error) => Err(CliError::file("lock", &path)(error.into())),
        }
    }

    /// The mark of an unfinished founding or joining.
    ///
    /// # Errors
    /// [`CliError::Corrupt`], [`CliError::File`].
    pub fn unfinished(&self) -> Result<Option<Unfinished>, CliError> {
        let path = self.unfinished_file();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(CliError::file("read", &path))?,
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| CliError::Corrupt {
                file: "mark of an unfinished joining",
                reason: error.to_string(),
            })
    }

    /// Sets the mark, durably.
    ///
    /// # Errors
    /// [`CliError::File`], [`CliError::DiskFull`].
    pub fn mark_unfinished(&self, mark: Unfinished) -> Result<(), CliError> {
        let text = serde_json::to_vec(&mark).map_err(|e| CliError::Internal(e.to_string()))?;
        self.replace_file(&self.unfinished_file(), &text)
    }

    /// Takes the mark away.
    ///
    /// # Errors
    /// [`CliError::File`].
    pub fn mark_finished(&self) -> Result<(), CliError> {
        remove(&self.unfinished_file())
    }

    /// Writes a file of the profile whole, durably, 0600.
    ///
    /// # Errors
    /// [`CliError::File`], [`CliError::DiskFull`]; the earlier file, if any, is as it was.
    pub fn replace_file(&self, path: &Path, content: &[u8]) -> Result<(), CliError> {
        let fresh = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = private().create(true).truncate(true).open(&fresh)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&fresh, path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(CliError::file("write", path))
    }

    /// Deletes what a founding or joining that failed for good left behind.
    ///
    /// The lock file stays for whoever waits on it, and so does the directory.
    ///
    /// # Errors
    /// [`CliError::File`].
    pub fn wipe(&self, _lock: &ProfileLock) -> Result<(), CliError> {
        let database = self.database();
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = database.clone().into_os_string();
            name.push(suffix);
            remove(Path::new(&name))?;
        }
        remove(&self.key_file())?;
        remove(&self.socket_note())?;
        // Last: while it is there, what is left is known to be rubbish.
        remove(&self.unfinished_file())
    }
}

/// Writes a new file of the user's, durably, 0600; never over another.
///
/// # Errors
/// [`CliError::FileExists`], [`CliError::File`], [`CliError::DiskFull`].
pub fn write_new_secret(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let write = || -> std::io::Result<()> {
        let mut file = private().create_new(true).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::FileExists { path: path.into() },
        _ => CliError::file("write", path)(error),
    })
}

/// Makes an empty 0600 file unless there is one.
///
/// # Errors
/// [`CliError::File`], [`CliError::DiskFull`].
pub(crate) fn make_private(path: &Path) -> Result<(), CliError> {
    private()
        .create(true)
        .truncate(false)
        .open(path)
        .map(drop)
        .map_err(CliError::file("make", path))
}

/// Reads at most `limit` bytes of a file.
///
/// # Errors
/// [`CliError::File`]; [`CliError::TooLarge`].
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut content))
        .map_err(CliError::file("read", path))?;
    if content.len() as u64 > limit {
        return Err(CliError::TooLarge(format!(
            "{} is larger than {limit} bytes",
            path.display()
        )));
    }
    Ok(content)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn remove(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(CliError::file("delete", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn everything_is_private() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let profile = Profile::at(tmp.path().join("a/b"));
        profile.make_dir().expect("dir");
        let lock = profile.lock().expect("lock");
        profile
            .replace_file(&profile.key_file(), b"x")
            .expect("write");
        make_private(&profile.database()).expect("make");
        assert_eq!(mode(profile.dir()), 0o700);
        assert_eq!(mode(&profile.key_file()), 0o600);
        assert_eq!(mode(&profile.database()), 0o600);
        assert_eq!(mode(&profile.dir().join("lock")), 0o600);
        assert!(profile.exists());
        profile.wipe(&lock).expect("wipe");
        assert!(!profile.exists());
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let profile = Profile::at(tmp.path());
        let first = profile.lock().expect("lock");
        let error = profile.lock().expect_err("locked");
        assert_eq!(error.exit(), Exit::Profile);
        assert!(
            error
                .to_string()
                .contains("another mortise is using this profile")
        );
        drop(first);
        profile.lock().expect("free again");
    }

    #[test]
    fn the_mark_reads_back() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let profile = Profile::at(tmp.path());
        assert_eq!(profile.unfinished().expect("read"), None);
        for sent in [false, true] {
            let mark = Unfinished::new(Way::Join, sent);
            profile.mark_unfinished(mark).expect("mark");
            assert_eq!(profile.unfinished().expect("read"), Some(mark));
        }
        profile.mark_finished().expect("unmark");
        assert_eq!(profile.unfinished().expect("read"), None);
    }

    #[test]
    fn a_secret_never_overwrites() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let path = tmp.path().join("root.key");
        write_new_secret(&path, b"1").expect("write");
        assert_eq!(mode(&path), 0o600);
        let error = write_new_secret(&path, b"2").expect_err("exists");
        assert!(matches!(error, CliError::FileExists { .. }));
        assert_eq!(fs::read(&path).expect("read"), b"1");
    }
}
