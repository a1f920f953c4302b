//! What an MLS leaf says about who it is.

use openmls::prelude::{BasicCredential, Credential, CredentialWithKey};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

use super::Me;
use crate::identity::{DeviceId, OrgId, UserId, decode, encode};

/// The version that this program writes and accepts.
pub const CREDENTIAL_VERSION: u8 = 1;

/// The content of the basic credential of every leaf (REQ-080). No name is in it: KeyPackages pass the relay in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct DeviceCredential {
    /// [`CREDENTIAL_VERSION`].
    pub version: u8,
    /// The organisation.
    pub org: OrgId,
    /// Whose device.
    pub user: UserId,
    /// Which device.
    pub device: DeviceId,
}

impl DeviceCredential {
    /// Reads a leaf's credential; `None` when it is not of this form.
    #[must_use]
    pub fn read(credential: &Credential) -> Option<Self> {
        let basic = BasicCredential::try_from(credential.clone()).ok()?;
        Self::parse(basic.identity())
    }

    /// Reads the identity of a basic credential; `None` when it is not of this form.
    #[must_use]
    pub fn parse(identity: &[u8]) -> Option<Self> {
        let this: Self = decode(identity).ok()?;
        (this.version == CREDENTIAL_VERSION).then_some(this)
    }
}

impl Me<'_> {
    pub(super) fn credential(&self) -> CredentialWithKey {
        let content = encode(&DeviceCredential {
            version: CREDENTIAL_VERSION,
            org: self.org,
            user: self.user,
            device: self.device,
        });
        CredentialWithKey {
            credential: BasicCredential::new(content).into(),
            signature_key: self.key.public().0.to_vec().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SigningKey;

    /// REQ-080: the credential holds ids and nothing else, and reads back.
    #[test]
    fn a_credential_reads_back() {
        let key = SigningKey::from_seed(&[1; 32]);
        let me = Me {
            org: OrgId([1; 32]),
            user: UserId([2; 16]),
            device: key.public().device_id(),
            key: &key,
        };
        let with_key = me.credential();
        let read = DeviceCredential::read(&with_key.credential).expect("ours");
        assert_eq!(
            (read.org, read.user, read.device),
            (me.org, me.user, me.device)
        );
        let other = BasicCredential::new(b"Ann".to_vec()).into();
        assert_eq!(DeviceCredential::read(&other), None);
    }
}
