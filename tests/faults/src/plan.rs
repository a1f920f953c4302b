//! What is to happen, and when: read once from the environment.

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_int, off_t, ssize_t};

use crate::undo;

/// How many writes find no room.
const FULL_CALLS: u64 = 40;
/// The longest path of a file below the directory.
const PATH_BYTES: usize = 4_096;

/// What becomes of a call.
pub(crate) enum Fate {
    Goes,
    /// With this `errno`.
    Fails(c_int),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Kill,
    Sync,
    Full,
}

/// The plan of this process.
pub(crate) struct Plan {
    dir: Vec<u8>,
    kind: Kind,
    at: u64,
    /// The disk lies: what it says is synced is not.
    lies: bool,
    calls: AtomicU64,
    /// The undo log; held while a call is made, so that it lists calls in their order.
    log: Mutex<c_int>,
}

/// The plan, if there is one.
pub(crate) fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    // Who asks while the environment is read is the environment's reader: it has no plan.
    PLAN.get_or_init(Plan::read).as_ref()
}

fn variable(name: &CStr) -> Option<Vec<u8>> {
    // SAFETY: `getenv` gives null or a string; the process does not change its environment while it starts.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: not null, and ended by a zero.
    Some(unsafe { CStr::from_ptr(value) }.to_bytes().to_vec())
}

impl Plan {
    fn read() -> Option<Self> {
        let dir = variable(c"MORTISE_FAULT_DIR")?;
        let log = CString::new(variable(c"MORTISE_FAULT_LOG")?).ok()?;
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC;
        // SAFETY: a path that is ended by a zero.
        let log = unsafe { libc::open(log.as_ptr(), flags, 0o600) };
        let number = |bytes: Vec<u8>| std::str::from_utf8(&bytes).ok()?.parse().ok();
        let kind = match variable(c"MORTISE_FAULT_KIND").as_deref() {
            Some(b"kill") => Kind::Kill,
            Some(b"sync") => Kind::Sync,
            Some(b"full") => Kind::Full,
            _ => Kind::None,
        };
        Some(Self {
            dir,
            kind,
            at: variable(c"MORTISE_FAULT_AT")
                .and_then(number)
                .unwrap_or(u64::MAX),
            lies: variable(c"MORTISE_FAULT_LIES").is_some(),
            calls: AtomicU64::new(0),
            log: Mutex::new(log),
        })
    }

    /// Whether a descriptor is of a file below the directory.
    pub(crate) fn is_ours(&self, fd: c_int) -> bool {
        path_of(fd).is_some_and(|path| self.is_below(path.as_bytes()))
    }

    /// Whether a path is below the directory.
    pub(crate) fn is_below(&self, path: &[u8]) -> bool {
        path.starts_with(&self.dir)
    }

    fn next(&self) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if self.kind == Kind::Kill && call >= self.at {
            // SAFETY: ends this process and no other.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        call
    }

    pub(crate) fn next_write(&self) -> Fate {
        let call = self.next();
        let room = self.at.saturating_add(FULL_CALLS);
        match self.kind {
            Kind::Full if (self.at..room).contains(&call) => Fate::Fails(libc::ENOSPC),
            _ => Fate::Goes,
        }
    }

    pub(crate) fn next_sync(&self) -> Fate {
        let call = self.next();
        match self.kind {
            Kind::Sync if call >= self.at => Fate::Fails(libc::EIO),
            _ => Fate::Goes,
        }
    }

    pub(crate) fn remember_write(
        &self,
        fd: c_int,
        at: ssize_t,
        count: usize,
        real: impl FnOnce() -> ssize_t,
    ) -> ssize_t {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(path), Ok(at)) = (path_of(fd), u64::try_from(at)) {
            undo::write(*log, &path, fd, at, count);
        }
        real()
    }

    pub(crate) fn remember_length(
        &self,
        fd: c_int,
        length: off_t,
        real: impl FnOnce() -> c_int,
    ) -> c_int {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(path), Ok(length)) = (path_of(fd), u64::try_from(length)) {
            undo::length(*log, &path, fd, length);
        }
        real()
    }

    pub(crate) fn remember_rename(
        &self,
        (old, new): (&CStr, &CStr),
        real: impl FnOnce() -> c_int,
    ) -> c_int {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        undo::rename(*log, old.to_bytes(), new.to_bytes());
        real()
    }

    pub(crate) fn remember_sync(&self, fd: c_int, real: impl FnOnce() -> c_int) -> c_int {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let result = real();
        if let (0, false, Some(path)) = (result, self.lies, path_of(fd)) {
            undo::sync(*log, &path);
        }
        result
    }
}

/// The path of an open file.
fn path_of(fd: c_int) -> Option<OsString> {
    let link = CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    let mut path = vec![0_u8; PATH_BYTES];
    // SAFETY: the link ends with a zero, and the buffer is as long as is said.
    let length = unsafe { libc::readlink(link.as_ptr(), path.as_mut_ptr().cast(), path.len()) };
    path.truncate(usize::try_from(length).ok()?);
    Some(OsString::from_vec(path))
}
