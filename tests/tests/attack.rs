//! Every attack of the handbook once, and its control (REQ-044, REQ-055, REQ-060 to REQ-064, REQ-082 to REQ-087,
//! REQ-091 to REQ-093, REQ-172). The total is `./x attack --seeds 20`.

use mortise_protocol::group::SUITE_CLASSICAL;
use mortise_tests::attack::{self, Options, Totals};

/// One seed, the classical suite, a group of three: every attack is defeated, and every control gets what it is after.
#[test]
fn every_attack_is_defeated_and_every_control_works() {
    let options = Options {
        sizes: vec![3],
        suites: vec![SUITE_CLASSICAL],
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        ..Options::default()
    };
    let rows = attack::run(&options);
    let notes: Vec<&String> = rows.iter().flat_map(|row| &row.notes).collect();
    let failed = rows.iter().filter(|row| !row.passed());
    let failed: Vec<&str> = failed.map(|row| row.attack.number).collect();
    assert!(failed.is_empty(), "{failed:?}: {notes:#?}");
    let totals = Totals::of(&rows);
    assert_eq!(
        (totals.succeeded, totals.controls_failed),
        (0, 0),
        "{notes:#?}"
    );
    assert_eq!(totals.attacks, attack::table().len());
}
