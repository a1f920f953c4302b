//! A disk of this world: a store in memory that fails when it is told to, lies when a test plants that, and remembers.

use mortise_protocol::store::{MemoryStore, Pair, Reader, Space, Store, StoreError, Write};

/// How a batch fails; in both cases nothing of it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The process dies at this write, or the disk breaks.
    Broken,
    /// No room left, until [`Disk::heal`].
    Full,
}

/// Changes what is written, for planted bugs.
pub type Tamper = Box<dyn FnMut(&mut Vec<Write>) + Send>;

/// A disk.
#[derive(Default)]
pub struct Disk {
    inner: MemoryStore,
    plan: Option<(u64, DiskFault)>,
    tamper: Option<Tamper>,
    /// Every batch that was applied, while somebody listens.
    tap: Option<Vec<Vec<Write>>>,
    /// What was stored before the newest batch, if a planted bug is to lose that.
    before: Option<MemoryStore>,
    keeps_before: bool,
    batches: u64,
}

impl From<MemoryStore> for Disk {
    fn from(inner: MemoryStore) -> Self {
        Self {
            inner,
            ..Self::default()
        }
    }
}

impl Disk {
    /// Lets the n-th batch from now (0 = the next) and all later ones fail, until [`Disk::heal`].
    pub fn plan(&mut self, batches: u64, fault: DiskFault) {
        self.plan = Some((batches, fault));
    }

    /// Whether a failure is planned or going on.
    #[must_use]
    pub fn is_planned(&self) -> bool {
        self.plan.is_some()
    }

    /// Whether the disk is failing now.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        matches!(self.plan, Some((0, _)))
    }

    /// Ends the failure, or forgets the plan.
    pub fn heal(&mut self) {
        self.plan = None;
    }

    /// Changes what is written from now on.
    pub fn tamper_with(&mut self, tamper: Tamper) {
        self.tamper = Some(tamper);
    }

    /// Begins to remember batches for [`Disk::take_tap`].
    pub fn listen(&mut self) {
        self.tap = Some(Vec::new());
    }

    /// The batches since the last call.
    pub fn take_tap(&mut self) -> Vec<Vec<Write>> {
        self.tap.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many batches were applied.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// A copy of what is stored.
    #[must_use]
    pub fn snapshot(&self) -> MemoryStore {
        self.inner.clone()
    }

    /// Remembers, from now on, what the newest batch has changed.
    pub fn keep_before(&mut self) {
        self.keeps_before = true;
    }

    /// A disk that lies about fsync: the newest batch is gone.
    pub fn lose_last_batch(&mut self) {
        if let Some(before) = self.before.take() {
            self.inner = before;
        }
    }
}

impl Reader for Disk {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.read(space, key)
    }

    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.inner.range(space, prefix, from, limit)
    }
}

impl Store for Disk {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        match &mut self.plan {
            Some((0, DiskFault::Broken)) => {
                return Err(StoreError::Backend {
                    reason: "planned failure".into(),
                });
            }
            Some((0, DiskFault::Full)) => return Err(StoreError::Full),
            Some((n, _)) => *n -= 1,
            None => {}
        }
        let mut writes = writes.to_vec();
        if let Some(tamper) = &mut self.tamper {
            tamper(&mut writes);
        }
        if self.keeps_before {
            self.before = Some(self.inner.clone());
        }
        self.inner.apply(&writes)?;
        self.batches += 1;
        if let Some(tap) = &mut self.tap {
            tap.push(writes);
        }
        Ok(())
    }
}
