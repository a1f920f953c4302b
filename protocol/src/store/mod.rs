//! The storage that every core stands on: an ordered key-value store with atomic batches.
//!
//! [`Store`] is what a backend implements; [`Tx`] is what the cores see: reads go through to the
//! backend, writes stay in memory until [`commit`] hands them over as one batch. Dropping a
//! [`Tx`] forgets them. A write that does not change the stored value is left out of the batch
//! (REQ-071). This module must never open a file; backends that do live with their drivers.
//!
//! Inputs: [`Tx::put`], [`Tx::delete`], [`commit`]. Getters: [`Tx::get`], [`Tx::scan`].

mod cached;
pub mod conformance;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

pub use cached::CachedStore;
pub use memory::{Crash, MemoryStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{RowChange, SqliteStore};

/// A table of the store: keys of different spaces never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(pub u8);

/// What can go wrong in a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The backend failed; nothing of the batch was applied.
    #[error("the store failed: {reason}")]
    Backend {
        /// What the backend said; holds no keys and no values.
        reason: String,
    },
    /// There is no room left; nothing of the batch was applied.
    #[error("the disk is full")]
    Full,
    /// Somebody else who writes to the same store was there first: nothing of the batch was applied, and it may be
    /// decided anew on what is there now (REQ-301).
    #[error("another writer was there first")]
    Conflict,
    /// The store cannot be reached, or went away. What was asked of it last may have been applied or not: a batch is
    /// decided anew once it is back, and then finds what it has written (REQ-302).
    #[error("the store cannot be reached")]
    Lost,
    /// Stored bytes are not what was written.
    #[error("the store is damaged: {reason}")]
    Corrupt {
        /// Which part, without its content.
        reason: &'static str,
    },
}

impl StoreError {
    /// Whether it says nothing against the store: the same may work later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Full | Self::Conflict | Self::Lost)
    }
}

/// One change of a batch. `value: None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The table.
    pub space: Space,
    /// The key inside the table.
    pub key: Vec<u8>,
    /// The new value, or `None` to delete.
    pub value: Option<Vec<u8>>,
}

/// An ordered key-value pair.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Anything that can be read like a store: a backend, or a transaction that another nests in.
pub trait Reader {
    /// The value at `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot read.
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Up to `limit` pairs whose keys start with `prefix` and are greater than or equal to `from`, in key order.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot read.
    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError>;

    /// Says which rows are read next, for a backend to which every question is a journey; others need not care.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot read.
    fn prefetch(&self, _space: Space, _keys: &[Vec<u8>]) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A backend: reads, and batches that are applied wholly and durably or not at all.
pub trait Store: Reader {
    /// Applies all writes in order, durably, or none of them.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was applied.
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError>;
}

impl<S: Reader + ?Sized> Reader for Box<S> {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).read(space, key)
    }
    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        (**self).range(space, prefix, from, limit)
    }
    fn prefetch(&self, space: Space, keys: &[Vec<u8>]) -> Result<(), StoreError> {
        (**self).prefetch(space, keys)
    }
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        (**self).apply(writes)
    }
}

/// Rows by table and key; `None` for a row that is not there.
type Rows = BTreeMap<Space, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// The longest value that a transaction remembers after it has read it: what is large is read once.
const MAX_REMEMBERED_BYTES: usize = 512;

/// A write-behind transaction over a [`Store`].
///
/// Interior mutability lets openmls's storage trait, whose methods take `&self`, write into it.
pub struct Tx<'s> {
    below: &'s dyn Reader,
    overlay: RefCell<Rows>,
    /// What is below, as far as it was read: neither a second look nor the comparison at the end asks again.
    below_rows: RefCell<Rows>,
    /// The first read that failed, whatever became of it on its way through openmls.
    failure: RefCell<Option<StoreError>>,
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let writes: usize = self.overlay.borrow().values().map(BTreeMap::len).sum();
        write!(f, "Tx({writes} writes)")
    }
}

impl<'s> Tx<'s> {
    /// Opens a transaction over a store, or nested in another transaction.
    ///
    /// What is below must not be written by others while it lives.
    pub fn new(below: &'s dyn Reader) -> Self {
        Self {
            below,
            overlay: RefCell::default(),
            below_rows: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// The value at `key` as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot read.
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        for rows in [&self.overlay, &self.below_rows] {
            if let Some(value) = row(&rows.borrow(), space, key) {
                return Ok(value.clone());
            }
        }
        let value = self.note(self.below.read(space, key))?;
        if value
            .as_ref()
            .is_none_or(|v| v.len() <= MAX_REMEMBERED_BYTES)
        {
            set(&self.below_rows, space, key.to_vec(), value.clone());
        }
        Ok(value)
    }

    fn note<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &read {
            self.failure
                .borrow_mut()
                .get_or_insert_with(|| error.clone());
        }
        read
    }

    /// The first read that failed: what was decided since may be wrong, and must not be kept.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.failure.borrow().clone()
    }

    /// Sets the value at `key`.
    pub fn put(&self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        set(&self.overlay, space, key.into(), Some(value.into()));
    }

    /// Sets the value at a key that the store does not have yet: it is not looked for.
    pub fn put_new(&self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let key = key.into();
        set(&self.below_rows, space, key.clone(), None);
        set(&self.overlay, space, key, Some(value.into()));
    }

    /// Removes the value at `key`, if there is one.
    pub fn delete(&self, space: Space, key: impl Into<Vec<u8>>) {
        set(&self.overlay, space, key.into(), None);
    }

    /// All pairs whose keys start with `prefix`, in key order.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot read.
    pub fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<Pair>, StoreError> {
        self.scan_from(space, prefix, prefix, usize::MAX)
    }

    /// Up to `limit` pairs whose keys start with `prefix` and are not below `from`, in key order.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot read.
    pub fn scan_from(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let overlay = self.overlay.borrow();
        let start = from.max(prefix);
        let ours: Vec<_> = overlay
            .get(&space)
            .into_iter()
            .flat_map(|rows| rows.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)))
            .take_while(|(key, _)| key.starts_with(prefix))
            .collect();
        // Rows that we shadow do not count towards the limit of what is read below.
        let limit_below = limit.saturating_add(ours.len());
        let stored = self.note(self.below.range(space, prefix, start, limit_below))?;
        if ours.is_empty() {
            return Ok(stored);
        }
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        for (key, value) in ours {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    /// Whether anything was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.overlay.borrow().is_empty()
    }

    /// Ends the transaction and returns what it changes, without the writes that change nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the backend could not be read, for the comparison or before.
    pub fn into_batch(self) -> Result<Vec<Write>, StoreError> {
        if let Some(failure) = self.failure.into_inner() {
            return Err(failure);
        }
        let mut batch = Vec::new();
        let below_rows = self.below_rows.into_inner();
        for (space, rows) in self.overlay.into_inner() {
            let unread = |key: &&Vec<u8>| row(&below_rows, space, key).is_none();
            let unread: Vec<_> = rows.keys().filter(unread).cloned().collect();
            self.below.prefetch(space, &unread)?;
            for (key, value) in rows {
                let is_same = match row(&below_rows, space, &key) {
                    Some(before) => *before == value,
                    None => self.below.read(space, &key)? == value,
                };
                if !is_same {
                    batch.push(Write { space, key, value });
                }
            }
        }
        Ok(batch)
    }
}

impl Reader for Tx<'_> {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(space, key)
    }

    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.scan_from(space, prefix, from, limit)
    }

    fn prefetch(&self, space: Space, keys: &[Vec<u8>]) -> Result<(), StoreError> {
        self.note(self.below.prefetch(space, keys))
    }
}

impl Tx<'_> {
    /// Takes over what a nested transaction has changed.
    pub fn absorb(&self, batch: Vec<Write>) {
        for Write { space, key, value } in batch {
            set(&self.overlay, space, key, value);
        }
    }
}

/// The first key after all that start with `prefix`, or `None` when there is no such key.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn row<'r>(rows: &'r Rows, space: Space, key: &[u8]) -> Option<&'r Option<Vec<u8>>> {
    rows.get(&space)?.get(key)
}

fn set(rows: &RefCell<Rows>, space: Space, key: Vec<u8>, value: Option<Vec<u8>>) {
    rows.borrow_mut()
        .entry(space)
        .or_default()
        .insert(key, value);
}

/// Applies a finished transaction's `batch` to `store`; an empty one costs nothing.
///
/// # Errors
/// [`StoreError`]; nothing was applied.
pub fn commit<S: Store + ?Sized>(store: &mut S, batch: &[Write]) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    store.apply(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space(1);

    #[test]
    fn a_dropped_transaction_leaves_no_trace() {
        let store = MemoryStore::default();
        let tx = Tx::new(&store);
        tx.put(SPACE, *b"a", *b"1");
        drop(tx);
        assert_eq!(store.read(SPACE, b"a").expect("read"), None);
    }

    /// REQ-071: what did not change is not written.
    #[test]
    fn unchanged_values_are_left_out_of_the_batch() {
        let mut store = MemoryStore::default();
        store
            .apply(&[Write {
                space: SPACE,
                key: b"a".to_vec(),
                value: Some(b"1".to_vec()),
            }])
            .expect("apply");
        let tx = Tx::new(&store);
        tx.put(SPACE, *b"a", *b"1");
        tx.put(SPACE, *b"b", *b"2");
        tx.delete(SPACE, *b"c");
        let batch = tx.into_batch().expect("batch");
        assert_eq!(batch.len(), 1);
        assert_eq!(batch[0].key, b"b");
    }

    /// A store that counts how often it is asked.
    #[derive(Default)]
    struct Counting {
        store: MemoryStore,
        reads: std::cell::Cell<usize>,
    }

    impl Reader for Counting {
        fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.reads.set(self.reads.get() + 1);
            self.store.read(space, key)
        }
        fn range(&self, s: Space, p: &[u8], f: &[u8], n: usize) -> Result<Vec<Pair>, StoreError> {
            self.store.range(s, p, f, n)
        }
    }

    /// REQ-195: a small row is read once, whatever is asked, and a new one not at all.
    #[test]
    fn a_row_is_read_once() {
        let store = Counting::default();
        let tx = Tx::new(&store);
        for _ in 0..3 {
            assert_eq!(tx.get(SPACE, b"a").expect("get"), None);
        }
        tx.put(SPACE, *b"a", *b"1");
        tx.put_new(SPACE, *b"b", *b"2");
        assert_eq!(tx.get(SPACE, b"b").expect("get"), Some(b"2".to_vec()));
        assert_eq!(tx.into_batch().expect("batch").len(), 2);
        assert_eq!(store.reads.get(), 1);
    }

    /// A store that cannot be read.
    struct Unreadable;

    impl Reader for Unreadable {
        fn read(&self, _: Space, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Err(StoreError::Full)
        }
        fn range(&self, _: Space, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Pair>, StoreError> {
            Err(StoreError::Full)
        }
    }

    /// REQ-090: who swallows a failed read does not get its consequences stored.
    #[test]
    fn a_failed_read_fails_the_transaction() {
        let outer = Tx::new(&Unreadable);
        let inner = Tx::new(&outer);
        assert!(outer.failure().is_none());
        assert!(inner.get(SPACE, b"a").is_err());
        assert!(
            outer.failure().is_some(),
            "a nested one tells the outer one"
        );
        assert!(inner.into_batch().is_err());
        outer.put(SPACE, *b"a", *b"1");
        assert!(outer.into_batch().is_err());
        let scanned = Tx::new(&Unreadable);
        assert!(scanned.scan(SPACE, b"").is_err());
        assert!(scanned.failure().is_some());
    }

    #[test]
    fn a_nested_transaction_is_absorbed_or_forgotten() {
        let store = MemoryStore::default();
        let outer = Tx::new(&store);
        outer.put(SPACE, *b"a", *b"1");
        let inner = Tx::new(&outer);
        inner.put(SPACE, *b"b", *b"2");
        assert_eq!(inner.get(SPACE, b"a").expect("get"), Some(b"1".to_vec()));
        drop(inner);
        assert_eq!(outer.get(SPACE, b"b").expect("get"), None);
        let inner = Tx::new(&outer);
        inner.delete(SPACE, *b"a");
        let batch = inner.into_batch().expect("batch");
        outer.absorb(batch);
        assert_eq!(outer.get(SPACE, b"a").expect("get"), None);
    }

    #[test]
    fn a_scan_merges_what_is_stored_with_what_is_pending() {
        let mut store = MemoryStore::default();
        let row = |k: &[u8], v: &[u8]| Write {
            space: SPACE,
            key: k.to_vec(),
            value: Some(v.to_vec()),
        };
        store
            .apply(&[row(b"k1", b"1"), row(b"k2", b"2"), row(b"x", b"9")])
            .expect("apply");
        let tx = Tx::new(&store);
        tx.delete(SPACE, *b"k1");
        tx.put(SPACE, *b"k3", *b"3");
        let keys: Vec<_> = tx
            .scan(SPACE, b"k")
            .expect("scan")
            .into_iter()
            .map(|(k, _)| k)
            .collect();
        assert_eq!(keys, [b"k2".to_vec(), b"k3".to_vec()]);
        assert_eq!(tx.scan_from(SPACE, b"k", b"k", 1).expect("scan").len(), 1);
    }
}
