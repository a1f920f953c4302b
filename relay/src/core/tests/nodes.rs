//! Two nodes of one relay over one store: what one has written the other takes over, and gives to its own connections.

use mortise_protocol::identity::{Epoch, LogSeq, RosterSeq};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::store::{Crash, StoreError};
use mortise_protocol::wire::{Push, Refusal, Request};

use super::fixture::*;
use crate::core::{CloseReason, ConnId, Core, CoreConfig, Input, Moved, Output};

/// A world of two nodes, of which one is spoken to at a time.
struct Nodes {
    world: World,
    other: Core,
    owner: ConnId,
    /// On the first node.
    writer: (Device, ConnId),
    /// On the second one.
    reader: (Device, ConnId),
    group: Group,
}

impl Nodes {
    fn new() -> Self {
        let mut world = World::founded();
        let owner = world.owner_online();
        let writer = world.join(owner, Role::Member);
        let (device, joined) = world.join(owner, Role::Member);
        let group = Group::created(1, &mut world, writer.1);
        world.step(vec![Input::Disconnected { conn: joined }]);
        let other = Core::attach(&world.store, CoreConfig::new(key(1, 0))).expect("attach");
        let mut nodes = Self {
            world,
            other,
            owner,
            writer,
            reader: (device, joined),
            group: Group::new(9),
        };
        nodes.swap();
        nodes.reader.1 = nodes.world.online(&nodes.reader.0);
        group.subscribe(&mut nodes.world, nodes.reader.1, Epoch(0), 0, 9);
        nodes.group = group;
        nodes.swap();
        nodes.world.outputs.clear();
        nodes
    }

    /// Speaks to the other node.
    fn swap(&mut self) {
        std::mem::swap(&mut self.world.core, &mut self.other);
    }

    fn say(&mut self, from: ConnId) {
        appended(self.group.say(&mut self.world, from));
    }

    fn log(&self) -> Moved {
        Moved::Log(self.world.org(), self.group.id, LogSeq(u64::MAX))
    }

    fn roster(&self) -> Moved {
        Moved::Roster(self.world.org(), RosterSeq(u64::MAX))
    }

    /// The second node hears of something.
    fn hear(&mut self, moved: Moved) {
        self.swap();
        self.world.step(vec![Input::Moved(moved)]);
        self.swap();
    }

    fn seqs(&mut self) -> Vec<u64> {
        self.world.seqs(self.reader.1)
    }

    fn is_closed(&mut self) -> bool {
        let (conn, reason) = (self.reader.1, CloseReason::Removed);
        self.world.outputs.contains(&Output::Close { conn, reason })
    }
}

/// REQ-303: a hint makes a node look; what is there is pushed in order, once, within the credit.
#[test]
fn what_another_node_wrote_is_pushed_in_order() {
    let mut n = Nodes::new();
    for _ in 0..3 {
        n.say(n.writer.1);
    }
    assert_eq!(n.seqs(), [0; 0], "nobody has told the second node");
    assert!(n.other.waits_for(&n.log()));
    n.hear(n.log());
    assert_eq!(n.seqs(), [2, 3, 4]);
    n.hear(n.log());
    assert_eq!(n.seqs(), [0; 0], "once");
    // What it writes itself comes after what it had not heard of.
    n.say(n.writer.1);
    n.swap();
    let submission = n.group.chat(n.reader.1, &n.world.roster);
    let (ask, _) = n.world.frame(n.reader.1, Request::Submit(submission));
    let first = Input::Moved(n.log());
    n.world.step(vec![first, ask]);
    n.swap();
    assert_eq!(n.seqs(), [5, 6]);
    for _ in 0..9 {
        n.say(n.writer.1);
    }
    n.hear(n.log());
    assert_eq!(n.seqs(), [7, 8, 9], "nine were allowed, and six had come");
    let unknown = Moved::Log(
        n.world.org(),
        mortise_protocol::identity::GroupId([0; 32]),
        LogSeq(9),
    );
    assert!(!n.other.waits_for(&unknown));
    n.hear(unknown);
}

/// REQ-303, REQ-056: the key of an epoch opens that epoch's records, up to the one that closes it, on every node.
#[test]
fn another_nodes_commit_ends_what_is_pushed() {
    let mut n = Nodes::new();
    n.say(n.writer.1);
    n.group.rotate(&mut n.world, n.writer.1, &n.writer.0);
    n.say(n.writer.1);
    n.hear(n.log());
    assert_eq!(n.seqs(), [2, 3], "the commit, and nothing after it");
    n.hear(n.log());
    assert_eq!(n.seqs(), [0; 0]);
}

/// REQ-300, REQ-303: an order of another node disconnects whom it names and is told to everybody, before anything else.
#[test]
fn another_nodes_order_is_carried_out_here() {
    let mut n = Nodes::new();
    let seq = n.world.order(
        n.owner,
        vec![Op::RemoveUser {
            user: n.writer.0.user,
        }],
    );
    n.hear(n.roster());
    let pushes = n.world.pushes(n.reader.1);
    let told = pushes.iter().find_map(|push| match push {
        Push::RosterEntry { positions, .. } => Some(positions.clone()),
        _ => None,
    });
    let told = told.expect("the entry");
    assert_eq!(told.len(), 1, "where the group that it reads stands");
    assert_eq!(told[0].group, n.group.id);
    let user = n.reader.0.user;
    n.world.order(n.owner, vec![Op::RemoveUser { user }]);
    // The reader asks at once, on a node that has not heard: it is heard first, and the question is dropped.
    n.swap();
    let submission = n.group.chat(n.reader.1, &n.world.roster);
    let (ask, _) = n.world.frame(n.reader.1, Request::Submit(submission));
    let heard = Input::Moved(n.roster());
    n.world.step(vec![heard, ask]);
    assert!(n.is_closed());
    assert!(n.world.records(n.reader.1).is_empty());
    let back = n.world.connect_key(n.reader.0.transport.public());
    n.world.hello(back, n.world.org());
    let refused = n.world.refused(back, Request::FetchInbox { after: 0 });
    assert_eq!(refused, Refusal::NotAdmitted);
    assert_eq!(
        n.world.core.status(&n.world.store).expect("status").orgs[0].fence,
        seq.next()
    );
    n.swap();
}

/// REQ-301, REQ-302: a batch that was not written is as if it had never been, also where it had changed a roster.
#[test]
fn a_batch_can_be_decided_anew() {
    let mut n = Nodes::new();
    let user = n.writer.0.user;
    let entry = n.world.owner_entry(vec![Op::RemoveUser { user }]);
    let (ask, _) = n.world.frame(n.owner, append_roster(&entry));
    let batch = [Input::Moved(n.roster()), ask];
    n.world.store.plan_crash(Crash::AtBatch(0));
    let now = n.world.now_ms;
    for _ in 0..2 {
        let failed = n.world.core.try_step(&mut n.world.store, now, &batch);
        assert!(matches!(failed, Err(StoreError::Backend { .. })));
        assert!(
            !n.world.core.is_stopped(),
            "it is not the core that decides to stop"
        );
    }
    n.world.store.plan_crash(Crash::Never);
    let outputs = n
        .world
        .core
        .try_step(&mut n.world.store, now, &batch)
        .expect("decided");
    let (conn, reason) = (n.writer.1, CloseReason::Removed);
    assert!(outputs.contains(&Output::Close { conn, reason }));
    let told = |outputs: &[Output], to: ConnId| {
        let is_push = |o: &&Output| {
            matches!(o, Output::Send { conn, frame: mortise_protocol::wire::RelayToClient::Push(_), .. }
                if *conn == to)
        };
        outputs.iter().filter(is_push).count()
    };
    assert_eq!(
        told(&outputs, n.owner),
        1,
        "the entry, once, and none of those before it"
    );
    // Whoever asks again, because the answer was lost, is told the same, and nobody else is told anything.
    let again = n
        .world
        .core
        .try_step(&mut n.world.store, now, &batch)
        .expect("decided");
    assert_eq!(told(&again, n.owner), 0);
    assert_eq!(again.len(), 1);
}

/// REQ-303: what hints have not told is found by looking.
#[test]
fn what_was_not_told_is_found() {
    let mut n = Nodes::new();
    let quiet = n.other.find_moved(&n.world.store).expect("look");
    assert_eq!(quiet, []);
    n.say(n.writer.1);
    let seq = n.world.order(
        n.owner,
        vec![Op::RemoveUser {
            user: n.writer.0.user,
        }],
    );
    let found = n.other.find_moved(&n.world.store).expect("look");
    let org = n.world.org();
    assert_eq!(
        found,
        [
            Moved::Roster(org, seq),
            Moved::Log(org, n.group.id, LogSeq(2))
        ]
    );
    for moved in found {
        assert!(n.other.waits_for(&moved));
        n.hear(moved);
        assert!(!n.other.waits_for(&moved));
    }
    assert_eq!(n.seqs(), [2]);
}
