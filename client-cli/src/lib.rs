//! The Mortise client library.

pub mod transport;
