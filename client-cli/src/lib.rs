//! The Mortise client library.
