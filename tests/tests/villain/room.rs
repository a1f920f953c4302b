//! A group with a villain in it, and somebody who is outside.

use mortise_protocol::engine::{Alarm, GroupStatusView, HistoryKind, HistoryRecord};
use mortise_protocol::group::{Violation, storage::MLS};
use mortise_protocol::identity::{DeviceId, GroupId, LogSeq};
use mortise_protocol::roster::Role;
use mortise_protocol::store::Reader as _;
use mortise_tests::villain::{Crafted, Line, Villain};
use mortise_tests::world::{PersonId, Template, World, wall_clock_ms};

/// What a promise of repair may take, ms.
pub(crate) const REPAIR_MS: u64 = 5_000;

/// Somebody's rows of one table.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A group; the first of its members is its admin, the last is the villain.
pub(crate) struct Room {
    pub(crate) world: World,
    pub(crate) members: Vec<PersonId>,
    pub(crate) outsider: PersonId,
    pub(crate) group: GroupId,
}

impl Room {
    pub(crate) fn new(seed: u64, suite: u16, size: usize) -> Self {
        Self::at(World::new(seed, wall_clock_ms()), suite, size)
    }

    /// The same, in a world that begins at another time.
    pub(crate) fn at(mut world: World, suite: u16, size: usize) -> Self {
        let mut people = vec![world.found("P0", suite)];
        for i in 1..=size {
            people.push(world.invite(people[0], &format!("P{i}"), Role::Member));
        }
        let members = people[..size].to_vec();
        let group = world.group(members[0], &members[1..]);
        world.settle();
        Self {
            world,
            members,
            outsider: people[size],
            group,
        }
    }

    /// This room, to begin from again and again.
    pub(crate) fn freeze(self) -> FrozenRoom {
        FrozenRoom {
            members: self.members,
            outsider: self.outsider,
            group: self.group,
            template: Template::capture(self.world),
        }
    }

    pub(crate) fn culprit(&self) -> PersonId {
        *self.members.last().expect("members")
    }

    pub(crate) fn honest(&self) -> Vec<PersonId> {
        self.members[..self.members.len() - 1].to_vec()
    }

    pub(crate) fn device(&self, who: PersonId) -> DeviceId {
        self.world.people[who.0].device()
    }

    pub(crate) fn villain(&mut self) -> Villain {
        let culprit = self.culprit();
        Villain::take_over(&mut self.world, culprit, self.group)
    }

    /// Lets a villain submit what it made.
    pub(crate) fn submit(&mut self, villain: &Villain, made: &Crafted) -> LogSeq {
        let line = Line::open(&mut self.world, villain);
        line.submit(&mut self.world, villain, made)
            .expect("the relay takes what is well-formed")
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.world.now_ms + ms;
        self.world.run_until(until);
    }

    pub(crate) fn violations(&self, who: PersonId) -> Vec<Violation> {
        let refused = self.world.alarms(who).filter_map(|alarm| match alarm {
            Alarm::Refused { violation, .. } => Some(*violation),
            _ => None,
        });
        refused.collect()
    }

    /// Everything that openmls keeps for somebody, byte for byte.
    pub(crate) fn mls_state(&mut self, who: PersonId) -> Rows {
        let store = self.world.people[who.0].engine_mut().store_mut();
        store.range(MLS, &[], &[], usize::MAX).expect("rows")
    }

    pub(crate) fn history(&self, who: PersonId, group: GroupId) -> Vec<HistoryRecord> {
        self.world.people[who.0]
            .engine()
            .messages(group, LogSeq(0), usize::MAX)
            .expect("a history")
    }

    /// The group that continues this one, as somebody sees it.
    pub(crate) fn successor(&mut self, who: PersonId) -> Option<GroupId> {
        match self.world.view(who, self.group).status {
            GroupStatusView::Continued { successor } => Some(successor),
            _ => None,
        }
    }

    /// Everything that somebody has read in the conversation, in an order of its own.
    pub(crate) fn texts(&self, who: PersonId, successor: GroupId) -> Vec<String> {
        let mut texts = self.world.texts(who, self.group);
        texts.extend(self.world.texts(who, successor));
        texts.sort();
        texts
    }

    /// Whether the user was told who broke the group.
    pub(crate) fn is_named(&self, who: PersonId, culprit: DeviceId) -> bool {
        self.history(who, self.group).iter().any(
            |line| matches!(&line.kind, HistoryKind::Faulty { device, .. } if *device == culprit),
        )
    }

    /// From and to where somebody was told that something was missed.
    pub(crate) fn gap(&self, who: PersonId) -> Option<(LogSeq, LogSeq)> {
        self.history(who, self.group)
            .iter()
            .find_map(|line| match line.kind {
                HistoryKind::Gap { from, to, .. } => Some((from, to)),
                _ => None,
            })
    }
}

/// A room that was set up once.
pub(crate) struct FrozenRoom {
    template: Template,
    members: Vec<PersonId>,
    outsider: PersonId,
    group: GroupId,
}

impl FrozenRoom {
    /// The room as it was, with everybody online.
    pub(crate) fn thaw(&self, seed: u64) -> Room {
        let mut world = self.template.world(seed);
        world.settle();
        Room {
            world,
            members: self.members.clone(),
            outsider: self.outsider,
            group: self.group,
        }
    }
}
