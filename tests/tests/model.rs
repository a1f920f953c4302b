//! A small model of the fence, explored exhaustively: append rule, compare-and-swap, orders, crashes (REQ-055, REQ-060,
//! REQ-061, REQ-062, REQ-083, REQ-091).
//!
//! Three devices share a group, over at most four epochs after the first. One of them, the leaver, is removed from the
//! organisation at some moment, and goes on as it likes. Every device may say one thing and refresh its keys once;
//! everything in flight may be lost, every device and the relay may crash at any moment. Transitions have the names of
//! the functions that they stand for, and a test holds them against the source.

use std::path::Path;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// Devices; the last is the leaver.
const DEVICES: usize = 3;
const LEAVER: usize = 2;
/// Epochs after the first.
const EPOCHS: u8 = 4;

/// A record on its way to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Submission {
    epoch: u8,
    /// Whether its sender had applied the order: `s` is at the fence or below it.
    knows: bool,
    content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Content {
    Message,
    Commit { removes: bool },
}

/// What a device has stored, and what it has in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Device {
    /// Its cursor: the epoch up to whose opening it has read the log.
    epoch: u8,
    /// Whether it has applied the order.
    knows: bool,
    /// What it has sent, and not met in the log nor been refused.
    sent: Option<Submission>,
    says: u8,
    refreshes: u8,
}

/// The relay, and what is in its log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    devices: [Device; DEVICES],
    /// The head's epoch.
    epoch: u8,
    /// Whether the order is in the roster, and acknowledged.
    ordered: bool,
    /// Whether the leaver is in the tree, by epoch.
    holds_leaver: [bool; EPOCHS as usize + 1],
    /// Commits that closed each epoch.
    closed: [u8; EPOCHS as usize + 1],
    /// Which epochs hold a message that was appended under the order's fence by one who stays.
    fenced: [bool; EPOCHS as usize + 1],
    /// Whether a record of the leaver's was appended under the order's fence.
    leaver_wrote: bool,
    /// Whether a refusal has met a device that was behind the fence, and one that had lost a race.
    was_behind: bool,
    lost_race: bool,
}

/// What happens; each is a function of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// A device encrypts a message and sends it.
    Encrypt(usize),
    /// A device makes a commit: a removal if it must, else a refresh.
    Commit(usize),
    /// The relay decides what a device has sent.
    Decide(usize),
    /// What a device has sent, or the answer, is lost with its connection, or the device or the relay crashes.
    HandleDisconnected(usize),
    /// The relay executes the order.
    Execute,
    /// A device applies the order.
    ApplyEntry(usize),
    /// A device reads on in the log.
    FollowCommit(usize),
}

impl Action {
    /// Where its function is, and its name.
    const CODE: [(&'static str, &'static str); 7] = [
        ("protocol/src/group/mls.rs", "encrypt"),
        ("protocol/src/group/mls.rs", "commit"),
        ("relay/src/core/append.rs", "decide"),
        ("protocol/src/engine/link.rs", "handle_disconnected"),
        ("relay/src/core/orders.rs", "execute"),
        ("protocol/src/engine/roster_sync.rs", "apply_entry"),
        ("protocol/src/engine/inbound.rs", "follow_commit"),
    ];
}

/// The rules that hold the fence up; the tests take them away, one by one.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// `s` is compared with the fence.
    fence: bool,
    /// A commit must be of the head's epoch.
    compare_and_swap: bool,
    /// Who appends must be admitted.
    admission: bool,
    /// A device that knows the order removes the leaver before it sends.
    rotates_first: bool,
}

const ALL: Rules = Rules {
    fence: true,
    compare_and_swap: true,
    admission: true,
    rotates_first: true,
};

impl State {
    fn holds(&self, epoch: u8) -> bool {
        self.holds_leaver[usize::from(epoch)]
    }

    /// Whether a device must remove the leaver before it does anything else.
    fn must_rotate(&self, device: usize) -> bool {
        let device = &self.devices[device];
        device.knows && self.holds(device.epoch)
    }
}

impl Rules {
    fn refuses(self, state: &State, by: usize, sent: Submission) -> bool {
        let not_admitted = self.admission && state.ordered && by == LEAVER;
        let behind = self.fence && state.ordered && !sent.knows;
        let is_commit = matches!(sent.content, Content::Commit { .. });
        let other_epoch = sent.epoch != state.epoch && (self.compare_and_swap || !is_commit);
        not_admitted || other_epoch || behind
    }

    fn append(self, state: &mut State, by: usize, sent: Submission) {
        let epoch = usize::from(sent.epoch);
        state.leaver_wrote |= state.ordered && by == LEAVER;
        match sent.content {
            Content::Message => state.fenced[epoch] |= state.ordered && by != LEAVER,
            Content::Commit { removes } => {
                state.closed[epoch] += 1;
                let held = state.holds(state.epoch);
                state.epoch = (state.epoch + 1).min(EPOCHS);
                state.holds_leaver[usize::from(state.epoch)] = held && !removes;
            }
        }
    }
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let device = Device {
            epoch: 0,
            knows: false,
            sent: None,
            says: 1,
            refreshes: 1,
        };
        vec![State {
            devices: std::array::from_fn(|_| device.clone()),
            epoch: 0,
            ordered: false,
            holds_leaver: [true, false, false, false, false],
            closed: [0; EPOCHS as usize + 1],
            fenced: [false; EPOCHS as usize + 1],
            leaver_wrote: false,
            was_behind: false,
            lost_race: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (i, device) in state.devices.iter().enumerate() {
            let idle = device.sent.is_none();
            // The leaver does not keep to any rule.
            let rotates = self.rotates_first && i != LEAVER && state.must_rotate(i);
            if idle && device.says > 0 && !rotates {
                actions.push(Action::Encrypt(i));
            }
            let may_commit = device.epoch < EPOCHS && (rotates || device.refreshes > 0);
            if idle && may_commit {
                actions.push(Action::Commit(i));
            }
            if device.sent.is_some() {
                actions.extend([Action::Decide(i), Action::HandleDisconnected(i)]);
            }
            if state.ordered && !device.knows {
                actions.push(Action::ApplyEntry(i));
            }
            // The key of an epoch opens its records: who is not in the next tree has nothing to follow it with.
            let next = device.epoch + 1;
            if device.epoch < state.epoch && (i != LEAVER || state.holds(next)) {
                actions.push(Action::FollowCommit(i));
            }
        }
        if !state.ordered {
            actions.push(Action::Execute);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Encrypt(i) => {
                let device = &mut state.devices[i];
                device.says -= 1;
                device.sent = Some(Submission {
                    epoch: device.epoch,
                    knows: device.knows,
                    content: Content::Message,
                });
            }
            Action::Commit(i) => {
                let removes = i != LEAVER && state.must_rotate(i);
                let device = &mut state.devices[i];
                device.refreshes = device.refreshes.saturating_sub(u8::from(!removes));
                device.sent = Some(Submission {
                    epoch: device.epoch,
                    knows: device.knows,
                    content: Content::Commit { removes },
                });
            }
            Action::Decide(i) => {
                let sent = state.devices[i].sent.take()?;
                if self.refuses(&state, i, sent) {
                    state.lost_race |= sent.epoch != state.epoch;
                    state.was_behind |= state.ordered && !sent.knows && i != LEAVER;
                    // A definite refusal: what the user wanted is encrypted again.
                    if sent.content == Content::Message && i != LEAVER {
                        state.devices[i].says += 1;
                    }
                } else {
                    self.append(&mut state, i, sent);
                }
            }
            Action::HandleDisconnected(i) => {
                // What the user wanted is kept.
                let sent = state.devices[i].sent.take()?;
                match sent.content {
                    Content::Message => state.devices[i].says += 1,
                    Content::Commit { removes: false } => state.devices[i].refreshes += 1,
                    Content::Commit { removes: true } => {}
                }
            }
            Action::Execute => state.ordered = true,
            Action::ApplyEntry(i) => state.devices[i].knows = true,
            Action::FollowCommit(i) => state.devices[i].epoch += 1,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_MESSAGE_FOR_THE_REMOVED, |_, state: &State| {
                let mut epochs = state.fenced.iter().zip(&state.holds_leaver);
                !epochs.any(|(fenced, held)| *fenced && *held)
            }),
            Property::always(ONE_COMMIT, |_, state: &State| {
                state.closed.iter().all(|commits| *commits <= 1)
            }),
            Property::always(LEAVER_WRITES_NOTHING, |_, state: &State| {
                !state.leaver_wrote
            }),
            Property::sometimes("the group is rotated", |_, state: &State| {
                state.ordered && !state.holds(state.epoch)
            }),
            Property::sometimes("somebody speaks under the fence", |_, state: &State| {
                state.fenced.contains(&true)
            }),
            Property::sometimes("somebody is behind the fence", |_, s: &State| s.was_behind),
            Property::sometimes("a race is lost", |_, s: &State| s.lost_race),
            Property::sometimes("all four epochs pass", |_, s: &State| s.epoch == EPOCHS),
        ]
    }
}

const NO_MESSAGE_FOR_THE_REMOVED: &str = "no message under the fence where the leaver reads";
const ONE_COMMIT: &str = "one commit closes an epoch";
const LEAVER_WRITES_NOTHING: &str = "the leaver writes nothing under the fence";

/// REQ-055, REQ-060, REQ-091: in no order of events does the fence leak, and every kind of event occurs.
#[test]
fn the_fence_holds_in_every_order_of_events() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = ALL.checker().threads(threads).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    assert!(checker.is_done());
    checker.assert_properties();
}

/// Without any one of its rules, the fence leaks, and the model says where.
#[test]
fn every_rule_of_the_fence_is_needed() {
    let without = [
        (
            Rules {
                fence: false,
                ..ALL
            },
            NO_MESSAGE_FOR_THE_REMOVED,
        ),
        (
            Rules {
                rotates_first: false,
                ..ALL
            },
            NO_MESSAGE_FOR_THE_REMOVED,
        ),
        (
            Rules {
                compare_and_swap: false,
                ..ALL
            },
            ONE_COMMIT,
        ),
        (
            Rules {
                admission: false,
                ..ALL
            },
            LEAVER_WRITES_NOTHING,
        ),
    ];
    for (rules, broken) in without {
        let found = HasDiscoveries::AnyOf([broken].into());
        let checker = rules.checker().finish_when(found).spawn_bfs().join();
        assert!(checker.discovery(broken).is_some(), "{rules:?}");
    }
}

/// The names of the model's transitions are those of the functions that they stand for.
#[test]
fn transitions_are_named_after_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, function) in Action::CODE {
        let source = std::fs::read_to_string(root.join(path)).expect(path);
        assert!(
            source.contains(&format!("fn {function}(")),
            "{path} has no {function}"
        );
    }
}
