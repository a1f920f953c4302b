//! Everything that tries to break Mortise: the simulated world and the checks of the house.

pub mod house;
pub mod sim;
pub mod world;
