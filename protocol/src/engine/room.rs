//! What the relay has no room for, or does not want: kept, said to the user, and tried again.

use std::collections::BTreeSet;

use super::rows::{self, INTENTS, IntentRow, OUTBOX, OutboxRow};
use super::state::State;
use super::{EngineError, Event, IntentId, Output};
use crate::identity::GroupId;
use crate::store::Tx;
use crate::wire::Refusal;

/// What the user has been told in this session about a relay that takes nothing.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Commands that wait for room on the relay's disk.
    delayed: BTreeSet<IntentId>,
    /// Why the relay does not talk to this device; until it does.
    turned_away: Option<Refusal>,
}

impl State {
    /// The relay could not store something of this group: it is kept and tried again, and so is all that is behind it.
    pub(super) fn wait_for_room(&mut self, tx: &Tx<'_>, group: GroupId) -> Result<(), EngineError> {
        if let Some(link) = &mut self.link {
            link.no_room.insert(group);
        }
        self.unsettled.insert(group);
        self.retry_later();
        self.tell_delayed(tx, group)
    }

    /// Tells the user, once each, of the commands that wait because the relay has no room for this group.
    pub(super) fn tell_delayed(&mut self, tx: &Tx<'_>, group: GroupId) -> Result<(), EngineError> {
        if !self
            .link
            .as_ref()
            .is_some_and(|link| link.no_room.contains(&group))
        {
            return Ok(());
        }
        let outbox = rows::of_group::<OutboxRow>(tx, OUTBOX, group)?;
        let stored: BTreeSet<u64> = outbox
            .into_iter()
            .filter(|(_, row)| row.acked)
            .filter_map(|(_, row)| row.intent)
            .collect();
        for (number, _) in rows::of_group::<IntentRow>(tx, INTENTS, group)? {
            let id = IntentId(number);
            if !stored.contains(&number) && self.told.delayed.insert(id) {
                self.event(Event::Delayed { id, group });
            }
        }
        Ok(())
    }

    /// Whether all is dealt with but what the relay has no room for.
    pub(super) fn waits_for_room_only(&self) -> bool {
        let no_room = |group| {
            let link = self.link.as_ref();
            link.is_some_and(|link| link.no_room.contains(group))
        };
        self.is_up_to_date() && !self.unsettled.is_empty() && self.unsettled.iter().all(no_room)
    }

    /// The relay does not let this connection begin: another one is tried, for it may be put right there.
    pub(super) fn handle_turned_away(
        &mut self,
        tx: &Tx<'_>,
        refusal: Refusal,
    ) -> Result<(), EngineError> {
        if self.told.turned_away.as_ref() != Some(&refusal) {
            self.told.turned_away = Some(refusal.clone());
            self.event(Event::TurnedAway { refusal });
        }
        self.out.push(Output::Reconnect);
        self.handle_disconnected(tx)
    }

    /// The relay talks to this device.
    pub(super) fn handle_let_in(&mut self) {
        self.told.turned_away = None;
    }

    pub(super) fn turned_away(&self) -> Option<&Refusal> {
        self.told.turned_away.as_ref()
    }
}
