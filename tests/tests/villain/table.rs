//! The table of rules: every one is broken, by every path, and refused by name with nothing changed (issue 5).

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use mortise_protocol::identity::decode;
use mortise_protocol::wire::RecordBody;
use mortise_tests::villain::Villain;
use mortise_tests::villain::stage::{Forged, Path, Stage, Theatre};
use mortise_tests::villain::table::{Attempt, Check, OURS, RFC_9420, Row, document, name_of, rows};
use mortise_tests::world::wall_clock_ms;

/// How long a refusal may take to come, ms.
const PATIENCE_MS: u64 = 3_000;

/// What openmls says of the last message that was made, as the victim.
fn openmls_says(
    stage: &mut Stage,
    victim: mortise_tests::world::PersonId,
    forged: &Forged,
) -> String {
    let body = match forged {
        Forged::Submitted(all) => all.last().expect("a record").body.clone(),
        Forged::Shown(shown) => {
            let payload = shown.payload.as_ref().expect("a payload");
            decode(payload).expect("a body")
        }
        Forged::Inbox(made, _) => made.body.clone(),
    };
    let message = match &body {
        RecordBody::Message(message) => message.as_slice(),
        RecordBody::Commit(entry) => entry.commit.as_slice(),
        _ => panic!("no MLS message"),
    };
    let group = stage.group;
    Villain::copy(&mut stage.world, victim, group).judge(message)
}

/// Breaks one rule by one path; what went wrong, if anything did.
fn perform(theatre: &Theatre, attempt: &Attempt, path: Path) -> Result<(), String> {
    let mut stage = theatre.stage(1);
    (attempt.setup)(&mut stage);
    stage.prepare(path);
    stage.take_over();
    let forged = (attempt.make)(&mut stage);
    let victim = Stage::victim(path);
    if let Some(name) = attempt.openmls
        && !path.is_join()
    {
        let said = openmls_says(&mut stage, victim, &forged);
        if !said.contains(name) {
            return Err(format!("openmls says {said}"));
        }
    }
    let earlier = stage.violations(victim);
    if !earlier.is_empty() {
        return Err(format!("refused before: {earlier:?}"));
    }
    stage.deliver(forged);
    let until = stage.world.now_ms + PATIENCE_MS;
    let mut before = stage.mls_state(victim);
    while stage.violations(victim).is_empty() {
        before = stage.mls_state(victim);
        if !stage.world.advance(until) {
            return Err("it is not refused".to_owned());
        }
    }
    let found = stage.violations(victim);
    if found != [attempt.by] {
        return Err(format!("refused as {found:?}"));
    }
    if stage.mls_state(victim) != before {
        return Err("the MLS state has changed".to_owned());
    }
    if !path.is_join() && !stage.is_told(victim, attempt.by) {
        return Err("the user is not told".to_owned());
    }
    Ok(())
}

fn failures(theatre: &Theatre, row: &Row) -> Vec<String> {
    let Check::Refused(attempt) = &row.check else {
        return Vec::new();
    };
    let paths = attempt.paths.iter();
    let tried = paths.filter_map(|path| {
        // What one row breaks must not hide the others.
        let tried = catch_unwind(AssertUnwindSafe(|| perform(theatre, attempt, *path)));
        let error = tried
            .unwrap_or_else(|_| Err("it panics".to_owned()))
            .err()?;
        let (name, path) = (name_of(attempt.by), path.name());
        Some(format!("{} ({name}, {path}): {error}", row.how))
    });
    tried.collect()
}

/// REQ-042, REQ-045, REQ-080 to REQ-087, REQ-093, REQ-094, REQ-120 to REQ-126, REQ-140, REQ-150 to REQ-158: every rule
/// of the table is broken, and refused by its name on every path, and the MLS state stays byte for byte as it was.
#[test]
fn every_rule_is_held_to() {
    let theatre = Theatre::found(wall_clock_ms());
    let only = std::env::var("ONLY_RULE").unwrap_or_default();
    let rows = rows();
    let rows = rows.iter().filter(|row| row.how.contains(&only));
    let failed: Vec<_> = rows.flat_map(|row| failures(&theatre, row)).collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// The names of refusals that the specification's table has.
fn refusals(spec: &str) -> Vec<&str> {
    let names = spec
        .lines()
        .skip_while(|line| !line.starts_with("| name of the refusal"));
    let rows = names.skip(2).take_while(|line| line.starts_with("| "));
    rows.filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .collect()
}

/// REQ-082: no rule of RFC 9420, none of ours and no refusal is without a row.
#[test]
fn every_rule_has_a_row() {
    let rows = rows();
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| row.rules).copied().collect();
    let spec = std::fs::read_to_string(root().join("spec/mortise.md")).expect("the specification");
    let refusals = refusals(&spec);
    assert!(refusals.len() > 25, "{refusals:?}");
    let rules = RFC_9420.iter().chain(OURS).chain(&refusals);
    let missing: Vec<_> = rules.filter(|rule| !named.contains(*rule)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // A name of a rule that there is not would be shown for nothing.
    let known: BTreeSet<&str> = RFC_9420
        .iter()
        .chain(OURS)
        .chain(&refusals)
        .copied()
        .collect();
    let unknown: Vec<_> = named
        .into_iter()
        .filter(|rule| !known.contains(rule) && !rule.starts_with("RFC 9420 §"))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// The table as people read it is the table that is run: REQ-082.
#[test]
fn the_table_is_printed() {
    let path = root().join("docs/validation.md");
    let text = document();
    if std::env::var_os("UPDATE_VALIDATION").is_some() {
        std::fs::write(&path, &text).expect("a file that is written");
    }
    let printed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        printed == text,
        "docs/validation.md is out of date: UPDATE_VALIDATION=1 writes it"
    );
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
