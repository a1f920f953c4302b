//! The Mortise relay.
