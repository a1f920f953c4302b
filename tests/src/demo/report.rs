//! What the audience sees: a line as each thing happens, and the result at the end.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Tells the story on stdout, as text or as NDJSON.
#[derive(Debug)]
pub struct Narrator {
    json: bool,
    start: Instant,
}

impl Narrator {
    /// Starts the clock.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self {
            json,
            start: Instant::now(),
        }
    }

    /// A heading; text only.
    pub fn chapter(&self, title: &str) {
        if !self.json {
            print_line(&format!("\n{title}"));
        }
    }

    /// Something that happened now: a sentence for people, an event and its fields for machines.
    pub fn tell(&self, event: &str, sentence: &str, fields: &Value) {
        if self.json {
            let mut line = Map::from_iter([
                ("event".to_owned(), json!(event)),
                ("at_ms".to_owned(), json!(millis(self.start.elapsed()))),
            ]);
            line.extend(fields.as_object().cloned().unwrap_or_default());
            print_line(&Value::Object(line).to_string());
        } else {
            let seconds = self.start.elapsed().as_secs_f64();
            print_line(&format!("{seconds:7.2} s  {sentence}"));
        }
    }

    /// The end: the numbers, and whether the promise held.
    pub fn finish(&self, result: &DemoResult) {
        if self.json {
            // A struct of numbers always has a JSON form.
            let line = serde_json::to_string(result).unwrap_or_default();
            print_line(&line);
            return;
        }
        self.chapter("Result");
        for (what, value) in result.rows() {
            print_line(&format!("  {what:<44} {value}"));
        }
        print_line(if result.pass {
            "\nPASS: whoever was removed is out, of every group, and everything that was said since is closed to them."
        } else {
            "\nFAIL: see above."
        });
    }
}

/// One write and a flush, so that a reader of lines sees each as it happens; a reader that left changes nothing.
fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{text}\n").as_bytes());
    let _ = out.flush();
}

/// Whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The numbers at the end; the names of the fields are stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "result")]
pub struct DemoResult {
    /// Whether everything held and every control worked.
    pub pass: bool,
    /// The MLS ciphersuite, as `0x004F`.
    pub suite: String,
    /// People in the organisation, the leaver among them.
    pub people: usize,
    /// Groups, those without the leaver among them.
    pub groups: usize,
    /// From giving the order to its acknowledgement.
    pub order_acked_ms: u64,
    /// From the acknowledgement until the last of the leaver's connections was cut; 0 if that came first.
    pub connection_cut_ms: u64,
    /// Groups whose keys were rotated because of the order.
    pub groups_rotated: usize,
    /// Groups stated to hold no leaf of the leaver.
    pub groups_clean: usize,
    /// Messages that members sent after the removal.
    pub messages_after_removal: usize,
    /// How many of them a member decrypts from the relay's files: the control.
    pub decrypted_by_members: usize,
    /// How many of them the leaver decrypts.
    pub decrypted_by_removed: usize,
    /// How many of the texts and names were found on the relay, in any spelling.
    pub plaintext_found_on_relay: usize,
    /// Attacks that were mounted.
    pub attacks_tried: usize,
    /// Attacks that got anything.
    pub attacks_succeeded: usize,
}

impl DemoResult {
    /// Whether the numbers are those of a promise that was kept; controls are for the caller to add.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.attacks_tried >= 4
            && self.attacks_succeeded == 0
            && self.groups_rotated >= 2
            && self.messages_after_removal > 0
            && self.decrypted_by_members == self.messages_after_removal
            && self.decrypted_by_removed == 0
            && self.plaintext_found_on_relay == 0
            && self.groups_rotated + self.groups_clean == self.groups
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let ms = |value: u64| format!("{value} ms");
        vec![
            ("ciphersuite", self.suite.clone()),
            (
                "people, groups",
                format!("{}, {}", self.people, self.groups),
            ),
            (
                "removal ordered and acknowledged in",
                ms(self.order_acked_ms),
            ),
            (
                "the leaver's last connection cut after",
                ms(self.connection_cut_ms),
            ),
            (
                "groups rotated, clean",
                format!("{}, {}", self.groups_rotated, self.groups_clean),
            ),
            (
                "messages after the removal",
                self.messages_after_removal.to_string(),
            ),
            (
                "  decrypted by members (the control)",
                self.decrypted_by_members.to_string(),
            ),
            (
                "  decrypted by the leaver",
                self.decrypted_by_removed.to_string(),
            ),
            (
                "texts and names found on the relay",
                self.plaintext_found_on_relay.to_string(),
            ),
            (
                "attacks tried, succeeded",
                format!("{}, {}", self.attacks_tried, self.attacks_succeeded),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> DemoResult {
        DemoResult {
            attacks_tried: 4,
            groups: 3,
            groups_rotated: 2,
            groups_clean: 1,
            messages_after_removal: 6,
            decrypted_by_members: 6,
            ..DemoResult::default()
        }
    }

    /// The issue names these fields, in this order.
    #[test]
    fn the_last_line_has_the_documented_fields() {
        let line = serde_json::to_string(&DemoResult::default()).expect("json");
        assert_eq!(
            line,
            r#"{"event":"result","pass":false,"suite":"","people":0,"groups":0,"order_acked_ms":0,"connection_cut_ms":0,"groups_rotated":0,"groups_clean":0,"messages_after_removal":0,"decrypted_by_members":0,"decrypted_by_removed":0,"plaintext_found_on_relay":0,"attacks_tried":0,"attacks_succeeded":0}"#
        );
    }

    #[test]
    fn any_leak_or_missing_control_fails() {
        assert!(kept().holds());
        let broken: [fn(&mut DemoResult); 8] = [
            |r| r.attacks_tried = 3,
            |r| r.attacks_succeeded = 1,
            |r| r.groups_rotated = 1,
            |r| r.groups_clean = 0,
            |r| r.decrypted_by_members = 0,
            |r| r.decrypted_by_members = 5,
            |r| r.decrypted_by_removed = 1,
            |r| r.plaintext_found_on_relay = 1,
        ];
        for breaks in broken {
            let mut result = kept();
            breaks(&mut result);
            assert!(!result.holds(), "{result:?}");
        }
    }
}
