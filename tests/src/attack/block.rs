//! The handbook's fourth chapter: keeping the removal from happening.

use mortise_protocol::engine::{Event, GroupStatusView};
use mortise_protocol::wire::RecordBody;
use mortise_protocol::wire::log::CommitEntry;

use super::Outcome;
use super::outside::crafted;
use super::stage::{BOB, CY, Stage, X};
use crate::villain::Plan;

/// A removal lands within this, ms.
const LANDS_MS: u64 = 2_000;
/// A group goes on within this, ms.
const RECOVERS_MS: u64 = 5_000;
/// Commits that the leaver sends before the order.
const FLOOD: usize = 20;

pub(super) fn flood(stage: &mut Stage) -> Outcome {
    let device = stage.world.people[X.0].device();
    let mut x = stage.turn(X);
    let door = stage.door(X);
    let mut taken = 0;
    for _ in 0..FLOOD {
        let made = x.commit(&stage.world, Plan::default());
        if door.submit(&mut stage.world, &x, &made).is_ok() {
            taken += 1;
            x.follow();
        }
        stage.wait(10);
    }
    assert_eq!(taken, FLOOD, "until the order, a member may commit");
    let ready = x.commit(&stage.world, Plan::default());
    stage.order_now();
    while stage.has_leaf(BOB, device) && stage.world.now_ms <= stage.ordered_ms + LANDS_MS {
        // What it had ready when the order came, as fast as the relay answers.
        let _: Result<_, _> = door.submit(&mut stage.world, &x, &ready);
        stage.wait(20);
    }
    let worst_ms = stage.world.now_ms - stage.ordered_ms;
    let late = stage.has_leaf(BOB, device);
    Outcome {
        gained: late.then(|| format!("still in after {worst_ms} ms")),
        alarms: 0,
        worst_ms,
        ..Outcome::default()
    }
}

pub(super) fn garbage(stage: &mut Stage) -> Outcome {
    let mut cy = stage.turn(CY);
    let good = cy.commit(&stage.world, Plan::default());
    let RecordBody::Commit(entry) = &good.body else {
        panic!("a commit")
    };
    let mut commit = entry.commit.as_slice().to_vec();
    let half = commit.len() / 2;
    commit[half..].fill(0x5a);
    let entry = CommitEntry::sign(
        stage.group,
        good.epoch,
        commit,
        entry.next_access_key,
        &cy.key.clone(),
    );
    let garbage = crafted(good.epoch, RecordBody::Commit(entry));
    let door = stage.door(CY);
    let began = stage.world.now_ms;
    assert!(
        door.submit(&mut stage.world, &cy, &garbage).is_ok(),
        "the relay cannot see what a commit holds"
    );
    stage.order_now();
    let goes_on = |stage: &Stage| {
        let mut events = stage.world.people[BOB.0].events.iter();
        events.any(|e| matches!(e, Event::GroupContinued { .. }))
    };
    if !stage.defended {
        // The control: the garbage does wedge the epoch; nothing else would have ended the group.
        stage.wait(100);
        let view = stage.world.view(BOB, stage.group);
        let wedged = matches!(view.status, GroupStatusView::Stopped(_)) || goes_on(stage);
        return Outcome::of(wedged.then(|| "the group is stopped".into()));
    }
    while !goes_on(stage) && stage.world.now_ms <= began + RECOVERS_MS {
        stage.wait(20);
    }
    let worst_ms = stage.world.now_ms - began;
    let gained = (!goes_on(stage)).then(|| format!("stopped after {worst_ms} ms"));
    Outcome {
        gained,
        alarms: 0,
        worst_ms,
        ..Outcome::default()
    }
}
