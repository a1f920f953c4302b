//! End to end: the real binaries, over real QUIC on the loopback, without a terminal.
//!
//! `cargo build --workspace --bins` comes first; `./x test` does it.

mod certificate;
mod crash;
mod disk;
mod errors;
mod forged;
mod groups;
mod links;
mod offboard;
mod organisation;
mod people;
mod repair;
