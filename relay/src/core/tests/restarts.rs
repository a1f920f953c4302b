//! How a log ends, who confirms an epoch, and who asks to be let in anew.

use mortise_protocol::identity::{Epoch, GroupId};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::wire::log::Purpose;
use mortise_protocol::wire::restart::{Restart, RestartCause, RestartStatement};
use mortise_protocol::wire::{
    Push, RecordBody, Refusal, Request, Response, Submission, WelcomeFor,
};

use super::fixture::*;
use crate::core::ConnId;

/// Ann writes, Bob and Cy read; all three hold every key.
struct Room {
    world: World,
    owner: ConnId,
    ann: (Device, ConnId),
    bob: (Device, ConnId),
    cy: (Device, ConnId),
    group: Group,
}

fn room() -> Room {
    let mut world = World::founded();
    let owner = world.owner_online();
    let ann = world.join(owner, Role::Member);
    let bob = world.join(owner, Role::Member);
    let cy = world.join(owner, Role::Member);
    let mut group = Group::created(1, &mut world, ann.1);
    // Nobody else was in the group before its first commit.
    group.rotate(&mut world, ann.1, &ann.0);
    world.outputs.clear();
    Room {
        world,
        owner,
        ann,
        bob,
        cy,
        group,
    }
}

impl Room {
    /// A Restart because of a commit by Ann.
    fn restart(&self, who: &(Device, ConnId), parent: Epoch, successor: u8) -> Request {
        let culprit = self.ann.0.id();
        self.restart_for(
            RestartCause::FaultyCommit { culprit },
            who,
            parent,
            successor,
        )
    }

    fn restart_for(
        &self,
        cause: RestartCause,
        (device, conn): &(Device, ConnId),
        parent: Epoch,
        successor: u8,
    ) -> Request {
        let (roster_seq, roster_hash) = at_head(&self.world.roster);
        let statement = RestartStatement {
            group: self.group.id,
            parent_epoch: parent,
            parent_entry_hash: self.group.opening(parent),
            cause,
            successor: GroupId([successor; 32]),
            roster_seq,
            roster_hash,
            device: device.id(),
        };
        let body = RecordBody::Restart(Restart::sign(statement, &device.mls));
        Request::Submit(Submission {
            epoch: parent,
            proof: self.group.proof(*conn, parent, Purpose::Append),
            ..self.group.submission(*conn, &body)
        })
    }

    fn rotate(&mut self) {
        self.group.rotate(&mut self.world, self.ann.1, &self.ann.0);
    }

    fn subscribe(&mut self, conn: ConnId, epoch: u64) {
        self.group
            .subscribe(&mut self.world, conn, Epoch(epoch), 0, 100);
    }

    fn wrong_epoch(refusal: &Refusal) -> bool {
        matches!(refusal, Refusal::WrongEpoch { .. })
    }
}

/// REQ-150: a Restart ends the log; nothing follows but one of each other device.
#[test]
fn a_restart_ends_the_log() {
    let mut r = room();
    let first = r.restart(&r.ann, Epoch(1), 2);
    let seq = appended(r.world.ask(r.ann.1, first.clone()));
    assert_eq!(
        appended(r.world.ask(r.ann.1, first)),
        seq,
        "the same answer"
    );
    let ended = Refusal::GroupRestarted { seq };
    let chat = r.group.chat(r.bob.1, &r.world.roster);
    assert_eq!(r.world.refused(r.bob.1, Request::Submit(chat)), ended);
    let (commit, _) = r.group.commit(r.bob.1, &r.bob.0, &r.world.roster);
    assert_eq!(r.world.refused(r.bob.1, Request::Submit(commit)), ended);
    let again = r.restart(&r.ann, Epoch(1), 3);
    assert_eq!(r.world.refused(r.ann.1, again), ended);
    let other = r.restart(&r.bob, Epoch(1), 3);
    assert_eq!(appended(r.world.ask(r.bob.1, other)), seq.next());
}

/// REQ-150: the restarter signs for itself, on the parent's opening entry.
#[test]
fn a_restart_in_another_name_is_refused() {
    let mut r = room();
    let Request::Submit(stolen) = r.restart(&r.ann, Epoch(1), 2) else {
        panic!("a submission");
    };
    let proof = r.group.proof(r.bob.1, Epoch(1), Purpose::Append);
    let stolen = Request::Submit(Submission { proof, ..stolen });
    assert_eq!(r.world.refused(r.bob.1, stolen), Refusal::Malformed);
    r.rotate();
    let Request::Submit(mixed) = r.restart(&r.ann, Epoch(1), 2) else {
        panic!("a submission");
    };
    let epoch = Epoch(2);
    let proof = r.group.proof(r.ann.1, epoch, Purpose::Append);
    let mixed = Request::Submit(Submission {
        epoch,
        proof,
        ..mixed
    });
    assert_eq!(r.world.refused(r.ann.1, mixed), Refusal::Malformed);
}

/// REQ-151: as long as only its committer has proven an epoch, a Restart may go back behind it, however far.
#[test]
fn an_unconfirmed_epoch_can_be_gone_back_behind() {
    let mut r = room();
    r.rotate();
    r.rotate();
    r.subscribe(r.ann.1, 3);
    let back = r.restart(&r.bob, Epoch(1), 2);
    appended(r.world.ask(r.bob.1, back));
}

/// REQ-150: who accuses nobody goes on from the head: a wish undoes nothing that it has not seen.
#[test]
fn a_wish_goes_back_behind_nothing() {
    let mut r = room();
    r.rotate();
    let wish = |r: &Room, parent| r.restart_for(RestartCause::Requested, &r.bob, parent, 2);
    let back = wish(&r, Epoch(1));
    assert!(Room::wrong_epoch(&r.world.refused(r.bob.1, back)));
    let on = wish(&r, Epoch(2));
    appended(r.world.ask(r.bob.1, on));
}

/// REQ-151: the first proof by somebody else confirms it.
#[test]
fn a_confirmed_epoch_stays() {
    let mut r = room();
    r.rotate();
    r.subscribe(r.cy.1, 1);
    let back = r.restart(&r.bob, Epoch(1), 2);
    r.subscribe(r.cy.1, 2);
    assert!(Room::wrong_epoch(&r.world.refused(r.bob.1, back)));
    // An accepted record confirms as well.
    r.rotate();
    let back = r.restart(&r.bob, Epoch(2), 2);
    appended(r.group.say(&mut r.world, r.cy.1));
    assert!(Room::wrong_epoch(&r.world.refused(r.bob.1, back)));
}

/// REQ-151: who came in by the commit says nothing about what led there.
#[test]
fn whom_the_commit_brought_confirms_nothing() {
    let mut r = room();
    let (mut commit, next) = r.group.commit(r.ann.1, &r.ann.0, &r.world.roster);
    commit.welcomes = vec![WelcomeFor {
        devices: vec![r.cy.0.id()],
        welcome: vec![1].into(),
    }];
    appended(r.world.ask(r.ann.1, Request::Submit(commit.clone())));
    r.group.follow(&commit, next);
    r.subscribe(r.cy.1, 2);
    r.rotate();
    r.subscribe(r.cy.1, 3);
    let back = r.restart(&r.bob, Epoch(1), 2);
    appended(r.world.ask(r.bob.1, back));
}

/// REQ-150: a Restart is read with its parent's key and with the head's, live and later, and with no other.
#[test]
fn a_restart_is_read_at_its_parent_and_at_the_head() {
    let mut r = room();
    r.subscribe(r.bob.1, 1);
    r.rotate();
    r.subscribe(r.ann.1, 2);
    appended(r.group.say(&mut r.world, r.ann.1));
    r.world.outputs.clear();
    let back = r.restart(&r.bob, Epoch(1), 2);
    let seq = appended(r.world.ask(r.bob.1, back)).0;
    assert_eq!(r.world.seqs(r.bob.1), [seq], "not what is between");
    assert_eq!(r.world.seqs(r.ann.1), [seq]);
    r.subscribe(r.cy.1, 1);
    assert_eq!(r.world.seqs(r.cy.1), [2, 3, seq]);
    let owner = r.owner;
    r.subscribe(owner, 2);
    assert_eq!(r.world.seqs(owner), [3, 4, seq]);
}

/// REQ-156: a question reaches who reads the newest epoch, now and later, until a commit answers it.
#[test]
fn a_resync_is_asked_until_it_is_answered() {
    let mut r = room();
    let ask = |bytes: &[u8]| Request::AskResync {
        group: GroupId([1; 32]),
        key_package: bytes.to_vec().into(),
    };
    let pushed = |r: &mut Room, to: ConnId| -> Vec<Vec<u8>> {
        let pushes = r.world.pushes(to).into_iter();
        let asked = pushes.filter_map(|push| match push {
            Push::ResyncAsked { key_package, .. } => Some(key_package.as_slice().to_vec()),
            _ => None,
        });
        asked.collect()
    };
    r.subscribe(r.ann.1, 1);
    let ann = r.ann.1;
    pushed(&mut r, ann);
    assert_eq!(r.world.ask(r.cy.1, ask(b"old")), Response::Done);
    assert_eq!(r.world.ask(r.cy.1, ask(b"new")), Response::Done);
    let ann = r.ann.1;
    assert_eq!(pushed(&mut r, ann), [b"old".to_vec(), b"new".to_vec()]);
    let bob = r.bob.1;
    r.subscribe(bob, 1);
    assert_eq!(pushed(&mut r, bob), [b"new".to_vec()], "the newest");
    let (mut commit, next) = r.group.commit(ann, &r.ann.0, &r.world.roster);
    commit.welcomes = vec![WelcomeFor {
        devices: vec![r.cy.0.id()],
        welcome: vec![1].into(),
    }];
    appended(r.world.ask(ann, Request::Submit(commit.clone())));
    r.group.follow(&commit, next);
    r.subscribe(bob, 2);
    assert_eq!(pushed(&mut r, bob), Vec::<Vec<u8>>::new());
}

/// REQ-062, REQ-156: an order takes a device's questions with it.
#[test]
fn an_order_deletes_questions() {
    let mut r = room();
    let ask = Request::AskResync {
        group: r.group.id,
        key_package: vec![1].into(),
    };
    assert_eq!(r.world.ask(r.cy.1, ask), Response::Done);
    let user = r.cy.0.user;
    r.world.order(r.owner, vec![Op::RemoveUser { user }]);
    r.subscribe(r.bob.1, 1);
    let bob = r.bob.1;
    let left = r.world.pushes(bob);
    assert!(!left.iter().any(|p| matches!(p, Push::ResyncAsked { .. })));
}
