//! How often somebody may append to the roster: a bucket per user, and a few tries for who is not admitted (REQ-107).
//!
//! It lives in memory alone. A start takes from the buckets what the roster shows to have been appended; what was
//! refused, and tried by peers who are not admitted, is forgotten.

use mortise_protocol::identity::{OrgId, UserId};
use mortise_protocol::roster::{EntrySigner, Op, Role, Roster, SignedEntry};
use mortise_protocol::wire::limits;

use super::ConnId;
use super::journal::Journal;
use super::quotas::{Meter, Quotas};

/// What is left to whom.
#[derive(Debug)]
pub(super) struct Rates {
    /// Everything but roster entries (REQ-320).
    pub(super) meter: Meter,
    /// When a user's bucket is full again, ms since 1970; a user without a row has a full one.
    full_at_ms: Journal<(OrgId, UserId), u64>,
    /// How many entries a connection of somebody who is not admitted has tried.
    tries: Journal<ConnId, u32>,
}

/// How much fits a bucket, and how long one takes to come back, ms.
fn bucket(role: Role) -> (u32, u64) {
    if role.administers() {
        (limits::ADMIN_APPEND_BURST, limits::ADMIN_APPEND_EVERY_MS)
    } else {
        (limits::APPEND_BURST, limits::APPEND_EVERY_MS)
    }
}

/// Whether an entry is an order by somebody whose orders nothing may keep waiting.
pub(super) fn goes_first(role: Role, entry: &SignedEntry) -> bool {
    role.administers() && entry.tbs().ops.iter().any(Op::is_order)
}

impl Rates {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self {
            meter: Meter::new(quotas),
            full_at_ms: Journal::default(),
            tries: Journal::default(),
        }
    }

    /// How long a user has to wait before the next entry, ms; 0 for not at all.
    pub(super) fn wait_ms(&self, org: OrgId, user: UserId, role: Role, now_ms: u64) -> u64 {
        let (burst, every_ms) = bucket(role);
        let full_at = self.full_at_ms.at((org, user)).unwrap_or(now_ms);
        let taken_ms = full_at.saturating_sub(now_ms);
        (taken_ms + every_ms).saturating_sub(u64::from(burst) * every_ms)
    }

    /// Takes one from a user's bucket.
    pub(super) fn take(&mut self, org: OrgId, user: UserId, role: Role, now_ms: u64) {
        let (_, every_ms) = bucket(role);
        let full_at = self.full_at_ms.at((org, user)).unwrap_or(now_ms);
        let full_at = full_at.max(now_ms) + every_ms;
        self.full_at_ms.insert((org, user), full_at);
    }

    /// Takes from its signer's bucket what an entry of the roster has cost, by the time that it gives.
    pub(super) fn replay(&mut self, roster: &Roster, entry: &SignedEntry) {
        let tbs = entry.tbs();
        let EntrySigner::Device(device) = tbs.signer else {
            return;
        };
        let Some(user) = roster.device(device).map(|d| d.user) else {
            return;
        };
        if let Some(role) = roster.role(user)
            && !goes_first(role, entry)
        {
            self.take(roster.org(), user, role, tbs.issued_at_ms);
        }
    }

    /// Whether a connection of somebody who is not admitted may try another entry.
    pub(super) fn may_try(&self, conn: ConnId) -> bool {
        self.tries.at(conn).unwrap_or(0) < limits::UNADMITTED_APPENDS
    }

    pub(super) fn count_try(&mut self, conn: ConnId) {
        let tries = self.tries.at(conn).unwrap_or(0);
        self.tries.insert(conn, tries.saturating_add(1));
    }

    /// The connection is gone, or is somebody's who is admitted now.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.tries.remove(conn);
    }

    pub(super) fn keep(&mut self) {
        self.meter.keep();
        self.full_at_ms.keep();
        self.tries.keep();
    }

    pub(super) fn revert(&mut self) {
        self.meter.revert();
        self.full_at_ms.revert();
        self.tries.revert();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-107: exactly the burst at once, one more after exactly the time for one, and never more than the burst.
    #[test]
    fn a_bucket_holds_the_burst_and_fills_by_time() {
        let (org, user) = (OrgId([1; 32]), UserId([2; 16]));
        for role in Role::ALL {
            let (burst, every_ms) = bucket(role);
            let mut rates = Rates::new(Quotas::default());
            let mut now = 1_000_000;
            for _ in 0..burst {
                assert_eq!(rates.wait_ms(org, user, role, now), 0);
                rates.take(org, user, role, now);
            }
            assert_eq!(rates.wait_ms(org, user, role, now), every_ms);
            assert_eq!(rates.wait_ms(org, user, role, now + every_ms - 1), 1);
            assert_eq!(rates.wait_ms(org, UserId([3; 16]), role, now), 0);
            now += every_ms;
            assert_eq!(rates.wait_ms(org, user, role, now), 0);
            rates.take(org, user, role, now);
            assert_eq!(rates.wait_ms(org, user, role, now), every_ms);
            now += every_ms * u64::from(burst) * 3;
            for _ in 0..burst {
                assert_eq!(rates.wait_ms(org, user, role, now), 0);
                rates.take(org, user, role, now);
            }
            assert_eq!(rates.wait_ms(org, user, role, now), every_ms);
        }
    }
}
