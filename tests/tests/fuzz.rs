//! Every fuzz target on its committed seeds and regressions, and on changes of them that a seed decides.

use std::path::{Path, PathBuf};

use mortise_tests::fuzz::{Bytes, TARGETS, Target, find};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// What changes of the seeds come from.
const SEED: u64 = 0x4d6f_7274;

fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(kind)
        .join(target);
    let Ok(files) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("an input that can be read");
        (path, bytes)
    };
    files.into_iter().map(read).collect()
}

fn runs(name: &str, changed: usize) {
    let target: &Target = find(name).expect("a target");
    let seeds = inputs("seeds", name);
    assert!(!seeds.is_empty(), "{name} has seeds");
    for (path, bytes) in seeds.iter().chain(&inputs("regressions", name)) {
        eprintln!("{}", path.display());
        (target.run)(bytes);
    }
    let mut rng = ChaCha12Rng::seed_from_u64(SEED);
    for i in 0..changed {
        let mut bytes = seeds[rng.random_range(0..seeds.len())].1.clone();
        let mut decisions = [0; 32];
        rng.fill_bytes(&mut decisions);
        Bytes::new(&decisions).mangle(&mut bytes);
        bytes.truncate(target.max_bytes);
        eprintln!("change {i} of seed {SEED:#x}");
        (target.run)(&bytes);
    }
}

/// REQ-003: frames, records and links.
#[test]
fn wire() {
    runs("wire", 20_000);
}

/// REQ-140: content.
#[test]
fn content() {
    runs("content", 20_000);
}

/// REQ-011, REQ-014, REQ-017: bytes in an entry's place.
#[test]
fn entry() {
    runs("entry", 100);
}

/// REQ-014, REQ-017, REQ-019: entries of every kind.
#[test]
fn roster() {
    runs("roster", 100);
}

/// REQ-178: certificates, changed by anybody and by their makers.
#[test]
fn certificate() {
    runs("certificate", 300);
}

/// REQ-085, REQ-087: changed ciphertext.
#[test]
fn mls() {
    runs("mls", 20);
}

/// REQ-081 to REQ-087, REQ-152: what a member makes, changed before it is signed.
#[test]
fn villain() {
    runs("villain", 20);
}

/// REQ-055: changed questions.
#[test]
fn relay() {
    runs("relay", 20);
}

/// REQ-090: changed answers.
#[test]
fn engine() {
    runs("engine", 20);
}

/// No target is left out here.
#[test]
fn every_target_has_a_test() {
    let tested = [
        "wire",
        "content",
        "entry",
        "roster",
        "certificate",
        "mls",
        "villain",
        "relay",
        "engine",
    ];
    assert_eq!(TARGETS.map(|target| target.name), tested);
}
