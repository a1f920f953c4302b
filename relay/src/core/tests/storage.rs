//! Durability: nothing is said before it is stored, and a failed commit never was.

use mortise_protocol::identity::{Epoch, LogSeq, sha256};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::store::{Crash, MemoryStore, Pair, Reader, Space, Store, StoreError, Write};
use mortise_protocol::wire::{Refusal, Request, Response};

use super::fixture::*;
use crate::core::{ConnId, Core, CoreConfig, CoreError, Input, Output};

/// A store that counts its batches, and is full when told so.
#[derive(Clone, Default)]
pub(super) struct Disk {
    rows: MemoryStore,
    pub(super) full: bool,
    batches: u64,
}

impl Reader for Disk {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.read(space, key)
    }
    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.rows.range(space, prefix, from, limit)
    }
}

impl Store for Disk {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if self.full {
            return Err(StoreError::Full);
        }
        self.batches += 1;
        self.rows.apply(writes)
    }
}

struct Room {
    world: World<Disk>,
    owner: ConnId,
    device: Device,
    conn: ConnId,
    group: Group,
}

fn room() -> Room {
    let mut world = World::on(Disk::default());
    world.found();
    let owner = world.owner_online();
    let (device, conn) = world.join(owner, Role::Member);
    let group = Group::created(1, &mut world, conn);
    group.subscribe(&mut world, owner, Epoch(0), 0, 9);
    world.outputs.clear();
    Room {
        world,
        owner,
        device,
        conn,
        group,
    }
}

const REFUSED: Option<Response> = Some(Response::Refused(Refusal::Storage));

/// REQ-070: a batch is one durable commit, however many questions it holds.
#[test]
fn a_batch_is_one_commit() {
    let mut r = room();
    let before = r.world.store.batches;
    let chats: Vec<_> = (0..5)
        .map(|_| {
            (
                r.conn,
                Request::Submit(r.group.chat(r.conn, &r.world.roster)),
            )
        })
        .collect();
    let answers = r.world.ask_all(chats);
    assert!(
        answers
            .iter()
            .all(|a| matches!(a, Some(Response::Appended { .. })))
    );
    assert_eq!(r.world.store.batches, before + 1);
    r.world.ask(r.conn, Request::FetchSlots);
    assert_eq!(r.world.store.batches, before + 1, "reading writes nothing");
}

/// REQ-072, REQ-062: when the commit fails, nothing happened: not to the log, the roster, the subscriptions or the
/// connections; every question of the batch is told; and after a full disk the same may be tried again.
#[test]
fn a_failed_commit_never_was() {
    let mut r = room();
    let user = r.device.user;
    let chat = Request::Submit(r.group.chat(r.conn, &r.world.roster));
    let entry = r.world.owner_entry(vec![Op::RemoveUser { user }]);
    let read = r.group.subscribe_request(r.conn, Epoch(0), 0, 9);
    let batch = vec![
        (r.conn, read),
        (r.conn, chat),
        (r.owner, append_roster(&entry)),
        (r.conn, Request::FetchSlots),
    ];
    r.world.store.full = true;
    let answers = r.world.ask_all(batch.clone());
    assert_eq!(answers, [REFUSED, REFUSED, REFUSED, REFUSED]);
    assert_eq!(r.world.outputs, [], "no push and no close");
    assert_eq!(r.world.core.connections.subscriptions_len(), 1);
    assert!(!r.world.core.is_stopped());
    assert_eq!(
        r.world.core.rosters.at(r.world.org()),
        Some(&r.world.roster)
    );

    r.world.store.full = false;
    let answers = r.world.ask_all(batch);
    let (seq, fence) = (LogSeq(2), r.world.roster.fence());
    assert_eq!(answers[1], Some(Response::Appended { seq, fence }));
    let head = entry.head();
    assert_eq!(answers[2], Some(Response::RosterAppended { head }));
    assert_eq!(answers[3], None, "closed by the order");
    assert_eq!(r.world.seqs(r.owner), [2]);
}

/// REQ-072: who came and went during a failed batch did come and go.
#[test]
fn connections_outlive_a_failed_commit() {
    let mut r = room();
    let (new, transport_key) = (ConnId(999), r.device.transport.public());
    let (chat, _) = r.world.frame(
        r.conn,
        Request::Submit(Group::new(9).chat(r.conn, &r.world.roster)),
    );
    let (create, _) = r.world.frame(r.conn, Group::new(9).create_request());
    r.world.store.full = true;
    r.world.step(vec![
        Input::Connected {
            conn: new,
            transport_key,
            binding: binding(new),
        },
        create,
        Input::Disconnected { conn: r.conn },
        chat,
    ]);
    assert_eq!(
        r.world.outputs.len(),
        1,
        "the second question came from nobody"
    );
    r.world.store.full = false;
    let answer = r.world.hello(new, r.world.org());
    assert!(matches!(answer, Response::Hello { .. }));
    assert!(!r.world.core.connections.contains(r.conn));
}

/// REQ-072: after a failed sync the core refuses everything, for good.
#[test]
fn after_a_failed_sync_the_core_stops() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let mut group = Group::created(1, &mut world, owner);
    world.outputs.clear();
    world.store.plan_crash(Crash::AtBatch(0));
    let chat = Request::Submit(group.chat(owner, &world.roster));
    assert_eq!(
        world.ask(owner, chat.clone()),
        Response::Refused(Refusal::Storage)
    );
    assert!(world.core.is_stopped());
    world.store.plan_crash(Crash::Never);
    for request in [chat, Request::FetchSlots, group.create_request()] {
        assert_eq!(world.refused(owner, request), Refusal::Storage);
    }
    let token = world.core.add_claim_token(&mut world.store, sha256(b"x"));
    assert!(matches!(token, Err(CoreError::Stopped)));
    assert!(world.core.status(&world.store).expect("status").stopped);
    let mut restarted = world.restarted();
    assert!(!restarted.is_stopped());
    assert_eq!(restarted.step(&mut world.store, 0, Vec::new()), []);
}

/// A core that was loaded anew answers as the one that has been running.
#[test]
fn a_restart_changes_no_answer() {
    let mut r = room();
    r.group.rotate(&mut r.world, r.conn, &r.device);
    let (gone, _) = r.world.join(r.owner, Role::Member);
    r.world
        .order(r.owner, vec![Op::RemoveUser { user: gone.user }]);
    let old = r
        .group
        .proof(r.conn, Epoch(0), mortise_protocol::wire::Purpose::Append);
    let mut late = r.group.chat(r.conn, &r.world.roster);
    (late.epoch, late.proof) = (Epoch(0), old);
    let requests = [
        Request::Submit(r.group.chat(r.conn, &r.world.roster)),
        Request::Submit(late),
        r.group.subscribe_request(r.conn, Epoch(0), 0, 9),
        r.group.subscribe_request(r.conn, Epoch(1), 0, 9),
        Request::FetchInbox { after: 0 },
        Request::OrderStatus {
            order: r.world.roster.fence(),
        },
        Request::FetchRoster {
            after: mortise_protocol::identity::RosterSeq(0),
        },
    ];
    let (transport_key, org) = (r.device.transport.public(), r.world.org());
    let roster_seq = mortise_protocol::identity::RosterSeq(0);
    let mut inputs = vec![
        Input::Disconnected { conn: r.conn },
        Input::Connected {
            conn: r.conn,
            transport_key,
            binding: binding(r.conn),
        },
        r.world.frame(r.conn, Request::Hello { org, roster_seq }).0,
    ];
    inputs.extend(requests.map(|request| r.world.frame(r.conn, request).0));
    let mut restarted = r.world.restarted();
    let (mut one, mut two) = (r.world.store.clone(), r.world.store.clone());
    let before = |outputs: Vec<Output>, conn: ConnId| -> Vec<Output> {
        let to = |o: &Output| matches!(o, Output::Send { conn: c, .. } if *c == conn);
        Output::singly(outputs).filter(to).collect()
    };
    let now = r.world.now_ms;
    let kept = before(r.world.core.step(&mut one, now, inputs.clone()), r.conn);
    let loaded = before(restarted.step(&mut two, now, inputs), r.conn);
    assert_eq!(kept, loaded);
    assert!(kept.len() > 8);
    let rows = |disk: &Disk| disk.rows.values().map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!(rows(&one), rows(&two));
}

/// The store belongs to one relay: another statement key does not open it, nor does a damaged roster.
#[test]
fn a_store_that_is_not_ours_or_is_damaged_is_not_served() {
    let r = room();
    let other = CoreConfig::new(key(1, 1));
    let result = Core::load(&r.world.store, other);
    assert!(matches!(result, Err(CoreError::StatementKey)));

    let mut damaged = r.world.store.clone();
    let roster = crate::core::layout::ROSTER;
    let rows = damaged.range(roster, &[], &[], 9).expect("rows");
    let (entry_key, mut entry) = rows.last().cloned().expect("an entry");
    let last = entry.len() - 1;
    entry[last] ^= 1;
    damaged
        .apply(&[Write {
            space: roster,
            key: entry_key.clone(),
            value: Some(entry),
        }])
        .expect("apply");
    let result = Core::load(&damaged, CoreConfig::new(key(1, 0)));
    assert!(matches!(result, Err(CoreError::Roster { .. })));
    damaged
        .apply(&[Write {
            space: roster,
            key: entry_key,
            value: Some(vec![9]),
        }])
        .expect("apply");
    let result = Core::load(&damaged, CoreConfig::new(key(1, 0)));
    assert!(matches!(result, Err(CoreError::Store(_))));
}

/// What an administrator sees is counts.
#[test]
fn the_status_counts() {
    let mut r = room();
    let (gone, conn) = r.world.join(r.owner, Role::Member);
    r.world
        .order(r.owner, vec![Op::RemoveUser { user: gone.user }]);
    assert!(!r.world.core.connections.contains(conn));
    let status = r.world.core.status(&r.world.store).expect("status");
    let org = status.orgs[0];
    assert_eq!(org.org, r.world.org());
    assert_eq!((org.roster_seq, org.fence), {
        let roster = &r.world.roster;
        (roster.head().seq, roster.fence())
    });
    assert_eq!((org.users, org.devices, org.groups), (2, 2, 1));
    assert_eq!((status.connections, status.subscriptions), (3, 1));
}

/// REQ-197: a start finds a log that does not end where its head says.
#[test]
fn a_start_finds_a_log_that_lacks_its_end() {
    use crate::core::layout::{EPOCHS, LOG};

    let mut world = World::founded();
    let owner = world.owner_online();
    let (_, writer) = world.join(owner, Role::Member);
    let mut group = Group::created(1, &mut world, writer);
    appended(group.say(&mut world, writer));
    let mut store = world.store;
    let config = || CoreConfig::new(key(1, 0));
    Core::load(&store, config()).expect("as it was written");
    let rows = store.range(LOG, b"", b"", 9).expect("rows");
    let [_, (last, record)] = &rows[..] else {
        panic!("two records");
    };
    let epochs = store.range(EPOCHS, b"", b"", 9).expect("rows");
    let (epoch, opened) = &epochs[0];
    let beyond = [&last[..32], &3_u64.to_be_bytes()].concat();
    let row = |space, key: &[u8], value: Option<&Vec<u8>>| Write {
        space,
        key: key.to_vec(),
        value: value.cloned(),
    };
    for (space, key, was, is) in [
        (LOG, &last[..], Some(record), None),
        (LOG, &beyond[..], None, Some(record)),
        (EPOCHS, &epoch[..], Some(opened), None),
    ] {
        store.apply(&[row(space, key, is)]).expect("damage");
        let refused = Core::load(&store, config());
        assert!(matches!(refused, Err(CoreError::Store(_))), "{refused:?}");
        store.apply(&[row(space, key, was)]).expect("repair");
    }
    Core::load(&store, config()).expect("repaired");
}
