//! One process holds a profile; the others work through it: a Unix socket with one request per connection.
//!
//! The client sends one line, `Request`; the daemon answers with lines of `Answer`, the last of which is the
//! exit code, and at least one a second, so that neither side ever waits for a dead one. Whoever may open the
//! socket (0600, in a directory of 0700) may use the profile.

mod client;
mod server;
mod socket;

use serde::{Deserialize, Serialize};

use crate::output::Line;

pub use client::forward;
pub use server::{Clients, serve};
pub use socket::{DaemonSocket, connect};

/// The protocol's version; both sides are nearly always the same program.
const VERSION: u8 = 1;
/// The longest line: text from stdin, escaped as JSON at its worst.
const MAX_LINE_BYTES: u64 = 8 * 1024 * 1024;
/// The daemon says something at least this often.
const BEAT: std::time::Duration = std::time::Duration::from_secs(1);
/// Silence of the other side that is too long.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What a client asks: a command line, without the program's name.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    version: u8,
    args: Vec<String>,
    stdin: Option<String>,
}

/// What the daemon answers, line by line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// For stdout.
    Out(String),
    /// For stderr.
    Err(String),
    /// Still at it.
    Beat,
    /// The end.
    Exit(u8),
}

impl From<Line> for Answer {
    fn from(line: Line) -> Self {
        match line {
            Line::Out(text) => Self::Out(text),
            Line::Err(text) => Self::Err(text),
        }
    }
}
