//! Our relay: the real binary, real QUIC and TLS, devices that are authenticated and prove access.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mortise_protocol::identity::{ClaimLink, SigningKey};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::member::{Group, Job, Member};
use super::plan::{Plan, Round, Seen};
use super::system::System;
use crate::bench::Progress;
use crate::bench::organisation::{Founded, found};
use crate::bench::sample::Usage;
use crate::demo::Binaries;
use crate::demo::relay::RelayProcess;

/// The suite of the organisation; the relay does not care.
const SUITE: u16 = 0x004F;
/// How long one round, or connecting everybody, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections that are made at a time.
pub(super) const DIALS: usize = 16;

/// The processes that a relay is made of.
pub(super) trait Processes {
    /// Their ids.
    fn pids(&self) -> Vec<u32>;
}

impl Processes for RelayProcess {
    fn pids(&self) -> Vec<u32> {
        vec![self.pid()]
    }
}

/// A relay with an organisation.
pub(super) struct Ours<R = RelayProcess> {
    pub(super) relay: R,
    /// The ways in: one for each node, and devices take them in turn.
    claims: Vec<Arc<ClaimLink>>,
    founded: Founded,
    runtime: Runtime,
    members: Vec<Member>,
    groups: Vec<Arc<Group>>,
}

impl Ours {
    /// Starts the relay below `base` and founds an organisation of `devices`.
    ///
    /// # Errors
    /// When the relay does not start, or refuses an entry.
    pub(super) fn start(
        base: &Path,
        devices: usize,
        log_filter: &'static str,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let binaries = Binaries::beside_this_program()?;
        let relay = RelayProcess::start_logging(&binaries.relay, base, log_filter)?;
        let claim = ClaimLink::parse(&relay.claim_link)?;
        Self::over(relay, vec![claim], devices, progress)
    }
}

impl<R: Processes> Ours<R> {
    /// Founds an organisation of `devices` on a relay that runs; `claims` lead to its nodes.
    ///
    /// # Errors
    /// When the relay refuses an entry.
    pub(super) fn over(
        relay: R,
        claims: Vec<ClaimLink>,
        devices: usize,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let first = claims.first().context("a relay without a node")?;
        let founded = runtime.block_on(found(first, SUITE, devices, progress))?;
        Ok(Self {
            relay,
            claims: claims.into_iter().map(Arc::new).collect(),
            founded,
            runtime,
            members: Vec::new(),
            groups: Vec::new(),
        })
    }

    /// Connects so many devices, over and over the same ones when there are fewer; how long it took.
    ///
    /// # Errors
    /// When a connection fails.
    pub(super) fn connect(&mut self, count: usize) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let keys = self.transport_keys();
        let (claims, org) = (self.claims.clone(), self.founded.org);
        let first = self.members.len();
        let connected: anyhow::Result<Vec<Member>> = self.runtime.block_on(async {
            let mut members = Vec::with_capacity(count);
            let mut dialing = std::collections::VecDeque::new();
            for number in first..first + count {
                let claim = Arc::clone(&claims[number % claims.len()]);
                let key = Arc::clone(&keys[number % keys.len()]);
                let dial = async move { Member::connect(&claim, org, key, number as u64).await };
                dialing.push_back(tokio::spawn(dial));
                if dialing.len() >= DIALS
                    && let Some(oldest) = dialing.pop_front()
                {
                    members.push(oldest.await??);
                }
            }
            for dial in dialing {
                members.push(dial.await??);
            }
            Ok(members)
        });
        self.members.extend(connected?);
        Ok(start.elapsed())
    }

    /// Makes the plan's groups, and lets their members read them.
    ///
    /// # Errors
    /// When the relay refuses.
    pub(super) fn join(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let mut rng = ChaCha12Rng::from_os_rng();
        for members in &plan.groups {
            let mut id = [0; 32];
            rng.fill_bytes(&mut id);
            let group = Arc::new(Group::new(id, self.founded.head));
            self.groups.push(Arc::clone(&group));
            let creator = members.first().context("a group of nobody")?;
            let creator = self.members.get_mut(*creator).context("not connected")?;
            self.runtime.block_on(creator.create(&group))?;
        }
        let groups = self.groups.clone();
        self.each(|number, mut member| {
            let groups: Vec<_> = plan
                .groups_of(number)
                .iter()
                .map(|g| groups[*g].clone())
                .collect();
            async move {
                for group in groups {
                    member.subscribe(group).await?;
                }
                Ok((member, ()))
            }
        })?;
        Ok(())
    }

    /// Everybody anew, in new groups: for a relay that was started again.
    ///
    /// # Errors
    /// As [`Ours::connect`] and [`Ours::join`].
    pub(super) fn reconnect(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.members.clear();
        self.groups.clear();
        self.connect(plan.connections())?;
        self.join(plan)
    }

    /// The first so many devices on new connections, one after the other; they read nothing yet.
    ///
    /// # Errors
    /// As [`Ours::connect`].
    pub(super) fn dial_again(&mut self, count: usize) -> anyhow::Result<()> {
        self.members.clear();
        self.connect(count).map(drop)
    }

    /// The first member reads a group up to this position; how long that took.
    ///
    /// # Errors
    /// When a record is missing.
    pub(super) fn pull(&mut self, group: usize, upto: u64) -> anyhow::Result<Duration> {
        let group = self.groups.get(group).context("no such group")?;
        let member = self.members.first_mut().context("nobody")?;
        let start = Instant::now();
        let pulled = async {
            let pulling = tokio::time::timeout(PATIENCE, member.pull(group, upto));
            pulling.await.context("the log takes too long")?
        };
        self.runtime.block_on(pulled)?;
        Ok(start.elapsed())
    }

    /// Everybody of the plan at once, on the groups that are there, each where it stood.
    ///
    /// # Errors
    /// As [`Ours::connect`].
    pub(super) fn come_back(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let before = std::mem::take(&mut self.members);
        let keys: Vec<_> = self.transport_keys();
        let (claims, org) = (self.claims.clone(), self.founded.org);
        let places: Vec<_> = before.iter().map(Member::places).collect();
        drop(before);
        let back: anyhow::Result<Vec<Member>> = self.runtime.block_on(async {
            let mut dialing = Vec::new();
            for (number, places) in places.into_iter().enumerate().take(plan.connections()) {
                let claim = Arc::clone(&claims[number % claims.len()]);
                let key = Arc::clone(&keys[number % keys.len()]);
                dialing.push(tokio::spawn(async move {
                    let mut member = Member::connect(&claim, org, key, number as u64).await?;
                    for (group, last) in places {
                        member.subscribe_after(group, last).await?;
                    }
                    anyhow::Ok(member)
                }));
            }
            let mut members = Vec::with_capacity(dialing.len());
            for dial in dialing {
                members.push(dial.await??);
            }
            Ok(members)
        });
        self.members = back?;
        Ok(())
    }

    fn transport_keys(&self) -> Vec<Arc<SigningKey>> {
        let keys = self.founded.devices.iter();
        keys.filter_map(|device| device.keys.as_ref())
            .map(|seeds| Arc::new(SigningKey::from_seed(&seeds[1])))
            .collect()
    }

    /// Lets every member do something at once, and waits for all.
    fn each<T, F>(&mut self, what: impl Fn(usize, Member) -> F) -> anyhow::Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<(Member, T)>> + Send + 'static,
    {
        let members = std::mem::take(&mut self.members);
        let mut done: Vec<_> = self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (number, member) in members.into_iter().enumerate() {
                let work = what(number, member);
                tasks.spawn(async move { anyhow::Ok((number, work.await?)) });
            }
            let mut done = Vec::new();
            let all = async {
                while let Some(one) = tasks.join_next().await {
                    done.push(one??);
                }
                anyhow::Ok(())
            };
            let all = tokio::time::timeout(PATIENCE, all).await;
            all.context("a round takes too long")??;
            anyhow::Ok(done)
        })?;
        done.sort_by_key(|(number, _)| *number);
        let (members, results) = done.into_iter().map(|(_, both)| both).unzip();
        self.members = members;
        Ok(results)
    }

    /// The relay's processes.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of_all(self.relay.pids())
    }

    /// Keeps every connection open for so long, without a word.
    pub(super) fn stay_idle(&mut self, time: Duration) -> anyhow::Result<()> {
        self.each(|_, mut member| async move {
            let _ = tokio::time::timeout(time, member.wait_closed()).await;
            Ok((member, ()))
        })?;
        Ok(())
    }
}

impl<R: Processes> System for Ours<R> {
    fn name(&self) -> &'static str {
        "mortise"
    }

    fn round(&mut self, plan: &Plan) -> anyhow::Result<Round> {
        let groups = self.groups.clone();
        let before = self.usage()?.cpu_ms;
        let start = Instant::now();
        let seen: Vec<Seen> = self.each(|number, mut member| {
            let to = plan
                .sends_to(number)
                .iter()
                .map(|g| groups[*g].clone())
                .collect();
            let job = Job {
                to,
                in_flight: plan.in_flight,
                messages: plan.messages,
                expected: plan.expected_at(number),
            };
            async move {
                let seen = member.work(&job).await?;
                Ok((member, seen))
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_us = (self.usage()?.cpu_ms - before) * 1_000;
        Ok(Round::of(seen, seconds, cpu_us))
    }
}
