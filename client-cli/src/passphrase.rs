//! Where the passphrase comes from: a file, or the terminal; and other secrets that are typed.

use std::io::IsTerminal as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::CliError;
use crate::profile::read_limited;

/// Nobody types more.
const MAX_BYTES: u64 = 4096;

/// Reads the passphrase of an existing profile.
///
/// # Errors
/// [`CliError::NoPassphrase`], [`CliError::EmptyPassphrase`], [`CliError::File`].
pub fn read(file: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    match file {
        Some(path) => from_file(path),
        None => prompt("Passphrase: "),
    }
}

/// Reads the passphrase of a new profile; asks twice on a terminal.
///
/// # Errors
/// As [`read`], and [`CliError::PassphraseMismatch`].
pub fn choose(file: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    if let Some(path) = file {
        return from_file(path);
    }
    let first = prompt("New passphrase for this device: ")?;
    if *first == *prompt("The same again: ")? {
        Ok(first)
    } else {
        Err(CliError::PassphraseMismatch)
    }
}

/// The file's content without one line break at its end.
fn from_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let bytes = Zeroizing::new(read_limited(path, MAX_BYTES)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| CliError::Usage {
        what: format!("the passphrase file {} is not UTF-8", path.display()),
    })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    not_empty(Zeroizing::new(text.to_owned()))
}

fn prompt(question: &str) -> Result<Zeroizing<String>, CliError> {
    ask(question)?
        .ok_or(CliError::NoPassphrase)
        .and_then(not_empty)
}

/// Asks for a secret on the terminal, without showing it; `None` if there is no terminal.
///
/// # Errors
/// [`CliError::File`].
pub fn ask(question: &str) -> Result<Option<Zeroizing<String>>, CliError> {
    // The terminal may be there although stdin is not: a link can come that way.
    if !std::io::stdin().is_terminal() && !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    rpassword::prompt_password(question)
        .map_err(CliError::file("read the answer from", "/dev/tty"))
        .map(|typed| Some(Zeroizing::new(typed)))
}

fn not_empty(text: Zeroizing<String>) -> Result<Zeroizing<String>, CliError> {
    if text.is_empty() {
        return Err(CliError::EmptyPassphrase);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_it() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let path = tmp.path().join("p");
        for (content, expected) in [
            ("a b", "a b"),
            ("a b\n", "a b"),
            ("a b\r\n", "a b"),
            ("a\n\n", "a\n"),
        ] {
            std::fs::write(&path, content).expect("write");
            assert_eq!(*read(Some(&path)).expect("read"), expected);
        }
        std::fs::write(&path, "\n").expect("write");
        assert!(matches!(read(Some(&path)), Err(CliError::EmptyPassphrase)));
    }
}
