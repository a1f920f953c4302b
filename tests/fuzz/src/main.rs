//! One program for all fuzz targets: the environment variable `MORTISE_FUZZ` names the target.

#![no_main]

use std::sync::OnceLock;

use mortise_tests::fuzz::{TARGETS, Target, find};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn target() -> &'static Target {
    let name = std::env::var("MORTISE_FUZZ").unwrap_or_default();
    find(&name).unwrap_or_else(|| {
        let names = TARGETS.map(|target| target.name).join(", ");
        panic!("MORTISE_FUZZ must name a target: {names}")
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (TARGET.get_or_init(target).run)(bytes);
});
