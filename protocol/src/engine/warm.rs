//! Tree warming (REQ-130): after many were added at once, a few members commit new keys, and everybody's next commit
//! is small.
//!
//! An Add leaves the nodes above the new leaves blank, and a commit encrypts to every leaf below a blank node. A commit
//! fills the nodes above its own leaf. One commit in each span of [`SPAN`] leaves fills all but the lowest levels; if
//! spans commit in bit-reversed order, each commit halves what the largest blank part costs. Each device decides
//! alone, from its leaf's place and from the commits that it has met.

use rand::RngCore as _;

use super::EngineError;
use super::outbound::Work;
use super::rows::{self, GROUPS, GroupRow};
use super::state::{Chore, State};
use crate::group::{Changes, Group};
use crate::identity::DeviceId;
use crate::store::Tx;

/// Leaves of which one commits: a group of n has at most n / 8 warming commits, rounded up.
const SPAN: u32 = 8;
/// Smaller groups are not warmed.
const MIN_LEAVES: usize = 32;
/// A commit that adds fewer leaves does not cool the tree enough.
const MIN_ADDED: usize = 16;
/// The least time between two warming commits of a group, on average, ms.
const SPACING_MS: u64 = 4_000;
/// A group in which something was said less than this ago is not quiet, ms.
const QUIET_MS: u64 = 2_000;

/// What a commit did to the tree.
pub(super) struct Warmth<'a> {
    pub(super) committer: DeviceId,
    /// The devices that it added.
    pub(super) added: &'a [DeviceId],
    /// It filled the nodes above the committer's leaf.
    pub(super) has_path: bool,
}

impl State {
    /// Notes what a commit that was followed did to this device's part of the tree.
    pub(super) fn note_warmth(&mut self, row: &mut GroupRow, state: &Group, commit: &Warmth<'_>) {
        if state.leaves().len() < MIN_LEAVES {
            row.warm_at_ms = 0;
            return;
        }
        let me = self.identity.device;
        let Some(mine) = span_of(state, me) else {
            return;
        };
        let cools = commit.added.len() >= MIN_ADDED
            && members_of(state, mine).any(|device| commit.added.contains(&device));
        if cools {
            row.warm_at_ms = self.warming_slot_ms(state, mine);
        } else if commit.has_path && members_of(state, mine).any(|d| d == commit.committer) {
            row.warm_at_ms = 0;
        }
    }

    /// When a device that was added together with so many others warms its part of the tree; 0 for never.
    pub(super) fn first_warming_ms(&mut self, state: &Group, added: usize) -> u64 {
        if state.leaves().len() < MIN_LEAVES || added < MIN_ADDED {
            return 0;
        }
        span_of(state, self.identity.device).map_or(0, |mine| self.warming_slot_ms(state, mine))
    }

    /// Commits new keys when this device's turn has come and the group is quiet.
    pub(super) fn warm(&mut self, tx: &Tx<'_>, work: &mut Work<'_>) -> Result<(), EngineError> {
        let chore = (work.id, Chore::Warm);
        let due = work.row.warm_at_ms;
        if due == 0 {
            self.chores.remove(&chore);
            return Ok(());
        }
        if due > self.now_ms {
            self.chores.insert(chore, due);
            return Ok(());
        }
        let heard = self.heard_at.get(&work.id).copied().unwrap_or_default();
        let quiet = self.now_ms >= heard + QUIET_MS;
        // Who was away has missed its turn, and so may have many others.
        let in_time = self.now_ms < due + SPACING_MS;
        work.row.warm_at_ms = if quiet && in_time {
            // Only if the commit loses its race is there another turn.
            self.later_slot_ms(work.group)
        } else if in_time {
            self.now_ms + SPACING_MS + self.jitter_ms()
        } else {
            self.later_slot_ms(work.group)
        };
        rows::put(tx, GROUPS, work.id.0, work.row)?;
        self.chores.insert(chore, work.row.warm_at_ms);
        if quiet && in_time {
            self.commit(tx, work, None, Changes::default())?;
        }
        Ok(())
    }

    fn later_slot_ms(&mut self, state: &Group) -> u64 {
        let mine = span_of(state, self.identity.device).unwrap_or_default();
        self.warming_slot_ms(state, mine)
    }

    /// Spans take turns in bit-reversed order, and the members of a span after each other.
    fn warming_slot_ms(&mut self, state: &Group, mine: u32) -> u64 {
        let last = state.members().last().map_or(0, |m| m.index / SPAN);
        let bits = u32::BITS - last.leading_zeros();
        let rank = mine
            .reverse_bits()
            .checked_shr(u32::BITS - bits)
            .unwrap_or(0);
        let me = self.identity.device;
        let before = members_of(state, mine)
            .take_while(|device| *device != me)
            .filter(|device| self.roster.is_admitted(*device))
            .count();
        let rounds = u64::try_from(before).unwrap_or_default() << bits;
        let turns = rounds + u64::from(rank);
        self.now_ms + QUIET_MS + turns * SPACING_MS + self.jitter_ms()
    }

    fn jitter_ms(&mut self) -> u64 {
        u64::from(self.rng.next_u32()) % (SPACING_MS / 4)
    }
}

/// The span that a device's leaf is in.
fn span_of(state: &Group, device: DeviceId) -> Option<u32> {
    let mut members = state.members();
    members
        .find(|m| m.leaf.device == device)
        .map(|m| m.index / SPAN)
}

/// The devices of a span, by leaf.
fn members_of(state: &Group, span: u32) -> impl Iterator<Item = DeviceId> + '_ {
    let members = state.members().filter(move |m| m.index / SPAN == span);
    members.map(|m| m.leaf.device)
}
