//! `./x crash`: real processes that die at their storage calls, lose what they had not synced, find no room or cannot sync,
//! while people talk; nothing that was acknowledged may be lost, doubled or moved, and no group torn (REQ-070, REQ-072, REQ-089, REQ-090).
//!
//! A seed decides who dies of what at which call. What is written between two calls depends on the machine's timing.

mod armed;
mod fate;
mod power;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::demo::Binaries;
use crate::stage::{Stage, TEAM};

use armed::Armed;
pub use fate::{Fate, Sending};
pub use power::{Loss, lose};

/// Storage calls after a start among which the one is that fails.
const CALLS: u64 = 60;
/// How long a cycle waits for the fault.
const FAULT: Duration = Duration::from_secs(3);
/// Cycles between two looks at everything.
const LOOK: u64 = 10;

/// Whose storage fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The relay.
    Relay,
    /// Somebody's device, which listens.
    Client,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL before a storage call.
    Kill,
    /// The same, and the machine loses what was not synced.
    Power(Loss),
    /// Syncs fail from a call on.
    Sync,
    /// Writes find no room for a while.
    Full,
    /// SIGKILL at some moment, wherever it is.
    Anywhere,
}

impl Fault {
    /// What it is called in the output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "killed at a storage call",
            Self::Power(Loss::All) => "power lost, all unsynced writes gone",
            Self::Power(Loss::Tail) => "power lost, the last unsynced writes gone",
            Self::Power(Loss::Some) => "power lost, some unsynced writes gone",
            Self::Power(Loss::Torn) => "power lost, unsynced writes torn",
            Self::Sync => "sync failed",
            Self::Full => "no room",
            Self::Anywhere => "killed anywhere",
        }
    }

    /// As the preloaded library knows it.
    fn kind(self) -> &'static str {
        match self {
            Self::Kill | Self::Power(_) => "kill",
            Self::Sync => "sync",
            Self::Full => "full",
            Self::Anywhere => "none",
        }
    }
}

/// One death.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    /// Its number, from 1.
    pub number: u64,
    /// Who died.
    pub victim: Victim,
    /// Of what.
    pub fault: Fault,
    /// At which storage call after its start, counted from 0.
    pub call: u64,
    /// Whether it ended by itself, or had to be killed after what it had to do was done.
    pub ended: bool,
    /// Unsynced writes that were lost.
    pub lost_writes: usize,
}

/// What all cycles came to.
#[derive(Debug, Default)]
pub struct Totals {
    /// How often each happened.
    pub faults: BTreeMap<(Victim, &'static str), u64>,
    /// Cycles in which the fault was met.
    pub met: u64,
    /// Unsynced writes that were lost.
    pub lost_writes: usize,
    /// Texts that were acknowledged, queued, refused, of unknown fate.
    pub texts: [usize; 4],
    /// How often everything was compared.
    pub looks: u64,
}

/// Whether the machine's disk keeps its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskWord {
    /// What is synced stays.
    Honest,
    /// The control: only power is lost, and what was synced goes with it. This must be found.
    Lies,
}

/// Lets them die; only this victim, if one is given.
///
/// # Errors
/// What was lost, doubled, moved or torn; or what does not start again.
pub fn run(
    cycles: u64,
    seed: u64,
    disk: DiskWord,
    only: Option<Victim>,
    mut report: impl FnMut(&Cycle) -> anyhow::Result<()>,
) -> anyhow::Result<Totals> {
    let mut scene = Scene::set(seed, disk, only)?;
    let mut totals = Totals::default();
    for number in 1..=cycles {
        let cycle = scene
            .cycle(number)
            .with_context(|| format!("cycle {number} of seed {seed}"))?;
        *totals
            .faults
            .entry((cycle.victim, cycle.fault.name()))
            .or_default() += 1;
        totals.met += u64::from(cycle.ended);
        totals.lost_writes += cycle.lost_writes;
        report(&cycle)?;
        if number % LOOK == 0 || number == cycles {
            scene
                .look(number)
                .with_context(|| format!("after cycle {number} of seed {seed}"))?;
            totals.looks += 1;
        }
    }
    let fate = &scene.fate;
    let [queued, refused, unknown] = [&fate.queued, &fate.refused, &fate.unknown].map(Vec::len);
    totals.texts = [fate.acknowledged.len(), queued, refused, unknown];
    Ok(totals)
}

/// Three people in a group; the last is whose device dies.
struct Scene {
    stage: Stage,
    relay: Armed,
    client: Armed,
    fate: Fate,
    rng: ChaCha12Rng,
    disk: DiskWord,
    only: Option<Victim>,
}

const NAMES: [&str; 3] = ["Ann", "Bob", "Cy"];
const MORTAL: usize = 2;

impl Scene {
    fn set(seed: u64, disk: DiskWord, only: Option<Victim>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("mortise-crash-")
            .tempdir()
            .context("make a directory")?;
        let real = Binaries::beside_this_program()?;
        let relay = Armed::new(dir.path(), "armed-relay", &real.relay, disk)?;
        let client = Armed::new(dir.path(), "armed-client", &real.client, disk)?;
        let armed = Binaries {
            relay: relay.program.clone(),
            client: client.program.clone(),
        };
        let mut stage = Stage::empty_of(armed, dir)?.peopled(&NAMES)?;
        for person in &mut stage.people {
            person.come_online()?;
        }
        Ok(Self {
            stage,
            relay,
            client,
            fate: Fate::default(),
            rng: ChaCha12Rng::seed_from_u64(seed),
            disk,
            only,
        })
    }

    fn cycle(&mut self, number: u64) -> anyhow::Result<Cycle> {
        let victim = match self.rng.random_range(0..3) {
            0 if self.disk == DiskWord::Honest => Victim::Client,
            _ => Victim::Relay,
        };
        let victim = self.only.unwrap_or(victim);
        let fault = match self.rng.random_range(0..10) {
            _ if self.disk == DiskWord::Lies => Fault::Power(Loss::All),
            0..=2 => Fault::Kill,
            3 => Fault::Power(Loss::All),
            4 => Fault::Power(Loss::Tail),
            5 => Fault::Power(Loss::Some),
            6 => Fault::Power(Loss::Torn),
            7 => Fault::Sync,
            8 => Fault::Full,
            _ => Fault::Anywhere,
        };
        let call = self.rng.random_range(0..CALLS);
        self.restart(victim, fault, call)?;
        // With the machine everything on it dies: nobody there sends by a process of its own.
        let is_dark = victim == Victim::Client && matches!(fault, Fault::Power(_));
        let sent = self.send(number, is_dark)?;
        if fault == Fault::Anywhere {
            let at = self.rng.random_range(0..sent.len());
            // The victim may be why it is not.
            let _ = sent[at].acknowledged();
        }
        let ended = fault != Fault::Anywhere && self.ends(victim);
        let by_mortal = format!("by {}", NAMES[MORTAL]);
        let has_its_files =
            |sending: &Sending| victim == Victim::Client && sending.text.ends_with(&by_mortal);
        let (own, others): (Vec<_>, Vec<_>) = sent.into_iter().partition(has_its_files);
        // A device does not start while a command of its user has its files.
        for sending in own {
            self.fate.note(sending)?;
        }
        let lost_writes = self.end(victim, fault)?;
        for sending in others {
            self.fate.note(sending)?;
        }
        Ok(Cycle {
            number,
            victim,
            fault,
            call,
            ended,
            lost_writes,
        })
    }

    /// Starts the victim again with its fault before it; it may die of that at once.
    fn restart(&mut self, victim: Victim, fault: Fault, call: u64) -> anyhow::Result<()> {
        match victim {
            Victim::Relay => {
                self.stage.crash_relay()?;
                let data = self.stage.dir().join("relay");
                self.relay.arm(&data, fault.kind(), call)?;
                let _ = self.stage.start_relay();
                self.relay.disarm()
            }
            Victim::Client => {
                let person = &mut self.stage.people[MORTAL];
                person.go_offline();
                self.client.arm(&person.profile(), fault.kind(), call)?;
                let _ = person.come_online();
                self.client.disarm()
            }
        }
    }

    /// Everybody says something; sometimes somebody changes the group meanwhile.
    fn send(&mut self, number: u64, is_dark: bool) -> anyhow::Result<Vec<Sending>> {
        let mut sent = Vec::new();
        let who = if is_dark { MORTAL } else { NAMES.len() };
        for n in 0..2 {
            for person in &self.stage.people[..who] {
                let text = format!("{number}.{n} by {}", person.name);
                sent.push(Sending::start(person, text)?);
            }
        }
        if self.rng.random_range(0..4) == 0 {
            let topic = format!("topic {number}");
            let ann = &self.stage.people[0];
            // A commit: it is carried out now, or queued, or its process has died.
            drop(
                ann.start(&["group", "topic", TEAM, &topic])?
                    .finish(FAULT * 10)?,
            );
        }
        Ok(sent)
    }

    fn ends(&self, victim: Victim) -> bool {
        match victim {
            Victim::Relay => self.stage.relay().map_or(true, |relay| relay.ends(FAULT)),
            Victim::Client => {
                let person = &self.stage.people[MORTAL];
                person.device().map_or(true, |device| device.ends(FAULT))
            }
        }
    }

    /// Makes sure that it is dead, lets the machine lose what it loses, and starts it on what is left.
    fn end(&mut self, victim: Victim, fault: Fault) -> anyhow::Result<usize> {
        match victim {
            Victim::Relay => {
                if self.stage.relay().is_ok() {
                    self.stage.crash_relay()?;
                }
                let lost = self.relay.lose(fault, &mut self.rng)?;
                self.stage.start_relay().context("the relay starts again")?;
                Ok(lost)
            }
            Victim::Client => {
                let person = &mut self.stage.people[MORTAL];
                person.go_offline();
                let lost = self.client.lose(fault, &mut self.rng)?;
                person.come_online().context("the device starts again")?;
                Ok(lost)
            }
        }
    }

    /// Everybody says one thing more, and everybody's log is compared.
    fn look(&mut self, number: u64) -> anyhow::Result<()> {
        for person in &self.stage.people {
            let text = format!("after {number}, by {}", person.name);
            // What is queued goes first; behind it, this may be queued, too.
            self.fate.note(Sending::start(person, text.clone())?)?;
            person.hears(&text, |line| {
                line.is("message") && line.value["text"] == text.as_str()
            })?;
        }
        ensure!(self.fate.texts() > 0, "nobody has said anything");
        self.fate.check(&self.stage.people)
    }
}
