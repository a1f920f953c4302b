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
    (key, message, signature): (&[u8; 32], &[u8], &[u8; 64]),
    verify: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let all = [&key[..], signature, message].concat();
    let all = sha256(&all);
    if MEMO.with_borrow(|memo| memo.signatures.contains(&all)) {
        return Ok(());
    }
    verify()?;
    MEMO.with_borrow_mut(|memo| {
        if memo.signatures.len() >= MAX_REMEMBERED {
            memo.signatures.clear();
        }
        memo.signatures.insert(all);
    });
    Ok(())
}
