//! The handbook's fifth chapter: what reviewers of the design came up with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mortise_protocol::engine::{Alarm, CommandKind, Event, GroupStatusView, PinChoice};
use mortise_protocol::identity::{
    GroupId, Hash, InvitationId, JoinLink, Pin, RosterSeq, derive_invitation_key,
};
use mortise_protocol::roster::{EntrySigner, Op, Role, sign_entry};
use mortise_protocol::wire::log::Verdict;
use mortise_protocol::wire::restart::RestartCause;
use mortise_protocol::wire::{Request, Response};

use super::Outcome;
use super::liars::{DropsCommits, LeavesOut};
use super::outside::{policy_of, stocked};
use super::rejoin::offer_welcome;
use super::stage::{AFTER, ANN, BOB, CY, DOT, FORGED, Stage, X, X2};
use crate::villain::Plan;

/// An order lands within this, ms.
const LANDS_MS: u64 = 2_000;
/// Entries that the flood holds.
const FLOOD: u64 = 60;
/// What guessing a PIN must cost an attacker at least, years of one processor.
const YEARS: f64 = 100.0;
/// 8 characters of base32.
const PINS: f64 = 1_099_511_627_776.0;

pub(super) fn from_the_group_only(stage: &mut Stage) -> Outcome {
    let (mut x, mut again) = (stage.copy(X), stage.copy(X));
    if stage.defended {
        let (group, user) = (stage.group, stage.world.people[X.0].user());
        stage
            .world
            .command(BOB, CommandKind::RemoveMember { group, user });
        stage.wait(3_000);
    }
    stage.say(BOB, AFTER);
    let state = stage.state(BOB);
    let text = stage.forge(&mut x);
    let commit = again.commit(&stage.world, Plan::default());
    let restart = x.restart(&stage.world, RestartCause::Requested, GroupId([0x66; 32]));
    for who in [X, X2] {
        let door = stage.door(who);
        for made in [&text, &commit, &restart] {
            if stage.defended || std::ptr::eq(made, &raw const text) {
                let _: Result<_, _> = door.submit(&mut stage.world, &x, made);
            }
        }
        door.subscribe(&mut stage.world, &x);
        stage.wait(3_000);
    }
    let view = stage.world.view(BOB, stage.group);
    let whole = match view.status {
        GroupStatusView::Active => stage.state(BOB) == state,
        // Whoever was removed may end a log whose newest epoch nobody has confirmed; it goes on without them.
        GroupStatusView::Continued { successor } => {
            let next = stage.world.view(BOB, successor);
            next.members.iter().all(|member| member.user != x.user)
        }
        _ => false,
    };
    if stage.defended && !whole {
        return Outcome::of(Some(format!("the group is {:?}", view.status)));
    }
    let last = stage.loot.last().expect("loot").clone();
    let log = stage.world.log(stage.group);
    let after = log.iter().filter(|r| r.epoch.0 > x.epoch().0);
    let read = crate::sim::open_all(&last, stage.group, after.clone());
    let read = (!read.is_empty()).then(|| format!("{} records open", read.len()));
    Outcome::of(stage.fooled().or(read))
}

pub(super) fn false_attestation(stage: &mut Stage) -> Outcome {
    if stage.defended {
        stage.world.liar = Some(Box::new(DropsCommits));
    }
    let mut cy = stage.turn(CY);
    stage.order();
    cy.learn_roster(&stage.world, ANN);
    let statement = cy.statement(&stage.world, Verdict::Clean);
    let made = cy.attest(statement);
    let taken = stage.submit(&cy, &made);
    stage.wait(1_000);
    let contradicted = |alarm: &Alarm| matches!(alarm, Alarm::FalseAttestation { device, .. } if *device == cy.device);
    Outcome {
        gained: taken.then(|| "the statement is in the log".into()),
        alarms: stage.alarms().iter().filter(|a| contradicted(a)).count(),
        worst_ms: stage.world.now_ms - stage.ordered_ms,
        ..Outcome::default()
    }
}

pub(super) fn eviction(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let mut removes = vec![stage.world.people[BOB.0].device()];
    if stage.size > 2 {
        removes.push(stage.world.people[CY.0].device());
    }
    if stage.defended {
        stage.world.liar = Some(Box::new(DropsCommits));
    }
    if !stage.defended {
        stage.order();
        x.learn_roster(&stage.world, ANN);
    }
    // An admin who removes another one names those who are left (REQ-125).
    let mut policy = policy_of(&x);
    policy.admins.retain(|admin| *admin == x.user);
    let plan = Plan {
        removes,
        policy: Some(policy),
        ..Plan::default()
    };
    let made = x.commit(&stage.world, plan);
    if stage.defended {
        stage.order();
        if stage.submit(&x, &made) {
            return Outcome::of(Some("the relay takes it".into()));
        }
    }
    let before = stage.world.view(BOB, stage.group).status;
    for fence in [stage.order, x.roster.0, RosterSeq(0)] {
        let record = stage.record(&made, fence);
        stage.hand(BOB, record);
    }
    let after = stage.world.view(BOB, stage.group).status;
    let out = after == GroupStatusView::Removed && before != after;
    Outcome::of(out.then(|| "everybody is out".into()))
}

pub(super) fn live_socket(stage: &mut Stage) -> Outcome {
    let door = stage.door(X);
    let mut x = stage.copy(X);
    stage.order_now();
    x.learn_roster(&stage.world, ANN);
    let made = stage.forge(&mut x);
    let taken = door.submit(&mut stage.world, &x, &made).is_ok();
    stage.wait(1_000);
    let cut = stage.world.is_cut(door.conn);
    let gained = (taken || !cut && stage.defended).then(|| format!("taken: {taken}; cut: {cut}"));
    Outcome::of(gained)
}

pub(super) fn old_invitation(stage: &mut Stage) -> Outcome {
    let expires_at_ms = stage.world.now_ms + 86_400_000;
    let pin = PinChoice::Policy;
    let user = stage.world.people[X.0].user();
    let by_x = stage
        .world
        .command(X, CommandKind::InviteDevice { expires_at_ms, pin });
    stage.wait(2_000);
    let for_x = stage.world.command(
        ANN,
        CommandKind::ReinviteUser {
            user,
            expires_at_ms,
            pin,
        },
    );
    stage.wait(2_000);
    let links = [(X, by_x), (ANN, for_x)].map(|(who, id)| stage.world.invitation(who, id));
    stage.order();
    for (link, pin) in links.into_iter().flatten() {
        let who = stage
            .world
            .start_join_with_pin("Xen again", &link, pin.as_ref());
        stage.wait(5_000);
        if stage.world.people[who.0].is_in() {
            return Outcome::of(Some("it is redeemed".into()));
        }
    }
    Outcome::default()
}

pub(super) fn guessed_pin(stage: &mut Stage) -> Outcome {
    let expires_at_ms = stage.world.now_ms + 86_400_000;
    let kind = CommandKind::InviteUser {
        name: "Flo".into(),
        role: Role::Member,
        expires_at_ms,
        pin: PinChoice::Always,
    };
    let id = stage.world.command(ANN, kind);
    stage.wait(2_000);
    let (link, pin) = stage.world.invitation(ANN, id).expect("an invitation");
    let link = JoinLink::parse(&link).expect("a link");
    // The relay's operator and every member see the public key in the roster.
    let roster = stage.world.people[BOB.0].engine().roster();
    let key = roster
        .invitation(link.invitation)
        .expect("an invitation")
        .key;
    let guesses: Vec<Option<Pin>> = match stage.defended {
        true => ["AAAAAAAA", "22222222"]
            .map(|text| Pin::parse(text).ok())
            .to_vec(),
        false => vec![pin],
    };
    let began = Instant::now();
    let tried = guesses.len();
    for guess in guesses {
        if derive_invitation_key(&link.secret, guess.as_ref(), link.invitation).public() == key {
            return Outcome::of(Some("the PIN is known".into()));
        }
    }
    let each = began.elapsed().as_secs_f64() / f64::from(u32::try_from(tried).unwrap_or(1));
    let years = each * PINS / 2.0 / 31_557_600.0;
    Outcome::of((years < YEARS).then(|| format!("{years:.0} years of one processor")))
}

pub(super) fn false_alarm(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let mut aad = x.honest_aad(&stage.world);
    aad.roster_hash = Hash([0x0f; 32]);
    let content = mortise_protocol::content::encode_text([9; 16], FORGED);
    let made = x.message(
        &stage.world,
        &content,
        Some(aad),
        &crate::villain::Twist::default(),
    );
    let taken = stage.submit(&x, &made);
    if !stage.defended {
        // The control: a relay that does not look, as an operator could let it pass.
        let record = stage.record(&made, stage.fence());
        stage.hand(BOB, record);
    }
    let alarms = stage.alarms().len();
    let gained = (taken || alarms > 0).then(|| format!("taken: {taken}, alarms: {alarms}"));
    Outcome {
        gained,
        alarms,
        worst_ms: 0,
        ..Outcome::default()
    }
}

pub(super) fn left_out(stage: &mut Stage) -> Outcome {
    let shown = Arc::new(AtomicBool::new(false));
    stage.world.liar = Some(Box::new(LeavesOut {
        org: stage.x.org,
        statement_key: stage.world.statement_key(),
        shown: Arc::clone(&shown),
    }));
    stage.order();
    stage.wait(5_000);
    let omitted = |alarm: &&Alarm| matches!(alarm, Alarm::OmittedGroup { .. });
    let gained = shown.load(Ordering::Relaxed);
    Outcome {
        gained: gained.then(|| "a statement without the group is signed".into()),
        alarms: stage.alarms().iter().filter(omitted).count(),
        worst_ms: stage.world.now_ms - stage.ordered_ms,
        ..Outcome::default()
    }
}

pub(super) fn second_welcome(stage: &mut Stage) -> Outcome {
    let who = if stage.defended { BOB } else { DOT };
    let package = stocked(&stage.world, who, stage.suite);
    let mut x = stage.copy(X);
    // A member who is in the tree already must be made room for, or openmls would not add it twice.
    let removes = match stage.defended {
        true => vec![stage.world.people[BOB.0].device()],
        false => Vec::new(),
    };
    let plan = Plan {
        adds: vec![package],
        removes,
        ..Plan::default()
    };
    let made = x.commit(&stage.world, plan);
    if !stage.defended {
        stage.submit(&x, &made);
        stage.wait(2_000);
        let events = stage.world.people[DOT.0].events.iter();
        let joined = events.filter(|e| matches!(e, Event::Joined { .. })).count();
        return Outcome::of((joined > 0).then(|| "who is not in joins by it".into()));
    }
    stage.order();
    let before = stage.state(BOB);
    let record = stage.record(&made, stage.order);
    let welcome = made
        .welcomes
        .first()
        .expect("a Welcome")
        .welcome
        .as_slice()
        .to_vec();
    offer_welcome(stage, welcome, record);
    let after = stage.state(BOB);
    Outcome::of((before != after).then(|| format!("epoch {} became {}", before.0, after.0)))
}

pub(super) fn suspended_keys(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let user = stage.world.people[X.0].user();
    if stage.defended {
        stage.world.command(ANN, CommandKind::SuspendUser { user });
        stage.wait(3_000);
    } else {
        stage.order();
    }
    let expires_at_ms = stage.world.now_ms + 86_400_000;
    let pin = PinChoice::Policy;
    let again = CommandKind::ReinviteUser {
        user,
        expires_at_ms,
        pin,
    };
    let id = stage.world.command(ANN, again);
    stage.wait(2_000);
    let (link, pin) = stage.world.invitation(ANN, id).expect("an invitation");
    let back = stage.world.start_join_with_pin("Xen", &link, pin.as_ref());
    stage.wait(5_000);
    assert!(stage.world.people[back.0].is_in(), "the user is back");
    stage.order = stage.fence();
    stage.say(BOB, AFTER);
    if !stage.defended {
        x = stage.copy(X);
    }
    x.learn_roster(&stage.world, ANN);
    let forged = stage.forge(&mut x);
    let door = stage.door(X);
    let taken = door.submit(&mut stage.world, &x, &forged).is_ok();
    stage.wait(1_000);
    let record = stage.record(&forged, stage.order);
    if stage.defended {
        for who in stage.honest() {
            stage.hand(who, record.clone());
        }
    }
    let subscribed = stage.defended && door.subscribe(&mut stage.world, &x);
    let gained = (taken || subscribed).then(|| "the relay takes the old keys".into());
    Outcome::of(stage.fooled().or(gained))
}

pub(super) fn roster_flood(stage: &mut Stage) -> Outcome {
    let door = stage.door(X);
    let key = mortise_protocol::identity::SigningKey::from_seed(&stage.x.key.dangerous_seed());
    let mut taken = 0;
    let flood = |stage: &mut Stage, n: u64| {
        let invitation = InvitationId(numbered(n));
        let ops = vec![Op::Invite {
            invitation,
            user: stage.x.user,
            key: mortise_protocol::identity::SigningKey::from_seed(&numbered(n)).public(),
            expires_at_ms: u64::MAX,
        }];
        let head = stage.world.people[ANN.0].engine().roster().head();
        let by = EntrySigner::Device(stage.x.device);
        let entry = sign_entry(stage.x.org, head, stage.world.now_ms, by, &key, ops);
        let entry = entry.bytes().to_vec().into();
        let slots = Vec::new();
        let answer = door.ask(&mut stage.world, Request::AppendRoster { entry, slots });
        stage.wait(10);
        u64::from(matches!(answer, Some(Response::RosterAppended { .. })))
    };
    for n in 0..FLOOD {
        taken += flood(stage, n);
    }
    if !stage.defended {
        return Outcome::of((taken > 0).then(|| format!("{taken} entries are in the roster")));
    }
    let user = stage.world.people[X.0].user();
    let began = stage.world.now_ms;
    let before = stage.fence();
    stage.world.command(ANN, CommandKind::RemoveUser { user });
    for n in FLOOD..FLOOD + 200 {
        if stage.fence() != before {
            break;
        }
        flood(stage, n);
    }
    let worst_ms = stage.world.now_ms - began;
    let late = stage.fence() == before || worst_ms > LANDS_MS;
    Outcome {
        gained: late.then(|| format!("no order after {worst_ms} ms")),
        alarms: 0,
        worst_ms,
        ..Outcome::default()
    }
}

/// Bytes that differ for every number.
fn numbered<const N: usize>(n: u64) -> [u8; N] {
    let mut bytes = [0x2f; N];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub(super) fn unwitting_newcomer(stage: &mut Stage) -> Outcome {
    if stage.defended {
        stage.order();
    }
    let mut cy = stage.turn(CY);
    let package = stocked(&stage.world, DOT, stage.suite);
    let dot = stage.world.people[DOT.0].device();
    let mut plan = Plan {
        adds: vec![package],
        ..Plan::default()
    };
    if stage.defended {
        let mut policy = policy_of(&cy);
        policy.admins = vec![cy.user];
        plan.policy = Some(policy);
    }
    let made = cy.commit(&stage.world, plan);
    assert!(
        stage.submit(&cy, &made),
        "the relay cannot see what it holds"
    );
    stage.say(DOT, "hello everybody");
    stage.wait(10_000);
    let follows = stage.has_leaf(BOB, dot);
    if !stage.defended {
        return Outcome::of(follows.then(|| "a legal one is followed".into()));
    }
    let view = stage.world.view(BOB, stage.group);
    let goes_on = matches!(view.status, GroupStatusView::Continued { .. });
    let gained = (follows || !goes_on).then(|| format!("followed: {follows}, {:?}", view.status));
    Outcome::of(gained)
}
