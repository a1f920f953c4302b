//! Values on the command line, parsed and not merely checked.

use std::str::FromStr as _;
use std::time::Duration;

use mortise_protocol::group::MAX_TOPIC_BYTES;
use mortise_protocol::identity::{Hash, Pin};
use mortise_protocol::roster::Role;

use super::group::Retention;

/// Ten years: beyond that, a time is a mistake.
const MAX_SECONDS: u64 = 10 * 365 * 86_400;

/// Seconds, with a fraction if need be: `10`, `0.5`.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("must be between 0 and 86400 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A length of time with its unit: `30m`, `12h`, `7d`, `2w`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    const FORM: &str = "must be a number and a unit: 30m, 12h, 7d or 2w";
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        _ => return Err(FORM.into()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| FORM)?;
    match count.checked_mul(unit) {
        Some(seconds) if (1..=MAX_SECONDS).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be more than nothing and at most ten years".into()),
    }
}

/// A role by its name.
pub(super) fn role(text: &str) -> Result<Role, String> {
    Role::from_str(&text.to_lowercase()).map_err(Into::into)
}

/// An MLS ciphersuite that we run: `0x0001` or `0x004F`.
pub(super) fn suite(text: &str) -> Result<u16, String> {
    match text.to_ascii_lowercase().as_str() {
        "0x0001" => Ok(0x0001),
        "0x004f" => Ok(0x004F),
        _ => Err("must be 0x004F (hybrid post-quantum) or 0x0001".into()),
    }
}

/// A display name: something to read, on one line, short enough to be sealed.
pub(super) fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        return Err("a name needs at least one visible character".into());
    }
    if name.len() > 256 {
        return Err("a name may have 256 bytes at most".into());
    }
    if crate::output::clean(name) != name {
        return Err("a name may not hold control characters".into());
    }
    Ok(name.into())
}

/// A topic: as a name, and it may be empty or long.
pub(super) fn topic(text: &str) -> Result<String, String> {
    let topic = text.trim();
    if topic.len() > MAX_TOPIC_BYTES {
        return Err(format!("a topic may have {MAX_TOPIC_BYTES} bytes at most"));
    }
    if crate::output::clean(topic) != topic {
        return Err("a topic may not hold control characters".into());
    }
    Ok(topic.into())
}

/// How long a group's messages are kept: `forever`, or whole days, as `90d`.
pub(super) fn retention(text: &str) -> Result<Retention, String> {
    if text == "forever" {
        return Ok(Retention(None));
    }
    const DAY: u64 = 86_400;
    let seconds = span(text)?.as_secs();
    if !seconds.is_multiple_of(DAY) {
        return Err("must be whole days, as 90d or 12w, or forever".into());
    }
    let days = u32::try_from(seconds / DAY).map_err(|_| "too long")?;
    Ok(Retention(Some(days)))
}

/// The PIN of an invitation, as it was told.
pub(super) fn pin(text: &str) -> Result<Pin, String> {
    Pin::parse(text).map_err(|error| error.to_string())
}

/// SHA-256 of a relay's public key, hex.
pub(super) fn relay_key(text: &str) -> Result<Hash, String> {
    hex(text).map(Hash)
}

fn hex(text: &str) -> Result<[u8; 32], String> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes());
    bytes
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "must be 64 hex digits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_in_whole_days_and_ids_in_hex() {
        assert_eq!(retention("forever"), Ok(Retention(None)));
        assert_eq!(retention("2w"), Ok(Retention(Some(14))));
        for bad in ["36h", "0d", "", "for ever", "-1d"] {
            assert!(retention(bad).is_err(), "{bad}");
        }
        assert_eq!(relay_key(&"0A".repeat(32)), Ok(Hash([10; 32])));
        assert!(relay_key(&"0a".repeat(31)).is_err());
        assert!(relay_key(&"0g".repeat(32)).is_err());
        assert!(pin("ABCD-2345").is_ok());
        assert!(pin("ABCD-234").is_err());
        assert_eq!(topic(" x "), Ok("x".into()));
        assert_eq!(topic(""), Ok(String::new()));
        assert!(topic("a\nb").is_err());
        assert!(topic(&"x".repeat(MAX_TOPIC_BYTES + 1)).is_err());
    }

    #[test]
    fn spans_and_seconds() {
        assert_eq!(span("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(span("30m"), Ok(Duration::from_secs(1_800)));
        for bad in [
            "",
            "7",
            "d",
            "-1d",
            "0d",
            "1.5h",
            "99999999999999999999w",
            "1000w",
            "7µ",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "x", "-1", "NaN", "inf", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn suites_roles_and_names() {
        assert_eq!(suite("0x004F"), Ok(0x4f));
        assert!(suite("0x0002").is_err());
        assert_eq!(role("Owner"), Ok(Role::Owner));
        assert!(role("king").is_err());
        assert_eq!(name(" Ann "), Ok("Ann".into()));
        assert!(name(" ").is_err());
        assert!(name("a\u{202e}b").is_err());
        assert!(name(&"x".repeat(257)).is_err());
    }
}
