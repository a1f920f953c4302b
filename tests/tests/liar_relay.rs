//! Every way in which a relay can lie, and what comes of it: the lie changes nothing, or holds things up while it lasts,
//! or is named to the user with its evidence (REQ-048, REQ-061, REQ-085, REQ-086, REQ-087, REQ-092, REQ-093).
//!
//! Ann, Bob and Cy share a group, and Dot is in the organisation. The relay lies to Cy, or about him.

use std::sync::OnceLock;

use mortise_protocol::engine::{Alarm, CommandKind, Event, GroupStatusView};
use mortise_protocol::group::{SUITE_CLASSICAL, Violation};
use mortise_protocol::identity::{GroupId, Hash, LogSeq, RosterSeq, decode, encode};
use mortise_protocol::roster::{EntrySigner, Op, Role, SignedEntry, sign_entry};
use mortise_protocol::wire::{
    ClientToRelay, LogRecord, OrderPosition, Push, RecordBody, Refusal, RelayToClient, Request,
    Response, RosterHead,
};
use mortise_tests::world::{Liar, PersonId, Template, World};

const CY: PersonId = PersonId(2);
const DOT: PersonId = PersonId(3);

/// What a lie leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing: everybody has everything while the relay lies.
    Nothing,
    /// Something waits while the lie lasts, and all is well when it has ended and the relay was started again.
    Delay,
    /// Cy's device refuses records of the group by this name; the alarm says which.
    Refused(Violation),
    /// Cy's device names the roster entry at which the relay has shown two rosters, and asks it nothing more.
    RosterFork,
    /// Cy's device has named a roster entry that breaks the rules, and asks the relay nothing more.
    BadRosterEntry,
}

type Answer = Box<dyn FnMut(&mut RelayToClient) -> bool + Send>;
type Question = Box<dyn FnMut(PersonId, &mut ClientToRelay) -> bool + Send>;

/// A relay that lies in what it sends to one person, or in what it makes of questions.
struct Lies {
    to: PersonId,
    answer: Answer,
    question: Question,
}

impl Liar for Lies {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        (self.question)(from, frame)
    }

    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        to != self.to || (self.answer)(frame)
    }
}

/// To Cy, in answers and pushes.
fn to_cy(answer: impl FnMut(&mut RelayToClient) -> bool + Send + 'static) -> Lies {
    Lies {
        to: CY,
        answer: Box::new(answer),
        question: Box::new(|_, _| true),
    }
}

/// To Cy, in the records that he is sent.
fn in_records(mut lie: impl FnMut(GroupId, &mut Vec<LogRecord>) + Send + 'static) -> Lies {
    to_cy(move |frame| {
        if let RelayToClient::Push(Push::Records { group, records }) = frame {
            lie(*group, records);
            return !records.is_empty();
        }
        true
    })
}

/// To Cy, in answers.
fn in_responses(mut lie: impl FnMut(&mut Response) + Send + 'static) -> Lies {
    to_cy(move |frame| {
        if let RelayToClient::Response { response, .. } = frame {
            lie(response);
        }
        true
    })
}

fn is_message(record: &LogRecord) -> bool {
    matches!(
        decode(record.payload.as_slice()),
        Ok(RecordBody::Message(_))
    )
}

struct Room {
    world: World,
    group: GroupId,
}

impl Room {
    fn new() -> Self {
        static ROOM: OnceLock<(Template, GroupId)> = OnceLock::new();
        let (template, group) = ROOM.get_or_init(|| {
            let names = ["Ann", "Bob", "Cy", "Dot"];
            let (mut world, people) = World::with_people(11, SUITE_CLASSICAL, &names);
            let group = world.group(people[0], &people[1..3]);
            world.say(people[1], group, "before");
            world.settle();
            (Template::capture(world), group)
        });
        let (mut world, group) = (template.world(11), *group);
        world.settle();
        Self { world, group }
    }

    fn wait(&mut self, ms: u64) {
        let until = self.world.now_ms + ms;
        self.world.run_until(until);
    }

    fn say(&mut self, who: usize, text: &str) {
        self.world.say(PersonId(who), self.group, text);
        self.wait(500);
    }

    /// Ordinary life: people talk, Cy too; a role changes; somebody is added and removed; Cy's line breaks.
    fn live(&mut self) {
        self.say(0, "one");
        self.say(1, "two");
        self.say(2, "three");
        let user = self.world.people[1].user();
        let role = Role::Supervisor;
        let kind = CommandKind::SetRole { user, role };
        self.world.command(PersonId(0), kind);
        self.wait(500);
        self.say(1, "four");
        let (group, users) = (self.group, vec![self.world.people[DOT.0].user()]);
        let kind = CommandKind::AddMembers { group, users };
        self.world.command(CY, kind);
        self.wait(5_000);
        self.say(0, "five");
        self.world.disconnect(CY);
        self.say(0, "six");
        self.say(1, "seven");
        self.wait(5_000);
        let user = self.world.people[DOT.0].user();
        self.world
            .command(PersonId(0), CommandKind::RemoveUser { user });
        self.wait(5_000);
        self.say(0, "eight");
        self.say(2, "nine");
        self.wait(20_000);
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.world.alarms(CY).cloned().collect()
    }

    fn agrees(&mut self) -> bool {
        let (ann, bob) = (PersonId(0), PersonId(1));
        let group = self.group;
        let texts = self.world.texts(ann, group);
        let views = [ann, bob, CY].map(|who| self.world.view(who, group));
        views.iter().all(|v| {
            v.status == GroupStatusView::Active
                && v.epoch_authenticator == views[0].epoch_authenticator
        }) && texts.len() == 10
            && [bob, CY]
                .iter()
                .all(|who| self.world.texts(*who, group) == texts)
    }

    /// What the lie has led to; evidence is looked at here.
    fn outcome(&mut self, name: &str) -> Outcome {
        let alarms = self.alarms();
        for who in [PersonId(0), PersonId(1)] {
            // What Cy has sent since tells the others that he was shown another log (REQ-086); no more than that.
            for alarm in self.world.alarms(who) {
                let Alarm::Refused {
                    group, violation, ..
                } = alarm
                else {
                    panic!("{name}: {who:?} {alarm:?}")
                };
                assert_eq!((*group, *violation), (self.group, Violation::LogFork));
                assert!(!alarms.is_empty(), "{name}: only {who:?} was told");
            }
        }
        for person in &self.world.people {
            assert_eq!(person.broken, None, "{name}: {}", person.name);
        }
        match alarms.first() {
            Some(Alarm::Refused {
                group,
                seq,
                violation,
                ..
            }) => {
                assert_eq!(*group, self.group, "{name}");
                let lines = self.world.people[CY.0].engine();
                let lines = lines.messages(self.group, LogSeq(0), usize::MAX);
                let told = lines
                    .expect("a history")
                    .iter()
                    .any(|line| line.seq == *seq);
                assert!(
                    told || *violation == Violation::WelcomeUnasked,
                    "{name}: {alarms:?}"
                );
                Outcome::Refused(*violation)
            }
            Some(Alarm::RosterFork { seq }) => {
                assert!(*seq > RosterSeq(0), "{name}");
                self.is_silent_towards_the_relay(name);
                Outcome::RosterFork
            }
            Some(Alarm::BadRosterEntry { seq, reason }) => {
                assert!(!reason.is_empty() && *seq > RosterSeq(0), "{name}");
                self.is_silent_towards_the_relay(name);
                Outcome::BadRosterEntry
            }
            Some(other) => panic!("{name}: {other:?}"),
            None if self.agrees() => Outcome::Nothing,
            None => {
                self.end_the_lie();
                assert_eq!(self.alarms(), [], "{name}, afterwards");
                let texts = [0, 1, 2].map(|who| self.world.texts(PersonId(who), self.group));
                assert!(self.agrees(), "{name}, afterwards: {texts:?}");
                Outcome::Delay
            }
        }
    }

    fn is_silent_towards_the_relay(&mut self, name: &str) {
        assert!(
            self.world.people[CY.0].engine().distrusts_relay().is_some(),
            "{name}"
        );
    }

    fn end_the_lie(&mut self) {
        self.world.liar = None;
        for i in 0..self.world.people.len() {
            self.world.restart_person(PersonId(i));
        }
        self.world.settle();
        self.wait(30_000);
        self.world.settle();
    }
}

fn run(name: &str, lies: Lies) -> Outcome {
    let mut room = Room::new();
    room.world.liar = Some(Box::new(lies));
    room.live();
    room.outcome(name)
}

/// A record that nobody has sent, after one that somebody has.
fn invented(after: &LogRecord, payload: Vec<u8>) -> LogRecord {
    LogRecord {
        seq: after.seq.next(),
        payload: payload.into(),
        ..after.clone()
    }
}

fn log_lies() -> Vec<(&'static str, Lies, Outcome)> {
    let mut earlier: Option<LogRecord> = None;
    let mut held: Option<LogRecord> = None;
    let mut told: Option<LogSeq> = None;
    let mut gone: Option<LogSeq> = None;
    vec![
        (
            "withholds a message and all that follows",
            in_records(|_, records| records.retain(|r| r.seq < LogSeq(5))),
            Outcome::Delay,
        ),
        (
            "withholds a message and numbers the rest anew",
            in_records(move |_, records| {
                if gone.is_none() {
                    gone = records.iter().find(|r| is_message(r)).map(|r| r.seq);
                }
                let Some(gone) = gone else { return };
                records.retain(|r| r.seq != gone);
                for record in records.iter_mut().filter(|r| r.seq > gone) {
                    record.seq = LogSeq(record.seq.0 - 1);
                }
            }),
            Outcome::Refused(Violation::LogFork),
        ),
        (
            "sends pages backwards",
            in_records(|_, records| records.reverse()),
            Outcome::Nothing,
        ),
        (
            "cuts every page to its first record",
            in_records(|_, records| records.truncate(1)),
            Outcome::Nothing,
        ),
        (
            "sends every record twice",
            in_records(|_, records| {
                let twice = records.iter().flat_map(|r| [r.clone(), r.clone()]);
                *records = twice.collect();
            }),
            Outcome::Nothing,
        ),
        (
            "swaps a message with the one before it",
            in_records(move |_, records| {
                for record in records.iter_mut().filter(|r| is_message(r)) {
                    let original = record.payload.clone();
                    if let Some(other) = held.take().filter(|h| h.epoch == record.epoch) {
                        record.payload = other.payload;
                    }
                    held = Some(LogRecord {
                        payload: original,
                        ..record.clone()
                    });
                }
            }),
            Outcome::Refused(Violation::MlsRefused),
        ),
        (
            "shows an old message in the place of a new one",
            in_records(move |_, records| {
                for record in records.iter_mut().filter(|r| is_message(r)) {
                    let first = earlier.get_or_insert_with(|| record.clone());
                    record.payload = first.payload.clone();
                }
            }),
            Outcome::Refused(Violation::MlsRefused),
        ),
        (
            "backdates records",
            in_records(|_, records| records.iter_mut().for_each(|r| r.at_ms = 0)),
            Outcome::Nothing,
        ),
        (
            "lowers the fence of what follows an order",
            in_records(|_, records| records.iter_mut().for_each(|r| r.fence = RosterSeq(0))),
            Outcome::Refused(Violation::FenceMissed),
        ),
        (
            "raises the fence of a message",
            in_records(|_, records| {
                let messages = records.iter_mut().filter(|r| is_message(r));
                messages.for_each(|r| r.fence = r.fence.next());
            }),
            // Not above what its sender knew; but it is part of what the log hashes to.
            Outcome::Refused(Violation::LogFork),
        ),
        (
            "invents a fence that no order has raised",
            in_records(|_, records| records.iter_mut().for_each(|r| r.fence = RosterSeq(999))),
            Outcome::RosterFork,
        ),
        (
            "invents a record",
            in_records(move |_, records| {
                let Some(last) = records.last().cloned() else {
                    return;
                };
                if told.is_none() {
                    told = Some(last.seq);
                    records.push(invented(&last, vec![3, 1, 2, 3]));
                }
            }),
            Outcome::Refused(Violation::MalformedRecord),
        ),
        (
            "puts a record into another epoch",
            in_records(|_, records| {
                let messages = records.iter_mut().filter(|r| is_message(r));
                messages.for_each(|r| r.epoch = r.epoch.next());
            }),
            Outcome::Refused(Violation::BadHeader),
        ),
        (
            "changes a byte of a message",
            in_records(|_, records| {
                for record in records.iter_mut().filter(|r| is_message(r)) {
                    let mut payload = record.payload.as_slice().to_vec();
                    if let Some(last) = payload.last_mut() {
                        *last ^= 1;
                    }
                    record.payload = payload.into();
                }
            }),
            Outcome::Refused(Violation::MlsRefused),
        ),
        (
            "shows the log's creation once more",
            in_records(|_, records| {
                let create = encode(&RecordBody::Create {
                    access_key: mortise_protocol::identity::PublicKey([1; 32]),
                });
                let messages = records.iter_mut().filter(|r| is_message(r));
                messages.for_each(|r| r.payload = create.clone().into());
            }),
            Outcome::Refused(Violation::ForbiddenContent),
        ),
    ]
}

/// An entry that nobody has signed, `ahead` of the one in hand.
fn forged_entry(like: &[u8], ahead: u64) -> Vec<u8> {
    let entry = SignedEntry::parse(like).expect("an entry");
    let tbs = entry.tbs();
    let head = mortise_protocol::roster::Head {
        seq: RosterSeq(tbs.seq.0 - 1 + ahead),
        hash: tbs.prev_hash,
    };
    let key = mortise_protocol::identity::SigningKey::from_seed(&[77; 32]);
    let ops = vec![Op::RemoveUser {
        user: mortise_protocol::identity::UserId([1; 16]),
    }];
    let signer = match tbs.signer {
        EntrySigner::Device(device) => device,
        _ => panic!("by a device"),
    };
    sign_entry(
        tbs.org,
        head,
        tbs.issued_at_ms,
        EntrySigner::Device(signer),
        &key,
        ops,
    )
    .into_bytes()
}

/// What a lie does to a pushed entry and its positions.
type PushLie = Box<dyn FnMut(&mut Vec<u8>, &mut Vec<OrderPosition>) + Send>;

fn roster_lies() -> Vec<(&'static str, Lies, Outcome)> {
    let pushes = |mut lie: PushLie| {
        to_cy(move |frame| {
            if let RelayToClient::Push(Push::RosterEntry { entry, positions }) = frame {
                let mut bytes = entry.as_slice().to_vec();
                lie(&mut bytes, positions);
                *entry = bytes.into();
            }
            true
        })
    };
    vec![
        (
            "pushes no roster entry, and none is in what it answers",
            to_cy(|frame| match frame {
                RelayToClient::Push(Push::RosterEntry { .. }) => false,
                RelayToClient::Response { response, .. } => {
                    if let Response::Roster { entries, .. } = response {
                        entries.clear();
                    }
                    true
                }
                RelayToClient::Push(_) => true,
            }),
            Outcome::Delay,
        ),
        (
            "shows a roster that ends before a colleague's",
            to_cy(|frame| match frame {
                RelayToClient::Push(Push::RosterEntry { .. }) => false,
                RelayToClient::Response {
                    response: Response::Roster { entries, head },
                    ..
                } => {
                    entries.clear();
                    head.seq = RosterSeq(1);
                    head.hash = Hash([0; 32]);
                    true
                }
                _ => true,
            }),
            Outcome::RosterFork,
        ),
        (
            "signs an entry in somebody's name",
            pushes(Box::new(|entry, _| *entry = forged_entry(entry, 0))),
            Outcome::BadRosterEntry,
        ),
        (
            "pushes bytes that are no entry",
            pushes(Box::new(|entry, _| entry.truncate(20))),
            Outcome::BadRosterEntry,
        ),
        (
            "says that an order came earlier in the log than it did",
            pushes(Box::new(|_, positions| {
                positions.iter_mut().for_each(|p| p.seq = LogSeq(0));
            })),
            Outcome::Nothing,
        ),
        (
            "says that an order came later in the log than it did",
            pushes(Box::new(|_, positions| {
                positions.iter_mut().for_each(|p| p.seq = LogSeq(1_000));
            })),
            Outcome::Nothing,
        ),
        (
            "says nothing of where an order stands, and leases every group to Cy",
            pushes(Box::new(|_, positions| {
                positions.iter_mut().for_each(|p| p.lease = true.into());
                positions.truncate(0);
            })),
            Outcome::Nothing,
        ),
        (
            "greets with another chain's head",
            in_responses(|response| {
                if let Response::Hello { head, .. } = response {
                    head.hash = Hash([1; 32]);
                }
            }),
            Outcome::RosterFork,
        ),
        (
            "greets with a head that does not exist",
            in_responses(|response| {
                if let Response::Hello { head, .. } = response {
                    head.seq = RosterSeq(head.seq.0 + 50);
                }
            }),
            Outcome::Delay,
        ),
    ]
}

fn answer_lies() -> Vec<(&'static str, Lies, Outcome)> {
    let mut welcome = None;
    vec![
        (
            "says that a log ends later than it does",
            in_responses(|response| {
                if let Response::Subscribed { last_readable, .. } = response {
                    *last_readable = LogSeq(last_readable.0 + 10);
                }
            }),
            Outcome::Delay,
        ),
        (
            "says that a log ends before its end",
            in_responses(|response| {
                if let Response::Subscribed { last_readable, .. } = response {
                    *last_readable = LogSeq(1);
                }
            }),
            Outcome::Nothing,
        ),
        (
            "hands out somebody else's KeyPackage",
            in_responses(|response| {
                if let Response::KeyPackages { packages } = response {
                    packages
                        .iter_mut()
                        .for_each(|p| p.key_package = vec![0].into());
                }
            }),
            Outcome::Nothing,
        ),
        (
            "hands out every KeyPackage twice",
            in_responses(|response| {
                if let Response::KeyPackages { packages } = response {
                    let twice = packages.iter().flat_map(|p| [p.clone(), p.clone()]);
                    *packages = twice.collect();
                }
            }),
            Outcome::Nothing,
        ),
        (
            "answers every question with another question's answer",
            in_responses(|response| {
                if !matches!(response, Response::Hello { .. }) {
                    *response = Response::Slots { slots: Vec::new() };
                }
            }),
            Outcome::Delay,
        ),
        (
            "leaves stale slots of the directory key",
            in_responses(|response| {
                if let Response::Slots { slots } = response {
                    let stale = slots.iter_mut();
                    stale.for_each(|slot| slot.ciphertext = vec![0; 48].into());
                }
            }),
            Outcome::Nothing,
        ),
        (
            "brings a Welcome again",
            in_responses(move |response| {
                if let Response::Inbox { items, .. } = response {
                    match (items.first(), &welcome) {
                        (Some(item), None) => welcome = Some(item.clone()),
                        (None, Some(again)) => {
                            let mut again = again.clone();
                            again.seq += 1;
                            items.push(again);
                        }
                        _ => {}
                    }
                }
            }),
            Outcome::Nothing,
        ),
        (
            "refuses what it could do, for lack of space",
            in_responses(|response| {
                if matches!(response, Response::Appended { .. }) {
                    *response = Response::Refused(Refusal::Storage);
                }
            }),
            Outcome::Nothing,
        ),
        (
            "refuses what it has stored, as of another epoch",
            in_responses(|response| {
                if let Response::Appended { seq, .. } = response {
                    *response = Response::Refused(Refusal::WrongEpoch {
                        head_epoch: mortise_protocol::identity::Epoch(99),
                        head_seq: *seq,
                    });
                }
            }),
            Outcome::Nothing,
        ),
        (
            "acknowledges at places that are not the records'",
            in_responses(|response| {
                if let Response::Appended { seq, .. } = response {
                    *seq = LogSeq(seq.0 + 100);
                }
            }),
            Outcome::Nothing,
        ),
        (
            "acknowledges a roster entry with another chain's head",
            in_responses(|response| {
                if let Response::RosterAppended { head } = response {
                    *head = RosterHead {
                        seq: head.seq,
                        hash: Hash([3; 32]),
                    };
                }
            }),
            Outcome::Nothing,
        ),
    ]
}

fn holds(table: Vec<(&'static str, Lies, Outcome)>) {
    let mut wrong = Vec::new();
    for (name, lies, expected) in table {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(name, lies)));
        match outcome {
            Ok(outcome) if outcome == expected => {}
            Ok(outcome) => wrong.push(format!("{name}: {outcome:?} instead of {expected:?}")),
            Err(_) => wrong.push(format!("{name}: see the panic above")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// REQ-044, REQ-085, REQ-086, REQ-087: lies about a group's log.
#[test]
fn lies_about_the_log() {
    holds(log_lies());
}

/// REQ-048, REQ-061: lies about the roster.
#[test]
fn lies_about_the_roster() {
    holds(roster_lies());
}

/// REQ-092, REQ-093: lies in answers to questions.
#[test]
fn lies_in_answers() {
    holds(answer_lies());
}

/// A device that is told that it was removed believes it until it starts again, tells its user, and loses nothing.
#[test]
fn a_removal_that_is_only_said() {
    let mut room = Room::new();
    room.world.liar = Some(Box::new(in_responses(|response| {
        if let Response::Hello { admitted, .. } = response {
            *admitted = false.into();
        }
    })));
    room.world.disconnect(CY);
    room.say(0, "without you");
    assert!(room.world.people[CY.0].engine().is_expelled());
    let group = room.group;
    let text = "may I".to_owned();
    let id = room
        .world
        .command(CY, CommandKind::SendText { group, text });
    let told = room.world.people[CY.0].events.iter();
    let told = told.filter(|e| matches!(e, Event::Failed { id: i, .. } if *i == id));
    assert_eq!(told.count(), 1, "the user is told at once");
    room.end_the_lie();
    room.say(2, "back");
    for who in 0..3 {
        let texts = room.world.texts(PersonId(who), room.group);
        assert_eq!(texts, ["before", "without you", "back"]);
    }
}

/// REQ-061, REQ-048: an order that never was does not make records look as if they were stamped too low: it convicts
/// the relay that has spoken of it.
#[test]
fn a_position_of_an_order_that_never_was() {
    let mut room = Room::new();
    let group = room.group;
    room.world.liar = Some(Box::new(to_cy(move |frame| {
        if let RelayToClient::Push(Push::RosterEntry { entry, positions }) = frame {
            *entry = forged_entry(entry.as_slice(), 40).into();
            *positions = vec![OrderPosition {
                group,
                seq: LogSeq(0),
                lease: false.into(),
            }];
        }
        true
    })));
    room.live();
    assert_eq!(room.outcome("a forged position"), Outcome::RosterFork);
    let refused = |alarm: &Alarm| matches!(alarm, Alarm::Refused { .. });
    assert!(!room.alarms().iter().any(refused));
}

/// REQ-061: the same for an entry that exists and is no order.
#[test]
fn a_position_of_an_entry_that_is_no_order() {
    let mut room = Room::new();
    let group = room.group;
    room.world.liar = Some(Box::new(to_cy(move |frame| {
        if let RelayToClient::Push(Push::RosterEntry { positions, .. }) = frame
            && positions.is_empty()
        {
            *positions = vec![OrderPosition {
                group,
                seq: LogSeq(0),
                lease: true.into(),
            }];
        }
        true
    })));
    room.live();
    assert_eq!(room.outcome("a position of no order"), Outcome::Nothing);
}

/// REQ-088, REQ-089: who is told that a message is stored, and it is not, keeps it; it arrives, once, when the epoch ends.
#[test]
fn an_acknowledgement_of_what_was_thrown_away() {
    let mut room = Room::new();
    let mut swallowed = 0;
    let question = move |from: PersonId, frame: &mut ClientToRelay| {
        let Request::Submit(submission) = &frame.request else {
            return true;
        };
        let body = decode(submission.payload.as_slice());
        if from == CY && matches!(body, Ok(RecordBody::Message(_))) && swallowed == 0 {
            swallowed += 1;
            // A question whose answer can be turned into the acknowledgement.
            frame.request = Request::FetchSlots;
        }
        true
    };
    let answer = |frame: &mut RelayToClient| {
        if let RelayToClient::Response { response, .. } = frame
            && matches!(response, Response::Slots { .. })
        {
            *response = Response::Appended {
                seq: LogSeq(50),
                fence: RosterSeq(0),
            };
        }
        true
    };
    room.world.liar = Some(Box::new(Lies {
        to: CY,
        answer: Box::new(answer),
        question: Box::new(question),
    }));
    room.say(2, "thrown away");
    room.world.liar = None;
    let group = room.group;
    let texts = |room: &Room, who: usize| room.world.texts(PersonId(who), group);
    assert_eq!(texts(&room, 0), ["before"]);
    let users = vec![room.world.people[DOT.0].user()];
    let kind = CommandKind::AddMembers { group, users };
    room.world.command(PersonId(0), kind);
    room.world.settle();
    for who in 0..3 {
        assert_eq!(texts(&room, who), ["before", "thrown away"], "{who}");
    }
    assert_eq!(room.alarms(), []);
}

/// REQ-093: a Welcome that was used brings nobody back who was removed since.
#[test]
fn a_welcome_is_good_once() {
    let mut room = Room::new();
    let mut again = None;
    room.world.liar = Some(Box::new(Lies {
        to: DOT,
        question: Box::new(|_, _| true),
        answer: Box::new(move |frame| {
            if let RelayToClient::Response { response, .. } = frame
                && let Response::Inbox { items, .. } = response
            {
                match (items.first(), &mut again) {
                    (Some(item), None) => again = Some(item.clone()),
                    (_, Some(item)) => {
                        item.seq += 1;
                        items.push(item.clone());
                    }
                    _ => {}
                }
            }
            true
        }),
    }));
    let (group, user) = (room.group, room.world.people[DOT.0].user());
    let users = vec![user];
    room.world
        .command(PersonId(0), CommandKind::AddMembers { group, users });
    room.wait(5_000);
    room.world
        .command(PersonId(0), CommandKind::RemoveMember { group, user });
    room.wait(5_000);
    room.world.disconnect(DOT);
    room.wait(5_000);
    assert_eq!(room.world.view(DOT, group).status, GroupStatusView::Removed);
    let refused = room
        .world
        .alarms(DOT)
        .any(|alarm| matches!(alarm, Alarm::Refused { group: g, .. } if *g == group));
    assert!(refused, "the evidence is named");
    let joined = room.world.people[DOT.0].events.iter();
    let joined = joined.filter(|e| matches!(e, Event::Joined { .. })).count();
    assert_eq!(joined, 1);
}

/// Hands another hash of the log than the relay has to whoever takes a Welcome.
fn another_log(to: PersonId) -> Lies {
    Lies {
        to,
        question: Box::new(|_, _| true),
        answer: Box::new(|frame| {
            if let RelayToClient::Response { response, .. } = frame
                && let Response::Inbox { items, .. } = response
            {
                items.iter_mut().for_each(|item| item.log_hash.0[0] ^= 1);
            }
            true
        }),
    }
}

fn names_a_fork(room: &Room, who: PersonId) -> bool {
    let mut alarms = room.world.alarms(who);
    alarms.any(|alarm| {
        matches!(
            alarm,
            Alarm::Refused {
                violation: Violation::LogFork,
                ..
            }
        )
    })
}

/// REQ-086, REQ-390: a joiner cannot check the hash of a log that it has not read; the first message that crosses convicts.
#[test]
fn a_hash_of_another_log_for_who_joins() {
    for lies in [false, true] {
        let mut room = Room::new();
        if lies {
            room.world.liar = Some(Box::new(another_log(DOT)));
        }
        let (group, users) = (room.group, vec![room.world.people[DOT.0].user()]);
        room.world
            .command(PersonId(0), CommandKind::AddMembers { group, users });
        room.wait(5_000);
        assert_eq!(room.world.view(DOT, group).status, GroupStatusView::Active);
        assert!(!names_a_fork(&room, DOT), "nothing has crossed yet");
        room.say(0, "welcome");
        assert_eq!(names_a_fork(&room, DOT), lies);
        room.say(3, "thank you");
        assert_eq!(names_a_fork(&room, CY), lies);
    }
}

/// REQ-390: who is let in anew, and has read the log up to there, compares.
#[test]
fn a_hash_of_another_log_for_who_is_let_in_anew() {
    for lies in [false, true] {
        let mut room = Room::new();
        if lies {
            room.world.liar = Some(Box::new(another_log(CY)));
        }
        let group = room.group;
        room.world.command(CY, CommandKind::ResyncGroup { group });
        room.wait(5_000);
        assert_eq!(names_a_fork(&room, CY), lies);
    }
}
