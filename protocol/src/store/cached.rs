//! A store that keeps the small, hot rows of chosen tables in memory (REQ-195).

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{Pair, Reader, Space, Store, StoreError, Write};

type Rows = BTreeMap<Space, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A [`Store`] over another, of which it is the only writer.
///
/// A row is remembered when it is read or written; a batch that fails makes it forget everything, since nobody knows
/// what the backend holds then.
#[derive(Debug)]
pub struct CachedStore<S> {
    below: S,
    spaces: &'static [Space],
    max_rows: usize,
    rows: RefCell<Rows>,
}

impl<S> CachedStore<S> {
    /// Remembers rows of `spaces`, at most `max_rows` of each; one more, and that table's are forgotten.
    pub fn new(below: S, spaces: &'static [Space], max_rows: usize) -> Self {
        Self {
            below,
            spaces,
            max_rows,
            rows: RefCell::default(),
        }
    }

    fn remember(&self, space: Space, key: &[u8], value: &[u8]) {
        let mut tables = self.rows.borrow_mut();
        let rows = tables.entry(space).or_default();
        if rows.len() >= self.max_rows && !rows.contains_key(key) {
            rows.clear();
        }
        rows.insert(key.to_vec(), value.to_vec());
    }

    fn forget(&self, space: Space, key: &[u8]) {
        if let Some(rows) = self.rows.borrow_mut().get_mut(&space) {
            rows.remove(key);
        }
    }
}

impl<S: Reader> Reader for CachedStore<S> {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.spaces.contains(&space) {
            return self.below.read(space, key);
        }
        if let Some(value) = self
            .rows
            .borrow()
            .get(&space)
            .and_then(|rows| rows.get(key))
        {
            return Ok(Some(value.clone()));
        }
        let value = self.below.read(space, key)?;
        if let Some(value) = &value {
            self.remember(space, key, value);
        }
        Ok(value)
    }

    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.below.range(space, prefix, from, limit)
    }

    fn prefetch(&self, space: Space, keys: &[Vec<u8>]) -> Result<(), StoreError> {
        self.below.prefetch(space, keys)
    }
}

impl<S: Store> Store for CachedStore<S> {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let result = self.below.apply(writes);
        if result.is_err() {
            self.rows.borrow_mut().clear();
            return result;
        }
        for Write { space, key, value } in writes {
            if self.spaces.contains(space) {
                match value {
                    Some(value) => self.remember(*space, key, value),
                    None => self.forget(*space, key),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStore, conformance};
    use super::*;

    const A: Space = Space(1);
    const B: Space = Space(2);

    #[test]
    fn conforms() {
        conformance::run(|| CachedStore::new(MemoryStore::default(), &[A], 2));
        conformance::run(|| CachedStore::new(MemoryStore::default(), &[A, B], 1));
    }

    /// A store whose next batch fails, and which answers once.
    #[derive(Default)]
    struct Failing {
        store: MemoryStore,
        fails: bool,
        reads: std::cell::Cell<usize>,
    }

    impl Reader for Failing {
        fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.reads.set(self.reads.get() + 1);
            self.store.read(space, key)
        }
        fn range(&self, s: Space, p: &[u8], f: &[u8], n: usize) -> Result<Vec<Pair>, StoreError> {
            self.store.range(s, p, f, n)
        }
    }

    impl Store for Failing {
        fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
            if self.fails {
                return Err(StoreError::Full);
            }
            self.store.apply(writes)
        }
    }

    /// REQ-195: a hot row is not read again, and a batch that failed was never seen.
    #[test]
    fn what_failed_is_not_remembered() {
        let row = |value: &[u8]| Write {
            space: A,
            key: b"k".to_vec(),
            value: Some(value.to_vec()),
        };
        let mut store = CachedStore::new(Failing::default(), &[A], 9);
        store.apply(&[row(b"1")]).expect("apply");
        assert_eq!(store.read(A, b"k").expect("read"), Some(b"1".to_vec()));
        assert_eq!(store.below.reads.get(), 0);
        store.below.fails = true;
        assert!(store.apply(&[row(b"2")]).is_err());
        assert_eq!(store.read(A, b"k").expect("read"), Some(b"1".to_vec()));
        assert_eq!(store.below.reads.get(), 1);
    }
}
