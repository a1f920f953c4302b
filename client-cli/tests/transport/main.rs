//! The transport against a real relay: QUIC over loopback, port 0, no sleeps.

mod fixture;
mod frames;
mod handshake;
mod lifetime;
