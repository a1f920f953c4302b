//! The handbook's second chapter: writing after the order.

use mortise_protocol::content;
use mortise_protocol::engine::CommandKind;
use mortise_protocol::identity::{decode, encode};
use mortise_protocol::wire::{LogRecord, RecordBody, Request, Submission};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use super::Outcome;
use super::liars::{DropsCommits, Inserts};
use super::outside::{self, crafted};
use super::stage::{AFTER, ANN, BOB, CY, DOT, FORGED, Stage, X, is_commit};
use crate::villain::{Crafted, Plan, Twist};
use crate::world::PersonId;

pub(super) fn old_epoch(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    stage.order_and_talk();
    let mut made = Vec::new();
    for knows in [false, true] {
        if knows {
            x.learn_roster(&stage.world, ANN);
        }
        let forged = stage.forge(&mut x);
        made.push(forged);
    }
    for forged in &made {
        stage.submit(&x, forged);
        for who in stage.honest() {
            for fence in [stage.order, x.roster.0] {
                let record = stage.record(forged, fence);
                if stage.defended {
                    stage.hand(who, record);
                }
            }
        }
    }
    Outcome::of(stage.fooled())
}

pub(super) fn backdated(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let forged = stage.forge(&mut x);
    stage.cut(CY);
    let record = stage.record(&forged, stage.fence());
    stage.order();
    stage.world.liar = Some(Box::new(Inserts {
        victim: CY,
        group: stage.group,
        record,
    }));
    let before = stage.world.now_ms;
    stage.mend(CY);
    stage.say(BOB, AFTER);
    stage.wait(3_000);
    Outcome {
        gained: stage.fooled(),
        alarms: stage.alarms().len(),
        worst_ms: stage.world.now_ms - before,
        ..Outcome::default()
    }
}

fn made_of(record: &LogRecord) -> Crafted {
    let body = decode(record.payload.as_slice()).expect("a record of the log");
    crafted(record.epoch, body)
}

pub(super) fn replayed_commit(stage: &mut Stage) -> Outcome {
    stage.order();
    let made = match stage.defended {
        true => {
            let log = stage.world.log(stage.group);
            let commit = log.iter().find(|record| is_commit(record));
            made_of(commit.expect("a commit"))
        }
        // The control: the same way, with a commit of the epoch that Bob is in.
        false => fresh_commit(stage),
    };
    if stage.defended {
        // Who appended it then is told so again; it may not be appended now. Others may speak meanwhile.
        let bob = stage.copy(BOB);
        stage.submit(&bob, &made);
        let payload = encode(&made.body);
        let log = stage.world.log(stage.group);
        let copies = log
            .iter()
            .filter(|record| record.payload.as_slice() == payload);
        if copies.count() != 1 {
            return Outcome::of(Some("the relay takes it".into()));
        }
    }
    Outcome::of(stage.show_commit(BOB, &made))
}

fn fresh_commit(stage: &mut Stage) -> Crafted {
    let mut x = stage.copy(X);
    x.learn_roster(&stage.world, ANN);
    x.commit(&stage.world, Plan::default())
}

/// Everybody knows the order, and nobody has rotated yet: the relay drops their commits.
fn ordered_and_not_rotated(stage: &mut Stage) {
    if stage.defended {
        stage.world.liar = Some(Box::new(DropsCommits));
    }
    stage.order();
}

pub(super) fn forked_commit(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let early = stage.copy(X).commit(&stage.world, Plan::default());
    ordered_and_not_rotated(stage);
    x.learn_roster(&stage.world, ANN);
    let late = x.commit(&stage.world, Plan::default());
    for made in [late, early] {
        if stage.defended && stage.submit(&x, &made) {
            return Outcome::of(Some("the relay takes it".into()));
        }
        if let Some(gained) = stage.show_commit(BOB, &made) {
            return Outcome::of(Some(gained));
        }
    }
    Outcome::default()
}

/// A proposal that X sends while it may, for somebody else's commit to carry.
fn plant(stage: &mut Stage, twist: &Twist) -> Crafted {
    let mut x = stage.copy(X);
    let planted = x.leave(&stage.world, None, twist);
    let taken = stage.submit(&x, &planted);
    assert!(taken, "the relay cannot see what a proposal says");
    planted
}

fn message_of(made: &Crafted) -> Vec<u8> {
    match &made.body {
        RecordBody::Message(message) => message.as_slice().to_vec(),
        other => panic!("a message, not {other:?}"),
    }
}

pub(super) fn planted_add(stage: &mut Stage) -> Outcome {
    let package = outside::stocked(&stage.world, DOT, stage.suite);
    let twist = outside::as_add(&package);
    if !stage.defended {
        let made = stage.copy(X).leave(&stage.world, None, &twist);
        let taken = outside::opens_without_rules(stage, &message_of(&made));
        return Outcome::of(taken.then(|| "openmls would keep it for the next commit".into()));
    }
    plant(stage, &twist);
    stage.order();
    stage.say(BOB, AFTER);
    let added = stage.has_leaf(BOB, package.device);
    Outcome::of(added.then(|| "the removal's commit has carried it".into()))
}

pub(super) fn stored_remove(stage: &mut Stage) -> Outcome {
    let bob = stage.world.people[BOB.0].device();
    let x = stage.copy(X);
    let victim = match stage.size {
        0..3 => stage.world.people[super::stage::X2.0].device(),
        _ => stage.world.people[CY.0].device(),
    };
    let twist = outside::as_remove_of(&x, victim);
    if !stage.defended {
        let made = stage.copy(X).leave(&stage.world, None, &twist);
        let taken = outside::opens_without_rules(stage, &message_of(&made));
        return Outcome::of(taken.then(|| "openmls would keep it for the next commit".into()));
    }
    let planted = plant(stage, &twist);
    // In the smallest group the victim leaves with X: what counts is that Bob stays whole.
    stage.order();
    let record = stage.record(&planted, stage.order);
    stage.hand(BOB, record);
    let lost = stage.size > 2 && !stage.has_leaf(BOB, victim) || !stage.has_leaf(BOB, bob);
    Outcome::of(lost.then(|| "somebody who stays is out".into()))
}

pub(super) fn external_proposal(stage: &mut Stage) -> Outcome {
    let made = outside::external_proposal(stage);
    if !stage.defended {
        let taken = outside::opens_without_rules(stage, &made);
        return Outcome::of(taken.then(|| "openmls would keep it for the next commit".into()));
    }
    stage.order();
    let epoch = stage.x.epoch();
    let record = crafted(epoch, RecordBody::Message(made.into()));
    Outcome::of(outside::try_record(stage, &record))
}

pub(super) fn external_removal(stage: &mut Stage) -> Outcome {
    stage.order();
    // Somebody inside has handed over what an outsider needs, of the epoch that the group is in.
    let info = outside::group_info(&mut stage.world, BOB, stage.group);
    let bob = stage.copy(BOB);
    // The leaf with Bob's own credential is removed by it (RFC 9420 §12.4.3.2).
    let (commit, next) = outside::external_commit(&info, &bob.key.clone(), bob.user, &bob);
    if !stage.defended {
        let taken = outside::opens_without_rules(stage, &commit);
        return Outcome::of(taken.then(|| "openmls takes it where no rule is in the way".into()));
    }
    let key = bob.key.clone();
    let entry = mortise_protocol::wire::log::CommitEntry::sign(
        stage.group,
        bob.epoch(),
        commit,
        next,
        &key,
    );
    let made = crafted(bob.epoch(), RecordBody::Commit(entry));
    if stage.submit(&bob, &made) {
        return Outcome::of(Some("the relay takes it".into()));
    }
    let to = *stage.honest().last().unwrap_or(&BOB);
    Outcome::of(stage.show_commit(to, &made))
}

pub(super) fn forged_leaf(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let senders: &[Option<u32>] = match stage.defended {
        true => &[Some(u32::MAX), Some(u32::MAX / 2), Some(1 << 20), Some(0)],
        false => &[None],
    };
    for sender in senders {
        let twist = sender.map_or_else(Twist::default, Twist::sender);
        let said = content::encode_text([9; 16], FORGED);
        let made = x.message(&stage.world, &said, None, &twist);
        assert!(stage.submit(&x, &made), "the relay cannot see who sends");
    }
    stage.order_and_talk();
    Outcome::of(stage.fooled().or_else(|| wedged(stage)))
}

/// Whether members do not hear one another any more.
fn wedged(stage: &Stage) -> Option<String> {
    let deaf = |who: &PersonId| !stage.is_shown(*who, AFTER);
    let deaf = stage.honest().into_iter().find(deaf)?;
    Some(format!(
        "{} does not hear the others",
        stage.world.people[deaf.0].name
    ))
}

pub(super) fn reused_leaf(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let forged = stage.forge(&mut x);
    stage.order();
    if !stage.defended {
        x.learn_roster(&stage.world, ANN);
        let forged = stage.forge(&mut x);
        stage.submit(&x, &forged);
        return Outcome::of(stage.fooled());
    }
    // Dot gets the leaf that X had.
    let (group, users) = (stage.group, vec![stage.world.people[DOT.0].user()]);
    stage
        .world
        .command(BOB, CommandKind::AddMembers { group, users });
    stage.wait(3_000);
    let bob = stage.copy(BOB);
    let claimed = claim_epoch(&message_of(&forged), bob.epoch().0);
    for message in [message_of(&forged), claimed] {
        for who in stage.honest() {
            let made = crafted(bob.epoch(), RecordBody::Message(message.clone().into()));
            let record = stage.record(&made, stage.order);
            stage.hand(who, record);
        }
    }
    Outcome::of(stage.fooled())
}

/// An MLSMessage that holds a PrivateMessage (RFC 9420 §6.3).
#[derive(TlsSerialize, TlsDeserialize, TlsSize)]
struct Raw {
    version: u16,
    wire_format: u16,
    group: VLByteVec,
    epoch: u64,
    content_type: u8,
    aad: VLByteVec,
    sender_data: VLByteVec,
    ciphertext: VLByteVec,
}

/// The same ciphertext under another epoch's header.
fn claim_epoch(message: &[u8], epoch: u64) -> Vec<u8> {
    let mut raw: Raw = decode(message).expect("a PrivateMessage");
    raw.epoch = epoch;
    encode(&raw)
}

pub(super) fn truncated(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let forged = stage.forge(&mut x);
    let whole = message_of(&forged);
    let mut variants = Vec::new();
    if stage.defended {
        let length = decode::<Raw>(&whole)
            .expect("a message")
            .ciphertext
            .as_slice()
            .len();
        for keep in [0, 1, 15, 16, 17, length - 16, length - 1] {
            let mut raw: Raw = decode(&whole).expect("a message");
            raw.ciphertext = raw.ciphertext.as_slice()[..keep].to_vec().into();
            variants.push(encode(&raw));
        }
        for keep in [0, 1, 16] {
            let mut raw: Raw = decode(&whole).expect("a message");
            raw.sender_data = raw.sender_data.as_slice()[..keep].to_vec().into();
            variants.push(encode(&raw));
        }
    } else {
        variants.push(whole);
    }
    for variant in variants {
        let made = crafted(forged.epoch, RecordBody::Message(variant.into()));
        assert!(stage.submit(&x, &made), "the relay reads the header only");
    }
    stage.order_and_talk();
    Outcome::of(stage.fooled().or_else(|| wedged(stage)))
}

pub(super) fn captured(stage: &mut Stage) -> Outcome {
    let mut x = stage.copy(X);
    let first = stage.forge(&mut x);
    assert!(stage.submit(&x, &first), "X is still in");
    let again = match stage.defended {
        true => first,
        // The control: the same words once more, at a new generation.
        false => stage.forge(&mut x),
    };
    // A member may send it again as its own; the relay's operator may show it again.
    resubmit(stage, &again);
    let record = stage.record(&again, stage.fence());
    for who in stage.honest() {
        stage.hand(who, record.clone());
    }
    let honest = stage.honest().into_iter();
    let twice = honest
        .map(|who| stage.times_shown(who, FORGED))
        .any(|times| times > 1);
    Outcome::of(twice.then(|| "it is shown twice".into()))
}

fn resubmit(stage: &mut Stage, made: &Crafted) {
    let bob = stage.copy(BOB);
    let door = stage.door(BOB);
    let (entry_hash, _) = bob.cursor(&stage.world);
    let proof = mortise_protocol::wire::log::AccessProof::sign(
        &bob.access_key(),
        &door.binding,
        stage.group,
        made.epoch,
        entry_hash,
        mortise_protocol::wire::log::Purpose::Append,
    );
    let submission = Submission {
        group: stage.group,
        epoch: made.epoch,
        payload: encode(&made.body).into(),
        welcomes: Vec::new(),
        proof,
    };
    door.ask(&mut stage.world, Request::Submit(submission));
    stage.wait(1_000);
}
