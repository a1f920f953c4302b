//! Who is who: identifiers, keys, labelled signatures and hashes, safety numbers.
//!
//! The dalek and HPKE crates are confined to this module. It must never print or serialise a secret
//! key, and never draw randomness itself; what `hpke-rs` draws is a documented exception.

mod ed25519;
mod ids;
mod invitation;
mod keys;
#[cfg(feature = "simulation")]
mod memo;
mod seal;

pub(crate) use ed25519::verify_strict;
pub use ids::{
    DeviceId, Epoch, GroupId, Hash, InvitationId, LogSeq, OrgId, OrgRootFingerprint, RosterSeq,
    UserId,
};
pub use invitation::{
    ClaimLink, InvitationSecret, JoinLink, LinkError, Pin, PinError, derive_invitation_key,
};
pub use keys::{KeyError, PublicKey, SealPublicKey, SealSecret, Signature, SigningKey};
pub use seal::{
    DirectoryKey, SealError, Sealed, SealedProfile, Slot, WRAPPED_KEY_BYTES, open_sealed,
    open_slot, seal_slot, seal_to,
};

use sha2::{Digest, Sha256};
use tls_codec::{Serialize, TlsSerialize, TlsSize, VLByteSlice};

/// What every label of ours begins with, so that no signature or hash of ours is one of MLS's (REQ-001).
pub const LABEL_PREFIX: &str = "Mortise 1.0 ";

#[derive(TlsSerialize, TlsSize)]
struct Labelled<'a> {
    label: VLByteSlice<'a>,
    content: VLByteSlice<'a>,
}

/// The bytes that are signed or hashed for `label`: `opaque label<V>; opaque content<V>` (REQ-001).
#[must_use]
pub fn labelled(label: &str, content: &[u8]) -> Vec<u8> {
    let label = format!("{LABEL_PREFIX}{label}");
    encode(&Labelled {
        label: VLByteSlice(label.as_bytes()),
        content: VLByteSlice(content),
    })
}

/// SHA-256 over the labelled content.
#[must_use]
pub fn hash(label: &str, content: &[u8]) -> Hash {
    Hash(Sha256::digest(labelled(label, content)).into())
}

/// SHA-256 of `content` as it is, for record ids.
#[must_use]
pub fn sha256(content: &[u8]) -> Hash {
    Hash(Sha256::digest(content).into())
}

/// The canonical bytes of a value in the TLS presentation language.
///
/// # Panics
/// Never for values within the limits of `wire::limits`: writing into memory cannot fail, and only a
/// vector of 2^30 bytes or more has no encoding.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    value
        .tls_serialize_detached()
        .expect("writing into memory fails only for vectors of 2^30 bytes, which no limit admits")
}

/// Decodes a value and refuses trailing bytes (REQ-003).
///
/// # Errors
/// What `tls_codec` says: truncated, non-canonical, unknown value or trailing data.
pub fn decode<T: tls_codec::Deserialize>(bytes: &[u8]) -> Result<T, tls_codec::Error> {
    T::tls_deserialize_exact(bytes)
}

/// The number that two people compare aloud: 60 decimal digits over both users' device keys, in an order that both compute (REQ-018).
///
/// `a` and `b` are `(user, signature keys of the admitted devices)`.
#[must_use]
pub fn safety_number(a: (UserId, &[PublicKey]), b: (UserId, &[PublicKey])) -> String {
    let side = |(user, keys): (UserId, &[PublicKey])| {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        let mut content = user.0.to_vec();
        keys.iter().for_each(|k| content.extend_from_slice(&k.0));
        hash("safety number", &content).0
    };
    let (mut left, mut right) = (side(a), side(b));
    if left > right {
        std::mem::swap(&mut left, &mut right);
    }
    let digits = |half: &[u8; 32]| -> Vec<String> {
        half.chunks_exact(5)
            .map(|c| {
                let n = c.iter().fold(0_u64, |n, b| (n << 8) | u64::from(*b));
                format!("{:05}", n % 100_000)
            })
            .collect()
    };
    [digits(&left), digits(&right)].concat().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safety_number_is_the_same_for_both_and_changes_with_a_key() {
        let (a, b) = (UserId([1; 16]), UserId([2; 16]));
        let (ka, kb, kc) = (
            [PublicKey([3; 32])],
            [PublicKey([4; 32])],
            [PublicKey([5; 32])],
        );
        let number = safety_number((a, &ka), (b, &kb));
        assert_eq!(number, safety_number((b, &kb), (a, &ka)));
        assert_ne!(number, safety_number((a, &ka), (b, &kc)));
        assert_eq!(number.len(), 12 * 5 + 11);
    }

    /// REQ-003: nothing may follow a value.
    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(decode::<u16>(&[0, 1]), Ok(1));
        assert_eq!(
            decode::<u16>(&[0, 1, 2]),
            Err(tls_codec::Error::TrailingData)
        );
    }
}
