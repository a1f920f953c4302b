//! Policy, closed groups, recovery, rate limits, checkpoints, as the relay decides them.

use mortise_protocol::identity::{Hash, SealedProfile, UserId};
use mortise_protocol::roster::{
    Checkpoint, EntrySigner, Op, OrgPolicy, Role, RosterError, RotateDirectoryKey, Staleness,
};
use mortise_protocol::wire::{Flag, Push, Refusal, Request, Response, RosterHead, limits};

use super::fixture::*;
use crate::core::layout::CHECKPOINTS;
use crate::core::{ConnId, Input};
use mortise_protocol::store::Reader;

fn policy() -> OrgPolicy {
    OrgPolicy {
        version: 1,
        suite: 1,
        pin_required: Flag::Yes,
        staleness: Staleness::Block,
        staleness_limit_ms: 3_600_000,
        statement_key: statement_key(),
    }
}

/// REQ-100: a policy is taken by the relay that it names, and by no other.
#[test]
fn a_policy_of_another_relay_is_refused() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let foreign = OrgPolicy {
        statement_key: key(1, 1).public(),
        ..policy()
    };
    let entry = world.owner_entry(vec![Op::SetPolicy(foreign)]);
    let code = RosterError::ForeignStatementKey.code();
    let refusal = world.refused(owner, append_roster(&entry));
    assert_eq!(refusal, Refusal::RosterRule { code });
    world.order(owner, vec![Op::SetPolicy(policy())]);
    world.restarted();
}

/// REQ-102: a closed group takes nothing more, from nobody, and its log stays readable.
#[test]
fn a_closed_group_takes_nothing() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (device, conn) = world.join(owner, Role::Member);
    let mut group = Group::created(1, &mut world, conn);
    let kept = group.chat(conn, &world.roster);
    let seq = appended(world.ask(conn, Request::Submit(kept.clone())));
    let id = group.id;
    world.order(owner, vec![Op::CloseGroup { group: id }]);
    let message = group.chat(conn, &world.roster);
    let refusal = world.refused(conn, Request::Submit(message));
    assert_eq!(refusal, Refusal::GroupClosed);
    let (commit, _) = group.commit(conn, &device, &world.roster);
    let refusal = world.refused(conn, Request::Submit(commit));
    assert_eq!(refusal, Refusal::GroupClosed);
    // What was appended before is answered as before, and read as before.
    assert_eq!(appended(world.ask(conn, Request::Submit(kept))), seq);
    let epoch = mortise_protocol::identity::Epoch(0);
    assert_eq!(group.subscribe(&mut world, conn, epoch, 0, 9), (2, 0, 2));
    assert_eq!(world.seqs(conn), [1, 2]);
    // Without the epoch's key nobody learns that it is closed.
    let other = Group::new(1);
    let mut stolen = group.chat(conn, &world.roster);
    stolen.proof = other.proof(
        ConnId(9_999),
        epoch,
        mortise_protocol::wire::Purpose::Append,
    );
    let refusal = world.refused(conn, Request::Submit(stolen));
    assert_eq!(refusal, Refusal::AccessDenied);
    // An id that was closed before anybody used it.
    let unborn = Group::new(2);
    world.order(owner, vec![Op::CloseGroup { group: unborn.id }]);
    let refusal = world.refused(conn, unborn.create_request());
    assert_eq!(refusal, Refusal::GroupClosed);
    let mut open = Group::created(3, &mut world, conn);
    appended(open.say(&mut world, conn));
}

fn recovery(world: &World, device: &Device, commitment: u8) -> Vec<Op> {
    vec![
        Op::Recover,
        Op::AddUser {
            user: device.user,
            role: Role::Owner,
            profile: SealedProfile(vec![0; 16].into()),
        },
        device.add(world.org()),
        Op::RotateDirectoryKey(RotateDirectoryKey {
            commitment: Hash([commitment; 32]),
            predecessor: Vec::new().into(),
        }),
    ]
}

/// REQ-103, REQ-054: the root key opens the door to who is not admitted, and admits them on their connection.
#[test]
fn the_root_key_recovers_from_outside() {
    let mut world = World::founded();
    let device = Device::new(70, UserId([0xaa; 16]));
    let conn = world.online(&device);
    let ops = recovery(&world, &device, 1);
    let forged = world.entry(EntrySigner::Root, &org_root(3), ops.clone());
    let code = RosterError::BadSignature.code();
    let refusal = world.refused(conn, append_roster(&forged));
    assert_eq!(refusal, Refusal::RosterRule { code });
    let entry = world.entry(EntrySigner::Root, &org_root(0), ops);
    world.append(conn, &entry);
    let answer = world.ask(conn, Request::FetchSlotless);
    let owner = world.owner.id();
    let devices = vec![owner];
    assert_eq!(answer, Response::Slotless { devices });
    let user = world.owner.user;
    let signer = EntrySigner::Device(device.id());
    let entry = world.entry(signer, &device.mls, vec![Op::RemoveUser { user }]);
    world.append(conn, &entry);
    world.restarted();
}

/// REQ-107, REQ-054: a stranger has a few tries on a connection, whatever they are signed with.
#[test]
fn a_stranger_has_a_few_tries() {
    let mut world = World::founded();
    let device = Device::new(70, UserId([0xaa; 16]));
    let conn = world.online(&device);
    let ops = recovery(&world, &device, 1);
    let forged = world.entry(EntrySigner::Root, &org_root(3), ops.clone());
    let good = world.entry(EntrySigner::Root, &org_root(0), ops);
    for _ in 0..limits::UNADMITTED_APPENDS {
        let refusal = world.refused(conn, append_roster(&forged));
        assert!(matches!(refusal, Refusal::RosterRule { .. }), "{refusal:?}");
    }
    let retry_after_ms = limits::UNADMITTED_TIMEOUT_MS;
    let limited = Refusal::RateLimited { retry_after_ms };
    assert_eq!(world.refused(conn, append_roster(&good)), limited);
    let again = world.online(&device);
    world.append(again, &good);
}

fn rename(world: &World, who: &Device, n: u8) -> Request {
    let user = who.user;
    let profile = SealedProfile(vec![n; 16].into());
    let op = Op::SetProfile { user, profile };
    let entry = world.entry(EntrySigner::Device(who.id()), &who.mls, vec![op]);
    append_roster(&entry)
}

fn apply(world: &mut World, request: &Request, answer: &Response) {
    let Request::AppendRoster { entry, .. } = request else {
        panic!("an entry")
    };
    assert!(
        matches!(answer, Response::RosterAppended { .. }),
        "{answer:?}"
    );
    world
        .roster
        .apply(entry.as_slice())
        .expect("as the relay did");
}

/// REQ-107: a member's entries are counted, refused with the time to wait, and taken after it; others' are not held up.
#[test]
fn a_member_who_floods_has_to_wait() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (member, conn) = world.join(owner, Role::Member);
    let second = world.online(&member);
    for n in 0..limits::APPEND_BURST {
        let via = if n % 2 == 0 { conn } else { second };
        // Who has lost a race is not charged.
        let stale = world.refused(via, request_at_old_head(&world, &member));
        assert!(matches!(stale, Refusal::RosterConflict { .. }), "{stale:?}");
        let request = rename(&world, &member, u8::try_from(n).expect("small"));
        let answer = world.ask(via, request.clone());
        apply(&mut world, &request, &answer);
    }
    let next = rename(&world, &member, 99);
    let retry_after_ms = limits::APPEND_EVERY_MS;
    let limited = Refusal::RateLimited { retry_after_ms };
    assert_eq!(world.refused(conn, next.clone()), limited);
    assert_eq!(world.refused(second, next), limited);
    let user = member.user;
    let role = Role::Guest;
    world.order(owner, vec![Op::SetRole { user, role }]);
    world.now_ms += limits::APPEND_EVERY_MS - 1;
    let next = rename(&world, &member, 99);
    let soon = Refusal::RateLimited { retry_after_ms: 1 };
    assert_eq!(world.refused(conn, next), soon);
    world.now_ms += 1;
    let next = rename(&world, &member, 99);
    let answer = world.ask(conn, next.clone());
    apply(&mut world, &next, &answer);
    // A restart is no way around it: the roster shows what was appended.
    world.core = world.restarted();
    let conn = world.online(&member);
    let next = rename(&world, &member, 98);
    assert_eq!(world.refused(conn, next), limited);
}

/// An entry that follows the one before the head.
fn request_at_old_head(world: &World, who: &Device) -> Request {
    let head = world.roster.head();
    let before = RosterHead {
        seq: mortise_protocol::identity::RosterSeq(head.seq.0 - 1),
        hash: Hash([9; 32]),
    };
    let entry = mortise_protocol::roster::sign_entry(
        world.org(),
        before,
        world.now_ms,
        EntrySigner::Device(who.id()),
        &who.mls,
        vec![Op::RemoveUser { user: who.user }],
    );
    append_roster(&entry)
}

/// REQ-107: an owner's orders are not counted, and nothing makes them wait; their other entries are.
#[test]
fn orders_are_never_behind() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (gone, _) = world.join(owner, Role::Member);
    let me = Device::new(0, world.owner.user);
    let (user, invitation, invitation_key) = world.invite(owner, Role::Member);
    // What was added and invited so far: two people.
    let mut taken = 2;
    while taken < limits::ADMIN_APPEND_BURST {
        let request = rename(&world, &me, 1);
        let answer = world.ask(owner, request.clone());
        if answer == Response::Refused(limited()) {
            break;
        }
        apply(&mut world, &request, &answer);
        taken += 1;
    }
    assert_eq!(taken, limits::ADMIN_APPEND_BURST);
    let request = rename(&world, &me, 2);
    assert_eq!(world.refused(owner, request), limited());
    // An invitation is redeemed all the same, whoever brings the entry.
    let ops = vec![Device::new(80, user).add(world.org())];
    let entry = world.entry(EntrySigner::Invitation(invitation), &invitation_key, ops);
    world.append(owner, &entry);
    let user = gone.user;
    world.order(owner, vec![Op::RemoveUser { user }]);
    let request = rename(&world, &me, 2);
    assert_eq!(world.refused(owner, request), limited());
}

fn limited() -> Refusal {
    Refusal::RateLimited {
        retry_after_ms: limits::ADMIN_APPEND_EVERY_MS,
    }
}

/// REQ-107: of entries that wait at the same time, an owner's order is decided first, whoever came before.
#[test]
fn an_order_overtakes_what_waits_with_it() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (member, conn) = world.join(owner, Role::Member);
    let (gone, _) = world.join(owner, Role::Member);
    let user = gone.user;
    let order = world.owner_entry(vec![Op::RemoveUser { user }]);
    let flood = rename(&world, &member, 1);
    let questions = vec![(conn, flood.clone()), (owner, append_roster(&order))];
    let answers = world.ask_all(questions);
    let head = order.head();
    let conflict = Response::Refused(Refusal::RosterConflict { head });
    let expected = [Some(conflict), Some(Response::RosterAppended { head })];
    assert_eq!(answers, expected);
    // On its own connection nothing is overtaken.
    world.roster.apply(order.bytes()).expect("as the relay did");
    let me = Device::new(0, world.owner.user);
    let first = rename(&world, &me, 3);
    let user = member.user;
    let second = world.owner_entry(vec![Op::RemoveUser { user }]);
    let answers = world.ask_all(vec![(owner, first), (owner, append_roster(&second))]);
    assert!(matches!(
        answers[..],
        [
            Some(Response::RosterAppended { .. }),
            Some(Response::Refused(Refusal::RosterConflict { .. }))
        ]
    ));
}

fn checkpoint(world: &World, by: &Device) -> Checkpoint {
    let head = world.roster.head();
    Checkpoint::sign(world.org(), head, world.now_ms, by.id(), &by.mls)
}

fn put(checkpoint: Checkpoint) -> Request {
    Request::PutCheckpoint { checkpoint }
}

fn fetch(world: &mut World, conn: ConnId) -> Vec<Checkpoint> {
    match world.ask(conn, Request::FetchCheckpoints) {
        Response::Checkpoints { checkpoints } => checkpoints,
        other => panic!("no checkpoints: {other:?}"),
    }
}

/// REQ-105: the newest of each administrator is kept, given and pushed.
#[test]
fn checkpoints_are_kept_given_and_pushed() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (admin, admin_conn) = world.join(owner, Role::Admin);
    let (_, conn) = world.join(owner, Role::Member);
    world.outputs.clear();
    let me = Device::new(0, world.owner.user);
    let first = checkpoint(&world, &me);
    assert_eq!(world.ask(owner, put(first)), Response::Done);
    let pushed = [Push::Checkpoint { checkpoint: first }];
    assert_eq!(world.pushes(conn), pushed);
    assert_eq!(world.pushes(admin_conn), pushed);
    assert!(world.pushes(owner).is_empty());
    assert_eq!(world.ask(owner, put(first)), Response::Done);
    assert!(world.pushes(conn).is_empty(), "it is not new");

    world.now_ms += limits::CHECKPOINT_GAP_MS - 1;
    let early = checkpoint(&world, &me);
    let soon = Refusal::RateLimited { retry_after_ms: 1 };
    assert_eq!(world.refused(owner, put(early)), soon);
    let theirs = checkpoint(&world, &admin);
    assert_eq!(world.ask(admin_conn, put(theirs)), Response::Done);
    world.now_ms += 1;
    let second = checkpoint(&world, &me);
    assert_eq!(world.ask(owner, put(second)), Response::Done);
    assert_eq!(fetch(&mut world, conn), [second, theirs]);
    world.now_ms += limits::CHECKPOINT_GAP_MS;
    assert!(matches!(
        world.refused(owner, put(first)),
        Refusal::RateLimited { .. }
    ));
    let user = admin.user;
    world.order(owner, vec![Op::RemoveUser { user }]);
    assert_eq!(fetch(&mut world, conn), [second]);
    let rows = world.store.range(CHECKPOINTS, &[], &[], 9).expect("range");
    assert_eq!(rows.len(), 1);
}

/// REQ-105, REQ-048: of who may not, of another, of another roster, of another time: refused.
#[test]
fn a_checkpoint_that_is_none_is_refused() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (member, conn) = world.join(owner, Role::Member);
    let me = Device::new(0, world.owner.user);
    let mine = checkpoint(&world, &member);
    assert_eq!(world.refused(conn, put(mine)), Refusal::Forbidden);
    let good = checkpoint(&world, &me);
    assert_eq!(world.refused(conn, put(good)), Refusal::Malformed);
    let mut forged = good;
    forged.issued_at_ms += 1;
    assert_eq!(world.refused(owner, put(forged)), Refusal::Forbidden);
    let head = world.roster.head();
    let sign = |head, at| Checkpoint::sign(world.org(), head, at, me.id(), &me.mls);
    let hash = Hash([1; 32]);
    let fork = sign(RosterHead { hash, ..head }, world.now_ms);
    let seq = head.seq.next();
    let beyond = sign(RosterHead { seq, ..head }, world.now_ms);
    let skew = 10 * 60_000;
    let late = sign(head, world.now_ms + skew + 1);
    let early = sign(head, world.now_ms - skew - 1);
    assert_eq!(world.refused(owner, put(fork)), Refusal::RosterFork);
    assert_eq!(world.refused(owner, put(beyond)), Refusal::RosterFork);
    let now_ms = world.now_ms;
    assert_eq!(world.refused(owner, put(late)), Refusal::Clock { now_ms });
    assert_eq!(world.refused(owner, put(early)), Refusal::Clock { now_ms });
    assert_eq!(world.ask(owner, put(good)), Response::Done);
    // A member hears it, and a stranger nothing.
    let stranger = world.greet(key(3, 999).public());
    let refusal = world.refused(stranger, Request::FetchCheckpoints);
    assert_eq!(refusal, Refusal::NotAdmitted);
    assert_eq!(fetch(&mut world, conn), [good]);
    world.step(vec![Input::Disconnected { conn: stranger }]);
}
