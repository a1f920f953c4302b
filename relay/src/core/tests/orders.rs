//! Orders: one transaction, who is closed, who is told what, and how far every group is.

use std::collections::BTreeMap;

use mortise_protocol::identity::{DeviceId, Epoch, GroupId, LogSeq, RosterSeq, seal_slot};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::store::Reader;
use mortise_protocol::wire::log::{Attestation, AttestationStatement, RecordBody, Verdict};
use mortise_protocol::wire::{
    Flag, GroupState, GroupStatus, OrderPosition, Push, Refusal, Request, Response, WelcomeFor,
};

use super::fixture::*;
use crate::core::layout::{
    INBOX, INBOX_NEXT, KEY_PACKAGES, KEY_QUEUES, LAST_RESORTS, SLOTS, WELCOMES, WELCOMES_LEFT,
};
use crate::core::{CloseReason, ConnId, Output};

fn positions(world: &mut World, conn: ConnId) -> Vec<OrderPosition> {
    let pushes = world.pushes(conn);
    let mut found: Vec<_> = pushes
        .into_iter()
        .filter_map(|push| match push {
            Push::RosterEntry { positions, .. } => Some(positions),
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), 1, "one entry was pushed");
    found.remove(0)
}

fn closed(world: &World) -> Vec<ConnId> {
    world
        .outputs
        .iter()
        .filter_map(|output| match output {
            Output::Close {
                conn,
                reason: CloseReason::Removed,
            } => Some(*conn),
            _ => None,
        })
        .collect()
}

const WAITING: [mortise_protocol::store::Space; 8] = [
    KEY_PACKAGES,
    KEY_QUEUES,
    LAST_RESORTS,
    SLOTS,
    INBOX,
    INBOX_NEXT,
    WELCOMES,
    WELCOMES_LEFT,
];

fn waiting(world: &World) -> usize {
    WAITING
        .iter()
        .map(|space| {
            world
                .store
                .range(*space, &[], &[], 99)
                .expect("range")
                .len()
        })
        .sum()
}

/// Leaves KeyPackages, a slot and a Welcome for a device.
fn give_everything(world: &mut World, owner: ConnId, device: &Device, conn: ConnId) {
    world.ask(
        conn,
        Request::PublishKeyPackages {
            suite: 1,
            one_time: vec![vec![1].into(), vec![2].into()],
            last_resort: vec![3].into(),
        },
    );
    let directory = mortise_protocol::identity::DirectoryKey::from_bytes([7; 32]);
    let (org, filler) = (world.org(), world.owner.id());
    let slot = seal_slot(
        org,
        (device.id(), device.seal.public()),
        filler,
        RosterSeq(1),
        &directory,
    );
    let slots = vec![slot.expect("slot")];
    let answer = world.ask(owner, Request::PutSlots { slots });
    assert_eq!(answer, Response::Done);
    let mut group = Group::created(77, world, owner);
    let me = Device::new(0, world.owner.user);
    let (mut commit, _) = group.commit(owner, &me, &world.roster);
    commit.welcomes.push(WelcomeFor {
        devices: vec![device.id()],
        welcome: vec![4].into(),
    });
    appended(world.ask(owner, Request::Submit(commit)));
}

/// REQ-062: what waits for the devices goes in the order's transaction, their connections are closed, and they are
/// refused from then on, in the same batch already.
#[test]
fn an_order_takes_everything_from_its_devices() {
    for revoke_only in [false, true] {
        let mut world = World::founded();
        let owner = world.owner_online();
        let (gone, conn) = world.join(owner, Role::Member);
        let (_, other) = world.join(owner, Role::Member);
        let second = world.online(&gone);
        give_everything(&mut world, owner, &gone, conn);
        assert_eq!(waiting(&world), 9);
        let group = Group::created(1, &mut world, conn);
        group.subscribe(&mut world, conn, Epoch(0), 0, 9);
        world.outputs.clear();

        let (user, device) = (gone.user, gone.id());
        let op = if revoke_only {
            Op::RevokeDevice { device }
        } else {
            Op::RemoveUser { user }
        };
        let entry = world.owner_entry(vec![op]);
        let answers = world.ask_all(vec![
            (owner, append_roster(&entry)),
            (conn, Request::FetchSlots),
            (other, Request::FetchSlots),
        ]);
        world.roster.apply(entry.bytes()).expect("order");
        assert_eq!(answers[1], None, "a closed connection is not answered");
        assert!(matches!(answers[2], Some(Response::Slots { .. })));
        assert_eq!(closed(&world), [conn, second]);
        assert_eq!(waiting(&world), 0);
        assert_eq!(world.core.connections.subscriptions_len(), 0);

        let back = world.online(&gone);
        assert_eq!(
            world.refused(back, Request::FetchSlots),
            Refusal::NotAdmitted
        );
        let read = group.subscribe_request(back, Epoch(0), 0, 9);
        assert_eq!(world.refused(back, read), Refusal::NotAdmitted);
        let claim = Request::ClaimKeyPackages {
            suite: 1,
            devices: vec![gone.id()],
        };
        let packages = Vec::new();
        assert_eq!(world.ask(owner, claim), Response::KeyPackages { packages });
    }
}

/// REQ-062: who leaves by their own order is answered before their connection is closed.
#[test]
fn a_leaver_is_answered_and_then_closed() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (leaver, conn) = world.join(owner, Role::Member);
    world.outputs.clear();
    let user = leaver.user;
    let signer = mortise_protocol::roster::EntrySigner::Device(leaver.id());
    let entry = world.entry(signer, &leaver.mls, vec![Op::RemoveUser { user }]);
    let (input, _) = world.frame(conn, append_roster(&entry));
    world.step(vec![input]);
    let kinds: Vec<_> = world
        .outputs
        .iter()
        .map(|output| match output {
            Output::Send { conn, .. } => (*conn, "send"),
            Output::Broadcast { .. } => panic!("what differs by receiver is sent singly"),
            Output::Close { conn, .. } => (*conn, "close"),
        })
        .collect();
    assert_eq!(kinds, [(conn, "send"), (conn, "close"), (owner, "send")]);
}

/// REQ-062: an order voids what somebody said on an older roster, in the order of the batch.
#[test]
fn nothing_based_on_an_older_roster_enters_after_an_order() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (gone, _) = world.join(owner, Role::Member);
    let (_, conn) = world.join(owner, Role::Member);
    let mut group = Group::created(1, &mut world, conn);
    let (before, after) = (
        group.chat(conn, &world.roster),
        group.chat(conn, &world.roster),
    );
    let entry = world.owner_entry(vec![Op::SuspendUser { user: gone.user }]);
    let answers = world.ask_all(vec![
        (conn, Request::Submit(before)),
        (owner, append_roster(&entry)),
        (conn, Request::Submit(after)),
    ]);
    assert!(matches!(answers[0], Some(Response::Appended { .. })));
    let seq = entry.tbs().seq;
    let behind = Refusal::RosterBehind {
        at_least: seq,
        head_seq: seq,
    };
    assert_eq!(answers[2], Some(Response::Refused(behind)));
}

/// REQ-061: an order comes with the head, in its own transaction, of every log that the connection subscribes to.
#[test]
fn an_order_says_where_the_logs_stood() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (gone, _) = world.join(owner, Role::Member);
    let (_, conn) = world.join(owner, Role::Member);
    let mut one = Group::created(1, &mut world, conn);
    let two = Group::created(2, &mut world, conn);
    Group::created(3, &mut world, conn);
    for group in [&one, &two] {
        group.subscribe(&mut world, conn, Epoch(0), 0, 9);
    }
    world.outputs.clear();
    let submit = Request::Submit(one.chat(conn, &world.roster));
    let late = Request::Submit(one.chat(conn, &world.roster));
    let entry = world.owner_entry(vec![Op::RemoveUser { user: gone.user }]);
    world.ask_all(vec![
        (conn, submit),
        (owner, append_roster(&entry)),
        (conn, late),
    ]);
    let at = |group: GroupId, seq| OrderPosition {
        group,
        seq: LogSeq(seq),
        lease: Flag::Yes,
    };
    let expected = [at(one.id, 2), at(two.id, 1)];
    assert_eq!(positions(&mut world, conn), expected);
    assert_eq!(positions(&mut world, owner), []);
}

/// REQ-063: one subscriber of each group has the lease, another one for another group or order, and never one whom
/// the order names or who has not proven the newest epoch.
#[test]
fn one_subscriber_of_each_group_has_the_lease() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let conns: Vec<ConnId> = (0..3).map(|_| world.join(owner, Role::Member).1).collect();
    let mut leases: BTreeMap<ConnId, usize> = BTreeMap::new();
    for n in 1..=8 {
        let (gone, leaving) = world.join(owner, Role::Member);
        let me = Device::new(0, world.owner.user);
        let mut group = Group::created(n, &mut world, owner);
        let stale = world.online(&me);
        group.subscribe(&mut world, stale, Epoch(0), 0, 0);
        group.rotate(&mut world, owner, &me);
        for conn in conns.iter().chain([&leaving]) {
            group.subscribe(&mut world, *conn, Epoch(1), 2, 9);
        }
        world.outputs.clear();
        world.order(owner, vec![Op::RemoveUser { user: gone.user }]);
        assert_eq!(world.pushes(leaving), []);
        let leased: Vec<ConnId> = conns
            .iter()
            .copied()
            .filter(|conn| {
                let positions = positions(&mut world, *conn);
                let here = positions.iter().find(|p| p.group == group.id);
                here.expect("subscribed").lease == Flag::Yes
            })
            .collect();
        assert_eq!(leased.len(), 1, "group {n}");
        *leases.entry(leased[0]).or_default() += 1;
        let behind = positions(&mut world, stale);
        let expected = OrderPosition {
            group: group.id,
            seq: LogSeq(2),
            lease: Flag::No,
        };
        assert_eq!(behind, [expected]);
    }
    assert!(leases.len() > 1, "the lease is spread: {leases:?}");
}

/// REQ-063: with nobody to choose from, nobody has the lease.
#[test]
fn who_has_not_proven_the_newest_epoch_is_not_asked() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let me = Device::new(0, world.owner.user);
    let (gone, _) = world.join(owner, Role::Member);
    let (_, stale) = world.join(owner, Role::Member);
    let mut group = Group::created(1, &mut world, owner);
    group.subscribe(&mut world, stale, Epoch(0), 0, 0);
    group.rotate(&mut world, owner, &me);
    world.outputs.clear();
    world.order(owner, vec![Op::RemoveUser { user: gone.user }]);
    let position = OrderPosition {
        group: group.id,
        seq: LogSeq(2),
        lease: Flag::No,
    };
    assert_eq!(positions(&mut world, stale), [position]);
}

fn attest(
    world: &mut World,
    group: &Group,
    (device, conn): (&Device, ConnId),
    order: RosterSeq,
    verdict: Verdict,
) {
    let (roster_seq, roster_hash) = at_head(&world.roster);
    let statement = AttestationStatement {
        order_seq: order,
        order_hash: world.roster.hash_at(order).expect("order"),
        group: group.id,
        entry_hash: group.opening(group.epoch()),
        epoch: group.epoch(),
        roster_seq,
        roster_hash,
        verdict,
        device: device.id(),
    };
    let signed = Attestation::sign(statement, &device.mls, group.access_key(group.epoch()));
    let submission = group.submission(conn, &RecordBody::Attestation(signed));
    appended(world.ask(conn, Request::Submit(submission)));
}

fn row(group: &Group, state: GroupState, attested_by: &[DeviceId], at_ms: u64) -> GroupStatus {
    GroupStatus {
        group: group.id,
        state,
        attested_by: attested_by.to_vec(),
        at_ms,
        rotated_at_ms: 0,
        confirmed_at_ms: 0,
    }
}

/// REQ-065, REQ-179: a row for each group that is older than the order; rotated outweighs clean; sealed until somebody says.
#[test]
fn the_status_of_an_order_is_what_devices_attest() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (gone, _) = world.join(owner, Role::Member);
    let (a, conn_a) = world.join(owner, Role::Member);
    let (b, conn_b) = world.join(owner, Role::Member);
    let created = world.now_ms;
    let groups: Vec<Group> = (1..=3)
        .map(|n| Group::created(n, &mut world, conn_a))
        .collect();
    let order = world.order(owner, vec![Op::RemoveUser { user: gone.user }]);
    Group::created(4, &mut world, conn_a);
    let status = |world: &mut World| match world.ask(owner, Request::OrderStatus { order }) {
        Response::OrderStatus { groups, .. } => groups,
        other => panic!("no status: {other:?}"),
    };
    let sealed: Vec<_> = groups
        .iter()
        .map(|g| row(g, GroupState::Sealed, &[], 0))
        .collect();
    assert_eq!(status(&mut world), sealed);

    let start = world.now_ms;
    attest(&mut world, &groups[0], (&a, conn_a), order, Verdict::Clean);
    attest(&mut world, &groups[1], (&a, conn_a), order, Verdict::Clean);
    world.now_ms += 1;
    attest(
        &mut world,
        &groups[1],
        (&b, conn_b),
        order,
        Verdict::Rotated,
    );
    attest(
        &mut world,
        &groups[1],
        (&a, conn_a),
        order,
        Verdict::Rotated,
    );
    let mut both = [a.id(), b.id()];
    both.sort_unstable();
    let expected = [
        row(&groups[0], GroupState::Clean, &[a.id()], start),
        GroupStatus {
            rotated_at_ms: created,
            confirmed_at_ms: start + 1,
            ..row(&groups[1], GroupState::Rotated, &both, start)
        },
        sealed[2].clone(),
    ];
    assert_eq!(status(&mut world), expected);

    let (again, _) = world.join(owner, Role::Member);
    attest(&mut world, &groups[0], (&a, conn_a), order, Verdict::Clean);
    assert_eq!(
        status(&mut world),
        expected,
        "the first attestation's time stays"
    );
    let next = world.order(owner, vec![Op::RemoveUser { user: again.user }]);
    match world.ask(owner, Request::OrderStatus { order: next }) {
        Response::OrderStatus { groups, .. } => {
            assert_eq!(groups.len(), 4);
            assert!(groups.iter().all(|g| g.state == GroupState::Sealed));
        }
        other => panic!("no status: {other:?}"),
    }
}

/// REQ-065: owners, admins, supervisors and auditors may ask; an order must exist.
#[test]
fn the_status_is_for_those_who_answer_for_it() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (gone, _) = world.join(owner, Role::Member);
    let order = world.order(owner, vec![Op::RemoveUser { user: gone.user }]);
    let (groups, ordered) = (Vec::new(), world.now_ms);
    for role in Role::ALL {
        let (_, conn) = world.join(owner, role);
        let answer = world.ask(conn, Request::OrderStatus { order });
        let allowed = matches!(
            role,
            Role::Owner | Role::Admin | Role::Supervisor | Role::Auditor
        );
        let expected = match allowed {
            true => Response::OrderStatus {
                appended_at_ms: ordered,
                closed: 1,
                groups: Vec::clone(&groups),
            },
            false => Response::Refused(Refusal::Forbidden),
        };
        assert_eq!(answer, expected, "{role}");
    }
    for order in [RosterSeq(0), RosterSeq(1), RosterSeq(u64::MAX)] {
        let refusal = world.refused(owner, Request::OrderStatus { order });
        assert_eq!(refusal, Refusal::UnknownOrder);
    }
}
