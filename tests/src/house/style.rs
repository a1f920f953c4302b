//! House rules that can be seen in the text of a file.
//!
//! A line is let off by a comment on it or on the line above: `house: allow(RULE): reason`.

use super::Finding;
use super::source::{Source, is_word, words};

/// A rule and how to find what breaks it.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What the rule is called on the command line and in `house: allow(…)`.
    pub name: &'static str,
    /// What it demands.
    pub demands: &'static str,
    find: fn(&Source) -> Vec<(usize, String)>,
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "pure-core",
        demands: "protocol and relay/core know no runtime, socket, file, clock or OS randomness",
        find: impure,
    },
    Rule {
        name: "no-panic",
        demands: "no unwrap, panic or todo outside tests",
        find: panics,
    },
    Rule {
        name: "honest-tests",
        demands: "no test sleeps, none is ignored",
        find: dishonest_tests,
    },
    Rule {
        name: "names",
        demands: "no module of leftovers, no `get_` functions",
        find: banned_names,
    },
    Rule {
        name: "file-length",
        demands: "no file over 1,000 lines",
        find: too_long,
    },
    Rule {
        name: "module-docs",
        demands: "every file says at its top what it is for",
        find: undocumented,
    },
];

impl Rule {
    /// What breaks this rule.
    #[must_use]
    pub fn check(&self, sources: &[Source]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for source in sources {
            for (line, what) in (self.find)(source) {
                if !is_let_off(source, line, self.name) {
                    findings.push(Finding::new(format!("{}:{}", source.path, line + 1), what));
                }
            }
        }
        findings
    }
}

fn is_let_off(source: &Source, line: usize, rule: &str) -> bool {
    let mark = format!("house: allow({rule}): ");
    [Some(line), line.checked_sub(1)]
        .into_iter()
        .flatten()
        .filter_map(|n| source.comments.get(n))
        .filter_map(|c| c.split_once(&mark))
        .any(|(_, reason)| !reason.trim().is_empty())
}

/// Whether `pattern` stands in `line`, not as part of a longer word.
fn stands_in(line: &str, pattern: &str) -> bool {
    line.match_indices(pattern).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + pattern.len()..].chars().next();
        let clean = |edge: Option<char>, next: Option<char>| {
            !(edge.is_some_and(is_word) && next.is_some_and(is_word))
        };
        clean(pattern.chars().next(), before) && clean(pattern.chars().next_back(), after)
    })
}

/// Lines on which a pattern stands, with the pattern, where `wanted` holds for the line.
fn lines_with(
    source: &Source,
    patterns: &[&str],
    wanted: impl Fn(usize) -> bool,
) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (n, line) in source.code.iter().enumerate() {
        if !wanted(n) {
            continue;
        }
        for pattern in patterns.iter().filter(|p| stands_in(line, p)) {
            found.push((n, (*pattern).to_owned()));
        }
    }
    found
}

const IMPURE: &[&str] = &[
    "tokio",
    "quinn",
    "std::net",
    "std::fs",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "OsRng",
    "SysRng",
    "getrandom",
    "from_entropy",
    "from_os_rng",
    "thread_rng",
    "rand::rng",
];

fn impure(source: &Source) -> Vec<(usize, String)> {
    let is_core =
        source.path.starts_with("protocol/src/") || source.path.starts_with("relay/src/core");
    if !is_core {
        return Vec::new();
    }
    let mut found = lines_with(source, IMPURE, |_| true);
    found.extend(grouped_imports(source));
    found
}

/// `use std::{fs, net}`: the same imports, grouped.
fn grouped_imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (n, line) in source.code.iter().enumerate() {
        inside |= line.contains("use std::{");
        if inside {
            let outer = ["fs", "net", "process", "env"];
            let bad = words(line).filter(|w| outer.contains(w));
            found.extend(bad.map(|w| (n, format!("std::{w}"))));
        }
        inside &= !line.contains(';');
    }
    found
}

fn panics(source: &Source) -> Vec<(usize, String)> {
    let patterns = [".unwrap()", "panic!", "todo!", "unimplemented!", "dbg!"];
    lines_with(source, &patterns, |n| !source.test[n])
}

fn dishonest_tests(source: &Source) -> Vec<(usize, String)> {
    lines_with(source, &["sleep(", concat!("#[", "ignore")], |n| {
        source.test[n]
    })
}

const LEFTOVERS: &[&str] = &[
    "utils", "util", "helpers", "helper", "manager", "common", "misc",
];

fn banned_names(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let parts = source.path.trim_end_matches(".rs").split('/');
    found.extend(
        parts
            .filter(|p| LEFTOVERS.contains(p))
            .map(|p| (0, format!("a path with `{p}`"))),
    );
    for (n, line) in source.code.iter().enumerate() {
        let all: Vec<&str> = words(line).collect();
        for pair in all.windows(2) {
            match pair {
                ["mod", name] if LEFTOVERS.contains(name) => found.push((n, format!("mod {name}"))),
                ["fn", name] if name.starts_with("get_") => found.push((n, format!("fn {name}"))),
                _ => {}
            }
        }
    }
    found
}

fn too_long(source: &Source) -> Vec<(usize, String)> {
    let lines = source.code.len();
    if lines > 1_000 {
        vec![(0, format!("{lines} lines"))]
    } else {
        Vec::new()
    }
}

fn undocumented(source: &Source) -> Vec<(usize, String)> {
    if source
        .comments
        .first()
        .is_some_and(|c| c.starts_with("//!"))
    {
        Vec::new()
    } else {
        vec![(0, "the file does not begin with `//!`".to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(rule: &str, path: &str, text: &str) -> usize {
        let rule = RULES
            .iter()
            .find(|r| r.name == rule)
            .expect("the rule is in the list");
        rule.check(&[Source::parse(path, text)]).len()
    }

    #[test]
    fn a_core_that_knows_the_outside_is_found() {
        for bad in [
            "use tokio::sync::mpsc;",
            "let t = Instant::now();",
            "use std::{collections::X, fs};",
            "use std::{\n    net,\n};",
            "std::fs::read(p)",
            "rand::rngs::OsRng",
        ] {
            assert_eq!(broken("pure-core", "protocol/src/a.rs", bad), 1, "{bad}");
            assert_eq!(broken("pure-core", "relay/src/core/a.rs", bad), 1, "{bad}");
            assert_eq!(broken("pure-core", "relay/src/net/a.rs", bad), 0, "{bad}");
        }
        for good in ["// tokio", "let tokio_like = \"std::fs\";", "use std::fmt;"] {
            assert_eq!(broken("pure-core", "protocol/src/a.rs", good), 0, "{good}");
        }
    }

    #[test]
    fn panics_are_found_outside_tests_only() {
        let text = "fn a() { x.unwrap(); }\n#[cfg(test)]\nmod tests { fn b() { x.unwrap() } }";
        assert_eq!(broken("no-panic", "a/src/b.rs", text), 1);
        assert_eq!(broken("no-panic", "a/src/b/tests.rs", text), 0);
        assert_eq!(broken("no-panic", "a/src/b.rs", "core::todo!()"), 1);
        assert_eq!(broken("no-panic", "a/src/b.rs", "x.unwrap_or(1)"), 0);
    }

    #[test]
    fn sleeping_and_ignored_tests_are_found() {
        let ignored = concat!("#[", "ignore = \"slow\"]\nfn a() {}");
        assert_eq!(broken("honest-tests", "a/tests/b.rs", ignored), 1);
        assert_eq!(broken("honest-tests", "a/tests/b.rs", "sleep(x).await"), 1);
        assert_eq!(broken("honest-tests", "a/tests/b.rs", "oversleep(x)"), 0);
        assert_eq!(broken("honest-tests", "a/src/b.rs", "sleep(x).await"), 0);
    }

    #[test]
    fn banned_names_are_found() {
        assert_eq!(broken("names", "a/src/lib.rs", "pub mod utils;"), 1);
        assert_eq!(broken("names", "a/src/helpers.rs", ""), 1);
        assert_eq!(broken("names", "a/src/b.rs", "pub fn get_key() {}"), 1);
        assert_eq!(broken("names", "a/src/b.rs", "fn target_key() {}"), 0);
    }

    #[test]
    fn the_length_of_a_file_is_counted_at_the_limit() {
        assert_eq!(broken("file-length", "a.rs", &"//\n".repeat(1_000)), 0);
        assert_eq!(broken("file-length", "a.rs", &"//\n".repeat(1_001)), 1);
    }

    #[test]
    fn a_file_without_a_purpose_is_found() {
        assert_eq!(broken("module-docs", "a.rs", "//! Does x.\n"), 0);
        assert_eq!(broken("module-docs", "a.rs", "use x;\n"), 1);
    }

    #[test]
    fn an_exception_names_its_rule_and_its_reason() {
        let line = |comment: &str| format!("// {comment}\nfn a() {{ x.unwrap() }}");
        let count = |comment| broken("no-panic", "a/src/b.rs", &line(comment));
        assert_eq!(count("house: allow(no-panic): x was checked"), 0);
        assert_eq!(count("house: allow(no-panic): "), 1);
        assert_eq!(count("house: allow(names): x was checked"), 1);
    }
}
