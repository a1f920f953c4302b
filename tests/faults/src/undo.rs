//! The undo log: for every write, what was there before; for every sync, that what was before it is durable.
//!
//! A line of JSON would need an escape for every byte; so it is binary. Each entry: kind (1 write, 2 length, 3 sync, 4 rename),
//! the length of the path in 2 bytes and the path; for kind 4 the same of the new path; for kinds 1 and 2 then where it begins, how long the file was, how many bytes
//! are written (or the new length), how many are overwritten, 8 bytes each, and those that are overwritten. Numbers are big-endian.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use libc::c_int;

const WRITE: u8 = 1;
const LENGTH: u8 = 2;
const SYNC: u8 = 3;
const RENAME: u8 = 4;

pub(crate) fn write(log: c_int, path: &OsString, fd: c_int, at: u64, count: usize) {
    let before = length_of(fd);
    let count = count as u64;
    let overwritten = before.saturating_sub(at).min(count);
    change(
        log,
        (WRITE, path),
        fd,
        [at, before, count],
        (at, overwritten),
    );
}

pub(crate) fn length(log: c_int, path: &OsString, fd: c_int, length: u64) {
    let before = length_of(fd);
    let lost = before.saturating_sub(length);
    change(
        log,
        (LENGTH, path),
        fd,
        [length, before, length],
        (length, lost),
    );
}

pub(crate) fn sync(log: c_int, path: &OsString) {
    append(log, &head(SYNC, path.as_bytes()));
}

pub(crate) fn rename(log: c_int, old: &[u8], new: &[u8]) {
    let mut entry = head(RENAME, old);
    // The second path as the first, without a kind.
    entry.extend_from_slice(&head(RENAME, new)[1..]);
    append(log, &entry);
}

fn change(
    log: c_int,
    (kind, path): (u8, &OsString),
    fd: c_int,
    numbers: [u64; 3],
    (from, count): (u64, u64),
) {
    let mut entry = head(kind, path.as_bytes());
    let old = read(fd, from, count);
    for number in numbers.into_iter().chain([old.len() as u64]) {
        entry.extend(number.to_be_bytes());
    }
    entry.extend(old);
    append(log, &entry);
}

fn head(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(0);
    let mut entry = vec![kind];
    entry.extend(length.to_be_bytes());
    entry.extend(bytes);
    entry
}

fn length_of(fd: c_int) -> u64 {
    // SAFETY: all zeros is a valid value of this plain structure, which the kernel fills.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::fstat(fd, &raw mut stat) };
    if result == 0 {
        u64::try_from(stat.st_size).unwrap_or(0)
    } else {
        0
    }
}

/// What stands in a file; the descriptor may be for writing only, so that it is opened once more.
fn read(fd: c_int, from: u64, count: u64) -> Vec<u8> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
    if bytes.is_empty() {
        return bytes;
    }
    let read = std::fs::File::open(format!("/proc/self/fd/{fd}"))
        .and_then(|file| file.read_exact_at(&mut bytes, from));
    if read.is_err() {
        bytes.clear();
    }
    bytes
}

fn append(log: c_int, entry: &[u8]) {
    // SAFETY: the bytes outlive the call.
    unsafe { libc::syscall(libc::SYS_write, log, entry.as_ptr(), entry.len()) };
}
