//! KeyPackages and slots: what is kept, how much of it, and who is told.

use mortise_protocol::identity::{DeviceId, RosterSeq, Slot};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::wire::{Flag, Push, Refusal, Request, Response, limits};

use super::fixture::*;
use crate::core::ConnId;
use crate::core::key_packages::MAX_SUITES;
use crate::core::slots::MAX_SLOT_BYTES;

fn publish(suite: u16, one_time: &[&[u8]], last_resort: &[u8]) -> Request {
    Request::PublishKeyPackages {
        suite,
        one_time: one_time.iter().map(|p| p.to_vec().into()).collect(),
        last_resort: last_resort.to_vec().into(),
    }
}

fn claim(world: &mut World, conn: ConnId, suite: u16, devices: &[DeviceId]) -> Vec<Vec<u8>> {
    let devices = devices.to_vec();
    match world.ask(conn, Request::ClaimKeyPackages { suite, devices }) {
        Response::KeyPackages { packages } => packages
            .iter()
            .map(|p| p.key_package.as_slice().to_vec())
            .collect(),
        other => panic!("no KeyPackages: {other:?}"),
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::TooLarge {
        limit: limit as u64,
    }
}

struct Two {
    world: World,
    owner: ConnId,
    device: Device,
    conn: ConnId,
}

fn two() -> Two {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (device, conn) = world.join(owner, Role::Member);
    world.outputs.clear();
    Two {
        world,
        owner,
        device,
        conn,
    }
}

/// The oldest one-time KeyPackage is handed out, each once; then the last resort, which stays.
#[test]
fn each_key_package_is_handed_out_once() {
    let mut t = two();
    let id = t.device.id();
    t.world.ask(t.conn, publish(1, &[b"a", b"b"], b"last"));
    t.world.ask(t.conn, publish(1, &[b"c"], b""));
    t.world.ask(t.conn, publish(2, &[b"hybrid"], b""));
    let claimed: Vec<_> = (0..5)
        .map(|_| claim(&mut t.world, t.owner, 1, &[id]).concat())
        .collect();
    assert_eq!(claimed, [&b"a"[..], b"b", b"c", b"last", b"last"]);
    assert_eq!(claim(&mut t.world, t.owner, 2, &[id]), [b"hybrid"]);
    assert_eq!(claim(&mut t.world, t.owner, 2, &[id]), [[0; 0]; 0]);
    t.world.ask(t.conn, publish(1, &[], b"newer"));
    assert_eq!(claim(&mut t.world, t.owner, 1, &[id]), [b"newer"]);
}

/// Those who have none, are named twice, are not admitted or not here are left out; the rest come as asked.
#[test]
fn a_claim_answers_for_admitted_devices_in_the_order_asked() {
    let mut t = two();
    let (second, conn) = t.world.join(t.owner, Role::Member);
    let (gone, leaving) = t.world.join(t.owner, Role::Member);
    for (conn, package) in [(t.conn, b"1"), (conn, b"2"), (leaving, b"3")] {
        t.world.ask(conn, publish(1, &[package], b""));
    }
    t.world
        .order(t.owner, vec![Op::RemoveUser { user: gone.user }]);
    t.world.ask(conn, publish(1, &[b"4"], b""));
    let none = t.world.owner.id();
    let (one, two) = (t.device.id(), second.id());
    let devices = [two, gone.id(), none, one, DeviceId([9; 16]), two];
    let claimed = claim(&mut t.world, t.owner, 1, &devices);
    assert_eq!(claimed, [b"2", b"1"]);
}

/// The owner is told when fewer than five are left; `Hello` counts over all suites.
#[test]
fn the_owner_hears_that_the_stock_is_low() {
    let mut t = two();
    let packages: [&[u8]; 6] = [b"1", b"2", b"3", b"4", b"5", b"6"];
    t.world.ask(t.conn, publish(1, &packages, b"last"));
    t.world.ask(t.conn, publish(2, &packages[..2], b""));
    let answer = t.world.hello(t.conn, t.world.org());
    let Response::Hello {
        key_packages_left,
        has_last_resort,
        ..
    } = answer
    else {
        panic!("no hello: {answer:?}");
    };
    assert_eq!((key_packages_left, has_last_resort), (8, Flag::Yes));
    let id = t.device.id();
    claim(&mut t.world, t.owner, 1, &[id]);
    assert_eq!(t.world.pushes(t.conn), []);
    for left in [4, 3, 2, 1, 0, 0] {
        claim(&mut t.world, t.owner, 1, &[id]);
        assert_eq!(t.world.pushes(t.conn), [Push::KeyPackagesLow { left }]);
    }
    assert_eq!(t.world.pushes(t.owner), []);
}

/// Publishing again what is in stock, because the answer was lost, stocks it once.
#[test]
fn publishing_again_is_safe() {
    let mut t = two();
    let id = t.device.id();
    for _ in 0..2 {
        let answer = t.world.ask(t.conn, publish(1, &[b"a", b"b", b"a"], b""));
        assert_eq!(answer, Response::Done);
    }
    let claimed: Vec<_> = (0..3)
        .map(|_| claim(&mut t.world, t.owner, 1, &[id]).concat())
        .collect();
    assert_eq!(claimed, [&b"a"[..], b"b", b""]);
}

/// REQ-040: stock, size and suites, at the limit and one more.
#[test]
fn key_packages_are_limited() {
    let mut t = two();
    let many: Vec<Vec<u8>> = (0..=limits::MAX_KEY_PACKAGES)
        .map(|n| n.to_be_bytes().to_vec())
        .collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let most = limits::MAX_KEY_PACKAGES;
    let refusal = t.world.refused(t.conn, publish(1, &many, b""));
    assert_eq!(refusal, too_large(most));
    let answer = t.world.ask(t.conn, publish(1, &many[..most], b""));
    assert_eq!(answer, Response::Done);
    let refusal = t.world.refused(t.conn, publish(1, &many[most..], b""));
    assert_eq!(refusal, too_large(most));

    let big = vec![1; limits::MAX_KEY_PACKAGE_BYTES + 1];
    let fits = &big[1..];
    for (one_time, last_resort) in [(&[&big[..]][..], &b""[..]), (&[], &big)] {
        let refusal = t.world.refused(t.conn, publish(2, one_time, last_resort));
        assert_eq!(refusal, too_large(limits::MAX_KEY_PACKAGE_BYTES));
    }
    assert_eq!(
        t.world.ask(t.conn, publish(2, &[fits], fits)),
        Response::Done
    );
    let refusal = t.world.refused(t.conn, publish(2, &[b""], b""));
    assert_eq!(refusal, Refusal::Malformed);

    let suites = u16::try_from(MAX_SUITES).expect("small");
    for suite in 3..=suites {
        assert_eq!(
            t.world.ask(t.conn, publish(suite, &[b"x"], b"")),
            Response::Done
        );
    }
    let refusal = t.world.refused(t.conn, publish(suites + 1, &[b"x"], b""));
    assert_eq!(refusal, too_large(MAX_SUITES));

    let devices = vec![DeviceId([9; 16]); limits::MAX_DEVICES_PER_REQUEST + 1];
    assert_eq!(claim(&mut t.world, t.conn, 1, &devices[1..]), [[0; 0]; 0]);
    let refusal = t
        .world
        .refused(t.conn, Request::ClaimKeyPackages { suite: 1, devices });
    assert_eq!(refusal, too_large(limits::MAX_DEVICES_PER_REQUEST));
}

fn slot(device: DeviceId, filler: DeviceId, bytes: usize) -> Slot {
    Slot {
        device,
        filler,
        generation: RosterSeq(1),
        enc: vec![1; bytes / 2].into(),
        ciphertext: vec![2; bytes - bytes / 2].into(),
    }
}

fn put(slots: &[Slot]) -> Request {
    let slots = slots.to_vec();
    Request::PutSlots { slots }
}

/// A slot is for one device, by whoever fills it; the filler's later one replaces it; the device is told.
#[test]
fn slots_are_kept_by_device_and_filler() {
    let mut t = two();
    let (to, by, own) = (t.device.id(), t.world.owner.id(), t.device.id());
    let slots = [slot(to, by, 80), slot(DeviceId([9; 16]), by, 80)];
    assert_eq!(t.world.ask(t.owner, put(&slots)), Response::Done);
    assert_eq!(t.world.pushes(t.conn), [Push::SlotsWaiting]);
    t.world.ask(t.owner, put(&[slot(to, by, 82)]));
    t.world.ask(t.conn, put(&[slot(to, own, 84)]));
    let mut expected = vec![slot(to, by, 82), slot(to, own, 84)];
    expected.sort_by_key(|s| s.filler);
    let answer = t.world.ask(t.conn, Request::FetchSlots);
    assert_eq!(answer, Response::Slots { slots: expected });
    let slots = Vec::new();
    assert_eq!(
        t.world.ask(t.owner, Request::FetchSlots),
        Response::Slots { slots }
    );
    let refusal = t.world.refused(t.conn, put(&[slot(to, by, 80)]));
    assert_eq!(refusal, Refusal::Malformed);
}

/// REQ-040: slots in a request and bytes in a slot, at the limit and one more.
#[test]
fn slots_are_limited() {
    let mut t = two();
    let (to, by) = (t.device.id(), t.world.owner.id());
    let many = vec![slot(to, by, 80); limits::MAX_SLOTS + 1];
    let refusal = t.world.refused(t.owner, put(&many));
    assert_eq!(refusal, too_large(limits::MAX_SLOTS));
    assert_eq!(t.world.ask(t.owner, put(&many[1..])), Response::Done);
    let refusal = t
        .world
        .refused(t.owner, put(&[slot(to, by, MAX_SLOT_BYTES + 1)]));
    assert_eq!(refusal, too_large(MAX_SLOT_BYTES));
    let fits = put(&[slot(to, by, MAX_SLOT_BYTES)]);
    assert_eq!(t.world.ask(t.owner, fits), Response::Done);
}

/// A device keeps as many slots as one answer holds: the oldest makes room for a newcomer's.
#[test]
fn the_oldest_slot_makes_room() {
    let mut t = two();
    let to = t.device.id();
    let mut fillers = Vec::new();
    for _ in 0..=limits::MAX_SLOTS {
        let (device, conn) = t.world.join(t.owner, Role::Member);
        t.world.now_ms += 1;
        let answer = t.world.ask(conn, put(&[slot(to, device.id(), 80)]));
        assert_eq!(answer, Response::Done);
        t.world
            .step(vec![crate::core::Input::Disconnected { conn }]);
        t.world.outputs.clear();
        fillers.push(device.id());
    }
    let answer = t.world.ask(t.conn, Request::FetchSlots);
    let Response::Slots { slots } = answer else {
        panic!("no slots: {answer:?}");
    };
    assert_eq!(slots.len(), limits::MAX_SLOTS);
    let kept = |filler: &DeviceId| slots.iter().any(|s| s.filler == *filler);
    assert!(!kept(&fillers[0]) && fillers[1..].iter().all(kept));
}
