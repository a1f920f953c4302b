//! What is printed: a line or a JSON object per file, and the totals.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::case::{FileResult, Outcome};

/// Prints as the files end, and counts.
pub(crate) struct Report {
    json: bool,
    totals: Totals,
}

#[derive(Default, Serialize)]
struct Totals {
    event: &'static str,
    files: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Skips that `skips.txt` does not have; any of them is a failure of the run.
    unlisted_skips: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    event: &'static str,
    file: &'a str,
    kind: &'a str,
    passed: usize,
    failed: usize,
    skipped: usize,
    ms: u128,
    failures: Vec<Failure<'a>>,
    skips: BTreeMap<&'a str, usize>,
    /// Parts of cases that passed otherwise.
    unchecked_parts: BTreeMap<&'a str, usize>,
    unlisted_skips: BTreeSet<&'a str>,
}

#[derive(Serialize)]
struct Failure<'a> {
    case: usize,
    what: &'a str,
}

impl<'a> Row<'a> {
    fn of(result: &'a FileResult) -> Self {
        let mut row = Self {
            event: "file",
            file: &result.name,
            kind: result.kind,
            passed: 0,
            failed: 0,
            skipped: 0,
            ms: result.ms,
            failures: Vec::new(),
            skips: BTreeMap::new(),
            unchecked_parts: BTreeMap::new(),
            unlisted_skips: result.unlisted(),
        };
        for (case, outcome) in result.outcomes.iter().enumerate() {
            match outcome {
                Outcome::Passed(unchecked) => {
                    row.passed += 1;
                    for reason in unchecked {
                        *row.unchecked_parts.entry(reason).or_default() += 1;
                    }
                }
                Outcome::Failed(what) => {
                    row.failed += 1;
                    row.failures.push(Failure { case, what });
                }
                Outcome::Skipped(reason) => {
                    row.skipped += 1;
                    *row.skips.entry(reason).or_default() += 1;
                }
            }
        }
        row
    }

    fn print(&self) {
        let word = if self.failed == 0 && self.unlisted_skips.is_empty() {
            "ok  "
        } else {
            "FAIL"
        };
        println!(
            "{word}  {:<40} {:>4} passed, {} failed, {} skipped {:>7} ms",
            self.file, self.passed, self.failed, self.skipped, self.ms
        );
        for Failure { case, what } in &self.failures {
            println!("        case {case}: {what}");
        }
        for (reason, count) in &self.skips {
            println!("        {count} skipped: {reason}");
        }
        for (reason, count) in &self.unchecked_parts {
            println!("        {count} passed but for a part: {reason}");
        }
        for reason in &self.unlisted_skips {
            println!(
                "        NOT IN tests/vectors/skips.txt: {}: {reason}",
                self.kind
            );
        }
    }
}

impl Report {
    /// An empty report.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            totals: Totals {
                event: "result",
                ..Totals::default()
            },
        }
    }

    /// Prints and counts one file.
    ///
    /// # Errors
    /// JSON that cannot be written.
    pub(crate) fn file(&mut self, result: &FileResult) -> anyhow::Result<()> {
        let row = Row::of(result);
        self.totals.files += 1;
        self.totals.passed += row.passed;
        self.totals.failed += row.failed;
        self.totals.skipped += row.skipped;
        self.totals.unlisted_skips += row.unlisted_skips.len();
        if self.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            row.print();
        }
        Ok(())
    }

    /// Prints the totals; whether nothing failed and nothing was skipped that is not agreed to.
    ///
    /// # Errors
    /// JSON that cannot be written.
    pub(crate) fn finish(self) -> anyhow::Result<bool> {
        let totals = &self.totals;
        if self.json {
            println!("{}", serde_json::to_string(totals)?);
        } else {
            println!(
                "{} passed, {} failed, {} skipped",
                totals.passed, totals.failed, totals.skipped
            );
        }
        Ok(totals.failed == 0 && totals.unlisted_skips == 0)
    }
}
