//! How much a device may submit and ask in a time, and how much one group's log may grow (REQ-320, REQ-321).
//!
//! The buckets are governor's (GCRA). Its clock is the batch's time, and its memory one with an undo: a batch that was not
//! written has taken nothing. They live in memory alone, per node; a start finds every bucket full. This module must
//! never look at what is said, and never hold up an order.

use std::cell::Cell;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{InsufficientCapacity, Quota as Bucket, RateLimiter};
use mortise_protocol::identity::{DeviceId, GroupId, OrgId, decode};
use mortise_protocol::wire::log::RecordBody;
use mortise_protocol::wire::{Refusal, Request, Submission};
use serde::{Deserialize, Serialize};

use super::journal::Journal;
use super::layout::{self, EPOCHS, EpochRecord, of_group};
use super::turn::{Caller, Failure, Turn};

/// A record counts once, and once more for each full so many of its bytes.
pub const BYTES_PER_COUNT: usize = 4_096;
/// Who is refused waits at least so long: what is on its way behind is refused with it, and keeps its order.
pub const MIN_WAIT_MS: u64 = 1_000;
/// A clock that was set back by more than this begins with full buckets.
const MAX_STEP_BACK_MS: u64 = 1_000;
/// How many idle buckets are kept before they are looked for.
const MAX_IDLE: usize = 1_024;
/// The last time that governor can count in, ms since 1970: the year 2255.
const LAST_MS: u64 = 9_000_000_000_000;

/// How much fits a bucket, and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// What comes back in a second; 0 for no limit at all.
    pub per_s: u32,
    /// What fits, at least 1.
    pub burst: NonZeroU32,
}

impl Quota {
    const fn new(per_s: u32, burst: u32) -> Self {
        let burst = match NonZeroU32::new(burst) {
            Some(burst) => burst,
            None => NonZeroU32::MIN,
        };
        Self { per_s, burst }
    }

    /// `None` for no limit.
    fn bucket(self) -> Option<Bucket> {
        let one = Duration::from_secs(1).checked_div(self.per_s)?;
        Some(Bucket::with_period(one)?.allow_burst(self.burst))
    }
}

/// What an operator allows (REQ-320).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Records that one device submits, whether they are appended or not.
    pub device_records: Quota,
    /// Records that are appended to one group.
    pub group_records: Quota,
    /// Everything else that one device asks, a KeyPackage or a device that is named for one.
    pub device_questions: Quota,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            device_records: Quota::new(2_000, 60_000),
            // A single member must not use up what all of a group share.
            group_records: Quota::new(8_000, 240_000),
            device_questions: Quota::new(500, 20_000),
        }
    }
}

/// What is left to whom.
#[derive(Debug)]
pub(super) struct Meter {
    quotas: Quotas,
    records: Limiter<(OrgId, DeviceId)>,
    questions: Limiter<(OrgId, DeviceId)>,
    groups: Limiter<GroupId>,
    /// Until when a device is refused, ms since 1970: to one group, or whatever it is.
    held_until_ms: Times<(OrgId, DeviceId, What)>,
    now_ms: u64,
    refused: u64,
    refused_before: u64,
}

/// What a device is held up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Records,
    RecordsTo(GroupId),
    Questions,
}

impl Meter {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            records: Limiter::new(quotas.device_records),
            questions: Limiter::new(quotas.device_questions),
            groups: Limiter::new(quotas.group_records),
            held_until_ms: Times::default(),
            now_ms: 0,
            refused: 0,
            refused_before: 0,
        }
    }

    pub(super) fn quotas(&self) -> Quotas {
        self.quotas
    }

    /// Refusals since the start.
    pub(super) fn refusals(&self) -> u64 {
        self.refused_before
    }

    /// The time of the batch.
    pub(super) fn set_now(&mut self, now_ms: u64) {
        let (refused, refused_before) = (self.refused, self.refused_before);
        if now_ms.saturating_add(MAX_STEP_BACK_MS) < self.now_ms {
            *self = Self {
                refused,
                refused_before,
                ..Self::new(self.quotas)
            };
        }
        self.now_ms = now_ms;
        self.records.set_now(now_ms);
        self.questions.set_now(now_ms);
        self.groups.set_now(now_ms);
    }

    /// Takes so much, or says how long to wait, ms.
    fn take(&self, caller: &Caller, what: What, count: u32) -> Result<(), u64> {
        let device = (caller.org, caller.device);
        let held = &self.held_until_ms.rows;
        let held = held.at((caller.org, caller.device, what));
        match held.unwrap_or(0).saturating_sub(self.now_ms) {
            0 => {}
            wait_ms => return Err(wait_ms),
        }
        let taken = match what {
            What::Records => self.records.take(&device, count),
            What::Questions => self.questions.take(&device, count),
            What::RecordsTo(group) => self.groups.take(&group, count),
        };
        taken.map_err(|wait_ms| wait_ms.max(MIN_WAIT_MS))
    }

    fn refuse(&mut self, caller: &Caller, what: What, retry_after_ms: u64) -> Refusal {
        let until = self.now_ms.saturating_add(retry_after_ms);
        let held = &mut self.held_until_ms.rows;
        held.insert((caller.org, caller.device, what), until);
        self.refused += 1;
        Refusal::RateLimited { retry_after_ms }
    }

    pub(super) fn keep(&mut self) {
        self.refused_before = self.refused;
        self.records.keep();
        self.questions.keep();
        self.groups.keep();
        self.held_until_ms.keep(self.now_ms);
    }

    pub(super) fn revert(&mut self) {
        self.refused = self.refused_before;
        self.records.revert();
        self.questions.revert();
        self.groups.revert();
        self.held_until_ms.rows.revert();
    }
}

/// One kind of bucket, one for each key.
#[derive(Debug)]
struct Limiter<K: Ord + Copy + Hash> {
    limiter: Option<RateLimiter<K, Buckets<K>, BatchClock>>,
    buckets: Buckets<K>,
}

impl<K: Ord + Copy + Hash> Limiter<K> {
    fn new(quota: Quota) -> Self {
        let buckets = Buckets::default();
        let limiter = |bucket| RateLimiter::new(bucket, buckets.clone(), BatchClock::default());
        Self {
            limiter: quota.bucket().map(limiter),
            buckets,
        }
    }

    fn set_now(&self, now_ms: u64) {
        if let Some(limiter) = &self.limiter {
            limiter.clock().0.set(now_ms.min(LAST_MS));
        }
    }

    /// Takes so much, or says how long to wait, ms, rounded up. More than fits is as much as fits.
    fn take(&self, key: &K, count: u32) -> Result<(), u64> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        let taken = match limiter.check_key_n(key, at_least_1(count)) {
            Ok(taken) => taken,
            Err(InsufficientCapacity(all)) => {
                let Ok(taken) = limiter.check_key_n(key, at_least_1(all)) else {
                    return Ok(());
                };
                taken
            }
        };
        taken.map_err(|until| {
            let wait = until.wait_time_from(limiter.clock().now());
            u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
        })
    }

    fn keep(&self) {
        if let Some(limiter) = &self.limiter {
            let now = limiter.clock().now();
            self.buckets.lock().keep(now.as_u64());
        }
    }

    fn revert(&self) {
        self.buckets.lock().rows.revert();
    }
}

fn at_least_1(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

/// The time of the batch, ms since 1970.
#[derive(Clone, Debug, Default)]
struct BatchClock(Cell<u64>);

impl Clock for BatchClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.get() * 1_000_000)
    }
}

/// When each bucket is full again, ns since 1970; one without a row is full. Shared by a limiter, which does not give it out,
/// and who undoes what it did.
#[derive(Clone, Debug)]
struct Buckets<K>(Arc<Mutex<Times<K>>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Times::default())))
    }
}

impl<K> Buckets<K> {
    fn lock(&self) -> MutexGuard<'_, Times<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Copy> StateStore for Buckets<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let rows = &mut self.lock().rows;
        let (outcome, full_at) = decide(rows.at(*key).map(Nanos::from))?;
        rows.insert(*key, full_at.as_u64());
        Ok(outcome)
    }
}

/// Times until which something holds.
#[derive(Debug)]
struct Times<K> {
    rows: Journal<K, u64>,
    /// At so many rows it is looked for those that are over.
    look_at: usize,
}

impl<K> Default for Times<K> {
    fn default() -> Self {
        Self {
            rows: Journal::default(),
            look_at: MAX_IDLE,
        }
    }
}

impl<K: Ord + Copy> Times<K> {
    fn keep(&mut self, now: u64) {
        if self.rows.len() > self.look_at {
            let past = self.rows.range(..).filter(|(_, until)| *until <= now);
            let past: Vec<K> = past.map(|(key, _)| key).collect();
            for key in past {
                self.rows.remove(key);
            }
            self.look_at = self.rows.len() * 2 + MAX_IDLE;
        }
        self.rows.keep();
    }
}

impl Turn<'_> {
    /// Takes from the caller's buckets what a question costs, before anything is done for it (REQ-320).
    pub(super) fn charge(&mut self, caller: &Caller, request: &Request) -> Result<(), Failure> {
        let (what, count) = price(request);
        let submission = match request {
            Request::Submit(submission) => Some(submission),
            _ => None,
        };
        self.take(caller, what, count, submission)
    }

    /// Takes from a group's bucket what a record costs that is about to be appended: nobody else can use it up (REQ-320).
    pub(super) fn charge_group(
        &mut self,
        caller: &Caller,
        submission: &Submission,
    ) -> Result<(), Failure> {
        let what = What::RecordsTo(submission.group);
        self.take(caller, what, records(submission), Some(submission))
    }

    fn take(
        &mut self,
        caller: &Caller,
        what: What,
        count: u32,
        submission: Option<&Submission>,
    ) -> Result<(), Failure> {
        let Err(wait_ms) = self.rates.meter.take(caller, what, count) else {
            return Ok(());
        };
        if let Some(submission) = submission
            && self.is_demanded(caller, submission)?
        {
            return Ok(());
        }
        Err(self.rates.meter.refuse(caller, what, wait_ms).into())
    }

    /// Whether it may be the commit that an order demands: one on an epoch that was opened before the newest order
    /// (REQ-321). There is at most one in each group.
    fn is_demanded(&self, caller: &Caller, submission: &Submission) -> Result<bool, Failure> {
        let Some(head) = self.group_of(caller, submission.group)? else {
            return Ok(false);
        };
        let key = of_group(submission.group, submission.epoch.0);
        let opened: Option<EpochRecord> = layout::load(self.tx, EPOCHS, &key)?;
        let fence = self.roster(caller.org)?.fence();
        let is_owed = opened.is_some_and(|opened| opened.opening_s < fence);
        let may_close = head.head_epoch == submission.epoch && is_owed;
        let is_commit = || {
            matches!(
                decode(submission.payload.as_slice()),
                Ok(RecordBody::Commit(_))
            )
        };
        Ok(may_close && is_commit())
    }
}

/// Which bucket a question is taken from, and how much.
fn price(request: &Request) -> (What, u32) {
    match request {
        Request::Submit(submission) => (What::Records, records(submission)),
        Request::CreateGroup { .. } => (What::Records, 1),
        Request::ClaimKeyPackages { devices, .. } => (What::Questions, count(devices.len())),
        Request::PublishKeyPackages { one_time, .. } => {
            (What::Questions, count(one_time.len()).saturating_add(1))
        }
        _ => (What::Questions, 1),
    }
}

fn records(submission: &Submission) -> u32 {
    let welcomes = submission.welcomes.iter();
    let welcomes: usize = welcomes.map(|w| w.welcome.as_slice().len()).sum();
    let bytes = submission.payload.as_slice().len() + welcomes;
    count(bytes / BYTES_PER_COUNT).saturating_add(1)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
