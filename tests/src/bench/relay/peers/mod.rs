//! Others that store and forward, with durability on: installed, started and spoken to by the bench itself.

mod client;
mod install;
mod nats;
mod redis;
mod server;
mod tls;

pub(super) use nats::Nats;
pub(super) use redis::Redis;
