//! What a group agrees on about itself, inside its GroupContext.

use openmls::prelude::{
    Extension, ExtensionType, Extensions, GroupContext, RequiredCapabilitiesExtension,
    UnknownExtension,
};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use crate::identity::{Epoch, GroupId, Hash, UserId, decode, encode};

/// The GroupContext extension type of the group policy, of the private-use range (RFC 9420 §17.3) (REQ-094).
pub const GROUP_POLICY_EXTENSION: u16 = 0xF0A1;

/// The longest group name, bytes of UTF-8.
pub(super) const MAX_GROUP_NAME_BYTES: usize = 256;

/// The group's name and admins: agreed by the transcript, never seen by the relay (REQ-094).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Shown to members.
    pub name: String,
    /// Users who may change the policy and remove members.
    pub admins: Vec<UserId>,
    /// What the group continues; never changes (REQ-153).
    pub predecessor: Option<Predecessor>,
}

/// The last good epoch of the group that a successor continues (REQ-153).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Predecessor {
    /// The group.
    pub group: GroupId,
    /// Its last good epoch.
    pub epoch: Epoch,
    /// That epoch's opening entry.
    pub entry_hash: Hash,
}

#[derive(TlsSerialize, TlsDeserialize, TlsSize)]
struct PolicyBody {
    version: u8,
    name: VLByteVec,
    admins: Vec<UserId>,
    /// At most one.
    predecessor: Vec<Predecessor>,
}

impl GroupPolicy {
    /// The extension's content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&PolicyBody {
            version: 1,
            name: self.name.as_bytes().to_vec().into(),
            admins: self.admins.clone(),
            predecessor: self.predecessor.into_iter().collect(),
        })
    }

    /// Reads the extension's content; `None` when it is not of version 1.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let body: PolicyBody = decode(bytes).ok()?;
        if body.version != 1
            || body.predecessor.len() > 1
            || body.name.as_slice().len() > MAX_GROUP_NAME_BYTES
        {
            return None;
        }
        Some(Self {
            name: String::from_utf8(body.name.into()).ok()?,
            admins: body.admins,
            predecessor: body.predecessor.first().copied(),
        })
    }

    /// Whether this user is a group admin.
    #[must_use]
    pub fn is_admin(&self, user: UserId) -> bool {
        self.admins.contains(&user)
    }

    pub(super) fn read(extensions: &Extensions<GroupContext>) -> Option<Self> {
        Self::from_bytes(&extensions.unknown(GROUP_POLICY_EXTENSION)?.0)
    }

    pub(super) fn extensions(&self) -> Option<Extensions<GroupContext>> {
        let required = RequiredCapabilitiesExtension::new(
            &[ExtensionType::Unknown(GROUP_POLICY_EXTENSION)],
            &[],
            &[],
        );
        Extensions::from_vec(vec![
            Extension::RequiredCapabilities(required),
            Extension::Unknown(GROUP_POLICY_EXTENSION, UnknownExtension(self.to_bytes())),
        ])
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-094: the policy reads back, and a later version or a truncated one is not taken for this one.
    #[test]
    fn a_policy_reads_back() {
        let policy = GroupPolicy {
            name: "Entwürfe".into(),
            admins: vec![UserId([1; 16])],
            predecessor: Some(Predecessor {
                group: GroupId([2; 32]),
                epoch: Epoch(3),
                entry_hash: Hash([4; 32]),
            }),
        };
        let bytes = policy.to_bytes();
        assert_eq!(GroupPolicy::from_bytes(&bytes), Some(policy));
        assert_eq!(GroupPolicy::from_bytes(&bytes[..bytes.len() - 1]), None);
        let mut later = bytes;
        later[0] = 2;
        assert_eq!(GroupPolicy::from_bytes(&later), None);
    }
}
