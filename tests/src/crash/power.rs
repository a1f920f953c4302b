//! What a machine that loses its power leaves of files: everything up to their last sync, and any part of what came after.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rand::Rng;

/// A change that was made to a file; the layout is that of `tests/faults/src/undo.rs`.
struct Change {
    path: PathBuf,
    from: u64,
    length_before: u64,
    /// Whether it set a length and wrote nothing.
    is_length: bool,
    /// Where what it wrote ends; of a new length, that length.
    end: u64,
    old: Vec<u8>,
    /// What the file is called since then, of a change of its name.
    renamed: Option<PathBuf>,
}

/// What a disk writes wholly or not at all, bytes.
const SECTOR: u64 = 512;

/// Which unsynced changes are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of them.
    All,
    /// Those after a random one.
    Tail,
    /// Each with an even chance, as a disk that reorders writes leaves it.
    Some,
    /// Of each, every sector with an even chance.
    Torn,
}

/// Undoes what was not synced when the process died; returns how many changes that were.
///
/// # Errors
/// When the log is damaged, or a file cannot be changed.
pub fn lose(log: &Path, loss: Loss, rng: &mut impl Rng) -> anyhow::Result<usize> {
    let bytes = std::fs::read(log).context("read the log of unsynced changes")?;
    let unsynced = unsynced(&bytes)?;
    let keep = rng.random_range(0..=unsynced.len());
    let mut kept_ends: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let mut lost: BTreeSet<usize> = BTreeSet::new();
    let mut torn: BTreeSet<usize> = BTreeSet::new();
    for (i, change) in unsynced.iter().enumerate() {
        let is_lost = match loss {
            Loss::All => true,
            Loss::Tail => i >= keep,
            Loss::Some | Loss::Torn => rng.random_bool(0.5),
        };
        if loss == Loss::Torn && is_lost && !change.is_length && change.renamed.is_none() {
            torn.insert(i);
        }
        if is_lost {
            lost.insert(i);
        }
        if change.renamed.is_some() {
            continue;
        }
        let end = kept_ends
            .entry(change.path.clone())
            .or_insert(change.length_before);
        if !is_lost && change.is_length {
            *end = change.end;
        } else if !is_lost || torn.contains(&i) {
            *end = (*end).max(change.end);
        }
    }
    for i in lost.iter().rev() {
        let change = &unsynced[*i];
        match &change.renamed {
            Some(new) => std::fs::rename(new, &change.path).context("undo a rename")?,
            None if torn.contains(i) => tear(change, rng)?,
            None => undo(change)?,
        }
    }
    for (path, end) in kept_ends {
        let file = open(&path)?;
        let length = file.metadata().context("a file's length")?.len();
        if length > end {
            file.set_len(end).context("cut a file")?;
        }
    }
    Ok(lost.len())
}

fn open(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

fn undo(change: &Change) -> anyhow::Result<()> {
    let file = open(&change.path)?;
    file.write_all_at(&change.old, change.from)
        .context("undo a write")?;
    // What was behind the end is nothing again, or zeros where something later stays.
    let old_end = change.from + change.old.len() as u64;
    let length = file.metadata().context("a file's length")?.len();
    let beyond = change.end.min(length).saturating_sub(old_end);
    let zeros = vec![0; usize::try_from(beyond).context("a long write")?];
    file.write_all_at(&zeros, old_end).context("undo a write")?;
    Ok(())
}

/// Undoes a write sector by sector, each with an even chance.
fn tear(change: &Change, rng: &mut impl Rng) -> anyhow::Result<()> {
    let file = open(&change.path)?;
    let mut from = change.from;
    while from < change.end {
        let to = (from + 1).next_multiple_of(SECTOR).min(change.end);
        if rng.random_bool(0.5) {
            let place = |at: u64| usize::try_from(at - change.from).context("a long write");
            let mut old = vec![0; place(to)? - place(from)?];
            let known = change.old.get(place(from)?..).unwrap_or_default();
            let known = &known[..known.len().min(old.len())];
            old[..known.len()].copy_from_slice(known);
            file.write_all_at(&old, from).context("tear a write")?;
        }
        from = to;
    }
    Ok(())
}

fn unsynced(bytes: &[u8]) -> anyhow::Result<Vec<Change>> {
    let mut left = bytes;
    let mut changes: Vec<Change> = Vec::new();
    while !left.is_empty() {
        // The last entry may be cut off: its call was not made.
        let Some((kind, path)) = head(&mut left) else {
            break;
        };
        if !path.exists() {
            changes.retain(|change| change.path != path || change.renamed.is_some());
        }
        match kind {
            1 | 2 => {
                let Some(change) = body(&mut left, kind, path) else {
                    break;
                };
                if change.path.exists() {
                    changes.push(change);
                }
            }
            3 => changes.retain(|change| match &change.renamed {
                Some(new) => new.parent() != Some(&path),
                None => change.path != path,
            }),
            4 => {
                let Some(new) = self::path(&mut left) else {
                    break;
                };
                // Not there: the process was killed before the call.
                if new.exists() && !path.exists() {
                    changes.push(Change {
                        path,
                        from: 0,
                        length_before: 0,
                        is_length: false,
                        end: 0,
                        old: Vec::new(),
                        renamed: Some(new),
                    });
                }
            }
            other => bail!("the log of unsynced changes has an entry of kind {other}"),
        }
    }
    Ok(changes)
}

fn take<'a>(left: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(count)?;
    *left = rest;
    Some(taken)
}

fn number(left: &mut &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(take(left, 8)?.try_into().ok()?))
}

fn head(left: &mut &[u8]) -> Option<(u8, PathBuf)> {
    let kind = take(left, 1)?[0];
    Some((kind, path(left)?))
}

fn path(left: &mut &[u8]) -> Option<PathBuf> {
    let length = u16::from_be_bytes(take(left, 2)?.try_into().ok()?);
    let path = take(left, usize::from(length))?.to_vec();
    Some(std::ffi::OsString::from_vec(path).into())
}

fn body(left: &mut &[u8], kind: u8, path: PathBuf) -> Option<Change> {
    let (from, length_before, count) = (number(left)?, number(left)?, number(left)?);
    let old = usize::try_from(number(left)?).ok()?;
    let old = take(left, old)?.to_vec();
    let end = if kind == 1 { from + count } else { from };
    Some(Change {
        path,
        from,
        length_before,
        is_length: kind == 2,
        end,
        old,
        renamed: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    fn entry(kind: u8, path: &Path, numbers: [u64; 3], old: &[u8]) -> Vec<u8> {
        let path = path.to_str().expect("a path").as_bytes();
        let mut entry = vec![kind];
        entry.extend(u16::try_from(path.len()).expect("short").to_be_bytes());
        entry.extend(path);
        if kind != 3 {
            for n in numbers.into_iter().chain([old.len() as u64]) {
                entry.extend(n.to_be_bytes());
            }
            entry.extend(old);
        }
        entry
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_goes() {
        let dir = tempfile::tempdir().expect("dir");
        let (file, log) = (dir.path().join("file"), dir.path().join("log"));
        // "ab" synced; then "X" over "b", and "cd" behind it.
        std::fs::write(&file, "aXcd").expect("file");
        let mut entries = entry(1, &file, [0, 0, 2], b"");
        entries.extend(entry(3, &file, [0; 3], b""));
        entries.extend(entry(1, &file, [1, 2, 1], b"b"));
        entries.extend(entry(1, &file, [2, 2, 2], b""));
        std::fs::write(&log, &entries).expect("log");
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        assert_eq!(lose(&log, Loss::All, &mut rng).expect("lost"), 2);
        assert_eq!(std::fs::read(&file).expect("file"), b"ab");
        // The same, and of both changes one or both may stay.
        for seed in 0..20 {
            std::fs::write(&file, "aXcd").expect("file");
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            lose(&log, Loss::Some, &mut rng).expect("lost");
            let left = std::fs::read(&file).expect("file");
            let possible: [&[u8]; 4] = [b"ab", b"aX", b"abcd", b"aXcd"];
            assert!(possible.contains(&&left[..]), "{left:?}");
        }
    }

    #[test]
    fn a_torn_write_is_there_in_whole_sectors() {
        let dir = tempfile::tempdir().expect("dir");
        let (file, log) = (dir.path().join("file"), dir.path().join("log"));
        std::fs::write(&log, entry(1, &file, [0, 512, 1_536], &[1; 512])).expect("log");
        let mut seen = BTreeSet::new();
        for seed in 0..60 {
            std::fs::write(&file, [2; 1_536]).expect("file");
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            lose(&log, Loss::Torn, &mut rng).expect("torn");
            let left = std::fs::read(&file).expect("file");
            let sectors: Vec<u8> = left.chunks(512).map(|sector| sector[0]).collect();
            for (sector, byte) in left.chunks(512).zip(&sectors) {
                assert!(sector.iter().all(|other| other == byte));
            }
            seen.insert(sectors);
        }
        assert!(
            seen.contains(&vec![1, 2, 0]) && seen.contains(&vec![2, 0, 2]),
            "{seen:?}"
        );
    }

    #[test]
    fn a_name_is_durable_when_its_directory_is_synced() {
        let dir = tempfile::tempdir().expect("dir");
        let [old, new, log] = ["old", "new", "log"].map(|name| dir.path().join(name));
        let mut entries = entry(4, &old, [0; 3], b"");
        entries.truncate(3 + old.as_os_str().len());
        entries.extend(&entry(3, &new, [0; 3], b"")[1..]);
        std::fs::write(&new, "a").expect("file");
        let mut synced = entries.clone();
        synced.extend(entry(3, dir.path(), [0; 3], b""));
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        std::fs::write(&log, &synced).expect("log");
        assert_eq!(lose(&log, Loss::All, &mut rng).expect("lost"), 0);
        std::fs::write(&log, &entries).expect("log");
        assert_eq!(lose(&log, Loss::All, &mut rng).expect("lost"), 1);
        assert_eq!(std::fs::read(&old).expect("the old name"), b"a");
    }

    #[test]
    fn a_length_is_undone() {
        let dir = tempfile::tempdir().expect("dir");
        let (file, log) = (dir.path().join("file"), dir.path().join("log"));
        std::fs::write(&file, "a").expect("file");
        std::fs::write(&log, entry(2, &file, [1, 3, 1], b"bc")).expect("log");
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        lose(&log, Loss::All, &mut rng).expect("lost");
        assert_eq!(std::fs::read(&file).expect("file"), b"abc");
    }
}
