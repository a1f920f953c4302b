//! The handbook's third chapter: coming back, and ghosts.

use mortise_protocol::engine::{CommandKind, Output};
use mortise_protocol::group::Crypto;
use mortise_protocol::group::{Changes, Group, GroupPolicy, Me, MlsProvider, read_key_package};
use mortise_protocol::identity::{
    Epoch, GroupId, InvitationId, SealSecret, SealedProfile, SigningKey, UserId, encode,
};
use mortise_protocol::roster::{AddDevice, EntrySigner, Head, Op, Role, sign_entry};
use mortise_protocol::store::{MemoryStore, Tx};
use mortise_protocol::wire::log::CommitEntry;
use mortise_protocol::wire::{
    Flag, InboxItem, LogRecord, Push, RecordBody, RelayToClient, Request, Response,
};

use super::door::Door;
use super::liars::{SwapsPackages, TwoLogs};
use super::stage::{AFTER, ANN, BOB, CY, DOT, Stage, X, stranger};
use super::{Outcome, outside};
use crate::villain::{Package, Plan, Recipe};
use crate::world::log_cursor;

/// Keys that nobody has had before.
fn fresh(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

pub(super) fn swapped_package(stage: &mut Stage) -> Outcome {
    let dot = stage.world.people[DOT.0].device();
    let user = stage.world.people[DOT.0].user();
    stage.order();
    let now_s = stage.world.now_ms / 1_000;
    let swapped = Package::make(&Recipe {
        org: stage.x.org,
        user,
        device: dot,
        key: &stage.x.key,
        suite: stage.suite,
        lifetime_s: (now_s - 3_600, now_s + 80 * 86_400),
        resync: None,
        is_capable: true,
    });
    if stage.defended {
        let package = swapped.to_message();
        stage.world.liar = Some(Box::new(SwapsPackages { package }));
    }
    let (group, users) = (stage.group, vec![user]);
    stage
        .world
        .command(BOB, CommandKind::AddMembers { group, users });
    stage.wait(3_000);
    let view = stage.world.view(BOB, stage.group);
    let added = view.members.iter().any(|member| match stage.defended {
        true => member.key == stage.x.key.public(),
        false => member.device == dot,
    });
    Outcome::of(added.then(|| "what the relay gave out is in the tree".into()))
}

/// Appends an entry by a connection of the owner's; whether the relay takes it.
fn append(
    stage: &mut Stage,
    door: Door,
    signer: EntrySigner,
    key: &SigningKey,
    ops: Vec<Op>,
) -> bool {
    let head = head(stage);
    let entry = sign_entry(stage.x.org, head, stage.world.now_ms, signer, key, ops);
    let entry = entry.bytes().to_vec().into();
    let slots = Vec::new();
    let answer = door.ask(&mut stage.world, Request::AppendRoster { entry, slots });
    stage.wait(500);
    matches!(answer, Some(Response::RosterAppended { .. }))
}

fn head(stage: &Stage) -> Head {
    stage.world.people[ANN.0].engine().roster().head()
}

/// The owner adds a user and invites them, by an accomplice's plan; returns the invitation's key.
fn invited(stage: &mut Stage, door: Door, n: u8) -> (UserId, InvitationId, SigningKey) {
    let (user, invitation, key) = (UserId([n; 16]), InvitationId([n; 16]), fresh(n));
    let ops = vec![
        Op::AddUser {
            user,
            role: Role::Member,
            profile: SealedProfile(vec![0; 16].into()),
        },
        Op::Invite {
            invitation,
            user,
            key: key.public(),
            expires_at_ms: u64::MAX,
        },
    ];
    let signer = stage.world.signature_key(ANN);
    let by = EntrySigner::Device(signer.public().device_id());
    assert!(append(stage, door, by, &signer, ops), "an owner may");
    (user, invitation, key)
}

pub(super) fn same_key(stage: &mut Stage) -> Outcome {
    stage.order();
    let door = stage.door(ANN);
    let x = stage.x.key.clone();
    let transport = stage.world.people[X.0].engine().transport_key();
    let reused: [[SigningKey; 3]; 4] = [
        [copy(&x), fresh(101), fresh(102)],
        [fresh(103), copy(&transport), fresh(104)],
        [fresh(105), copy(&x), fresh(106)],
        [fresh(107), fresh(108), copy(&x)],
    ];
    let tried = match stage.defended {
        true => reused,
        false => [1, 2, 3, 4].map(|n| [fresh(110 + n), fresh(120 + n), fresh(130 + n)]),
    };
    for (n, [mls, transport, seal]) in (40..).zip(tried) {
        let (user, invitation, key) = invited(stage, door, n);
        let seal = SealSecret::new(seal);
        let add = AddDevice::sign(stage.x.org, user, &mls, &transport, &seal);
        let by = EntrySigner::Invitation(invitation);
        if append(stage, door, by, &key, vec![Op::AddDevice(add)]) {
            return Outcome::of(Some("the roster takes the key".into()));
        }
    }
    Outcome::default()
}

fn copy(key: &SigningKey) -> SigningKey {
    SigningKey::from_seed(&key.dangerous_seed())
}

pub(super) fn new_key(stage: &mut Stage) -> Outcome {
    let user = stage.x.user;
    let (invitation, key) = (InvitationId([77; 16]), fresh(77));
    let invite = || Op::Invite {
        invitation,
        user,
        key: key.public(),
        expires_at_ms: u64::MAX,
    };
    let signer = copy(&stage.x.key);
    let by = EntrySigner::Device(stage.x.device);
    // Once while it may, to be redeemed later, and once when it may not.
    let door = stage.door(X);
    append(stage, door, by, &signer, vec![invite()]);
    stage.order();
    let again = stage.door(X);
    append(stage, again, by, &signer, vec![invite()]);
    let (mls, transport) = (fresh(78), fresh(79));
    let add = AddDevice::sign(
        stage.x.org,
        user,
        &mls,
        &transport,
        &SealSecret::new(fresh(80)),
    );
    let mut owners = vec![
        stage.door(ANN),
        Door::open(&mut stage.world, transport.public()),
    ];
    owners.push(again);
    for door in owners {
        let by = EntrySigner::Invitation(invitation);
        if append(stage, door, by, &key, vec![Op::AddDevice(add.clone())]) {
            return Outcome::of(Some("a new device of the leaver is admitted".into()));
        }
    }
    Outcome::default()
}

pub(super) fn sock_puppet(stage: &mut Stage) -> Outcome {
    stage.order();
    let puppet = UserId([99; 16]);
    let owner = stage.world.signature_key(ANN);
    let by = EntrySigner::Device(owner.public().device_id());
    let key = match stage.defended {
        true => stranger(),
        false => owner,
    };
    let ops = vec![Op::AddUser {
        user: puppet,
        role: Role::Owner,
        profile: SealedProfile(vec![0; 16].into()),
    }];
    let now = stage.world.now_ms;
    let entry = sign_entry(stage.x.org, head(stage), now, by, &key, ops);
    let push = Push::RosterEntry {
        entry: entry.bytes().to_vec().into(),
        positions: Vec::new(),
    };
    stage.tell(BOB, RelayToClient::Push(push));
    let enrolled = stage.world.people[BOB.0]
        .engine()
        .roster()
        .user(puppet)
        .is_some();
    let outcome = Outcome::of(enrolled.then(|| "a member's roster has the puppet".into()));
    Outcome {
        alarms: stage.alarms().len(),
        ..outcome
    }
}

pub(super) fn false_roster(stage: &mut Stage) -> Outcome {
    let device = stage.world.people[X.0].device();
    let before = head(stage);
    let old = stage.world.people[ANN.0]
        .engine()
        .roster_entries()
        .expect("a roster");
    stage.order();
    let key = stranger();
    let by = EntrySigner::Device(stage.world.people[ANN.0].device());
    let ops = vec![Op::SetRole {
        user: stage.x.user,
        role: Role::Owner,
    }];
    let forged = sign_entry(stage.x.org, head(stage), stage.world.now_ms, by, &key, ops);
    let entries = [
        // What came before the order, once more; the newest of it in the order's place; and what nobody has signed.
        old.last().expect("an entry").clone(),
        old.first().expect("an entry").clone(),
        forged.bytes().to_vec(),
    ];
    for entry in entries {
        let positions = Vec::new();
        let entry = entry.into();
        stage.tell(
            BOB,
            RelayToClient::Push(Push::RosterEntry { entry, positions }),
        );
    }
    // Rolled back: the relay greets with the head from before the order.
    let hello = Response::Hello {
        head: before,
        admitted: Flag::Yes,
        statement_key: stage.world.statement_key(),
        now_ms: stage.world.now_ms,
        key_packages_left: 20,
        has_last_resort: Flag::Yes,
        inbox_waiting: Flag::No,
    };
    stage.mend(BOB);
    let said = stage.tell(BOB, RelayToClient::Push(Push::InboxWaiting));
    let asked = said.iter().find_map(|output| match output {
        Output::Send(frame) if matches!(frame.request, Request::Hello { .. }) => Some(frame.id),
        _ => None,
    });
    if let Some(id) = asked {
        let response = hello;
        stage.tell(BOB, RelayToClient::Response { id, response });
    }
    let roster = stage.world.people[BOB.0].engine().roster();
    let admitted = roster.is_admitted(device);
    Outcome::of(admitted.then(|| "a member's roster still has the leaver".into()))
}

pub(super) fn admin_by_policy(stage: &mut Stage) -> Outcome {
    let user = match stage.defended {
        true => stage.x.user,
        false => stage.world.people[CY.0].user(),
    };
    let mut by = match stage.defended {
        // An accomplice who is no admin; in the control, an admin.
        true => {
            stage.order();
            stage.turn(CY)
        }
        false => stage.turn(X),
    };
    let mut policy = outside::policy_of(&by);
    policy.admins.push(user);
    let plan = Plan {
        policy: Some(policy),
        ..Plan::default()
    };
    let made = by.commit(&stage.world, plan);
    stage.submit(&by, &made);
    let view = stage.world.view(BOB, stage.group);
    let made_admin = view.admins.contains(&user);
    Outcome::of(made_admin.then(|| "a member's group has the new admin".into()))
}

pub(super) fn parallel_group(stage: &mut Stage) -> Outcome {
    let create = |stage: &mut Stage, door: Door, group: GroupId| {
        let payload = encode(&RecordBody::Create {
            access_key: stranger().public(),
        });
        let payload = payload.into();
        let answer = door.ask(&mut stage.world, Request::CreateGroup { group, payload });
        matches!(answer, Some(Response::Appended { .. }))
    };
    let id = match stage.defended {
        true => stage.group,
        false => GroupId([0x77; 32]),
    };
    for who in [X, DOT] {
        let door = stage.door(who);
        if create(stage, door, id) {
            return Outcome::of(Some("the relay opens the log".into()));
        }
    }
    let (welcome, entry) = parallel(stage);
    stage.order();
    let before = stage.state(BOB);
    offer_welcome(stage, welcome, entry);
    let after = stage.state(BOB);
    Outcome::of((before != after).then(|| "a member is in the other group".into()))
}

/// A group of the leaver's own with the same id, and a Welcome for Bob.
fn parallel(stage: &mut Stage) -> (Vec<u8>, LogRecord) {
    let (crypto, store) = (Crypto::default(), MemoryStore::default());
    let tx = Tx::new(&store);
    let provider = MlsProvider::new(&crypto, &tx);
    let key = stage.x.key.clone();
    let me = Me {
        org: stage.x.org,
        user: stage.x.user,
        device: stage.x.device,
        key: &key,
    };
    let policy = GroupPolicy::new("Plans".into(), stage.x.user);
    let group = Group::create(&provider, &me, stage.group, stage.suite, &policy);
    let mut group = group.expect("a group");
    let package = outside::stocked(&stage.world, BOB, stage.suite).to_message();
    let now = stage.world.now_ms;
    let package = read_key_package(&crypto, stage.suite, now, &package).expect("a KeyPackage");
    let aad = stage.x.honest_aad(&stage.world).to_bytes();
    let changes = Changes {
        adds: vec![package],
        ..Changes::default()
    };
    let out = group
        .commit(&provider, &me, aad, changes)
        .expect("a commit");
    let entry = CommitEntry::sign(stage.group, Epoch(0), out.commit, out.next_access_key, &key);
    let made = outside::crafted(Epoch(0), RecordBody::Commit(entry));
    let record = stage.record(&made, stage.fence());
    (out.welcome.expect("a Welcome"), record)
}

/// The relay's operator puts a Welcome into Bob's inbox.
pub(super) fn offer_welcome(stage: &mut Stage, welcome: Vec<u8>, entry: LogRecord) {
    let said = stage.tell(BOB, RelayToClient::Push(Push::InboxWaiting));
    let asked = said.iter().find_map(|output| match output {
        Output::Send(frame) if matches!(frame.request, Request::FetchInbox { .. }) => {
            Some(frame.id)
        }
        _ => None,
    });
    let item = InboxItem {
        seq: 1 << 40,
        group: stage.group,
        welcome: welcome.into(),
        log_hash: log_cursor(stage.group, &stage.world.log(stage.group)).hash,
        entry,
    };
    let response = Response::Inbox {
        items: vec![item],
        more: Flag::No,
    };
    if let Some(id) = asked {
        stage.tell(BOB, RelayToClient::Response { id, response });
    }
}

pub(super) fn two_logs(stage: &mut Stage) -> Outcome {
    stage.order();
    stage.say(BOB, "the first");
    let log = stage.world.log(stage.group);
    let instead = log.last().expect("a record").clone();
    let at = instead.seq.next();
    stage.world.liar = Some(Box::new(TwoLogs {
        victim: CY,
        group: stage.group,
        instead,
        at,
    }));
    stage.say(BOB, AFTER);
    let gained = !stage.is_shown(CY, AFTER) && stage.is_shown(BOB, AFTER);
    let before = stage.world.now_ms;
    stage.say(BOB, "the first that crosses");
    Outcome {
        gained: gained.then(|| "a member is shown another log".into()),
        alarms: stage.alarms().len(),
        worst_ms: stage.world.now_ms - before,
        ..Outcome::default()
    }
}
