//! Claim links: what the operator hands to whoever may found an organisation here, once (REQ-024).

use std::io;

use mortise_protocol::identity::{ClaimLink, Hash, InvitationSecret, PublicKey, sha256};
use rand::TryRngCore as _;
use rand::rngs::OsRng;

/// Writes claim links for one relay. Holds no secret; a link does, and is kept by nobody here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimIssuer {
    /// `host:port` for devices.
    pub relay: String,
    /// What devices pin.
    pub relay_key: Hash,
    /// The public half of the key that the relay signs statements with.
    pub statement_key: PublicKey,
}

impl ClaimIssuer {
    /// A link with a fresh token.
    ///
    /// # Errors
    /// [`io::Error`] when the system gives no randomness.
    pub fn issue(&self) -> io::Result<ClaimLink> {
        // Asked once beforehand: what draws next would panic where there is none.
        OsRng.try_next_u32().map_err(io::Error::other)?;
        Ok(ClaimLink {
            relay: self.relay.clone(),
            relay_key: self.relay_key,
            statement_key: self.statement_key,
            token: InvitationSecret::random(&mut OsRng.unwrap_err()),
        })
    }
}

/// What the store keeps of a link.
#[must_use]
pub fn token_hash(link: &ClaimLink) -> Hash {
    sha256(link.token.dangerous_bytes())
}
