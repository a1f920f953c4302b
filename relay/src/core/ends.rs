//! What a start verifies of the logs: where each one ends (REQ-197). It must never read all of a log.

use mortise_protocol::identity::GroupId;
use mortise_protocol::store::{Pair, Reader as _, Store, StoreError, Tx};

use super::layout::{self, EPOCHS, EpochRecord, GROUPS, GroupRecord, LOG, of_group};

/// How many groups are looked at in one go.
const PAGE: usize = 256;

const TORN: StoreError = StoreError::Corrupt {
    reason: "a group's log does not end where its head says",
};

/// Checks every group's head against its log: the newest record and the newest epoch are there, and nothing after.
///
/// # Errors
/// [`StoreError::Corrupt`], or what reading fails with.
pub(super) fn verify(store: &dyn Store) -> Result<(), StoreError> {
    let mut from = Vec::new();
    loop {
        // One transaction per page: it remembers what it has read.
        let tx = Tx::new(store);
        let page = tx.scan_from(GROUPS, &[], &from, PAGE)?;
        prefetch(&tx, &page)?;
        for (key, row) in &page {
            let id = key.as_slice().try_into().map_err(|_| TORN)?;
            verify_end(&tx, GroupId(id), &layout::read(row)?)?;
        }
        match page.into_iter().last() {
            Some((key, _)) => from = [&key[..], &[0]].concat(),
            None => return Ok(()),
        }
    }
}

/// What [`verify_end`] is going to read of all of them.
fn prefetch(tx: &Tx<'_>, page: &[Pair]) -> Result<(), StoreError> {
    let (mut records, mut epochs) = (Vec::new(), Vec::new());
    for (key, row) in page {
        let group = GroupId(key.as_slice().try_into().map_err(|_| TORN)?);
        let head: GroupRecord = layout::read(row)?;
        records.push(of_group(group, head.head_seq.0));
        records.push(of_group(group, head.head_seq.next().0));
        epochs.push(of_group(group, head.head_epoch.0));
    }
    tx.prefetch(LOG, &records)?;
    tx.prefetch(EPOCHS, &epochs)
}

fn verify_end(tx: &Tx<'_>, group: GroupId, head: &GroupRecord) -> Result<(), StoreError> {
    let record = layout::load_log(tx, group, head.head_seq)?;
    let epoch = of_group(group, head.head_epoch.0);
    let opened: EpochRecord = layout::load_existing(tx, EPOCHS, &epoch)?;
    let after = of_group(group, head.head_seq.next().0);
    let fits = record.seq == head.head_seq
        && opened.opening_seq <= head.head_seq
        && head.confirmed <= head.head_epoch
        && tx.get(LOG, &after)?.is_none();
    if fits { Ok(()) } else { Err(TORN) }
}
