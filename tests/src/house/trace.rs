//! Requirement traceability: every requirement of the specification has code and a test, and every citation has a
//! requirement.

use std::collections::BTreeMap;

use super::Finding;
use super::source::Source;

const MARK: &str = "REQ-";

/// The requirements that the specification defines: lines that begin with the id, alone, in bold.
///
/// # Errors
/// A requirement that is defined twice, or a line that begins like a definition and is none.
pub fn definitions(spec: &str) -> Result<BTreeMap<String, usize>, Finding> {
    let mut defined = BTreeMap::new();
    for (n, line) in spec.lines().enumerate() {
        let Some(rest) = line.strip_prefix("**").filter(|l| l.starts_with(MARK)) else {
            continue;
        };
        let Some((id, _)) = rest
            .split_once("**")
            .filter(|(id, _)| ids(id).next() == Some(*id))
        else {
            let what = "begins like a definition and is none: the id alone must be in bold";
            return Err(Finding::new(format!("line {}", n + 1), what));
        };
        if let Some(first) = defined.insert(id.to_owned(), n + 1) {
            let what = format!("defined twice: lines {first} and {}", n + 1);
            return Err(Finding::new(id, what));
        }
    }
    Ok(defined)
}

#[derive(Default)]
struct Citations {
    code: usize,
    test: usize,
    first: String,
}

/// Compares what the specification defines with what comments in the sources cite.
#[must_use]
pub fn check(defined: &BTreeMap<String, usize>, sources: &[Source]) -> Vec<Finding> {
    let mut cited: BTreeMap<&str, Citations> = BTreeMap::new();
    for source in sources {
        for (n, line) in source.comments.iter().enumerate() {
            for id in ids(line) {
                let c = cited.entry(id).or_default();
                if source.test.get(n) == Some(&true) {
                    c.test += 1;
                } else {
                    c.code += 1;
                }
                if c.first.is_empty() {
                    c.first = format!("{}:{}", source.path, n + 1);
                }
            }
        }
    }
    let mut findings = Vec::new();
    for id in defined.keys() {
        let (code, test) = cited.get(id.as_str()).map_or((0, 0), |c| (c.code, c.test));
        let what = match (code, test) {
            (0, 0) => "no code, no test",
            (0, _) => "no code",
            (_, 0) => "no test",
            _ => continue,
        };
        findings.push(Finding::new(id.as_str(), what));
    }
    for (id, c) in cited {
        if !defined.contains_key(id) {
            findings.push(Finding::new(
                id,
                format!("cited at {}, not defined", c.first),
            ));
        }
    }
    findings
}

/// The requirement ids in a line of text. The two ends of a range (`A to B`) are headings, not citations.
fn ids(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices(MARK).filter_map(move |(at, _)| {
        let digits = line[at + MARK.len()..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        let end = at + MARK.len() + digits;
        let to = format!(" to {MARK}");
        let in_range = line[end..].starts_with(&to) || line[..at + MARK.len()].ends_with(&to);
        (digits == 3 && !in_range).then(|| &line[at..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written apart, so that no tool takes a fixture for a citation.
    fn req(n: u16) -> String {
        format!("{MARK}{n:03}")
    }

    fn spec(numbers: &[u16]) -> BTreeMap<String, usize> {
        let text: String = numbers
            .iter()
            .map(|n| format!("**{}** A device MUST.\n", req(*n)))
            .collect();
        definitions(&text).expect("no duplicates")
    }

    fn file(n: u16) -> Source {
        let id = req(n);
        Source::parse(
            "a/src/lib.rs",
            &format!(
                "/// Does it ({id}).\nfn a() {{}}\n#[cfg(test)]\nmod tests {{\n  // {id}\n}}\n"
            ),
        )
    }

    #[test]
    fn a_requirement_with_code_and_test_passes() {
        assert_eq!(check(&spec(&[901]), &[file(901)]), []);
    }

    #[test]
    fn a_requirement_without_code_or_test_fails() {
        let only_code = Source::parse("a/src/b.rs", &format!("// {}", req(901)));
        let only_test = Source::parse("tests/src/b.rs", &format!("// {}", req(902)));
        let found = check(&spec(&[901, 902, 903]), &[only_code, only_test]);
        let what: Vec<&str> = found.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(what, ["no test", "no code", "no code, no test"]);
    }

    #[test]
    fn a_citation_of_no_requirement_fails() {
        let found = check(&spec(&[901]), &[file(901), file(902)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("a/src/lib.rs:1"));
    }

    #[test]
    fn strings_and_ranges_cite_nothing() {
        let text = format!("// {} to {}\nlet a = \"{}\";", req(901), req(903), req(904));
        assert_eq!(check(&spec(&[]), &[Source::parse("a.rs", &text)]), []);
    }

    #[test]
    fn only_the_head_of_a_line_defines_and_only_once() {
        let text = format!("see **{}**\n**Note** x\n**{}** y\n", req(901), req(902));
        let defined = definitions(&text).expect("no duplicates");
        assert_eq!(defined.into_iter().collect::<Vec<_>>(), [(req(902), 3)]);
        let twice = format!("**{0}** x\n**{0}** y\n", req(901));
        assert!(definitions(&twice).is_err());
        let titled = format!("**{} (title)** x\n", req(901));
        assert!(definitions(&titled).is_err());
    }
}
