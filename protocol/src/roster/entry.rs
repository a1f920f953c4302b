//! Roster entries on the wire: what is signed, by whom, and the exact bytes (REQ-011).
//!
//! [`SignedEntry::parse`] takes well-formed entries within the limits and nothing else; whether an
//! entry is *valid* is decided by `Roster::apply` alone.

use tls_codec::{Deserialize as _, TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use super::authority::Role;
use super::error::RosterError;
use super::policy::OrgPolicy;
use crate::identity::{
    self, DeviceId, GroupId, Hash, InvitationId, KeyError, OrgId, PublicKey, RosterSeq,
    SealPublicKey, SealSecret, SealedProfile, Signature, SigningKey, UserId,
};

/// The version of every entry that this program makes and takes.
pub const ENTRY_VERSION: u8 = 1;
/// The longest entry, signature included (REQ-026).
pub const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// The most operations in one entry (REQ-026).
pub const MAX_OPS: usize = 64;
/// The longest sealed profile (REQ-026).
pub const MAX_PROFILE_BYTES: usize = 1024;

const ENTRY_LABEL: &str = "roster entry";
const ENTRY_HASH_LABEL: &str = "roster entry hash";
const POSSESSION_LABEL: &str = "device possession";
const SIGNATURE_BYTES: usize = 64;

/// Where the chain ends: what the next entry must name (REQ-015).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Head {
    /// Seq of the newest entry; 0 before Genesis.
    pub seq: RosterSeq,
    /// Hash of the newest entry; 32 zero bytes before Genesis.
    pub hash: Hash,
}

impl Head {
    /// The head of the chain that has no entry yet.
    pub const EMPTY: Self = Self {
        seq: RosterSeq(0),
        hash: Hash([0; 32]),
    };
}

/// Whose key signs an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum EntrySigner {
    /// The organisation's root key: Genesis (REQ-024) and Recover (REQ-103).
    #[tls_codec(discriminant = 0x10)]
    Root,
    /// An admitted device, by its MLS signature key.
    #[tls_codec(discriminant = 0x20)]
    Device(DeviceId),
    /// An open invitation, by the key derived from its link: one AddDevice (REQ-022).
    #[tls_codec(discriminant = 0x30)]
    Invitation(InvitationId),
}

/// What founds an organisation (REQ-024).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Genesis {
    /// The organisation's root key; the organisation's id is its hash (REQ-010).
    pub root_key: PublicKey,
    /// The key by which the relay states what its logs hold.
    pub statement_key: PublicKey,
    /// The MLS ciphersuite of new groups.
    pub suite: u16,
    /// Hash of the directory key (REQ-031).
    pub directory_commitment: Hash,
}

/// A device's three keys, and a proof that each is held (REQ-013).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct AddDevice {
    /// Whose device it is.
    pub user: UserId,
    /// Its MLS leaf's signature key; the device's id is its hash (REQ-012).
    pub mls_signature_key: PublicKey,
    /// Its TLS raw public key.
    pub transport_key: PublicKey,
    /// The key that slots are sealed to.
    pub seal_key: SealPublicKey,
    /// Possession, by `mls_signature_key`.
    pub mls_proof: Signature,
    /// Possession, by `transport_key`.
    pub transport_proof: Signature,
    /// Possession, by the Edwards form of `seal_key`.
    pub seal_proof: Signature,
}

/// A new directory key (REQ-101).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct RotateDirectoryKey {
    /// Hash of the new key (REQ-031).
    pub commitment: Hash,
    /// The key before it, sealed under the new one; empty in a Recover entry alone, whose signer does not have it.
    pub predecessor: VLByteVec,
}

/// One change to the roster.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u16)]
#[expect(
    clippy::large_enum_variant,
    reason = "an entry holds at most 64 for a moment; callers read better without a Box"
)]
pub enum Op {
    /// Founds the organisation.
    #[tls_codec(discriminant = 0x0100)]
    Genesis(Genesis),
    /// Adds a person or bot, without a device.
    #[tls_codec(discriminant = 0x0200)]
    AddUser {
        /// A new id.
        user: UserId,
        /// The first role.
        role: Role,
        /// The name, sealed.
        profile: SealedProfile,
    },
    /// Replaces a sealed name.
    #[tls_codec(discriminant = 0x0210)]
    SetProfile {
        /// Whose.
        user: UserId,
        /// The name, sealed.
        profile: SealedProfile,
    },
    /// Gives a user another role.
    #[tls_codec(discriminant = 0x0220)]
    SetRole {
        /// Whose.
        user: UserId,
        /// The new role.
        role: Role,
    },
    /// Burns a user's devices until an invitation is redeemed (REQ-025).
    #[tls_codec(discriminant = 0x0230)]
    SuspendUser {
        /// Whom.
        user: UserId,
    },
    /// Removes a user and burns their devices, for ever.
    #[tls_codec(discriminant = 0x0240)]
    RemoveUser {
        /// Whom.
        user: UserId,
    },
    /// Says who inherits the groups whose last admin goes by the RemoveUser right after it (REQ-391).
    #[tls_codec(discriminant = 0x0250)]
    NameSuccessor {
        /// Who goes.
        user: UserId,
        /// Who inherits.
        successor: UserId,
    },
    /// Lets the holder of `key` add one device for `user` (REQ-022).
    #[tls_codec(discriminant = 0x0300)]
    Invite {
        /// A new id.
        invitation: InvitationId,
        /// For whom.
        user: UserId,
        /// The public half of the key derived from the link.
        key: PublicKey,
        /// From this time on it admits nobody; milliseconds since 1970.
        expires_at_ms: u64,
    },
    /// Takes an unredeemed invitation back.
    #[tls_codec(discriminant = 0x0310)]
    CancelInvite {
        /// Which.
        invitation: InvitationId,
    },
    /// Admits a device.
    #[tls_codec(discriminant = 0x0400)]
    AddDevice(AddDevice),
    /// Burns one device.
    #[tls_codec(discriminant = 0x0410)]
    RevokeDevice {
        /// Which.
        device: DeviceId,
    },
    /// Replaces the organisation's policy (REQ-100).
    #[tls_codec(discriminant = 0x0500)]
    SetPolicy(OrgPolicy),
    /// Names a new directory key (REQ-101).
    #[tls_codec(discriminant = 0x0510)]
    RotateDirectoryKey(RotateDirectoryKey),
    /// Ends a group that its own members cannot free (REQ-102).
    #[tls_codec(discriminant = 0x0600)]
    CloseGroup {
        /// Which.
        group: GroupId,
    },
    /// Says that an entry of the root key restores an owner (REQ-103).
    #[tls_codec(discriminant = 0x0700)]
    Recover,
}

impl Op {
    /// Whether an entry with this operation is an order (REQ-019).
    #[must_use]
    pub fn is_order(&self) -> bool {
        matches!(
            self,
            Self::SuspendUser { .. } | Self::RemoveUser { .. } | Self::RevokeDevice { .. }
        )
    }
}

/// Everything in an entry that its signature covers.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct EntryTbs {
    /// [`ENTRY_VERSION`].
    pub version: u8,
    /// The organisation.
    pub org: OrgId,
    /// One more than the entry before; Genesis is 1.
    pub seq: RosterSeq,
    /// Hash of the entry before; 32 zero bytes in Genesis.
    pub prev_hash: Hash,
    /// When the signer says it was made; milliseconds since 1970.
    pub issued_at_ms: u64,
    /// Whose key signs.
    pub signer: EntrySigner,
    /// The changes, made in this order, all or none.
    pub ops: Vec<Op>,
}

/// An entry as it travels.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct RosterEntry {
    /// What is signed.
    pub tbs: EntryTbs,
    /// By the key that `tbs.signer` names, over the exact bytes of `tbs`.
    pub signature: Signature,
}

/// A well-formed entry within the limits, with its exact bytes; its signature is not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedEntry {
    entry: RosterEntry,
    bytes: Vec<u8>,
    hash: Hash,
}

impl SignedEntry {
    /// Reads an entry; refuses oversize, unknown, non-canonical and trailing bytes (REQ-011, REQ-026).
    ///
    /// # Errors
    /// [`RosterError::TooLarge`], `WrongVersion`, `Malformed`, `UnknownOp`, `NoOps`, `TooManyOps`,
    /// `ProfileTooLarge`.
    pub fn parse(bytes: &[u8]) -> Result<Self, RosterError> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(RosterError::TooLarge { bytes: bytes.len() });
        }
        match bytes.first() {
            Some(&version) if version != ENTRY_VERSION => {
                return Err(RosterError::WrongVersion { version });
            }
            _ => {}
        }
        let entry = RosterEntry::tls_deserialize_exact(bytes).map_err(decode_error)?;
        check_limits(&entry.tbs.ops)?;
        Ok(Self {
            entry,
            bytes: bytes.to_vec(),
            hash: entry_hash(bytes),
        })
    }

    /// What the entry says.
    #[must_use]
    pub fn tbs(&self) -> &EntryTbs {
        &self.entry.tbs
    }

    /// The entry, decoded.
    #[must_use]
    pub fn entry(&self) -> &RosterEntry {
        &self.entry
    }

    /// The entry's exact bytes: what is stored, sent and hashed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The entry's exact bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What the next entry names as `prev_hash`.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The head of a chain that ends with this entry.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            seq: self.entry.tbs.seq,
            hash: self.hash,
        }
    }

    /// Checks the signature over the exact bytes before it (REQ-011).
    pub(super) fn verify(&self, key: &PublicKey) -> Result<(), RosterError> {
        let tbs = &self.bytes[..self.bytes.len() - SIGNATURE_BYTES];
        key.verify(ENTRY_LABEL, tbs, &self.entry.signature)
            .map_err(|_| RosterError::BadSignature)
    }
}

/// Makes and signs the entry that follows `head`.
///
/// It checks nothing: an entry that breaks a rule is refused where it is applied.
#[must_use]
pub fn sign_entry(
    org: OrgId,
    head: Head,
    issued_at_ms: u64,
    signer: EntrySigner,
    key: &SigningKey,
    ops: Vec<Op>,
) -> SignedEntry {
    let tbs = EntryTbs {
        version: ENTRY_VERSION,
        org,
        seq: head.seq.next(),
        prev_hash: head.hash,
        issued_at_ms,
        signer,
        ops,
    };
    sign_tbs(tbs, key)
}

/// Signs what it is given, whatever it says.
pub(super) fn sign_tbs(tbs: EntryTbs, key: &SigningKey) -> SignedEntry {
    let signature = key.sign(ENTRY_LABEL, &identity::encode(&tbs));
    let entry = RosterEntry { tbs, signature };
    let bytes = identity::encode(&entry);
    SignedEntry {
        hash: entry_hash(&bytes),
        entry,
        bytes,
    }
}

impl AddDevice {
    /// Names a new device's keys and proves that each is held (REQ-013).
    #[must_use]
    pub fn sign(
        org: OrgId,
        user: UserId,
        mls: &SigningKey,
        transport: &SigningKey,
        seal: &SealSecret,
    ) -> Self {
        let claim = Possession {
            org,
            user,
            mls_signature_key: mls.public(),
            transport_key: transport.public(),
            seal_key: seal.public(),
        };
        let content = identity::encode(&claim);
        Self {
            user,
            mls_signature_key: claim.mls_signature_key,
            transport_key: claim.transport_key,
            seal_key: claim.seal_key,
            mls_proof: mls.sign(POSSESSION_LABEL, &content),
            transport_proof: transport.sign(POSSESSION_LABEL, &content),
            seal_proof: seal.proving_key().sign(POSSESSION_LABEL, &content),
        }
    }

    /// The id of this device (REQ-012).
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.mls_signature_key.device_id()
    }

    /// Checks the three proofs (REQ-013).
    pub(super) fn verify(&self, org: OrgId) -> Result<(), KeyError> {
        let content = identity::encode(&Possession {
            org,
            user: self.user,
            mls_signature_key: self.mls_signature_key,
            transport_key: self.transport_key,
            seal_key: self.seal_key,
        });
        [
            (&self.mls_signature_key, &self.mls_proof),
            (&self.transport_key, &self.transport_proof),
            (&self.seal_key.0, &self.seal_proof),
        ]
        .into_iter()
        .try_for_each(|(key, proof)| key.verify(POSSESSION_LABEL, &content, proof))
    }
}

/// What the three keys of a device sign. No seq: the proof outlives a lost compare-and-swap.
#[derive(TlsSerialize, TlsSize)]
struct Possession {
    org: OrgId,
    user: UserId,
    mls_signature_key: PublicKey,
    transport_key: PublicKey,
    seal_key: SealPublicKey,
}

fn entry_hash(bytes: &[u8]) -> Hash {
    identity::hash(ENTRY_HASH_LABEL, bytes)
}

fn decode_error(error: tls_codec::Error) -> RosterError {
    match error {
        tls_codec::Error::UnknownValue(value) => match u16::try_from(value) {
            Ok(op) if op >= 0x0100 => RosterError::UnknownOp { op },
            _ => RosterError::Malformed(error),
        },
        _ => RosterError::Malformed(error),
    }
}

fn check_limits(ops: &[Op]) -> Result<(), RosterError> {
    if ops.is_empty() {
        return Err(RosterError::NoOps);
    }
    if ops.len() > MAX_OPS {
        return Err(RosterError::TooManyOps { ops: ops.len() });
    }
    for op in ops {
        if let Op::AddUser { profile, .. } | Op::SetProfile { profile, .. } = op {
            let bytes = profile.0.as_slice().len();
            if bytes > MAX_PROFILE_BYTES {
                return Err(RosterError::ProfileTooLarge { bytes });
            }
        }
    }
    Ok(())
}
