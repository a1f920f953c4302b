//! The store as a whole: what a file may have become, and what a start makes of it.

use super::*;
use mortise_protocol::store::{Reader as _, Space, Store as _, Write, conformance};
use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path)
        .expect("metadata")
        .permissions()
        .mode()
        & 0o777
}

fn filled(path: &Path) {
    let mut store = create(path).expect("create");
    let rows: Vec<Write> = (0_u32..2_000)
        .map(|n| Write {
            space: Space(1),
            key: n.to_be_bytes().to_vec(),
            value: Some(vec![7; 100]),
        })
        .collect();
    store.apply(&rows).expect("apply");
}

#[test]
fn a_file_store_conforms() {
    let dir = tempfile::tempdir().expect("dir");
    let n = Cell::new(0);
    conformance::run(|| {
        n.set(n.get() + 1);
        create(&dir.path().join(n.get().to_string())).expect("create")
    });
}

#[test]
fn what_was_written_is_there_after_opening_again_and_is_private() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    filled(&path);
    assert_eq!(mode(&path), 0o600);
    let store = check(&path).expect("whole");
    assert_eq!(
        store.range(Space(1), b"", b"", 9_999).expect("range").len(),
        2_000
    );
}

#[test]
fn a_missing_database_is_not_replaced() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    assert!(matches!(open(&path), Err(OpenError::Missing { .. })));
    assert!(!path.exists());
}

#[test]
fn an_existing_database_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    filled(&path);
    assert!(matches!(create(&path), Err(OpenError::Exists { .. })));
}

/// REQ-197: a large file is opened by its schema, and `check` still reads all of it.
#[test]
fn a_large_database_is_checked_by_fsck() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    filled(&path);
    open_with(&path, 0, PACE).expect("open");
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    file.write_all_at(&[0xff; 8_192], 5 * 8_192)
        .expect("damage");
    open_with(&path, 0, PACE).expect("the schema is whole");
    assert!(matches!(check(&path), Err(OpenError::Corrupt { .. })));
    file.write_all_at(&[0xff; 4_096], 50).expect("damage");
    let refused = open_with(&path, 0, PACE);
    assert!(matches!(refused, Err(OpenError::Corrupt { .. })));
}

/// REQ-073: damage is refused loudly.
#[test]
fn a_damaged_database_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("relay.db");
    filled(&path);
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    file.write_all_at(&[0xff; 4_096], 8_192).expect("damage");
    assert!(matches!(open(&path), Err(OpenError::Corrupt { .. })));
    file.write_all_at(b"not SQLite at all", 0).expect("damage");
    assert!(matches!(open(&path), Err(OpenError::Corrupt { .. })));
}
