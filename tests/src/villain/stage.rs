//! Where every rule is broken: an organisation, a group in it, a villain in that, and somebody who must not follow.

use mortise_protocol::engine::{Alarm, CommandKind, HistoryKind};
use mortise_protocol::group::{SUITE_CLASSICAL, Violation, storage::MLS};
use mortise_protocol::identity::{Epoch, GroupId, LogSeq, RosterSeq, encode};
use mortise_protocol::roster::Role;
use mortise_protocol::store::Reader as _;
use mortise_protocol::wire::{
    ClientToRelay, InboxItem, LogRecord, Push, RecordBody, RelayToClient, Response,
};

use super::{Crafted, Line, Twist, Villain};
use crate::world::{Liar, PersonId, Template, World};

/// The way by which what must be refused comes to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// It is pushed to a device that is online.
    Live,
    /// The device was away, and reads it in the log.
    CatchUp,
    /// The process was started again, and has nothing in memory.
    AfterRestart,
    /// It is the Welcome that would lead the device in, and the commit that it came with.
    Join,
    /// The same, and it waits for a process that was started again, and has nothing in memory.
    JoinAfterRestart,
}

impl Path {
    /// As it is called in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchUp => "catch-up",
            Self::AfterRestart => "after a restart",
            Self::Join => "join",
            Self::JoinAfterRestart => "join after a restart",
        }
    }

    /// Whether it leads into the group.
    #[must_use]
    pub fn is_join(self) -> bool {
        matches!(self, Self::Join | Self::JoinAfterRestart)
    }
}

/// How the relay passes on what a villain made.
#[expect(clippy::large_enum_variant, reason = "a row of a table makes one")]
pub enum Forged {
    /// As it must: it is submitted, in this order.
    Submitted(Vec<Crafted>),
    /// It shows this in the place of an honest message of the villain's.
    Shown(Shown),
    /// It is submitted, and the relay changes the Welcome or what comes with it.
    Inbox(Crafted, fn(&mut InboxItem)),
}

impl From<Crafted> for Forged {
    fn from(made: Crafted) -> Self {
        Self::Submitted(vec![made])
    }
}

/// What a relay that lies shows; what is `None` stays as it was.
#[derive(Clone, Default)]
pub struct Shown {
    /// Another payload.
    pub payload: Option<Vec<u8>>,
    /// Another fence.
    pub fence: Option<RosterSeq>,
    /// Another epoch.
    pub epoch: Option<Epoch>,
}

impl Shown {
    /// This record in the place of an honest one.
    #[must_use]
    pub fn body(body: &RecordBody) -> Forged {
        Self::payload(encode(body))
    }

    /// These bytes in the place of an honest record.
    #[must_use]
    pub fn payload(payload: Vec<u8>) -> Forged {
        Forged::Shown(Self {
            payload: Some(payload),
            ..Self::default()
        })
    }

    /// An honest record with another fence.
    #[must_use]
    pub fn fence(fence: RosterSeq) -> Forged {
        Forged::Shown(Self {
            fence: Some(fence),
            ..Self::default()
        })
    }
}

/// An organisation that was founded once, for as many stages as are wanted.
pub struct Theatre {
    template: Template,
    group: GroupId,
}

impl Theatre {
    /// Founds it.
    #[must_use]
    pub fn found(now_ms: u64) -> Self {
        let mut world = World::new(101, now_ms);
        let owner = world.found("Own", SUITE_CLASSICAL);
        let people: Vec<_> = ["Ann", "Bob", "Cy", "Vic", "Out", "Gus"]
            .map(|name| world.invite(owner, name, Role::Member))
            .to_vec();
        let group = world.group(people[0], &people[1..4]);
        world.settle();
        Self {
            template: Template::capture(world),
            group,
        }
    }

    /// A stage with everybody online.
    #[must_use]
    pub fn stage(&self, seed: u64) -> Stage {
        let mut world = self.template.world(seed);
        world.settle();
        Stage {
            world,
            group: self.group,
            villain: None,
            carrier: None,
        }
    }
}

/// One performance.
pub struct Stage {
    /// The world.
    pub world: World,
    /// The group.
    pub group: GroupId,
    villain: Option<Villain>,
    /// Where the log has an honest message that is shown as something else.
    carrier: Option<LogSeq>,
}

impl Stage {
    /// Owner of the organisation, and not in the group.
    pub const OWNER: PersonId = PersonId(0);
    /// The group's admin.
    pub const ANN: PersonId = PersonId(1);
    /// Who must not follow.
    pub const BOB: PersonId = PersonId(2);
    /// A further member.
    pub const CY: PersonId = PersonId(3);
    /// Whose device the villain has.
    pub const VIC: PersonId = PersonId(4);
    /// Somebody outside, who must not follow a Welcome.
    pub const OUT: PersonId = PersonId(5);
    /// Another one outside.
    pub const GUS: PersonId = PersonId(6);

    /// The villain.
    ///
    /// # Panics
    /// Before it has taken over.
    pub fn villain(&mut self) -> &mut Villain {
        self.villain.as_mut().expect("it has taken over")
    }

    /// Villain and world at once.
    ///
    /// # Panics
    /// Before it has taken over.
    pub fn both(&mut self) -> (&mut Villain, &World) {
        let villain = self.villain.as_mut().expect("it has taken over");
        (villain, &self.world)
    }

    /// The villain takes over Vic's device.
    pub fn take_over(&mut self) {
        let mut villain = Villain::take_over(&mut self.world, Self::VIC, self.group);
        villain.learn_roster(&self.world, Self::OWNER);
        self.villain = Some(villain);
    }

    /// Somebody wants something, and gets it.
    pub fn does(&mut self, who: PersonId, what: CommandKind) {
        self.world.command(who, what);
        self.world.settle();
    }

    /// An order against somebody, while all other members are away.
    pub fn order_unheard(&mut self, against: PersonId) {
        for who in [Self::ANN, Self::BOB, Self::CY] {
            self.world.put_to_sleep(who);
        }
        if self.villain.is_none() {
            self.world.put_to_sleep(Self::VIC);
        }
        self.world.remove(Self::OWNER, against);
        if let Some(villain) = &mut self.villain {
            villain.learn_roster(&self.world, Self::OWNER);
        }
    }

    /// Who is to refuse, by this path.
    #[must_use]
    pub fn victim(path: Path) -> PersonId {
        if path.is_join() { Self::OUT } else { Self::BOB }
    }

    /// Brings the victim to where it meets what will be made.
    pub fn prepare(&mut self, path: Path) {
        match path {
            Path::Live | Path::Join => {}
            Path::CatchUp => self.world.put_to_sleep(Self::BOB),
            Path::JoinAfterRestart => {
                self.world.put_to_sleep(Self::OUT);
                self.world.restart_person(Self::OUT);
            }
            Path::AfterRestart => {
                let was_asleep = self.world.people[Self::BOB.0].asleep;
                self.world.restart_person(Self::BOB);
                if !was_asleep {
                    self.world.wake(Self::BOB);
                    self.world.settle();
                }
            }
        }
    }

    /// Passes on what was made.
    ///
    /// # Panics
    /// When the relay does not take what an honest relay takes.
    pub fn deliver(&mut self, forged: Forged) {
        self.pass_by(None);
        match forged {
            Forged::Submitted(all) => all.iter().for_each(|made| self.submit(made)),
            Forged::Shown(shown) => {
                let next = LogSeq(self.world.log(self.group).len() as u64 + 1);
                let (group, seq) = (self.group, self.carrier.unwrap_or(next));
                self.pass_by(Some(Box::new(Shows { group, seq, shown })));
                if self.carrier.is_none() {
                    self.send_carrier();
                }
            }
            Forged::Inbox(made, change) => {
                self.pass_by(Some(Box::new(ChangesInbox(change))));
                self.submit(&made);
            }
        }
        self.world.wake(Self::BOB);
        self.world.wake(Self::OUT);
    }

    /// From now on the relay hands out one record at a time, so that what is refused can be told from what was followed
    /// before it; and lies, if it does.
    fn pass_by(&mut self, liar: Option<Box<dyn Liar>>) {
        let rest = Vec::new();
        self.world.liar = Some(Box::new(OneByOne { liar, rest }));
    }

    fn submit(&mut self, made: &Crafted) {
        let villain = self.villain.as_ref().expect("it has taken over");
        let line = Line::open(&mut self.world, villain);
        line.submit(&mut self.world, villain, made)
            .expect("the relay takes what is well-formed");
    }

    /// Sends the honest message that something else will be shown for.
    ///
    /// # Panics
    /// Before the villain has taken over.
    pub fn send_carrier(&mut self) {
        let (villain, world) = self.both();
        let made = villain.message(world, b"\xf6", None, &Twist::default());
        self.submit(&made);
        self.carrier = Some(LogSeq(self.world.log(self.group).len() as u64));
    }

    /// The names of the rules that somebody was told were broken.
    #[must_use]
    pub fn violations(&self, who: PersonId) -> Vec<Violation> {
        let refused = self.world.alarms(who).filter_map(|alarm| match alarm {
            Alarm::Refused { violation, .. } => Some(*violation),
            _ => None,
        });
        refused.collect()
    }

    /// Everything that openmls keeps for somebody, byte for byte.
    ///
    /// # Panics
    /// When the store does not read.
    pub fn mls_state(&mut self, who: PersonId) -> Vec<(Vec<u8>, Vec<u8>)> {
        let store = self.world.people[who.0].engine_mut().store_mut();
        store.range(MLS, &[], &[], usize::MAX).expect("rows")
    }

    /// Whether somebody's history says that this rule was broken.
    ///
    /// # Panics
    /// When the history does not read.
    #[must_use]
    pub fn is_told(&self, who: PersonId, violation: Violation) -> bool {
        let lines = self.world.people[who.0]
            .engine()
            .messages(self.group, LogSeq(0), usize::MAX)
            .expect("a history");
        lines.iter().any(|line| match &line.kind {
            HistoryKind::Refused(reason) | HistoryKind::Faulty { reason, .. } => {
                *reason == violation.to_string()
            }
            _ => false,
        })
    }
}

/// A relay that shows another record in one place of a log.
struct Shows {
    group: GroupId,
    seq: LogSeq,
    shown: Shown,
}

impl Shows {
    fn change(&self, record: &mut LogRecord) {
        if record.seq != self.seq {
            return;
        }
        if let Some(payload) = &self.shown.payload {
            record.payload = payload.clone().into();
        }
        record.fence = self.shown.fence.unwrap_or(record.fence);
        record.epoch = self.shown.epoch.unwrap_or(record.epoch);
    }
}

impl Liar for Shows {
    fn answer(&mut self, _: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Push(Push::Records { group, records }) = frame
            && *group == self.group
        {
            records.iter_mut().for_each(|record| self.change(record));
        }
        true
    }

    fn question(&mut self, _: PersonId, _: &mut ClientToRelay) -> bool {
        true
    }
}

/// A relay that puts every record into a frame of its own.
struct OneByOne {
    liar: Option<Box<dyn Liar>>,
    rest: Vec<RelayToClient>,
}

impl Liar for OneByOne {
    fn question(&mut self, from: PersonId, frame: &mut ClientToRelay) -> bool {
        let mut liars = self.liar.iter_mut();
        liars.all(|liar| liar.question(from, frame))
    }

    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        let delivered = self.liar.iter_mut().all(|liar| liar.answer(to, frame));
        if let RelayToClient::Push(Push::Records { group, records }) = frame {
            let group = *group;
            let later = records.split_off(1.min(records.len()));
            self.rest = later
                .into_iter()
                .map(|record| {
                    let records = vec![record];
                    RelayToClient::Push(Push::Records { group, records })
                })
                .collect();
        }
        delivered
    }

    fn afterwards(&mut self) -> Vec<RelayToClient> {
        std::mem::take(&mut self.rest)
    }
}

/// A relay that changes what is in an inbox.
struct ChangesInbox(fn(&mut InboxItem));

impl Liar for ChangesInbox {
    fn answer(&mut self, _: PersonId, frame: &mut RelayToClient) -> bool {
        if let RelayToClient::Response {
            response: Response::Inbox { items, .. },
            ..
        } = frame
        {
            items.iter_mut().for_each(self.0);
        }
        true
    }
}
