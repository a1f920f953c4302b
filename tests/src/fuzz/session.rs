//! A small organisation in the simulated world, whose frames are changed on their way.
//!
//! What the relay or a network does to a conversation may cost messages and raise alarms. It must never stop a device or the
//! relay, tear a store, or show a text that nobody wrote. (openmls draws its own randomness, so that a run is the same
//! in its schedule and in its changes, and not in its ciphertexts.)

use std::cell::OnceCell;
use std::collections::BTreeSet;

use mortise_protocol::engine::CommandKind;
use mortise_protocol::group::SUITE_CLASSICAL;
use mortise_protocol::identity::{GroupId, LogSeq, decode, encode};
use mortise_protocol::wire::{ClientToRelay, LogRecord, Push, RecordBody, RelayToClient, Response};
use tls_codec::VLByteVec;

use super::Bytes;
use crate::world::{Liar, PersonId, Template, World, wall_clock_ms};

/// What of the input says what people do; the rest says what happens to frames.
const SCRIPT_BYTES: usize = 24;

/// Four people, three of them in a group.
struct Room {
    template: Template,
    group: GroupId,
}

const OWNER: PersonId = PersonId(0);
const PEOPLE: usize = 4;

thread_local! {
    static ROOM: OnceCell<Room> = const { OnceCell::new() };
}

fn room() -> Room {
    let names = ["Ann", "Bob", "Cy", "Dot"];
    let (mut world, people) = World::with_people(11, SUITE_CLASSICAL, &names);
    let group = world.group(people[0], &people[1..3]);
    Room {
        template: Template::capture(world),
        group,
    }
}

/// Which frames are changed, and how.
type Change = fn(&mut Bytes<'_>, Frame<'_>) -> bool;

enum Frame<'a> {
    Question(&'a mut ClientToRelay),
    Answer(&'a mut RelayToClient),
}

/// Changes frames as its bytes say; honest when they are used up.
struct Changes {
    left: Vec<u8>,
    change: Change,
}

impl Changes {
    fn handle(&mut self, frame: Frame<'_>) -> bool {
        let mut bytes = Bytes::new(&self.left);
        let goes_on = !bytes.one_in(3) || (self.change)(&mut bytes, frame);
        self.left = bytes.rest().to_vec();
        goes_on
    }
}

impl Liar for Changes {
    fn question(&mut self, _from: PersonId, frame: &mut ClientToRelay) -> bool {
        self.handle(Frame::Question(frame))
    }

    fn answer(&mut self, _to: PersonId, frame: &mut RelayToClient) -> bool {
        self.handle(Frame::Answer(frame))
    }
}

/// Commits, messages and Welcomes to devices.
pub(super) fn mls(bytes: &[u8]) {
    run(bytes, |bytes, frame| {
        match frame {
            Frame::Answer(RelayToClient::Push(Push::Records { records, .. })) => {
                for record in records {
                    change_record(bytes, record);
                }
            }
            Frame::Answer(RelayToClient::Response {
                response: Response::Inbox { items, .. },
                ..
            }) => {
                for item in items {
                    change(bytes, &mut item.welcome);
                }
            }
            _ => {}
        }
        true
    });
}

fn change(bytes: &mut Bytes<'_>, content: &mut VLByteVec) {
    let mut changed = content.as_slice().to_vec();
    bytes.mangle(&mut changed);
    *content = changed.into();
}

fn change_record(bytes: &mut Bytes<'_>, record: &mut LogRecord) {
    let kind = bytes.below(6);
    let body = decode::<RecordBody>(record.payload.as_slice());
    match (kind, body) {
        (0, _) => record.seq = LogSeq(record.seq.0.wrapping_add(u64::from(bytes.byte()))),
        (1, _) => record.fence.0 = record.fence.0.wrapping_sub(u64::from(bytes.byte())),
        (2, _) => change(bytes, &mut record.payload),
        (_, Ok(RecordBody::Commit(mut entry))) => {
            change(bytes, &mut entry.commit);
            record.payload = encode(&RecordBody::Commit(entry)).into();
        }
        (_, Ok(RecordBody::Message(mut message))) => {
            change(bytes, &mut message);
            record.payload = encode(&RecordBody::Message(message)).into();
        }
        _ => record.epoch.0 = record.epoch.0.wrapping_add(u64::from(bytes.byte())),
    }
}

/// Questions to the relay: lost where they do not decode, as their connection would be.
pub(super) fn relay(bytes: &[u8]) {
    run(bytes, |bytes, frame| match frame {
        Frame::Question(frame) => {
            let mut changed = encode(&*frame);
            bytes.mangle(&mut changed);
            decode(&changed).map(|changed| *frame = changed).is_ok()
        }
        Frame::Answer(_) => true,
    });
}

/// Answers and pushes to devices: lost where they do not decode.
pub(super) fn engine(bytes: &[u8]) {
    run(bytes, |bytes, frame| match frame {
        Frame::Answer(frame) => {
            let mut changed = encode(&*frame);
            bytes.mangle(&mut changed);
            decode(&changed).map(|changed| *frame = changed).is_ok()
        }
        Frame::Question(_) => true,
    });
}

/// Ann, Bob and Cy in a group of Ann's; Dot is outside.
pub(super) fn with_room<T>(play: impl FnOnce(&Template, GroupId) -> T) -> T {
    ROOM.with(|cell| {
        let room = cell.get_or_init(room);
        play(&room.template, room.group)
    })
}

fn run(bytes: &[u8], change: Change) {
    let (script, changes) = bytes.split_at(bytes.len().min(SCRIPT_BYTES));
    with_room(|template, group| {
        let mut script = Bytes::new(script);
        let mut world = template.world(u64::from(script.short()));
        world.now_ms = world.now_ms.max(wall_clock_ms());
        world.settle();
        world.liar = Some(Box::new(Changes {
            left: changes.to_vec(),
            change,
        }));
        let mut said = BTreeSet::new();
        while !script.is_empty() {
            act(&mut world, group, &mut script, &mut said);
            let until = world.now_ms + 20 * u64::from(script.byte());
            world.run_until(until);
        }
        world.settle();
        world.liar = None;
        check(&mut world, group, &said);
    });
}

/// Somebody does something.
fn act(world: &mut World, group: GroupId, script: &mut Bytes<'_>, said: &mut BTreeSet<String>) {
    let (who, other) = (PersonId(script.below(PEOPLE)), script.below(PEOPLE));
    let user = world.people[other].user();
    let kind = match script.below(11) {
        0..=2 => {
            let text = format!("text {}", said.len());
            said.insert(text.clone());
            CommandKind::SendText { group, text }
        }
        3 => CommandKind::AddMembers {
            group,
            users: vec![user],
        },
        4 => CommandKind::RemoveMember { group, user },
        5 if other != OWNER.0 => CommandKind::RemoveUser { user },
        6 => CommandKind::LeaveGroup { group },
        7 => CommandKind::RestartGroup { group },
        8 => CommandKind::ResyncGroup { group },
        9 => return world.restart_person(who),
        _ => return world.disconnect(who),
    };
    world.command(who, kind);
}

fn check(world: &mut World, group: GroupId, said: &BTreeSet<String>) {
    let mut fence = world.log(group).first().map(|record| record.fence);
    for (record, seq) in world.log(group).iter().zip(1..) {
        assert_eq!(record.seq, LogSeq(seq), "a log has no gap");
        assert!(
            Some(record.fence) >= fence,
            "the fence never falls (REQ-085)"
        );
        fence = Some(record.fence);
    }
    world.stop_relay();
    world.start_relay();
    for who in (0..PEOPLE).map(PersonId) {
        assert_eq!(world.people[who.0].broken, None, "{who:?} meets no defect");
        world.restart_person(who);
        for text in world.texts(who, group) {
            assert!(
                said.contains(&text),
                "{who:?} is shown what nobody wrote: {text}"
            );
        }
    }
}
