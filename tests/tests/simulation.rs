//! A bounded set of seeds of the simulated world, and planted bugs that the model must catch.

use std::sync::atomic::{AtomicU64, Ordering};

use mortise_tests::sim::plants::Plant;
use mortise_tests::sim::{self, Options, Outcome};

/// Runs this for every number below `count`, on all processors.
fn on_all_processors(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    work(n);
                }
            });
        }
    });
}

fn assert_clean(outcome: &Outcome) {
    assert!(
        outcome.broken.is_none(),
        "seed {}: {}; replay: ./x sim --seed {}",
        outcome.seed,
        outcome.broken.as_ref().expect("broken"),
        outcome.seed
    );
}

/// One order everywhere, nothing lost, nothing twice, nobody reads what they must not, every quiet network converges.
#[test]
fn seeds_hold() {
    on_all_processors(24, |n| assert_clean(&sim::run(n + 1, Options::default())));
}

/// A seed that is run again goes the same way, whatever the ciphertext.
#[test]
fn a_seed_replays() {
    let first = sim::run(1, Options::default());
    let again = sim::run(1, Options::default());
    assert_eq!(first.trace, again.trace);
    assert_eq!(first.counts, again.counts);
}

/// A model that objects to nothing proves nothing, and neither does one that objects to everything: each bug is found
/// within a few seeds, which are clean without it.
#[test]
fn planted_bugs_are_caught() {
    const SEEDS: u64 = 20;
    let plants = Plant::ALL.len() as u64;
    let planted = |plant| Options {
        plant,
        suite: Some(mortise_protocol::group::SUITE_CLASSICAL),
        ..Options::default()
    };
    let used = AtomicU64::new(0);
    on_all_processors(plants, |n| {
        let plant = Plant::ALL[usize::try_from(n).expect("few")];
        let caught =
            (1..=SEEDS).find_map(|seed| Some((seed, sim::run(seed, planted(Some(plant))).broken?)));
        match caught {
            Some((seed, broken)) => {
                used.fetch_max(seed, Ordering::Relaxed);
                println!("{plant:?}: seed {seed}: {broken}");
            }
            None => panic!("{plant:?} was not caught in {SEEDS} seeds"),
        }
    });
    on_all_processors(used.into_inner(), |n| {
        assert_clean(&sim::run(n + 1, planted(None)));
    });
}
