//! Identifiers and counters as newtypes.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use serde::{Deserialize, Serialize};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            TlsSerialize, TlsDeserialize, TlsSize,
        )]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEX.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}…)", stringify!($name), HEX.encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = &'static str;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                HEX.decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or(concat!("not ", $len, " bytes of hex"))
            }
        }

        impl $name {
            /// Draws a random identifier.
            pub fn random(rng: &mut dyn rand::RngCore) -> Self {
                let mut bytes = [0; $len];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }
        }
    };
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize, TlsSerialize, TlsDeserialize, TlsSize,
        )]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
    };
}

bytes_id!(
    /// An organisation: the hash of its root key, so that the id vouches for the key (REQ-010).
    OrgId, 32
);
/// What `--root FINGERPRINT` takes is the organisation's id itself.
pub type OrgRootFingerprint = OrgId;
bytes_id!(
    /// A person or bot; random, and the only thing the relay knows them by.
    UserId, 16
);
bytes_id!(
    /// A device: the first half of the hash of its MLS signature key (REQ-012).
    DeviceId, 16
);
bytes_id!(
    /// An MLS group; random, 32 bytes.
    GroupId, 32
);
bytes_id!(
    /// An invitation; random, and the salt of its key.
    InvitationId, 16
);
bytes_id!(
    /// A SHA-256 value.
    Hash, 32
);
counter!(
    /// Position of an entry in the roster; Genesis is 1.
    RosterSeq
);
counter!(
    /// An MLS epoch.
    Epoch
);
counter!(
    /// Position of a record in a group's log; the record that creates the group is 1.
    LogSeq
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print_and_refuse_the_rest() {
        let id = UserId([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("07".parse::<UserId>().is_err());
        assert!("x".repeat(32).parse::<UserId>().is_err());
    }
}
