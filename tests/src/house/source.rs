//! A Rust source file, taken apart far enough for the house rules: code without comments and strings, comments
//! without code, and which lines are tests.

/// A source file of the workspace.
#[derive(Clone, Debug)]
pub struct Source {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// Code per line; comments and the insides of strings are blanked.
    pub code: Vec<String>,
    /// Comment text per line.
    pub comments: Vec<String>,
    /// Whether a line is test code.
    pub test: Vec<bool>,
    /// Modules that this file declares for tests only.
    pub test_modules: Vec<String>,
}

impl Source {
    /// Takes a file apart.
    #[must_use]
    pub fn parse(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let (regions, test_modules) = test_regions(&code);
        let lines = |s: &[char]| -> Vec<String> {
            s.iter()
                .collect::<String>()
                .lines()
                .map(String::from)
                .collect()
        };
        let whole = is_test_path(path);
        let mut test = Vec::new();
        let mut offset = 0;
        for line in code.split(|c| *c == '\n') {
            let end = offset + line.len();
            test.push(whole || regions.iter().any(|(a, b)| *a <= end && offset < *b));
            offset = end + 1;
        }
        Self {
            path: path.to_owned(),
            code: lines(&code),
            comments: lines(&comments),
            test,
            test_modules,
        }
    }

    /// Marks the whole file as test code: another file declares it so.
    pub fn mark_test(&mut self) {
        self.test.iter_mut().for_each(|t| *t = true);
    }

    /// The folder that the modules of this file live in: `a/b` for `a/b.rs`, `a/b/mod.rs`, and `a` for `a/lib.rs`.
    #[must_use]
    pub fn module_dir(&self) -> &str {
        let stem = self.path.trim_end_matches(".rs");
        ["/mod", "/lib", "/main"]
            .iter()
            .find_map(|root| stem.strip_suffix(root))
            .unwrap_or(stem)
    }
}

/// Whether a path holds nothing but tests: integration tests, `tests.rs`, conformance suites, benches, fuzz targets.
#[must_use]
pub fn is_test_path(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let file = parts.next().unwrap_or_default();
    file == "tests.rs"
        || file.ends_with("_tests.rs")
        || file == "conformance.rs"
        || parts.any(|dir| matches!(dir, "tests" | "benches" | "fuzz"))
}

/// Lines that hold a `mod` or an attribute are found by walking; this is what a walk stands on.
struct Cursor<'a> {
    text: &'a [char],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.text.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn starts(&self, what: &str) -> bool {
        what.chars().enumerate().all(|(i, c)| self.peek(i) == c)
    }

    fn done(&self) -> bool {
        self.at >= self.text.len()
    }
}

/// Parts code from comments; both keep every line break and column of the original.
fn split(text: &str) -> (Vec<char>, Vec<char>) {
    let text: Vec<char> = text.chars().collect();
    let blank = |c: &char| if *c == '\n' { '\n' } else { ' ' };
    let mut code: Vec<char> = text.iter().map(blank).collect();
    let mut comments = code.clone();
    let mut cursor = Cursor { text: &text, at: 0 };
    while !cursor.done() {
        let start = cursor.at;
        let into = if cursor.starts("//") {
            skip_line(&mut cursor);
            Some(&mut comments)
        } else if cursor.starts("/*") {
            skip_block(&mut cursor);
            Some(&mut comments)
        } else if skip_literal(&mut cursor) {
            code[start] = '"';
            code[cursor.at - 1] = '"';
            None
        } else {
            cursor.at += 1;
            Some(&mut code)
        };
        if let Some(into) = into {
            into[start..cursor.at].copy_from_slice(&text[start..cursor.at]);
        }
    }
    (code, comments)
}

fn skip_line(cursor: &mut Cursor<'_>) {
    while !cursor.done() && cursor.peek(0) != '\n' {
        cursor.at += 1;
    }
}

fn skip_block(cursor: &mut Cursor<'_>) {
    let mut depth = 0_usize;
    while !cursor.done() {
        if cursor.starts("/*") {
            depth += 1;
            cursor.at += 2;
        } else if cursor.starts("*/") {
            depth -= 1;
            cursor.at += 2;
            if depth == 0 {
                return;
            }
        } else {
            cursor.at += 1;
        }
    }
}

/// Steps over a string or character literal; says whether there was one.
fn skip_literal(cursor: &mut Cursor<'_>) -> bool {
    let inside_word = cursor.at > 0 && is_word(cursor.text[cursor.at - 1]);
    let prefix = usize::from(!inside_word && matches!(cursor.peek(0), 'b' | 'c'));
    let raw = !inside_word && cursor.peek(prefix) == 'r';
    let hashes = (prefix + usize::from(raw)..)
        .take_while(|i| raw && cursor.peek(*i) == '#')
        .count();
    let quote = prefix + usize::from(raw) + hashes;
    match cursor.peek(quote) {
        '"' if raw => skip_raw(cursor, quote, hashes),
        '"' => skip_quoted(cursor, quote, '"'),
        '\'' if !raw && is_char_literal(cursor, quote) => skip_quoted(cursor, quote, '\''),
        _ => return false,
    }
    true
}

/// A quote opens a character literal, not a lifetime, if a backslash follows or a second quote comes right after.
fn is_char_literal(cursor: &Cursor<'_>, quote: usize) -> bool {
    cursor.peek(quote + 1) == '\\' || cursor.peek(quote + 2) == '\''
}

fn skip_raw(cursor: &mut Cursor<'_>, quote: usize, hashes: usize) {
    let close = format!("\"{}", "#".repeat(hashes));
    cursor.at += quote + 1;
    while !cursor.done() && !cursor.starts(&close) {
        cursor.at += 1;
    }
    cursor.at = (cursor.at + close.len()).min(cursor.text.len());
}

fn skip_quoted(cursor: &mut Cursor<'_>, quote: usize, close: char) {
    cursor.at += quote + 1;
    while !cursor.done() && cursor.peek(0) != close {
        cursor.at += if cursor.peek(0) == '\\' { 2 } else { 1 };
    }
    cursor.at = (cursor.at + 1).min(cursor.text.len());
}

/// Whether a character can be part of a Rust identifier.
#[must_use]
pub fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The spans of items under a `#[cfg(test)]`, and the modules declared under one.
fn test_regions(code: &[char]) -> (Vec<(usize, usize)>, Vec<String>) {
    let (mut regions, mut modules) = (Vec::new(), Vec::new());
    let mut cursor = Cursor { text: code, at: 0 };
    while !cursor.done() {
        let start = cursor.at;
        let inner = cursor.starts("#![cfg(");
        if !inner && !cursor.starts("#[cfg(") {
            cursor.at += 1;
            continue;
        }
        let attribute = balanced(&mut cursor, '[', ']');
        if !words(&attribute).any(|w| w == "test") || words(&attribute).any(|w| w == "not") {
            continue;
        }
        if inner {
            regions.push((0, code.len()));
            continue;
        }
        let item = item(&mut cursor);
        let mut item_words = words(&item).skip_while(|w| *w != "mod");
        if item.trim_end().ends_with(';')
            && let (Some(_), Some(name)) = (item_words.next(), item_words.next())
        {
            modules.push(name.to_owned());
        }
        regions.push((start, cursor.at));
    }
    (regions, modules)
}

/// Steps over the next bracketed span, from wherever it opens to its end.
fn balanced(cursor: &mut Cursor<'_>, open: char, close: char) -> String {
    let start = cursor.at;
    let mut depth = 0_usize;
    while !cursor.done() {
        let c = cursor.peek(0);
        cursor.at += 1;
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                break;
            }
        }
    }
    cursor.text[start..cursor.at].iter().collect()
}

/// Steps over an item: to its `;`, or to the end of its block.
fn item(cursor: &mut Cursor<'_>) -> String {
    let start = cursor.at;
    let mut depth = 0_usize;
    while !cursor.done() {
        match cursor.peek(0) {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' if depth == 0 => {
                balanced(cursor, '{', '}');
                break;
            }
            ';' if depth == 0 => {
                cursor.at += 1;
                break;
            }
            _ => {}
        }
        cursor.at += 1;
    }
    cursor.text[start..cursor.at].iter().collect()
}

/// The identifiers of a piece of code.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c| !is_word(c)).filter(|w| !w.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_not_code() {
        let s = Source::parse(
            "a.rs",
            "let a = \"x // y\"; // c1\nlet b = r#\"q\" z\"#; /* c2 /* in */ c3 */ end\nlet c = '\"'; let d: &'a str = b\"\\\"k\";\n",
        );
        let code = s.code.join("\n");
        for gone in ["y", "c1", "z", "c2", "c3", "k"] {
            assert!(!words(&code).any(|w| w == gone), "{gone} in {code}");
        }
        for kept in ["a", "end", "str", "d"] {
            assert!(words(&code).any(|w| w == kept), "{kept} not in {code}");
        }
        let comments = s.comments.join("\n");
        assert!(comments.contains("c1") && comments.contains("c3"));
        assert!(!comments.contains('y') && !comments.contains("end"));
    }

    #[test]
    fn test_regions_end_where_their_item_ends() {
        let s = Source::parse(
            "a.rs",
            "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n  fn b() { { } }\n}\nfn c() {}\n#[cfg(test)]\nmod fixtures;\nfn d() {}\n",
        );
        let tests: Vec<usize> = (0..s.test.len()).filter(|i| s.test[*i]).collect();
        assert_eq!(tests, [1, 2, 3, 4, 5, 7, 8]);
        assert_eq!(s.test_modules, ["fixtures"]);
    }

    #[test]
    fn cfg_not_test_is_no_test() {
        let s = Source::parse(
            "a.rs",
            "#[cfg(not(test))]\nfn a() {}\n#[cfg(any(test, x))]\nfn b() {}",
        );
        assert_eq!(s.test, [false, false, true, true]);
    }

    #[test]
    fn whole_files_of_tests_are_known_by_path() {
        for path in ["tests/src/x.rs", "a/src/b/tests.rs", "a/src/conformance.rs"] {
            assert!(is_test_path(path), "{path}");
        }
        assert!(!is_test_path("a/src/attests.rs"));
    }

    #[test]
    fn modules_live_beside_their_parent() {
        let dir = |p: &str| Source::parse(p, "").module_dir().to_owned();
        assert_eq!(dir("a/src/lib.rs"), "a/src");
        assert_eq!(dir("a/src/b/mod.rs"), "a/src/b");
        assert_eq!(dir("a/src/b.rs"), "a/src/b");
    }
}
