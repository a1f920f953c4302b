//! openmls's own known-answer tests, callable one case at a time.
//!
//! The code is openmls's (see `build.rs`); only [`run`] is ours. It is a second copy of openmls, and a program that
//! has it must never be delivered.

// Lints are for our code, and the code below is not.
#![allow(warnings, clippy::all)]

extern crate self as openmls;

include!(concat!(env!("OUT_DIR"), "/openmls/lib.rs"));

mod doors;
pub use doors::run;
