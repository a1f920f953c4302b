//! Freshness: owners and admins state the newest entry, everybody notices when they no longer do (REQ-105, REQ-106).

use rand::RngCore as _;

use super::link::Asked;
use super::rows::{self, META};
use super::state::State;
use super::{Alarm, CommandError, EngineError};
use crate::roster::{
    Checkpoint, CheckpointFault, EntrySigner, MAX_ISSUE_SKEW_MS, Op, Role, SignedEntry, Staleness,
};
use crate::store::Tx;
use crate::wire::{Refusal, Request, limits};

const FRESH: &[u8] = b"fresh";
/// Devices that are due at the same time sign within this span, so that one statement is mostly enough; ms.
const SPREAD_MS: u64 = 20_000;

/// What this device knows of owners' and admins' statements.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    /// When an owner or admin last stated something that this device has verified, ms since 1970; 0 for never.
    newest_ms: u64,
    /// The same, of checkpoints alone and on this run.
    newest_checkpoint_ms: u64,
    /// When this device signs one, ms since 1970.
    sign_at: Option<u64>,
    /// The user was told that there has been none for too long.
    lapsed: bool,
    /// Statements about entries that are not here yet.
    beyond: Vec<Checkpoint>,
}

impl Freshness {
    pub(super) fn load(tx: &Tx<'_>) -> Result<Self, EngineError> {
        Ok(Self {
            newest_ms: rows::load(tx, META, FRESH)?.unwrap_or(0),
            ..Self::default()
        })
    }

    /// How long ago an owner or admin last stated something, ms.
    pub(super) fn age_ms(&self, now_ms: u64) -> Option<u64> {
        (self.newest_ms > 0).then(|| now_ms.saturating_sub(self.newest_ms))
    }
}

impl State {
    /// Somebody who may say so has said that the roster ended here then; what the clock cannot know counts as now.
    fn note_statement(&mut self, tx: &Tx<'_>, at_ms: u64) -> Result<(), EngineError> {
        let at_ms = at_ms.min(self.now_ms);
        if at_ms <= self.fresh.newest_ms {
            return Ok(());
        }
        let blocked = self.stale_block().is_some();
        self.fresh.newest_ms = at_ms;
        self.fresh.lapsed = false;
        if blocked {
            // What had to wait may go.
            self.dirty.extend(self.group_ids(tx)?);
        }
        rows::put(tx, META, FRESH, &at_ms)
    }

    /// An owner's or admin's entry says as much as a checkpoint; one's own admission is where waiting begins.
    pub(super) fn note_entry(
        &mut self,
        tx: &Tx<'_>,
        entry: &SignedEntry,
    ) -> Result<(), EngineError> {
        let tbs = entry.tbs();
        let authority = match tbs.signer {
            EntrySigner::Root => true,
            EntrySigner::Device(device) => self.roster.device(device).is_some_and(|d| {
                let role = self.roster.role_at(d.user, tbs.seq);
                role.is_some_and(Role::administers)
            }),
            EntrySigner::Invitation(_) => tbs
                .ops
                .iter()
                .any(|op| matches!(op, Op::AddDevice(add) if add.device() == self.identity.device)),
        };
        if authority {
            self.note_statement(tx, tbs.issued_at_ms)?;
        }
        Ok(())
    }

    /// Checks statements, wherever they come from.
    pub(super) fn handle_checkpoints(
        &mut self,
        tx: &Tx<'_>,
        checkpoints: &[Checkpoint],
    ) -> Result<(), EngineError> {
        for checkpoint in checkpoints.iter().take(limits::MAX_CHECKPOINTS) {
            if checkpoint.issued_at_ms > self.now_ms.saturating_add(MAX_ISSUE_SKEW_MS) {
                continue;
            }
            let seq = checkpoint.head.seq;
            match checkpoint.verify(&self.roster) {
                Ok(()) => {
                    let at = checkpoint.issued_at_ms;
                    self.note_statement(tx, at)?;
                    if at > self.fresh.newest_checkpoint_ms {
                        self.fresh.newest_checkpoint_ms = at;
                        self.fresh.sign_at = None;
                    }
                }
                Err(CheckpointFault::Fork) => self.distrust(Alarm::RosterFork { seq }),
                Err(CheckpointFault::Beyond) => {
                    if let Some(link) = &mut self.link {
                        link.need_roster = link.need_roster.max(seq);
                    }
                    if self.fresh.beyond.len() < limits::MAX_CHECKPOINTS {
                        self.fresh.beyond.push(*checkpoint);
                    }
                }
                Err(CheckpointFault::Signer) => {}
            }
        }
        Ok(())
    }

    /// Judges what had to wait for the roster.
    pub(super) fn judge_beyond(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let head = self.roster.head().seq;
        let (ready, waiting) = std::mem::take(&mut self.fresh.beyond)
            .into_iter()
            .partition(|c: &Checkpoint| c.head.seq <= head);
        self.fresh.beyond = waiting;
        self.handle_checkpoints(tx, &ready)
    }

    /// The relay has this device's own statement.
    pub(super) fn handle_checkpoint_stored(
        &mut self,
        tx: &Tx<'_>,
        issued_at_ms: u64,
    ) -> Result<(), EngineError> {
        self.fresh.newest_checkpoint_ms = self.fresh.newest_checkpoint_ms.max(issued_at_ms);
        self.note_statement(tx, issued_at_ms)
    }

    /// Asks, signs, and warns, each when it is due.
    pub(super) fn pump_freshness(&mut self) {
        let head = self.roster.head().seq;
        let Some(link) = self.online() else {
            self.fresh.sign_at = None;
            return;
        };
        if link.relay_head.max(link.need_roster) > head {
            return;
        }
        let may = link.may_ask(&Asked::FetchCheckpoints);
        if may && std::mem::take(&mut link.checkpoints_waiting) {
            self.ask(Asked::FetchCheckpoints, Request::FetchCheckpoints);
            return;
        }
        if !link.checkpoints_known {
            return;
        }
        if self.administers() {
            self.sign_when_due();
        } else {
            self.warn_when_stale();
        }
    }

    /// The relay has not taken this device's statement: it may have another by now, or room.
    pub(super) fn handle_checkpoint_refused(&mut self, refusal: &Refusal) {
        if matches!(refusal, Refusal::Storage) {
            self.fresh.sign_at = Some(self.now_ms + SPREAD_MS);
        }
    }

    fn sign_when_due(&mut self) {
        let now = self.now_ms;
        let due = self.fresh.newest_checkpoint_ms + limits::CHECKPOINT_EVERY_MS;
        let at = match self.fresh.sign_at {
            Some(at) => at,
            // Who comes back and finds nothing fresh signs at once; whoever is there takes turns.
            None if due <= now => now,
            None => due + u64::from(self.rng.next_u32()) % SPREAD_MS,
        };
        self.fresh.sign_at = Some(at);
        if at > now {
            return;
        }
        // Until the answer: the relay's, or another connection's.
        self.fresh.sign_at = Some(now + limits::CHECKPOINT_EVERY_MS);
        let me = self.identity.clone();
        let checkpoint = Checkpoint::sign(me.org, self.roster.head(), now, me.device, &me.mls);
        let asked = Asked::PutCheckpoint { issued_at_ms: now };
        self.ask(asked, Request::PutCheckpoint { checkpoint });
    }

    fn warn_when_stale(&mut self) {
        if self.fresh.lapsed {
            return;
        }
        if let Some((age_ms, limit_ms)) = self.staleness() {
            self.fresh.lapsed = true;
            self.alarm(Alarm::Stale { age_ms, limit_ms });
        }
    }

    /// How long there has been no statement, and how long there may be none, if it is too long; ms.
    fn staleness(&self) -> Option<(u64, u64)> {
        let policy = self.roster.policy()?;
        let age = self.fresh.age_ms(self.now_ms)?;
        let limit = policy.staleness_limit_ms;
        let watched = policy.staleness != Staleness::Off;
        (watched && age > limit).then_some((age, limit))
    }

    /// Why nothing may be sent in groups, if the policy says so (REQ-106). Orders and administration go on.
    pub(super) fn stale_block(&self) -> Option<CommandError> {
        let policy = self.roster.policy()?;
        if policy.staleness != Staleness::Block || self.administers() {
            return None;
        }
        let (age_ms, limit_ms) = self.staleness()?;
        Some(CommandError::Stale { age_ms, limit_ms })
    }

    /// Whether a new message is refused: not while this connection may still bring a statement.
    pub(super) fn refuses_stale(&self) -> Option<CommandError> {
        let knows = self.link.as_ref().is_none_or(|link| link.checkpoints_known);
        self.stale_block().filter(|_| knows)
    }

    /// When to look again, ms since 1970.
    pub(super) fn next_freshness_at(&self) -> Option<u64> {
        let policy = self.roster.policy()?;
        let lapse = self.fresh.newest_ms + policy.staleness_limit_ms + 1;
        let watches = policy.staleness != Staleness::Off && !self.fresh.lapsed;
        let lapse = (watches && self.fresh.newest_ms > 0 && !self.administers()).then_some(lapse);
        let due = self.fresh.sign_at.into_iter().chain(lapse);
        due.filter(|at| *at > self.now_ms).min()
    }
}
