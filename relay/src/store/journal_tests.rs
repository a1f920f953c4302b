//! The journal and the database together: processes that are killed, torn and damaged frames, files that do not belong together.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mortise_protocol::store::{MemoryStore, Reader as _, Space, SqliteStore, Store as _, Write};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::Connection;

use super::segments::{SEGMENT_BYTES, list};
use super::*;

/// Nothing is moved before the end.
const NEVER: Pace = Pace {
    bytes: usize::MAX,
    after: Duration::from_secs(86_400),
    max_waiting: usize::MAX,
};
/// Everything is moved at once.
const AT_ONCE: Pace = Pace {
    bytes: 1,
    after: Duration::ZERO,
    max_waiting: 1,
};
const A: Space = Space(1);

fn row(n: u32, bytes: usize) -> Write {
    Write {
        space: A,
        key: n.to_be_bytes().to_vec(),
        value: Some(vec![u8::try_from(n % 251).expect("small"); bytes]),
    }
}

fn numbers(store: &EmbeddedStore) -> BTreeSet<u32> {
    let rows = store.range(A, b"", b"", usize::MAX).expect("range");
    let keys = rows.iter().filter_map(|(key, _)| key.first_chunk());
    keys.map(|key| u32::from_be_bytes(*key)).collect()
}

fn with(path: &Path, pace: Pace) -> Result<EmbeddedStore, OpenError> {
    open_with(path, 0, pace)
}

/// A store that has acknowledged these and was killed; the first half of them is in the database.
fn killed(path: &Path, count: u32, bytes: usize) {
    database::make(path).expect("new");
    let mut store = with(path, NEVER).expect("open");
    for n in 0..count {
        store.apply(&[row(n, bytes)]).expect("apply");
        if n == count / 2 {
            store.handle().flush().expect("moved");
        }
    }
    store.abandon();
}

fn segments_of(path: &Path) -> Vec<PathBuf> {
    let dir = journal_of(path);
    let numbers = list(&dir).expect("list").into_iter();
    numbers
        .map(|n| dir.join(format!("{:016x}.log", n.0)))
        .collect()
}

/// The segment that was written last, what is in it, and where its frames begin; what an older use of a file has left does
/// not count.
fn newest(path: &Path) -> (PathBuf, bytes::Bytes, Vec<usize>) {
    let numbers = list(&journal_of(path)).expect("list").into_iter();
    let numbered = numbers.zip(segments_of(path)).rev();
    let mut segments = numbered.map(|(number, segment)| {
        let bytes = bytes::Bytes::from(std::fs::read(&segment).expect("read"));
        let mut starts = Vec::new();
        let mut at = 0;
        while let Some((place, frame)) = frame::read(&bytes.slice(at..))
            && place.segment == number
        {
            starts.push(at);
            at += frame.len();
        }
        (segment, bytes, starts)
    });
    let written = segments.find(|(_, _, starts)| !starts.is_empty());
    written.expect("a frame")
}

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("open");
    file.write_all_at(bytes, at as u64).expect("write");
}

/// REQ-070, REQ-340: what was acknowledged is there after a kill, whether it was moved or not.
#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    killed(&path, 10, 100);
    for round in 0..3 {
        let mut store = with(&path, NEVER).expect("recovers");
        assert_eq!(numbers(&store), (0..10 + round).collect());
        store.apply(&[row(10 + round, 100)]).expect("apply");
        store.abandon();
    }
    let store = check(&path).expect("whole");
    assert_eq!(numbers(&store), (0..13).collect());
}

/// REQ-341: a torn last frame was never acknowledged; it goes, wherever it is torn, and nothing else does.
#[test]
fn a_torn_tail_is_cut() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    killed(&path, 6, 100);
    let (segment, bytes, starts) = newest(&path);
    let last = *starts.last().expect("a frame");
    let end = last + frame::read(&bytes.slice(last..)).expect("whole").1.len();
    for at in (last..end).step_by(8) {
        // From there on what stood there before.
        overwrite(&segment, at, &vec![0; end - at]);
        let store = with(&path, NEVER).expect("recovers");
        assert_eq!(numbers(&store), (0..5).collect(), "torn at {at}");
        store.abandon();
        overwrite(&segment, last, &bytes[last..end]);
    }
    let mut store = with(&path, NEVER).expect("recovers");
    store.apply(&[row(6, 100)]).expect("apply");
    store.abandon();
    assert_eq!(
        numbers(&with(&path, NEVER).expect("again")),
        (0..7).collect()
    );
}

/// REQ-341: behind a frame that is not whole there is nothing, or it was damaged after it had been acknowledged.
#[test]
fn a_damaged_frame_before_the_last_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    killed(&path, 6, 100);
    let (segment, bytes, starts) = newest(&path);
    let [.., before, _] = &starts[..] else {
        panic!("two frames");
    };
    for at in [*before, before + 20, before + 70, before + 150] {
        overwrite(&segment, at, &[bytes[at] ^ 1]);
        let refused = with(&path, NEVER);
        assert!(
            matches!(refused, Err(OpenError::JournalDamaged { .. })),
            "{at}"
        );
        overwrite(&segment, at, &[bytes[at]]);
    }
    assert_eq!(
        numbers(&with(&path, NEVER).expect("mended")),
        (0..6).collect()
    );
}

/// REQ-340: a journal of which a part is missing, or which ends before its database, is no journal to go on with.
#[test]
fn what_is_missing_is_missed() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    killed(&path, 1_000, 20_000);
    let (last, ..) = newest(&path);
    let mut segments = segments_of(&path);
    segments.retain(|segment| *segment < last);
    assert!(segments.len() >= 2, "{}", segments.len());
    let aside = dir.path().join("aside");
    for segment in &segments {
        std::fs::rename(segment, &aside).expect("aside");
        let refused = with(&path, NEVER);
        assert!(matches!(refused, Err(OpenError::JournalMissing { .. })));
        // Empty is as missing.
        std::fs::write(segment, vec![0; 4_096]).expect("empty");
        let refused = with(&path, NEVER);
        assert!(matches!(refused, Err(OpenError::JournalDamaged { .. })));
        std::fs::rename(&aside, segment).expect("back");
    }
    std::fs::rename(journal_of(&path), &aside).expect("aside");
    let refused = with(&path, NEVER);
    assert!(matches!(refused, Err(OpenError::JournalMissing { .. })));
    std::fs::rename(&aside, journal_of(&path)).expect("back");
    assert_eq!(numbers(&with(&path, NEVER).expect("whole")).len(), 1_000);
}

/// REQ-340: from the first batch on, and after each start, another segment lies behind the one that is written: whichever is
/// lost, the newest too, is missed. A journal from before gets its spare.
#[test]
fn the_newest_segment_is_missed_too() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    database::make(&path).expect("new");
    let mut store = with(&path, NEVER).expect("open");
    let large = usize::try_from(SEGMENT_BYTES / 2).expect("fits") + 1;
    for n in 0..4 {
        store.apply(&[row(n, large)]).expect("apply");
        let (written, ..) = newest(&path);
        assert!(segments_of(&path).iter().any(|segment| *segment > written));
    }
    store.abandon();
    let (last, ..) = newest(&path);
    for spare in segments_of(&path) {
        if spare > last {
            std::fs::remove_file(spare).expect("as it was before");
        }
    }
    with(&path, NEVER)
        .expect("nothing that was written is missing")
        .abandon();
    std::fs::remove_file(last).expect("lost");
    let refused = with(&path, NEVER);
    assert!(matches!(refused, Err(OpenError::JournalMissing { .. })));
}

/// REQ-340: two databases that were mixed up, and one that is older than its journal.
#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let [one, other] = ["one.db", "other.db"].map(|name| dir.path().join(name));
    for path in [&one, &other] {
        drop(create(path).expect("create"));
    }
    let older = dir.path().join("older.db");
    std::fs::copy(&one, &older).expect("copy");
    for path in [&one, &other] {
        let mut store = with(path, NEVER).expect("open");
        store.apply(&[row(1, 10)]).expect("apply");
        store.abandon();
    }
    let aside = dir.path().join("aside");
    std::fs::rename(journal_of(&one), &aside).expect("aside");
    std::fs::rename(journal_of(&other), journal_of(&one)).expect("swapped");
    let refused = with(&one, NEVER);
    assert!(matches!(refused, Err(OpenError::JournalDamaged { .. })));
    std::fs::remove_dir_all(journal_of(&one)).expect("away");
    std::fs::rename(&aside, journal_of(&one)).expect("back");
    drop(with(&one, NEVER).expect("its own"));
    // A database from before the last start, under the journal of after it.
    let mut store = with(&one, NEVER).expect("open");
    store.apply(&[row(2, 10)]).expect("apply");
    store.abandon();
    std::fs::copy(&older, &one).expect("restored without its journal");
    let refused = with(&one, NEVER);
    assert!(matches!(refused, Err(OpenError::JournalDamaged { .. })));
}

/// REQ-343: after an orderly stop the database needs no journal, and one that never had a journal gets it.
#[test]
fn a_stopped_store_is_its_database_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    let connection = Connection::open(&path).expect("open");
    let mut before = SqliteStore::new(connection).expect("layout");
    before.apply(&[row(0, 10)]).expect("apply");
    drop(before);
    let mut store = with(&path, NEVER).expect("an old directory works");
    assert_eq!(numbers(&store), BTreeSet::from([0]));
    store.apply(&[row(1, 10)]).expect("apply");
    // A program that knows no journal must not open it now.
    let connection = Connection::open(&path).expect("open");
    SqliteStore::new(connection).expect_err("rows are missing there");
    drop(store);
    let copy = dir.path().join("copy.db");
    std::fs::copy(&path, &copy).expect("copy");
    assert_eq!(
        numbers(&with(&copy, NEVER).expect("alone")),
        (0..2).collect()
    );
    let connection = Connection::open(&path).expect("open");
    let after = SqliteStore::new(connection).expect("complete");
    assert_eq!(after.range(A, b"", b"", 9).expect("range").len(), 2);
}

/// REQ-342: what is in the database makes room, and nothing is written over that is not.
#[test]
fn segments_are_used_again() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    let mut store = create(&path).expect("create");
    let mut most = 0;
    for n in 0..160 {
        store.apply(&[row(n, 1_000_000)]).expect("apply");
        most = most.max(segments_of(&path).len());
    }
    store.handle().flush().expect("moved");
    assert!(most <= 32, "{most} segments");
    // One batch that no segment has room for.
    let large = usize::try_from(SEGMENT_BYTES).expect("fits") + 1;
    store.apply(&[row(160, large)]).expect("apply");
    store.apply(&[row(161, 10)]).expect("apply");
    store.abandon();
    let store = check(&path).expect("whole");
    assert_eq!(numbers(&store), (0..162).collect());
}

/// The same batches to the store and to the model, with kills, stops and moves between them.
#[test]
fn it_does_what_the_model_does() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("relay.db");
        let mut model = MemoryStore::default();
        let mut store = create(&path).expect("create");
        for _ in 0..120 {
            match rng.random_range(0..30) {
                0 => store.abandon(),
                1 => drop(store),
                2 => {
                    store.handle().flush().expect("moved");
                    continue;
                }
                _ => {
                    let batch: Vec<Write> = (0..rng.random_range(1..9))
                        .map(|_| Write {
                            space: Space(rng.random_range(1..3)),
                            key: vec![0; rng.random_range(0..2)]
                                .into_iter()
                                .chain([rng.random_range(0..6)])
                                .collect(),
                            value: rng.random_bool(0.7).then(|| vec![rng.random(); 3]),
                        })
                        .collect();
                    store.apply(&batch).expect("apply");
                    model.apply(&batch).expect("apply");
                    compare(&store, &model, &mut rng);
                    continue;
                }
            }
            let pace = [NEVER, AT_ONCE, embedded::PACE][rng.random_range(0..3)];
            store = with(&path, pace).expect("open");
            compare(&store, &model, &mut rng);
        }
    }
}

fn compare(store: &EmbeddedStore, model: &MemoryStore, rng: &mut StdRng) {
    let space = Space(rng.random_range(1..3));
    let prefix = vec![0; rng.random_range(0..2)];
    let from: Vec<u8> = (0..rng.random_range(0..3))
        .map(|_| rng.random_range(0..6))
        .collect();
    let limit = rng.random_range(0..8);
    assert_eq!(
        store.range(space, &prefix, &from, limit).expect("range"),
        model.range(space, &prefix, &from, limit).expect("range"),
    );
    assert_eq!(
        store.read(space, &from).expect("read"),
        model.read(space, &from).expect("read"),
    );
}
