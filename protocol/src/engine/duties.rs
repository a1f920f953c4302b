//! What a device owes its groups: rotation after an order, statements about it, fresh leaves.

use rand::RngCore as _;

use super::EngineError;
use super::election::{Election, turns};
use super::outbound::Work;
use super::rows::{self, GROUPS, INTENTS, ORDERS, OUTBOX, OrderRow, OutboxKind, OutboxRow};
use super::state::State;
use crate::group::{Changes, validate};
use crate::identity::{DeviceId, RosterSeq};
use crate::store::Tx;
use crate::wire::log::{Attestation, AttestationStatement, Verdict};
use crate::wire::{RecordBody, limits};

/// Milliseconds of a week.
const WEEK_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// Statements by other users that make ours needless (see `ARCHITECTURE.md`).
const ENOUGH_STATEMENTS: usize = 2;

impl State {
    /// Commits the removal of every leaf that is not admitted or has asked to leave, before anything is sent (REQ-091,
    /// REQ-124).
    ///
    /// Returns whether there is such a leaf. Who has something to send, or the relay's lease, commits at once; the
    /// others in an order given by hash(group, epoch, device), after the lease (REQ-063).
    pub(super) fn must_rotate(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
    ) -> Result<bool, EngineError> {
        let stale = self.stale_devices(work);
        if stale.is_empty() && work.group.leavers().is_empty() {
            self.duties.remove(&work.id);
            self.leases.remove(&work.id);
            return Ok(false);
        }
        let wants_to_send = !tx.scan_from(INTENTS, &work.id.0, &work.id.0, 1)?.is_empty();
        let at_once = wants_to_send || self.leases.remove(&work.id);
        let due = match self.duties.get(&work.id) {
            _ if at_once => self.now_ms,
            Some(at) => *at,
            None => self.now_ms + self.election_delay_ms(work),
        };
        if due > self.now_ms {
            self.duties.insert(work.id, due);
            return Ok(true);
        }
        self.duties.remove(&work.id);
        let changes = Changes {
            removes: stale,
            ..Changes::default()
        };
        self.commit(tx, work, None, changes)?;
        Ok(true)
    }

    /// The devices in the tree that are not admitted any more; a clean tree is looked at once per epoch and roster.
    fn stale_devices(&mut self, work: &Work<'_>) -> Vec<DeviceId> {
        let head = self.roster.head().seq;
        let state = (work.row.epoch, head);
        if self.clean_at.get(&work.id) == Some(&state) {
            return Vec::new();
        }
        let stale: Vec<_> = validate::stale_leaves(&self.roster, work.group.leaves(), head)
            .map(|leaf| leaf.device)
            .collect();
        if stale.is_empty() {
            self.clean_at.insert(work.id, state);
        }
        stale
    }

    /// How long this device leaves a removal to others, ms.
    fn election_delay_ms(&mut self, work: &Work<'_>) -> u64 {
        let leavers = work.group.leavers();
        let able = work
            .group
            .leaves()
            .iter()
            .filter(|l| self.roster.is_admitted(l.device) && !leavers.contains(l))
            .map(|l| l.device);
        let me = self.identity.device;
        let before = Election::Duty.before(work.id, work.row.epoch.0, me, able);
        limits::REMOVAL_LEASE_MS + turn_ms(before) + u64::from(self.rng.next_u32() % 100)
    }

    /// States, in the group's log, how the group stands with regard to each order (REQ-064).
    ///
    /// Returns whether nothing is owed any more.
    pub(super) fn attest(&mut self, tx: &Tx<'_>, work: &mut Work<'_>) -> Result<bool, EngineError> {
        let mut settled = true;
        for (number, mut row) in rows::of_group::<OrderRow>(tx, ORDERS, work.id)? {
            let order = RosterSeq(number);
            if row.attested || row.seen.len() >= ENOUGH_STATEMENTS {
                self.attest_at.remove(&(work.id, order));
                continue;
            }
            settled = false;
            let due = match self.attest_at.get(&(work.id, order)) {
                Some(at) => *at,
                // Whoever rotated goes at once, too: see `tell_change`. All others would be a statement per member.
                None if row.seen.is_empty() && self.is_first(work, order) => self.now_ms,
                None => self.now_ms + self.election_delay_ms(work),
            };
            if due > self.now_ms {
                self.attest_at.insert((work.id, order), due);
                continue;
            }
            self.attest_at.remove(&(work.id, order));
            let Some(order_hash) = self.roster.hash_at(order) else {
                continue;
            };
            let head = self.roster.head();
            let statement = AttestationStatement {
                order_seq: order,
                order_hash,
                group: work.id,
                entry_hash: work.row.entry_hash,
                epoch: work.row.epoch,
                roster_seq: head.seq,
                roster_hash: head.hash,
                verdict: if row.rotated {
                    Verdict::Rotated
                } else {
                    Verdict::Clean
                },
                device: self.identity.device,
            };
            let access_key = work.group.access_key(&self.crypto)?;
            let attestation = Attestation::sign(statement, &self.identity.mls, &access_key);
            let body = RecordBody::Attestation(attestation);
            let kind = OutboxKind::Attestation(order);
            let outbox = OutboxRow::new(kind, None, work.row.epoch, &body);
            row.attested = true;
            row.found = Some(self.found(work, row.rotated));
            rows::put(tx, ORDERS, rows::key(work.id, number), &row)?;
            self.submit(tx, work, &outbox)?;
        }
        Ok(settled)
    }

    /// Whether this device must still say how the group stands with regard to an order before it may add anybody: who comes
    /// in later owes nothing for it, and nobody else may be left to say it (REQ-162).
    pub(super) fn must_attest_first(
        &mut self,
        tx: &Tx<'_>,
        work: &Work<'_>,
    ) -> Result<bool, EngineError> {
        let outbox = rows::of_group::<OutboxRow>(tx, OUTBOX, work.id)?;
        let is_open = |(_, row): &(u64, OutboxRow)| {
            matches!(row.kind, OutboxKind::Attestation(_)) && !row.acked
        };
        let mut owes = outbox.iter().any(is_open);
        for (number, row) in rows::of_group::<OrderRow>(tx, ORDERS, work.id)? {
            if !row.attested && row.seen.len() < ENOUGH_STATEMENTS {
                let at = (work.id, RosterSeq(number));
                self.attest_at.insert(at, self.now_ms);
                owes = true;
            }
        }
        Ok(owes)
    }

    /// Gives this device's leaf new keys when they are due (REQ-096).
    pub(super) fn refresh(&mut self, tx: &Tx<'_>, work: &mut Work<'_>) -> Result<(), EngineError> {
        self.refresh_at.insert(work.id, work.row.refresh_at_ms);
        if work.row.refresh_at_ms > self.now_ms {
            return Ok(());
        }
        work.row.refresh_at_ms = self.next_refresh_ms(work.group.leaves().len());
        rows::put(tx, GROUPS, work.id.0, work.row)?;
        self.refresh_at.insert(work.id, work.row.refresh_at_ms);
        self.commit(tx, work, None, Changes::default())
    }

    /// When a leaf of a group of this size is due: after a week, and later the more there are who commit.
    pub(super) fn next_refresh_ms(&mut self, members: usize) -> u64 {
        let weeks = u64::try_from(members.div_ceil(50)).unwrap_or(4).min(4);
        let jitter = u64::from(self.rng.next_u32()) % (WEEK_MS / 7);
        self.now_ms + weeks.max(1) * WEEK_MS + jitter
    }

    /// Whether this device is one of the two whose turn it is to attest first.
    fn is_first(&self, work: &Work<'_>, order: RosterSeq) -> bool {
        let devices = work.group.leaves().iter().map(|l| l.device);
        let before = Election::Duty.before(work.id, order.0, self.identity.device, devices);
        before < ENOUGH_STATEMENTS
    }
}

/// When the turn of the device comes before which so many others stand, ms.
///
/// The first have time to see each other's commit. Behind them the turns are shorter, so that the last of a thousand
/// waits 20 s; but no two have the same: hundreds of commits at once would be more than a relay or a device can read.
fn turn_ms(before: usize) -> u64 {
    const LONG: u64 = 150;
    const SHORT: u64 = 20;
    const WITH_LONG: u64 = 20;
    let before = turns(before, u64::MAX);
    let with_long = before.min(WITH_LONG);
    (with_long * LONG).saturating_add((before - with_long).saturating_mul(SHORT))
}

#[cfg(test)]
mod tests {
    use super::turn_ms;

    /// REQ-063: no two places have the same turn, and nobody waits too long.
    #[test]
    fn turns_grow_with_the_place() {
        assert_eq!((turn_ms(0), turn_ms(1), turn_ms(20)), (0, 150, 3_000));
        assert!((0..1_000).all(|before| turn_ms(before) < turn_ms(before + 1)));
        assert!(turn_ms(999) < 25_000);
    }
}
