//! Groups on MLS (RFC 9420): the only part of the protocol that talks to openmls.
//!
//! openmls writes while it works, so whoever uses it here opens a [`Tx`](crate::store::Tx), builds a
//! [`storage::MlsProvider`] over it and drops the in-memory group whenever the transaction is not committed.
//! No other module may name an openmls type.

pub mod storage;
