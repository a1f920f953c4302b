//! The departed member's handbook: every attack that somebody who was removed could try, alone, with the relay's
//! operator or with an accomplice among the members; and what a malicious member could try. Each is really mounted, with
//! saved state, keys and sockets, against the product's own code.
//!
//! Every attack has a control: the same code where the defence does not apply (no order was given, or the relay is
//! honest) must get what it is after, or the attack proves nothing.

mod block;
mod door;
mod insiders;
mod liars;
mod outside;
pub mod quic;
mod read;
mod rejoin;
mod review;
mod stage;
mod suite;
mod table;
mod write;

pub use stage::Stage;
pub use suite::{LARGE, Options, Row, SIZES, Totals, run, table};

/// On whose side an attack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adversary {
    /// Somebody who was removed.
    Departed,
    /// The same with the relay's operator.
    WithRelay,
    /// The same with a member who is still in.
    WithMember,
    /// A member who is still in.
    Insider,
}

/// Where it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// In the simulated world, where the relay's operator can do anything.
    Simulator,
    /// There, and by `./x demo` over QUIC with the released programs.
    SimulatorAndDemo,
}

/// What came of an attack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the attacker got, if anything.
    pub gained: Option<String>,
    /// Alarms that honest devices raised.
    pub alarms: usize,
    /// How long what the attack delays took, world's time, ms.
    pub worst_ms: u64,
    /// What those who stay were told in alarms; for people.
    pub told: Vec<String>,
}

impl Outcome {
    fn of(gained: Option<String>) -> Self {
        Self {
            gained,
            ..Self::default()
        }
    }
}

/// An attack of the handbook.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Its number there; insiders' begin with I.
    pub number: &'static str,
    /// What is tried.
    pub name: &'static str,
    /// By whom.
    pub adversary: Adversary,
    /// Where.
    pub ground: Ground,
    /// Marked (A): what cannot be prevented must be noticed.
    pub asks_alarm: bool,
    /// How many users the group has at least.
    pub least: usize,
    /// How it is mounted; and, where the stage's defence is switched off, its control.
    pub mount: fn(&mut Stage) -> Outcome,
}

/// An attack on an organisation that honours its order.
const fn attack(
    number: &'static str,
    name: &'static str,
    adversary: Adversary,
    mount: fn(&mut Stage) -> Outcome,
) -> Attack {
    Attack {
        number,
        name,
        adversary,
        ground: Ground::Simulator,
        asks_alarm: false,
        least: 2,
        mount,
    }
}

impl Attack {
    /// Needs somebody honest besides an accomplice, or a second honest member.
    const fn among_three(self) -> Self {
        Self { least: 3, ..self }
    }

    /// Marked (A).
    const fn alarms(self) -> Self {
        Self {
            asks_alarm: true,
            ..self
        }
    }

    /// Mounted by the demo, too.
    const fn over_quic(self) -> Self {
        Self {
            ground: Ground::SimulatorAndDemo,
            ..self
        }
    }

    /// Whether an outcome is one that the handbook allows.
    #[must_use]
    pub fn is_defeated_by(&self, outcome: &Outcome) -> bool {
        match self.asks_alarm {
            true => outcome.alarms > 0,
            false => outcome.gained.is_none(),
        }
    }
}
