//! What the user gets to see: results on stdout, as text or as JSON; progress and diagnostics on stderr.
//!
//! Everything that a terminal could obey is taken out here and nowhere else.

mod clean;
mod history;
mod printer;
mod proof;
mod report;
mod rows;
mod text;
mod words;

pub use clean::{clean, clean_json};
pub use history::{HistoryLine, PolicyChanged, What, policy_changes, who_may_add};
pub use printer::{Line, Printer};
pub use proof::{CertificateShown, Plan, PlannedGroup, ShownGroup, ShownWitness};
pub use report::Report;
pub use rows::{Device, GroupInfo, Member, Person, Policy, User, Whoami};
pub use words::{span, utc};
