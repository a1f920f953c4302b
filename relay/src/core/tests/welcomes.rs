//! Welcomes on their way: stored with their commit, once, for admitted devices, until they are dealt with.

use mortise_protocol::identity::{DeviceId, Epoch, LogSeq, RosterSeq};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::store::Reader;
use mortise_protocol::wire::log::LogCursor;
use mortise_protocol::wire::{
    Flag, InboxItem, Push, Request, Response, Submission, WelcomeFor, limits,
};

use super::fixture::*;
use crate::core::ConnId;
use crate::core::layout::{INBOX, WELCOMES, WELCOMES_LEFT};

struct Room {
    world: World,
    owner: ConnId,
    me: Device,
    group: Group,
}

fn room() -> Room {
    let mut world = World::founded();
    let owner = world.owner_online();
    let me = Device::new(0, world.owner.user);
    let group = Group::created(1, &mut world, owner);
    Room {
        world,
        owner,
        me,
        group,
    }
}

impl Room {
    /// Commits, with one Welcome of this size for these devices.
    fn add(&mut self, devices: &[DeviceId], bytes: usize) -> Submission {
        let (mut commit, next) = self.group.commit(self.owner, &self.me, &self.world.roster);
        commit.welcomes.push(WelcomeFor {
            devices: devices.to_vec(),
            welcome: vec![5; bytes].into(),
        });
        appended(self.world.ask(self.owner, Request::Submit(commit.clone())));
        self.group.follow(&commit, next);
        commit
    }

    fn stored(&self) -> usize {
        let rows = |space| self.world.store.range(space, &[], &[], 999).expect("range");
        let (blobs, counts) = (rows(WELCOMES).len(), rows(WELCOMES_LEFT).len());
        assert_eq!(blobs, counts);
        blobs
    }
}

fn inbox(world: &mut World, conn: ConnId, after: u64) -> (Vec<InboxItem>, bool) {
    match world.ask(conn, Request::FetchInbox { after }) {
        Response::Inbox { items, more } => (items, more.into()),
        other => panic!("no inbox: {other:?}"),
    }
}

/// REQ-044, REQ-053, REQ-390: a Welcome comes with its commit's record and the log's hash, to each admitted device that is named, once.
#[test]
fn a_welcome_comes_with_its_commit() {
    let mut r = room();
    let (one, conn) = r.world.join(r.owner, Role::Member);
    let (two, _) = r.world.join(r.owner, Role::Member);
    let (gone, _) = r.world.join(r.owner, Role::Member);
    r.world
        .order(r.owner, vec![Op::RemoveUser { user: gone.user }]);
    r.world.outputs.clear();
    let named = [one.id(), gone.id(), one.id(), two.id(), DeviceId([9; 16])];
    let commit = r.add(&named, 3);
    assert_eq!(r.world.pushes(conn), [Push::InboxWaiting]);
    assert_eq!(r.stored(), 1);
    let waiting = r.world.store.range(INBOX, &[], &[], 9).expect("range");
    assert_eq!(waiting.len(), 2);
    let (items, more) = inbox(&mut r.world, conn, 0);
    let [item] = &items[..] else {
        panic!("one item: {items:?}");
    };
    assert!(!more);
    assert_eq!((item.seq, item.group), (1, r.group.id));
    assert_eq!(item.welcome.as_slice(), [5; 3]);
    assert_eq!((item.entry.seq, item.entry.epoch), (LogSeq(2), Epoch(0)));
    assert_eq!(item.entry.payload, commit.payload);
    let before = LogCursor::created(r.group.opening(Epoch(0)), RosterSeq(0));
    assert_eq!(item.log_hash, before.hash, "of the log before the commit");
    let after = before.opens(item.entry.record_id(), item.entry.fence);
    r.add(&[one.id()], 4);
    assert_eq!(inbox(&mut r.world, conn, 1).0[0].log_hash, after.hash);
    let later = r.world.online(&two);
    let answer = r.world.hello(later, r.world.org());
    assert!(matches!(answer, Response::Hello { inbox_waiting, .. } if inbox_waiting == Flag::Yes));
}

/// REQ-053: what a device has dealt with is deleted, the Welcome with the last device; positions are never used again.
#[test]
fn what_is_dealt_with_is_deleted() {
    let mut r = room();
    let (one, conn) = r.world.join(r.owner, Role::Member);
    let (two, other) = r.world.join(r.owner, Role::Member);
    r.add(&[one.id(), two.id()], 3);
    r.add(&[one.id()], 4);
    assert_eq!(inbox(&mut r.world, conn, 0).0.len(), 2);
    assert_eq!(
        inbox(&mut r.world, conn, 0).0.len(),
        2,
        "reading deletes nothing"
    );
    assert_eq!(inbox(&mut r.world, conn, 1).0[0].seq, 2);
    assert_eq!(r.stored(), 2);
    assert_eq!(inbox(&mut r.world, other, 1).0, []);
    assert_eq!(r.stored(), 1);
    assert_eq!(inbox(&mut r.world, conn, 2).0, []);
    assert_eq!(r.stored(), 0);
    r.add(&[one.id()], 5);
    assert_eq!(inbox(&mut r.world, conn, 2).0[0].seq, 3);
}

/// REQ-062: an order takes a device's Welcomes, and leaves those of others.
#[test]
fn an_order_takes_undelivered_welcomes() {
    let mut r = room();
    let (one, _) = r.world.join(r.owner, Role::Member);
    let (two, conn) = r.world.join(r.owner, Role::Member);
    r.add(&[one.id(), two.id()], 3);
    r.add(&[one.id()], 4);
    r.world
        .order(r.owner, vec![Op::RemoveUser { user: one.user }]);
    assert_eq!(r.stored(), 1);
    assert_eq!(inbox(&mut r.world, conn, 0).0.len(), 1);
}

/// REQ-040: an answer holds up to 16 Welcomes and 1 MiB, but always one.
#[test]
fn the_inbox_comes_in_pages() {
    let mut r = room();
    let (one, conn) = r.world.join(r.owner, Role::Member);
    for _ in 0..=limits::MAX_INBOX_PAGE {
        r.add(&[one.id()], 3);
    }
    let (page, more) = inbox(&mut r.world, conn, 0);
    assert_eq!((page.len(), more), (limits::MAX_INBOX_PAGE, true));
    let (rest, more) = inbox(&mut r.world, conn, page.len() as u64);
    assert_eq!((rest.len(), more), (1, false));

    r.add(&[one.id()], limits::MAX_PAGE_BYTES + 1);
    r.add(&[one.id()], 3);
    let after = rest[0].seq;
    let (page, more) = inbox(&mut r.world, conn, after);
    assert_eq!((page.len(), more), (1, true));
    let (page, more) = inbox(&mut r.world, conn, after + 1);
    assert_eq!((page.len(), more), (1, false));
}
