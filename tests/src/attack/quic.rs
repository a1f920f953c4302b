//! The same attacks over real QUIC: the demo plays them against the released relay with the released clients' saved
//! keys, files and open connections. Its events are read as rows of the handbook.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use mortise_protocol::group::SUITE_HYBRID;
use serde_json::Value;

use super::Ground;
use super::suite::Row;

/// An attack of the demo, the handbook's number, and the demo's control that shows that its code works.
const PLAYED: [(&str, &str, &str); 10] = [
    ("open_connection", "2", "cut_by_the_relay"),
    ("modified_client", "2", "cut_by_the_relay"),
    ("reconnect", "3", "a_member_is_let_in"),
    ("stranger", "3", "a_member_is_let_in"),
    ("fetch_logs", "4", "a_member_is_let_in"),
    ("write_old_epoch", "15", "attacks_were_mounted"),
    ("used_invitation", "41", "attacks_were_mounted"),
    ("spare_invitation", "41", "attacks_were_mounted"),
    ("relay_files", "5", "members_decrypt"),
    ("lying_relay", "5", "members_devices_decrypt"),
];

/// Plays the demo once with this ciphersuite, and adds what it shows to the rows.
///
/// # Errors
/// When the demo cannot be run, or does not tell of one of these attacks.
pub fn play(rows: &mut [Row], suite: u16) -> anyhow::Result<()> {
    let here = std::env::current_exe().context("find this program")?;
    let demo = here.parent().unwrap_or(Path::new(".")).join("mortise-demo");
    let suite = if suite == SUITE_HYBRID {
        "0x004F"
    } else {
        "0x0001"
    };
    let output = Command::new(&demo)
        .args([
            "--json",
            "--groups",
            "3",
            "--members",
            "4",
            "--suite",
            suite,
        ])
        .output()
        .with_context(|| format!("run {}: build it first", demo.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    for (name, number, control) in PLAYED {
        let of = |kind: &str, name: &str| {
            let mut events = events.iter();
            events
                .find(|e| e["event"] == kind && e["name"] == name)
                .cloned()
        };
        let Some(row) = rows.iter_mut().find(|row| row.attack.number == number) else {
            continue;
        };
        let place = format!("over QUIC, {name}, suite {suite}");
        let attack = of("attack", name).with_context(|| format!("{place}: not told of"))?;
        let control = of("control", control).is_some_and(|event| event["ok"] == true);
        row.add_played(&place, attack["succeeded"] == true, control);
    }
    Ok(())
}

/// Whether any of these attacks is mounted over QUIC, too.
#[must_use]
pub fn plays(rows: &[Row]) -> bool {
    let mut rows = rows.iter();
    rows.any(|row| row.attack.ground == Ground::SimulatorAndDemo)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table says of exactly these attacks that they are mounted over QUIC.
    #[test]
    fn the_table_knows_what_the_demo_plays() {
        let played: std::collections::BTreeSet<&str> = PLAYED.iter().map(|(_, n, _)| *n).collect();
        let table = super::super::table();
        let marked = table
            .iter()
            .filter(|a| a.ground == Ground::SimulatorAndDemo);
        assert_eq!(
            marked
                .map(|a| a.number)
                .collect::<std::collections::BTreeSet<_>>(),
            played
        );
    }
}
