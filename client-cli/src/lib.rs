//! The Mortise client library: everything of `mortise` but its `main`.
//!
//! Data goes one way: `command line or QUIC -> driver -> Engine::handle -> one transaction -> outputs`. The
//! engine decides; this crate owns what it must not know: files, sockets, the clock, the system's randomness.

pub mod app;
pub mod commands;
pub mod daemon;
pub mod database;
pub mod driver;
pub mod error;
pub mod exit;
pub mod keystore;
pub mod machine;
pub mod names;
pub mod output;
pub mod passphrase;
pub mod profile;
pub mod transport;
