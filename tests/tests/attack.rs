//! Every attack of the handbook once, and its control (REQ-044, REQ-055, REQ-060 to REQ-064, REQ-082 to REQ-087,
//! REQ-091 to REQ-093, REQ-172). The total is `./x attack --seeds 20`.

use mortise_protocol::group::SUITE_CLASSICAL;
use mortise_tests::attack::{self, Options, Totals};

/// What is known to get through, and is written down in `docs/results.md`: to be taken from here when it is mended.
const OPEN: [&str; 1] = ["16"];

/// One seed, the classical suite, a group of three: every attack but the open ones is defeated, and every control gets
/// what it is after.
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
    let mounted = rows.iter().filter(|row| row.skipped().is_none());
    let failed = mounted.filter(|row| !row.passed());
    let failed: Vec<&str> = failed.map(|row| row.attack.number).collect();
    assert_eq!(failed, OPEN, "{notes:#?}");
    let totals = Totals::of(&rows);
    assert_eq!(totals.controls_failed, 0, "{notes:#?}");
    assert_eq!((totals.attacks, totals.skipped), (56, 1));
}
