//! Runs the cases of a file, each by itself.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use data_encoding::HEXLOWER_PERMISSIVE;
use mortise_protocol::group::Crypto;
use openmls::prelude::{Ciphersuite, OpenMlsCrypto as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::folder::VectorFile;
use crate::kind::Kind;
use crate::passive::{self, Keep};
use crate::scratch::Scratch;
use crate::{codec, skips};

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It holds; why parts of it were not checked, if any.
    Passed(Vec<String>),
    /// What does not.
    Failed(String),
    /// Why it was not run.
    Skipped(String),
}

/// What became of a file's cases.
pub(crate) struct FileResult {
    /// The file's name.
    pub(crate) name: String,
    /// What its cases are.
    pub(crate) kind: &'static str,
    /// One per case, in the file's order.
    pub(crate) outcomes: Vec<Outcome>,
    /// How long it took, milliseconds.
    pub(crate) ms: u128,
}

impl FileResult {
    /// Reasons for which cases, or parts of them, were skipped that the checked-in list does not have.
    pub(crate) fn unlisted(&self) -> BTreeSet<&str> {
        self.outcomes
            .iter()
            .flat_map(|outcome| match outcome {
                Outcome::Passed(reasons) => reasons.as_slice(),
                Outcome::Skipped(reason) => std::slice::from_ref(reason),
                Outcome::Failed(_) => &[],
            })
            .map(String::as_str)
            .filter(|reason| !skips::is_listed(self.kind, reason))
            .collect()
    }
}

/// Runs all cases of a file.
///
/// # Errors
/// A scratch database that cannot be made.
pub(crate) fn run_file(file: VectorFile) -> anyhow::Result<FileResult> {
    let start = Instant::now();
    let scratch = Scratch::new().map_err(anyhow::Error::msg)?;
    let mut outcomes = Vec::with_capacity(file.cases.len());
    for (n, case) in file.cases.iter().enumerate() {
        outcomes.push(match file.kind {
            None => Outcome::Skipped("its kind is not known".into()),
            Some(kind) => run_case(&scratch, kind, n, case),
        });
    }
    Ok(FileResult {
        name: file.name,
        kind: file.kind.map_or("unknown", Kind::name),
        outcomes,
        ms: start.elapsed().as_millis(),
    })
}

fn run_case(scratch: &Scratch, kind: Kind, n: usize, case: &Value) -> Outcome {
    if let Some(suite) = case.get("cipher_suite") {
        match missing_suite(suite) {
            Ok(None) => {}
            Ok(Some(reason)) => return Outcome::Skipped(reason),
            Err(what) => return Outcome::Failed(what),
        }
    }
    // openmls's own checks assert.
    let checked = catch_unwind(AssertUnwindSafe(|| check(scratch, kind, n, case)));
    match checked {
        Ok(Ok(unchecked)) => Outcome::Passed(unchecked),
        Ok(Err(what)) => Outcome::Failed(what),
        Err(panic) => Outcome::Failed(message_of(panic.as_ref())),
    }
}

/// Why a suite cannot be run; `None` when the product's provider has it.
fn missing_suite(suite: &Value) -> Result<Option<String>, String> {
    let number = suite
        .as_u64()
        .and_then(|n| u16::try_from(n).ok())
        .ok_or("cipher_suite is no ciphersuite")?;
    let has =
        Ciphersuite::try_from(number).is_ok_and(|suite| Crypto::default().supports(suite).is_ok());
    Ok((!has).then(|| format!("the provider does not have ciphersuite {number:#06x}")))
}

/// Checks one case; returns why parts of it were not checked.
fn check(scratch: &Scratch, kind: Kind, n: usize, case: &Value) -> Result<Vec<String>, String> {
    match kind {
        Kind::Deserialization => codec::header(case)?,
        Kind::PassiveClient => {
            let case = passive::Case::deserialize(case).map_err(|e| e.to_string())?;
            let keep = if n.is_multiple_of(2) {
                Keep::Stored
            } else {
                Keep::InMemory
            };
            passive::run(&case, keep)?;
        }
        Kind::Messages => {
            known_answer(scratch, kind, case)?;
            return codec::messages(case);
        }
        _ => known_answer(scratch, kind, case)?,
    }
    Ok(Vec::new())
}

fn known_answer(scratch: &Scratch, kind: Kind, case: &Value) -> Result<(), String> {
    scratch.rehearse(|provider| mortise_kats::run(kind.name(), case, provider))
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    let text = text.unwrap_or_else(|| "a check panicked".into());
    // An assertion prints both sides on lines of their own; keys are long.
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;

/// Bytes in hexadecimal.
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl Hex {
    /// A field of a case.
    ///
    /// # Errors
    /// No such field, or not hexadecimal.
    pub(crate) fn field(case: &Value, name: &str) -> Result<Self, String> {
        let value = case.get(name).ok_or_else(|| format!("{name} is missing"))?;
        Self::deserialize(value).map_err(|e| format!("{name}: {e}"))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}
