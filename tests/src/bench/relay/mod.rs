//! The relay under load, beside others that store and forward: `./x bench firehose`, `rooms`, `latency`, `idle`,
//! `append`,
//! `catchup-relay`, `recover`, `cluster`.
//!
//! Every system runs as a process of its own on this machine, gets the same records over the same number of
//! connections, and takes its turns in the order A B B A. What makes a comparison unfair is in the notes.

mod bare;
mod catchup;
mod compare;
mod disk;
mod idle;
mod member;
mod nodes;
mod ours;
mod peers;
mod plan;
mod recover;
mod system;

pub use catchup::catchup;
pub use compare::{Options, firehose, latency, rooms};
pub use disk::append;
pub use idle::idle;
pub use nodes::{ClusterOptions, cluster};
pub use recover::recover;
