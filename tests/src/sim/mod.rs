//! Seeded scenarios in the simulated world, held against a reference model after every step.
//!
//! A seed decides everything: who talks, who sleeps, what breaks, who is removed. Nothing of the schedule may depend
//! on ciphertext: openmls draws its own randomness. [`run`] is the whole of it; a failing seed replays with
//! `./x sim --seed S`.

mod actions;
mod answers;
mod departed;
mod finale;
mod lines;
mod log;
mod mischief;
mod model;
pub mod plants;
mod scenario;
mod story;
mod villainy;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};

pub(crate) use departed::open_all;

use crate::world::{Template, World};
use plants::Plant;

/// A rule that the world has broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which rule, in a few words that stay the same.
    pub rule: &'static str,
    /// By whom, where, when.
    pub detail: String,
}

impl Broken {
    pub(crate) fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self {
            rule,
            detail: detail.into(),
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The ciphersuite; by default every fourth seed is hybrid.
    pub suite: Option<u16>,
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Print what happens.
    pub verbose: bool,
    /// Print every frame of this person, by number.
    pub watch: Option<usize>,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The ciphersuite.
    pub suite: u16,
    /// What was broken, if anything.
    pub broken: Option<Broken>,
    /// Steps of the scenario.
    pub steps: usize,
    /// What has happened how often.
    pub counts: BTreeMap<&'static str, u64>,
    /// Which calls of stores were made to fail, by number.
    pub failed_calls: Vec<u64>,
    /// The last lines of its story, if it has failed.
    pub last_lines: Vec<String>,
    /// A hash over the schedule: equal for equal seeds.
    pub trace: u64,
    /// How long it took.
    pub took: Duration,
}

/// How many calls of a store, counted from a seeded moment, are made to fail, each in some seed.
pub const PLANNED_CALLS: u64 = actions::PLANNED_CALLS;

/// Kinds of events without which a seed has not tested what it should.
pub const REQUIRED: [&str; 9] = [
    "orders",
    "device restarts",
    "device store failures",
    "relay restarts",
    "partitions",
    "commit races",
    "rotations",
    "expelled",
    "attestations",
];

/// The suite of a seed: the hybrid one every fourth time, since it is slower.
#[must_use]
pub fn suite_of(seed: u64) -> u16 {
    if seed % 4 == 3 {
        SUITE_HYBRID
    } else {
        SUITE_CLASSICAL
    }
}

/// Whether a second organisation lives on the relay of this seed.
fn has_neighbours(seed: u64) -> bool {
    seed % 8 == 4
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    let began = std::time::Instant::now();
    let suite = options.suite.unwrap_or_else(|| suite_of(seed));
    let world = template(suite, has_neighbours(seed)).world(seed);
    let mut scenario = scenario::Scenario::new(seed, world, options);
    let broken = run_to_its_end(&mut scenario).err();
    let counts = scenario.counts();
    let missing = REQUIRED
        .iter()
        .find(|kind| counts.get(*kind).copied().unwrap_or(0) == 0);
    let broken = broken.or_else(|| {
        missing
            .filter(|_| options.plant.is_none())
            .map(|kind| Broken::new("a seed must test this", format!("no {kind} in this seed")))
    });
    let people = scenario.world.people.iter();
    Outcome {
        seed,
        suite,
        last_lines: match &broken {
            Some(_) => scenario.model.story.last_lines(),
            None => Vec::new(),
        },
        broken,
        steps: scenario.steps_done,
        counts,
        failed_calls: people.flat_map(|p| p.failed_calls.clone()).collect(),
        trace: scenario.world.trace,
        took: began.elapsed(),
    }
}

/// A panic is a failure of its seed, with its story, and not of the run.
fn run_to_its_end(scenario: &mut scenario::Scenario) -> Result<(), Broken> {
    let run = std::panic::AssertUnwindSafe(|| scenario.run());
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(Broken::new("nothing panics", text.unwrap_or_default()))
    })
}

/// The organisations that seeds of this suite begin with, set up once per process.
fn template(suite: u16, with_neighbours: bool) -> &'static Template {
    static TEMPLATES: [OnceLock<Template>; 4] = [const { OnceLock::new() }; 4];
    let is_hybrid = suite == SUITE_HYBRID;
    let cell = &TEMPLATES[2 * usize::from(is_hybrid) + usize::from(with_neighbours)];
    cell.get_or_init(|| match with_neighbours {
        false => Template::found(start_ms(), suite),
        true => Template::found_two(start_ms(), suite),
    })
}

/// openmls compares lifetimes with the wall clock, so the world's time starts near it; at a round hour, so that
/// nothing else changes from run to run.
fn start_ms() -> u64 {
    const HOUR_MS: u64 = 3_600_000;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
    now - now % HOUR_MS
}

/// Runs until the world is quiet, or this much of its time has passed.
fn settle_limit(world: &World) -> u64 {
    world.now_ms + 600_000
}
