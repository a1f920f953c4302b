//! Safety numbers that people have compared: remembered, and said when one is no longer what it was (REQ-018).

use serde::{Deserialize, Serialize};

use super::rows::{self, COMPARED};
use super::state::State;
use super::{CommandError, EngineError, Event};
use crate::identity::{PublicKey, UserId, safety_number};
use crate::roster::{Applied, Roster};
use crate::store::{Reader, Tx};

/// A number that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ComparedRow {
    /// What both saw.
    pub(super) number: String,
    /// The device's clock, ms since 1970.
    pub(super) at_ms: u64,
    /// It has been another one since, and the user was told.
    pub(super) changed: bool,
}

/// What came of comparing a number (REQ-018).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// When it was compared, the device's clock, ms since 1970.
    pub at_ms: u64,
    /// Whether it has been another one since.
    pub changed: bool,
}

/// The number that two users compare; `None` for a user whom the roster does not know.
pub(super) fn number_of(roster: &Roster, me: UserId, other: UserId) -> Option<String> {
    roster.user(other)?;
    let keys = |user| -> Vec<PublicKey> {
        let devices = roster.devices_of(user);
        devices.map(|(_, d)| d.mls_signature_key).collect()
    };
    Some(safety_number((me, &keys(me)), (other, &keys(other))))
}

/// What is known of comparing with a user.
pub(super) fn compared_with(
    reader: &dyn Reader,
    user: UserId,
) -> Result<Option<Compared>, EngineError> {
    let row: Option<ComparedRow> = rows::load(&Tx::new(reader), COMPARED, &user.0)?;
    Ok(row.map(|row| Compared {
        at_ms: row.at_ms,
        changed: row.changed,
    }))
}

impl State {
    /// The user has compared the present number with a colleague.
    pub(super) fn mark_compared(
        &mut self,
        tx: &Tx<'_>,
        user: UserId,
    ) -> Result<Result<(), CommandError>, EngineError> {
        let me = self.identity.user;
        let Some(number) = number_of(&self.roster, me, user).filter(|_| user != me) else {
            return Ok(Err(CommandError::UnknownUser));
        };
        let row = ComparedRow {
            number,
            at_ms: self.now_ms,
            changed: false,
        };
        rows::put(tx, COMPARED, user.0, &row)?;
        Ok(Ok(()))
    }

    /// Somebody has other devices now: who compared numbers with them is told, once.
    pub(super) fn check_compared(
        &mut self,
        tx: &Tx<'_>,
        applied: &Applied,
    ) -> Result<(), EngineError> {
        if applied.added_devices.is_empty() && applied.order.is_none() {
            return Ok(());
        }
        for (key, value) in tx.scan(COMPARED, &[])? {
            let mut row: ComparedRow = rows::from_bytes(&value)?;
            let user = <[u8; 16]>::try_from(key.as_slice());
            let user = user.map_err(|_| EngineError::Damaged { row: "a user's id" })?;
            let user = UserId(user);
            let now = number_of(&self.roster, self.identity.user, user);
            if row.changed || now.as_ref() == Some(&row.number) {
                continue;
            }
            row.changed = true;
            rows::put(tx, COMPARED, key, &row)?;
            self.event(Event::NumberChanged { user });
        }
        Ok(())
    }
}
