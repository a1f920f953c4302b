//! A map that remembers what its rows were before the batch, so that a failed commit leaves no trace in memory.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// An ordered map with one level of undo.
#[derive(Debug)]
pub(super) struct Journal<K, V> {
    rows: BTreeMap<K, V>,
    before: BTreeMap<K, Option<V>>,
}

impl<K, V> Default for Journal<K, V> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy, V: Copy> Journal<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) {
        let before = self.rows.insert(key, value);
        self.before.entry(key).or_insert(before);
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let before = self.rows.remove(&key)?;
        self.before.entry(key).or_insert(Some(before));
        Some(before)
    }

    pub(super) fn at(&self, key: K) -> Option<V> {
        self.rows.get(&key).copied()
    }

    pub(super) fn range(&self, keys: impl RangeBounds<K>) -> impl Iterator<Item = (K, V)> {
        self.rows.range(keys).map(|(k, v)| (*k, *v))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The batch is durable.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }

    /// The batch never was.
    pub(super) fn revert(&mut self) {
        for (key, before) in std::mem::take(&mut self.before) {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(journal: &Journal<u8, u8>) -> Vec<(u8, u8)> {
        journal.range(..).collect()
    }

    #[test]
    fn reverting_restores_the_first_value_of_the_batch() {
        let mut journal = Journal::default();
        journal.insert(1, 10);
        journal.insert(2, 20);
        journal.keep();
        journal.insert(1, 11);
        journal.insert(1, 12);
        journal.remove(2);
        journal.insert(2, 21);
        journal.insert(3, 30);
        journal.remove(3);
        journal.insert(4, 40);
        journal.revert();
        assert_eq!(rows(&journal), [(1, 10), (2, 20)]);
    }

    #[test]
    fn what_was_kept_is_not_reverted() {
        let mut journal = Journal::default();
        journal.insert(1, 10);
        journal.keep();
        journal.revert();
        assert_eq!((rows(&journal), journal.len()), (vec![(1, 10)], 1));
    }
}
