//! All attacks of the handbook, and what came of them over seeds, ciphersuites and sizes of groups.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};

use super::table::TABLE;
use super::{Attack, Outcome, Stage};

/// Users in the groups that are attacked with every seed.
pub const SIZES: [usize; 3] = [2, 3, 20];
/// Users in the groups that are attacked once.
pub const LARGE: usize = 1_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seeds, each with every suite and size.
    pub seeds: u64,
    /// The first.
    pub from: u64,
    /// Sizes of groups, users.
    pub sizes: Vec<usize>,
    /// Sizes of groups that are attacked with the first seed only.
    pub once: Vec<usize>,
    /// Ciphersuites.
    pub suites: Vec<u16>,
    /// Only the attack of this number.
    pub only: Option<String>,
    /// Attacks at the same time.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seeds: 1,
            from: 1,
            sizes: SIZES.to_vec(),
            once: Vec::new(),
            suites: vec![SUITE_CLASSICAL, SUITE_HYBRID],
            only: None,
            workers: 1,
        }
    }
}

/// What came of one attack, over all that was run.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub attack: Attack,
    /// How often it was mounted.
    pub tried: usize,
    /// How often it was neither prevented nor, where that is asked, noticed.
    pub succeeded: usize,
    /// Alarms that honest devices raised.
    pub alarms: usize,
    /// How long what it delays took at most, world's time, ms.
    pub worst_ms: u64,
    /// How often the control was run, and how often it got what it was after.
    pub controls: (usize, usize),
    /// What went wrong: what was gained, which control got nothing, what panicked; and how to see it again.
    pub notes: BTreeSet<String>,
}

impl Row {
    fn new(attack: Attack) -> Self {
        Self {
            attack,
            tried: 0,
            succeeded: 0,
            alarms: 0,
            worst_ms: 0,
            controls: (0, 0),
            notes: BTreeSet::new(),
        }
    }

    /// Whether it was mounted, was defeated every time, and every control got something.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.succeeded == 0 && self.tried > 0 && self.controls_work() && self.notes.is_empty()
    }

    /// Whether every control got what it was after.
    #[must_use]
    pub fn controls_work(&self) -> bool {
        self.controls.0 > 0 && self.controls.0 == self.controls.1
    }

    /// Adds an attack that was played by real programs, with its control.
    pub(super) fn add_played(&mut self, place: &str, succeeded: bool, control: bool) {
        self.tried += 1;
        self.controls.0 += 1;
        self.controls.1 += usize::from(control);
        self.succeeded += usize::from(succeeded);
        if succeeded {
            self.notes.insert(format!("{place}: it succeeded"));
        }
        if !control {
            self.notes.insert(format!("{place}: its control failed"));
        }
    }

    fn add(&mut self, job: &Job, result: Result<Outcome, String>) {
        let place = &job.place;
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(panic) => {
                self.notes.insert(format!("{place}: {panic}"));
                return;
            }
        };
        if !job.defended {
            self.controls.0 += 1;
            self.controls.1 += usize::from(outcome.gained.is_some());
            if outcome.gained.is_none() {
                let told = outcome.told.join("; ");
                self.notes
                    .insert(format!("{place}: the control gets nothing; alarms: {told}"));
            }
            return;
        }
        self.tried += 1;
        self.alarms += outcome.alarms;
        self.worst_ms = self.worst_ms.max(outcome.worst_ms);
        if !self.attack.is_defeated_by(&outcome) {
            self.succeeded += 1;
            let gained = outcome.gained.unwrap_or_else(|| "no alarm".into());
            let told = outcome.told.join("; ");
            self.notes
                .insert(format!("{place}: {gained}; alarms: {told}"));
        }
    }
}

/// What all rows come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Attacks that were mounted.
    pub attacks: usize,
    /// Attacks that succeeded at least once.
    pub succeeded: usize,
    /// Attacks whose control failed at least once.
    pub controls_failed: usize,
    /// Attacks that passed.
    pub passed: usize,
    /// Attacks that did not.
    pub failed: usize,
}

impl Totals {
    /// Adds rows up.
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let count = |wanted: fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count();
        Self {
            attacks: rows.len(),
            succeeded: count(|row| row.succeeded > 0),
            controls_failed: count(|row| !row.controls_work()),
            passed: count(Row::passed),
            failed: count(|row| !row.passed()),
        }
    }
}

/// Every attack, in the handbook's order, insiders last.
#[must_use]
pub fn table() -> Vec<Attack> {
    TABLE.to_vec()
}

/// One world, one attack or its control.
struct Job {
    row: usize,
    run: fn(&mut Stage) -> Outcome,
    seed: u64,
    suite: u16,
    size: usize,
    defended: bool,
    place: String,
}

/// Mounts all that is asked for.
#[must_use]
pub fn run(options: &Options) -> Vec<Row> {
    let wanted = |attack: &Attack| {
        options
            .only
            .as_ref()
            .is_none_or(|only| *only == attack.number)
    };
    let rows = table().into_iter().filter(wanted).map(Row::new);
    let rows: Vec<Row> = rows.collect();
    let jobs = jobs(&rows, options);
    let (rows, next) = (Mutex::new(rows), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..options.workers.max(1) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = mount(job);
                    let mut rows = rows
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    rows[job.row].add(job, result);
                }
            });
        }
    });
    rows.into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn jobs(rows: &[Row], options: &Options) -> Vec<Job> {
    let mut jobs = Vec::new();
    for seed in options.from..options.from + options.seeds {
        let first = seed == options.from;
        let once = options.once.iter().filter(|_| first);
        for &size in options.sizes.iter().chain(once) {
            for &suite in &options.suites {
                for (row, attack) in rows.iter().map(|row| row.attack).enumerate() {
                    if size >= attack.least {
                        let both = [true, false].into_iter();
                        jobs.extend(both.map(|d| Job::new(row, &attack, (seed, suite, size), d)));
                    }
                }
            }
        }
    }
    jobs
}

impl Job {
    fn new(
        row: usize,
        attack: &Attack,
        (seed, suite, size): (u64, u16, usize),
        defended: bool,
    ) -> Self {
        let what = if defended { "attack" } else { "control of" };
        let number = attack.number;
        Self {
            row,
            run: attack.mount,
            seed,
            suite,
            size,
            defended,
            place: format!("{what} {number}, seed {seed}, suite {suite:#06x}, {size} users"),
        }
    }
}

/// A panic is a failure of its attack and not of the run.
fn mount(job: &Job) -> Result<Outcome, String> {
    let attempt = || {
        let mut stage = Stage::set(job.seed, job.suite, job.size, job.defended);
        let mut outcome = (job.run)(&mut stage);
        outcome.told = stage.alarms().iter().map(ToString::to_string).collect();
        let mut people = stage.world.people.iter();
        match people.find_map(|person| person.broken.clone()) {
            Some(defect) => Err(format!("a device names its own defect: {defect}")),
            None => Ok(outcome),
        }
    };
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(text.unwrap_or_else(|| "it panics".into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The handbook has 48 attacks and a list of nine for insiders; each has its place here, once. I10 is one that it does
    /// not have.
    #[test]
    fn every_attack_of_the_handbook_is_in_the_table() {
        let numbers: Vec<String> = table().iter().map(|a| a.number.to_owned()).collect();
        let handbook = (1..=48).map(|n| n.to_string());
        let insiders = (1..=10).map(|n| format!("I{n}"));
        assert_eq!(numbers, handbook.chain(insiders).collect::<Vec<_>>());
        let asked: Vec<&str> = table()
            .iter()
            .filter(|a| a.asks_alarm)
            .map(|a| a.number)
            .collect();
        assert_eq!(asked, ["14", "16", "34", "38", "44"]);
    }
}
