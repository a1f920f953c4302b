//! Organisations and their rosters: founding, greeting, fetching and appending entries.

use mortise_protocol::identity::{OrgId, RosterSeq, sha256};
use mortise_protocol::roster::{
    EntrySigner, InvitationStatus, Roster, RosterError, SignedEntry, check_issue_time,
};
use mortise_protocol::wire::{Refusal, Response, limits};
use tls_codec::VLByteVec;

use super::layout::{self, CLAIM_TOKENS, ROSTER, of_org};
use super::turn::{Answer, Turn};
use super::{ConnId, StreamId};

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
            statement_key: self.config.statement_key,
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
        if roster.statement_key() != Some(self.config.statement_key) {
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
    pub(super) fn append_roster(&mut self, conn: ConnId, org: OrgId, bytes: &[u8]) -> Answer {
        let entry = SignedEntry::parse(bytes).map_err(|e| self.refuse_entry(&e))?;
        let invited = matches!(entry.tbs().signer, EntrySigner::Invitation(_));
        if self.caller(conn).is_none() && !invited {
            return Err(Refusal::NotAdmitted.into());
        }
        if holds(self.roster(org)?, &entry) {
            return Ok(appended(&entry));
        }
        self.check_clock(&entry)?;
        let applied = self.rosters.apply(org, bytes);
        let applied = applied.map_err(|e| self.refuse_entry(&e))?;
        layout::save_bytes(self.tx, ROSTER, entry_key(&entry), bytes);
        if let Some(order) = &applied.order {
            self.execute(org, order)?;
        }
        self.announce(org, bytes, applied.order.as_ref())?;
        Ok(appended(&entry))
    }

    fn check_clock(&self, entry: &SignedEntry) -> Result<(), Refusal> {
        let skew = self.config.max_clock_skew_ms;
        check_issue_time(entry.tbs().issued_at_ms, self.now_ms, skew)
            .map_err(|error| self.refuse_entry(&error))
    }

    fn refuse_entry(&self, error: &RosterError) -> Refusal {
        match error {
            RosterError::Conflict { head } => Refusal::RosterConflict { head: *head },
            RosterError::IssueTime { .. } => Refusal::Clock {
                now_ms: self.now_ms,
            },
            other => Refusal::RosterRule { code: other.code() },
        }
    }
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
