//! Everything that tries to break Mortise, and the checks of its own house.

pub mod house;
