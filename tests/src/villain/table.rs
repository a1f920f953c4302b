//! Every rule that a receiver must check, and how a villain breaks it: one row each.
//!
//! The names of RFC 9420's rules are openmls's (`ValSem…` of its book, `valn…` of its validation pages); `REQ-…` are
//! ours. What is printed from this table is docs/validation.md.

mod commits;
mod elsewhere;
mod messages;
mod mls;
mod proposals;
mod raw;
mod rules;
mod statements;
mod welcomes;

pub use rules::{OURS, RFC_9420};

use std::fmt::Write as _;

use mortise_protocol::group::Violation;

use super::stage::{Forged, Path, Stage};

/// A rule that is broken, or where it is.
pub struct Row {
    /// The rules, by name.
    pub rules: &'static [&'static str],
    /// How they are broken.
    pub how: &'static str,
    /// What shows it.
    pub check: Check,
}

/// What shows that a rule is held to.
pub enum Check {
    /// A villain breaks it, and is refused.
    Refused(Attempt),
    /// Another test does.
    Elsewhere {
        /// Which.
        test: &'static str,
        /// Why not here.
        why: &'static str,
    },
}

/// How it is broken here.
pub struct Attempt {
    /// The name of the refusal.
    pub by: Violation,
    /// What openmls calls it, where it is openmls that refuses.
    pub openmls: Option<&'static str>,
    /// By which paths.
    pub paths: &'static [Path],
    /// What honest people do before.
    pub setup: fn(&mut Stage),
    /// What the villain makes.
    pub make: fn(&mut Stage) -> Forged,
}

/// A record that a member reads, wherever from.
const READ: &[Path] = &[Path::Live, Path::CatchUp, Path::AfterRestart];
/// A record that is met by who was away for an order: by others it would not be made any more.
const AWAY: &[Path] = &[Path::CatchUp, Path::AfterRestart];
/// A Welcome.
const JOIN: &[Path] = &[Path::Join, Path::JoinAfterRestart];

fn row(
    rules: &'static [&'static str],
    how: &'static str,
    by: Violation,
    paths: &'static [Path],
    make: fn(&mut Stage) -> Forged,
) -> Row {
    let attempt = Attempt {
        by,
        openmls: None,
        paths,
        setup: |_| {},
        make,
    };
    Row {
        rules,
        how,
        check: Check::Refused(attempt),
    }
}

impl Row {
    /// With something that honest people do before.
    fn after(mut self, setup: fn(&mut Stage)) -> Self {
        if let Check::Refused(attempt) = &mut self.check {
            attempt.setup = setup;
        }
        self
    }

    /// With openmls's own name of the error.
    fn openmls(mut self, name: &'static str) -> Self {
        if let Check::Refused(attempt) = &mut self.check {
            attempt.openmls = Some(name);
        }
        self
    }
}

/// The whole table.
#[must_use]
pub fn rows() -> Vec<Row> {
    [
        commits::rows(),
        messages::rows(),
        statements::rows(),
        proposals::rows(),
        mls::rows(),
        welcomes::rows(),
        elsewhere::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The name of a refusal, as the specification has it.
#[must_use]
pub fn name_of(violation: Violation) -> String {
    let text = violation.to_string();
    let (name, _) = text.split_once(':').unwrap_or((&text, ""));
    name.to_owned()
}

const HEAD: &str = "# What receivers check, and how it is shown\n\n\
    Printed from the table in `tests/src/villain/table.rs` by `UPDATE_VALIDATION=1 cargo test --workspace --test villain \
    -- the_table_is_printed`; a test fails when it is out of date.\n\n\
    A villain is a member's device with its real keys, which keeps to no rule (`tests/src/villain`). For every rule of \
    RFC 9420 that a receiver must check (by openmls's names) and every rule of [the specification](../spec/mortise.md) \
    it makes what the rule forbids; where an honest relay would not take it, a relay that lies shows it. The receiver \
    refuses it by the name given, shows that in its history, and its MLS state stays byte for byte as it was. What \
    openmls refuses is MLS_REFUSED to us; openmls's own name says that it was refused for the right reason.\n\n";

/// docs/validation.md.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(HEAD);
    text.push_str("| rule | how it is broken | refusal | paths |\n|---|---|---|---|\n");
    let rows = rows();
    let mut elsewhere = String::new();
    for row in &rows {
        let rules = row.rules.join(", ");
        let line = match &row.check {
            Check::Refused(attempt) => {
                let name = name_of(attempt.by);
                let openmls = attempt
                    .openmls
                    .map(|n| format!(" ({n})"))
                    .unwrap_or_default();
                let paths: Vec<_> = attempt.paths.iter().map(|p| p.name()).collect();
                let paths = paths.join(", ");
                writeln!(
                    text,
                    "| {rules} | {} | {name}{openmls} | {paths} |",
                    row.how
                )
            }
            Check::Elsewhere { test, why } => {
                writeln!(elsewhere, "| {rules} | {} | {why} | {test} |", row.how)
            }
        };
        line.expect("a string takes everything");
    }
    text.push_str("\n## Rules that are not broken here\n\n");
    text.push_str("| rule | what it is | why not here | shown by |\n|---|---|---|---|\n");
    text.push_str(&elsewhere);
    text
}
