//! A new directory key and its slots, who lacks one, and that no name is readable by whom it is not for.

use std::collections::BTreeSet;

use mortise_protocol::identity::{
    DeviceId, DirectoryKey, RosterSeq, SealedProfile, Slot, UserId, open_slot, seal_slot,
};
use mortise_protocol::roster::{EntrySigner, Op, Role, RotateDirectoryKey, SignedEntry};
use mortise_protocol::store::{Reader, Space};
use mortise_protocol::wire::{Push, Refusal, Request, Response, limits};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::fixture::*;
use crate::core::ConnId;

fn rotation(world: &World, key: &DirectoryKey, before: &DirectoryKey) -> Op {
    let mut rng = StdRng::seed_from_u64(1);
    let generation = world.roster.head().seq.next();
    let wrapped = key.wrap_predecessor(&mut rng, world.org(), generation, before);
    Op::RotateDirectoryKey(RotateDirectoryKey {
        commitment: key.commitment(),
        predecessor: wrapped.into(),
    })
}

fn genesis_key() -> DirectoryKey {
    DirectoryKey::from_bytes([7; 32])
}

fn slot(world: &World, to: &Device, generation: RosterSeq, key: &DirectoryKey) -> Slot {
    let to = (to.id(), to.seal.public());
    seal_slot(world.org(), to, world.owner.id(), generation, key).expect("a slot")
}

fn with_slots(entry: &SignedEntry, slots: Vec<Slot>) -> Request {
    Request::AppendRoster {
        entry: entry.bytes().to_vec().into(),
        slots,
    }
}

fn slotless(world: &mut World, conn: ConnId) -> Vec<DeviceId> {
    match world.ask(conn, Request::FetchSlotless) {
        Response::Slotless { devices } => devices,
        other => panic!("no answer: {other:?}"),
    }
}

fn slots(world: &mut World, conn: ConnId) -> Vec<Slot> {
    match world.ask(conn, Request::FetchSlots) {
        Response::Slots { slots } => slots,
        other => panic!("no answer: {other:?}"),
    }
}

/// REQ-101, REQ-031: order and key are one entry, its slots are stored with it, and older ones are given to nobody.
#[test]
fn an_order_brings_a_key_and_its_slots() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (gone, _) = world.join(owner, Role::Member);
    let (stays, conn) = world.join(owner, Role::Member);
    let (lacks, lacks_conn) = world.join(owner, Role::Member);
    let old = slot(&world, &stays, RosterSeq(1), &genesis_key());
    let put = Request::PutSlots { slots: vec![old] };
    assert_eq!(world.ask(owner, put), Response::Done);
    assert_eq!(slots(&mut world, conn).len(), 1);

    let key = DirectoryKey::from_bytes([8; 32]);
    let user = gone.user;
    let ops = vec![
        rotation(&world, &key, &genesis_key()),
        Op::RemoveUser { user },
    ];
    let entry = world.owner_entry(ops);
    let generation = entry.tbs().seq;
    let mine = slot(&world, &stays, generation, &key);
    let theirs = slot(&world, &gone, generation, &key);
    let answer = world.ask(owner, with_slots(&entry, vec![mine.clone(), theirs]));
    let head = entry.head();
    assert_eq!(answer, Response::RosterAppended { head });
    world.roster.apply(entry.bytes()).expect("as the relay did");
    assert_eq!(slots(&mut world, conn), std::slice::from_ref(&mine));
    let opened = open_slot(world.org(), &mine, &stays.seal, key.commitment());
    assert_eq!(opened, Ok(key.clone()));

    // Who made the key lacks nothing; who was forgotten is named, until somebody fills it.
    assert_eq!(slotless(&mut world, conn), [lacks.id()]);
    let late = slot(&world, &lacks, RosterSeq(1), &genesis_key());
    let put = |slot: Slot| Request::PutSlots { slots: vec![slot] };
    world.ask(owner, put(late));
    assert_eq!(slotless(&mut world, conn), [lacks.id()]);
    world.outputs.clear();
    let late = slot(&world, &lacks, generation, &key);
    world.ask(owner, put(late.clone()));
    assert_eq!(world.pushes(lacks_conn), [Push::SlotsWaiting]);
    assert!(slotless(&mut world, conn).is_empty());
    assert_eq!(slots(&mut world, lacks_conn), [late]);
    let (newcomer, _) = world.join(owner, Role::Member);
    assert_eq!(slotless(&mut world, conn), [newcomer.id()]);
    let device = newcomer.id();
    world.order(owner, vec![Op::RevokeDevice { device }]);
    assert!(slotless(&mut world, conn).is_empty());
}

/// REQ-101, REQ-040: slots come with a key of their own generation and maker, and not more than fit.
#[test]
fn slots_without_their_key_are_refused() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (member, conn) = world.join(owner, Role::Member);
    let key = DirectoryKey::from_bytes([8; 32]);
    let next = world.roster.head().seq.next();
    let good = slot(&world, &member, next, &key);
    let role = Role::Guest;
    let user = member.user;
    let plain = world.owner_entry(vec![Op::SetRole { user, role }]);
    let refusal = world.refused(owner, with_slots(&plain, vec![good.clone()]));
    assert_eq!(refusal, Refusal::Malformed);
    let entry = world.owner_entry(vec![rotation(&world, &key, &genesis_key())]);
    let wrong = slot(&world, &member, RosterSeq(1), &key);
    let refusal = world.refused(owner, with_slots(&entry, vec![wrong]));
    assert_eq!(refusal, Refusal::Malformed);
    let filler = Slot {
        filler: member.id(),
        ..good.clone()
    };
    let refusal = world.refused(owner, with_slots(&entry, vec![filler]));
    assert_eq!(refusal, Refusal::Malformed);
    // Somebody else brings the entry.
    let refusal = world.refused(conn, with_slots(&entry, vec![good.clone()]));
    assert_eq!(refusal, Refusal::Malformed);
    let many = vec![good; limits::MAX_SLOTS + 1];
    let refusal = world.refused(owner, with_slots(&entry, many.clone()));
    let limit = limits::MAX_SLOTS as u64;
    assert_eq!(refusal, Refusal::TooLarge { limit });
    let answer = world.ask(owner, with_slots(&entry, many[1..].to_vec()));
    assert!(matches!(answer, Response::RosterAppended { .. }));
}

/// Every byte that the relay stores.
fn stored(world: &World) -> Vec<u8> {
    let mut bytes = Vec::new();
    for space in 0..=u8::MAX {
        let rows = world.store.range(Space(space), &[], &[], usize::MAX);
        for (key, value) in rows.expect("range") {
            bytes.extend([key, value].concat());
        }
    }
    bytes
}

fn holds(bytes: &[u8], name: &str) -> bool {
    bytes.windows(name.len()).any(|w| w == name.as_bytes())
}

/// Somebody who was removed, with the relay's whole store, their keys and the directory key that they had.
struct Departed<'a> {
    device: &'a Device,
    key: DirectoryKey,
}

impl Departed<'_> {
    /// Every name that opens with what they have or can get.
    fn reads(&self, world: &World, names: &[(UserId, SealedProfile)]) -> Vec<String> {
        let mut keys = vec![self.key.clone()];
        for generation in world.roster.directory() {
            let rows = world
                .store
                .range(crate::core::layout::SLOTS, &[], &[], usize::MAX)
                .expect("range");
            for (row_key, row) in rows {
                let record: crate::core::layout::SlotRecord =
                    crate::core::layout::read(&row).expect("a slot");
                let slot = Slot {
                    device: self.device.id(),
                    filler: DeviceId(crate::core::layout::key_tail(&row_key).expect("a key")),
                    generation: record.generation,
                    enc: record.enc,
                    ciphertext: record.ciphertext,
                };
                let seal = &self.device.seal;
                keys.extend(open_slot(world.org(), &slot, seal, generation.commitment).ok());
            }
            let org = world.org();
            for before in world.roster.directory() {
                let opened: Vec<_> = keys
                    .iter()
                    .filter_map(|key| {
                        let wrapped = &generation.predecessor;
                        key.unwrap_predecessor(org, generation.since, wrapped, before.commitment)
                            .ok()
                    })
                    .collect();
                keys.extend(opened);
            }
        }
        let read: BTreeSet<String> = names
            .iter()
            .flat_map(|(user, profile)| {
                let org = world.org();
                keys.iter()
                    .filter_map(move |key| key.open_profile(org, *user, profile).ok())
            })
            .collect();
        read.into_iter().collect()
    }
}

/// REQ-030, REQ-101, REQ-103: through rename, rotation and recovery no name is in the relay's store, and a removed
/// member who kept key and device, and is given the whole store, reads no name that was added or changed after the order.
#[test]
fn no_name_reaches_the_relay_or_whoever_is_gone() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut world = World::founded();
    let owner = world.owner_online();
    let (gone, _) = world.join(owner, Role::Member);
    let (stays, _) = world.join(owner, Role::Member);
    let org = world.org();
    let old = genesis_key();
    let before = old.seal_profile(&mut rng, RosterSeq(1), org, stays.user, "Canary Before");
    let given = slot(&world, &gone, RosterSeq(1), &old);
    let put = Request::PutSlots { slots: vec![given] };
    world.ask(owner, put);
    let user = stays.user;
    let profile = before.clone();
    world.order(owner, vec![Op::SetProfile { user, profile }]);
    let departed = Departed {
        device: &gone,
        key: old.clone(),
    };
    let read = departed.reads(&world, &[(stays.user, before.clone())]);
    assert_eq!(read, ["Canary Before"], "the search finds what is there");

    let key = DirectoryKey::random(&mut rng);
    let order = Op::RemoveUser { user: gone.user };
    let entry = world.owner_entry(vec![rotation(&world, &key, &old), order]);
    let generation = entry.tbs().seq;
    let slots = vec![slot(&world, &stays, generation, &key)];
    world.ask(owner, with_slots(&entry, slots));
    world.roster.apply(entry.bytes()).expect("as the relay did");
    let renamed = key.seal_profile(&mut rng, generation, org, stays.user, "Canary Renamed");
    let profile = renamed.clone();
    world.order(owner, vec![Op::SetProfile { user, profile }]);

    let second = DirectoryKey::random(&mut rng);
    let entry = world.owner_entry(vec![rotation(&world, &second, &key)]);
    let generation = entry.tbs().seq;
    let slots = vec![slot(&world, &stays, generation, &second)];
    world.ask(owner, with_slots(&entry, slots));
    world.roster.apply(entry.bytes()).expect("as the relay did");
    let added = UserId([0xad; 16]);
    let new = second.seal_profile(&mut rng, generation, org, added, "Canary Added");
    world.order(
        owner,
        vec![Op::AddUser {
            user: added,
            role: Role::Member,
            profile: new.clone(),
        }],
    );

    let recovered = Device::new(900, UserId([0xae; 16]));
    let third = DirectoryKey::random(&mut rng);
    let generation = world.roster.head().seq.next();
    let back = third.seal_profile(
        &mut rng,
        generation,
        org,
        recovered.user,
        "Canary Recovered",
    );
    let ops = vec![
        Op::Recover,
        Op::AddUser {
            user: recovered.user,
            role: Role::Owner,
            profile: back.clone(),
        },
        recovered.add(org),
        Op::RotateDirectoryKey(RotateDirectoryKey {
            commitment: third.commitment(),
            predecessor: Vec::new().into(),
        }),
    ];
    let entry = world.entry(EntrySigner::Root, &org_root(0), ops);
    let conn = world.online(&recovered);
    world.append(conn, &entry);

    let names = [(stays.user, renamed), (added, new), (recovered.user, back)];
    assert_eq!(departed.reads(&world, &names), Vec::<String>::new());
    let everything = stored(&world);
    let control = world.org().0;
    assert!(everything.windows(32).any(|w| w == control));
    for name in [
        "Canary Before",
        "Canary Renamed",
        "Canary Added",
        "Canary Recovered",
    ] {
        assert!(!holds(&everything, name), "{name}");
    }
    let staying = Departed {
        device: &stays,
        key: old,
    };
    let read = staying.reads(&world, &names);
    assert!(
        read.contains(&"Canary Renamed".to_owned()) && read.contains(&"Canary Added".to_owned())
    );
}
