//! Quotas, as the relay counts them: who is over waits, orders do not (REQ-320, REQ-321).

use std::num::NonZeroU32;

use mortise_protocol::roster::{Op, Role};
use mortise_protocol::wire::{Refusal, Request, Response, Submission};

use super::fixture::*;
use super::storage::Disk;
use crate::core::quotas::{BYTES_PER_COUNT, MIN_WAIT_MS, Quota, Quotas};
use crate::core::{ConnId, Core, CoreConfig};

const NONE: Quota = quota(0, 1);

const fn quota(per_s: u32, burst: u32) -> Quota {
    let burst = NonZeroU32::new(burst).expect("at least 1");
    Quota { per_s, burst }
}

fn config(device_records: Quota, group_records: Quota, device_questions: Quota) -> CoreConfig {
    CoreConfig {
        quotas: Quotas {
            device_records,
            group_records,
            device_questions,
        },
        ..CoreConfig::new(key(1, 0))
    }
}

/// An owner and two members on a relay with these quotas, and a group.
struct Room {
    world: World,
    owner: ConnId,
    members: [(Device, ConnId); 2],
    group: Group,
}

fn room(config: CoreConfig) -> Room {
    let mut world = World::founded();
    let owner = world.owner_online();
    let [a, b] = [(); 2].map(|()| world.join(owner, Role::Member).0);
    let group = Group::created(1, &mut world, owner);
    world.core = Core::load(&world.store, config).expect("load");
    let owner = world.owner_online();
    let (conn_a, conn_b) = (world.online(&a), world.online(&b));
    let members = [(a, conn_a), (b, conn_b)];
    Room {
        world,
        owner,
        members,
        group,
    }
}

impl Room {
    fn chat(&mut self, member: usize) -> (ConnId, Submission) {
        let conn = self.members[member].1;
        (conn, self.group.chat(conn, &self.world.roster))
    }

    fn say(&mut self, member: usize) -> Response {
        let (conn, chat) = self.chat(member);
        self.world.ask(conn, Request::Submit(chat))
    }
}

fn wait(retry_after_ms: u64) -> Response {
    Response::Refused(Refusal::RateLimited { retry_after_ms })
}

/// REQ-320: exactly the burst at once; then the time to wait, in which nothing of the kind is taken; then one more.
#[test]
fn a_device_over_its_records_waits_and_others_do_not() {
    let mut r = room(config(quota(1, 3), NONE, NONE));
    for _ in 0..3 {
        appended(r.say(0));
    }
    let (conn, kept) = r.chat(0);
    assert_eq!(
        r.world.ask(conn, Request::Submit(kept.clone())),
        wait(1_000)
    );
    appended(r.say(1));
    r.world.now_ms += 999;
    assert_eq!(r.say(0), wait(1), "it was told to wait for longer");
    assert!(matches!(
        r.world.ask(conn, Request::FetchSlots),
        Response::Slots { .. }
    ));
    let status = r.world.core.status(&r.world.store).expect("status");
    assert_eq!(
        (status.over_quota, status.quotas.device_records.per_s),
        (2, 1)
    );
    r.world.now_ms += 1;
    appended(r.world.ask(conn, Request::Submit(kept)));
    assert_eq!(r.say(0), wait(1_000));
}

/// REQ-320: who is told to wait is told at least a second, and what comes behind is refused with it: the order is kept.
#[test]
fn what_is_behind_is_refused_with_it() {
    let mut r = room(config(quota(1_000, 2), NONE, NONE));
    appended(r.say(0));
    appended(r.say(0));
    assert_eq!(r.say(0), wait(MIN_WAIT_MS));
    r.world.now_ms += 500;
    assert_eq!(
        r.say(0),
        wait(500),
        "the bucket has room again, but its order would be lost"
    );
    r.world.now_ms += 500;
    appended(r.say(0));
}

/// REQ-320: a group's bucket is for what is appended: who cannot append takes nothing from it, and questions have their own.
#[test]
fn a_group_is_counted_when_it_grows() {
    let mut r = room(config(NONE, quota(1, 2), quota(1, 2)));
    let (conn, mut forged) = r.chat(1);
    forged.proof = Group::new(7).proof(
        conn,
        r.group.epoch(),
        mortise_protocol::wire::Purpose::Append,
    );
    for _ in 0..9 {
        let refused = r.world.refused(conn, Request::Submit(forged.clone()));
        assert_eq!(refused, Refusal::AccessDenied);
    }
    appended(r.say(0));
    appended(r.say(1));
    assert_eq!(r.say(1), wait(1_000));
    let mut other = Group::created(2, &mut r.world, conn);
    appended(other.say(&mut r.world, conn));
    for _ in 0..2 {
        assert!(matches!(
            r.world.ask(conn, Request::FetchSlots),
            Response::Slots { .. }
        ));
    }
    assert_eq!(r.world.ask(conn, Request::FetchSlots), wait(1_000));
    // Neither the roster nor a greeting counts.
    let after = mortise_protocol::identity::RosterSeq(0);
    let answer = r.world.ask(conn, Request::FetchRoster { after });
    assert!(matches!(answer, Response::Roster { .. }), "{answer:?}");
}

/// REQ-320: a record counts by its size, and one that is larger than all of a bucket takes all of it.
#[test]
fn a_large_record_counts_for_more() {
    let mut r = room(config(quota(1, 4), NONE, NONE));
    let conn = r.members[0].1;
    let at = at_head(&r.world.roster);
    let content = mortise_protocol::wire::aad::ContentType::Application;
    let mut large = |bytes| {
        let message = mortise_protocol::identity::encode(&r.group.message_at(content, at, bytes));
        let body = mortise_protocol::wire::log::RecordBody::Message(message.into());
        Request::Submit(r.group.submission(conn, &body))
    };
    let (three, seven) = (large(2 * BYTES_PER_COUNT), large(7 * BYTES_PER_COUNT));
    appended(r.world.ask(conn, three.clone()));
    assert_eq!(r.world.ask(conn, seven.clone()), wait(3_000));
    r.world.now_ms += 3_000;
    appended(r.world.ask(conn, seven));
    assert_eq!(r.say(0), wait(1_000));
}

/// REQ-321: an order is appended, and the commit that it demands goes before whatever bucket is empty; the next does not.
#[test]
fn the_commit_that_an_order_demands_does_not_wait() {
    let empty = quota(1, 1);
    let mut r = room(config(empty, empty, empty));
    let (stays, conn) = (0, r.members[0].1);
    appended(r.say(stays));
    assert_eq!(r.say(stays), wait(1_000));
    let (early, _) = r.group.commit(conn, &r.members[stays].0, &r.world.roster);
    assert_eq!(r.world.ask(conn, Request::Submit(early)), wait(1_000));
    let user = r.members[1].0.user;
    r.world.order(r.owner, vec![Op::RemoveUser { user }]);
    assert_eq!(r.say(stays), wait(1_000), "a message is no commit");
    let (demanded, next) = r.group.commit(conn, &r.members[stays].0, &r.world.roster);
    appended(r.world.ask(conn, Request::Submit(demanded.clone())));
    r.group.follow(&demanded, next);
    let (further, _) = r.group.commit(conn, &r.members[stays].0, &r.world.roster);
    assert_eq!(r.world.ask(conn, Request::Submit(further)), wait(1_000));
}

/// REQ-320: a batch that was not written has taken nothing; a clock that was set back holds nobody up.
#[test]
fn what_never_was_takes_nothing() {
    let mut world = World::on(Disk::default());
    world.found();
    let owner = world.owner_online();
    let mut group = Group::created(1, &mut world, owner);
    world.core = Core::load(&world.store, config(quota(1, 2), NONE, NONE)).expect("load");
    let owner = world.owner_online();
    world.store.full = true;
    for _ in 0..5 {
        let chat = group.chat(owner, &world.roster);
        assert_eq!(
            world.refused(owner, Request::Submit(chat)),
            Refusal::Storage
        );
    }
    world.store.full = false;
    for _ in 0..2 {
        appended(group.say(&mut world, owner));
    }
    assert_eq!(group.say(&mut world, owner), wait(1_000));
    world.now_ms -= 3_600_000;
    appended(group.say(&mut world, owner));
}
