//! Everything that tries to break Mortise: the simulated world, the demo, the benches and the checks of the house.

pub mod attack;
pub mod bench;
pub mod cluster;
pub mod crash;
pub mod demo;
pub mod fuzz;
pub mod history;
pub mod house;
pub mod mixed;
pub mod sim;
pub mod stage;
pub mod vectors;
pub mod villain;
pub mod world;
