//! The Mortise relay.

pub mod core;
