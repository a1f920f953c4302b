//! The skips that are agreed to: `skips.txt`, one per line, `kind: reason`.

const LISTED: &str = include_str!("../skips.txt");

/// Whether cases of this kind may be skipped for this reason.
pub(crate) fn is_listed(kind: &str, reason: &str) -> bool {
    LISTED
        .lines()
        .filter_map(|line| line.split_once(": "))
        .any(|listed| listed == (kind, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_may_be_skipped() {
        let reason = |suite: u16| format!("the provider does not have ciphersuite {suite:#06x}");
        assert!(is_listed("passive-client", &reason(4)));
        // A suite of which the product has all parts: skipping it would be a loss.
        assert!(!is_listed("passive-client", &reason(1)));
        assert!(!is_listed("messages", &reason(4)));
        assert!(!is_listed("unknown", "its kind is not known"));
    }
}
