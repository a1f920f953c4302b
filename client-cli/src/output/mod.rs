//! What the user gets to see: results on stdout, as text or as JSON; progress and diagnostics on stderr.
//!
//! Everything that a terminal could obey is taken out here and nowhere else.

mod clean;
mod printer;
mod report;
mod text;

pub use clean::{clean, clean_json};
pub use printer::{Line, Printer};
pub use report::{Device, GroupInfo, HistoryLine, Member, Person, Report, User, Whoami};
pub use text::utc;
