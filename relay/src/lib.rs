//! The Mortise relay: orders, stores and forwards opaque messages; an MLS delivery service (RFC 9750) over QUIC.
//!
//! [`core`] decides, [`net`] carries, [`store`] keeps, [`admin`] shows, [`cluster`] makes one relay of several nodes.
//! [`Relay::start`] puts them together.

pub mod admin;
pub mod backup;
pub mod claim;
pub mod cluster;
pub mod config;
pub mod core;
pub mod data_dir;
pub mod net;
mod relay;
pub mod store;

pub use relay::{Relay, RelayConfig, RelayError, RunningRelay};
