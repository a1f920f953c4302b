//! Reads the repository's files.

use std::path::Path;

use anyhow::Context as _;

use super::source::Source;

/// Every Rust file of the workspace, in the order of their paths.
///
/// # Errors
/// A file or folder that cannot be read.
pub fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut paths = Vec::new();
    walk(root, &mut paths)?;
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let relative = path.strip_prefix(root).unwrap_or(&path);
        sources.push(Source::parse(
            &relative.to_string_lossy().replace('\\', "/"),
            &text,
        ));
    }
    mark_test_modules(&mut sources);
    Ok(sources)
}

fn walk(dir: &Path, found: &mut Vec<std::path::PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            // A folder with a CACHEDIR.TAG is a build's.
            let skip = name.starts_with('.') || path.join("CACHEDIR.TAG").exists();
            if !skip {
                walk(&path, found)?;
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Files of modules that are declared under `#[cfg(test)]` are tests whatever their name.
pub fn mark_test_modules(sources: &mut [Source]) {
    let prefixes: Vec<String> = sources
        .iter()
        .flat_map(|s| {
            s.test_modules
                .iter()
                .map(|m| format!("{}/{m}", s.module_dir()))
        })
        .collect();
    for source in sources {
        let stem = source.path.trim_end_matches(".rs");
        let is_test = prefixes.iter().any(|p| {
            stem == p
                || stem
                    .strip_prefix(p.as_str())
                    .is_some_and(|r| r.starts_with('/'))
        });
        if is_test {
            source.mark_test();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declared_for_tests_is_one_with_all_below_it() {
        let mut sources = vec![
            Source::parse("a/src/lib.rs", "#[cfg(test)]\nmod fixtures;\nmod real;"),
            Source::parse("a/src/fixtures.rs", "fn f() {}"),
            Source::parse("a/src/fixtures/more.rs", "fn g() {}"),
            Source::parse("a/src/real.rs", "fn h() {}"),
        ];
        mark_test_modules(&mut sources);
        let marked: Vec<bool> = sources.iter().map(|s| s.test.iter().all(|t| *t)).collect();
        assert_eq!(marked, [false, true, true, false]);
    }
}
