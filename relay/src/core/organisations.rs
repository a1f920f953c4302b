//! Organisations and their rosters: founding, greeting, fetching and appending entries.

use mortise_protocol::identity::{OrgId, RosterSeq, Slot, sha256};
use mortise_protocol::roster::{
    EntrySigner, InvitationStatus, Op, Roster, RosterError, SignedEntry, check_issue_time,
};
use mortise_protocol::store::Reader as _;
use mortise_protocol::wire::{Refusal, Request, Response, limits};
use tls_codec::VLByteVec;

use super::layout::{self, CLAIM_TOKENS, ROSTER, of_org};
use super::rate::goes_first;
use super::slots::check_slots;
use super::turn::{Answer, Caller, Turn};
use super::{ConnId, Input, StreamId};

impl Turn<'_> {
    /// Notes the organisation and the stream for pushes, and says where things stand.
    pub(super) fn hello(&mut self, conn: ConnId, stream: StreamId, org: OrgId) -> Answer {
        let head = self.roster(org)?.head();
        // A connection is for one organisation, and so is what it subscribes to.
        if self.org_of(conn).is_some_and(|before| before != org) {
            return Err(Refusal::Malformed.into());
        }
        self.connections.greet(conn, org, stream);
        let caller = self.caller(conn);
        let (key_packages_left, has_last_resort, inbox_waiting) = match &caller {
            Some(caller) => {
                let (left, last_resort) = self.count_key_packages(org, caller.device)?;
                (left, last_resort, self.inbox_waiting(org, caller.device)?)
            }
            None => (0, false, false),
        };
        Ok(Response::Hello {
            head,
            admitted: caller.is_some().into(),
            statement_key: self.config.statement_key.public(),
            now_ms: self.now_ms,
            key_packages_left,
            has_last_resort: has_last_resort.into(),
            inbox_waiting: inbox_waiting.into(),
        })
    }

    /// Founds an organisation for whoever holds an unused claim token, which is used up with it (REQ-054).
    pub(super) fn found(&mut self, claim_token: &[u8], bytes: &[u8]) -> Answer {
        let entry = SignedEntry::parse(bytes).map_err(|e| self.refuse_entry(&e))?;
        let existing = self.rosters.at(entry.tbs().org);
        if existing.is_some_and(|roster| holds(roster, &entry)) {
            return Ok(appended(&entry));
        }
        let token = sha256(claim_token);
        if self.tx.get(CLAIM_TOKENS, &token.0)?.is_none() {
            return Err(Refusal::ClaimToken.into());
        }
        if let Some(roster) = existing {
            let head = roster.head();
            return Err(Refusal::RosterConflict { head }.into());
        }
        self.check_clock(&entry)?;
        let mut roster = Roster::new(entry.tbs().org);
        roster.apply(bytes).map_err(|e| self.refuse_entry(&e))?;
        if roster.statement_key() != Some(self.config.statement_key.public()) {
            return Err(self.refuse_entry(&RosterError::GenesisShape).into());
        }
        self.tx.delete(CLAIM_TOKENS, token.0);
        layout::save_bytes(self.tx, ROSTER, entry_key(&entry), bytes);
        self.rosters.found(roster);
        Ok(appended(&entry))
    }

    /// Entries after `after`; to a stranger the one entry that an open invitation's link pins (REQ-054).
    pub(super) fn fetch_roster(&mut self, conn: ConnId, org: OrgId, after: RosterSeq) -> Answer {
        let roster = self.roster(org)?;
        let head = roster.head();
        let limit = if self.caller(conn).is_some() {
            limits::MAX_ROSTER_PAGE
        } else if pinned_by_link(roster, after.next()) {
            1
        } else {
            return Err(Refusal::NotAdmitted.into());
        };
        let last = head.seq.0.min(after.0.saturating_add(limit as u64));
        let keys: Vec<_> = (after.next().0..=last).map(|n| of_org(org, n)).collect();
        self.tx.prefetch(ROSTER, &keys)?;
        let mut entries: Vec<VLByteVec> = Vec::new();
        let mut bytes = 0;
        while entries.len() < limit {
            let seq = after.0.saturating_add(1 + entries.len() as u64);
            let Some(entry) = layout::load_bytes(self.tx, ROSTER, &of_org(org, seq))? else {
                break;
            };
            bytes += entry.len();
            if !entries.is_empty() && bytes > limits::MAX_PAGE_BYTES {
                break;
            }
            entries.push(entry.into());
        }
        Ok(Response::Roster { entries, head })
    }

    /// Appends an entry; the roster's own rules are the compare-and-swap (REQ-015).
    pub(super) fn append_roster(
        &mut self,
        conn: ConnId,
        org: OrgId,
        bytes: &[u8],
        slots: &[Slot],
    ) -> Answer {
        let entry = SignedEntry::parse(bytes).map_err(|e| self.refuse_entry(&e))?;
        let caller = self.caller(conn);
        // An invitation and the root key speak for themselves: whoever holds one is not admitted yet.
        if caller.is_none() && matches!(entry.tbs().signer, EntrySigner::Device(_)) {
            return Err(Refusal::NotAdmitted.into());
        }
        if holds(self.roster(org)?, &entry) {
            return Ok(appended(&entry));
        }
        self.check_clock(&entry)?;
        self.check_policy(&entry)?;
        check_new_key(caller.as_ref(), &entry, slots)?;
        self.require_leave(conn, caller.as_ref(), &entry)?;
        let applied = self.rosters.apply(org, bytes);
        if !matches!(applied, Err(RosterError::Conflict { .. })) {
            self.count_append(conn, caller.as_ref(), &entry, applied.is_ok());
        }
        let applied = applied.map_err(|e| self.refuse_entry(&e))?;
        layout::save_bytes(self.tx, ROSTER, entry_key(&entry), bytes);
        if let Some(order) = &applied.order {
            self.execute(org, order)?;
        }
        self.note_slotless(org, entry.tbs().signer, &applied);
        self.store_slots(org, slots)?;
        self.announce(org, bytes, &applied)?;
        Ok(appended(&entry))
    }

    /// Whether this peer may append now; orders of owners and admins are never made to wait (REQ-107).
    fn require_leave(
        &self,
        conn: ConnId,
        caller: Option<&Caller>,
        entry: &SignedEntry,
    ) -> Result<(), Refusal> {
        let Some(caller) = caller else {
            let retry_after_ms = limits::UNADMITTED_TIMEOUT_MS;
            let may = self.rates.may_try(conn);
            return may
                .then_some(())
                .ok_or(Refusal::RateLimited { retry_after_ms });
        };
        let Some(role) = self.roster(caller.org)?.role(caller.user) else {
            return Err(Refusal::NotAdmitted);
        };
        if goes_first(role, entry) || redeems(entry) {
            return Ok(());
        }
        match self
            .rates
            .wait_ms(caller.org, caller.user, role, self.now_ms)
        {
            0 => Ok(()),
            retry_after_ms => Err(Refusal::RateLimited { retry_after_ms }),
        }
    }

    /// Counts what was tried on the head; who only lost a race is not charged for it.
    fn count_append(
        &mut self,
        conn: ConnId,
        caller: Option<&Caller>,
        entry: &SignedEntry,
        taken: bool,
    ) {
        let Some(caller) = caller else {
            if taken {
                self.rates.forget(conn);
            } else {
                self.rates.count_try(conn);
            }
            return;
        };
        // The role before an entry that may have taken it is gone; who has none is no risk any more.
        let role = self
            .rosters
            .at(caller.org)
            .and_then(|roster| roster.role(caller.user));
        if let Some(role) = role
            && !goes_first(role, entry)
            && !(taken && redeems(entry))
        {
            let now_ms = self.now_ms;
            self.rates.take(caller.org, caller.user, role, now_ms);
        }
    }

    /// Whether a frame that came first on its connection is an order of an owner or admin (REQ-107).
    pub(super) fn is_urgent(&self, input: &Input) -> bool {
        let Input::Frame { conn, frame, .. } = input else {
            return false;
        };
        let Request::AppendRoster { entry, .. } = &frame.request else {
            return false;
        };
        let role = self.caller(*conn).and_then(|caller| {
            let roster = self.rosters.at(caller.org)?;
            roster.role(caller.user)
        });
        let entry = SignedEntry::parse(entry.as_slice());
        role.is_some_and(|role| entry.is_ok_and(|entry| goes_first(role, &entry)))
    }

    /// A policy that names another relay's key would leave this one unable to serve the organisation (REQ-100).
    fn check_policy(&self, entry: &SignedEntry) -> Result<(), Refusal> {
        let key = self.config.statement_key.public();
        let foreign = entry
            .tbs()
            .ops
            .iter()
            .any(|op| matches!(op, Op::SetPolicy(policy) if policy.statement_key != key));
        if foreign {
            return Err(self.refuse_entry(&RosterError::ForeignStatementKey));
        }
        Ok(())
    }

    fn check_clock(&self, entry: &SignedEntry) -> Result<(), Refusal> {
        let skew = self.config.max_clock_skew_ms;
        check_issue_time(entry.tbs().issued_at_ms, self.now_ms, skew)
            .map_err(|error| self.refuse_entry(&error))
    }

    pub(super) fn refuse_entry(&self, error: &RosterError) -> Refusal {
        match error {
            RosterError::Conflict { head } => Refusal::RosterConflict { head: *head },
            RosterError::IssueTime { .. } => Refusal::Clock {
                now_ms: self.now_ms,
            },
            other => Refusal::RosterRule { code: other.code() },
        }
    }
}

/// Whether an entry redeems an invitation: there are no more of those than invitations, which are counted.
fn redeems(entry: &SignedEntry) -> bool {
    matches!(entry.tbs().signer, EntrySigner::Invitation(_))
}

/// Slots come with a new directory key, from who has made it (REQ-101).
fn check_new_key(
    caller: Option<&Caller>,
    entry: &SignedEntry,
    slots: &[Slot],
) -> Result<(), Refusal> {
    if slots.is_empty() {
        return Ok(());
    }
    let tbs = entry.tbs();
    let rotates = tbs
        .ops
        .iter()
        .any(|op| matches!(op, Op::RotateDirectoryKey(_)));
    let maker = caller.filter(|c| rotates && tbs.signer == EntrySigner::Device(c.device));
    let maker = maker.ok_or(Refusal::Malformed)?;
    if slots.iter().any(|slot| slot.generation != tbs.seq) {
        return Err(Refusal::Malformed);
    }
    check_slots(maker.device, slots)
}

/// Whether these very bytes are the entry at their place already.
fn holds(roster: &Roster, entry: &SignedEntry) -> bool {
    roster.org() == entry.tbs().org && roster.hash_at(entry.tbs().seq) == Some(entry.hash())
}

/// Whether a link that can still be used pins the entry at `seq`: the one before its Invite (REQ-020).
///
/// Serving any entry, one by one, would show the whole roster to whoever knows the organisation's id.
fn pinned_by_link(roster: &Roster, seq: RosterSeq) -> bool {
    roster
        .invitations()
        .any(|(_, i)| i.issued == seq.next() && i.status == InvitationStatus::Open)
}

fn entry_key(entry: &SignedEntry) -> Vec<u8> {
    of_org(entry.tbs().org, entry.tbs().seq.0)
}

/// The head after an entry is the entry: a retry is told what the first try was told.
fn appended(entry: &SignedEntry) -> Response {
    Response::RosterAppended { head: entry.head() }
}
