//! Storage faults for a real process (`LD_PRELOAD`): the calls by which it writes and syncs files below one directory.
//!
//! - `MORTISE_FAULT_DIR`: the directory; without it nothing happens.
//! - `MORTISE_FAULT_LOG`: a file outside of it, in which what was written and not yet synced can be found (the module `undo`).
//! - `MORTISE_FAULT_KIND`: `kill` ends the process before the call, `sync` lets every sync fail from there on, `full` lets
//!   writes say that there is no room for a while.
//! - `MORTISE_FAULT_AT`: before which call, counted from 0.
//! - `MORTISE_FAULT_LIES`: set for a disk that says of a sync that it is done, and has not done it.
//!
//! Memory maps are not seen; neither relay nor client keeps anything durable in one. A file's new name is durable when its
//! directory is synced; that a file was made or deleted is taken for durable at once. This must never be linked into the product.

mod plan;
mod undo;

use std::ffi::CStr;

use libc::{c_char, c_int, c_long, c_void, off_t, size_t, ssize_t};

use plan::{Fate, plan};

/// A system call; its result, with `errno` set, as the C library's function would give it.
macro_rules! call {
    ($number:expr, $($argument:expr),+) => {
        // SAFETY: the arguments are the caller's own, passed on to the kernel unchanged.
        unsafe { libc::syscall($number, $($argument),+) }
    };
}

fn fail(error: c_int) -> c_int {
    // SAFETY: the C library gives each thread a place for its error.
    unsafe { *libc::__errno_location() = error };
    -1
}

fn narrow(result: c_long) -> c_int {
    c_int::try_from(result).unwrap_or(-1)
}

fn size(result: c_long) -> ssize_t {
    ssize_t::try_from(result).unwrap_or(-1)
}

/// Writes at the file's position.
///
/// # Safety
/// As `write(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    let real = || size(call!(libc::SYS_write, fd, bytes, count));
    let Some(plan) = plan().filter(|plan| plan.is_ours(fd)) else {
        return real();
    };
    let at = size(call!(libc::SYS_lseek, fd, 0, libc::SEEK_CUR));
    match plan.next_write() {
        Fate::Goes => plan.remember_write(fd, at, count, real),
        Fate::Fails(error) => ssize_t::try_from(fail(error)).unwrap_or(-1),
    }
}

/// Writes at a position.
///
/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(
    fd: c_int,
    bytes: *const c_void,
    count: size_t,
    at: off_t,
) -> ssize_t {
    let real = || size(call!(libc::SYS_pwrite64, fd, bytes, count, at));
    let Some(plan) = plan().filter(|plan| plan.is_ours(fd)) else {
        return real();
    };
    match plan.next_write() {
        Fate::Goes => plan.remember_write(fd, ssize_t::try_from(at).unwrap_or(-1), count, real),
        Fate::Fails(error) => ssize_t::try_from(fail(error)).unwrap_or(-1),
    }
}

/// Writes at a position.
///
/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(
    fd: c_int,
    bytes: *const c_void,
    count: size_t,
    at: off_t,
) -> ssize_t {
    // SAFETY: the caller keeps to what `pwrite(2)` asks for, which is the same.
    unsafe { pwrite64(fd, bytes, count, at) }
}

/// Sets a file's length.
///
/// # Safety
/// As `ftruncate(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    let real = || narrow(call!(libc::SYS_ftruncate, fd, length));
    let Some(plan) = plan().filter(|plan| plan.is_ours(fd)) else {
        return real();
    };
    match plan.next_write() {
        Fate::Goes => plan.remember_length(fd, length, real),
        Fate::Fails(error) => fail(error),
    }
}

/// Sets a file's length.
///
/// # Safety
/// As `ftruncate(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, length: off_t) -> c_int {
    // SAFETY: the caller keeps to what `ftruncate(2)` asks for, which is the same.
    unsafe { ftruncate64(fd, length) }
}

fn sync(number: c_long, fd: c_int) -> c_int {
    let real = || narrow(call!(number, fd));
    let Some(plan) = plan().filter(|plan| plan.is_ours(fd)) else {
        return real();
    };
    match plan.next_sync() {
        Fate::Goes => plan.remember_sync(fd, real),
        Fate::Fails(error) => fail(error),
    }
}

/// Makes a file durable.
///
/// # Safety
/// As `fsync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    sync(libc::SYS_fsync, fd)
}

/// Makes a file's content durable.
///
/// # Safety
/// As `fdatasync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(libc::SYS_fdatasync, fd)
}

/// Gives a file another name.
///
/// # Safety
/// As `rename(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(old: *const c_char, new: *const c_char) -> c_int {
    let real = || {
        narrow(call!(
            libc::SYS_renameat,
            libc::AT_FDCWD,
            old,
            libc::AT_FDCWD,
            new
        ))
    };
    // SAFETY: the caller keeps to what `rename(2)` asks for: both are ended by a zero.
    let paths = unsafe { (CStr::from_ptr(old), CStr::from_ptr(new)) };
    let Some(plan) = plan().filter(|plan| plan.is_below(paths.1.to_bytes())) else {
        return real();
    };
    match plan.next_write() {
        Fate::Goes => plan.remember_rename(paths, real),
        Fate::Fails(error) => fail(error),
    }
}
