//! A seed's story: who does what when, what breaks when, and the checks in between.

use std::collections::BTreeMap;

use mortise_protocol::engine::CommandKind;
use mortise_protocol::identity::GroupId;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::actions::Action;
use super::mischief::Mischief;
use super::model::Model;
use super::plants::Plant;
use super::{Broken, Options};
use crate::world::{Faults, PersonId, World};

/// Steps of a scenario, at least.
const STEPS: usize = 120;
/// How far a device's clock may be from the world's, ms.
pub(super) const MAX_SKEW_MS: i64 = 300_000;
/// How often the world may move within one millisecond before somebody counts as spinning.
const MAX_MOVES: u64 = 20_000;

/// A scenario on its way.
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) world: World,
    pub(super) model: Model,
    pub(super) rng: ChaCha12Rng,
    pub(super) steps_done: usize,
    pub(super) groups: Vec<GroupId>,
    /// Another organisation on the same relay, and its groups.
    pub(super) neighbours: Option<Box<(Model, Vec<GroupId>)>>,
    pub(super) tokens: u64,
    pub(super) joining: u64,
    pub(super) disks_broken: u64,
    pub(super) options: Options,
    moves: u64,
    looked_ms: u64,
}

impl Scenario {
    pub(super) fn new(seed: u64, world: World, options: Options) -> Self {
        let mut model = Model::new(&world, PersonId(0));
        model.story.aloud = options.verbose;
        let is_other = |p: &PersonId| !model.is_of(&world, *p);
        let other = (0..world.people.len()).map(PersonId).find(is_other);
        let neighbours = other.map(|owner| {
            let mut other = Model::new(&world, owner);
            other.story = model.story.clone();
            Box::new((other, Vec::new()))
        });
        Self {
            neighbours,
            seed,
            world,
            model,
            rng: ChaCha12Rng::seed_from_u64(!seed),
            steps_done: 0,
            groups: Vec::new(),
            tokens: 0,
            joining: 0,
            disks_broken: 0,
            options,
            moves: 0,
            looked_ms: 0,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Broken> {
        self.world.disk.listen();
        self.world.watched = self.options.watch.map(PersonId);
        self.settle("at the beginning")?;
        self.make_groups()?;
        if self.turn_to_neighbours() {
            self.make_groups()?;
            self.turn_to_neighbours();
        }
        self.settle("with groups")?;
        if let Some(plant) = self.options.plant {
            plant.install(&mut self.world);
        } else if self.seed % 7 == 3 {
            self.world.liar = Some(Box::new(Mischief::new(self.seed)));
        }
        self.world.faults = self.draw_faults();
        self.set_clocks();
        let steps = STEPS + self.rng.random_range(0..50);
        let appointments = self.appointments(steps);
        for step in 0..steps {
            self.steps_done += 1;
            self.check()?;
            let action = match appointments.get(&step) {
                Some(action) => *action,
                None => self.draw_action(),
            };
            let is_theirs = self.neighbours.is_some()
                && !appointments.contains_key(&step)
                && self.rng.random_bool(0.25);
            if is_theirs {
                self.turn_to_neighbours();
            }
            self.act(action)?;
            if is_theirs {
                self.turn_to_neighbours();
            }
            let pause = self.draw_pause();
            self.run_for(pause)?;
        }
        self.end_mischief();
        self.make_up()?;
        self.finish()
    }

    /// From here on the story is of the other organisation, if there is one; returns whether there is.
    pub(super) fn turn_to_neighbours(&mut self) -> bool {
        let Some(others) = &mut self.neighbours else {
            return false;
        };
        std::mem::swap(&mut self.model, &mut others.0);
        std::mem::swap(&mut self.groups, &mut others.1);
        true
    }

    /// Every other device's clock is off, by up to five minutes.
    fn set_clocks(&mut self) {
        for person in &mut self.world.people {
            if self.rng.random_bool(0.5) {
                person.skew_ms = self.rng.random_range(-MAX_SKEW_MS..=MAX_SKEW_MS);
            }
        }
    }

    /// What must happen in every seed, and roughly when.
    fn appointments(&mut self, steps: usize) -> BTreeMap<usize, Action> {
        let mut plan = BTreeMap::new();
        let mut at = |from: usize, to: usize, action| {
            let mut step = self.rng.random_range(steps * from / 100..steps * to / 100);
            while plan.contains_key(&step) {
                step += 1;
            }
            plan.insert(step, action);
        };
        at(5, 30, Action::Race);
        at(5, 90, Action::RestartPerson);
        at(10, 90, Action::PersonDisk);
        at(10, 80, Action::PersonDisk);
        at(10, 90, Action::RelayDisk);
        at(10, 90, Action::RestartRelay);
        at(10, 60, Action::Partition);
        at(30, 60, Action::Order);
        at(60, 90, Action::Order);
        at(40, 95, Action::Race);
        if self.seed.is_multiple_of(5) {
            at(5, 60, Action::InviteDevice);
            if self.options.plant.is_none_or(Plant::needs_villain) {
                at(35, 80, Action::Villainy);
            }
        }
        plan
    }

    /// What chance has left out happens now, without other faults.
    fn make_up(&mut self) -> Result<(), Broken> {
        for _ in 0..20 {
            let done = |kind: &str| {
                let counts = self.counts();
                counts.get(kind).copied().unwrap_or(0) > 0
            };
            let missing = if !done("orders") || !done("rotations") {
                Some(Action::Order)
            } else if !done("commit races") {
                Some(Action::Race)
            } else if !done("device store failures") {
                Some(Action::PersonDisk)
            } else {
                None
            };
            let Some(action) = missing else { return Ok(()) };
            self.world.heal();
            self.wake_everybody();
            self.settle("before what was left out")?;
            match action {
                Action::PersonDisk => self.break_a_disk_now(),
                Action::Race => {
                    // Somewhere somebody must be missing.
                    self.create_small_group();
                    self.settle("with one more group")?;
                    // In the older ones those who are missing may have left for good.
                    self.tell(|| format!("{action:?} in the newest group"));
                    self.race_in(self.groups.iter().rev().copied().collect());
                }
                _ => self.act(action)?,
            }
            self.run_for(15_000)?;
        }
        Ok(())
    }

    pub(super) fn wake_everybody(&mut self) {
        for i in 0..self.world.people.len() {
            if self.world.people[i].asleep && !self.model.is_villain(PersonId(i)) {
                self.world.wake(PersonId(i));
            }
        }
    }

    fn make_groups(&mut self) -> Result<(), Broken> {
        let count = self.rng.random_range(3..=4);
        for n in 0..count {
            let everybody = self.everybody(|_, _| true);
            let Some(creator) = everybody.choose(&mut self.rng).copied() else {
                return Ok(());
            };
            let mut users: Vec<_> = self.users();
            let size = self.rng.random_range(2..=4);
            users = users
                .choose_multiple(&mut self.rng, size)
                .copied()
                .collect();
            let name = format!("Group {n}");
            self.command(
                creator,
                CommandKind::CreateGroup {
                    name,
                    members: users,
                },
            );
            self.run_for(200)?;
        }
        Ok(())
    }

    pub(super) fn draw_faults(&mut self) -> Faults {
        let pick = |rng: &mut ChaCha12Rng, list: &[f64]| *list.choose(rng).unwrap_or(&0.0);
        Faults {
            lose: pick(&mut self.rng, &[0.0, 0.0, 0.002, 0.01, 0.03]),
            duplicate: pick(&mut self.rng, &[0.0, 0.0, 0.05, 0.2]),
            reorder: self.rng.random_bool(0.5),
            latency_ms: *[2, 20, 100, 400].choose(&mut self.rng).unwrap_or(&2),
            doom_ms: *[500, 3_000, 12_000].choose(&mut self.rng).unwrap_or(&500),
            half_open_ms: *[0, 0, 4_000].choose(&mut self.rng).unwrap_or(&0),
            batch: self.rng.random_bool(0.5),
            stragglers: self.rng.random_bool(0.5),
            late_timer_ms: *[0, 0, 700, 20_000].choose(&mut self.rng).unwrap_or(&0),
            sync_ms: *[0, 0, 5, 60].choose(&mut self.rng).unwrap_or(&0),
        }
    }

    fn draw_pause(&mut self) -> u64 {
        match self.rng.random_range(0..100) {
            0..30 => self.rng.random_range(0..10),
            30..70 => self.rng.random_range(0..150),
            70..95 => self.rng.random_range(100..700),
            _ => self.rng.random_range(1_000..12_000),
        }
    }

    /// Holds the world against the model.
    pub(super) fn check(&mut self) -> Result<(), Broken> {
        let now_ms = self.world.now_ms;
        self.moves = match self.looked_ms == now_ms {
            true => self.moves + 1,
            false => 0,
        };
        self.looked_ms = now_ms;
        if self.moves > MAX_MOVES {
            let who = self.world.next_timer().map(|(at, who)| {
                let late = now_ms.saturating_sub(at);
                format!("{}, {late} ms late", self.world.people[who.0].name)
            });
            let detail = format!("time stands still; the next timer is of {who:?}");
            return Err(Broken::new("nobody spins", detail));
        }
        let stored = self.world.disk.take_tap();
        let served = std::mem::take(&mut self.world.served);
        self.model.check(&mut self.world, &stored, &served)?;
        note_groups(&self.model, &mut self.groups);
        if let Some(others) = &mut self.neighbours {
            others.0.check(&mut self.world, &stored, &served)?;
            note_groups(&others.0, &mut others.1);
        }
        Ok(())
    }

    pub(super) fn run_for(&mut self, ms: u64) -> Result<(), Broken> {
        let until = self.world.now_ms + ms;
        while self.world.advance(until) {
            self.check()?;
        }
        self.check()
    }

    /// Runs until the world is quiet.
    pub(super) fn settle(&mut self, when: &str) -> Result<(), Broken> {
        let limit = super::settle_limit(&self.world);
        self.check()?;
        while !self.world.is_quiet() {
            if !self.world.advance(limit) {
                let loud: Vec<_> = self
                    .world
                    .people
                    .iter()
                    .filter(|p| !p.is_quiet())
                    .map(|p| p.name.clone())
                    .collect();
                let detail = format!("{when}: still busy after 10 minutes: {loud:?}");
                return Err(Broken::new("every quiet network converges", detail));
            }
            self.check()?;
        }
        Ok(())
    }

    /// Coverage: what the world and the model have counted.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.world.counts.clone();
        let others = self.neighbours.iter().map(|others| &others.0.counts);
        for (kind, count) in others.chain([&self.model.counts]).flatten() {
            *counts.entry(kind).or_default() += count;
        }
        let crashes = self.world.people.iter().map(|p| p.crashes as u64).sum();
        counts.insert("device store failures", crashes);
        let starts: u64 = self.world.people.iter().map(|p| p.lives - 1).sum();
        counts.insert("device restarts", starts);
        counts.insert("texts", self.tokens);
        counts
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        let at = self.world.elapsed_ms();
        self.model.story.tell(at, || format!("# {}", what()));
    }
}

/// Adds new groups in the order of creation, whatever their ids.
fn note_groups(model: &Model, groups: &mut Vec<GroupId>) {
    if model.logs.len() != groups.len() {
        let new = model.logs.keys().filter(|g| !groups.contains(g));
        let new: Vec<_> = new.copied().collect();
        groups.extend(new);
    }
}
