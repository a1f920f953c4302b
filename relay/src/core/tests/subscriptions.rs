//! Reading: what a key opens, how much is pushed, and when a subscription ends.

use mortise_protocol::identity::{Epoch, Hash};
use mortise_protocol::roster::Role;
use mortise_protocol::store::MemoryStore;
use mortise_protocol::wire::log::{AccessProof, Purpose};
use mortise_protocol::wire::{LogRecord, Push, Refusal, Request, limits};

use super::fixture::*;
use crate::core::ConnId;

struct Room {
    world: World,
    device: Device,
    writer: ConnId,
    reader: ConnId,
    group: Group,
}

fn room() -> Room {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (device, writer) = world.join(owner, Role::Member);
    let (_, reader) = world.join(owner, Role::Member);
    let group = Group::created(1, &mut world, writer);
    world.outputs.clear();
    Room {
        world,
        device,
        writer,
        reader,
        group,
    }
}

impl Room {
    fn say(&mut self) {
        appended(self.group.say(&mut self.world, self.writer));
    }

    fn rotate(&mut self) {
        self.group
            .rotate(&mut self.world, self.writer, &self.device);
    }

    fn subscribe(&mut self, epoch: u64, after: u64, credit: u32) -> (u64, u64, u64) {
        self.group
            .subscribe(&mut self.world, self.reader, Epoch(epoch), after, credit)
    }

    fn seqs(&mut self) -> Vec<u64> {
        self.world.seqs(self.reader)
    }
}

/// REQ-056: what exists is pushed at once, what comes is pushed as it comes, in order and without a gap.
#[test]
fn backlog_and_live_records_come_in_order() {
    let mut r = room();
    r.say();
    assert_eq!(r.subscribe(0, 0, 9), (2, 0, 2));
    assert_eq!(r.seqs(), [1, 2]);
    r.say();
    r.say();
    assert_eq!(r.seqs(), [3, 4]);
    assert_eq!(r.subscribe(0, 3, 9), (4, 0, 4));
    assert_eq!(r.seqs(), [4]);
    r.say();
    assert_eq!(r.seqs(), [5], "the second subscription replaced the first");
}

/// REQ-056: no more than the credit is pushed; who missed a record pulls from its cursor.
#[test]
fn credit_bounds_what_is_pushed() {
    let mut r = room();
    r.say();
    assert_eq!(r.subscribe(0, 0, 1), (2, 0, 2));
    assert_eq!(r.seqs(), [1]);
    r.say();
    assert_eq!(r.seqs(), [0; 0]);
    r.subscribe(0, 1, 3);
    assert_eq!(r.seqs(), [2, 3]);
    r.say();
    r.say();
    assert_eq!(r.seqs(), [4], "the credit is used up");
    r.say();
    r.subscribe(0, 4, 0);
    assert_eq!(r.seqs(), [0; 0]);
    r.subscribe(0, 4, 9);
    assert_eq!(r.seqs(), [5, 6]);
}

/// REQ-056: at most 1,024 records, whatever the credit says.
#[test]
fn credit_is_clamped_at_the_limit() {
    let mut r = room();
    for _ in 0..limits::MAX_CREDIT {
        r.say();
    }
    r.subscribe(0, 0, limits::MAX_CREDIT + 1);
    assert_eq!(r.seqs().len(), limits::MAX_CREDIT as usize);
    r.subscribe(0, 1, u32::MAX);
    assert_eq!(r.seqs().len(), limits::MAX_CREDIT as usize);
    r.say();
    assert_eq!(r.seqs().len(), 0, "no credit is left");
}

/// REQ-056: a page holds up to 1 MiB, but always one record.
#[test]
fn the_backlog_comes_in_pages() {
    let mut r = room();
    let s = at_head(&r.world.roster);
    let content = mortise_protocol::wire::aad::ContentType::Application;
    for _ in 0..20 {
        let message = r.group.message_at(content, s, 60_000);
        let body = mortise_protocol::wire::RecordBody::Message(
            mortise_protocol::identity::encode(&message).into(),
        );
        let submission = r.group.submission(r.writer, &body);
        appended(r.world.ask(r.writer, Request::Submit(submission)));
    }
    assert_eq!(r.subscribe(0, 1, 99), (21, 0, 21));
    let page = r.seqs();
    assert_eq!(
        page,
        (2..=18).collect::<Vec<_>>(),
        "17 of 60 kB fit in 1 MiB"
    );
    r.say();
    assert_eq!(r.seqs(), [0; 0], "the device pulls on from its cursor");
    r.subscribe(0, 18, 99);
    assert_eq!(r.seqs(), [19, 20, 21, 22]);
}

/// REQ-056: a key opens its epoch from its opening entry through its closing commit, and nothing else.
#[test]
fn a_laggard_walks_epoch_by_epoch() {
    let mut r = room();
    r.say();
    r.rotate();
    r.say();
    r.rotate();
    r.say();
    assert_eq!(r.subscribe(0, 0, 9), (6, 2, 3));
    assert_eq!(r.seqs(), [1, 2, 3]);
    assert_eq!(
        r.world.core.connections.subscriptions_len(),
        0,
        "it has ended"
    );
    assert_eq!(r.subscribe(1, 3, 9), (6, 2, 5));
    assert_eq!(r.seqs(), [4, 5]);
    assert_eq!(r.subscribe(2, 5, 9), (6, 2, 6));
    assert_eq!(r.seqs(), [6]);
    assert_eq!(r.subscribe(1, 0, 9), (6, 2, 5));
    assert_eq!(
        r.seqs(),
        [3, 4, 5],
        "an epoch's key does not open what is before it"
    );
}

/// REQ-056: a late question about an older epoch is answered, and leaves the newer subscription alone.
#[test]
fn an_older_epoch_does_not_replace_a_newer_one() {
    let mut r = room();
    r.rotate();
    r.subscribe(1, 2, 9);
    assert_eq!(r.subscribe(0, 1, 9), (2, 1, 2));
    assert_eq!(r.seqs(), [2]);
    r.say();
    assert_eq!(r.seqs(), [3], "the subscription to epoch 1 goes on");
}

/// REQ-056: a live subscription ends with the closing commit; so a member who is removed from one group sees the
/// commit that removes them and nothing after it.
#[test]
fn who_is_out_of_a_group_reads_through_the_closing_commit() {
    let mut r = room();
    r.subscribe(0, 0, 99);
    r.say();
    r.rotate();
    r.say();
    assert_eq!(r.seqs(), [1, 2, 3]);
    // It waits for a Restart of this epoch (REQ-150), and is given nothing else.
    assert_eq!(r.world.core.connections.subscriptions_len(), 1);
    r.say();
    assert!(r.seqs().is_empty());
    for after in [0, 2, 3, 9] {
        r.subscribe(0, after, 99);
        r.say();
        assert!(r.seqs().iter().all(|seq| *seq <= 3));
    }
    let (group, old) = (r.group.id, r.group.access_key(Epoch(0)));
    for (epoch, opening) in [(0, 1), (1, 1), (1, 0), (2, 0)] {
        let (epoch, opening) = (Epoch(epoch), r.group.opening(Epoch(opening)));
        let (purpose, binding) = (Purpose::Read, binding(r.reader));
        let proof = AccessProof::sign(old, &binding, group, epoch, opening, purpose);
        let request = Request::Subscribe {
            group,
            epoch,
            after: mortise_protocol::identity::LogSeq(0),
            credit: 99,
            proof,
        };
        let refusal = r.world.refused(r.reader, request);
        assert_eq!(refusal, Refusal::AccessDenied);
    }
}

/// REQ-056: the proof is for reading, on this connection, by the epoch's key, of a group that is here.
#[test]
fn subscribing_takes_a_proof() {
    let mut r = room();
    let good = r.group.subscribe_request(r.reader, Epoch(0), 0, 9);
    let bad = [
        r.group.subscribe_request(r.writer, Epoch(0), 0, 9),
        change_proof(&good, r.group.proof(r.reader, Epoch(0), Purpose::Append)),
        change_proof(&good, {
            let mut proof = r.group.proof(r.reader, Epoch(0), Purpose::Read);
            proof.entry_hash = Hash([9; 32]);
            proof
        }),
    ];
    for request in bad {
        assert_eq!(r.world.refused(r.reader, request), Refusal::AccessDenied);
    }
    let nowhere = Group::new(2).subscribe_request(r.reader, Epoch(0), 0, 9);
    assert_eq!(r.world.refused(r.reader, nowhere), Refusal::UnknownGroup);
    assert_eq!(r.world.core.connections.subscriptions_len(), 0);
    r.world.ask(r.reader, good);
    assert_eq!(r.seqs(), [1]);
}

fn change_proof(request: &Request, proof: AccessProof) -> Request {
    match request.clone() {
        Request::Subscribe {
            group,
            epoch,
            after,
            credit,
            ..
        } => Request::Subscribe {
            group,
            epoch,
            after,
            credit,
            proof,
        },
        other => other,
    }
}

/// REQ-056: a subscription costs the same whatever the reader does, and nothing once the connection is gone.
#[test]
fn a_subscription_ends_with_its_connection() {
    let mut r = room();
    r.subscribe(0, 0, 9);
    assert_eq!(r.world.core.connections.subscriptions_len(), 1);
    let conn = r.reader;
    r.world
        .step(vec![crate::core::Input::Disconnected { conn }]);
    assert_eq!(r.world.core.connections.subscriptions_len(), 0);
    r.world.outputs.clear();
    r.say();
    assert_eq!(r.world.outputs, []);
}

/// Records that one batch appends come in one push.
#[test]
fn records_of_one_batch_are_pushed_together() {
    let mut r = room();
    r.subscribe(0, 1, 9);
    let submissions: Vec<_> = (0..3)
        .map(|_| Request::Submit(r.group.chat(r.writer, &r.world.roster)))
        .map(|request| (r.writer, request))
        .collect();
    r.world.ask_all(submissions);
    let pushes = r.world.pushes(r.reader);
    assert!(
        matches!(&pushes[..], [Push::Records { records, .. }] if seqs_of(records) == [2, 3, 4]),
        "{pushes:?}"
    );
}

/// A new subscription in the same batch does not add to the old one's push.
#[test]
fn a_replaced_subscription_starts_a_new_push() {
    let mut r = room();
    r.subscribe(0, 1, 9);
    let chat = Request::Submit(r.group.chat(r.writer, &r.world.roster));
    let again = r.group.subscribe_request(r.reader, Epoch(0), 0, 9);
    r.world.ask_all(vec![(r.writer, chat), (r.reader, again)]);
    let pushes = r.world.pushes(r.reader);
    let [
        Push::Records { records: live, .. },
        Push::Records { records: page, .. },
    ] = &pushes[..]
    else {
        panic!("{pushes:?}");
    };
    assert_eq!((seqs_of(live), seqs_of(page)), (vec![2], vec![1, 2]));
}

fn seqs_of(records: &[LogRecord]) -> Vec<u64> {
    records.iter().map(|r| r.seq.0).collect()
}

/// REQ-056: the store of a world in which nobody reads holds no more than one in which somebody does.
#[test]
fn reading_writes_nothing() {
    let mut r = room();
    r.say();
    let size = |store: &MemoryStore| store.values().map(<[u8]>::len).sum::<usize>();
    let before = size(&r.world.store);
    r.subscribe(0, 0, 9);
    assert_eq!(size(&r.world.store), before);
}
