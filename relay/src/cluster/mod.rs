//! One node of a relay that several make up: the same core, over a store that all of them write to.
//!
//! A batch of one organisation is one transaction of the database. It begins with the node's lane, goes on with what
//! other nodes have added to the roster, and only then decides (REQ-300). When another writer was first, it is decided
//! anew (REQ-301); when the database is away, nothing is acknowledged, and what may have been written is asked for again
//! until that is known (REQ-302). This module must never decide, and never answer from what is not in the database.

mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mortise_protocol::identity::{Hash, LogSeq, OrgId, RosterSeq};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::Request;
use tracing::{info, warn};

pub use self::wake::WakeError;
pub(crate) use self::wake::{Carrier, Wakes, look};
use crate::core::plan::{Plan, Reach};
use crate::core::{ConnId, Core, CoreError, Input, Moved, Output, Status};
use crate::net::committer::{Backend, now_ms};
use crate::store::postgres::PgStore;

/// How long questions wait for a database that is away, if it is known that they were not written.
const HOLD: Duration = Duration::from_secs(5);
/// A batch that others are always ahead of is refused after so many tries.
const MAX_TRIES: u64 = 100;
/// The pause before a try, ms: as many as tries were made, up to this.
const MAX_PAUSE_MS: u64 = 50;
/// How often a node says in the database that it is there.
const STAY: Duration = Duration::from_secs(60);

/// A node's side of the committer.
pub(crate) struct Node {
    store: PgStore,
    wakes: Option<Wakes>,
    closing: Arc<AtomicBool>,
    stayed: Instant,
    is_away: bool,
}

impl Node {
    /// `closing` ends the waiting for a database that is away.
    pub(crate) fn new(store: PgStore, wakes: Option<Wakes>, closing: Arc<AtomicBool>) -> Self {
        Self {
            store,
            wakes,
            closing,
            stayed: Instant::now(),
            is_away: false,
        }
    }

    /// Decides the batch of one organisation until it is decided, or known not to be.
    fn decide(&mut self, core: &mut Core, org: OrgId, questions: Vec<Input>) -> Vec<Output> {
        let inputs = with_moved(core, org, questions);
        let since = Instant::now();
        let mut is_uncertain = false;
        let mut least = Reach::Reads;
        for tries in 1_u64.. {
            let mut plan = core.plan(org, &inputs);
            plan.reach = plan.reach.max(least);
            let error = match self.try_once(core, &plan, &inputs) {
                Ok(outputs) => return outputs,
                Err(error) => error,
            };
            is_uncertain |= self.store.is_uncertain();
            let gives_up = match &error {
                StoreError::Conflict if plan.reach == Reach::Reads => {
                    least = Reach::Writes;
                    continue;
                }
                StoreError::Conflict => tries > MAX_TRIES,
                StoreError::Lost => since.elapsed() > HOLD,
                other => {
                    warn!(error = %other, "a batch failed");
                    true
                }
            };
            if self.closing.load(Ordering::Relaxed) {
                // Whoever waits for an answer is told that the relay goes, and asks another.
                return Vec::new();
            }
            if gives_up && !is_uncertain {
                return core.refuse(&inputs);
            }
            self.pause(tries, &error);
        }
        Vec::new()
    }

    fn try_once(
        &mut self,
        core: &mut Core,
        plan: &Plan,
        inputs: &[Input],
    ) -> Result<Vec<Output>, StoreError> {
        self.store.begin(plan)?;
        let decided = core.try_step(&mut self.store, now_ms(), inputs);
        self.store.end();
        decided
    }

    /// Before the next try; a database that was lost is looked for.
    fn pause(&mut self, tries: u64, error: &StoreError) {
        // Nodes that were in each other's way do not meet again at once.
        let spread = now_ms().wrapping_mul(2_654_435_761) % 8;
        std::thread::sleep(Duration::from_millis((tries + spread).min(MAX_PAUSE_MS)));
        if !matches!(error, StoreError::Conflict) {
            self.find_database();
        }
    }

    fn find_database(&mut self) {
        let is_back = self.store.reconnect().is_ok();
        if is_back == self.is_away {
            self.is_away = !is_back;
            if is_back {
                info!("the database is back");
            } else {
                warn!("the database is away: nothing is acknowledged until it is back");
            }
        }
    }

    /// Tells the other nodes what was written, if that is possible now; if not, they look by themselves.
    fn tell(&mut self) {
        let moved = self.store.take_written();
        if let Some(wakes) = &self.wakes
            && !moved.is_empty()
        {
            wakes.send(moved);
        }
    }
}

impl Backend for Node {
    fn step(&mut self, core: &mut Core, inputs: Vec<Input>) -> Vec<Output> {
        let mut outputs = Vec::new();
        let sorted = Sorted::of(core, inputs);
        outputs.extend(decide_unread(core, &mut self.store, &sorted.before));
        for (org, questions) in sorted.by_org {
            outputs.extend(self.decide(core, org, questions));
        }
        outputs.extend(decide_unread(core, &mut self.store, &sorted.after));
        self.tell();
        outputs
    }

    fn look(&mut self, core: &mut Core) -> Vec<Input> {
        let is_due = self.stayed.elapsed() > STAY;
        if is_due && self.store.stay().is_ok() {
            self.stayed = Instant::now();
        }
        let found = self.store.begin(&Plan::reading()).and_then(|()| {
            let found = core.find_moved(&self.store);
            self.store.end();
            found
        });
        match found {
            Ok(found) => found.into_iter().map(Input::Moved).collect(),
            Err(StoreError::Lost) => {
                self.find_database();
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    fn status(&mut self, core: &Core) -> Result<Status, CoreError> {
        core.status(&self.store)
    }

    fn add_claim_token(&mut self, core: &mut Core, hash: Hash) -> Result<(), CoreError> {
        core.add_claim_token(&mut self.store, hash)
    }
}

/// A batch, sorted: who came, then the questions of each organisation, then who went.
#[derive(Default)]
struct Sorted {
    before: Vec<Input>,
    by_org: BTreeMap<OrgId, Vec<Input>>,
    after: Vec<Input>,
}

impl Sorted {
    fn of(core: &Core, inputs: Vec<Input>) -> Self {
        let mut sorted = Self::default();
        // A greeting that is in this batch says whose the questions after it are.
        let mut greeted: BTreeMap<ConnId, OrgId> = BTreeMap::new();
        for input in inputs {
            let org = match &input {
                Input::Connected { .. } => None,
                Input::Disconnected { .. } => {
                    sorted.after.push(input);
                    continue;
                }
                Input::Moved(moved) if !core.waits_for(moved) => continue,
                Input::Moved(moved) => Some(moved.org()),
                Input::Frame { conn, frame, .. } => {
                    let org = core.org_of(*conn, frame);
                    let known = greeted.get(conn).copied();
                    if let (Request::Hello { .. }, Some(org), None) = (&frame.request, org, known) {
                        greeted.insert(*conn, org);
                    }
                    org.or(known)
                }
            };
            match org {
                Some(org) => sorted.by_org.entry(org).or_default().push(input),
                None => sorted.before.push(input),
            }
        }
        sorted
    }
}

/// Who comes and goes, and questions that are refused before anything is read.
fn decide_unread(core: &mut Core, store: &mut PgStore, inputs: &[Input]) -> Vec<Output> {
    if inputs.is_empty() {
        return Vec::new();
    }
    match core.try_step(store, now_ms(), inputs) {
        Ok(outputs) => outputs,
        Err(_) => core.refuse(inputs),
    }
}

/// First of all what others have done: to the roster, and to the logs that are written to and that somebody here reads.
fn with_moved(core: &Core, org: OrgId, questions: Vec<Input>) -> Vec<Input> {
    let mut moved = BTreeSet::from([Moved::Roster(org, RosterSeq(u64::MAX))]);
    for question in &questions {
        if let Input::Frame { frame, .. } = question
            && let Request::Submit(submission) = &frame.request
        {
            let endless = LogSeq(u64::MAX);
            let log = Moved::Log(org, submission.group, endless);
            if core.waits_for(&log) {
                moved.insert(log);
            }
        }
    }
    moved
        .into_iter()
        .map(Input::Moved)
        .chain(questions)
        .collect()
}
