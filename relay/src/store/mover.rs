//! Brings what the journal holds into the database, behind the relay's back: few, large transactions in key order.
//!
//! A transaction also stores up to where it brings the database. Segments are let go only after it is durable
//! (REQ-342). This module must never let go of what is not.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mortise_protocol::store::{SqliteStore, StoreError};
use tracing::{error, warn};

use super::applied;
use super::frame::Segment;
use super::segments::{Applied, Pool};
use super::table::Table;

/// A full disk is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// When what waits is moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// So much makes a transaction, bytes of frames.
    pub(super) bytes: usize,
    /// So long after the first of it, it is moved, however little it is.
    pub(super) after: Duration,
    /// More than this does not wait: batches do, bytes of frames.
    pub(super) max_waiting: usize,
}

/// What the store and its mover share.
#[derive(Debug)]
pub(super) struct Shared {
    pace: Pace,
    state: Mutex<State>,
    /// There is something for the mover to do.
    work: Condvar,
    /// It has done something, or found that it cannot.
    done: Condvar,
    pool: Mutex<Pool>,
}

/// How the mover is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Not yet.
    No,
    /// When everything is moved.
    Orderly,
    /// Now; what waits stays in the journal.
    Now,
}

/// What is being moved, and up to where that brings the database.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    pub(super) table: Arc<Table>,
    to: Applied,
}

/// What waits, and how the mover is.
#[derive(Debug)]
pub(super) struct State {
    /// What came last; over what is being moved.
    pub(super) waiting: Table,
    /// Up to where `waiting` goes.
    pub(super) newest: Applied,
    /// Still to be read here.
    pub(super) moving: Option<Moving>,
    /// Up to where the database is.
    pub(super) moved: Applied,
    /// The segment that is written.
    pub(super) current: Segment,
    /// How often the disk was full since something was moved.
    pub(super) full: u64,
    /// Why the mover can do no more.
    pub(super) failed: Option<StoreError>,
    hurry: bool,
    stop: Stop,
    /// The mover is gone.
    ended: bool,
}

impl State {
    /// What is in memory and not yet in the database, bytes.
    pub(super) fn bytes(&self) -> usize {
        let moving = self.moving.as_ref();
        self.waiting.bytes() + moving.map_or(0, |moving| moving.table.bytes())
    }
}

impl Shared {
    /// `waiting` goes up to `newest`; the database is at `moved`.
    pub(super) fn new(
        pace: Pace,
        (waiting, newest): (Table, Applied),
        moved: Applied,
        current: Segment,
        pool: Pool,
    ) -> Self {
        Self {
            pace,
            state: Mutex::new(State {
                waiting,
                newest,
                moving: None,
                moved,
                current,
                full: 0,
                failed: None,
                hurry: false,
                stop: Stop::No,
                ended: false,
            }),
            work: Condvar::new(),
            done: Condvar::new(),
            pool: Mutex::new(pool),
        }
    }

    /// A panic elsewhere leaves the tables whole: each is changed by one call.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a frame of so many bytes may wait, too.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the mover finds no room on the disk, and what made it fail.
    pub(super) fn wait_for_room(&self, bytes: usize) -> Result<(), StoreError> {
        let mut state = self.lock();
        let full_before = state.full;
        loop {
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            if state.full > full_before {
                return Err(StoreError::Full);
            }
            let fits = state.bytes() == 0 || state.bytes() + bytes <= self.pace.max_waiting;
            // What the database has no room for is not taken into the journal either, though that may have some.
            if fits && state.full == 0 {
                return Ok(());
            }
            state = self.move_now(state);
        }
    }

    /// Waits until everything that waits now is in the database.
    ///
    /// # Errors
    /// As [`Shared::wait_for_room`].
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        let (target, full_before) = (state.newest.lsn, state.full);
        while state.moved.lsn < target {
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            if state.full > full_before {
                return Err(StoreError::Full);
            }
            if state.ended {
                return Err(StoreError::Backend {
                    reason: "the store was closed".into(),
                });
            }
            state = self.move_now(state);
        }
        Ok(())
    }

    fn move_now<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.hurry = true;
        self.work.notify_one();
        let state = self.done.wait(state);
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the mover that `bytes` have come to what waits: the first of them, for its clock, and those that make enough.
    pub(super) fn came(&self, state: &State, bytes: usize) {
        let (now, enough) = (state.waiting.bytes(), self.pace.bytes);
        if now == bytes || (now >= enough && now - bytes < enough) {
            self.work.notify_one();
        }
    }

    /// Lets the mover end.
    pub(super) fn stop(&self, how: Stop) {
        self.lock().stop = how;
        self.work.notify_one();
    }

    /// Waits for something to move; `None` when the mover is to end.
    fn next(&self) -> Option<Moving> {
        let mut state = self.lock();
        loop {
            if state.stop == Stop::Now {
                return None;
            }
            if let Some(moving) = &state.moving {
                return Some(moving.clone());
            }
            if state.waiting.is_empty() {
                if state.stop == Stop::Orderly {
                    return None;
                }
                state.hurry = false;
                let woken = self.work.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            } else if state.hurry
                || state.stop == Stop::Orderly
                || state.waiting.bytes() >= self.pace.bytes
            {
                state.hurry = false;
                let table = Arc::new(std::mem::take(&mut state.waiting));
                let to = state.newest;
                state.moving = Some(Moving { table, to });
            } else {
                let woken = self.work.wait_timeout(state, self.pace.after);
                let (guard, waited) = woken.unwrap_or_else(PoisonError::into_inner);
                state = guard;
                state.hurry |= waited.timed_out();
            }
        }
    }

    /// It is in the database; what is still to be retired.
    fn moved(&self, to: Applied) -> Segment {
        let mut state = self.lock();
        state.moving = None;
        state.moved = to;
        state.full = 0;
        self.done.notify_all();
        state.current
    }

    /// There was no room; waits a while. Whether to go on.
    fn full(&self) -> bool {
        let mut state = self.lock();
        state.full += 1;
        self.done.notify_all();
        if state.stop != Stop::No {
            return false;
        }
        state.hurry = false;
        let woken = self.work.wait_timeout_while(state, RETRY_AFTER, |state| {
            !state.hurry && state.stop == Stop::No
        });
        drop(woken);
        true
    }

    fn fail(&self, error: StoreError) {
        self.lock().failed = Some(error);
    }
}

/// The mover's thread.
pub(super) fn run(shared: &Shared, mut database: SqliteStore) {
    move_all(shared, &mut database);
    close(shared, &mut database);
    shared.lock().ended = true;
    shared.done.notify_all();
}

fn move_all(shared: &Shared, database: &mut SqliteStore) {
    while let Some(Moving { table, to }) = shared.next() {
        match applied::store(database, &table, to) {
            Ok(()) => {
                drop(table);
                let current = shared.moved(to);
                // What is not retired now is so the next time.
                if let Err(error) = shared.pool().retire(to.segment, current) {
                    warn!(%error, "a segment of the journal could not be let go");
                }
            }
            Err(StoreError::Full) => {
                warn!("the disk is full: the journal waits for room in the database");
                if !shared.full() {
                    return;
                }
            }
            Err(error) => {
                error!(%error, "the journal cannot be brought into the database");
                return shared.fail(error);
            }
        }
    }
}

/// After an orderly stop the database is complete in itself (REQ-343).
fn close(shared: &Shared, database: &mut SqliteStore) {
    let closed = {
        let state = shared.lock();
        let is_complete = state.stop == Stop::Orderly && state.bytes() == 0;
        is_complete.then_some(Applied {
            closed: true,
            ..state.moved
        })
    };
    let Some(closed) = closed else { return };
    if let Err(error) = applied::store(database, &Table::default(), closed) {
        warn!(%error, "the database could not be closed in order");
    }
}
