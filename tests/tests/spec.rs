//! What the specification says in tables is what the code does.

use mortise_protocol::roster::authority;
use mortise_protocol::wire::limits;

const SPEC: &str = include_str!("../../spec/mortise.md");

/// REQ-016: the authority table in the specification is the one that is enforced.
#[test]
fn the_authority_table_is_the_enforced_one() {
    assert!(
        SPEC.contains(&authority::markdown()),
        "{}",
        authority::markdown()
    );
}

/// REQ-040: the limits in the specification are the ones that are enforced.
#[test]
fn the_limits_are_the_enforced_ones() {
    let rows = [
        (
            "MLSMessage in a Message record",
            kib(limits::MAX_APPLICATION_BYTES),
        ),
        ("payload of a Commit record", mib(limits::MAX_COMMIT_BYTES)),
        ("Welcome", mib(limits::MAX_WELCOME_BYTES)),
        ("KeyPackage", kib(limits::MAX_KEY_PACKAGE_BYTES)),
        (
            "KeyPackages in a device's stock",
            limits::MAX_KEY_PACKAGES.to_string(),
        ),
        (
            "frame body, peer that is not admitted",
            kib(limits::MAX_FRAME_BYTES_UNADMITTED),
        ),
        (
            "entries in one Roster answer",
            limits::MAX_ROSTER_PAGE.to_string(),
        ),
        (
            "Welcomes in one Inbox answer",
            limits::MAX_INBOX_PAGE.to_string(),
        ),
        (
            "concurrent streams of one connection",
            limits::MAX_STREAMS.to_string(),
        ),
        (
            "time until a peer is admitted",
            seconds(limits::UNADMITTED_TIMEOUT_MS),
        ),
        (
            "lease for committing a removal",
            seconds(limits::REMOVAL_LEASE_MS),
        ),
        (
            "checkpoints in one answer; time between two of one device",
            format!(
                "{}; {}",
                limits::MAX_CHECKPOINTS,
                seconds(limits::CHECKPOINT_GAP_MS)
            ),
        ),
        (
            "roster entries of an owner or admin at once; the time for one more",
            format!(
                "{}; {}",
                limits::ADMIN_APPEND_BURST,
                seconds(limits::ADMIN_APPEND_EVERY_MS)
            ),
        ),
        (
            "roster entries of anybody else at once; the time for one more",
            format!(
                "{}; {}",
                limits::APPEND_BURST,
                seconds(limits::APPEND_EVERY_MS)
            ),
        ),
        (
            "roster entries that a peer who is not admitted may try on one connection",
            limits::UNADMITTED_APPENDS.to_string(),
        ),
    ];
    for (what, limit) in rows {
        let row = format!("| {what} | {limit} |");
        assert!(SPEC.contains(&row), "the specification has no row {row}");
    }
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes / 1024)
}

fn mib(bytes: usize) -> String {
    format!("{} MiB", bytes / 1024 / 1024)
}

fn seconds(ms: u64) -> String {
    format!("{} s", ms / 1000)
}
