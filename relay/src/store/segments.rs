//! The journal's files: `N.log`, numbered without a gap, each of a fixed length that is allocated before it is used.
//!
//! A file is written from its start, one frame after the other, each synced before the next. Files whose frames are
//! all in the database are renamed to the numbers after the last, and written over: their old frames name another segment.
//! This module must never write over a frame that the database may lack.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mortise_protocol::store::StoreError;

use super::frame::{self, JournalId, Lsn, Segment};

/// What a segment is allocated with, bytes; a larger batch makes one longer.
pub(super) const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Segments that wait to be written over; more are deleted.
const MAX_SPARES: u64 = 24;
/// Zeros that are written at a time, bytes.
const ZEROS: usize = 1024 * 1024;

/// Up to where the database has the journal: stored in it, in the transaction that brings it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) journal: JournalId,
    /// The newest batch that is in the database; 0 before the first.
    pub(super) lsn: Lsn,
    /// The segment of that batch; every one before it may be gone.
    pub(super) segment: Segment,
    /// Whether the relay was stopped in order: then the journal holds nothing that the database lacks.
    pub(super) closed: bool,
}

/// Why a journal is not gone on with.
#[derive(Debug)]
pub(super) enum JournalError {
    /// Part of it is not there.
    Missing,
    /// It is not what was written, or not what belongs to the database.
    Damaged(&'static str),
    /// The system failed.
    Io(io::Error),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a system's error means for a store.
pub(super) fn store_error(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Backend {
            reason: format!("the journal: {error}"),
        },
    }
}

/// A batch that was found in the journal and is not in the database.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) lsn: Lsn,
    pub(super) segment: Segment,
    pub(super) frame: Bytes,
}

/// Every segment's file; those after the one that is written wait.
#[derive(Debug)]
pub(super) struct Pool {
    dir: PathBuf,
    first: Segment,
    last: Segment,
}

impl Pool {
    /// Makes the directory and its first file, which is written next.
    pub(super) fn create(dir: &Path) -> io::Result<(Self, Writer)> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let first = Segment(1);
        let mut pool = Self {
            dir: dir.into(),
            first,
            last: Segment(0),
        };
        let file = pool.ready(first)?;
        pool.ready(first.next())?;
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        let writer = Writer {
            file,
            number: first,
            at: 0,
        };
        Ok((pool, writer))
    }

    /// Reads and verifies all that the database may lack (REQ-340); what is written next goes behind it, over a torn frame.
    pub(super) fn recover(
        dir: &Path,
        applied: Applied,
    ) -> Result<(Self, Writer, Vec<Found>), JournalError> {
        let numbers = list(dir)?;
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
            return Err(JournalError::Missing);
        };
        let mut pool = Self {
            dir: dir.into(),
            first: *first,
            last: *last,
        };
        if last.0 - first.0 + 1 != numbers.len() as u64 || !numbers.contains(&applied.segment) {
            return Err(JournalError::Missing);
        }
        let mut scan = Scan {
            applied,
            newest: None,
            tail: (applied.segment, 0),
            found: Vec::new(),
        };
        for number in numbers.range(applied.segment..) {
            scan.segment(*number, &std::fs::read(pool.path(*number))?.into())?;
        }
        let newest = scan.newest.unwrap_or(Lsn(0));
        if newest < applied.lsn {
            return Err(JournalError::Damaged("it ends before the database does"));
        }
        if applied.closed && newest > applied.lsn {
            return Err(JournalError::Damaged("the database is older than it"));
        }
        pool.sync_dir()?;
        let (number, at) = scan.tail;
        let file = open(&pool.path(number), false)?;
        match pool.ready(number.next()) {
            // A full disk does not keep a relay from starting; it makes the next segment's batch wait.
            Err(error) if !matches!(store_error(&error), StoreError::Full) => {
                return Err(error.into());
            }
            _ => {}
        }
        Ok((pool, Writer { file, number, at }, scan.found))
    }

    fn path(&self, number: Segment) -> PathBuf {
        self.dir.join(format!("{:016x}.log", number.0))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// The segment after `current`, ready to be written from its start, with another one behind it: so a segment that is lost
    /// leaves a gap, the newest too (REQ-340).
    pub(super) fn after(&mut self, current: Segment) -> io::Result<Writer> {
        let number = current.next();
        let file = self.ready(number)?;
        self.ready(number.next())?;
        Ok(Writer {
            file,
            number,
            at: 0,
        })
    }

    /// A segment's file, made if it is the next, and as long as it has to be.
    fn ready(&mut self, number: Segment) -> io::Result<File> {
        let is_new = number > self.last;
        let path = self.path(number);
        let made = open(&path, is_new).and_then(|file| {
            let length = file.metadata()?.len();
            if length < SEGMENT_BYTES {
                fill(&file, length)?;
                self.sync_dir()?;
            }
            Ok(file)
        });
        match &made {
            Ok(_) => self.last = self.last.max(number),
            // Half a segment would be one that waits; it is made anew when there is room.
            Err(_) if is_new => drop(std::fs::remove_file(&path)),
            Err(_) => {}
        }
        made
    }

    /// Everything before `needed` is in the database: those files become the next ones. `current` is being written.
    pub(super) fn retire(&mut self, needed: Segment, current: Segment) -> io::Result<()> {
        while self.first < needed {
            let old = self.path(self.first);
            if self.last.0 - current.0 >= MAX_SPARES {
                std::fs::remove_file(old)?;
            } else {
                let file = open(&old, false)?;
                if file.metadata()?.len() > SEGMENT_BYTES {
                    file.set_len(SEGMENT_BYTES)?;
                    file.sync_all()?;
                }
                std::fs::rename(old, self.path(self.last.next()))?;
                // Before anything is written there: a frame must be found under the number that it says.
                self.sync_dir()?;
                self.last = self.last.next();
            }
            self.first = self.first.next();
        }
        Ok(())
    }
}

/// The numbers of the files in a journal's directory; none when it is not there.
pub(super) fn list(dir: &Path) -> io::Result<BTreeSet<Segment>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut numbers = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".log"));
        if let Some(number) = stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()) {
            numbers.insert(Segment(number));
        }
    }
    Ok(numbers)
}

/// What the files of a journal's directory take, bytes.
pub(super) fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}

/// Deletes the files of a journal in which nothing was ever written.
///
/// # Errors
/// [`JournalError::Damaged`] when something was.
pub(super) fn clear_unused(dir: &Path) -> Result<(), JournalError> {
    for number in list(dir)? {
        let path = dir.join(format!("{:016x}.log", number.0));
        if std::fs::read(&path)?.iter().any(|byte| *byte != 0) {
            return Err(JournalError::Damaged("it is not this database's"));
        }
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create_new(create)
        .mode(0o600);
    options.open(path)
}

/// Allocates a segment from `from` on by writing it: what is only reserved would be slow to sync later.
fn fill(file: &File, from: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut at = from;
    while at < SEGMENT_BYTES {
        let count = usize::try_from(SEGMENT_BYTES - at).map_or(ZEROS, |left| left.min(ZEROS));
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    file.sync_all()
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    pub(super) number: Segment,
    at: u64,
}

impl Writer {
    /// Whether a frame goes here; into an empty segment it always does.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.at == 0 || self.at + bytes as u64 <= SEGMENT_BYTES
    }

    /// Writes a frame; it counts when it is synced.
    pub(super) fn write(&self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all_at(frame, self.at)
    }

    /// Makes the frame that was written durable; the next one goes behind it.
    pub(super) fn sync(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.sync_data()?;
        self.at += frame.len() as u64;
        Ok(())
    }

    /// Makes sure, as far as it can be had, that a frame that was refused is not found.
    pub(super) fn forget(&self) {
        let _ = self.file.write_all_at(&[0; frame::HEADER_BYTES], self.at);
    }
}

/// Reads segments in order and judges what is in them.
struct Scan {
    applied: Applied,
    newest: Option<Lsn>,
    /// The last segment with a frame, and where its frames end.
    tail: (Segment, u64),
    found: Vec<Found>,
}

impl Scan {
    /// One segment: whole frames, each with the next number; then nothing of this journal.
    ///
    /// The last frame of the journal may be torn: it was being written, and nobody was answered. Behind it there is
    /// nothing, since the next one is written when this one is durable; so whatever is whole behind one that is not
    /// says that this one was, too, and is damaged (REQ-341).
    fn segment(&mut self, number: Segment, bytes: &Bytes) -> Result<(), JournalError> {
        let mut at = 0;
        while let Some((place, frame)) = frame::read(&bytes.slice(at..)) {
            if place.journal != self.applied.journal {
                return Err(JournalError::Damaged("it is not this database's"));
            }
            if place.segment != number {
                break;
            }
            let is_next = match self.newest {
                Some(newest) => place.lsn == newest.next(),
                None => place.lsn <= self.applied.lsn.next(),
            };
            if !is_next {
                return Err(JournalError::Damaged("a batch is missing"));
            }
            self.newest = Some(place.lsn);
            at += frame.len();
            self.tail = (number, at as u64);
            if place.lsn > self.applied.lsn {
                self.found.push(Found {
                    lsn: place.lsn,
                    segment: number,
                    frame,
                });
            }
        }
        match frame::find(&bytes.slice(at..), self.applied.journal, number) {
            Some(_) => Err(JournalError::Damaged("a batch is damaged")),
            None => Ok(()),
        }
    }
}
