//! Dependencies: versions that are banned, licences that are allowed, and where crates may come from.
//!
//! `deny.toml` is the one list; this enforces it offline, also where cargo-deny is not installed.

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
        let lock = parse_lock(&read("Cargo.lock")).expect("Cargo.lock is well-formed");
        assert_eq!(banned(&policy, &lock), []);
        assert_eq!(foreign(&policy, &lock), []);
    }
}
