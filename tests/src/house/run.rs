//! The list of checks, how each is run, and what is printed about it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use super::source::Source;
use super::{Finding, deps, style, trace, tree};

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing to complain of.
    Passed,
    /// What is wrong.
    Failed {
        /// One per fault.
        findings: Vec<Finding>,
    },
    /// It could not be run, and why.
    Skipped {
        /// Why, and what would make it run.
        reason: String,
    },
}

impl From<Vec<Finding>> for Outcome {
    fn from(findings: Vec<Finding>) -> Self {
        if findings.is_empty() {
            Self::Passed
        } else {
            Self::Failed { findings }
        }
    }
}

/// Which checks to run, and how to print.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The repository.
    pub root: PathBuf,
    /// Print one JSON object per line.
    pub json: bool,
    /// Run only these; all when empty.
    pub only: Vec<String>,
}

type CheckFn = Box<dyn Fn(&Path) -> anyhow::Result<Outcome>>;

/// The names of all checks, in the order in which they run.
#[must_use]
pub fn names() -> Vec<&'static str> {
    checks().into_iter().map(|(name, _)| name).collect()
}

/// Runs the checks and prints one line each. `true` when none failed.
///
/// # Errors
/// A check that is asked for by a name that there is none of.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let known = names();
    if let Some(unknown) = options.only.iter().find(|n| !known.contains(&n.as_str())) {
        anyhow::bail!(
            "no check is called {unknown:?}; there are: {}",
            known.join(", ")
        );
    }
    let mut totals = Totals::default();
    for (name, check) in checks() {
        if !options.only.is_empty() && !options.only.iter().any(|n| n == name) {
            continue;
        }
        let start = Instant::now();
        let outcome = check(&options.root).unwrap_or_else(|e| {
            Outcome::from(vec![Finding::new(name, format!("could not run: {e:#}"))])
        });
        let ms = start.elapsed().as_millis();
        totals.count(&outcome);
        if options.json {
            print_json(&Line {
                check: name,
                ms,
                outcome: &outcome,
            })?;
        } else {
            print_text(name, ms, &outcome);
        }
    }
    totals.print(options.json)?;
    Ok(totals.failed == 0)
}

#[derive(Serialize)]
struct Line<'a> {
    check: &'a str,
    ms: u128,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Totals {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Totals {
    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed { .. } => self.failed += 1,
            Outcome::Skipped { .. } => self.skipped += 1,
        }
    }

    fn print(self, json: bool) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Result {
            event: &'static str,
            #[serde(flatten)]
            totals: Totals,
        }
        if json {
            return print_json(&Result {
                event: "result",
                totals: self,
            });
        }
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        Ok(())
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

fn print_text(name: &str, ms: u128, outcome: &Outcome) {
    match outcome {
        Outcome::Passed => println!("ok    {name:<20} {ms:>7} ms"),
        Outcome::Skipped { reason } => println!("skip  {name:<20} {reason}"),
        Outcome::Failed { findings } => {
            println!("FAIL  {name:<20} {ms:>7} ms");
            let width = findings.iter().map(|f| f.place.len()).max().unwrap_or(0);
            for Finding { place, what } in findings {
                match place.as_str() {
                    "" => println!("        {what}"),
                    _ => println!("        {place:<width$}  {what}"),
                }
            }
        }
    }
}

/// Cheap checks first: a house rule that is broken is told before the compiler starts.
fn checks() -> Vec<(&'static str, CheckFn)> {
    let mut checks: Vec<(&'static str, CheckFn)> = vec![
        (
            "format",
            Box::new(|root| in_both(root, |root| cargo(root, &["fmt", "--all", "--check"], &[]))),
        ),
        ("version-floors", Box::new(version_floors)),
        ("sources", Box::new(crate_sources)),
        ("licences", Box::new(licences)),
        ("test-code", Box::new(test_code)),
        ("traceability", Box::new(traceability)),
    ];
    for rule in style::RULES {
        checks.push((
            rule.name,
            Box::new(|root| Ok(rule.check(&tree::sources(root)?).into())),
        ));
    }
    checks.push(("clippy", Box::new(clippy)));
    checks.push(("docs", Box::new(docs)));
    checks.push(("cargo-deny", Box::new(cargo_deny)));
    checks.push(("advisories", Box::new(|_| Ok(advisories()))));
    checks
}

fn read(root: &Path, name: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(root.join(name)).with_context(|| format!("reading {name}"))
}

/// The workspace of the test vectors, which is not a member of the repository's.
const VECTORS: &str = "tests/vectors";

/// Runs a check in the repository's workspace and in that of the test vectors; the first failure is the answer.
fn in_both(
    root: &Path,
    check: impl Fn(&Path) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    match check(root)? {
        Outcome::Passed => check(&root.join(VECTORS)),
        other => Ok(other),
    }
}

fn version_floors(root: &Path) -> anyhow::Result<Outcome> {
    let policy = deps::parse_policy(&read(root, "deny.toml")?)?;
    in_both(root, |dir| {
        Ok(deps::banned(&policy, &deps::parse_lock(&read(dir, "Cargo.lock")?)?).into())
    })
}

fn crate_sources(root: &Path) -> anyhow::Result<Outcome> {
    let policy = deps::parse_policy(&read(root, "deny.toml")?)?;
    in_both(root, |dir| {
        Ok(deps::foreign(&policy, &deps::parse_lock(&read(dir, "Cargo.lock")?)?).into())
    })
}

fn licences(root: &Path) -> anyhow::Result<Outcome> {
    let policy = deps::parse_policy(&read(root, "deny.toml")?)?;
    let args = ["metadata", "--format-version", "1", "--locked"];
    with_cargo(root, &args, |answer| {
        Ok(deps::unlicensed(&policy, &deps::parse_metadata(answer)?))
    })
}

fn test_code(root: &Path) -> anyhow::Result<Outcome> {
    with_cargo(root, deps::GRAPH, |graph| Ok(deps::test_code(graph)))
}

/// Checks what a cargo command prints.
fn with_cargo(
    root: &Path,
    args: &[&str],
    check: impl FnOnce(&str) -> anyhow::Result<Vec<Finding>>,
) -> anyhow::Result<Outcome> {
    let command = format!("cargo {}", args.join(" "));
    let output = Command::new("cargo")
        .args(args)
        .current_dir(root)
        .output()
        .with_context(|| format!("running {command}"))?;
    if !output.status.success() {
        return Ok(tail(&command, &output.stderr));
    }
    Ok(check(&String::from_utf8_lossy(&output.stdout))?.into())
}

fn traceability(root: &Path) -> anyhow::Result<Outcome> {
    let sources: Vec<Source> = tree::sources(root)?;
    Ok(match trace::definitions(&read(root, "spec/mortise.md")?) {
        Ok(defined) => trace::check(&defined, &sources).into(),
        Err(twice) => vec![twice].into(),
    })
}

fn clippy(root: &Path) -> anyhow::Result<Outcome> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    // One target directory: what both workspaces stand on is checked once.
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = target.to_string_lossy();
    in_both(root, |dir| {
        cargo(dir, &args, &[("CARGO_TARGET_DIR", &target)])
    })
}

fn docs(root: &Path) -> anyhow::Result<Outcome> {
    let args = ["doc", "--workspace", "--no-deps", "--locked"];
    cargo(root, &args, &[("RUSTDOCFLAGS", "-D warnings")])
}

fn cargo_deny(root: &Path) -> anyhow::Result<Outcome> {
    if !is_installed(&["deny", "--version"]) {
        return Ok(Outcome::Skipped {
            reason: "cargo-deny is not installed (cargo install cargo-deny --locked)".to_owned(),
        });
    }
    cargo(root, &["deny", "check", "bans", "licenses", "sources"], &[])
}

/// The advisory database changes under an unchanged tree: it belongs in a daily run, not in this one.
fn advisories() -> Outcome {
    Outcome::Skipped {
        reason:
            "the advisory database is fetched from the network; run: cargo deny check advisories"
                .to_owned(),
    }
}

fn is_installed(args: &[&str]) -> bool {
    Command::new("cargo")
        .args(args)
        .output()
        .is_ok_and(|o| o.status.success())
}

fn cargo(root: &Path, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Outcome> {
    let command = format!("cargo {}", args.join(" "));
    let output = Command::new("cargo")
        .args(args)
        .envs(env.iter().copied())
        .current_dir(root)
        .output()
        .with_context(|| format!("running {command}"))?;
    if output.status.success() {
        return Ok(Outcome::Passed);
    }
    Ok(tail(&command, &[output.stdout, output.stderr].concat()))
}

/// A failed command, with the end of what it said.
fn tail(command: &str, output: &[u8]) -> Outcome {
    const LINES: usize = 120;
    let text = String::from_utf8_lossy(output);
    let progress = [
        "Compiling ",
        "Checking ",
        "Documenting ",
        "Downloaded ",
        "Blocking ",
    ];
    let lines: Vec<&str> = text
        .lines()
        .filter(|l| !progress.iter().any(|p| l.trim_start().starts_with(p)))
        .collect();
    let kept = &lines[lines.len().saturating_sub(LINES)..];
    let mut findings = vec![Finding::new(command, "failed; the end of its output:")];
    findings.extend(kept.iter().map(|l| Finding::new("", *l)));
    Outcome::Failed { findings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_check_is_an_error() {
        let options = Options {
            only: vec!["no-such".to_owned()],
            ..Options::default()
        };
        assert!(run(&options).is_err());
    }

    #[test]
    fn findings_make_a_failure_and_their_absence_a_pass() {
        assert_eq!(Outcome::from(vec![]), Outcome::Passed);
        let failed = Outcome::from(vec![Finding::new("a", "b")]);
        let mut totals = Totals::default();
        totals.count(&failed);
        totals.count(&Outcome::Passed);
        assert_eq!((totals.passed, totals.failed, totals.skipped), (1, 1, 0));
    }

    #[test]
    fn a_command_that_fails_is_a_failure_with_its_output() {
        let outcome = cargo(Path::new("."), &["no-such-verb"], &[]).expect("cargo runs");
        let Outcome::Failed { findings } = outcome else {
            panic!("expected a failure, not {outcome:?}");
        };
        assert!(findings.iter().any(|f| f.what.contains("no-such-verb")));
    }
}
