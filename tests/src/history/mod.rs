//! Recorded histories, and a checker that says whether a relay that does what it promises could have made them.
//!
//! A [`History`] holds what clients asked and were told, and when, seen from their side, and what the logs and the
//! roster hold in the end. It says nothing of how many nodes the relay has. [`check`] is a pure function of it: the
//! fence (REQ-060), the append rule (REQ-055) and a linearizability check of appends, commits, orders and reads.
//! [`Recorder`] writes one down in the simulated world; [`fire`] is the world that is recorded.

mod check;
pub mod fire;
mod linear;
mod reads;
pub(crate) mod record;
mod recorder;
mod rules;
mod value;

#[cfg(test)]
mod tests;

pub use check::{Fault, Rule, Tally, check};
pub use recorder::Recorder;
pub use value::{
    Call, Delivery, FinalRecord, History, Judgement, Kind, Question, Reply, RosterRow,
};
