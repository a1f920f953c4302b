//! A malicious member who is still in: no impersonation, and no change that its role does not allow.

use mortise_protocol::engine::CommandKind;
use mortise_protocol::identity::{RosterSeq, SigningKey, UserId};

use super::Outcome;
use super::liars::DropsCommits;
use super::outside::{as_add, policy_of};
use super::stage::{AFTER, ANN, BOB, CY, DOT, FORGED, Stage, X, X2};
use crate::villain::{Package, Plan, Recipe, Twist, Villain};
use crate::world::PersonId;

/// A member whose path was spoilt is back within this, ms.
const HEALS_MS: u64 = 10_000;

/// Cy commits; in the control by a plan that is allowed. Whether `who` follows.
fn commits(stage: &mut Stage, who: PersonId, by: &mut Villain, plan: Plan) -> bool {
    let before = stage.state(who);
    let made = by.commit(&stage.world, plan);
    assert!(
        stage.submit(by, &made),
        "the relay cannot see what it holds"
    );
    stage.advanced(who, before.0).is_some()
}

/// Cy, who is no admin; in the control an admin.
fn insider(stage: &mut Stage) -> Villain {
    let who = if stage.defended { CY } else { X };
    stage.turn(who)
}

fn followed(follows: bool) -> Outcome {
    Outcome::of(follows.then(|| "an honest member follows it".into()))
}

/// A KeyPackage of a device that no roster has.
fn unregistered(stage: &Stage) -> Package {
    let key = SigningKey::from_seed(&[0x41; 32]);
    let now_s = stage.world.now_ms / 1_000;
    Package::make(&Recipe {
        org: stage.x.org,
        user: UserId([0x41; 16]),
        device: key.public().device_id(),
        key: &key,
        suite: stage.suite,
        lifetime_s: (now_s - 3_600, now_s + 80 * 86_400),
        resync: None,
        is_capable: true,
    })
}

pub(super) fn outsider(stage: &mut Stage) -> Outcome {
    let mut by = stage.turn(CY);
    let package = match stage.defended {
        true => unregistered(stage),
        false => Package::stocked(&stage.world, DOT, stage.suite),
    };
    let plan = Plan {
        adds: vec![package],
        ..Plan::default()
    };
    followed(commits(stage, BOB, &mut by, plan))
}

pub(super) fn remove_admin(stage: &mut Stage) -> Outcome {
    let mut by = insider(stage);
    // The control: an admin removes a member.
    let (victim, seen_by) = if stage.defended { (BOB, X) } else { (CY, BOB) };
    let plan = Plan {
        removes: vec![stage.world.people[victim.0].device()],
        ..Plan::default()
    };
    followed(commits(stage, seen_by, &mut by, plan))
}

pub(super) fn promotion(stage: &mut Stage) -> Outcome {
    let mut by = insider(stage);
    let mut policy = policy_of(&by);
    policy.admins.push(stage.world.people[CY.0].user());
    let plan = Plan {
        policy: Some(policy),
        ..Plan::default()
    };
    followed(commits(stage, BOB, &mut by, plan))
}

pub(super) fn riding(stage: &mut Stage) -> Outcome {
    let puppet = match stage.defended {
        true => unregistered(stage),
        false => Package::stocked(&stage.world, DOT, stage.suite),
    };
    let device = puppet.device;
    if stage.defended {
        let mut cy = stage.copy(CY);
        let planted = cy.leave(&stage.world, None, &as_add(&puppet));
        assert!(
            stage.submit(&cy, &planted),
            "the relay cannot see what it holds"
        );
    }
    // An admin commits; in the control the Add itself.
    let (group, users) = (stage.group, vec![stage.world.people[DOT.0].user()]);
    stage
        .world
        .command(BOB, CommandKind::AddMembers { group, users });
    stage.wait(3_000);
    let carried = stage.has_leaf(BOB, device);
    Outcome::of(carried.then(|| "the admin's commit has carried it".into()))
}

pub(super) fn wrong_key(stage: &mut Stage) -> Outcome {
    let mut by = stage.turn(CY);
    let wrong = SigningKey::from_seed(&[0x42; 32]).public();
    let plan = Plan {
        access_key: stage.defended.then_some(wrong),
        ..Plan::default()
    };
    followed(commits(stage, BOB, &mut by, plan))
}

pub(super) fn unknown_seq(stage: &mut Stage) -> Outcome {
    let mut by = stage.turn(CY);
    if stage.defended {
        by.roster.0 = RosterSeq(by.roster.0.0 + 5);
    }
    let made = stage.forge(&mut by);
    let taken = stage.submit(&by, &made);
    if stage.defended && !taken {
        // With the relay's operator on its side.
        let record = stage.record(&made, stage.fence());
        stage.hand(BOB, record);
    }
    let shown = stage.is_shown(BOB, FORGED);
    Outcome::of(
        (taken && stage.defended || shown).then(|| format!("taken: {taken}, shown: {shown}")),
    )
}

pub(super) fn stale_tree(stage: &mut Stage) -> Outcome {
    stage.world.liar = Some(Box::new(DropsCommits));
    let mut cy = stage.turn(CY);
    stage.order();
    cy.learn_roster(&stage.world, ANN);
    let made = stage.forge(&mut cy);
    assert!(stage.submit(&cy, &made), "the relay cannot see the tree");
    let shown = stage.is_shown(BOB, FORGED);
    Outcome::of(shown.then(|| "an honest member shows it".into()))
}

pub(super) fn policy(stage: &mut Stage) -> Outcome {
    let mut by = insider(stage);
    let mut policy = policy_of(&by);
    policy.name = "Ours now".into();
    policy.topic = "nothing to see".into();
    let plan = Plan {
        policy: Some(policy),
        ..Plan::default()
    };
    followed(commits(stage, BOB, &mut by, plan))
}

/// A key in the path that nobody could seal anything to: who followed could never commit again.
pub(super) fn unusable_key(stage: &mut Stage) -> Outcome {
    let mut by = stage.turn(CY);
    let twist = match stage.defended {
        true => Twist::unusable_key(0),
        false => Twist::default(),
    };
    let plan = Plan {
        twist,
        ..Plan::default()
    };
    followed(commits(stage, BOB, &mut by, plan))
}

pub(super) fn bad_path(stage: &mut Stage) -> Outcome {
    // In a large tree some members share the node that a path is sealed to; what hits one hits them all.
    let mut pairs = [(CY, X2), (CY, X), (X, CY), (X, X2), (X2, CY)].into_iter();
    let device = |stage: &Stage, who: PersonId| stage.world.people[who.0].device();
    let pair = pairs.find(|(by, victim)| {
        let device = device(stage, *victim);
        stage.copy(*by).seals_alone_to(&stage.world, device)
    });
    let (by, victim) = pair.expect("a seal for one member alone");
    let mut by = stage.turn(by);
    let plan = Plan {
        noise_for: vec![device(stage, victim)],
        ..Plan::default()
    };
    let before = stage.state(victim).0;
    let made = by.commit(&stage.world, plan);
    let began = stage.world.now_ms;
    let door = super::door::Door::open(&mut stage.world, by.transport_key);
    assert!(
        door.submit(&mut stage.world, &by, &made).is_ok(),
        "the relay sees no path"
    );
    if !stage.defended {
        // The control: it does throw one member out, until it is repaired.
        stage.wait(100);
        let stuck = stage.state(victim).0 == before;
        let refused = stage.world.alarms(victim).next().is_some();
        return Outcome::of((stuck || refused).then(|| "one member cannot follow".into()));
    }
    let mut heard = false;
    while !heard && stage.world.now_ms < began + HEALS_MS {
        stage.wait(500);
        stage.say(BOB, AFTER);
        heard = stage.is_shown_on(victim, AFTER);
    }
    let worst_ms = stage.world.now_ms - began;
    Outcome {
        gained: (!heard).then(|| format!("one member is out after {worst_ms} ms")),
        alarms: 0,
        worst_ms,
        ..Outcome::default()
    }
}
