//! Access proofs that were found valid: the same bytes on the same connection need no second look (REQ-196).
//!
//! It is a memory of a pure function, so that a failed batch changes nothing in it: what is proven stays proven for this
//! connection, epoch and purpose. Whether the epoch still takes anything is another question, asked every time.

use std::collections::BTreeMap;

use mortise_protocol::identity::{Epoch, GroupId};
use mortise_protocol::wire::log::{AccessProof, Purpose};

use super::ConnId;

/// Proofs that are remembered at most; about 16 MiB. Beyond that all are forgotten.
const MAX_PROOFS: usize = 65_536;

/// The newest proof of each connection, group and purpose.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    valid: BTreeMap<(ConnId, GroupId, u8), (Epoch, AccessProof)>,
}

impl Proofs {
    /// Whether exactly this proof was found valid before, for this epoch on this connection.
    pub(super) fn has(
        &self,
        conn: ConnId,
        group: GroupId,
        epoch: Epoch,
        purpose: Purpose,
        proof: &AccessProof,
    ) -> bool {
        let known = self.valid.get(&(conn, group, purpose as u8));
        known.is_some_and(|(of, known)| *of == epoch && known == proof)
    }

    /// Remembers a proof that was found valid.
    pub(super) fn note(
        &mut self,
        conn: ConnId,
        group: GroupId,
        epoch: Epoch,
        purpose: Purpose,
        proof: &AccessProof,
    ) {
        if self.has(conn, group, epoch, purpose, proof) {
            return;
        }
        if self.valid.len() >= MAX_PROOFS {
            self.valid.clear();
        }
        let key = (conn, group, purpose as u8);
        self.valid.insert(key, (epoch, proof.clone()));
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        let first = (conn, GroupId([0; 32]), 0);
        let last = (conn, GroupId([0xff; 32]), u8::MAX);
        let gone: Vec<_> = self
            .valid
            .range(first..=last)
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.valid.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use mortise_protocol::identity::{Hash, Signature};

    use super::*;

    const GROUP: GroupId = GroupId([1; 32]);

    fn proof(n: u8) -> AccessProof {
        AccessProof {
            entry_hash: Hash([n; 32]),
            signature: Signature([n; 64]),
        }
    }

    /// REQ-196: a proof counts for nothing but the connection, group, epoch, purpose and bytes that were checked.
    #[test]
    fn only_the_very_same_proof_is_known() {
        let mut proofs = Proofs::default();
        let (conn, epoch) = (ConnId(1), Epoch(3));
        proofs.note(conn, GROUP, epoch, Purpose::Append, &proof(1));
        assert!(proofs.has(conn, GROUP, epoch, Purpose::Append, &proof(1)));
        assert!(!proofs.has(ConnId(2), GROUP, epoch, Purpose::Append, &proof(1)));
        assert!(!proofs.has(conn, GroupId([2; 32]), epoch, Purpose::Append, &proof(1)));
        assert!(!proofs.has(conn, GROUP, Epoch(4), Purpose::Append, &proof(1)));
        assert!(!proofs.has(conn, GROUP, epoch, Purpose::Read, &proof(1)));
        assert!(!proofs.has(conn, GROUP, epoch, Purpose::Append, &proof(2)));
    }

    #[test]
    fn a_connection_that_is_gone_has_proven_nothing() {
        let mut proofs = Proofs::default();
        for conn in [1, 2] {
            proofs.note(ConnId(conn), GROUP, Epoch(0), Purpose::Append, &proof(1));
        }
        proofs.forget(ConnId(1));
        assert!(!proofs.has(ConnId(1), GROUP, Epoch(0), Purpose::Append, &proof(1)));
        assert!(proofs.has(ConnId(2), GROUP, Epoch(0), Purpose::Append, &proof(1)));
        assert_eq!(proofs.valid.len(), 1);
    }
}
