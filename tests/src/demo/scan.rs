//! Looks for secrets in files: every spelling of every phrase, in every file of a directory.
//!
//! It must never miss a file that it could read, and never skip one that it could not.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};

/// The shortest spelling that is looked for, bytes: shorter ones occur by chance in megabytes of ciphertext.
const SHORTEST: usize = 6;
/// The shortest piece of base64 that is looked for.
const SHORTEST_BASE64: usize = 8;

/// How a phrase can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spelling {
    /// As it is.
    Utf8,
    /// Two bytes per unit, little-endian.
    Utf16,
    /// Two digits per byte, in either case.
    Hex,
    /// Either alphabet, at any alignment.
    Base64,
}

/// A phrase that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Where in it, bytes.
    pub at: usize,
    /// Index of the phrase, as it was given.
    pub phrase: usize,
    /// How it was written.
    pub spelling: Spelling,
}

struct Needle {
    bytes: Vec<u8>,
    phrase: usize,
    spelling: Spelling,
}

/// Finds phrases in files.
pub struct Scanner {
    needles: Vec<Needle>,
    by_start: HashMap<[u8; SHORTEST], Vec<usize>>,
    /// Whether any needle starts with these two bytes.
    starts: Vec<bool>,
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scanner({} needles)", self.needles.len())
    }
}

impl Scanner {
    /// A scanner for these phrases; give it single words too, where a word alone would be a leak.
    #[must_use]
    pub fn new<'a>(phrases: impl IntoIterator<Item = &'a str>) -> Self {
        let mut this = Self {
            needles: Vec::new(),
            by_start: HashMap::new(),
            starts: vec![false; 1 << 16],
        };
        for (n, phrase) in phrases.into_iter().enumerate() {
            for (bytes, spelling) in spellings(phrase) {
                this.add(bytes, n, spelling);
            }
        }
        this
    }

    fn add(&mut self, bytes: Vec<u8>, phrase: usize, spelling: Spelling) {
        let Some(start) = bytes.first_chunk::<SHORTEST>() else {
            return;
        };
        self.starts[usize::from(u16::from_be_bytes([start[0], start[1]]))] = true;
        self.by_start
            .entry(*start)
            .or_default()
            .push(self.needles.len());
        self.needles.push(Needle {
            bytes,
            phrase,
            spelling,
        });
    }

    /// What is in one piece of memory, as (position, phrase, spelling).
    #[must_use]
    pub fn find(&self, content: &[u8]) -> Vec<(usize, usize, Spelling)> {
        let mut found = Vec::new();
        for (at, window) in content.windows(SHORTEST).enumerate() {
            if !self.starts[usize::from(u16::from_be_bytes([window[0], window[1]]))] {
                continue;
            }
            let Some(candidates) = window
                .first_chunk::<SHORTEST>()
                .and_then(|start| self.by_start.get(start))
            else {
                continue;
            };
            for needle in candidates.iter().map(|n| &self.needles[*n]) {
                if content[at..].starts_with(&needle.bytes) {
                    found.push((at, needle.phrase, needle.spelling));
                }
            }
        }
        found
    }

    /// Scans every file below a directory, or one file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn scan(&self, path: &Path) -> anyhow::Result<Scanned> {
        let mut scanned = Scanned::default();
        for file in files_below(path)? {
            let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            scanned.files += 1;
            scanned.bytes += content.len();
            let found = self.find(&content).into_iter();
            scanned
                .findings
                .extend(found.map(|(at, phrase, spelling)| Finding {
                    file: file.clone(),
                    at,
                    phrase,
                    spelling,
                }));
        }
        Ok(scanned)
    }
}

/// What a scan has seen.
#[derive(Debug, Default)]
pub struct Scanned {
    /// How many files.
    pub files: usize,
    /// How many bytes.
    pub bytes: usize,
    /// What was found, file by file.
    pub findings: Vec<Finding>,
}

impl Scanned {
    /// How many different phrases were found.
    #[must_use]
    pub fn phrases(&self) -> usize {
        let found: BTreeSet<_> = self.findings.iter().map(|f| f.phrase).collect();
        found.len()
    }

    /// Adds another scan's sightings.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.files += other.files;
        self.bytes += other.bytes;
        self.findings.extend(other.findings);
        self
    }
}

/// All regular files below a path, in order; sockets and the like have no content.
///
/// # Errors
/// A directory that cannot be read.
pub fn files_below(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let metadata =
        fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    if metadata.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    if metadata.is_dir() {
        let mut entries = fs::read_dir(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("list {}", path.display()))?;
        entries.sort_by_key(fs::DirEntry::path);
        for entry in entries {
            files.extend(files_below(&entry.path())?);
        }
    }
    Ok(files)
}

/// Every way to write a phrase that is long enough not to occur by chance.
#[must_use]
pub fn spellings(phrase: &str) -> Vec<(Vec<u8>, Spelling)> {
    let bytes = phrase.as_bytes();
    if bytes.len() < SHORTEST {
        return Vec::new();
    }
    let utf16 = phrase.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut found = vec![
        (bytes.to_vec(), Spelling::Utf8),
        (utf16, Spelling::Utf16),
        (HEXLOWER.encode(bytes).into_bytes(), Spelling::Hex),
        (HEXUPPER.encode(bytes).into_bytes(), Spelling::Hex),
    ];
    for alphabet in [BASE64, BASE64URL] {
        for alignment in 0..3 {
            let piece = base64_core(&alphabet, bytes, alignment);
            if piece.len() >= SHORTEST_BASE64 {
                found.push((piece, Spelling::Base64));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// What of a phrase's base64 does not depend on its neighbours, when `alignment` bytes of a group of three precede it.
fn base64_core(alphabet: &data_encoding::Encoding, phrase: &[u8], alignment: usize) -> Vec<u8> {
    // Whole groups only: those that begin and end inside the phrase.
    let skipped = (3 - alignment) % 3;
    let inner = phrase.get(skipped..).unwrap_or_default();
    let whole = inner.len() - inner.len() % 3;
    alphabet.encode(&inner[..whole]).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHRASE: &str = "the crane contract, grün";

    fn kinds(content: &[u8]) -> BTreeSet<Spelling> {
        let scanner = Scanner::new([PHRASE]);
        scanner.find(content).into_iter().map(|f| f.2).collect()
    }

    #[test]
    fn every_spelling_is_found_at_every_alignment() {
        let utf16: Vec<u8> = PHRASE.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(kinds(PHRASE.as_bytes()).contains(&Spelling::Utf8));
        assert!(kinds(&utf16).contains(&Spelling::Utf16));
        for hex in [HEXLOWER, HEXUPPER] {
            let text = format!("x{}y", hex.encode(PHRASE.as_bytes()));
            assert_eq!(kinds(text.as_bytes()), BTreeSet::from([Spelling::Hex]));
        }
        for before in 0..6 {
            for after in 0..3 {
                let text = format!("{}{PHRASE}{}", "#".repeat(before), "~".repeat(after));
                for alphabet in [BASE64, BASE64URL] {
                    let text = alphabet.encode(text.as_bytes());
                    assert_eq!(kinds(text.as_bytes()), BTreeSet::from([Spelling::Base64]));
                }
            }
        }
        assert!(kinds(b"something else entirely, of some length").is_empty());
    }

    #[test]
    fn what_occurs_by_chance_is_not_looked_for() {
        assert!(Scanner::new(["short"]).find(b"short").is_empty());
        assert!(kinds(b"__the crane__").is_empty());
    }

    #[test]
    fn files_are_found_wherever_they_are() {
        let dir = tempfile::tempdir().expect("dir");
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).expect("dirs");
        fs::write(deep.join("x"), PHRASE).expect("write");
        fs::write(dir.path().join("y"), b"nothing").expect("write");
        let scanned = Scanner::new([PHRASE]).scan(dir.path()).expect("scan");
        assert_eq!((scanned.files, scanned.phrases()), (2, 1));
        assert_eq!(scanned.findings[0].file, deep.join("x"));
    }
}
