//! Finds the vector files of a folder.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::kind::Kind;

/// One file of cases.
pub(crate) struct VectorFile {
    /// Its name in the folder.
    pub(crate) name: String,
    /// What its cases are; `None` when nothing here knows them.
    pub(crate) kind: Option<Kind>,
    /// The cases.
    pub(crate) cases: Vec<Value>,
}

/// Reads all `*.json` files of a folder, by name.
///
/// # Errors
/// A folder without any, and a file that is no list of cases.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Vec<VectorFile>> {
    let mut names = Vec::new();
    // A folder that is not there has no vectors; anything else that is wrong with it shows when a file is read.
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            names.push(path);
        }
    }
    if names.is_empty() {
        bail!(
            "no test vectors in {}. Get them with `git clone https://github.com/mlswg/mls-implementations` and run \
             `./x vectors mls-implementations/test-vectors`, or set MORTISE_MLS_VECTORS to that folder",
            dir.display()
        );
    }
    names.sort();
    names.iter().map(|path| read_file(path)).collect()
}

fn read_file(path: &Path) -> anyhow::Result<VectorFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let cases: Vec<Value> = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no list of test cases", path.display()))?;
    if cases.is_empty() {
        bail!("{} has no test cases", path.display());
    }
    Ok(VectorFile {
        kind: cases.first().and_then(Kind::of),
        name: name.into_owned(),
        cases,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_vectors_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("README.md"), "none here").expect("write");
        for dir in [dir.path(), &dir.path().join("missing")] {
            let error = read(dir).err().expect("no vectors").to_string();
            assert!(error.contains("MORTISE_MLS_VECTORS"), "{error}");
        }
    }

    #[test]
    fn files_are_known_by_content_whatever_their_names() {
        let dir = tempfile::tempdir().expect("tempdir");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text);
        write("b.json", r#"[{"vlbytes_header": "00", "length": 0}]"#).expect("write");
        write("a.json", r#"[{"something": "else"}]"#).expect("write");
        let files = read(dir.path()).expect("files");
        let kinds: Vec<_> = files.iter().map(|f| (f.name.as_str(), f.kind)).collect();
        assert_eq!(
            kinds,
            [("a.json", None), ("b.json", Some(Kind::Deserialization))]
        );
        write("c.json", "[]").expect("write");
        assert!(read(dir.path()).is_err());
    }
}
