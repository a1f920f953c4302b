//! What people do in tests, in a line each.

use mortise_protocol::engine::{Alarm, CommandKind, Event, GroupView, HistoryKind, IntentId};
use mortise_protocol::identity::{Epoch, GroupId, LogSeq, RosterSeq, decode};
use mortise_protocol::roster::Role;
use mortise_protocol::store::Reader as _;
use mortise_protocol::wire::log::{LogCursor, entry_hash};
use mortise_protocol::wire::{LogRecord, RecordBody};
use mortise_relay::core::layout;

use super::{PersonId, World};

/// The wall clock, ms since 1970: openmls compares lifetimes with it, so a world's time starts near it.
#[must_use]
pub fn wall_clock_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// The cursor at the end of a log that is read from its first record on (REQ-044).
///
/// # Panics
/// When there is no record.
pub fn log_cursor<'a>(
    group: GroupId,
    records: impl IntoIterator<Item = &'a LogRecord>,
) -> LogCursor {
    let cursor = records.into_iter().fold(None, |cursor, record| {
        Some(log_cursor_after(group, cursor, record))
    });
    cursor.expect("a log with a record")
}

/// The cursor after one more record, whatever it is.
#[must_use]
pub fn log_cursor_after(
    group: GroupId,
    before: Option<LogCursor>,
    record: &LogRecord,
) -> LogCursor {
    let body = decode(record.payload.as_slice());
    match before {
        None => {
            let entry = entry_hash(group, Epoch(0), record.payload.as_slice());
            LogCursor::created(entry, record.fence)
        }
        Some(cursor) if matches!(body, Ok(RecordBody::Commit(_))) => {
            cursor.opens(record.record_id(), record.fence)
        }
        Some(cursor) => cursor.after(record.record_id(), record.fence),
    }
}

impl World {
    /// An organisation of members who are all online: the first is the owner.
    pub fn with_people(seed: u64, suite: u16, names: &[&str]) -> (Self, Vec<PersonId>) {
        let mut world = Self::new(seed, wall_clock_ms());
        let mut people = vec![world.found(names[0], suite)];
        for name in &names[1..] {
            people.push(world.invite(people[0], name, Role::Member));
        }
        (world, people)
    }

    /// A group that `creator` makes with the others; everybody has joined.
    ///
    /// # Panics
    /// When it was not created.
    pub fn group(&mut self, creator: PersonId, others: &[PersonId]) -> GroupId {
        let members = others.iter().map(|p| self.people[p.0].user()).collect();
        let name = "Plans".to_owned();
        let id = self.command(creator, CommandKind::CreateGroup { name, members });
        self.settle();
        self.people[creator.0]
            .events
            .iter()
            .find_map(|event| match event {
                Event::GroupCreated { id: i, group } if *i == id => Some(*group),
                _ => None,
            })
            .expect("the group was created")
    }

    /// Sends a text, and does not wait.
    pub fn say(&mut self, who: PersonId, group: GroupId, text: &str) -> IntentId {
        let text = text.to_owned();
        self.command(who, CommandKind::SendText { group, text })
    }

    /// The texts in somebody's history.
    ///
    /// # Panics
    /// When the store cannot be read.
    #[must_use]
    pub fn texts(&self, who: PersonId, group: GroupId) -> Vec<String> {
        let lines = self.people[who.0]
            .engine()
            .messages(group, LogSeq(0), usize::MAX);
        lines
            .expect("a history")
            .into_iter()
            .filter_map(|line| match line.kind {
                HistoryKind::Text(text) => Some(text),
                _ => None,
            })
            .collect()
    }

    /// A group as somebody sees it.
    ///
    /// # Panics
    /// When they do not know it.
    pub fn view(&mut self, who: PersonId, group: GroupId) -> GroupView {
        let groups = self.people[who.0].engine_mut().groups().expect("groups");
        groups
            .into_iter()
            .find(|view| view.id == group)
            .expect("the group is known")
    }

    /// Orders a user's removal and waits for quiet; returns the order.
    ///
    /// # Panics
    /// When it was not ordered.
    pub fn remove(&mut self, by: PersonId, who: PersonId) -> RosterSeq {
        let user = self.people[who.0].user();
        let id = self.command(by, CommandKind::RemoveUser { user });
        self.settle();
        self.people[by.0]
            .events
            .iter()
            .find_map(|event| match event {
                Event::Ordered { id: i, order } if *i == id => Some(*order),
                _ => None,
            })
            .expect("the order was given")
    }

    /// The alarms that somebody has raised.
    pub fn alarms(&self, who: PersonId) -> impl Iterator<Item = &Alarm> {
        self.people[who.0]
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Alarm(alarm) => Some(alarm),
                _ => None,
            })
    }

    /// One-time KeyPackages that the relay holds of somebody's device.
    ///
    /// # Panics
    /// When the disk cannot be read.
    #[must_use]
    pub fn stock_of(&self, who: PersonId) -> usize {
        let engine = self.people[who.0].engine();
        let prefix = [&engine.org().0[..], &engine.device().0].concat();
        self.disk
            .range(layout::KEY_PACKAGES, &prefix, &[], usize::MAX)
            .expect("the disk reads")
            .len()
    }

    /// A group's whole log, from the relay's disk.
    ///
    /// # Panics
    /// When the disk does not hold what the relay wrote.
    #[must_use]
    pub fn log(&self, group: GroupId) -> Vec<LogRecord> {
        let rows = self
            .disk
            .range(layout::LOG, &group.0, &[], usize::MAX)
            .expect("the disk reads");
        rows.iter()
            .map(|(_, row)| decode(&row[1..]).expect("a version byte and a record"))
            .collect()
    }
}
