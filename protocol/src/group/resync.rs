//! A leaf that wants to be let in anew says so itself, in an extension that its device has signed (REQ-156).

use openmls::prelude::{Extension, Extensions, LeafNode, UnknownExtension};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

use crate::identity::{GroupId, Hash, decode, encode};

/// The LeafNode extension type of a resync, of the private-use range (RFC 9420 §17.3) (REQ-156).
pub const RESYNC_EXTENSION: u16 = 0xF0A2;

/// What a device asks of a group with the leaf of a fresh KeyPackage (REQ-156).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Resync {
    /// Always 1.
    version: u8,
    /// The group.
    pub group: GroupId,
    /// The opening entry of the last epoch that the device holds.
    pub entry_hash: Hash,
    /// The device's clock, ms since 1970: later than in the leaf that it replaces, so that no question counts twice.
    pub asked_at_ms: u64,
}

impl Resync {
    /// A question to this group.
    #[must_use]
    pub fn new(group: GroupId, entry_hash: Hash, asked_at_ms: u64) -> Self {
        Self {
            version: 1,
            group,
            entry_hash,
            asked_at_ms,
        }
    }

    pub(super) fn extensions(&self) -> Option<Extensions<LeafNode>> {
        let extension = Extension::Unknown(RESYNC_EXTENSION, UnknownExtension(encode(self)));
        Extensions::from_vec(vec![extension]).ok()
    }

    pub(super) fn read(leaf: &LeafNode) -> Option<Self> {
        let extension = leaf.extensions().unknown(RESYNC_EXTENSION)?;
        let this: Self = decode(&extension.0).ok()?;
        (this.version == 1).then_some(this)
    }
}
