//! What lets a relay that was killed and started again tell devices at once that their connections are gone.
//!
//! A stateless reset (RFC 9000 §10.3) is recognised only if connection ids and reset tokens come from keys that
//! outlive the process. They are derived from the certificate's key, one way; without them a device that was
//! connected would find out by its idle timeout only. This module must never let the key itself out.

use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use quinn_proto::{EndpointConfig, HashedConnectionIdGenerator};

/// The keys behind connection ids and reset tokens.
#[derive(Debug)]
pub(crate) struct ResetKeys {
    token: Key,
    connection_id: u64,
}

impl ResetKeys {
    /// Derives them from the relay's long-lived secret.
    pub(crate) fn derive(secret: &[u8]) -> Self {
        let secret = Key::new(HMAC_SHA256, secret);
        let token = sign(&secret, b"Mortise 1.0 stateless reset token");
        let id = sign(&secret, b"Mortise 1.0 connection id");
        let mut first = [0; 8];
        first.copy_from_slice(&id.as_ref()[..8]);
        Self {
            token: Key::new(HMAC_SHA256, token.as_ref()),
            connection_id: u64::from_be_bytes(first),
        }
    }

    /// The endpoint's configuration with these keys.
    pub(super) fn endpoint_config(self) -> EndpointConfig {
        let id = self.connection_id;
        let mut config = EndpointConfig::new(Arc::new(self.token));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id)));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next process must know the connections of the last one, and nobody else's.
    #[test]
    fn the_keys_come_from_the_secret_alone() {
        let token = |keys: &ResetKeys| sign(&keys.token, b"a connection id").as_ref().to_vec();
        let (first, second) = (ResetKeys::derive(b"one"), ResetKeys::derive(b"one"));
        assert_eq!(first.connection_id, second.connection_id);
        assert_eq!(token(&first), token(&second));
        let other = ResetKeys::derive(b"two");
        assert_ne!(first.connection_id, other.connection_id);
        assert_ne!(token(&first), token(&other));
    }
}
