//! The rosters of all organisations in memory, always equal to what the store would replay.

use std::collections::BTreeMap;

use mortise_protocol::identity::{OrgId, RosterSeq};
use mortise_protocol::roster::{Applied, Roster, RosterError};
use mortise_protocol::store::{StoreError, Tx};

use super::CoreError;
use super::layout::{ROSTER, read_bytes};

/// How many entries are read at a time.
const PAGE: usize = 256;
const ORG_BYTES: usize = 32;

/// Every organisation's roster, and which of them the batch has changed.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    by_org: BTreeMap<OrgId, Roster>,
    /// Where the changed ones ended before the batch.
    changed: BTreeMap<OrgId, RosterSeq>,
    /// How far rosters were that are not in memory now.
    forgotten: BTreeMap<OrgId, RosterSeq>,
}

impl Rosters {
    /// Replays all of them; `applied` is shown each entry, with the roster that it leads to.
    pub(super) fn load(
        tx: &Tx<'_>,
        applied: impl FnMut(&Roster, &[u8]),
    ) -> Result<Self, CoreError> {
        let mut rosters = Self::default();
        rosters.replay(tx, &[], applied)?;
        Ok(rosters)
    }

    fn replay(
        &mut self,
        tx: &Tx<'_>,
        prefix: &[u8],
        mut applied: impl FnMut(&Roster, &[u8]),
    ) -> Result<(), CoreError> {
        let mut from = prefix.to_vec();
        loop {
            let page = tx.scan_from(ROSTER, prefix, &from, PAGE)?;
            for (key, row) in &page {
                let org = OrgId(*key.first_chunk::<ORG_BYTES>().ok_or(StoreError::Corrupt {
                    reason: "a roster entry's key is too short",
                })?);
                let roster = self.by_org.entry(org).or_insert_with(|| Roster::new(org));
                let entry = read_bytes(row)?;
                roster
                    .apply(entry)
                    .map_err(|source| CoreError::Roster { org, source })?;
                applied(roster, entry);
            }
            match page.into_iter().last() {
                Some((key, _)) => from = [&key[..], &[0]].concat(),
                None => return Ok(()),
            }
        }
    }

    pub(super) fn at(&self, org: OrgId) -> Option<&Roster> {
        self.by_org.get(&org)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Roster> {
        self.by_org.values()
    }

    /// Takes over a roster whose Genesis was found valid.
    pub(super) fn found(&mut self, roster: Roster) {
        self.note_change(roster.org(), RosterSeq(0));
        self.by_org.insert(roster.org(), roster);
    }

    /// Validates and applies an entry to a roster that exists.
    pub(super) fn apply(&mut self, org: OrgId, entry: &[u8]) -> Result<Applied, RosterError> {
        let roster = self
            .by_org
            .get_mut(&org)
            .ok_or(RosterError::WrongOrg { org })?;
        let before = roster.head().seq;
        let applied = roster.apply(entry)?;
        self.note_change(org, before);
        Ok(applied)
    }

    fn note_change(&mut self, org: OrgId, before: RosterSeq) {
        let before = self.forgotten.remove(&org).unwrap_or(before);
        self.changed.entry(org).or_insert(before);
    }

    /// An organisation of which this node may know nothing yet.
    pub(super) fn expect(&mut self, org: OrgId) -> &Roster {
        self.by_org.entry(org).or_insert_with(|| Roster::new(org))
    }

    /// Nothing is stored of the organisation.
    pub(super) fn drop_empty(&mut self, org: OrgId) {
        if self.at(org).is_some_and(|r| r.head().seq == RosterSeq(0)) {
            self.by_org.remove(&org);
        }
    }

    /// Up to which entry this core's connections have been told of an organisation's roster.
    pub(super) fn told(&self, org: OrgId) -> RosterSeq {
        let known = self.at(org).map_or(RosterSeq(0), |r| r.head().seq);
        self.forgotten.get(&org).copied().unwrap_or(known)
    }

    /// The batch is durable.
    pub(super) fn keep(&mut self) {
        self.changed.clear();
    }

    /// The batch never was, and the store cannot be asked now: what it has changed is read again when it is needed.
    pub(super) fn forget(&mut self) {
        for (org, before) in std::mem::take(&mut self.changed) {
            self.by_org.remove(&org);
            self.forgotten.insert(org, before);
        }
    }

    /// The batch never was: reads back what it changed.
    pub(super) fn revert(&mut self, tx: &Tx<'_>) -> Result<(), CoreError> {
        for (org, _) in std::mem::take(&mut self.changed) {
            self.by_org.remove(&org);
            self.replay(tx, &org.0, |_, _| ())?;
        }
        Ok(())
    }
}
