//! The project's own test vectors, `spec/vectors/*.json`: made here, by the product's own code, from fixed seeds.
//!
//! The same bytes come out on every machine and in every run. A change of one byte is a change of the protocol, and
//! turns `tests/tests/vectors.rs` red until the files are made anew with `UPDATE_VECTORS=1`.

mod access;
pub mod certificates;
mod content;
mod fields;
mod frames;
mod governance;
mod groups;
mod invitations;
mod keys;
mod logs;
mod names;
mod roster;
mod roster_refusals;
mod story;

pub use fields::name_of;
pub use story::{state, variant};

use data_encoding::HEXLOWER;
use serde_json::Value;

/// Every file of vectors: its name in `spec/vectors`, and what is in it.
#[must_use]
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("keys.json", keys::vectors()),
        ("frames.json", frames::vectors()),
        ("roster.json", roster::vectors()),
        ("authority.json", roster::authority_vectors()),
        ("invitations.json", invitations::vectors()),
        ("names.json", names::vectors()),
        ("access.json", access::vectors()),
        ("logs.json", logs::vectors()),
        ("certificates.json", certificates::vectors()),
        ("groups.json", groups::vectors()),
        ("content.json", content::vectors()),
    ]
}

/// The text of a file: indented, and ending with a newline.
#[must_use]
pub fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

/// Constants of this module only: whatever they hold, it is as long as it has to be.
fn unhex<const N: usize>(text: &str) -> [u8; N] {
    HEXLOWER
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .expect("a constant of that length")
}
