//! The fence under fire: a world in which members are behind, cut off, restarting, and all speak at the very instant of
//! an order, while one of them lies and the removed one does not give up; recorded from its clients' side.
//!
//! A seed decides the schedule. What breaks is drawn from everything that the simulated network and disks can do but
//! duplicated frames, which QUIC does not deliver.

use mortise_protocol::content;
use mortise_protocol::engine::{CommandKind, GroupStatusView};
use mortise_protocol::identity::{GroupId, RosterSeq};
use mortise_protocol::wire::Refusal;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::{History, Recorder, record};
use crate::villain::{Line, Twist, Villain};
use crate::world::{Faults, PersonId, Template, World};

/// Who gives the orders.
const OWNER: PersonId = PersonId(0);
/// Who is removed, in this order: somebody with one device, and somebody with two.
const LEAVERS: [usize; 2] = [4, 2];
/// Who does not keep the rules.
const LIAR: PersonId = PersonId(5);
/// Steps around each order.
const STEPS: usize = 25;

/// What to change in the world before the fire starts.
pub type Plant<'a> = &'a dyn Fn(&mut World);

/// Runs a seed on an organisation of [`Template::found`] and gives what was recorded.
///
/// # Panics
/// When an honest device names a defect of its own.
#[must_use]
pub fn run(seed: u64, template: &Template, plant: Option<Plant<'_>>) -> History {
    let mut fire = Fire::light(seed, template);
    if let Some(plant) = plant {
        plant(&mut fire.world);
    }
    fire.world.faults = fire.draw_faults();
    let mut villains = fire.copy_villains();
    for leaver in LEAVERS {
        fire.steps();
        fire.order(PersonId(leaver), &mut villains);
        fire.come_back(PersonId(leaver));
        fire.steps();
        villains = fire.copy_villains();
    }
    fire.put_out(plant.is_none())
}

struct Fire {
    world: World,
    rng: ChaCha12Rng,
    groups: Vec<GroupId>,
    said: u64,
}

impl Fire {
    fn light(seed: u64, template: &Template) -> Self {
        let mut world = template.world(seed);
        world.settle();
        let everybody: Vec<PersonId> = (1..7).map(PersonId).collect();
        let groups = vec![
            world.group(OWNER, &everybody),
            world.group(PersonId(1), &[PersonId(2), PersonId(4), LIAR]),
            world.group(PersonId(3), &[PersonId(4), LIAR, PersonId(6)]),
        ];
        world.settle();
        let mut recorder = Recorder::new(&world);
        recorder.lies(world.people[LIAR.0].device());
        recorder.look(&mut world);
        world.recorder = Some(recorder);
        Self {
            world,
            rng: ChaCha12Rng::seed_from_u64(!seed),
            groups,
            said: 0,
        }
    }

    fn draw_faults(&mut self) -> Faults {
        Faults {
            latency_ms: *[2, 20, 200].choose(&mut self.rng).unwrap_or(&2),
            lose: *[0.0, 0.01].choose(&mut self.rng).unwrap_or(&0.0),
            reorder: self.rng.random_bool(0.5),
            batch: self.rng.random_bool(0.5),
            stragglers: self.rng.random_bool(0.5),
            half_open_ms: *[0, 2_000].choose(&mut self.rng).unwrap_or(&0),
            sync_ms: *[0, 30].choose(&mut self.rng).unwrap_or(&0),
            doom_ms: 3_000,
            ..Faults::default()
        }
    }

    fn run_for(&mut self, ms: u64) {
        let until = self.world.now_ms + ms;
        while self.world.advance(until) {
            self.look();
        }
    }

    fn look(&mut self) {
        if let Some(mut recorder) = self.world.recorder.take() {
            recorder.look(&mut self.world);
            self.world.recorder = Some(recorder);
        }
    }

    fn is_up(&self, who: PersonId) -> bool {
        let person = &self.world.people[who.0];
        person.is_in() && !person.asleep && !person.engine().is_expelled()
    }

    fn say(&mut self, who: PersonId, group: GroupId) {
        if self.is_up(who) {
            self.said += 1;
            let text = format!("number {}", self.said);
            self.world.say(who, group, &text);
        }
    }

    /// Everybody says something in every group.
    fn everybody_speaks(&mut self) {
        for who in (0..self.world.people.len()).map(PersonId) {
            for group in self.groups.clone() {
                self.say(who, group);
            }
        }
    }

    fn steps(&mut self) {
        for _ in 0..STEPS {
            let who = PersonId(self.rng.random_range(0..self.world.people.len()));
            match self.rng.random_range(0..100) {
                0..60 => {
                    let group = *self.groups.choose(&mut self.rng).unwrap_or(&self.groups[0]);
                    self.say(who, group);
                }
                60..75 => self.cut(who),
                75..83 if who != OWNER => self.world.put_to_sleep(who),
                83..93 => self.world.wake(who),
                93..95 => self.world.restart_person(who),
                // It has stored something, and nobody hears of it: they send it again.
                95..98 => self.world.relay_dies_after_batch = true,
                // What it has answered must be there when it is back.
                _ if self.world.relay.is_some() => self.world.crash_relay(),
                _ => {}
            }
            let pause = self.rng.random_range(0..150);
            self.run_for(pause);
        }
    }

    fn cut(&mut self, who: PersonId) {
        let ms = self.rng.random_range(100..4_000);
        self.world.people[who.0].cut_until_ms = self.world.now_ms + ms;
        self.world.disconnect(who);
    }

    /// The order, with everybody speaking at the very instant, and somebody cut off just then.
    fn order(&mut self, leaver: PersonId, villains: &mut [Villain]) {
        let behind = PersonId(self.rng.random_range(1..self.world.people.len()));
        self.cut(behind);
        self.everybody_speaks();
        let user = self.world.people[leaver.0].user();
        self.world.command(OWNER, CommandKind::RemoveUser { user });
        self.everybody_speaks();
        let burned = |fire: &Self| {
            let device = fire.world.people[leaver.0].device();
            let roster = record::roster(&fire.world.disk, fire.world.people[0].engine().org());
            let mut orders = roster.iter().filter_map(|row| row.order.as_ref());
            orders.any(|devices| devices.contains(&device))
        };
        let patience = self.world.now_ms + 20_000;
        while !burned(self) && self.world.now_ms < patience {
            self.run_for(1);
        }
        self.lie(villains);
        for _ in 0..20 {
            self.run_for(10);
            self.everybody_speaks();
        }
    }

    /// The liar's device as it is now, group by group: it will go on in these epochs.
    fn copy_villains(&mut self) -> Vec<Villain> {
        let groups: Vec<GroupId> = self.groups.clone();
        let held = |world: &mut World, group| {
            let engine = world.people[LIAR.0].engine_mut();
            let views = engine.groups().unwrap_or_default();
            views.iter().any(|view| view.id == group)
        };
        let mut villains = Vec::new();
        for group in groups {
            if held(&mut self.world, group) {
                villains.push(Villain::copy(&mut self.world, LIAR, group));
            }
        }
        villains
    }

    /// The liar knows the order and writes into the epochs that the removed one reads, for as long as they last.
    fn lie(&mut self, villains: &mut [Villain]) {
        for villain in villains {
            let roster = record::roster(&self.world.disk, villain.org);
            if let Some(head) = roster.last() {
                villain.roster = (RosterSeq(roster.len() as u64), head.entry);
            }
            let log = self.world.log(villain.group);
            let opened = log.iter().any(|r| r.epoch == villain.epoch());
            if self.world.relay.is_none() || !opened {
                continue;
            }
            let text = content::encode_text([1; 16], "for those who are gone");
            let made = villain.message(&self.world, &text, None, &Twist::default());
            let line = Line::open(&mut self.world, villain);
            // Where the group is rotated already, the relay refuses it: that is one of the two defences.
            let _: Result<_, Refusal> = line.submit(&mut self.world, villain, &made);
        }
    }

    /// The removed device's program, as it was, writes and reads on connections of its own.
    fn come_back(&mut self, leaver: PersonId) {
        for group in self.groups.clone() {
            let engine = self.world.people[leaver.0].engine_mut();
            let views = engine.groups().unwrap_or_default();
            let mut held = views.iter().filter(|view| view.id == group);
            let active = held.any(|view| view.status == GroupStatusView::Active);
            if self.world.relay.is_none() || !active {
                continue;
            }
            let mut x = Villain::copy(&mut self.world, leaver, group);
            x.learn_roster(&self.world, OWNER);
            let text = content::encode_text([2; 16], "still here");
            let made = x.message(&self.world, &text, None, &Twist::default());
            let line = Line::open(&mut self.world, &x);
            let _: Result<_, Refusal> = line.submit(&mut self.world, &x, &made);
            let (epoch, key) = (x.epoch(), x.access_key());
            let _: Result<_, Refusal> = line.confirm(&mut self.world, group, epoch, &key);
        }
    }

    /// Everything heals, everybody comes back and catches up; what was recorded is whole.
    fn put_out(mut self, honest: bool) -> History {
        self.world.heal();
        for who in (0..self.world.people.len()).map(PersonId) {
            self.world.wake(who);
        }
        for _ in 0..20 {
            self.run_for(3_000);
            if self.world.is_quiet() {
                break;
            }
        }
        for person in self.world.people.iter().filter(|_| honest) {
            assert_eq!(person.broken, None, "{}", person.name);
        }
        let recorder = self.world.recorder.take();
        recorder.map_or_else(History::default, |recorder| recorder.finish(&self.world))
    }
}
