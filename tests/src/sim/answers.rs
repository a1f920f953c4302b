//! What users asked for: every wish ends in exactly one answer.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::engine::{Event, IntentId};

use super::Broken;
use crate::world::{PersonId, World};

/// When a wish is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// As soon as a record is in the log.
    Appended,
    /// When all of it is done.
    Done,
}

/// The wishes of a seed.
#[derive(Default)]
pub(super) struct Answers {
    open: BTreeMap<(PersonId, IntentId), (Until, String)>,
    answered: BTreeSet<(PersonId, IntentId)>,
}

impl Answers {
    /// Somebody has asked for something, and their device has stored it; `is_brief`: it is answered once a record is in the
    /// log.
    pub(super) fn expect(&mut self, who: PersonId, id: IntentId, is_brief: bool, what: String) {
        let until = if is_brief {
            Until::Appended
        } else {
            Until::Done
        };
        self.open.insert((who, id), (until, what));
        // Ids are only unique while something is going on.
        self.answered.remove(&(who, id));
    }

    /// Somebody's device has said something.
    pub(super) fn watch(&mut self, who: PersonId, event: &Event) -> Result<(), Broken> {
        let (id, is_all) = match event {
            Event::Appended { id, .. } => (*id, false),
            Event::Done { id }
            | Event::Failed { id, .. }
            | Event::Ordered { id, .. }
            | Event::Invited { id, .. }
            | Event::OrderStatus { id, .. }
            | Event::GroupContinued { id: Some(id), .. } => (*id, true),
            _ => return Ok(()),
        };
        match self.open.get(&(who, id)) {
            Some((until, _)) if is_all || *until == Until::Appended => {
                self.open.remove(&(who, id));
                self.answered.insert((who, id));
                Ok(())
            }
            None if self.answered.contains(&(who, id)) => Err(Broken::new(
                "every wish has one answer",
                format!("{who:?}, {event:?}: answered before"),
            )),
            // Before it is done, or of a wish that the device had not stored.
            _ => Ok(()),
        }
    }

    /// Nobody who is here still waits.
    pub(super) fn check(
        &self,
        world: &World,
        is_here: impl Fn(PersonId) -> bool,
    ) -> Result<(), Broken> {
        match self.open.iter().find(|((who, _), _)| is_here(*who)) {
            None => Ok(()),
            Some(((who, id), (_, what))) => Err(Broken::new(
                "every wish has one answer",
                format!("{} waits for {id:?}: {what}", world.people[who.0].name),
            )),
        }
    }
}
