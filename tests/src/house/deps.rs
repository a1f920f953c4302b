//! Dependencies: versions that are banned, licences that are allowed, and where crates may come from.
//!
//! `deny.toml` is the one list; this enforces it offline, also where cargo-deny is not installed.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::Deserialize;

use super::{Finding, spdx};

/// The part of `deny.toml` that is enforced here.
#[derive(Debug, Deserialize)]
pub struct Policy {
    bans: Bans,
    licenses: Licences,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    /// `name`, or `name:<version`.
    #[serde(rename = "crate")]
    what: String,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// `Cargo.lock`.
#[derive(Debug, Deserialize)]
pub struct Lock {
    package: Vec<Package>,
}

/// A crate, as `Cargo.lock` and `cargo metadata` have it.
#[derive(Debug, Deserialize)]
pub struct Package {
    name: String,
    version: String,
    source: Option<String>,
    license: Option<String>,
}

/// The answer of `cargo metadata`.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    packages: Vec<Package>,
}

/// Reads `deny.toml`.
///
/// # Errors
/// Text that is not of its form.
pub fn parse_policy(text: &str) -> anyhow::Result<Policy> {
    toml::from_str(text).context("reading deny.toml")
}

/// Reads `Cargo.lock`.
///
/// # Errors
/// Text that is not of its form.
pub fn parse_lock(text: &str) -> anyhow::Result<Lock> {
    toml::from_str(text).context("reading Cargo.lock")
}

/// Reads the answer of `cargo metadata --format-version 1`.
///
/// # Errors
/// Text that is not of its form.
pub fn parse_metadata(text: &str) -> anyhow::Result<Metadata> {
    serde_json::from_str(text).context("reading cargo metadata")
}

/// Crates below their floor, or banned altogether.
#[must_use]
pub fn banned(policy: &Policy, lock: &Lock) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ban in &policy.bans.deny {
        let (name, floor) = match ban.what.split_once(":<") {
            Some((name, floor)) => (name, Some(floor)),
            None => (ban.what.as_str(), None),
        };
        for package in lock.package.iter().filter(|p| p.name == name) {
            let what = match floor {
                None => format!("{} is banned", package.version),
                Some(floor) if is_below(&package.version, floor) => {
                    format!("{} is below the floor {floor}", package.version)
                }
                Some(_) => continue,
            };
            findings.push(Finding::new(name, what));
        }
    }
    findings
}

/// Crates from elsewhere than the registries that are allowed.
#[must_use]
pub fn foreign(policy: &Policy, lock: &Lock) -> Vec<Finding> {
    let allowed = |source: &String| {
        source
            .strip_prefix("registry+")
            .is_some_and(|url| policy.sources.allow_registry.iter().any(|a| a == url))
    };
    lock.package
        .iter()
        .filter_map(|p| Some((p, p.source.as_ref()?)))
        .filter(|(_, source)| !allowed(source))
        .map(|(p, source)| Finding::new(&p.name, format!("comes from {source}")))
        .collect()
}

/// Crates whose licence cannot be satisfied with the allowed ones.
#[must_use]
pub fn unlicensed(policy: &Policy, metadata: &Metadata) -> Vec<Finding> {
    let allowed = |licence: &str| spdx::is_allowed(licence, &policy.licenses.allow);
    metadata
        .packages
        .iter()
        .filter(|p| !p.license.as_deref().is_some_and(allowed))
        .map(|p| {
            let licence = p.license.as_deref().unwrap_or("no licence");
            Finding::new(&p.name, format!("{}: {licence}", p.version))
        })
        .collect()
}

/// The feature behind which the crates of openmls keep what is for tests only, and what such crates are called.
const TEST_FEATURE: &str = "test-utils";
const MLS_CRATES: &str = "openmls";
/// What our protocol crate has for the simulated world alone: it keeps secrets in memory.
const SIMULATION: (&str, &str) = ("mortise-protocol", "simulation");
/// A second openmls with its tests compiled in: `tests/vectors`.
const TEST_CRATE: &str = "mortise-kats";

/// The arguments with which cargo prints the build graph of the workspace, which is what the product is built from:
/// a crate per line, with the features that all of the workspace together switches on. (The graph of `cargo metadata`
/// is not the one that is built: it takes features for on that only a crate which is not built would switch on.)
pub const GRAPH: &[&str] = &[
    "tree",
    "--workspace",
    "--locked",
    "--edges=normal,build,dev",
    "--prefix=none",
    "--format={p}|{f}",
];

/// Test code of the MLS library, and ours for the simulated world, in a build graph, as [`GRAPH`] prints it.
#[must_use]
pub fn test_code(graph: &str) -> Vec<Finding> {
    let crates: BTreeSet<(&str, &str)> = graph
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, features)| (package, features.trim_end_matches(" (*)")))
        .collect();
    if !crates.iter().any(|(p, _)| name_of(p) == MLS_CRATES) {
        return vec![Finding::new(
            "cargo tree",
            "shows no openmls: it is not the build graph",
        )];
    }
    let mut findings = Vec::new();
    for (package, features) in crates {
        let name = name_of(package);
        if name == TEST_CRATE {
            findings.push(Finding::new(name, "is in the build graph"));
        }
        if name == SIMULATION.0 && features.split(',').any(|f| f == SIMULATION.1) {
            findings.push(Finding::new(name, "is built for the simulated world"));
        }
        if name.starts_with(MLS_CRATES) && features.split(',').any(|f| f == TEST_FEATURE) {
            let version = package.trim_start_matches(name).trim_start();
            let what = format!("{version} is built with {TEST_FEATURE}");
            findings.push(Finding::new(name, what));
        }
    }
    findings
}

fn name_of(package: &str) -> &str {
    package.split(' ').next().unwrap_or_default()
}

/// Whether a version comes before another. A pre-release comes before its release.
fn is_below(version: &str, floor: &str) -> bool {
    let parse = |text: &str| {
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = core.split('.').map(|n| n.parse::<u64>().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        (next(), next(), next(), !text.contains('-'))
    };
    parse(version) < parse(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [bans]
        deny = [{ crate = "a:<0.3.20", reason = "x" }, { crate = "b" }]
        [licenses]
        allow = ["MIT"]
        [sources]
        allow-registry = ["https://registry.example/index"]
    "#;

    fn lock(name: &str, version: &str, source: &str) -> Lock {
        parse_lock(&format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\n"
        ))
        .expect("a well-formed lock file")
    }

    #[test]
    fn a_version_below_its_floor_is_found() {
        let policy = parse_policy(POLICY).expect("a well-formed policy");
        let count = |name, version| banned(&policy, &lock(name, version, "s")).len();
        assert_eq!(count("a", "0.3.19"), 1);
        assert_eq!(count("a", "0.3.20-rc.1"), 1);
        assert_eq!(count("a", "0.3.20"), 0);
        assert_eq!(count("a", "0.10.0"), 0);
        assert_eq!(count("b", "9.9.9"), 1);
        assert_eq!(count("c", "0.0.1"), 0);
    }

    #[test]
    fn a_crate_from_elsewhere_is_found() {
        let policy = parse_policy(POLICY).expect("a well-formed policy");
        let count = |source| foreign(&policy, &lock("a", "1.0.0", source)).len();
        assert_eq!(count("registry+https://registry.example/index"), 0);
        assert_eq!(count("registry+https://other.example/index"), 1);
        assert_eq!(count("git+https://registry.example/index"), 1);
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_found() {
        let policy = parse_policy(POLICY).expect("a well-formed policy");
        let count = |licence: &str| {
            let text =
                format!(r#"{{"packages":[{{"name":"a","version":"1","license":{licence}}}]}}"#);
            unlicensed(&policy, &parse_metadata(&text).expect("well-formed")).len()
        };
        assert_eq!(count("\"MIT OR X\""), 0);
        assert_eq!(count("\"X\""), 1);
        assert_eq!(count("null"), 1);
    }

    #[test]
    fn test_code_in_the_build_graph_is_found() {
        let count = |line: &str| test_code(&format!("openmls v1|a,b\n{line}\n")).len();
        assert_eq!(count("openmls v2|a,test-utils (*)"), 1);
        assert_eq!(count("openmls_traits v1|test-utils"), 1);
        assert_eq!(count("openmls_traits v1|test-utils-not (*)"), 0);
        assert_eq!(count("another v1|test-utils"), 0);
        assert_eq!(count("mortise-protocol v1 (/x)|simulation,sqlite"), 1);
        assert_eq!(count("mortise-protocol v1 (/x)|sqlite"), 0);
        assert_eq!(count("mortise-kats v1 (/a)|"), 1);
        // No graph is no proof.
        assert_eq!(test_code("another v1|\n").len(), 1);
    }

    /// What the product is built from has openmls, and none of its test code.
    #[test]
    fn the_product_is_built_without_test_code() {
        let output = std::process::Command::new("cargo")
            .args(GRAPH)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("cargo runs");
        assert_eq!(test_code(&String::from_utf8_lossy(&output.stdout)), []);
    }

    /// The floors that the project stands on are in its policy, and the lock file keeps them.
    #[test]
    fn the_project_keeps_its_floors() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let read = |name: &str| std::fs::read_to_string(format!("{root}/{name}")).expect(name);
        let policy = parse_policy(&read("deny.toml")).expect("deny.toml is well-formed");
        for (name, below) in [
            ("quinn-proto", "0.11.14"),
            ("rustls-webpki", "0.103.12"),
            ("hpke-rs", "0.5.9"),
            ("tracing-subscriber", "0.3.19"),
            ("curve25519-dalek", "4.1.2"),
        ] {
            assert_eq!(banned(&policy, &lock(name, below, "s")).len(), 1, "{name}");
        }
        for name in ["Cargo.lock", "tests/vectors/Cargo.lock"] {
            let lock = parse_lock(&read(name)).expect("a lock file is well-formed");
            assert_eq!(banned(&policy, &lock), [], "{name}");
            assert_eq!(foreign(&policy, &lock), [], "{name}");
        }
    }
}
