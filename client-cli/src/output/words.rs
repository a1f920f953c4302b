//! The small parts that lines are made of.

use super::{Person, clean};

/// How much of an id is shown where a whole one would drown the line.
const SHORT: usize = 8;

pub(super) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// The name, or the beginning of the id where there is none.
pub(super) fn named(id: &str, name: Option<&str>) -> String {
    name.map_or_else(|| short(id).to_owned(), one_line)
}

pub(super) fn person(person: &Person) -> String {
    named(&person.user, person.name.as_deref())
}

pub(super) fn people(users: &[Person]) -> String {
    let names: Vec<_> = users.iter().map(person).collect();
    names.join(", ")
}

/// A name cannot begin a new line.
pub(super) fn one_line(text: &str) -> String {
    clean(text)
}

/// A message's further lines are marked, so that none passes for another message.
pub(super) fn indented(text: &str) -> String {
    text.split('\n')
        .map(|line| clean(line.trim_end_matches('\r')))
        .collect::<Vec<_>>()
        .join("\n    | ")
}

/// A time as `2026-11-22 11:01:13Z`.
#[must_use]
pub fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// A length of time, in the largest unit that leaves no rest: `90d`, `36h`, `20m`, `61s`.
#[must_use]
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let unit = [(86_400, "d"), (3_600, "h"), (60, "m")]
        .into_iter()
        .find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length));
    match unit {
        Some((length, letter)) => format!("{}{letter}", seconds / length),
        None => format!("{seconds}s"),
    }
}

/// How long ago something was, roughly: `45s`, `5m`, `36h`, `12d`.
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let unit = [(86_400, "d"), (3_600, "h"), (60, "m")]
        .into_iter()
        .find(|(length, _)| seconds >= 2 * length);
    match unit {
        Some((length, letter)) => format!("{}{letter}", seconds / length),
        None => format!("{seconds}s"),
    }
}

/// Year, month and day of the n-th day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(1_795_345_273_999), "2026-11-22 11:01:13Z");
    }

    #[test]
    fn ages_are_said_roughly() {
        let said = [0, 119, 333, 7_100, 36 * 3_600, 90 * 86_400].map(|s| age(s * 1000));
        assert_eq!(said, ["0s", "119s", "5m", "118m", "36h", "90d"]);
    }

    #[test]
    fn spans_are_said_in_the_largest_unit_without_a_rest() {
        let said = [0, 59, 60, 3_660, 36 * 3_600, 90 * 86_400].map(|s| span(s * 1000));
        assert_eq!(said, ["0s", "59s", "1m", "61m", "36h", "90d"]);
    }
}
