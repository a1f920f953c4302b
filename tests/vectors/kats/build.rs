//! Takes the sources of the openmls that the lock file names and opens its known-answer tests.
//!
//! openmls compiles most of them under `cfg(test)` only, where no other crate can call them. This copies the sources
//! into the build directory and changes nothing but attributes and visibility: `cfg(test)` items become items, test
//! modules other than the known-answer tests stay out, and private test functions become visible in the crate. Every
//! edit that is named must match, so that another version of openmls stops the build instead of testing less.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const OPENMLS: &str = "openmls-0.9.2";

/// Test modules that are compiled in; all others stay behind `cfg(test)`.
const OPENED: &[&str] = &[
    "tests_and_kats",
    "kats",
    "kat_crypto_basics",
    "kat_message_protection",
    "kat_tree_operations",
    "kat_tree_validation",
    "kat_treekem",
    "messages",
    "psk_secret",
    "secret_tree",
    "transcript_hashes",
    "utils",
    "welcome",
];

/// Edits of one place in one file: file, what is there, what shall be there.
const EDITS: &[(&str, &str, &str)] = &[
    // One more dependency, for wasm only.
    (
        "lib.rs",
        "pub use wasm_bindgen_test::wasm_bindgen_test as test;",
        "",
    ),
    // openmls_traits derives this in its own test feature, which the product's build does not have.
    (
        "treesync/node/encryption_keys.rs",
        "#[cfg_attr(any(test, feature = \"test-utils\"), derive(PartialEq, Eq))]\npub struct EncryptionPrivateKey {",
        "pub struct EncryptionPrivateKey {",
    ),
    (
        "treesync/node/encryption_keys.rs",
        "impl Debug for EncryptionPrivateKey {",
        "impl PartialEq for EncryptionPrivateKey {\n    fn eq(&self, other: &Self) -> bool {\n        *self.key == *other.key\n    }\n}\nimpl Eq for EncryptionPrivateKey {}\nimpl Debug for EncryptionPrivateKey {",
    ),
    // One more dependency, for logs only.
    (
        "group/mls_group/tests_and_kats/kats/welcome.rs",
        "let _ = pretty_env_logger::formatted_builder()\n        .is_test(true)\n        .try_init();",
        "",
    ),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let to = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("openmls");
    if to.exists() {
        fs::remove_dir_all(&to).expect("the build directory can be written");
    }
    let mut edits = 0;
    copy(&sources().join("src"), Path::new(""), &to, &mut edits);
    assert_eq!(
        edits,
        EDITS.len(),
        "{OPENMLS} is not the one that build.rs was written for"
    );
}

/// Where cargo unpacked openmls.
fn sources() -> PathBuf {
    let cargo = env::var("CARGO").expect("cargo sets CARGO");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            &target,
        ])
        .output()
        .expect("cargo metadata runs");
    let metadata = String::from_utf8_lossy(&output.stdout);
    let manifest = format!("/{OPENMLS}/Cargo.toml\"");
    let end = metadata.find(&manifest).unwrap_or_else(|| {
        panic!(
            "cargo metadata names no {OPENMLS}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    let start = metadata[..end].rfind('"').map_or(0, |at| at + 1);
    PathBuf::from(&metadata[start..end]).join(OPENMLS)
}

fn copy(from: &Path, relative: &Path, to: &Path, edits: &mut usize) {
    fs::create_dir_all(to.join(relative)).expect("the build directory can be written");
    let folder = from.join(relative);
    for entry in fs::read_dir(&folder).expect("openmls's sources are unpacked") {
        let entry = entry.expect("a folder can be read");
        let path = relative.join(entry.file_name());
        if entry.path().is_dir() {
            copy(from, &path, to, edits);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(entry.path()).expect("a source file is UTF-8");
            fs::write(to.join(&path), open(&path, &text, edits))
                .expect("the build directory can be written");
        }
    }
}

fn open(path: &Path, text: &str, edits: &mut usize) -> String {
    let name = path.to_string_lossy().replace('\\', "/");
    let mut text = text.to_owned();
    for (_, from, to) in EDITS.iter().filter(|(file, ..)| *file == name) {
        assert_eq!(
            text.matches(from).count(),
            1,
            "{OPENMLS}: {name} has changed"
        );
        text = text.replace(from, to);
        *edits += 1;
    }
    // It has what it does in tests beside what it does otherwise, and none of it is needed.
    if name == "skip_validation.rs" {
        return text;
    }
    let known_answers = name.contains("tests_and_kats");
    let lines: Vec<&str> = text.lines().collect();
    let mut opened = String::new();
    for (n, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let line = match code {
            // A file that is included has no inner attributes.
            _ if name == "lib.rs" && (code.starts_with("//!") || code.starts_with("#![")) => {
                continue;
            }
            "#[cfg(test)]" if !stays_closed(&lines[n + 1..]) => continue,
            "#[cfg(not(test))]" => "#[cfg(any())]".to_owned(),
            // Makes a test per provider; the tests stay out, and so does the crate that makes them.
            "#[openmls_test::openmls_test]" | "#[openmls_test]" => "#[cfg(any())]".to_owned(),
            "use openmls_test::openmls_test;" => continue,
            // Beside names that come out of a macro, as all do that are included, it would be ambiguous.
            _ if code.contains("use errors::") => {
                line.replace("use errors::", "use self::errors::")
            }
            _ if code.starts_with("#[cfg_attr(test,") => line.replace("(test,", "(all(),"),
            _ if known_answers && is_closed_module(code) => format!("#[cfg(test)]\n{line}"),
            _ if known_answers || code == "mod tests_and_kats;" => reachable(line),
            _ => (*line).to_owned(),
        };
        opened.push_str(&line);
        opened.push('\n');
    }
    opened
}

/// Whether what a `cfg(test)` stands on is a module that is not to be compiled in.
fn stays_closed(following: &[&str]) -> bool {
    let item = following
        .iter()
        .map(|l| l.trim_start())
        .find(|l| !l.starts_with("#[") && !l.starts_with("//"));
    item.and_then(module).is_some_and(|m| !OPENED.contains(&m))
}

/// A module in another file, declared without `cfg(test)`, because its parent has that.
fn is_closed_module(code: &str) -> bool {
    code.ends_with(';') && module(code).is_some_and(|m| !OPENED.contains(&m) && m != "key_schedule")
}

/// The module that a line declares.
fn module(code: &str) -> Option<&str> {
    let declared = ["mod ", "pub mod ", "pub(crate) mod "]
        .iter()
        .find_map(|start| code.strip_prefix(start))?;
    declared.split([';', ' ']).next()
}

/// Lets the rest of the crate call what was for its own file only, and keeps it from writing to standard output.
fn reachable(line: &str) -> String {
    for start in ["mod ", "fn run_test_vector", "struct TestElement"] {
        if line.starts_with(start) {
            return format!("pub(crate) {line}");
        }
    }
    line.replace("println!(", "log::trace!(")
}
