//! Offboarding one person from hundreds of groups: from the order to the last removal commit.
//!
//! One relay (the binary); the devices that are online are real engines on the client's own driver, each with a SQLCipher
//! store of its own, over QUIC on the loopback, all in this process. Their groups are made through the front door, too:
//! created, filled and joined as always. Most members are not online: they have left a KeyPackage and gone.

mod absent;
mod device;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mortise_protocol::engine::{CommandKind, Event, OrderGroup};
use mortise_protocol::identity::{ClaimLink, GroupId, RosterSeq};
use mortise_protocol::wire::GroupState;
use serde_json::{Value, json};

use super::organisation::{Founded, found};
use super::sample::{Durations, Usage, now_us};
use super::worker::Fixture;
use super::{Goal, Progress, Report};
use crate::demo::Binaries;
use crate::demo::relay::RelayProcess;

use device::Device;
use plan::Plan;

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Groups that the leaver is in.
    pub groups: usize,
    /// Members of each, the leaver among them.
    pub members: usize,
    /// Users of the organisation, each with one device.
    pub users: usize,
    /// Devices that are online and stay.
    pub online: usize,
    /// The MLS ciphersuite.
    pub suite: u16,
    /// What decides who is in which group.
    pub seed: u64,
    /// How long the groups have to be rotated.
    pub limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            groups: 500,
            members: 20,
            users: 60,
            online: 10,
            suite: 0x004F,
            seed: 1,
            limit: Duration::from_secs(120),
        }
    }
}

/// The owner's device: it gives the order.
const OWNER: usize = 0;
/// Groups that are created at once by each device.
const AT_ONCE: usize = 4;
/// How often the devices are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long making the groups may take.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// What the relay logs: nothing that costs time.
const LOG_FILTER: &str = "warn";

/// Issue 5's bounds, ms.
const FENCE_MS: f64 = 50.0;
const ROTATED_MS: f64 = 10_000.0;

/// Measures it.
///
/// # Errors
/// When a part fails; what was measured before is in the report.
pub fn measure(options: &Options, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    let binaries = Binaries::beside_this_program()?;
    let dir = tempfile::Builder::new()
        .prefix("mortise-bench-")
        .tempdir()
        .context("make a directory")?;
    notes(options, report);
    let relay = RelayProcess::start_logging(&binaries.relay, dir.path(), LOG_FILTER)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start a runtime")?;
    runtime.block_on(async {
        let mut stage = Stage::set(options, &relay, dir.path(), progress).await?;
        let outcome = stage.run(report).await;
        stage.close().await;
        outcome
    })?;
    drop(runtime);
    relay.stop()?;
    Ok(())
}

fn notes(options: &Options, report: &mut Report) {
    let Options {
        groups,
        members,
        users,
        online,
        suite,
        seed,
        ..
    } = options;
    report.note(format!(
        "{groups} groups of {members}, {users} users with a device each, the leaver in every group; {online} devices stay \
         online, and the leaver's is, until it is cut off; suite {suite:#06x}; seed {seed}"
    ));
    report.machine();
    report.note(
        "everything on this machine: the relay a process, the devices that are online in another, over QUIC on the loopback; \
         each has a SQLCipher file of its own with synchronous=FULL, opened with a raw key",
    );
    report.note(
        "short cuts: devices were admitted by entries that the bench signed itself; who is not online has left one \
         KeyPackage of last resort and never takes its Welcomes. Trees are as one big Add leaves them: nothing is warmed",
    );
    report.note(if cfg!(debug_assertions) {
        "built with the dev profile; by ./x bench with Mortise's own crates at opt-level 3 like the rest, without link-time optimisation"
    } else {
        "built with the release profile"
    });
}

/// Everybody in place.
struct Stage<'a> {
    options: &'a Options,
    progress: &'a Progress,
    relay_pid: u32,
    fixture: Fixture,
    plan: Plan,
    /// Those who stay, then the leaver.
    devices: Vec<Device>,
    /// The group of each number.
    groups: Vec<GroupId>,
}

impl<'a> Stage<'a> {
    async fn set(
        options: &'a Options,
        relay: &RelayProcess,
        dir: &Path,
        progress: &'a Progress,
    ) -> anyhow::Result<Self> {
        let plan = Plan::draw(options);
        let claim = ClaimLink::parse(&relay.claim_link)?;
        let Founded {
            org,
            directory,
            devices,
            head,
        } = found(&claim, options.suite, options.users, progress).await?;
        let fixture = Fixture {
            org,
            relay: claim.relay.clone(),
            relay_key: claim.relay_key,
            directory,
            devices,
        };
        for number in options.online..plan.leaver {
            absent::publish(&fixture, number, options.suite, head.seq).await?;
        }
        let mut devices = Vec::new();
        for number in (0..options.online).chain([plan.leaver]) {
            devices.push(Device::start(number, &fixture, dir)?);
        }
        for device in &devices {
            device.settle().await?;
        }
        let mut stage = Self {
            options,
            progress,
            relay_pid: relay.pid(),
            fixture,
            plan,
            devices,
            groups: Vec::new(),
        };
        stage.fill().await?;
        Ok(stage)
    }

    /// Where a device of the plan is in `devices`.
    fn place(&self, number: usize) -> usize {
        number.min(self.options.online)
    }

    /// Creates all groups, and waits until everybody who is online is in theirs.
    async fn fill(&mut self) -> anyhow::Result<()> {
        self.progress.say("making the groups");
        let turns: Vec<Vec<usize>> = (0..self.devices.len())
            .map(|place| {
                let all = self.plan.groups.iter().enumerate();
                let own = all.filter(|(_, members)| self.place(members[0]) == place);
                own.map(|(group, _)| group).collect()
            })
            .collect();
        let makers = turns.iter().enumerate().flat_map(|(place, turns)| {
            let lane = move |lane| turns.iter().skip(lane).step_by(AT_ONCE).copied();
            (0..AT_ONCE).map(move |nth| (place, lane(nth)))
        });
        let made = futures_in_order(makers.map(|(place, turns)| self.make(place, turns.collect())));
        let made: BTreeMap<usize, GroupId> = made.await?.into_iter().flatten().collect();
        self.groups = made.into_values().collect();
        self.progress.say("waiting until everybody is in");
        let until = Instant::now() + PATIENCE;
        for (place, device) in self.devices.iter().enumerate() {
            let number = if place == self.options.online {
                self.plan.leaver
            } else {
                place
            };
            let wanted = self.plan.groups_of(number).len();
            while device.seen().joined.len() < wanted {
                self.progress.check()?;
                device.check()?;
                anyhow::ensure!(Instant::now() < until, "not everybody has joined");
                look_again().await;
            }
        }
        for device in &self.devices {
            device.settle().await?;
            device.forget();
        }
        Ok(())
    }

    async fn make(&self, place: usize, turns: Vec<usize>) -> anyhow::Result<Vec<(usize, GroupId)>> {
        let mut made = Vec::new();
        for number in turns {
            let members = &self.plan.groups[number];
            let users = members.iter().skip(1);
            let users = users.map(|m| self.fixture.devices[*m].user).collect();
            let group = self.devices[place]
                .create(format!("group {number}"), users)
                .await?;
            made.push((number, group));
        }
        Ok(made)
    }

    async fn close(&self) {
        for device in &self.devices {
            device.close().await;
        }
    }

    async fn traffic(&self) -> anyhow::Result<(u64, u64)> {
        let mut all = (0, 0);
        for device in &self.devices[..self.options.online] {
            let (sent, received) = device.traffic().await?;
            all = (all.0 + sent, all.1 + received);
        }
        Ok(all)
    }

    async fn run(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let us = std::process::id();
        let before = (
            Usage::of(self.relay_pid)?,
            Usage::of(us)?,
            self.traffic().await?,
        );
        let user = self.fixture.devices[self.plan.leaver].user;
        self.progress.say("the owner orders the removal");
        let asked_us = now_us();
        let (order, sent_us, ordered_us) = self.devices[OWNER]
            .ask(CommandKind::RemoveUser { user }, |event| match event {
                Event::Ordered { order, .. } => Some(order),
                _ => None,
            })
            .await?;
        self.until_followed().await?;
        let followed_us = now_us();
        self.progress.say("everybody is in the new epochs");
        let status = self.until_decided(order).await?;
        let after = (
            Usage::of(self.relay_pid)?,
            Usage::of(us)?,
            self.traffic().await?,
        );
        let ms = |us: u64| (us.saturating_sub(asked_us)) / 1_000;
        let leaver = &self.devices[self.options.online];
        let cut_us = {
            let seen = leaver.seen();
            let dropped = seen.drops.iter().map(|(at, _)| *at);
            dropped.chain(seen.expelled_us).find(|at| *at >= asked_us)
        };
        // The relay closes the leaver's connections, and answers, only once the fence is durable. The owner's device may be in
        // the middle of its own rotations when the answer comes: whichever is seen first is the measure.
        let in_force_us = cut_us.map_or(ordered_us, |at| at.min(ordered_us));
        let fence_ms = exact_ms(in_force_us.saturating_sub(sent_us));
        report.row(
            "order",
            vec![
                ("order_made_and_stored_ms", json!(ms(sent_us))),
                ("sent_to_fence_in_force_ms", json!(fence_ms)),
                (
                    "sent_to_acknowledgement_handled_ms",
                    json!(exact_ms(ordered_us.saturating_sub(sent_us))),
                ),
                ("leaver_cut_ms", json!(cut_us.map(ms))),
            ],
        );
        let rotated = Rotated::of(&status, asked_us);
        report.row("rotation", rotated.row(ms(followed_us)));
        report.row(
            "cost",
            vec![
                ("relay_cpu_ms", json!(after.0.cpu_ms - before.0.cpu_ms)),
                ("devices_cpu_ms", json!(after.1.cpu_ms - before.1.cpu_ms)),
                ("devices_sent_bytes", json!(after.2.0 - before.2.0)),
                ("devices_received_bytes", json!(after.2.1 - before.2.1)),
            ],
        );
        self.judge(report, &status, &rotated, fence_ms)
    }

    fn judge(
        &self,
        report: &mut Report,
        status: &[OrderGroup],
        rotated: &Rotated,
        fence_ms: f64,
    ) -> anyhow::Result<()> {
        let number_of: BTreeMap<GroupId, usize> = self.groups.iter().copied().zip(0..).collect();
        let sealed: BTreeSet<usize> = status
            .iter()
            .filter(|row| row.state == GroupState::Sealed)
            .filter_map(|row| number_of.get(&row.group).copied())
            .collect();
        let all = 0..self.plan.groups.len();
        let expected: BTreeSet<usize> = all.filter(|g| !self.plan.has_online(*g)).collect();
        let names: Vec<String> = sealed.iter().map(|g| format!("group {g}")).collect();
        report.note(format!(
            "sealed, because nobody of them was online: {}",
            if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            }
        ));
        report.goal(
            "fence in force after the command was sent",
            fence_ms,
            Goal::AtMost(FENCE_MS),
            "ms",
        );
        let last = rotated.last_ms.unwrap_or(f64::NAN);
        let name = "last removal commit acknowledged";
        report.goal(name, last, Goal::AtMost(ROTATED_MS), "ms");
        let wrong = sealed.symmetric_difference(&expected).count();
        let undecided = self.plan.groups.len() - expected.len() - rotated.count;
        let wrong = f64::from(u32::try_from(wrong + undecided).unwrap_or(u32::MAX));
        report.goal(
            "groups not as they should be",
            wrong,
            Goal::AtMost(0.0),
            "groups",
        );
        for device in &self.devices[..self.options.online] {
            device.check()?;
            if let Some((_, why)) = device.seen().drops.first() {
                report.note(format!("a connection was lost on the way: {why}"));
            }
        }
        Ok(())
    }

    /// Waits until every device that stays has followed the removal in each of its groups.
    async fn until_followed(&self) -> anyhow::Result<()> {
        let until = Instant::now() + self.options.limit;
        let wanted: usize = (0..self.options.online)
            .map(|device| self.plan.groups_of(device).len())
            .sum();
        loop {
            self.progress.check()?;
            let mut have = 0;
            for device in &self.devices[..self.options.online] {
                device.check()?;
                have += device.seen().first_line.len();
            }
            if have >= wanted {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("{have} of {wanted} removals were followed when the time was up");
            }
            look_again().await;
        }
    }

    /// Asks the relay how the groups stand until all that can be are rotated.
    async fn until_decided(&self, order: RosterSeq) -> anyhow::Result<Vec<OrderGroup>> {
        let until = Instant::now() + self.options.limit;
        let all = 0..self.plan.groups.len();
        let wanted = all.filter(|g| self.plan.has_online(*g)).count();
        loop {
            self.progress.check()?;
            let kind = CommandKind::OrderStatus { order };
            let (groups, _, _) = self.devices[OWNER]
                .ask(kind, |event| match event {
                    Event::OrderStatus { groups, .. } => Some(groups),
                    _ => None,
                })
                .await?;
            let rotated = groups.iter().filter(|g| g.rotated_at_ms > 0).count();
            if rotated >= wanted || Instant::now() >= until {
                return Ok(groups);
            }
            look_again().await;
        }
    }
}

/// Until the devices are looked at again.
async fn look_again() {
    let first = tokio::time::Instant::now() + LOOK;
    tokio::time::interval_at(first, LOOK).tick().await;
}

/// When the groups were rotated.
struct Rotated {
    count: usize,
    /// From the command until the relay had the commit.
    times: Durations,
    last_ms: Option<f64>,
    confirmed: Durations,
}

impl Rotated {
    fn of(status: &[OrderGroup], asked_us: u64) -> Self {
        // The relay's clock is this machine's, and shows whole milliseconds.
        let since = |at_ms: u64| (at_ms * 1_000 + 999).saturating_sub(asked_us);
        let times = status.iter().filter(|g| g.rotated_at_ms > 0);
        let times: Vec<u64> = times.map(|g| since(g.rotated_at_ms)).collect();
        let confirmed = status.iter().filter(|g| g.confirmed_at_ms > 0);
        let confirmed = Durations::of(confirmed.map(|g| since(g.confirmed_at_ms)));
        Self {
            count: times.len(),
            last_ms: times.iter().max().map(|us| exact_ms(*us)),
            times: Durations::of(times),
            confirmed,
        }
    }

    fn row(&self, followed_ms: u64) -> Vec<(&'static str, Value)> {
        vec![
            ("groups_rotated", json!(self.count)),
            ("acknowledged_median_ms", self.times.median_ms()),
            ("acknowledged_last_ms", self.times.worst_ms()),
            ("followed_by_everybody_online_ms", json!(followed_ms)),
            ("confirmed_by_a_second_user", json!(self.confirmed.count())),
        ]
    }
}

#[allow(clippy::cast_precision_loss)]
fn exact_ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

/// Runs all of them at once, and gives their outcomes in order; the first failure is all that is left.
async fn futures_in_order<T>(
    all: impl Iterator<Item = impl Future<Output = anyhow::Result<T>>>,
) -> anyhow::Result<Vec<T>> {
    let mut pending: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        let mut waits = false;
        for (future, done) in pending.iter_mut().zip(&mut done) {
            if done.is_some() {
                continue;
            }
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(Ok(value)) => *done = Some(value),
                std::task::Poll::Ready(Err(error)) => return std::task::Poll::Ready(Err(error)),
                std::task::Poll::Pending => waits = true,
            }
        }
        if waits {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(Ok(done.iter_mut().filter_map(Option::take).collect()))
    })
    .await
}
