//! The scenarios of the working group's test runner (mls-implementations, `interop/configs`) that our policy permits.
//!
//! There they are played with the bare MLS API; here over the relay, as a device does them: what is proposed travels by
//! value in the commit (REQ-081), and everything is read in the order of the log. `spec/interop.md` says which are left out.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use mortise_protocol::group::PolicyChange;
use mortise_protocol::identity::{GroupId, UserId};
use mortise_protocol::roster::Role;

use super::actor::Manner;
use super::crypto::OneSuite;
use super::group::Wish;
use super::world::World;

/// The cast, by number: two of ours, then mls-rs with a path in every commit and mls-rs without where it may.
const OPENMLS: usize = 0;
const ALSO_OPENMLS: usize = 1;
const WITH_PATH: usize = 2;
const WITHOUT_PATH: usize = 3;
/// The others, of both stacks in turn.
const CHARLIES: [usize; 6] = [4, 5, 6, 7, 8, 9];

/// Plays all of them; their names.
///
/// # Errors
/// The first that goes otherwise than it must, by name.
pub async fn play_all(suite: u16) -> anyhow::Result<Vec<String>> {
    let mut stage = Stage::new(suite).await?;
    let done = stage.play().await;
    let names = std::mem::take(&mut stage.names);
    stage.world.close().await;
    done.with_context(|| format!("after {names:?}"))?;
    Ok(names)
}

struct Stage {
    world: World,
    names: Vec<String>,
}

impl Stage {
    async fn new(suite: u16) -> anyhow::Result<Self> {
        let one_suite = OneSuite::new(suite).context("not a suite of ours")?;
        let mut world = World::found(suite).await?;
        let manner = |number: usize| Manner {
            suite: one_suite,
            always_path: number != WITHOUT_PATH,
            patience_ms: 0,
            seed: number as u64,
        };
        for number in ALSO_OPENMLS..=CHARLIES[5] {
            let other = number == WITH_PATH || number == WITHOUT_PATH || number % 2 == 0;
            let joined = world.add_user(Role::Member, other.then(|| manner(number)));
            ensure!(joined.await? == number, "numbers in order");
        }
        world.settle().await?;
        let names = Vec::new();
        Ok(Self { world, names })
    }

    async fn play(&mut self) -> anyhow::Result<()> {
        for (alice, bob, who) in [
            (WITHOUT_PATH, OPENMLS, "mls-rs without a path, openmls"),
            (WITH_PATH, OPENMLS, "mls-rs with a path, openmls"),
            (OPENMLS, WITH_PATH, "openmls, mls-rs"),
        ] {
            let group = self.world.create(alice, self.users(&[bob])).await?;
            self.members_are(group, &[alice, bob]).await?;
            self.done("welcome_join", who);
            self.application(group, alice, bob).await?;
            self.done("application/in_order", who);
            if alice != OPENMLS {
                self.wish(alice, group, &[], &[], Vec::new()).await?;
                self.members_are(group, &[alice, bob]).await?;
                self.done("commit/empty", who);
            }
            self.add_and_remove(group, alice, bob, who).await?;
            self.extensions(group, alice, bob, who).await?;
            if alice != OPENMLS {
                self.all_together(group, alice, bob).await?;
                self.done("commit/all_together", who);
            }
        }
        Ok(())
    }

    fn done(&mut self, scenario: &str, who: &str) {
        self.names.push(format!("{scenario} ({who})"));
    }

    fn users(&self, numbers: &[usize]) -> Vec<UserId> {
        let users = numbers.iter().map(|number| &self.world.members[*number]);
        users.map(super::world::Member::user).collect()
    }

    async fn wish(
        &self,
        number: usize,
        group: GroupId,
        add: &[usize],
        remove: &[usize],
        policy: Vec<PolicyChange>,
    ) -> anyhow::Result<()> {
        let wish = Wish::Commit {
            add: self.users(add),
            remove: self.users(remove),
            policy,
        };
        let outcome = self.world.wish(number, group, wish).await?;
        outcome.map_err(anyhow::Error::msg)
    }

    /// All have settled, and these are in the group, by the word of both stacks.
    async fn members_are(&self, group: GroupId, numbers: &[usize]) -> anyhow::Result<()> {
        self.world.settle().await?;
        let wanted: BTreeSet<UserId> = self.users(numbers).into_iter().collect();
        for number in numbers {
            let view = self.world.members[*number].view();
            let look = view.groups.get(&group).context("not in the group")?;
            let users: BTreeSet<UserId> = look.members.iter().map(|(_, user)| *user).collect();
            ensure!(users == wanted, "device {number} sees other members");
        }
        Ok(())
    }

    async fn application(&self, group: GroupId, alice: usize, bob: usize) -> anyhow::Result<()> {
        let mut said = Vec::new();
        for (from, count) in [(alice, 3), (bob, 3)] {
            for nth in 1..=count {
                let text = format!("hello world {nth} from {from}");
                said.push(text.clone());
                let outcome = self.world.wish(from, group, Wish::Text(text)).await?;
                outcome.map_err(anyhow::Error::msg)?;
            }
        }
        self.world.settle().await?;
        for number in [alice, bob] {
            let view = self.world.members[number].view();
            let lines = view.texts.get(&group).cloned().unwrap_or_default();
            let texts: Vec<String> = lines.into_iter().map(|line| line.text).collect();
            ensure!(texts == said, "device {number} shows {texts:?}");
        }
        Ok(())
    }

    /// `commit/add` twice over, and `commit/remove`.
    async fn add_and_remove(
        &mut self,
        group: GroupId,
        alice: usize,
        bob: usize,
        who: &str,
    ) -> anyhow::Result<()> {
        let mut members = vec![alice, bob];
        for three in CHARLIES.chunks(3) {
            self.wish(alice, group, three, &[], Vec::new()).await?;
            members.extend(three);
            self.members_are(group, &members).await?;
        }
        self.done("commit/add", who);
        let (gone, stay) = CHARLIES.split_at(3);
        self.wish(alice, group, &[], gone, Vec::new()).await?;
        let members = [&[alice, bob], stay].concat();
        self.members_are(group, &members).await?;
        self.done("commit/remove", who);
        Ok(())
    }

    /// `commit/group_context_extensions`, by alice, and by bob when alice has named him an admin.
    async fn extensions(
        &mut self,
        group: GroupId,
        alice: usize,
        bob: usize,
        who: &str,
    ) -> anyhow::Result<()> {
        let bob_user = self.users(&[bob])[0];
        let admin = vec![PolicyChange::AddAdmin(bob_user)];
        self.wish(alice, group, &[], &[], admin).await?;
        self.world.settle().await?;
        let topic = vec![PolicyChange::Topic("by bob".into())];
        self.wish(bob, group, &[], &[], topic).await?;
        self.world.settle().await?;
        let view = self.world.members[alice].view();
        let look = view.groups.get(&group).context("not in the group")?;
        ensure!(look.admins.contains(&bob_user), "bob is no admin");
        self.done("commit/group_context_extensions", who);
        Ok(())
    }

    /// Additions, a removal and another policy in one commit.
    async fn all_together(&self, group: GroupId, alice: usize, bob: usize) -> anyhow::Result<()> {
        let (come, go, stay) = (&CHARLIES[..2], &CHARLIES[3..4], &CHARLIES[4..]);
        let topic = vec![PolicyChange::Topic("all together".into())];
        let epoch = |world: &World| {
            let view = world.members[bob].view();
            view.groups.get(&group).map(|look| look.epoch)
        };
        let before = epoch(&self.world).context("not in the group")?;
        self.wish(alice, group, come, go, topic).await?;
        let members = [&[alice, bob], stay, come].concat();
        self.members_are(group, &members).await?;
        ensure!(
            epoch(&self.world) == Some(before + 1),
            "more than one commit"
        );
        Ok(())
    }
}
