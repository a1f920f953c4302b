//! What slow and pure functions have given, in the build that simulates many devices in one process.
//!
//! There every device checks the same signatures, and whoever joins stretches what the inviter has stretched before. It
//! must never be in a build that guards anything: secrets stay in memory, and are not wiped.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use zeroize::Zeroizing;

use super::{Hash, InvitationId, sha256};

/// How much is remembered before it is all forgotten.
const MAX_REMEMBERED: usize = 1 << 16;

#[derive(Default)]
struct Memo {
    seeds: HashMap<(Vec<u8>, InvitationId), [u8; 32]>,
    signatures: HashSet<Hash>,
}

/// A public key, a message and a signature.
pub(super) type Signed<'a> = (&'a [u8; 32], &'a [u8], &'a [u8; 64]);

thread_local! {
    static MEMO: RefCell<Memo> = RefCell::default();
}

/// The seed of an invitation's key, which `stretch` computes.
pub(super) fn invitation_seed(
    password: &[u8],
    id: InvitationId,
    stretch: impl FnOnce() -> Zeroizing<[u8; 32]>,
) -> Zeroizing<[u8; 32]> {
    let key = (password.to_vec(), id);
    let known = MEMO.with_borrow(|memo| memo.seeds.get(&key).copied());
    let seed = known.map_or_else(stretch, Zeroizing::new);
    MEMO.with_borrow_mut(|memo| {
        if memo.seeds.len() >= MAX_REMEMBERED {
            memo.seeds.clear();
        }
        memo.seeds.insert(key, *seed);
    });
    seed
}

/// Whether `verify` holds for this signature, which is found out once; what does not hold is never remembered.
///
/// # Errors
/// What `verify` says.
pub(super) fn signature<E>(
    signed_by: Signed<'_>,
    verify: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let digest = digest(signed_by);
    if MEMO.with_borrow(|memo| memo.signatures.contains(&digest)) {
        return Ok(());
    }
    verify()?;
    keep(digest);
    Ok(())
}

/// This signature was made here: it holds.
pub(super) fn signed(by: Signed<'_>) {
    keep(digest(by));
}

fn keep(digest: Hash) {
    MEMO.with_borrow_mut(|memo| {
        if memo.signatures.len() >= MAX_REMEMBERED {
            memo.signatures.clear();
        }
        memo.signatures.insert(digest);
    });
}

fn digest((key, message, signature): Signed<'_>) -> Hash {
    sha256(&[&key[..], signature, message].concat())
}
