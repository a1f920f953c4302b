//! What a bench has found: rows of numbers, goals and whether they were met, and what the reader must know.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// What a bench has found.
#[derive(Debug)]
pub struct Report {
    bench: &'static str,
    rounds: u64,
    rows: Vec<Row>,
    goals: Vec<Value>,
    notes: Vec<String>,
    failure: Option<String>,
    took: Duration,
}

/// What a number is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
}

/// One phase or thing that was measured.
#[derive(Debug)]
struct Row {
    name: String,
    values: Vec<(&'static str, Value)>,
}

impl Report {
    /// An empty report of one round.
    #[must_use]
    pub fn new(bench: &'static str) -> Self {
        Self {
            bench,
            rounds: 1,
            rows: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
            failure: None,
            took: Duration::ZERO,
        }
    }

    /// Adds a row; names of values end in their unit.
    pub fn row(&mut self, name: impl Into<String>, values: Vec<(&'static str, Value)>) {
        let name = name.into();
        self.rows.push(Row { name, values });
    }

    /// Adds what the reader must know to understand the numbers.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Says how many rounds there were of everything.
    pub fn rounds(&mut self, rounds: u64) {
        self.rounds = rounds;
    }

    /// Adds a goal: met when `value` is at least, or at most, what was asked; a value that is no number meets none.
    pub fn goal(&mut self, name: &str, value: f64, goal: Goal, unit: &'static str) {
        let (bound, met) = match goal {
            Goal::AtLeast(bound) => (bound, value >= bound),
            Goal::AtMost(bound) => (bound, value <= bound),
        };
        let rounded = (value * 1_000.0).round() / 1_000.0;
        self.goals.push(json!({
            "name": name, "value": rounded, "goal": bound, "unit": unit, "met": met,
        }));
    }

    /// Notes what everything ran on.
    pub fn machine(&mut self) {
        self.note(format!(
            "{} processors, shared by the servers, the load and whatever else runs here; load average {} at the start",
            std::thread::available_parallelism().map_or(1, usize::from),
            std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
        ));
    }

    /// Says why the bench did not get to its end.
    pub fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }

    /// Whether it did not get to its end.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Says how long all of it took.
    pub fn took(&mut self, took: Duration) {
        self.took = took;
    }

    /// Prints it on standard output: a table, or one line of JSON.
    pub fn print(&self, json: bool) {
        let text = if json {
            format!("{}\n", self.json())
        } else {
            self.table()
        };
        // A reader that has gone changes nothing.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }

    fn json(&self) -> Value {
        let rows: Map<String, Value> = self
            .rows
            .iter()
            .map(|row| {
                let values = row.values.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
                (row.name.clone(), Value::Object(values.collect()))
            })
            .collect();
        json!({
            "bench": self.bench,
            "rounds": self.rounds,
            "goals": self.goals,
            "notes": self.notes,
            "rows": rows,
            "failure": self.failure,
            "seconds": self.took.as_secs(),
        })
    }

    fn table(&self) -> String {
        let mut text = format!("\nbench {}, {} s\n", self.bench, self.took.as_secs());
        for row in &self.rows {
            text.push_str(&format!("\n{}\n", row.name));
            for (name, value) in &row.values {
                let (name, unit) = split_unit(name);
                text.push_str(&format!("  {name:<36} {:>14} {unit}\n", plain(value)));
            }
        }
        text.push('\n');
        for goal in &self.goals {
            let met = if goal["met"] == true {
                "met"
            } else {
                "NOT MET"
            };
            text.push_str(&format!(
                "goal: {}: {} {} (asked: {}): {met}\n",
                goal["name"].as_str().unwrap_or_default(),
                plain(&goal["value"]),
                goal["unit"].as_str().unwrap_or_default(),
                plain(&goal["goal"]),
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        if let Some(why) = &self.failure {
            text.push_str(&format!("FAILED: {why}\n"));
        }
        text
    }
}

/// A value's name for people, and its unit.
fn split_unit(name: &str) -> (String, &str) {
    let units = ["us", "ms", "s", "bytes", "kib", "mib"];
    match name.rsplit_once('_') {
        Some((name, unit)) if units.contains(&unit) => (name.replace('_', " "), unit),
        _ => (name.replace('_', " "), ""),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() => grouped(&number.to_string()),
        other => other.to_string(),
    }
}

/// Digits in groups of three.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_its_name_rounds_goals_and_notes_in_json() {
        let mut report = Report::new("demo");
        report.row("talk", vec![("median_ms", json!(1_234_567))]);
        report.note("on one machine");
        let line = report.json();
        assert_eq!(line["bench"], "demo");
        assert_eq!(line["rounds"], 1);
        assert_eq!(line["goals"], json!([]));
        assert_eq!(line["notes"], json!(["on one machine"]));
        assert_eq!(line["rows"]["talk"]["median_ms"], 1_234_567);
        let table = report.table();
        assert!(table.contains("1,234,567 ms"), "{table}");
        assert!(!table.contains("FAILED"), "{table}");
        report.goal("quick", 2.0, Goal::AtMost(3.0), "ms");
        report.goal("many", f64::NAN, Goal::AtLeast(3.0), "each s");
        assert_eq!(report.json()["goals"][0]["met"], true);
        assert_eq!(report.json()["goals"][1]["met"], false);
        assert!(report.table().contains("asked: 3.0): NOT MET"));
        report.fail("no time left".into());
        assert!(report.failed() && report.table().contains("FAILED: no time left"));
    }
}
