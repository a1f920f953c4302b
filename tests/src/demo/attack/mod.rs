//! What the leaver tries, with everything they have: their process, their keys, copies of their database, and in
//! the end the relay's own files.
//!
//! Each attack has a control, somewhere in the story, that shows that the same code gets through where it may.

pub mod files;
pub mod knock;
pub mod replay;
pub mod tap;

/// How an attack went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attack {
    /// A stable name.
    pub name: &'static str,
    /// Whether it got anything at all.
    pub succeeded: bool,
    /// What was tried and what came of it, in a sentence.
    pub detail: String,
}

impl Attack {
    /// An attack that counts as a success if it got any of these.
    #[must_use]
    pub fn new(name: &'static str, gains: &[String], detail: String) -> Self {
        let succeeded = !gains.is_empty();
        let detail = if succeeded {
            format!("{detail} GOT THROUGH: {}", gains.join("; "))
        } else {
            detail
        };
        Self {
            name,
            succeeded,
            detail,
        }
    }
}
