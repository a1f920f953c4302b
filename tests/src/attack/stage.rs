//! Where attacks are mounted: an organisation, a group of some size at some epochs, and everything that the one who
//! will be removed holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use mortise_protocol::engine::{Alarm, CommandKind, GroupStatusView, Input, Output, PolicyChange};
use mortise_protocol::identity::{DeviceId, GroupId, LogSeq, PublicKey, RosterSeq, UserId, encode};
use mortise_protocol::roster::Role;
use mortise_protocol::store::{MemoryStore, Reader as _, Space};
use mortise_protocol::wire::{ConnectionBinding, LogRecord, Push, RecordBody, RelayToClient};
use mortise_relay::core::layout;
use rand::Rng;

use super::door::Door;
use crate::villain::{Crafted, Twist, Villain};
use crate::world::{PersonId, Template, World, wall_clock_ms};

/// The owner, who is in no group.
pub(super) const ANN: PersonId = PersonId(0);
/// A member and admin of the group.
pub(super) const BOB: PersonId = PersonId(1);
/// A member, from three users on; the accomplice or the insider, where there is one.
pub(super) const CY: PersonId = PersonId(2);
/// In the organisation, and not in the group.
pub(super) const DOT: PersonId = PersonId(3);
/// Who is removed: a member and admin of the group, with two devices.
pub(super) const X: PersonId = PersonId(4);
/// The other device.
pub(super) const X2: PersonId = PersonId(5);
/// Who is removed in X's place where the defence is switched off.
pub(super) const EVE: PersonId = PersonId(6);

/// What Bob says after the order.
pub(super) const AFTER: &str = "this was said after the order";
/// What attackers want to be shown.
pub(super) const FORGED: &str = "this was written by somebody who is out";

/// An organisation that was set up once.
struct Prepared {
    template: Template,
    group: GroupId,
}

/// One world, for one attack.
pub struct Stage {
    /// The world.
    pub world: World,
    /// The group.
    pub group: GroupId,
    /// The ciphersuite.
    pub suite: u16,
    /// How many users are in the group.
    pub size: usize,
    /// Whether the defence is in force; if not, this is the control.
    pub defended: bool,
    /// The order, once it is given.
    pub order: RosterSeq,
    /// When it was acknowledged, ms since 1970.
    pub ordered_ms: u64,
    /// What X's first device had stored, at several epochs, the oldest first.
    pub loot: Vec<MemoryStore>,
    /// X's first device, as it was just before the order.
    pub x: Villain,
    /// How many records each was shown that are in no log.
    handed: BTreeMap<PersonId, u64>,
}

impl Stage {
    /// Sets the stage. The seed decides how many epochs lie between what was saved and the order.
    #[must_use]
    pub fn set(seed: u64, suite: u16, size: usize, defended: bool) -> Self {
        let prepared = prepared(suite, size);
        let mut world = prepared.template.world(seed);
        world.settle();
        let group = prepared.group;
        world.disk.listen();
        let mut loot = vec![snapshot(&mut world, X)];
        for n in 0..world.rng.random_range(0..3) {
            let change = PolicyChange::Topic(format!("topic {n}"));
            world.command(BOB, CommandKind::ChangeGroup { group, change });
            world.say(BOB, group, &format!("about topic {n}"));
            world.settle();
            loot.push(snapshot(&mut world, X));
        }
        let x = Villain::copy(&mut world, X, group);
        Self {
            world,
            group,
            suite,
            size,
            defended,
            order: RosterSeq(0),
            ordered_ms: 0,
            loot,
            x,
            handed: BTreeMap::new(),
        }
    }

    pub(super) fn wait(&mut self, ms: u64) {
        let until = self.world.now_ms + ms;
        self.world.run_until(until);
    }

    pub(super) fn say(&mut self, who: PersonId, text: &str) {
        self.world.say(who, self.group, text);
        self.wait(500);
    }

    /// Who stays in the group whatever happens.
    pub(super) fn honest(&self) -> Vec<PersonId> {
        match self.size {
            0..3 => vec![BOB],
            _ => vec![BOB, CY],
        }
    }

    /// The owner orders the removal; in the control, somebody else's.
    pub(super) fn order(&mut self) {
        self.order_now();
        self.wait(3_000);
    }

    /// The same, until the order is acknowledged and no longer.
    pub(super) fn order_now(&mut self) {
        let who = if self.defended { X } else { EVE };
        let user = self.world.people[who.0].user();
        let before = self.world.people[ANN.0].engine().roster().fence();
        self.world.command(ANN, CommandKind::RemoveUser { user });
        let patience = self.world.now_ms + 60_000;
        while self.fence() == before && self.world.advance(patience) {}
        self.order = self.fence();
        self.ordered_ms = self.world.now_ms;
        assert!(self.order > before, "the order was given");
    }

    /// The owner's fence.
    pub(super) fn fence(&self) -> RosterSeq {
        self.world.people[ANN.0].engine().roster().fence()
    }

    /// The order, and what Bob says afterwards.
    pub(super) fn order_and_talk(&mut self) {
        self.order();
        self.say(BOB, AFTER);
    }

    /// Somebody is cut off, until further notice.
    pub(super) fn cut(&mut self, who: PersonId) {
        self.world.people[who.0].cut_until_ms = u64::MAX;
        self.world.disconnect(who);
    }

    pub(super) fn mend(&mut self, who: PersonId) {
        self.world.people[who.0].cut_until_ms = 0;
        self.world.wake(who);
        self.wait(3_000);
    }

    /// Whether somebody was shown a text in the group.
    pub(super) fn is_shown(&self, who: PersonId, text: &str) -> bool {
        self.times_shown(who, text) > 0
    }

    /// The same, in the group or in what continues it: a repair may be either (REQ-154).
    pub(super) fn is_shown_on(&mut self, who: PersonId, text: &str) -> bool {
        let mut group = self.group;
        loop {
            if self
                .world
                .texts(who, group)
                .iter()
                .any(|shown| shown == text)
            {
                return true;
            }
            match self.world.view(who, group).status {
                GroupStatusView::Continued { successor } => group = successor,
                _ => return false,
            }
        }
    }

    pub(super) fn times_shown(&self, who: PersonId, text: &str) -> usize {
        let texts = self.world.texts(who, self.group);
        texts.iter().filter(|shown| *shown == text).count()
    }

    /// Who of those who stay was shown what an attacker wrote.
    pub(super) fn fooled(&self) -> Option<String> {
        let mut honest = self.honest().into_iter();
        let fooled = honest.find(|who| self.is_shown(*who, FORGED))?;
        Some(format!("{} is shown it", self.world.people[fooled.0].name))
    }

    /// Whether a device is in the tree, as somebody sees it.
    pub(super) fn has_leaf(&mut self, seen_by: PersonId, device: DeviceId) -> bool {
        let view = self.world.view(seen_by, self.group);
        view.members.iter().any(|member| member.device == device)
    }

    /// The alarms of those who stay and of the owner.
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let everybody = [ANN, BOB, CY, DOT].into_iter();
        everybody
            .flat_map(|who| self.world.alarms(who).cloned())
            .collect()
    }

    /// How many records under the order's fence a store's keys open.
    pub(super) fn opens(&self, store: &MemoryStore) -> usize {
        self.opens_in(self.group, store)
    }

    /// The same in any group.
    pub(super) fn opens_in(&self, group: GroupId, store: &MemoryStore) -> usize {
        let log = self.world.log(group);
        let opened = crate::sim::open_all(store, group, log.iter());
        opened
            .iter()
            .filter(|(_, fence)| *fence >= self.order)
            .count()
    }

    /// A text by a villain, based on a roster of its choice.
    pub(super) fn forge(&self, by: &mut Villain) -> Crafted {
        let content = mortise_protocol::content::encode_text([9; 16], FORGED);
        by.message(&self.world, &content, None, &Twist::default())
    }

    /// A copy of somebody's device; its owner goes on.
    pub(super) fn copy(&mut self, who: PersonId) -> Villain {
        Villain::copy(&mut self.world, who, self.group)
    }

    /// Somebody becomes an accomplice: the program is stopped, and the device is driven by hand.
    pub(super) fn turn(&mut self, who: PersonId) -> Villain {
        Villain::take_over(&mut self.world, who, self.group)
    }

    /// A connection with somebody's transport key.
    pub(super) fn door(&mut self, who: PersonId) -> Door {
        let key = self.world.people[who.0].engine().transport_key().public();
        Door::open(&mut self.world, key)
    }

    /// A connection with a key that nobody has ever seen.
    pub(super) fn strangers_door(&mut self) -> Door {
        Door::open(&mut self.world, PublicKey(stranger().public().0))
    }

    /// What an accomplice makes goes into the log, if the relay takes it, and to everybody.
    pub(super) fn submit(&mut self, by: &Villain, made: &Crafted) -> bool {
        let door = Door::open(&mut self.world, by.transport_key);
        let taken = door.submit(&mut self.world, by, made).is_ok();
        self.wait(1_000);
        taken
    }

    /// A record as a relay could show it at the log's end.
    pub(super) fn record(&self, made: &Crafted, fence: RosterSeq) -> LogRecord {
        let log = self.world.log(self.group);
        LogRecord {
            seq: LogSeq(log.len() as u64 + 1),
            epoch: made.epoch,
            fence,
            at_ms: self.world.now_ms,
            payload: encode(&made.body).into(),
        }
    }

    /// The relay's operator shows somebody what is not in the log. Whoever is shown it is cut off from the honest core.
    pub(super) fn hand(&mut self, to: PersonId, mut record: LogRecord) {
        let group = self.group;
        // Each is shown at the end of what this device was shown before.
        let handed = self.handed.entry(to).or_default();
        record.seq = LogSeq(record.seq.0 + *handed);
        *handed += 1;
        let records = vec![record];
        let push = RelayToClient::Push(Push::Records { group, records });
        self.tell(to, push);
    }

    /// The relay's operator says anything to somebody.
    pub(super) fn tell(&mut self, to: PersonId, frame: RelayToClient) -> Vec<Output> {
        let now = self.world.now_ms;
        let mut said = Vec::new();
        if self.world.people[to.0].cut_until_ms != u64::MAX {
            self.cut(to);
            let line = Input::Connected(ConnectionBinding([1; 32]));
            let engine = self.world.people[to.0].engine_mut();
            said.extend(engine.handle(now, line).expect("a step"));
        }
        let engine = self.world.people[to.0].engine_mut();
        said.extend(engine.handle(now, Input::Frame(frame)).expect("a step"));
        for output in &said {
            if let Output::Event(event) = output {
                self.world.people[to.0].events.push(event.clone());
            }
        }
        said
    }

    /// The epoch that somebody is in, and who they think is in it.
    pub(super) fn state(&mut self, who: PersonId) -> (u64, Vec<u8>) {
        let view = self.world.view(who, self.group);
        (view.epoch, view.epoch_authenticator)
    }

    /// The relay's operator shows a commit at the log's end, stamped with every fence that could help it; whether anybody
    /// follows it.
    pub(super) fn show_commit(&mut self, to: PersonId, made: &Crafted) -> Option<String> {
        let before = self.state(to);
        for fence in [self.order, self.x.roster.0, RosterSeq(0)] {
            let record = self.record(made, fence);
            self.hand(to, record);
            if let Some(gained) = self.advanced(to, before.0) {
                return Some(gained);
            }
        }
        None
    }

    /// Whether somebody has followed a commit out of an epoch.
    pub(super) fn advanced(&mut self, who: PersonId, epoch: u64) -> Option<String> {
        let view = self.world.view(who, self.group);
        let out = view.status == GroupStatusView::Removed;
        let on = view.status == GroupStatusView::Active && view.epoch > epoch;
        let name = &self.world.people[who.0].name;
        (out || on).then(|| format!("{name} follows it out of epoch {epoch}"))
    }

    /// The groups that somebody holds.
    pub(super) fn groups_of(&mut self, who: PersonId) -> BTreeSet<GroupId> {
        let views = self.world.people[who.0].engine_mut().groups();
        let views = views.expect("a store that reads").into_iter();
        views.map(|view| view.id).collect()
    }

    /// How many rows of a kind the relay stores for these people's devices.
    pub(super) fn stored_for(&self, space: Space, people: &[PersonId]) -> usize {
        let org = self.world.people[ANN.0].engine().org();
        let rows = people.iter().flat_map(|who| {
            let device = self.world.people[who.0].device();
            let prefix = [&org.0[..], &device.0].concat();
            let rows = self.world.disk.range(space, &prefix, &[], usize::MAX);
            rows.expect("the disk reads")
        });
        rows.count()
    }

    /// What a relay's disk has seen: every Welcome.
    pub(super) fn welcomes(&mut self) -> Vec<Vec<u8>> {
        let batches = self.world.disk.take_tap();
        let writes = batches.into_iter().flatten();
        let welcomes = writes.filter(|w| w.space == layout::WELCOMES);
        welcomes
            .filter_map(|w| Some(w.value?.get(1..)?.to_vec()))
            .collect()
    }
}

/// Somebody who is not in the organisation.
pub(super) fn stranger() -> mortise_protocol::identity::SigningKey {
    mortise_protocol::identity::SigningKey::from_seed(&[0x55; 32])
}

/// What somebody's device has stored.
pub(super) fn snapshot(world: &mut World, who: PersonId) -> MemoryStore {
    world.people[who.0].engine_mut().store_mut().snapshot()
}

/// Whether a record is a commit.
pub(super) fn is_commit(record: &LogRecord) -> bool {
    let body = mortise_protocol::identity::decode::<RecordBody>(record.payload.as_slice());
    matches!(body, Ok(RecordBody::Commit(_)))
}

fn prepared(suite: u16, size: usize) -> Arc<Prepared> {
    type Known = Mutex<BTreeMap<(u16, usize), Arc<Prepared>>>;
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let mut known = KNOWN
        .get_or_init(Known::default)
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let entry = known.entry((suite, size));
    entry
        .or_insert_with(|| Arc::new(prepare(suite, size)))
        .clone()
}

/// Founds the organisation and makes the group: Bob is its admin and makes X another.
fn prepare(suite: u16, size: usize) -> Prepared {
    let mut world = World::new(size as u64, wall_clock_ms());
    let ann = world.found("Ann", suite);
    for name in ["Bob", "Cy", "Dot", "Xen"] {
        world.invite(ann, name, Role::Member);
    }
    world.add_device(X, "Xen's other");
    world.invite(ann, "Eve", Role::Member);
    let mut members = vec![world.people[X.0].user()];
    if size > 2 {
        members.push(world.people[CY.0].user());
    }
    members.extend(world.crowd(ann, size.saturating_sub(3), suite));
    let name = "Plans".to_owned();
    world.command(BOB, CommandKind::CreateGroup { name, members });
    world.settle();
    let views = world.people[BOB.0].engine_mut().groups().expect("groups");
    let group = views.first().expect("the group").id;
    let change = PolicyChange::AddAdmin(world.people[X.0].user());
    world.command(BOB, CommandKind::ChangeGroup { group, change });
    world.say(BOB, group, "before");
    world.settle();
    let view = world.view(X, group);
    let users: BTreeSet<UserId> = view.members.iter().map(|member| member.user).collect();
    assert_eq!(users.len(), size, "everybody is in the group");
    Prepared {
        template: Template::capture(world),
        group,
    }
}
