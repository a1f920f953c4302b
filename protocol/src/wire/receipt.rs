//! Receipts: a member's statement about the keys of a group after an order, sealed to owners and auditors (REQ-174,
//! REQ-175).
//!
//! The relay carries them and cannot read them.

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use super::limits;
use super::log::Verdict;
use crate::identity::{
    DeviceId, Epoch, GroupId, Hash, KeyError, OrgId, PublicKey, RosterSeq, SealError,
    SealPublicKey, SealSecret, Sealed, Signature, SigningKey, decode, encode, open_sealed, seal_to,
};

const LABEL: &str = "receipt";

/// What a member found in a group after an order, with the hashes that pin the group's state (RFC 9420, section 8.1).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct ReceiptStatement {
    /// The organisation.
    pub org: OrgId,
    /// The order's seq in the roster.
    pub order_seq: RosterSeq,
    /// The order's entry hash.
    pub order_hash: Hash,
    /// The group.
    pub group: GroupId,
    /// The epoch that the device looked at.
    pub epoch: Epoch,
    /// Its opening entry.
    pub entry_hash: Hash,
    /// The GroupContext's tree_hash of that epoch.
    pub tree_hash: VLByteVec,
    /// The GroupContext's confirmed_transcript_hash of that epoch.
    pub confirmed_transcript_hash: VLByteVec,
    /// That the tree holds no leaf of any device that the order named, and how that came about.
    pub verdict: Verdict,
    /// The root of the [`super::OrderSet`] that the relay has shown this device.
    pub set_root: Hash,
    /// Who says so.
    pub device: DeviceId,
    /// The device's clock, ms since 1970.
    pub at_ms: u64,
}

/// A [`ReceiptStatement`] with its device's signature, label `receipt`.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Receipt {
    /// What is stated.
    pub statement: ReceiptStatement,
    /// By the device's MLS signature key.
    pub signature: Signature,
}

impl Receipt {
    /// Signs a statement.
    #[must_use]
    pub fn sign(statement: ReceiptStatement, device_key: &SigningKey) -> Self {
        let signature = device_key.sign(LABEL, &encode(&statement));
        Self {
            statement,
            signature,
        }
    }

    /// Checks the signature with the device's key from the roster.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(&self, device: &PublicKey) -> Result<(), KeyError> {
        device.verify(LABEL, &encode(&self.statement), &self.signature)
    }
}

/// Which receipt a sealed one is; part of what HPKE is bound to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, TlsSerialize, TlsDeserialize, TlsSize,
)]
pub struct ReceiptId {
    /// The order.
    pub order: RosterSeq,
    /// The group.
    pub group: GroupId,
    /// Who signed it.
    pub device: DeviceId,
}

impl ReceiptId {
    /// HPKE's info: a receipt opens for one organisation, order, group, signer and recipient.
    fn info(&self, org: OrgId, recipient: DeviceId) -> Vec<u8> {
        #[derive(TlsSerialize, TlsSize)]
        struct Info {
            label: VLByteVec,
            org: OrgId,
            id: ReceiptId,
            recipient: DeviceId,
        }
        encode(&Info {
            label: b"Mortise 1.0 receipt".to_vec().into(),
            org,
            id: *self,
            recipient,
        })
    }
}

/// A receipt for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct ReceiptFor {
    /// Who can open it.
    pub recipient: DeviceId,
    /// HPKE over the encoded [`Receipt`].
    pub sealed: Sealed,
}

/// A receipt on its way to owners and auditors.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct SealedReceipt {
    /// Which.
    pub id: ReceiptId,
    /// One for each recipient.
    pub copies: Vec<ReceiptFor>,
}

impl SealedReceipt {
    /// Seals a receipt to each recipient; one whose key is unusable is left out.
    #[must_use]
    pub fn seal(receipt: &Receipt, recipients: &[(DeviceId, SealPublicKey)]) -> Self {
        let statement = &receipt.statement;
        let id = ReceiptId {
            order: statement.order_seq,
            group: statement.group,
            device: statement.device,
        };
        let plain = encode(receipt);
        let copies = recipients
            .iter()
            .take(limits::MAX_RECEIPT_COPIES)
            .filter_map(|(recipient, key)| {
                let sealed = seal_to(*key, &id.info(statement.org, *recipient), &plain).ok()?;
                Some(ReceiptFor {
                    recipient: *recipient,
                    sealed,
                })
            });
        Self {
            id,
            copies: copies.collect(),
        }
    }

    /// Whether it is within the limits (REQ-040).
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        let fits = |copy: &ReceiptFor| copy.sealed.len() <= limits::MAX_RECEIPT_BYTES;
        self.copies.len() <= limits::MAX_RECEIPT_COPIES && self.copies.iter().all(fits)
    }
}

/// Opens a receipt; it must be the one that `id` names.
///
/// # Errors
/// [`SealError::DoesNotOpen`]; whose signature it bears is still to be checked.
pub fn open_receipt(
    org: OrgId,
    id: ReceiptId,
    copy: &ReceiptFor,
    secret: &SealSecret,
) -> Result<Receipt, SealError> {
    let plain = open_sealed(secret, &id.info(org, copy.recipient), &copy.sealed)?;
    let receipt: Receipt = decode(&plain).map_err(|_| SealError::DoesNotOpen)?;
    let said = &receipt.statement;
    let same =
        (said.org, said.order_seq, said.group, said.device) == (org, id.order, id.group, id.device);
    if same {
        Ok(receipt)
    } else {
        Err(SealError::DoesNotOpen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORG: OrgId = OrgId([1; 32]);

    fn receipt(key: &SigningKey) -> Receipt {
        let statement = ReceiptStatement {
            org: ORG,
            order_seq: RosterSeq(4),
            order_hash: Hash([2; 32]),
            group: GroupId([3; 32]),
            epoch: Epoch(5),
            entry_hash: Hash([4; 32]),
            tree_hash: vec![5; 32].into(),
            confirmed_transcript_hash: vec![6; 32].into(),
            verdict: Verdict::Rotated,
            set_root: Hash([7; 32]),
            device: key.public().device_id(),
            at_ms: 8,
        };
        Receipt::sign(statement, key)
    }

    /// REQ-174: the signature covers the whole statement.
    #[test]
    fn a_changed_receipt_does_not_verify() {
        let key = SigningKey::from_seed(&[1; 32]);
        let good = receipt(&key);
        assert_eq!(good.verify(&key.public()), Ok(()));
        let mut changed = good;
        changed.statement.epoch = Epoch(6);
        assert!(changed.verify(&key.public()).is_err());
    }

    /// REQ-175: only a recipient opens a receipt, and only as the one that it is.
    #[test]
    fn a_receipt_opens_for_its_recipients_only() {
        let key = SigningKey::from_seed(&[1; 32]);
        let good = receipt(&key);
        let secrets = [2, 3, 4].map(|n| SealSecret::new(SigningKey::from_seed(&[n; 32])));
        let devices = [2, 3].map(|n| DeviceId([n; 16]));
        let to = [
            (devices[0], secrets[0].public()),
            (devices[1], secrets[1].public()),
        ];
        let sealed = SealedReceipt::seal(&good, &to);
        assert!(sealed.is_within_limits());
        let [first, second] = &sealed.copies[..] else {
            panic!("two copies");
        };
        assert_eq!(
            open_receipt(ORG, sealed.id, first, &secrets[0]).as_ref(),
            Ok(&good)
        );
        assert_eq!(open_receipt(ORG, sealed.id, second, &secrets[1]), Ok(good));
        assert!(open_receipt(ORG, sealed.id, first, &secrets[1]).is_err());
        assert!(open_receipt(ORG, sealed.id, first, &secrets[2]).is_err());
        assert!(open_receipt(OrgId([9; 32]), sealed.id, first, &secrets[0]).is_err());
        let other = ReceiptId {
            order: RosterSeq(5),
            ..sealed.id
        };
        assert!(open_receipt(ORG, other, first, &secrets[0]).is_err());
    }

    /// REQ-040, REQ-175: at the limit it is taken, above it not.
    #[test]
    fn copies_are_bounded() {
        let copy = |bytes: usize| ReceiptFor {
            recipient: DeviceId([1; 16]),
            sealed: Sealed {
                enc: vec![0; 32].into(),
                ciphertext: vec![0; bytes - 32].into(),
            },
        };
        let id = ReceiptId {
            order: RosterSeq(1),
            group: GroupId([1; 32]),
            device: DeviceId([1; 16]),
        };
        let sealed = |count: usize, bytes: usize| SealedReceipt {
            id,
            copies: vec![copy(bytes); count],
        };
        let (copies, bytes) = (limits::MAX_RECEIPT_COPIES, limits::MAX_RECEIPT_BYTES);
        assert!(sealed(copies, bytes).is_within_limits());
        assert!(!sealed(copies + 1, bytes).is_within_limits());
        assert!(!sealed(copies, bytes + 1).is_within_limits());
    }
}
