//! The Mortise protocol: a sans-IO core for end-to-end encrypted group messaging on MLS (RFC 9420).
//!
//! This crate must never know sockets, files, a clock or the operating system's randomness: time and
//! randomness are arguments. The two documented exceptions come with openmls (see `ARCHITECTURE.md`).

pub mod certificate;
pub mod content;
pub mod engine;
pub mod group;
pub mod identity;
pub mod roster;
pub mod store;
pub mod wire;
