//! Seeded scripts: what devices of both stacks do to each other's groups, one step after the other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use mortise_protocol::group::PolicyChange;
use mortise_protocol::identity::{GroupId, UserId};
use mortise_protocol::roster::Role;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use serde::Serialize;

use super::actor::Manner;
use super::crypto::OneSuite;
use super::group::{Standing, Wish};
use super::view::GroupLook;
use super::world::World;

/// Tries, for each step that is wanted.
const TRIES: usize = 4;
/// Devices of an organisation, those who are gone included.
const MOST_DEVICES: usize = 16;
/// Groups of an organisation.
const MOST_GROUPS: usize = 5;
/// How long a patient device lets others commit, ms.
const PATIENT_MS: u64 = 5_000;

/// What is asked of a script.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything that is drawn is drawn from it.
    pub seed: u64,
    /// The MLS ciphersuite.
    pub suite: u16,
    /// Steps that take effect.
    pub steps: usize,
}

/// What came of a script.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Steps that took effect, by kind.
    pub steps: BTreeMap<&'static str, u64>,
    /// Steps that the rules forbade or somebody else made pointless.
    pub refused: u64,
    /// Epochs, of all groups, that devices of both stacks were in.
    pub epochs: u64,
    /// Of these, epochs in which devices of both stacks showed the authenticator; all were equal.
    pub compared: u64,
    /// Authenticators that were compared.
    pub authenticators: u64,
    /// Commits by devices of the other stack.
    pub commits_by_other: u64,
    /// Texts that devices of both stacks show, equal.
    pub texts: u64,
    /// Devices of ours and of the other stack.
    pub devices: (usize, usize),
}

impl Tally {
    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        for (step, count) in &other.steps {
            *self.steps.entry(step).or_default() += count;
        }
        self.refused += other.refused;
        self.epochs += other.epochs;
        self.compared += other.compared;
        self.authenticators += other.authenticators;
        self.commits_by_other += other.commits_by_other;
        self.texts += other.texts;
        self.devices.0 += other.devices.0;
        self.devices.1 += other.devices.1;
    }
}

/// What a step may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Text,
    Burst,
    Update,
    Policy,
    NameAdmin,
    Add,
    Remove,
    Leave,
    Create,
    Race,
    GoOffline,
    ComeBack,
    Onboard,
    Offboard,
    FurtherDevice,
}

impl Step {
    /// Each as often as it weighs.
    const WEIGHTS: &[(Self, u32)] = &[
        (Self::Text, 12),
        (Self::Burst, 6),
        (Self::Update, 10),
        (Self::Policy, 6),
        (Self::NameAdmin, 3),
        (Self::Add, 12),
        (Self::Remove, 8),
        (Self::Leave, 4),
        (Self::Create, 3),
        (Self::Race, 12),
        (Self::GoOffline, 7),
        (Self::ComeBack, 7),
        (Self::Onboard, 2),
        (Self::Offboard, 2),
        (Self::FurtherDevice, 2),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Burst => "burst of texts",
            Self::Update => "update",
            Self::Policy => "policy",
            Self::NameAdmin => "new admin",
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Leave => "leave",
            Self::Create => "create",
            Self::Race => "race",
            Self::GoOffline => "go offline",
            Self::ComeBack => "come back",
            Self::Onboard => "onboard",
            Self::Offboard => "offboard",
            Self::FurtherDevice => "further device",
        }
    }
}

fn update() -> Wish {
    Wish::Commit {
        add: Vec::new(),
        remove: Vec::new(),
        policy: Vec::new(),
    }
}

fn change(policy: PolicyChange) -> Wish {
    Wish::Commit {
        add: Vec::new(),
        remove: Vec::new(),
        policy: vec![policy],
    }
}

/// A script that runs.
struct Run {
    world: World,
    rng: ChaCha12Rng,
    suite: OneSuite,
    tally: Tally,
    said: u64,
    /// What was done, for a failure.
    story: Vec<String>,
}

/// Runs a script, and compares what all have seen.
///
/// # Errors
/// Where the stacks disagree, or something comes of nothing; with the story so far.
pub async fn run(options: Options) -> anyhow::Result<Tally> {
    let suite = OneSuite::new(options.suite).context("not a suite of ours")?;
    let mut run = Run {
        world: World::found(options.suite).await?,
        rng: ChaCha12Rng::seed_from_u64(options.seed),
        suite,
        tally: Tally::default(),
        said: 0,
        story: Vec::new(),
    };
    let done = run.play(options.steps).await;
    let done = done.and_then(|()| run.compare());
    if done.is_err() {
        for line in &run.story {
            eprintln!("  {line}");
        }
    }
    let tally = run.tally.clone();
    run.world.close().await;
    done.map(|()| tally)
        .with_context(|| format!("seed {}", options.seed))
}

impl Run {
    async fn play(&mut self, steps: usize) -> anyhow::Result<()> {
        for other in [true, false, true, false, true] {
            self.onboard(other).await?;
        }
        self.world.settle().await?;
        for creator in [0, 1] {
            self.create(creator).await?;
        }
        self.world.settle().await?;
        let mut done = 0;
        for _ in 0..steps * TRIES {
            if done == steps {
                break;
            }
            let (step, _) = Step::WEIGHTS
                .choose_weighted(&mut self.rng, |(_, weight)| *weight)
                .context("no steps")?;
            let outcome = self.take(*step).await;
            self.world.settle().await?;
            match outcome? {
                None => continue,
                Some(true) => {
                    *self.tally.steps.entry(step.name()).or_default() += 1;
                    done += 1;
                }
                Some(false) => self.tally.refused += 1,
            }
        }
        ensure!(done == steps, "only {done} steps of {steps} took effect");
        self.everybody_back().await
    }

    /// Takes a step: whether it took effect; nothing, if there is nobody for it.
    async fn take(&mut self, step: Step) -> anyhow::Result<Option<bool>> {
        match step {
            Step::Text => self.text().await,
            Step::Burst => self.burst().await,
            Step::Update => self.update().await,
            Step::Policy => self.policy().await,
            Step::NameAdmin => self.name_admin().await,
            Step::Add => self.add().await,
            Step::Remove => self.remove().await,
            Step::Leave => self.leave().await,
            Step::Create => self.create_somewhere().await,
            Step::Race => self.race().await,
            Step::GoOffline => self.go_offline().await,
            Step::ComeBack => self.come_back().await,
            Step::Onboard => self.onboard_somebody().await,
            Step::Offboard => self.offboard().await,
            Step::FurtherDevice => self.further_device().await,
        }
    }

    /// The devices that are online and may act in a group, with what they see of it.
    fn actors(&self, group: GroupId) -> Vec<(usize, GroupLook)> {
        let members = self.world.members.iter().enumerate();
        members
            .filter(|(_, member)| member.online)
            .filter_map(|(number, member)| {
                let look = member.view().groups.get(&group)?.clone();
                (look.standing == Standing::Active).then_some((number, look))
            })
            .collect()
    }

    /// A group, and somebody in it who is online.
    fn somebody(
        &mut self,
        fits: impl Fn(&Self, usize, &GroupLook) -> bool,
    ) -> Option<(GroupId, usize, GroupLook)> {
        let mut groups = self.world.groups.clone();
        groups.shuffle(&mut self.rng);
        for group in groups {
            let mut actors = self.actors(group);
            actors.retain(|(number, look)| fits(self, *number, look));
            if let Some((number, look)) = actors.choose(&mut self.rng) {
                return Some((group, *number, look.clone()));
            }
        }
        None
    }

    fn user(&self, number: usize) -> UserId {
        self.world.members[number].user()
    }

    fn is_other(&self, number: usize) -> bool {
        self.world.members[number].is_other()
    }

    fn a_text(&mut self) -> Wish {
        self.said += 1;
        Wish::Text(format!("text {}", self.said))
    }

    async fn wish(
        &mut self,
        number: usize,
        group: GroupId,
        wish: Wish,
    ) -> anyhow::Result<Option<bool>> {
        let what = format!("{wish:?}");
        let outcome = self.world.wish(number, group, wish).await;
        self.note(number, &what, &outcome);
        Ok(Some(outcome?.is_ok()))
    }

    fn note(&mut self, number: usize, what: &str, outcome: &anyhow::Result<Result<(), String>>) {
        let stack = if self.is_other(number) {
            "mls-rs"
        } else {
            "openmls"
        };
        let short: String = what.chars().take(160).collect();
        self.story
            .push(format!("device {number} ({stack}) {short}: {outcome:?}"));
    }

    async fn text(&mut self) -> anyhow::Result<Option<bool>> {
        let Some((group, number, _)) = self.somebody(|_, _, _| true) else {
            return Ok(None);
        };
        let text = self.a_text();
        self.wish(number, group, text).await
    }

    /// Everybody speaks at once.
    async fn burst(&mut self) -> anyhow::Result<Option<bool>> {
        let Some((group, ..)) = self.somebody(|_, _, _| true) else {
            return Ok(None);
        };
        let mut actors = self.actors(group);
        actors.shuffle(&mut self.rng);
        let numbers: Vec<usize> = actors.iter().map(|(number, _)| *number).collect();
        let Some([a, b, c]) = numbers.first_chunk::<3>().copied() else {
            return Ok(None);
        };
        let [x, y, z] = [self.a_text(), self.a_text(), self.a_text()];
        self.together(group, [(a, x), (b, y), (c, z)]).await
    }

    /// Three wishes at once; in effect if one is.
    async fn together(
        &mut self,
        group: GroupId,
        wishes: [(usize, Wish); 3],
    ) -> anyhow::Result<Option<bool>> {
        let whats = wishes
            .each_ref()
            .map(|(number, wish)| (*number, format!("at once: {wish:?}")));
        let [(a, x), (b, y), (c, z)] = wishes;
        let world = &self.world;
        let (x, y, z) = tokio::join!(
            world.wish(a, group, x),
            world.wish(b, group, y),
            world.wish(c, group, z),
        );
        let mut in_effect = false;
        for ((number, what), outcome) in whats.into_iter().zip([x, y, z]) {
            self.note(number, &what, &outcome);
            in_effect |= outcome?.is_ok();
        }
        Ok(Some(in_effect))
    }

    async fn update(&mut self) -> anyhow::Result<Option<bool>> {
        let Some((group, number, _)) = self.somebody(|this, number, _| this.is_other(number))
        else {
            return Ok(None);
        };
        self.wish(number, group, update()).await
    }

    fn an_admin(&mut self) -> Option<(GroupId, usize, GroupLook)> {
        self.somebody(|this, number, look| look.admins.contains(&this.user(number)))
    }

    fn a_topic(&mut self) -> Wish {
        self.said += 1;
        change(PolicyChange::Topic(format!("topic {}", self.said)))
    }

    async fn policy(&mut self) -> anyhow::Result<Option<bool>> {
        let Some((group, number, _)) = self.an_admin() else {
            return Ok(None);
        };
        let topic = self.a_topic();
        self.wish(number, group, topic).await
    }

    async fn name_admin(&mut self) -> anyhow::Result<Option<bool>> {
        let Some((group, number, look)) = self.an_admin() else {
            return Ok(None);
        };
        let users: BTreeSet<UserId> = look.members.iter().map(|(_, user)| *user).collect();
        let users: Vec<UserId> = users.difference(&look.admins).copied().collect();
        let Some(user) = users.choose(&mut self.rng).copied() else {
            return Ok(None);
        };
        self.wish(number, group, change(PolicyChange::AddAdmin(user)))
            .await
    }

    /// The users of the organisation who are not in a group.
    fn outsiders(&self, look: &GroupLook) -> Vec<UserId> {
        let users: BTreeSet<UserId> = self.world.members.iter().map(|m| m.user()).collect();
        let out = |user: &UserId| {
            !self.world.gone.contains(user) && !look.members.iter().any(|(_, u)| u == user)
        };
        users.into_iter().filter(out).collect()
    }

    async fn add(&mut self) -> anyhow::Result<Option<bool>> {
        let Some((group, number, look)) =
            self.somebody(|this, _, look| !this.outsiders(look).is_empty())
        else {
            return Ok(None);
        };
        let mut add = self.outsiders(&look);
        add.shuffle(&mut self.rng);
        add.truncate(self.rng.random_range(1..=2));
        let wish = Wish::Commit {
            add,
            remove: Vec::new(),
            policy: Vec::new(),
        };
        self.wish(number, group, wish).await
    }

    /// The users in a group but for this one's.
    fn others(&self, number: usize, look: &GroupLook) -> Vec<UserId> {
        let users: BTreeSet<UserId> = look.members.iter().map(|(_, user)| *user).collect();
        users
            .into_iter()
            .filter(|user| *user != self.user(number))
            .collect()
    }

    async fn remove(&mut self) -> anyhow::Result<Option<bool>> {
        let found = self.somebody(|this, number, look| {
            look.admins.contains(&this.user(number)) && this.others(number, look).len() > 1
        });
        let Some((group, number, look)) = found else {
            return Ok(None);
        };
        let others = self.others(number, &look);
        let Some(user) = others.choose(&mut self.rng).copied() else {
            return Ok(None);
        };
        let wish = Wish::Commit {
            add: Vec::new(),
            remove: vec![user],
            policy: Vec::new(),
        };
        self.wish(number, group, wish).await
    }

    async fn leave(&mut self) -> anyhow::Result<Option<bool>> {
        let found = self.somebody(|this, number, look| this.others(number, look).len() > 2);
        let Some((group, number, _)) = found else {
            return Ok(None);
        };
        // Somebody who stays must be online to carry it out.
        let mut actors = self.actors(group).into_iter();
        if actors.all(|(actor, _)| self.user(actor) == self.user(number)) {
            return Ok(None);
        }
        let user = self.user(number);
        let outcome = self.wish(number, group, Wish::Leave).await?;
        if outcome == Some(true) {
            self.world
                .wait("a leave is carried out", |members| {
                    let mut looks = members
                        .iter()
                        .filter(|member| member.online)
                        .filter_map(|member| member.view().groups.get(&group).cloned())
                        .filter(|look| look.standing == Standing::Active);
                    looks
                        .all(|look| !look.members.iter().any(|(_, u)| *u == user))
                        .then_some(())
                })
                .await?;
        }
        Ok(outcome)
    }

    async fn create(&mut self, creator: usize) -> anyhow::Result<()> {
        let own = self.user(creator);
        let users: BTreeSet<UserId> = self.world.members.iter().map(|m| m.user()).collect();
        let mut users: Vec<UserId> = users
            .into_iter()
            .filter(|user| *user != own && !self.world.gone.contains(user))
            .collect();
        users.shuffle(&mut self.rng);
        users.truncate(self.rng.random_range(3..=5));
        let made = self.world.create(creator, users).await;
        self.story
            .push(format!("device {creator} creates a group: {made:?}"));
        made.map(|_| ())
    }

    async fn create_somewhere(&mut self) -> anyhow::Result<Option<bool>> {
        if self.world.groups.len() >= MOST_GROUPS {
            return Ok(None);
        }
        let members = self.world.members.iter().enumerate();
        let online = members.filter(|(_, member)| member.online);
        let online: Vec<usize> = online.map(|(number, _)| number).collect();
        let Some(creator) = online.choose(&mut self.rng).copied() else {
            return Ok(None);
        };
        self.create(creator).await?;
        Ok(Some(true))
    }

    /// Three devices commit in the same epoch: whatever each may.
    async fn race(&mut self) -> anyhow::Result<Option<bool>> {
        let Some((group, ..)) = self.somebody(|this, number, _| this.is_other(number)) else {
            return Ok(None);
        };
        let mut actors = self.actors(group);
        actors.shuffle(&mut self.rng);
        // An engine has no command for a mere update: it is in the race if it has something to change.
        actors.retain(|(number, look)| {
            let admin = look.admins.contains(&self.user(*number));
            self.is_other(*number) || admin || !self.outsiders(look).is_empty()
        });
        let mut wishes = Vec::new();
        for (number, look) in actors.into_iter().take(3) {
            let admin = look.admins.contains(&self.user(number));
            let outsiders = self.outsiders(&look);
            let wish = match outsiders.choose(&mut self.rng) {
                Some(user) if self.rng.random_bool(0.5) || !(admin || self.is_other(number)) => {
                    Wish::Commit {
                        add: vec![*user],
                        remove: Vec::new(),
                        policy: Vec::new(),
                    }
                }
                _ if admin => self.a_topic(),
                _ => update(),
            };
            wishes.push((number, wish));
        }
        match <[(usize, Wish); 3]>::try_from(wishes) {
            Ok(wishes) => self.together(group, wishes).await,
            Err(_) => Ok(None),
        }
    }

    async fn go_offline(&mut self) -> anyhow::Result<Option<bool>> {
        let members = self.world.members.iter().enumerate();
        let online = members.skip(1).filter(|(_, member)| member.online);
        let online: Vec<usize> = online.map(|(number, _)| number).collect();
        if online.len() < 4 {
            return Ok(None);
        }
        let Some(number) = online.choose(&mut self.rng).copied() else {
            return Ok(None);
        };
        self.world.go(number, false).await?;
        self.story.push(format!("device {number} goes offline"));
        Ok(Some(true))
    }

    /// The devices that are off and not gone.
    fn offline(&self) -> Vec<usize> {
        let members = self.world.members.iter().enumerate();
        members
            .filter(|(_, member)| !member.online && !self.world.gone.contains(&member.user()))
            .map(|(number, _)| number)
            .collect()
    }

    async fn come_back(&mut self) -> anyhow::Result<Option<bool>> {
        let offline = self.offline();
        let Some(number) = offline.choose(&mut self.rng).copied() else {
            return Ok(None);
        };
        self.world.go(number, true).await?;
        self.story.push(format!("device {number} comes back"));
        Ok(Some(true))
    }

    async fn everybody_back(&mut self) -> anyhow::Result<()> {
        for number in self.offline() {
            self.world.go(number, true).await?;
        }
        self.story.push("everybody comes back".into());
        self.world.settle().await
    }

    fn manner(&mut self) -> Manner {
        Manner {
            suite: self.suite,
            always_path: self.rng.random(),
            patience_ms: if self.rng.random() { 0 } else { PATIENT_MS },
            seed: self.rng.random(),
        }
    }

    async fn onboard(&mut self, other: bool) -> anyhow::Result<usize> {
        let manner = other.then(|| self.manner());
        let number = self.world.add_user(Role::Member, manner).await?;
        self.story
            .push(format!("device {number} joins: {manner:?}"));
        Ok(number)
    }

    async fn onboard_somebody(&mut self) -> anyhow::Result<Option<bool>> {
        if self.world.members.len() >= MOST_DEVICES {
            return Ok(None);
        }
        let other = self.rng.random();
        self.onboard(other).await?;
        Ok(Some(true))
    }

    async fn offboard(&mut self) -> anyhow::Result<Option<bool>> {
        let founder = self.user(0);
        let users: BTreeSet<UserId> = self.world.members.iter().map(|m| m.user()).collect();
        let users: Vec<UserId> = users
            .into_iter()
            .filter(|user| *user != founder && !self.world.gone.contains(user))
            .collect();
        if users.len() < 5 {
            return Ok(None);
        }
        let Some(user) = users.choose(&mut self.rng).copied() else {
            return Ok(None);
        };
        self.world.offboard(user).await?;
        let members = self.world.members.iter().enumerate();
        let devices = members.filter(|(_, member)| member.user() == user);
        let devices: Vec<usize> = devices.map(|(number, _)| number).collect();
        self.story
            .push(format!("the user of {devices:?} is offboarded"));
        Ok(Some(true))
    }

    /// A user of ours gets a second device, of the other stack, which comes into the user's groups by itself (REQ-127).
    async fn further_device(&mut self) -> anyhow::Result<Option<bool>> {
        if self.world.members.len() >= MOST_DEVICES {
            return Ok(None);
        }
        let members = self.world.members.iter().enumerate();
        let online = members.filter(|(_, member)| member.online && !member.is_other());
        let online: Vec<usize> = online.map(|(number, _)| number).collect();
        let Some(number) = online.choose(&mut self.rng).copied() else {
            return Ok(None);
        };
        let manner = self.manner();
        let further = self.world.add_device(number, manner).await?;
        self.story.push(format!(
            "device {number} lets in device {further}: {manner:?}"
        ));
        let view = self.world.members[number].view();
        let groups = view.groups.into_iter();
        let groups = groups.filter(|(_, look)| look.standing == Standing::Active);
        let groups: Vec<GroupId> = groups.map(|(group, _)| group).collect();
        self.world
            .wait("a further device is in its user's groups", |members| {
                let view = members.get(further)?.view();
                let faulty = !view.faults.is_empty();
                (faulty || groups.iter().all(|group| view.groups.contains_key(group))).then_some(())
            })
            .await?;
        Ok(Some(true))
    }

    /// Compares the authenticators of every epoch, and every text, that devices of both stacks have seen.
    fn compare(&mut self) -> anyhow::Result<()> {
        self.world.check_faults()?;
        let mut epochs: BTreeMap<(GroupId, u64), [Vec<Vec<u8>>; 2]> = BTreeMap::new();
        let mut texts: BTreeMap<_, [Option<_>; 2]> = BTreeMap::new();
        for member in &self.world.members {
            let (view, stack) = (member.view(), usize::from(member.is_other()));
            self.tally.commits_by_other += view.commits;
            if stack == 1 {
                self.tally.devices.1 += 1;
            } else {
                self.tally.devices.0 += 1;
            }
            for (epoch, authenticator) in view.epochs {
                epochs.entry(epoch).or_default()[stack].push(authenticator);
            }
            for (group, lines) in view.texts {
                for line in lines {
                    let said = (line.device, line.text);
                    let place = &mut texts.entry((group, line.seq)).or_default()[stack];
                    let same = place.as_ref().is_none_or(|known| *known == said);
                    ensure!(same, "two texts at one place");
                    *place = Some(said);
                }
            }
        }
        for ((_, epoch), [ours, others]) in epochs {
            let all: BTreeSet<&Vec<u8>> = ours.iter().chain(&others).collect();
            ensure!(all.len() == 1, "authenticators differ in epoch {epoch}");
            self.tally.epochs += u64::from(!others.is_empty());
            if !ours.is_empty() && !others.is_empty() {
                self.tally.compared += 1;
                self.tally.authenticators += u64::try_from(ours.len() + others.len())?;
            }
        }
        for [ours, others] in texts.into_values() {
            if let (Some(ours), Some(others)) = (ours, others) {
                ensure!(ours == others, "the stacks show different texts");
                self.tally.texts += 1;
            }
        }
        Ok(())
    }
}
