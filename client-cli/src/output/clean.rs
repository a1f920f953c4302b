//! Takes out what a terminal would obey, or what would show text in another order than it has.

/// Whether a terminal or a reader could be fooled by it.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// For one line of a terminal: tabs become spaces, everything else of the kind becomes U+FFFD.
#[must_use]
pub fn clean(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        c if is_hidden(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// For a line of JSON: nothing is lost, what a terminal could obey is escaped.
///
/// JSON's own syntax is ASCII, so such characters are always inside strings.
#[must_use]
pub fn clean_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out += &format!("\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_reordering_do_not_reach_the_terminal() {
        assert_eq!(
            clean("a\u{1b}[2Jb\rc\u{9b}1m"),
            "a\u{FFFD}[2Jb\u{FFFD}c\u{FFFD}1m"
        );
        assert_eq!(clean("x\u{202e}y\ttab"), "x\u{FFFD}y tab");
        assert_eq!(clean("naïve 👩‍🚀"), "naïve 👩‍🚀");
    }

    #[test]
    fn json_keeps_everything_and_shows_nothing_of_it() {
        let text = "a\u{1b}\u{7f}\u{9b}\u{202e}\nz";
        let json = clean_json(&serde_json::to_string(text).expect("json"));
        assert!(json.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&json).expect("json"), text);
    }
}
