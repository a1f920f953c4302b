//! The handbook's first chapter: reading what was said after the order.

use mortise_protocol::content;
use mortise_protocol::engine::CommandKind;
use mortise_protocol::group::Crypto;
use mortise_protocol::group::{Group, MlsProvider};
use mortise_protocol::identity::{GroupId, Hash};
use mortise_protocol::store::{MemoryStore, Tx, commit};
use mortise_protocol::wire::log::{AccessProof, Purpose};
use mortise_protocol::wire::{Flag, Request, Response, RosterHead, limits};
use mortise_relay::core::layout;

use super::liars::Withholds;
use super::stage::{AFTER, ANN, BOB, CY, DOT, EVE, FORGED, Stage, X, X2, snapshot, stranger};
use super::{Outcome, outside};
use crate::villain::{Plan, Villain};

/// How many records the first of several stores opens that opens any.
fn opened<'a>(stage: &Stage, stores: impl IntoIterator<Item = &'a MemoryStore>) -> Option<String> {
    let mut opened = stores.into_iter().map(|store| stage.opens(store));
    let count = opened.find(|count| *count > 0)?;
    Some(format!("{count} records open"))
}

pub(super) fn old_keys(stage: &mut Stage) -> Outcome {
    stage.order_and_talk();
    Outcome::of(opened(stage, &stage.loot))
}

pub(super) fn open_socket(stage: &mut Stage) -> Outcome {
    let door = stage.door(X);
    assert!(door.subscribe(&mut stage.world, &stage.x), "X is still in");
    stage.order_and_talk();
    let leaked = door.leaked(&stage.world, stage.group, stage.order);
    let gained = match (leaked, stage.world.is_cut(door.conn)) {
        (0, true) => None,
        (leaked, cut) => Some(format!("{leaked} records came; cut: {cut}")),
    };
    Outcome::of(gained)
}

/// Everything that a device may ask, with real proofs where there is one to make.
fn ask_for_everything(stage: &mut Stage, by: &Villain, door: super::door::Door) -> Option<String> {
    let org = by.org;
    let roster_seq = by.roster.0;
    let hello = door.ask(&mut stage.world, Request::Hello { org, roster_seq });
    if matches!(
        hello,
        Some(Response::Hello {
            admitted: Flag::Yes,
            ..
        })
    ) {
        return Some("it is admitted".into());
    }
    if door.subscribe(&mut stage.world, by) {
        return Some("it may subscribe".into());
    }
    let colleagues = vec![stage.world.people[BOB.0].device()];
    let suite = stage.suite;
    let questions = [
        Request::FetchInbox { after: 0 },
        Request::FetchSlots,
        Request::FetchCheckpoints,
        Request::OrderStatus { order: stage.order },
        Request::ClaimKeyPackages {
            suite,
            devices: colleagues,
        },
    ];
    for question in questions {
        let name = format!("{question:?}");
        let answer = door.ask(&mut stage.world, question);
        if !matches!(answer, None | Some(Response::Refused(_))) {
            return Some(format!("{name} is answered"));
        }
    }
    let leaked = door.leaked(&stage.world, stage.group, stage.order);
    (leaked > 0).then(|| format!("{leaked} records came"))
}

pub(super) fn reconnect(stage: &mut Stage) -> Outcome {
    stage.order_and_talk();
    let door = stage.door(X);
    let x = std::mem::replace(
        &mut stage.x,
        Villain::copy(&mut stage.world, BOB, stage.group),
    );
    Outcome::of(ask_for_everything(stage, &x, door))
}

pub(super) fn guessed_id(stage: &mut Stage) -> Outcome {
    stage.order_and_talk();
    let bob = stage.copy(BOB);
    let (entry_hash, _) = bob.cursor(&stage.world);
    let (group, epoch) = (stage.group, bob.epoch());
    let key = match stage.defended {
        true => stranger(),
        // The control: the same question, with the epoch's own key.
        false => bob.access_key(),
    };
    for door in [stage.door(DOT), stage.strangers_door()] {
        for entry_hash in [entry_hash, Hash([0; 32])] {
            let proof =
                AccessProof::sign(&key, &door.binding, group, epoch, entry_hash, Purpose::Read);
            let after = mortise_protocol::identity::LogSeq(0);
            let credit = limits::MAX_CREDIT;
            let subscribe = Request::Subscribe {
                group,
                epoch,
                after,
                credit,
                proof,
            };
            let answer = door.ask(&mut stage.world, subscribe);
            if matches!(answer, Some(Response::Subscribed { .. })) {
                return Outcome::of(Some("the log is served".into()));
            }
        }
    }
    Outcome::default()
}

pub(super) fn handed_over(stage: &mut Stage) -> Outcome {
    stage.order_and_talk();
    let mut stores = stage.loot.clone();
    stores.push(snapshot(&mut stage.world, X2));
    let welcomes = stage.welcomes();
    let joined: Vec<MemoryStore> = stores
        .iter()
        .flat_map(|store| welcomes.iter().filter_map(|welcome| join(store, welcome)))
        .collect();
    Outcome::of(opened(stage, stores.iter().chain(&joined)))
}

/// What a store holds once it has opened a Welcome, without any of our rules in the way.
fn join(store: &MemoryStore, welcome: &[u8]) -> Option<MemoryStore> {
    let crypto = Crypto::default();
    let mut after = store.clone();
    let tx = Tx::new(store);
    Group::join(&MlsProvider::new(&crypto, &tx), welcome).ok()?;
    commit(&mut after, &tx.into_batch().ok()?).ok()?;
    Some(after)
}

pub(super) fn second_device(stage: &mut Stage) -> Outcome {
    let second = Villain::copy(&mut stage.world, X2, stage.group);
    let store = snapshot(&mut stage.world, X2);
    if stage.defended {
        stage.order_and_talk();
    } else {
        // The control: the order names the first device only.
        let device = stage.world.people[X.0].device();
        let kind = CommandKind::RevokeDevice {
            device,
            and_enrolled: false,
        };
        stage.world.command(ANN, kind);
        stage.wait(3_000);
        stage.order = stage.fence();
        stage.say(BOB, AFTER);
    }
    let read = opened(stage, [&store]);
    let door = stage.door(X2);
    let asked = ask_for_everything(stage, &second, door);
    Outcome::of(read.or(asked))
}

pub(super) fn old_key_package(stage: &mut Stage) -> Outcome {
    let package = outside::stocked(&stage.world, X, stage.suite);
    let device = stage.world.people[X.0].device();
    if stage.defended {
        stage.order_and_talk();
    } else {
        // The control: out of the group, and still in the organisation.
        let (group, user) = (stage.group, stage.world.people[X.0].user());
        stage
            .world
            .command(BOB, CommandKind::RemoveMember { group, user });
        stage.wait(3_000);
    }
    let mut cy = stage.turn(CY);
    let adds = vec![package];
    let made = cy.commit(
        &stage.world,
        Plan {
            adds,
            ..Plan::default()
        },
    );
    stage.submit(&cy, &made);
    let gained = stage.has_leaf(BOB, device);
    Outcome::of(gained.then(|| "a member follows the commit that adds it".into()))
}

pub(super) fn cached_welcome(stage: &mut Stage) -> Outcome {
    // Dot is added, and keeps the Welcome and the keys that open it.
    stage.cut(DOT);
    let keys = snapshot(&mut stage.world, DOT);
    let (group, users) = (stage.group, vec![stage.world.people[DOT.0].user()]);
    stage
        .world
        .command(BOB, CommandKind::AddMembers { group, users });
    stage.wait(3_000);
    let leaver = if stage.defended { DOT } else { EVE };
    let user = stage.world.people[leaver.0].user();
    stage.world.command(ANN, CommandKind::RemoveUser { user });
    stage.wait(3_000);
    stage.order = stage.fence();
    stage.say(BOB, AFTER);
    let welcomes = stage.welcomes();
    let joined: Vec<_> = welcomes.iter().filter_map(|w| join(&keys, w)).collect();
    assert!(!joined.is_empty(), "the Welcome opens");
    let read = opened(stage, &joined);
    let door = stage.door(DOT);
    let inbox = door.ask(&mut stage.world, Request::FetchInbox { after: 0 });
    let fetched = matches!(inbox, Some(Response::Inbox { .. }));
    Outcome::of(read.or_else(|| fetched.then(|| "the Welcome is served".into())))
}

pub(super) fn external_join(stage: &mut Stage) -> Outcome {
    let info = outside::group_info(&mut stage.world, X, stage.group);
    stage.order();
    let key = stage.x.key.clone();
    let (commit, next) = outside::external_commit(&info, &key, stage.x.user, &stage.x);
    Outcome::of(outside::try_commit(stage, &commit, next))
}

pub(super) fn known_psk(stage: &mut Stage) -> Outcome {
    stage.order();
    let mut cy = stage.turn(CY);
    let before = stage.state(BOB);
    // The control is an honest refresh by the same hands.
    let plan = match stage.defended {
        true => Plan {
            twist: outside::with_psk(),
            ..Plan::default()
        },
        false => Plan::default(),
    };
    let made = cy.commit(&stage.world, plan);
    stage.submit(&cy, &made);
    Outcome::of(stage.advanced(BOB, before.0))
}

pub(super) fn last_resort(stage: &mut Stage) -> Outcome {
    stage.order();
    let door = stage.door(BOB);
    let devices = vec![
        stage.world.people[X.0].device(),
        stage.world.people[X2.0].device(),
    ];
    let suite = stage.suite;
    for _ in 0..2 {
        let devices = devices.clone();
        let claim = Request::ClaimKeyPackages { suite, devices };
        if let Some(Response::KeyPackages { packages }) = door.ask(&mut stage.world, claim)
            && !packages.is_empty()
        {
            return Outcome::of(Some(format!(
                "{} KeyPackages are given out",
                packages.len()
            )));
        }
    }
    Outcome::default()
}

pub(super) fn backup(stage: &mut Stage) -> Outcome {
    stage.world.put_to_sleep(X);
    stage.order_and_talk();
    let oldest = stage.loot[0].clone();
    let restored = stage.world.restore("Xen's backup", oldest);
    stage.wait(10_000);
    let shown = stage.is_shown(restored, AFTER);
    Outcome::of(shown.then(|| "the restored device shows it".into()))
}

/// Of what waits for X's devices, and of what is said in every log, X gets nothing: neither by asking, nor by listening on
/// a line that stayed open, nor with every key that it holds and all that the relay stores or has ever stored.
pub(super) fn what_waits(stage: &mut Stage) -> Outcome {
    let line = stage.door(X);
    assert!(line.subscribe(&mut stage.world, &stage.x), "X is still in");
    let late = invited_while_away(stage);
    stage.order();
    let heard = stage.world.tapped(line.conn).len();
    for group in [stage.group, late] {
        stage.world.say(BOB, group, AFTER);
    }
    stage.wait(3_000);
    let hints = stage.world.tapped(line.conn).len() - heard;
    if hints > 0 {
        return Outcome::of(Some(format!("{hints} frames came on the open line")));
    }
    for who in [X, X2] {
        let door = stage.door(who);
        let inbox = door.ask(&mut stage.world, Request::FetchInbox { after: 0 });
        if matches!(inbox, Some(Response::Inbox { .. })) {
            return Outcome::of(Some("the inbox is served".into()));
        }
    }
    let kinds = [
        layout::INBOX,
        layout::KEY_PACKAGES,
        layout::LAST_RESORTS,
        layout::RESYNC_GROUPS,
    ];
    let left: usize = kinds
        .map(|kind| stage.stored_for(kind, &[X, X2]))
        .iter()
        .sum();
    if left > 0 {
        return Outcome::of(Some(format!("{left} rows are kept for X's devices")));
    }
    let stores = [X, X2].map(|who| snapshot(&mut stage.world, who));
    let welcomes = stage.welcomes();
    let joined: Vec<MemoryStore> = stores
        .iter()
        .flat_map(|store| welcomes.iter().filter_map(|welcome| join(store, welcome)))
        .collect();
    assert!(!joined.is_empty(), "the keys do open the Welcome of before");
    let keys = stage.loot.iter().chain(&stores).chain(&joined);
    let read: usize = keys
        .flat_map(|store| [stage.group, late].map(|group| stage.opens_in(group, store)))
        .sum();
    Outcome::of((read > 0).then(|| format!("{read} records open")))
}

/// A group that X is added to while both of its devices are away: a Welcome waits for each.
fn invited_while_away(stage: &mut Stage) -> GroupId {
    stage.cut(X);
    stage.cut(X2);
    let (name, before) = ("Late".to_owned(), stage.groups_of(BOB));
    let members = vec![
        stage.world.people[X.0].user(),
        stage.world.people[DOT.0].user(),
    ];
    stage
        .world
        .command(BOB, CommandKind::CreateGroup { name, members });
    stage.wait(5_000);
    let after = stage.groups_of(BOB);
    let late = *after.difference(&before).next().expect("the new group");
    let waiting = stage.stored_for(layout::INBOX, &[X, X2]);
    assert_eq!(waiting, 2, "a Welcome waits for each device");
    late
}

pub(super) fn withheld(stage: &mut Stage) -> Outcome {
    const DAY_MS: u64 = 86_400_000;
    let head = stage.world.people[CY.0].engine().roster().head();
    let lets_through = std::sync::Arc::default();
    if stage.defended {
        let from = mortise_protocol::identity::RosterSeq(head.seq.0 + 1);
        stage.world.liar = Some(Box::new(Withholds {
            victim: CY,
            head: RosterHead { ..head },
            from,
            lets_through: std::sync::Arc::clone(&lets_through),
        }));
    }
    stage.order();
    // What Cy sends in the epoch that X reads, an accomplice at the relay hands to X.
    let mut cy = stage.copy(CY);
    let said = content::encode_text([3; 16], FORGED);
    let made = cy.message(&stage.world, &said, None, &crate::villain::Twist::default());
    let record = stage.record(&made, stage.order);
    let last = stage.loot.last().expect("loot").clone();
    let log = stage.world.log(stage.group);
    let log: Vec<_> = log
        .iter()
        .filter(|r| r.fence < stage.order)
        .chain([&record])
        .collect();
    let read = crate::sim::open_all(&last, stage.group, log.into_iter());
    let gained = read.iter().any(|(seq, _)| *seq == record.seq);
    // The first message that crosses the divide, or the staleness limit, whichever comes first.
    lets_through.store(true, std::sync::atomic::Ordering::Relaxed);
    let before = stage.world.now_ms;
    stage.say(BOB, AFTER);
    stage.wait(5_000);
    if stage.alarms().is_empty() && stage.defended {
        stage.wait(DAY_MS + DAY_MS / 4);
    }
    Outcome {
        gained: gained.then(|| "the leaver reads what the uninformed member sends".into()),
        alarms: stage.alarms().len(),
        worst_ms: stage.world.now_ms - before,
        ..Outcome::default()
    }
}
