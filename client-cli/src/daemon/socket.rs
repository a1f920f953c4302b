//! Where the daemon's socket is, and who may reach it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mortise_protocol::identity::sha256;
use tokio::net::{UnixListener, UnixStream};

use crate::error::CliError;
use crate::profile::Profile;

/// What fits into `sockaddr_un` everywhere, with its final zero byte.
const MAX_PATH_BYTES: usize = 103;
const CONNECT: Duration = Duration::from_secs(2);

/// The daemon's listening socket; its file is removed on drop.
#[derive(Debug)]
pub struct DaemonSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    note: Option<PathBuf>,
}

impl Drop for DaemonSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let Some(note) = &self.note {
            let _ = fs::remove_file(note);
        }
    }
}

impl DaemonSocket {
    /// Listens. Only whoever holds the profile's lock may call this: what is at the path is then left over.
    ///
    /// # Errors
    /// [`CliError::File`], [`CliError::DiskFull`].
    pub fn bind(profile: &Profile) -> Result<Self, CliError> {
        let (path, note) = place(profile)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CliError::file("replace", &path)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(CliError::file("listen on", &path))?;
        let this = Self {
            listener,
            path,
            note,
        };
        fs::set_permissions(&this.path, fs::Permissions::from_mode(0o600))
            .map_err(CliError::file("protect", &this.path))?;
        Ok(this)
    }
}

/// Connects to the daemon of this profile, if there is one.
pub async fn connect(profile: &Profile) -> Option<UnixStream> {
    let path = match fs::read(profile.socket_note()) {
        Ok(bytes) => PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)),
        Err(_) => profile.socket(),
    };
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return None;
    }
    let attempt = UnixStream::connect(&path);
    tokio::time::timeout(CONNECT, attempt).await.ok()?.ok()
}

/// In the profile, or, where that path is too long, in a private directory elsewhere that a note names.
fn place(profile: &Profile) -> Result<(PathBuf, Option<PathBuf>), CliError> {
    let direct = profile.socket();
    if direct.as_os_str().len() <= MAX_PATH_BYTES {
        let _ = fs::remove_file(profile.socket_note());
        return Ok((direct, None));
    }
    let dir = short_dir()?;
    let canonical =
        fs::canonicalize(profile.dir()).map_err(CliError::file("resolve", profile.dir()))?;
    let name = sha256(canonical.as_os_str().as_bytes()).to_string();
    let path = dir.join(format!("{}.sock", &name[..24]));
    profile.replace_file(&profile.socket_note(), path.as_os_str().as_bytes())?;
    Ok((path, Some(profile.socket_note())))
}

/// `$XDG_RUNTIME_DIR/mortise` or `/tmp/mortise-UID`: a directory of ours that nobody else can enter.
fn short_dir() -> Result<PathBuf, CliError> {
    let uid = rustix::process::getuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("mortise"));
    let fits = |dir: &PathBuf| dir.is_absolute() && dir.as_os_str().len() < MAX_PATH_BYTES - 30;
    let dir = runtime
        .filter(fits)
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/mortise-{uid}")));
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(CliError::file("make the directory", &dir)(error));
        }
        _ => {}
    }
    check_private(&dir, uid)?;
    Ok(dir)
}

/// Somebody else may have made it first, in /tmp.
fn check_private(dir: &Path, uid: u32) -> Result<(), CliError> {
    let found = fs::symlink_metadata(dir).map_err(CliError::file("look at", dir))?;
    if found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let error = std::io::Error::other("it is not a private directory of this user");
    Err(CliError::file("use", dir)(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reach(profile: &Profile) -> bool {
        let socket = DaemonSocket::bind(profile).expect("bind");
        let mode = fs::metadata(&socket.path).expect("metadata").mode();
        assert_eq!(mode & 0o777, 0o600);
        let reached = connect(profile).await.is_some();
        drop(socket);
        assert!(connect(profile).await.is_none());
        reached
    }

    #[tokio::test]
    async fn a_socket_is_reached_in_a_short_path_and_in_a_long_one() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let short = Profile::at(tmp.path().join("p"));
        short.make_dir().expect("dir");
        assert!(reach(&short).await);
        assert!(!short.socket_note().exists());
        let long = Profile::at(tmp.path().join("x".repeat(120)));
        long.make_dir().expect("dir");
        assert!(reach(&long).await);
        assert!(!long.socket_note().exists());
    }

    #[tokio::test]
    async fn what_a_dead_daemon_left_is_replaced() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let profile = Profile::at(tmp.path());
        std::mem::forget(DaemonSocket::bind(&profile).expect("bind"));
        assert!(reach(&profile).await);
    }

    #[test]
    fn a_directory_that_others_can_enter_is_not_used() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let uid = rustix::process::getuid().as_raw();
        let set = |mode| fs::set_permissions(tmp.path(), fs::Permissions::from_mode(mode));
        set(0o700).expect("chmod");
        check_private(tmp.path(), uid).expect("private");
        set(0o750).expect("chmod");
        check_private(tmp.path(), uid).expect_err("open to others");
        set(0o700).expect("chmod");
        check_private(tmp.path(), uid.wrapping_add(1)).expect_err("of another user");
    }
}
