//! What every backend must do, run against each of them.

use super::{Space, Store, Tx, Write, commit};

const A: Space = Space(1);
const B: Space = Space(2);

fn row(space: Space, key: &[u8], value: Option<&[u8]>) -> Write {
    Write {
        space,
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
    }
}

/// Runs every check against fresh stores from `factory`.
///
/// # Panics
/// When the backend does not conform.
pub fn run<S: Store>(factory: impl Fn() -> S) {
    reads_what_was_written(factory());
    keeps_spaces_apart(factory());
    ranges_in_order(factory());
    applies_in_order(factory());
    merges_transactions(factory());
}

fn reads_what_was_written<S: Store>(mut store: S) {
    assert_eq!(store.read(A, b"k").expect("read"), None);
    store
        .apply(&[row(A, b"k", Some(b"v")), row(A, b"", Some(b""))])
        .expect("apply");
    assert_eq!(store.read(A, b"k").expect("read"), Some(b"v".to_vec()));
    assert_eq!(store.read(A, b"").expect("read"), Some(Vec::new()));
    store.apply(&[row(A, b"k", None)]).expect("apply");
    assert_eq!(store.read(A, b"k").expect("read"), None);
}

fn keeps_spaces_apart<S: Store>(mut store: S) {
    store.apply(&[row(A, b"k", Some(b"a"))]).expect("apply");
    assert_eq!(store.read(B, b"k").expect("read"), None);
    assert!(store.range(B, b"", b"", 9).expect("range").is_empty());
}

fn ranges_in_order<S: Store>(mut store: S) {
    let keys: [&[u8]; 6] = [b"a", b"ab", b"b", b"\xff", b"\xff\xff", b"\xff\xff\x01"];
    let rows: Vec<_> = keys.iter().rev().map(|k| row(A, k, Some(k))).collect();
    store.apply(&rows).expect("apply");
    let found = |prefix: &[u8], from: &[u8], limit| -> Vec<Vec<u8>> {
        store
            .range(A, prefix, from, limit)
            .expect("range")
            .into_iter()
            .map(|(k, _)| k)
            .collect()
    };
    assert_eq!(found(b"", b"", 99), keys);
    assert_eq!(found(b"a", b"a", 99), keys[..2]);
    assert_eq!(found(b"\xff", b"", 99), keys[3..]);
    assert_eq!(found(b"\xff\xff", b"\xff\xff\x01", 99), keys[5..]);
    assert_eq!(found(b"", b"ab", 2), keys[1..3]);
    assert!(found(b"", b"", 0).is_empty());
}

fn applies_in_order<S: Store>(mut store: S) {
    store
        .apply(&[
            row(A, b"k", Some(b"1")),
            row(A, b"k", None),
            row(A, b"k", Some(b"2")),
        ])
        .expect("apply");
    assert_eq!(store.read(A, b"k").expect("read"), Some(b"2".to_vec()));
}

fn merges_transactions<S: Store>(mut store: S) {
    store.apply(&[row(A, b"1", Some(b"x"))]).expect("apply");
    let tx = Tx::new(&store);
    tx.put(A, *b"2", *b"y");
    tx.delete(A, *b"1");
    let batch = tx.into_batch().expect("batch");
    commit(&mut store, &batch).expect("commit");
    let rows = store.range(A, b"", b"", 9).expect("range");
    assert_eq!(rows, [(b"2".to_vec(), b"y".to_vec())]);
}
