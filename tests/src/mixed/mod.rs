//! Another MLS stack in our groups: devices whose MLS is mls-rs, beside devices of the product, on a real relay.
//!
//! The other stack's device speaks the wire protocol by codecs of `mortise-protocol`; what it does with them is written
//! from the specification alone. It must never use the product's engine, nor anything of `mortise_protocol::group` but
//! the form of the policy and of the credential.

mod actor;
mod crypto;
mod device;
mod group;
mod log;
mod peer;
mod rules;
pub mod scenario;
pub mod script;
mod stack;
mod turn;
mod view;
mod world;

pub use actor::{Manner, OtherDevice};
pub use crypto::OneSuite;
pub use group::{CommandId, Standing, Wish};
pub use peer::OurDevice;
pub use view::{GroupLook, Line, View};
pub use world::{Member, PATIENCE, Stack, World};
