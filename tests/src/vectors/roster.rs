//! The life of a roster, and what is refused on its way: sections 5 and 6.

use mortise_protocol::identity::{DeviceId, UserId};
use mortise_protocol::roster::authority::{Operation, Role, Target, check};
use mortise_protocol::roster::{EntrySigner, Op};
use serde_json::{Value, json};

use super::governance;
use super::roster_refusals as refusals;
use super::story::{Device, Invitation, ROOT, Story, add_user, key, profile, sign};

/// The people of the story; Ann founds, Bob administrates, Cy comes, goes, comes back and goes for good.
pub(super) struct People {
    pub(super) ann: Device,
    pub(super) bob: Device,
    pub(super) cy: Device,
    pub(super) cys_second: Device,
    pub(super) cys_third: Device,
    pub(super) dot: UserId,
}

const ANN: u8 = 10;
const BOB: u8 = 30;
const CY: u8 = 40;

impl People {
    fn new() -> Self {
        Self {
            ann: Device::new(0x0a, ANN),
            bob: Device::new(0x0b, BOB),
            cy: Device::new(0x0c, CY),
            cys_second: Device::new(0x0c, 50),
            cys_third: Device::new(0x0c, 60),
            dot: UserId([0x0d; 16]),
        }
    }
}

pub(super) fn vectors() -> Value {
    let people = People::new();
    let mut story = Story::new();
    refusals::of_genesis(&mut story, &people);
    found_and_invite(&mut story, &people);
    refusals::of_bytes(&mut story, &people);
    refusals::of_signers(&mut story, &people);
    refusals::of_roles(&mut story, &people);
    refusals::of_invitations(&mut story, &people);
    refusals::of_keys(&mut story, &people);
    invitations_that_end(&mut story, &people);
    orders(&mut story, &people);
    governance::take(&mut story, &people);
    let checkpoints = governance::checkpoints(&story, &people);
    let mut file = story.into_json();
    file["checkpoints"] = checkpoints;
    file
}

fn found_and_invite(story: &mut Story, people: &People) {
    let ops = story.genesis_ops(&people.ann);
    let genesis = sign(story.tbs(EntrySigner::Root, ops), &key(ROOT));
    story.take("Ann founds the organisation", ROOT, genesis);
    refusals::of_the_only_owner(story, people);
    let entry = story.by(
        &people.ann,
        vec![
            add_user(0x0b, Role::Admin),
            add_user(0x0c, Role::Member),
            Invitation(20).op(people.bob.user),
            Invitation(21).op(people.cy.user),
        ],
    );
    story.take("Ann adds and invites Bob and Cy", ANN, entry);
    let entry = story.redeem(Invitation(20), &people.bob);
    story.take("Bob joins", 20, entry);
    let entry = story.redeem(Invitation(21), &people.cy);
    story.take("Cy joins", 21, entry);
    let entry = story.by(&people.cy, vec![Invitation(22).op(people.cy.user)]);
    story.take("Cy invites a second device", CY, entry);
    let entry = story.redeem(Invitation(22), &people.cys_second);
    story.take("Cy's second device joins", 22, entry);
}

fn invitations_that_end(story: &mut Story, people: &People) {
    let mut entry = story.by(&people.bob, vec![Invitation(24).op(people.cy.user)]);
    story.take("Bob invites a device of Cy's", BOB, entry);
    let invitation = Invitation(24).id();
    entry = story.by(&people.cy, vec![Op::CancelInvite { invitation }]);
    story.take("Cy takes that invitation back", CY, entry);
    refusals::after_cancelling(story, people);
    entry = story.by(
        &people.bob,
        vec![
            add_user(0x0d, Role::Guest),
            Invitation(23).op(people.dot),
            Invitation(26).op(people.cy.user),
        ],
    );
    story.take("Bob adds Dot, and invites Dot and Cy", BOB, entry);
    let role = |user, role| Op::SetRole { user, role };
    entry = story.by(&people.ann, vec![role(people.dot, Role::Owner)]);
    story.take(
        "Ann makes Dot an owner, whom Bob could not have invited",
        ANN,
        entry,
    );
    refusals::after_voiding(story, people);
    entry = story.by(&people.ann, vec![role(people.bob.user, Role::Bot)]);
    story.take("Bob is demoted, and what he issued is void", ANN, entry);
    entry = story.by(
        &people.ann,
        vec![
            role(people.bob.user, Role::Supervisor),
            role(people.bob.user, Role::Admin),
        ],
    );
    story.take("Bob rises again, in two steps of one entry", ANN, entry);
}

fn orders(story: &mut Story, people: &People) {
    let device = people.cys_second.id();
    let mut entry = story.by(&people.cy, vec![Op::RevokeDevice { device }]);
    story.take("Cy revokes the second device", CY, entry);
    refusals::after_revoking(story, people);
    let user = people.cy.user;
    entry = story.by(&people.bob, vec![Op::SuspendUser { user }]);
    story.take("Bob suspends Cy", BOB, entry);
    refusals::after_suspending(story, people);
    entry = story.by(&people.ann, vec![Invitation(25).op(user)]);
    story.take("Ann invites Cy back", ANN, entry);
    entry = story.redeem(Invitation(25), &people.cys_third);
    story.take("Cy is back, with a third device", 25, entry);
    entry = story.by(
        &people.bob,
        vec![
            Op::SetProfile {
                user,
                profile: profile(1024),
            },
            Op::RemoveUser { user },
            Op::RemoveUser { user: people.dot },
        ],
    );
    story.refuse(
        "two users removed by one entry, the second an owner",
        "Forbidden",
        &entry,
    );
    entry = story.by(&people.bob, vec![Op::RemoveUser { user }]);
    story.take("Bob removes Cy", BOB, entry);
    refusals::after_removing(story, people);
    entry = story.by(
        &people.ann,
        vec![
            Op::RemoveUser { user: people.dot },
            Op::RevokeDevice {
                device: people.bob.id(),
            },
        ],
    );
    story.take(
        "Ann removes Dot, who never joined, and revokes Bob's device",
        ANN,
        entry,
    );
}

/// Every cell of the table (REQ-016).
pub(super) fn authority_vectors() -> Value {
    let mut cells = Vec::new();
    for operation in Operation::ALL {
        for actor in Role::ALL {
            for target in targets() {
                let on = match target {
                    Target::Own => "own",
                    Target::Organisation => "organisation",
                    Target::WithOrder => "organisation, with an order",
                    Target::Role(role) => role.name(),
                };
                cells.push(json!({
                    "operation": operation.name(),
                    "actor": actor.name(),
                    "target": on,
                    "allowed": check(actor, operation, target),
                }));
            }
        }
    }
    json!({ "cells": cells })
}

fn targets() -> impl Iterator<Item = Target> {
    [Target::Own, Target::Organisation, Target::WithOrder]
        .into_iter()
        .chain(Role::ALL.map(Target::Role))
}

/// A device that nobody has.
pub(super) const NO_DEVICE: DeviceId = DeviceId([0xee; 16]);
