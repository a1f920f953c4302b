//! Licence expressions (SPDX), as far as crates use them.

/// Whether an expression can be satisfied with the allowed licences only.
///
/// An exception (`X WITH Y`) is a licence of its own. The old form `X/Y` means `X OR Y`. What does not parse is
/// not allowed.
#[must_use]
pub fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        tokens: &tokens,
        allowed,
    };
    parser
        .any()
        .is_some_and(|ok| ok && parser.tokens.is_empty())
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn any(&mut self) -> Option<bool> {
        let mut ok = self.all()?;
        while self.take("OR") {
            ok |= self.all()?;
        }
        Some(ok)
    }

    fn all(&mut self) -> Option<bool> {
        let mut ok = self.one()?;
        while self.take("AND") {
            ok &= self.one()?;
        }
        Some(ok)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let ok = self.any()?;
            return self.take(")").then_some(ok);
        }
        let mut licence = self.next()?.to_owned();
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.next()?);
        }
        Some(self.allowed.contains(&licence))
    }

    fn take(&mut self, what: &str) -> bool {
        let found = self.tokens.first() == Some(&what);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        (!matches!(*first, "(" | ")" | "OR" | "AND" | "WITH")).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_satisfied_or_not() {
        let allowed = ["MIT".to_owned(), "ISC".to_owned()];
        for (expression, expected) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 OR MIT", true),
            ("MIT AND ISC", true),
            ("ISC AND (Apache-2.0 OR MIT)", true),
            ("MIT AND Apache-2.0", false),
            ("GPL-3.0-only", false),
            ("MIT WITH LLVM-exception", false),
            ("", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT ISC", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
        }
    }
}
