//! Checks of the house: what can be verified about the repository without running Mortise.
//!
//! `./x check` runs them all. Each check is a function from text to findings, tested on small fixtures that
//! it must accept and refuse; only [`run`] and [`tree`] touch files and processes.

pub mod deps;
pub mod run;
pub mod source;
pub mod spdx;
pub mod style;
pub mod trace;
pub mod tree;

use serde::Serialize;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// `path:line`, a crate, or a requirement.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl Finding {
    /// A finding.
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }
}
