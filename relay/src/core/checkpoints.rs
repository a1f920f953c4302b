//! Checkpoints: the newest statement of each owner's and admin's device, kept and passed on (REQ-105).

use mortise_protocol::identity::{DeviceId, OrgId};
use mortise_protocol::roster::{Checkpoint, CheckpointFault, Role, check_issue_time};
use mortise_protocol::wire::{Push, Refusal, Response, limits};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

use super::ConnId;
use super::layout::{self, CHECKPOINTS, of_device};
use super::turn::{Answer, Caller, Turn};

/// A statement, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct CheckpointRecord {
    /// Relay's clock, ms since 1970.
    pub at_ms: u64,
    /// As it came.
    pub checkpoint: Checkpoint,
}

impl Turn<'_> {
    /// Keeps the caller's statement, if it is newer than the one before, and tells everybody.
    pub(super) fn put_checkpoint(&mut self, caller: &Caller, checkpoint: &Checkpoint) -> Answer {
        if (checkpoint.org, checkpoint.device) != (caller.org, caller.device) {
            return Err(Refusal::Malformed.into());
        }
        let roster = self.roster(caller.org)?;
        match checkpoint.verify(roster) {
            Ok(()) if roster.role(caller.user).is_some_and(Role::administers) => {}
            Ok(()) | Err(CheckpointFault::Signer) => return Err(Refusal::Forbidden.into()),
            // What arrives convicts the relay: it lets nothing past that is not its own chain (REQ-048).
            Err(_) => return Err(Refusal::RosterFork.into()),
        }
        let skew = self.config.max_clock_skew_ms;
        check_issue_time(checkpoint.issued_at_ms, self.now_ms, skew)
            .map_err(|error| self.refuse_entry(&error))?;
        let key = of_device(caller.org, caller.device);
        let before: Option<CheckpointRecord> = layout::load(self.tx, CHECKPOINTS, &key)?;
        if let Some(before) = before {
            if before.checkpoint == *checkpoint {
                return Ok(Response::Done);
            }
            let again_at = before.at_ms.saturating_add(limits::CHECKPOINT_GAP_MS);
            if before.checkpoint.issued_at_ms >= checkpoint.issued_at_ms || self.now_ms < again_at {
                let retry_after_ms = again_at.saturating_sub(self.now_ms);
                return Err(Refusal::RateLimited { retry_after_ms }.into());
            }
        }
        let record = CheckpointRecord {
            at_ms: self.now_ms,
            checkpoint: *checkpoint,
        };
        layout::save(self.tx, CHECKPOINTS, key, &record);
        let listeners: Vec<ConnId> = self
            .connections
            .of_org(caller.org)
            .into_iter()
            .map(|(_, conn)| conn)
            .filter(|conn| *conn != caller.conn && self.caller(*conn).is_some())
            .collect();
        for conn in listeners {
            let checkpoint = *checkpoint;
            self.push(conn, Push::Checkpoint { checkpoint });
        }
        Ok(Response::Done)
    }

    /// The newest statement of each signer who may still make one, the newest first.
    pub(super) fn fetch_checkpoints(&mut self, caller: &Caller) -> Answer {
        let roster = self.roster(caller.org)?;
        let mut checkpoints = Vec::new();
        for (_, row) in self.tx.scan(CHECKPOINTS, &caller.org.0)? {
            let record: CheckpointRecord = layout::read(&row)?;
            let signer = roster.device(record.checkpoint.device);
            let role = signer.and_then(|device| roster.role(device.user));
            if role.is_some_and(Role::administers) {
                checkpoints.push(record.checkpoint);
            }
        }
        checkpoints.sort_by_key(|c| std::cmp::Reverse((c.issued_at_ms, c.device)));
        checkpoints.truncate(limits::MAX_CHECKPOINTS);
        Ok(Response::Checkpoints { checkpoints })
    }

    /// Deletes the statement of a device that an order named (REQ-062).
    pub(super) fn delete_checkpoint(&mut self, org: OrgId, device: DeviceId) {
        self.tx.delete(CHECKPOINTS, of_device(org, device));
    }
}
