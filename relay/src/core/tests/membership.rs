//! Founding, greeting, joining, and what somebody who is not admitted may ask.

use mortise_protocol::identity::{DeviceId, OrgId, PublicKey, RosterSeq, Signature};
use mortise_protocol::roster::{EntrySigner, Op, Role, RosterError, sign_entry};
use mortise_protocol::wire::{Flag, Push, Refusal, Request, Response, RosterHead, limits};

use super::fixture::*;

fn fetch(after: u64) -> Request {
    let after = RosterSeq(after);
    Request::FetchRoster { after }
}

fn entries(answer: Response) -> (Vec<Vec<u8>>, RosterHead) {
    match answer {
        Response::Roster { entries, head } => {
            let entries = entries.iter().map(|e| e.as_slice().to_vec()).collect();
            (entries, head)
        }
        other => panic!("no roster: {other:?}"),
    }
}

/// REQ-054: one organisation for one token, without a `Hello`; asking again is safe.
#[test]
fn a_claim_token_founds_one_organisation() {
    let mut world = World::empty();
    let entry = genesis(&org_root(0), &world.owner, statement_key());
    let conn = world.connect_key(world.owner.transport.public());
    let wrong = world.refused(conn, found(b"another", entry.bytes()));
    assert_eq!(wrong, Refusal::ClaimToken);
    let head = entry.head();
    let answer = Response::RosterAppended { head };
    assert_eq!(world.ask(conn, found(TOKEN, entry.bytes())), answer);
    assert_eq!(world.ask(conn, found(TOKEN, entry.bytes())), answer);

    let owner = Device::new(9, world.owner.user);
    let second = genesis(&org_root(9), &owner, statement_key());
    let used = world.refused(conn, found(TOKEN, second.bytes()));
    assert_eq!(used, Refusal::ClaimToken);
}

/// REQ-054: a token that founds nothing is not used up.
#[test]
fn a_bad_genesis_leaves_the_token() {
    let mut world = World::empty();
    let conn = world.connect_key(world.owner.transport.public());
    let good = genesis(&org_root(0), &world.owner, statement_key());
    let other_relay = genesis(&org_root(0), &world.owner, key(1, 1).public());
    let code = RosterError::GenesisShape.code();
    let refusal = world.refused(conn, found(TOKEN, other_relay.bytes()));
    assert_eq!(refusal, Refusal::RosterRule { code });
    let cut = &good.bytes()[..good.bytes().len() - 1];
    let refusal = world.refused(conn, found(TOKEN, cut));
    assert!(matches!(refusal, Refusal::RosterRule { code: 0x0203 }));
    let skew = world.now_ms;
    world.now_ms += 10 * 60_000 + 1;
    let now_ms = world.now_ms;
    let refusal = world.refused(conn, found(TOKEN, good.bytes()));
    assert_eq!(refusal, Refusal::Clock { now_ms });
    world.now_ms = skew + 10 * 60_000;
    let answer = world.ask(conn, found(TOKEN, good.bytes()));
    assert!(matches!(answer, Response::RosterAppended { .. }));
}

/// REQ-015: an organisation that exists is not founded again, token or not.
#[test]
fn a_second_genesis_for_an_organisation_is_a_conflict() {
    let mut world = World::founded();
    let hash = mortise_protocol::identity::sha256(b"second");
    let (core, store) = (&mut world.core, &mut world.store);
    core.add_claim_token(store, hash).expect("token");
    let again = genesis(
        &org_root(0),
        &Device::new(9, world.owner.user),
        statement_key(),
    );
    let conn = world.connect_key(key(3, 9).public());
    let refusal = world.refused(conn, found(b"second", again.bytes()));
    let head = world.roster.head();
    assert_eq!(refusal, Refusal::RosterConflict { head });
}

/// REQ-054: `Hello` comes first, for an organisation that is here, and for one only.
#[test]
fn a_connection_is_for_one_organisation() {
    let mut world = World::founded();
    let conn = world.connect_key(world.owner.transport.public());
    assert_eq!(
        world.refused(conn, Request::FetchSlots),
        Refusal::HelloFirst
    );
    assert_eq!(world.refused(conn, fetch(0)), Refusal::HelloFirst);
    let answer = world.hello(conn, OrgId([9; 32]));
    assert_eq!(answer, Response::Refused(Refusal::UnknownOrg));
    assert_eq!(
        world.refused(conn, Request::FetchSlots),
        Refusal::HelloFirst
    );
    let answer = world.hello(conn, world.org());
    let expected = Response::Hello {
        head: world.roster.head(),
        admitted: Flag::Yes,
        statement_key: statement_key(),
        now_ms: world.now_ms,
        key_packages_left: 0,
        has_last_resort: Flag::No,
        inbox_waiting: Flag::No,
    };
    assert_eq!(answer, expected);

    let (root, owner) = (org_root(9), Device::new(9, world.owner.user));
    let hash = mortise_protocol::identity::sha256(b"second");
    let (core, store) = (&mut world.core, &mut world.store);
    core.add_claim_token(store, hash).expect("token");
    let second = genesis(&root, &owner, statement_key());
    world.ask(conn, found(b"second", second.bytes()));
    let answer = world.hello(conn, root.public().org_id());
    assert_eq!(answer, Response::Refused(Refusal::Malformed));
}

/// REQ-054: a stranger is refused everything but what joining takes.
#[test]
fn a_stranger_is_refused_everything_else() {
    let mut world = World::founded();
    let conn = world.connect_key(PublicKey([5; 32]));
    let answer = world.hello(conn, world.org());
    let no = Flag::No;
    assert!(matches!(answer, Response::Hello { admitted, .. } if admitted == no));
    let mut group = Group::new(1);
    let chat = group.chat(conn, &world.roster);
    let questions = [
        Request::PutSlots { slots: Vec::new() },
        Request::FetchSlots,
        Request::PublishKeyPackages {
            suite: 1,
            one_time: Vec::new(),
            last_resort: Vec::new().into(),
        },
        Request::ClaimKeyPackages {
            suite: 1,
            devices: vec![DeviceId([0; 16])],
        },
        group.create_request(),
        Request::Submit(chat),
        group.subscribe_request(conn, group.epoch(), 0, 1),
        Request::FetchInbox { after: 0 },
        Request::OrderStatus {
            order: RosterSeq(1),
        },
    ];
    for question in questions {
        let name = format!("{question:?}");
        let refusal = world.refused(conn, question);
        assert_eq!(refusal, Refusal::NotAdmitted, "{name}");
    }
    let user = world.owner.user;
    let by_device = world.owner_entry(vec![Op::RemoveUser { user }]);
    let refusal = world.refused(conn, append_roster(&by_device));
    assert_eq!(refusal, Refusal::NotAdmitted);
}

/// REQ-054, REQ-020: before admission the relay serves the one entry that an open link pins.
#[test]
fn a_stranger_cannot_read_the_roster() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (_, joined) = world.join(owner, Role::Member);
    let pin = world.roster.head();
    let (_, invitation, _) = world.invite(owner, Role::Member);
    let user = world.owner.user;
    let profile = mortise_protocol::identity::SealedProfile(vec![1].into());
    world.order(owner, vec![Op::SetProfile { user, profile }]);
    let (all, head) = entries(world.ask(joined, fetch(0)));
    assert_eq!((all.len() as u64, head), (head.seq.0, world.roster.head()));

    let stranger = world.greet(PublicKey([5; 32]));
    let one = |seq: RosterSeq| vec![all[usize::try_from(seq.0).expect("small") - 1].clone()];
    for seq in 1..=head.seq.0 {
        let answer = world.ask(stranger, fetch(seq - 1));
        if seq == pin.seq.0 {
            assert_eq!(entries(answer), (one(RosterSeq(seq)), head));
        } else {
            assert_eq!(answer, Response::Refused(Refusal::NotAdmitted));
        }
    }
    world.order(owner, vec![Op::CancelInvite { invitation }]);
    let refusal = world.refused(stranger, fetch(pin.seq.0 - 1));
    assert_eq!(refusal, Refusal::NotAdmitted);
}

/// REQ-054: whoever redeems an invitation is admitted at once, on the same connection.
#[test]
fn an_accepted_device_is_admitted_on_its_connection() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (user, invitation, invitation_key) = world.invite(owner, Role::Member);
    let device = Device::new(50, user);
    let conn = world.online(&device);
    assert_eq!(
        world.refused(conn, Request::FetchSlots),
        Refusal::NotAdmitted
    );
    let signer = EntrySigner::Invitation(invitation);
    let entry = world.entry(signer, &invitation_key, vec![device.add(world.org())]);
    world.append(conn, &entry);
    let slots = Vec::new();
    assert_eq!(
        world.ask(conn, Request::FetchSlots),
        Response::Slots { slots }
    );
    let again = Device::new(51, user);
    let reused = world.entry(signer, &invitation_key, vec![again.add(world.org())]);
    let stranger = world.online(&again);
    let code = RosterError::InvitationUsed { invitation }.code();
    let refusal = world.refused(stranger, append_roster(&reused));
    assert_eq!(refusal, Refusal::RosterRule { code });
}

/// REQ-015: appending is compare-and-swap on the head; the refusal carries the head; a retry is answered as before.
#[test]
fn roster_entries_are_appended_on_the_head_only() {
    let mut world = World::founded();
    let (one, two) = (world.owner_online(), world.owner_online());
    let user = world.owner.user;
    let profile = |n| {
        let profile = mortise_protocol::identity::SealedProfile(vec![n].into());
        vec![Op::SetProfile { user, profile }]
    };
    let (a, b) = (world.owner_entry(profile(1)), world.owner_entry(profile(2)));
    let answers = world.ask_all(vec![(one, append_roster(&a)), (two, append_roster(&b))]);
    let head = a.head();
    let appended = Response::RosterAppended { head };
    let conflict = Response::Refused(Refusal::RosterConflict { head });
    assert_eq!(answers, [Some(appended.clone()), Some(conflict)]);
    world.roster.apply(a.bytes()).expect("a");
    world.order(two, profile(3));
    assert_eq!(world.ask(one, append_roster(&a)), appended);
    assert_eq!(
        world.restarted().rosters.at(world.org()),
        Some(&world.roster)
    );
}

/// REQ-015: an entry that breaks a rule, or whose time is not the relay's, changes nothing.
#[test]
fn entries_that_break_a_rule_are_refused_by_its_number() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let user = world.owner.user;
    let leave = world.owner_entry(vec![Op::RemoveUser { user }]);
    let code = RosterError::LastOwner { user }.code();
    let refusal = world.refused(owner, append_roster(&leave));
    assert_eq!(refusal, Refusal::RosterRule { code });

    let signer = EntrySigner::Device(world.owner.id());
    let role = Role::Owner;
    for (skew, accepted) in [(600_001, false), (600_000, true)] {
        let (org, head) = (world.org(), world.roster.head());
        let ops = vec![Op::SetRole { user, role }];
        let time = world.now_ms + skew;
        let entry = sign_entry(org, head, time, signer, &world.owner.mls, ops);
        let answer = world.ask(owner, append_roster(&entry));
        let now_ms = world.now_ms;
        let clock = Response::Refused(Refusal::Clock { now_ms });
        assert_eq!(answer == clock, !accepted, "{answer:?}");
    }
    let mut forged = world
        .owner_entry(vec![Op::SetRole { user, role }])
        .into_bytes();
    forged.splice(forged.len() - 64.., Signature([1; 64]).0);
    let entry = Request::AppendRoster {
        entry: forged.into(),
        slots: Vec::new(),
    };
    assert!(matches!(world.ask(owner, entry), Response::Refused(_)));
}

/// REQ-061: whoever is admitted hears of every entry; an entry that is no order has no positions.
#[test]
fn entries_are_pushed_to_admitted_connections_only() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (_, member) = world.join(owner, Role::Member);
    let stranger = world.greet(PublicKey([5; 32]));
    world.outputs.clear();
    let group = Group::created(1, &mut world, member);
    group.subscribe(&mut world, member, group.epoch(), 0, 9);
    world.pushes(member);
    let (user, role) = (world.owner.user, Role::Owner);
    let entry = world.owner_entry(vec![Op::SetRole { user, role }]);
    world.append(owner, &entry);
    let push = Push::RosterEntry {
        entry: entry.bytes().to_vec().into(),
        positions: Vec::new(),
    };
    assert_eq!(world.pushes(owner), std::slice::from_ref(&push));
    assert_eq!(world.pushes(member), [push]);
    assert_eq!(world.pushes(stranger), []);
}

/// REQ-054: a page is no longer than the limit, and goes on where it ended.
#[test]
fn the_roster_comes_in_pages() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (user, role) = (world.owner.user, Role::Owner);
    while world.roster.head().seq.0 <= limits::MAX_ROSTER_PAGE as u64 {
        world.order(owner, vec![Op::SetRole { user, role }]);
    }
    let (first, head) = entries(world.ask(owner, fetch(0)));
    assert_eq!(first.len(), limits::MAX_ROSTER_PAGE);
    let (rest, _) = entries(world.ask(owner, fetch(first.len() as u64)));
    assert_eq!((first.len() + rest.len()) as u64, head.seq.0);
    let (none, _) = entries(world.ask(owner, fetch(u64::MAX)));
    assert_eq!(none.len(), 0);
}

/// Ids are global: another organisation's group is unknown here, and its id is taken.
#[test]
fn groups_belong_to_one_organisation() {
    let mut world = World::founded();
    let owner = world.owner_online();
    let group = Group::created(1, &mut world, owner);
    let hash = mortise_protocol::identity::sha256(b"second");
    let (core, store) = (&mut world.core, &mut world.store);
    core.add_claim_token(store, hash).expect("token");
    // The same keys, in an organisation of their own.
    let (root, same) = (org_root(9), Device::new(0, world.owner.user));
    let second = genesis(&root, &same, statement_key());
    let conn = world.connect_key(same.transport.public());
    world.ask(conn, found(b"second", second.bytes()));
    world.hello(conn, root.public().org_id());
    let refusal = world.refused(conn, group.create_request());
    assert_eq!(refusal, Refusal::GroupExists);
    let read = group.subscribe_request(conn, group.epoch(), 0, 1);
    assert_eq!(world.refused(conn, read), Refusal::UnknownGroup);
    let chat = Group::new(1).chat(conn, &world.roster);
    let refusal = world.refused(conn, Request::Submit(chat));
    assert_eq!(refusal, Refusal::UnknownGroup);
}
