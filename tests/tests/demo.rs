//! The demo in its smallest form, as the processes that `./x demo` starts.

use std::process::Command;

use serde_json::Value;

/// The promise, end to end: fence, rotation, states; and every control of the demo.
#[test]
fn the_smallest_demo_passes() {
    let output = Command::new(env!("CARGO_BIN_EXE_mortise-demo"))
        .args([
            "--json",
            "--groups",
            "3",
            "--members",
            "4",
            "--suite",
            "0x0001",
        ])
        .output()
        .expect("run the demo");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_default();
    let result: Value = serde_json::from_str(last).expect("the last line is JSON");
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(result["event"], "result");
    assert_eq!(result["pass"], true);
    assert_eq!(result["suite"], "0x0001");
    assert_eq!(
        (&result["people"], &result["groups"]),
        (&4.into(), &3.into())
    );
    assert_eq!(
        (&result["groups_rotated"], &result["groups_clean"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        result["decrypted_by_members"],
        result["messages_after_removal"]
    );
    for zero in [
        "decrypted_by_removed",
        "plaintext_found_on_relay",
        "attacks_succeeded",
    ] {
        assert_eq!(result[zero], 0, "{zero}");
    }
}

/// Numbers that the story cannot be told with are refused before anything starts.
#[test]
fn too_few_groups_or_people_are_refused() {
    for arguments in [["--groups", "2"], ["--members", "3"], ["--suite", "0x0002"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_mortise-demo"))
            .args(arguments)
            .output()
            .expect("run the demo");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}
