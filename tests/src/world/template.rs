//! An organisation that was set up once, so that every seed begins with people and not with Argon2.

use mortise_protocol::roster::Role;
use mortise_protocol::store::MemoryStore;
use rand::RngCore;

use super::{Disk, Person, PersonId, World};

/// A founded organisation: the relay's disk and everybody's.
pub struct Template {
    now_ms: u64,
    relay: MemoryStore,
    people: Vec<(String, MemoryStore)>,
}

impl Template {
    /// Founds an organisation with an owner, an admin and members, some of whom have a second device.
    ///
    /// # Panics
    /// When that does not work in a world without faults.
    #[must_use]
    pub fn found(now_ms: u64, suite: u16) -> Self {
        Self::capture(Self::organisation(now_ms, suite))
    }

    /// The same, and a small organisation beside it on the same relay: its owner, its admin and its members come last.
    ///
    /// # Panics
    /// When that does not work in a world without faults.
    #[must_use]
    pub fn found_two(now_ms: u64, suite: u16) -> Self {
        let mut world = Self::organisation(now_ms, suite);
        let zoe = world.found("Zoe", suite);
        world.invite(zoe, "Yan", Role::Admin);
        for name in ["Xia", "Wim", "Vic"] {
            world.invite(zoe, name, Role::Member);
        }
        Self::capture(world)
    }

    fn organisation(now_ms: u64, suite: u16) -> World {
        let mut world = World::new(7, now_ms);
        let ann = world.found("Ann", suite);
        world.invite(ann, "Bob", Role::Admin);
        let members: Vec<PersonId> = ["Cy", "Dot", "Eve", "Fay", "Gus"]
            .map(|name| world.invite(ann, name, Role::Member))
            .to_vec();
        world.add_device(members[0], "Cy's other");
        world.add_device(members[1], "Dot's other");
        world
    }

    /// What everybody in this world has stored, once it is quiet.
    #[must_use]
    pub fn capture(mut world: World) -> Self {
        world.settle();
        let people = world
            .people
            .into_iter()
            .map(|mut p| (p.name.clone(), p.engine_mut().store_mut().snapshot()))
            .collect();
        Self {
            now_ms: world.now_ms,
            relay: world.disk.snapshot(),
            people,
        }
    }

    /// A world that begins with this organisation; nobody is connected yet.
    #[must_use]
    pub fn world(&self, seed: u64) -> World {
        let mut world = World::on_disk(seed, self.now_ms, Disk::from(self.relay.clone()));
        for (name, store) in &self.people {
            let seed = world.rng.next_u64();
            world.enter(Person::restore(name, store.clone(), seed));
        }
        world
    }
}
