//! A disk of this world: a store in memory that fails when it is told to, lies when a test plants that, and remembers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    /// The call that is planned to fail, and whether all do from then on.
    planned_call: Option<(u64, bool)>,
    /// How many calls are left until then: 0 for no such plan, 1 for the next.
    calls_left: AtomicU64,
    call_has_failed: AtomicBool,
    /// Whether calls count: while the product works, and not when the model looks.
    at_work: bool,
    tamper: Option<Tamper>,
    /// Every batch that was applied, while somebody listens.
    tap: Option<Vec<Vec<Write>>>,
    /// What was stored before the newest batch, if a planted bug is to lose that.
    before: Option<MemoryStore>,
    keeps_before: bool,
    /// Whether batches wait for a sync; those that were applied since the last one, and what they have overwritten.
    holds: bool,
    unsynced: Vec<Vec<Write>>,
    overwritten: Vec<Write>,
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

    /// Lets the n-th call from now (0 = the next) fail, be it a read; with `lasting`, all later ones until [`Disk::heal`].
    pub fn plan_call(&mut self, calls: u64, lasting: bool) {
        self.heal();
        self.planned_call = Some((calls, lasting));
        self.calls_left = AtomicU64::new(calls + 1);
    }

    /// The planned call, once it has failed.
    #[must_use]
    pub fn failed_call(&self) -> Option<u64> {
        let (call, _) = self.planned_call?;
        let failed = self.call_has_failed.load(Ordering::Relaxed);
        failed.then_some(call)
    }

    /// Says whether the product works on it now.
    pub fn work(&mut self, at_work: bool) {
        self.at_work = at_work;
    }

    /// Ends the failure, or forgets the plan.
    pub fn heal(&mut self) {
        self.plan = None;
        self.planned_call = None;
        self.calls_left = AtomicU64::new(0);
        self.call_has_failed = AtomicBool::new(false);
    }

    /// Counts a call; an error once the planned one is reached.
    fn call(&self) -> Result<(), StoreError> {
        if !self.at_work {
            return Ok(());
        }
        match self.calls_left.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => {
                self.call_has_failed.store(true, Ordering::Relaxed);
                if !self.planned_call.is_some_and(|(_, lasting)| lasting) {
                    self.calls_left.store(0, Ordering::Relaxed);
                }
                Err(StoreError::Backend {
                    reason: "planned failure of a call".into(),
                })
            }
            left => {
                self.calls_left.store(left - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// From now on batches are only durable with the next [`Disk::sync`].
    pub fn hold_writes(&mut self) {
        self.holds = true;
    }

    /// Whether batches wait for a sync.
    #[must_use]
    pub fn holds_writes(&self) -> bool {
        self.holds
    }

    /// Everything that was applied is durable now.
    pub fn sync(&mut self) {
        self.holds = false;
        self.overwritten.clear();
        let durable = std::mem::take(&mut self.unsynced);
        if let Some(tap) = &mut self.tap {
            tap.extend(durable);
        }
    }

    /// The machine dies: whatever was not synced is gone. Returns how many batches that were.
    pub fn lose_unsynced(&mut self) -> usize {
        self.holds = false;
        let mut undo = std::mem::take(&mut self.overwritten);
        undo.reverse();
        self.inner
            .apply(&undo)
            .expect("a store in memory takes everything");
        std::mem::take(&mut self.unsynced).len()
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
        self.call()?;
        self.inner.read(space, key)
    }

    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.call()?;
        self.inner.range(space, prefix, from, limit)
    }
}

impl Store for Disk {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.call()?;
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
        if self.holds {
            for write in &writes {
                self.overwritten.push(Write {
                    space: write.space,
                    key: write.key.clone(),
                    value: self.inner.read(write.space, &write.key)?,
                });
            }
        }
        self.inner.apply(&writes)?;
        self.batches += 1;
        if self.holds {
            self.unsynced.push(writes);
        } else if let Some(tap) = &mut self.tap {
            tap.push(writes);
        }
        Ok(())
    }
}
