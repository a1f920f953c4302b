//! The binary from outside, without a relay: exit codes, errors, the lock, the daemon.

mod daemon;
mod errors;
mod setting;
