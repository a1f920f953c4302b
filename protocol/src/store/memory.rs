//! The store in memory: for the simulator, for tests, and as the model that other backends are held to.

use std::collections::BTreeMap;

use super::{Pair, Reader, Space, Store, StoreError, Write};

/// When the next batches of a [`MemoryStore`] fail, as a disk or a power cut would make them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crash {
    /// Never.
    #[default]
    Never,
    /// The n-th batch from now (0 = the next) fails and applies nothing.
    AtBatch(u64),
}

/// An ordered map per space, with an optional planned failure.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    rows: BTreeMap<(Space, Vec<u8>), Vec<u8>>,
    crash: Crash,
}

impl MemoryStore {
    /// Plans the failure of a later batch.
    pub fn plan_crash(&mut self, crash: Crash) {
        self.crash = crash;
    }

    /// Every value in the store, for canary scans.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.values().map(Vec::as_slice)
    }
}

impl Reader for MemoryStore {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.get(&(space, key.to_vec())).cloned())
    }

    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let start = from.max(prefix).to_vec();
        Ok(self
            .rows
            .range((space, start)..)
            .take_while(|((s, k), _)| *s == space && k.starts_with(prefix))
            .take(limit)
            .map(|((_, k), v)| (k.clone(), v.clone()))
            .collect())
    }
}

impl Store for MemoryStore {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        match self.crash {
            Crash::AtBatch(0) => {
                return Err(StoreError::Backend {
                    reason: "planned failure".into(),
                });
            }
            Crash::AtBatch(n) => self.crash = Crash::AtBatch(n - 1),
            Crash::Never => {}
        }
        for write in writes {
            let key = (write.space, write.key.clone());
            match &write.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        super::super::conformance::run(MemoryStore::default);
    }

    #[test]
    fn a_planned_failure_applies_nothing() {
        let mut store = MemoryStore::default();
        store.plan_crash(Crash::AtBatch(1));
        let row = |k: &[u8]| Write {
            space: Space(0),
            key: k.to_vec(),
            value: Some(vec![1]),
        };
        store.apply(&[row(b"a")]).expect("first batch");
        store.apply(&[row(b"b")]).expect_err("second batch");
        assert_eq!(store.read(Space(0), b"b").expect("read"), None);
    }
}
