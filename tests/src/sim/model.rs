//! The reference model: what everybody must agree on, filled from what the relay stores and what devices say.
//!
//! It must never decide anything for the world; it only watches and objects.

use std::collections::{BTreeMap, BTreeSet};

use mortise_protocol::engine::{Event, GroupStatusView, IntentId};
use mortise_protocol::identity::{
    DeviceId, Epoch, GroupId, Hash, LogSeq, OrgId, Pin, RosterSeq, UserId,
};
use mortise_protocol::roster::Roster;
use mortise_protocol::store::{MemoryStore, Write};
use mortise_protocol::wire::log::LogCursor;
use mortise_protocol::wire::{InboxItem, LogRecord};

use super::Broken;
use super::answers::Answers;
use super::story::Story;
use super::villainy::Villainy;
use crate::world::{PersonId, Served, World};

/// A text that somebody wanted to send.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) who: PersonId,
    pub(super) group: GroupId,
    /// The user was told that it failed.
    pub(super) failed: bool,
    /// Where it is in the log.
    pub(super) place: Option<(GroupId, LogSeq)>,
}

/// An epoch of a group, as the first member who reported it saw it.
#[derive(Clone, Debug)]
pub(super) struct EpochView {
    pub(super) authenticator: Vec<u8>,
    pub(super) members: BTreeSet<DeviceId>,
}

/// A record of a group's log, as the relay has stored it.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) id: Hash,
    pub(super) record: LogRecord,
    pub(super) kind: RecordKind,
    /// The cursor of whoever has read the log up to here (REQ-044).
    pub(super) cursor: LogCursor,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Create,
    Commit,
    Message,
    Attestation,
    Restart,
    Leave,
}

/// A device that an order named, with what it had stored when the order was given.
pub(super) struct Departed {
    pub(super) order: RosterSeq,
    pub(super) who: PersonId,
    pub(super) store: MemoryStore,
    /// What a colleague who stays had stored then.
    pub(super) control: Option<MemoryStore>,
}

/// An invitation that nobody has redeemed yet.
pub(super) struct Invited {
    pub(super) user: UserId,
    pub(super) link: String,
    pub(super) pin: Option<Pin>,
}

/// What somebody holds of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) epoch: u64,
    pub(super) active: bool,
    pub(super) members: BTreeSet<DeviceId>,
    pub(super) admins: Vec<UserId>,
    /// It was closed, or goes on in another group.
    pub(super) ended: bool,
    pub(super) successor: Option<GroupId>,
    /// What it continues.
    pub(super) predecessor: Option<GroupId>,
}

/// The model.
pub(super) struct Model {
    pub(super) org: OrgId,
    /// Who founded it, and who else may give orders.
    pub(super) owner: PersonId,
    pub(super) admin: PersonId,
    pub(super) roster: Roster,
    /// Which groups are of this organisation.
    pub(super) own_groups: BTreeSet<GroupId>,
    pub(super) logs: BTreeMap<GroupId, Vec<Logged>>,
    /// What a record says, by whoever could read it first.
    pub(super) contents: BTreeMap<(GroupId, LogSeq), String>,
    pub(super) epochs: BTreeMap<(GroupId, u64), EpochView>,
    pub(super) texts: BTreeMap<String, Sent>,
    pub(super) intents: BTreeMap<(PersonId, IntentId), String>,
    pub(super) answers: Answers,
    /// Which lines of history somebody was told of.
    pub(super) lines: BTreeSet<(PersonId, GroupId, LogSeq)>,
    /// Texts that devices have read, to be checked against the trees of their epochs.
    pub(super) reads: BTreeSet<(GroupId, u64, DeviceId)>,
    pub(super) held: BTreeMap<(PersonId, GroupId), Held>,
    pub(super) departed: BTreeMap<DeviceId, Departed>,
    pub(super) invited: Vec<Invited>,
    /// Every roster entry, as it was signed.
    pub(super) entries: BTreeMap<RosterSeq, Vec<u8>>,
    /// Every Welcome that the relay ever had, numbered anew.
    pub(super) welcomes: Vec<InboxItem>,
    /// What users were told about orders that they asked about.
    pub(super) statuses: BTreeMap<(PersonId, IntentId), Vec<mortise_protocol::engine::OrderGroup>>,
    pub(super) villainy: Option<Villainy>,
    /// Everything is healed: what is broken now stays broken.
    pub(super) is_over: bool,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) story: Story,
    cursors: Vec<usize>,
}

impl Model {
    /// A model of one organisation in a world that has begun: nobody is in a group yet.
    pub(super) fn new(world: &World, owner: PersonId) -> Self {
        let engine = world.people[owner.0].engine();
        Self {
            org: engine.org(),
            owner,
            admin: PersonId(owner.0 + 1),
            roster: engine.roster().clone(),
            own_groups: BTreeSet::new(),
            logs: BTreeMap::new(),
            contents: BTreeMap::new(),
            epochs: BTreeMap::new(),
            texts: BTreeMap::new(),
            intents: BTreeMap::new(),
            answers: Answers::default(),
            lines: BTreeSet::new(),
            reads: BTreeSet::new(),
            held: BTreeMap::new(),
            departed: BTreeMap::new(),
            invited: Vec::new(),
            entries: BTreeMap::new(),
            welcomes: Vec::new(),
            statuses: BTreeMap::new(),
            villainy: None,
            is_over: false,
            counts: BTreeMap::new(),
            story: Story::default(),
            cursors: Vec::new(),
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Whether somebody belongs to this organisation.
    pub(super) fn is_of(&self, world: &World, who: PersonId) -> bool {
        let person = &world.people[who.0];
        person.is_in() && person.engine().org() == self.org
    }

    /// Looks at all that has happened since the last time: what the relay has stored, what it has served.
    pub(super) fn check(
        &mut self,
        world: &mut World,
        stored: &[Vec<Write>],
        served: &[Served],
    ) -> Result<(), Broken> {
        for batch in stored {
            self.watch_relay(world, batch)?;
        }
        self.watch_served(world, served)?;
        self.cursors.resize(world.people.len(), 0);
        for i in 0..world.people.len() {
            if !self.is_of(world, PersonId(i)) {
                continue;
            }
            let from = self.cursors[i];
            let to = world.people[i].events.len();
            if from == to {
                continue;
            }
            self.cursors[i] = to;
            self.watch_events(world, PersonId(i), from)?;
        }
        if let Some(person) = world.people.iter().find(|p| p.broken.is_some()) {
            let why = person.broken.clone().unwrap_or_default();
            return Err(Broken::new(
                "an engine names its own defect",
                format!("{}: {why}", person.name),
            ));
        }
        Ok(())
    }

    /// The relay must not serve a departed device what came after its order (promise 1).
    fn watch_served(&self, world: &World, served: &[Served]) -> Result<(), Broken> {
        for served in served {
            let person = &world.people[served.to.0];
            if self.own_groups.contains(&served.group) && !self.is_of(world, served.to) {
                let detail = format!("{} got {:?}", person.name, served);
                return Err(Broken::new("organisations do not mix", detail));
            }
            let Some(gone) = self.departed.get(&person.device()) else {
                continue;
            };
            if served.fence >= gone.order {
                let detail = format!("{} got {:?}", person.name, served);
                return Err(Broken::new("the relay serves a departed device", detail));
            }
        }
        Ok(())
    }

    fn watch_events(
        &mut self,
        world: &mut World,
        who: PersonId,
        from: usize,
    ) -> Result<(), Broken> {
        if self.is_villain(who) {
            return Ok(());
        }
        let events: Vec<Event> = world.people[who.0].events[from..].to_vec();
        let name = world.people[who.0].name.clone();
        let mut look = false;
        for event in events {
            if !matches!(event, Event::Synced | Event::Online) {
                let at = world.elapsed_ms();
                self.story.tell(at, || format!("{name}: {event:?}"));
            }
            self.answers.watch(who, &event)?;
            match event {
                Event::Message { group, seq } => {
                    look |= self.watch_line(world, who, group, seq)?;
                }
                Event::Joined { .. } => {
                    look = true;
                    self.count("joins");
                }
                Event::GroupCreated { .. } | Event::GroupContinued { .. } => look = true,
                Event::Alarm(alarm) if self.is_deserved(&alarm) => {
                    self.count("alarms that name the villain");
                    look = true;
                }
                Event::Alarm(alarm) => {
                    return Err(Broken::new(
                        "no alarm when nobody lies",
                        format!("{name}: {alarm:?}"),
                    ));
                }
                Event::Failed { id, .. } => self.watch_failed(who, id),
                Event::Appended { id, group, seq } => self.watch_appended(who, id, group, seq)?,
                Event::Expelled => {
                    self.count("expelled");
                    if !self.departed.contains_key(&world.people[who.0].device()) {
                        return Err(Broken::new("nobody is expelled without an order", name));
                    }
                }
                Event::Invited {
                    link, pin, user, ..
                } => {
                    let link = link.to_text(crate::world::ADDRESS, Hash([0; 32]));
                    let link = link.to_string();
                    self.invited.push(Invited { user, link, pin });
                }
                Event::OrderStatus { id, groups, .. } => {
                    self.statuses.insert((who, id), groups);
                }
                _ => {}
            }
        }
        if look {
            self.look_at_groups(world, who)?;
        }
        Ok(())
    }

    fn watch_failed(&mut self, who: PersonId, id: IntentId) {
        self.count("failed commands");
        if let Some(sent) = self
            .intents
            .get(&(who, id))
            .and_then(|token| self.texts.get_mut(token))
        {
            sent.failed = true;
        }
    }

    /// What the relay acknowledged is where it said.
    fn watch_appended(
        &mut self,
        who: PersonId,
        id: IntentId,
        group: GroupId,
        seq: LogSeq,
    ) -> Result<(), Broken> {
        let Some(token) = self.intents.get(&(who, id)).cloned() else {
            return Ok(());
        };
        self.place(&token, (group, seq))
    }

    /// One token, one place.
    pub(super) fn place(&mut self, token: &str, place: (GroupId, LogSeq)) -> Result<(), Broken> {
        let Some(sent) = self.texts.get_mut(token) else {
            return Err(Broken::new("nobody reads what nobody wrote", token));
        };
        match sent.place {
            Some(before) if before != place => Err(Broken::new(
                "nothing twice",
                format!("{token} is at {before:?} and at {place:?}"),
            )),
            _ => {
                sent.place = Some(place);
                Ok(())
            }
        }
    }

    /// Equal epochs have equal authenticators and members.
    pub(super) fn look_at_groups(
        &mut self,
        world: &mut World,
        who: PersonId,
    ) -> Result<(), Broken> {
        let person = &mut world.people[who.0];
        let (name, device) = (person.name.clone(), person.device());
        let views = person
            .engine_mut()
            .groups()
            .map_err(|e| Broken::new("an engine names its own defect", format!("{name}: {e}")))?;
        for view in views {
            let members: BTreeSet<DeviceId> = view.members.iter().map(|m| m.device).collect();
            // What a villain has broken is mended, but for who is out meanwhile.
            let is_gone = self.departed.contains_key(&device);
            let may_stop = self.villainy.is_some() && (!self.is_over || is_gone);
            if let GroupStatusView::Stopped(why) = &view.status
                && !may_stop
            {
                return Err(Broken::new(
                    "no group stops when nobody lies",
                    format!("{name}, {:?}: {why}", view.id),
                ));
            }
            let active = view.status == GroupStatusView::Active;
            let held = Held {
                epoch: view.epoch,
                active,
                members: members.clone(),
                admins: view.admins.clone(),
                ended: matches!(
                    view.status,
                    GroupStatusView::Closed | GroupStatusView::Continued { .. }
                ),
                successor: view.successor,
                predecessor: view.predecessor,
            };
            self.held.insert((who, view.id), held);
            if !active {
                continue;
            }
            let seen = EpochView {
                authenticator: view.epoch_authenticator,
                members,
            };
            let known = self
                .epochs
                .entry((view.id, view.epoch))
                .or_insert_with(|| seen.clone());
            if known.authenticator != seen.authenticator || known.members != seen.members {
                return Err(Broken::new(
                    "equal epochs are equal",
                    format!("{name}, {:?} epoch {}", view.id, view.epoch),
                ));
            }
        }
        Ok(())
    }

    /// The log's newest epoch.
    pub(super) fn head_epoch(&self, group: GroupId) -> Epoch {
        let commits = self
            .logs
            .get(&group)
            .into_iter()
            .flatten()
            .filter(|l| l.kind == RecordKind::Commit)
            .count();
        Epoch(commits as u64)
    }

    /// Whether a group was made to continue another that goes on elsewhere: who read that first has forgotten it (REQ-153).
    pub(super) fn has_lost_its_race(&self, group: GroupId) -> bool {
        let of_group = self.held.iter().filter(|((_, g), _)| *g == group);
        let mut before = of_group.filter_map(|(_, held)| held.predecessor);
        before.any(|before| {
            let mut held = self.held.iter().filter(|((_, g), _)| *g == before);
            held.any(|(_, held)| held.successor.is_some_and(|next| next != group))
        })
    }

    /// Who is in a group now, if anybody has said.
    pub(super) fn tree(&self, group: GroupId, epoch: u64) -> Option<&BTreeSet<DeviceId>> {
        self.epochs.get(&(group, epoch)).map(|e| &e.members)
    }
}
