//! What can happen in one step of a scenario.

use mortise_protocol::engine::{CommandKind, IntentId, PinChoice, PolicyChange, WhoMayAdd};
use mortise_protocol::identity::{GroupId, UserId};
use mortise_protocol::roster::{OrgPolicy, Role, Staleness};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::Broken;
use super::model::{Invited, Sent};
use super::scenario::{MAX_SKEW_MS, Scenario};
use crate::world::{DiskFault, PersonId};

/// How many orders a seed has at most: somebody must be left.
const MAX_ORDERS: u64 = 3;
/// Calls of a store that fail, each in some seed.
pub(super) const PLANNED_CALLS: u64 = 256;
/// How many devices a seed has at most.
const MAX_PEOPLE: usize = 11;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Say,
    Chatter,
    Race,
    Sleep,
    Wake,
    Cut,
    Partition,
    RestartPerson,
    DieAfterStep,
    PersonDisk,
    RestartRelay,
    RelayDies,
    RelayDisk,
    RelayFull,
    NewFaults,
    Calm,
    Order,
    InviteDevice,
    AddMembers,
    RemoveMember,
    CreateGroup,
    RosterRace,
    ClockJump,
    LeaveGroup,
    ChangeGroup,
    CloseGroup,
    RestartGroup,
    SetProfile,
    RotateDirectory,
    ResyncGroup,
    Reinvite,
    SetPolicy,
    Villainy,
}

/// Actions and how often they come up.
const WEIGHTS: [(Action, u32); 30] = [
    (Action::Say, 420),
    (Action::Chatter, 60),
    (Action::Race, 15),
    (Action::Sleep, 30),
    (Action::Wake, 60),
    (Action::Cut, 20),
    (Action::Partition, 12),
    (Action::RestartPerson, 20),
    (Action::DieAfterStep, 15),
    (Action::PersonDisk, 20),
    (Action::RestartRelay, 6),
    (Action::RelayDies, 6),
    (Action::RelayDisk, 5),
    (Action::RelayFull, 5),
    (Action::NewFaults, 12),
    (Action::Calm, 6),
    (Action::AddMembers, 20),
    (Action::RemoveMember, 15),
    (Action::CreateGroup, 4),
    (Action::RosterRace, 10),
    (Action::ClockJump, 8),
    (Action::LeaveGroup, 6),
    (Action::ChangeGroup, 15),
    (Action::CloseGroup, 2),
    (Action::RestartGroup, 4),
    (Action::SetProfile, 5),
    (Action::RotateDirectory, 4),
    (Action::ResyncGroup, 8),
    (Action::Reinvite, 5),
    (Action::SetPolicy, 3),
];

impl Scenario {
    pub(super) fn draw_action(&mut self) -> Action {
        WEIGHTS
            .choose_weighted(&mut self.rng, |(_, weight)| *weight)
            .map_or(Action::Say, |(action, _)| *action)
    }

    pub(super) fn act(&mut self, action: Action) -> Result<(), Broken> {
        self.tell(|| format!("{action:?}"));
        match action {
            Action::Say => self.say(),
            Action::Chatter => {
                for _ in 0..self.rng.random_range(3..10) {
                    self.say();
                }
            }
            Action::Race => self.race_in(self.groups.clone()),
            Action::Sleep => {
                let asleep = self.world.people.iter().filter(|p| p.asleep).count();
                if let Some(who) = self.anybody().filter(|_| asleep < 5) {
                    self.world.count("sleeps");
                    self.world.put_to_sleep(who);
                }
            }
            Action::Wake => {
                let sleepers =
                    self.everybody(|s, p| s.world.people[p.0].asleep && !s.model.is_villain(p));
                if let Some(who) = sleepers.choose(&mut self.rng) {
                    self.world.wake(*who);
                }
            }
            Action::Cut => {
                if let Some(who) = self.anybody() {
                    let ms = self.rng.random_range(100..8_000);
                    self.world.people[who.0].cut_until_ms = self.world.now_ms + ms;
                    self.world.disconnect(who);
                }
            }
            Action::Partition => self.partition(),
            Action::RestartPerson => {
                if let Some(who) = self.anybody() {
                    self.tell(|| format!("restart {who:?}"));
                    self.world.restart_person(who);
                }
            }
            Action::DieAfterStep => {
                if let Some(who) = self.anybody() {
                    self.world.people[who.0].dies_after_step = true;
                }
            }
            Action::PersonDisk => self.break_a_disk(),
            Action::RestartRelay => {
                if self.world.relay.is_some() {
                    self.world.crash_relay();
                }
            }
            Action::RelayDies => self.world.relay_dies_after_batch = true,
            Action::RelayDisk => {
                let n = self.rng.random_range(0..12);
                let call = self.next_call();
                if self.rng.random_bool(0.5) {
                    self.world.disk.plan_call(call, true);
                } else {
                    self.world.disk.plan(n, DiskFault::Broken);
                }
            }
            Action::RelayFull => self.fill_the_relay()?,
            Action::NewFaults => self.world.faults = self.draw_faults(),
            Action::Calm => {
                self.world.faults = crate::world::Faults::default();
            }
            Action::Order => self.order(),
            Action::InviteDevice => self.invite_device()?,
            Action::AddMembers => self.add_members(),
            Action::RemoveMember => self.remove_member(),
            Action::CreateGroup => self.create_group(),
            Action::RosterRace => self.roster_race(),
            Action::LeaveGroup => self.leave_group(),
            Action::ChangeGroup => self.change_group(),
            Action::CloseGroup => self.close_group(),
            Action::RestartGroup => self.restart_group(),
            Action::SetProfile | Action::RotateDirectory | Action::SetPolicy => {
                self.administer(action);
            }
            Action::ResyncGroup => self.resync_group(),
            Action::Reinvite => self.reinvite()?,
            Action::Villainy => self.villainy()?,
            Action::ClockJump => {
                if let Some(who) = self.anybody() {
                    let skew = self.rng.random_range(-MAX_SKEW_MS..=MAX_SKEW_MS);
                    self.world.count("clock jumps");
                    self.world.people[who.0].skew_ms = skew;
                }
            }
        }
        Ok(())
    }

    /// People for whom something holds.
    pub(super) fn everybody(&self, holds: impl Fn(&Self, PersonId) -> bool) -> Vec<PersonId> {
        (0..self.world.people.len())
            .map(PersonId)
            .filter(|p| self.model.is_of(&self.world, *p) && holds(self, *p))
            .collect()
    }

    /// Whether somebody has a device that is switched on and not expelled as far as it knows.
    pub(super) fn is_awake(&self, who: PersonId) -> bool {
        let person = &self.world.people[who.0];
        person.is_in() && !person.asleep && !person.engine().is_expelled()
    }

    fn anybody(&mut self) -> Option<PersonId> {
        let awake = self.everybody(Self::is_awake);
        awake.choose(&mut self.rng).copied()
    }

    /// Users that belong.
    pub(super) fn users(&self) -> Vec<UserId> {
        let mut users: Vec<UserId> = Vec::new();
        for who in self.everybody(|_, _| true) {
            let user = self.world.people[who.0].user();
            let belongs = self
                .model
                .roster
                .user(user)
                .is_some_and(|u| !u.is_removed());
            if belongs && !users.contains(&user) {
                users.push(user);
            }
        }
        users
    }

    pub(super) fn holds(&self, who: PersonId, group: GroupId) -> bool {
        self.model
            .held
            .get(&(who, group))
            .is_some_and(|held| held.active)
    }

    fn members_awake(&self, group: GroupId) -> Vec<PersonId> {
        self.everybody(|s, p| s.is_awake(p) && s.holds(p, group))
    }

    fn some_group(&mut self) -> Option<GroupId> {
        self.groups.choose(&mut self.rng).copied()
    }

    fn say(&mut self) {
        let Some(group) = self.some_group() else {
            return;
        };
        let members = self.members_awake(group);
        if let Some(who) = members.choose(&mut self.rng).copied() {
            self.say_in(who, group);
        }
    }

    /// Gives a command; whatever had its id before is over, as ids are only unique while something is going on.
    pub(super) fn command(&mut self, who: PersonId, kind: CommandKind) -> IntentId {
        let expected = format!("{kind:?}");
        let is_brief = matches!(
            kind,
            CommandKind::SendText { .. } | CommandKind::LeaveGroup { .. }
        );
        let id = self.world.command(who, kind);
        self.model.intents.remove(&(who, id));
        if self.world.people[who.0].took_last {
            self.model.answers.expect(who, id, is_brief, expected);
        }
        id
    }

    pub(super) fn say_in(&mut self, who: PersonId, group: GroupId) {
        self.tokens += 1;
        let token = format!("t{}", self.tokens);
        let text = token.clone();
        let id = self.command(who, CommandKind::SendText { group, text });
        if !self.world.people[who.0].took_last {
            return;
        }
        self.tell(|| format!("{who:?} says {token} in {group:?} as {id:?}"));
        self.model.intents.insert((who, id), token.clone());
        let sent = Sent {
            who,
            group,
            failed: false,
            place: None,
        };
        self.model.texts.insert(token, sent);
    }

    /// Two members who are online change the first of these groups that allows it, at the same moment.
    pub(super) fn race_in(&mut self, groups: Vec<GroupId>) {
        for group in groups {
            let members = self.members_awake(group);
            let online: Vec<_> = members
                .into_iter()
                .filter(|p| self.world.people[p.0].conn.is_some())
                .collect();
            let outside = self.outsiders(group);
            if online.len() < 2 || outside.is_empty() {
                continue;
            }
            let pair: Vec<_> = online.choose_multiple(&mut self.rng, 2).copied().collect();
            for who in pair {
                let Some(user) = outside.choose(&mut self.rng).copied() else {
                    return;
                };
                let users = vec![user];
                self.command(who, CommandKind::AddMembers { group, users });
            }
            return;
        }
    }

    /// Users with a device that is not in the group, as somebody there sees it.
    fn outsiders(&self, group: GroupId) -> Vec<UserId> {
        let epoch = self.model.head_epoch(group);
        let Some(tree) = self.model.tree(group, epoch.0) else {
            return Vec::new();
        };
        let missing = |user: &UserId| {
            let mut devices = self.model.roster.devices_of(*user);
            devices.any(|(device, _)| !tree.contains(&device))
        };
        self.users().into_iter().filter(missing).collect()
    }

    fn partition(&mut self) {
        let awake = self.everybody(Self::is_awake);
        let size = self.rng.random_range(1..=awake.len().div_ceil(2).max(1));
        let ms = self.rng.random_range(500..15_000);
        let cut: Vec<_> = awake
            .choose_multiple(&mut self.rng, size)
            .copied()
            .collect();
        if cut.is_empty() {
            return;
        }
        self.world.count("partitions");
        // Sometimes only one direction is cut.
        let is_heard = self.rng.random_bool(0.3);
        for who in cut {
            let until = self.world.now_ms + ms;
            self.world.people[who.0].deaf_until_ms = until;
            self.world.people[who.0].is_heard = is_heard;
        }
    }

    fn break_a_disk(&mut self) {
        if let Some(who) = self.anybody() {
            let n = self.rng.random_range(0..15);
            let call = self.next_call();
            let (calls, lasting) = (self.rng.random_bool(0.6), self.rng.random_bool(0.5));
            let disk = self.world.people[who.0].engine_mut().store_mut();
            if calls {
                disk.plan_call(call, lasting);
            } else {
                disk.plan(n, DiskFault::Broken);
            }
        }
    }

    /// Somebody's disk breaks while they say something.
    pub(super) fn break_a_disk_now(&mut self) {
        let Some(group) = self.some_group() else {
            return;
        };
        let members = self.members_awake(group);
        if let Some(who) = members.choose(&mut self.rng).copied() {
            let disk = self.world.people[who.0].engine_mut().store_mut();
            disk.plan(0, DiskFault::Broken);
            self.say_in(who, group);
        }
    }

    /// Which call of a store fails next: seed after seed, all of them come up.
    fn next_call(&mut self) -> u64 {
        self.disks_broken += 1;
        (self.seed.wrapping_mul(5) + self.disks_broken.wrapping_mul(101)) % PLANNED_CALLS
    }

    fn fill_the_relay(&mut self) -> Result<(), Broken> {
        let ms = self.rng.random_range(50..4_000);
        self.world.count("full relay disks");
        self.world.disk.plan(0, DiskFault::Full);
        for _ in 0..3 {
            self.say();
        }
        self.run_for(ms)?;
        self.world.disk.heal();
        Ok(())
    }

    fn add_members(&mut self) {
        let Some(group) = self.some_group() else {
            return;
        };
        let members = self.members_awake(group);
        let outside = self.outsiders(group);
        if let (Some(who), Some(user)) =
            (members.choose(&mut self.rng), outside.choose(&mut self.rng))
        {
            let users = vec![*user];
            self.command(*who, CommandKind::AddMembers { group, users });
        }
    }

    /// Admins of a group who are awake.
    fn admins_awake(&self, group: GroupId) -> Vec<PersonId> {
        let members = self.members_awake(group).into_iter();
        let is_admin = |p: &PersonId| {
            let user = self.world.people[p.0].user();
            let held = self.model.held.get(&(*p, group));
            held.is_some_and(|held| held.admins.contains(&user))
        };
        members.filter(is_admin).collect()
    }

    fn remove_member(&mut self) {
        let Some(group) = self.some_group() else {
            return;
        };
        let admins = self.admins_awake(group);
        let users = self.users();
        if let (Some(who), Some(user)) = (admins.choose(&mut self.rng), users.choose(&mut self.rng))
        {
            if *user == self.world.people[who.0].user() {
                return;
            }
            self.world.count("group removals");
            let user = *user;
            self.command(*who, CommandKind::RemoveMember { group, user });
        }
    }

    fn create_group(&mut self) {
        if self.groups.len() < 7 {
            self.create_group_of(3);
        }
    }

    pub(super) fn create_small_group(&mut self) {
        self.create_group_of(1);
    }

    fn create_group_of(&mut self, size: usize) {
        let users = self.users();
        let members = users.choose_multiple(&mut self.rng, size);
        let members: Vec<_> = members.copied().collect();
        if let Some(who) = self.anybody() {
            let name = format!("Later group {}", self.groups.len());
            self.command(who, CommandKind::CreateGroup { name, members });
        }
    }

    fn leave_group(&mut self) {
        let Some(group) = self.some_group() else {
            return;
        };
        let members = self.members_awake(group);
        // A group that everybody leaves is of no use to the rest of the story.
        if members.len() > 3
            && let Some(who) = members.choose(&mut self.rng).copied()
        {
            self.world.count("leaves");
            self.command(who, CommandKind::LeaveGroup { group });
        }
    }

    fn change_group(&mut self) {
        let Some(group) = self.some_group() else {
            return;
        };
        let users = self.users();
        let user = users.choose(&mut self.rng).copied();
        let change = match self.rng.random_range(0..5) {
            0 => PolicyChange::Name(format!("Name {}", self.steps_done)),
            1 => PolicyChange::Topic(format!("Topic {}", self.steps_done)),
            2 => PolicyChange::WhoMayAdd(WhoMayAdd::Members),
            n => match user {
                Some(user) if n == 3 => PolicyChange::AddAdmin(user),
                Some(user) => PolicyChange::RemoveAdmin(user),
                None => return,
            },
        };
        if let Some(who) = self.admins_awake(group).choose(&mut self.rng).copied() {
            self.world.count("policy changes");
            self.command(who, CommandKind::ChangeGroup { group, change });
        }
    }

    fn close_group(&mut self) {
        if self.groups.len() > 3
            && let Some(group) = self.some_group()
            && self.is_awake(self.model.owner)
        {
            self.world.count("groups closed");
            self.command(self.model.owner, CommandKind::CloseGroup { group });
        }
    }

    fn restart_group(&mut self) {
        let Some(group) = self.some_group() else {
            return;
        };
        if let Some(who) = self.admins_awake(group).choose(&mut self.rng).copied() {
            self.world.count("restarts asked for");
            self.command(who, CommandKind::RestartGroup { group });
        }
    }

    fn some_administrator(&mut self) -> PersonId {
        match self.rng.random_bool(0.5) {
            true => self.model.owner,
            false => self.model.admin,
        }
    }

    /// What an owner or an admin does to the directory.
    fn administer(&mut self, action: Action) {
        let by = self.some_administrator();
        let users = self.users();
        if let Some(user) = users.choose(&mut self.rng).copied()
            && self.is_awake(by)
        {
            let name = format!("Somebody {}", self.steps_done);
            let kind = match action {
                Action::SetProfile => CommandKind::SetProfile { user, name },
                Action::SetPolicy => match self.another_policy(by) {
                    Some(policy) => CommandKind::SetPolicy { policy },
                    None => return,
                },
                _ => CommandKind::RotateDirectoryKey,
            };
            self.command(by, kind);
        }
    }

    /// The organisation asks for a PIN with every invitation, or does not any more; or it tells a stale roster otherwise.
    fn another_policy(&mut self, by: PersonId) -> Option<OrgPolicy> {
        let mut policy = self.world.people[by.0].engine().policy()?.clone();
        self.world.count("organisation policies");
        if self.rng.random_bool(0.7) {
            policy.pin_required = (!bool::from(policy.pin_required)).into();
        } else {
            policy.staleness = Staleness::Off;
        }
        Some(policy)
    }

    /// Somebody asks to be let in anew, though nothing is wrong.
    fn resync_group(&mut self) {
        let Some(group) = self.some_group() else {
            return;
        };
        if let Some(who) = self.members_awake(group).choose(&mut self.rng).copied() {
            self.world.count("resyncs asked for");
            self.command(who, CommandKind::ResyncGroup { group });
        }
    }

    /// Somebody who was suspended, or has lost every device, is invited again.
    fn reinvite(&mut self) -> Result<(), Broken> {
        let by = self.some_administrator();
        let roster = &self.model.roster;
        let is_out = |user: &UserId| roster.devices_of(*user).next().is_none();
        let out: Vec<_> = self.users().into_iter().filter(is_out).collect();
        if let Some(user) = out.choose(&mut self.rng).copied()
            && self.is_awake(by)
        {
            self.world.count("users invited again");
            let expires_at_ms = self.world.now_ms + 86_400_000;
            let pin = PinChoice::Policy;
            self.command(
                by,
                CommandKind::ReinviteUser {
                    user,
                    expires_at_ms,
                    pin,
                },
            );
            self.run_for(100)?;
            self.welcome_the_invited();
        }
        Ok(())
    }

    fn invite_device(&mut self) -> Result<(), Broken> {
        let members = self.everybody(|s, p| {
            s.is_awake(p) && s.world.people[p.0].conn.is_some() && p != s.model.owner
        });
        if let Some(who) = members.choose(&mut self.rng) {
            let expires_at_ms = self.world.now_ms + 86_400_000;
            self.command(
                *who,
                CommandKind::InviteDevice {
                    expires_at_ms,
                    pin: PinChoice::Policy,
                },
            );
        }
        self.run_for(100)?;
        self.welcome_the_invited();
        Ok(())
    }

    /// Whoever holds an invitation begins to join.
    pub(super) fn welcome_the_invited(&mut self) {
        for invited in std::mem::take(&mut self.model.invited) {
            if self.everybody(|_, _| true).len() >= MAX_PEOPLE {
                return;
            }
            self.joining += 1;
            let people = self.world.people.iter();
            let owner = people
                .filter(|p| p.is_in())
                .find(|p| p.user() == invited.user);
            let owner = owner.map_or("Somebody", |p| p.name.as_str());
            let name = format!("{owner} no. {}", self.joining);
            self.world.count("devices invited");
            let Invited { link, pin, .. } = invited;
            self.world.start_join_with_pin(&name, &link, pin.as_ref());
        }
    }

    /// Two who may change the roster do so at the same moment.
    fn roster_race(&mut self) {
        for by in [self.model.owner, self.model.admin] {
            let users: Vec<_> = self.users().into_iter().skip(2).collect();
            let role = if self.rng.random_bool(0.5) {
                Role::Supervisor
            } else {
                Role::Member
            };
            if let Some(user) = users.choose(&mut self.rng).copied()
                && self.is_awake(by)
            {
                self.command(by, CommandKind::SetRole { user, role });
            }
        }
    }

    /// An owner or an admin removes somebody, or a device is revoked; sometimes whoever said so is gone at once.
    fn order(&mut self) {
        let orders = self.model.counts.get("orders").copied().unwrap_or(0);
        if orders >= MAX_ORDERS {
            return;
        }
        let Some(by) = [self.model.owner, self.model.admin]
            .into_iter()
            .filter(|p| self.is_awake(*p))
            .collect::<Vec<_>>()
            .choose(&mut self.rng)
            .copied()
        else {
            self.world.wake(self.model.owner);
            return self.order();
        };
        let targets = self.everybody(|s, p| {
            p > s.model.admin
                && !s.model.is_villain(p)
                && s.model.roster.is_admitted(s.world.people[p.0].device())
        });
        let in_groups: Vec<_> = targets
            .iter()
            .copied()
            .filter(|p| self.groups.iter().any(|g| self.holds(*p, *g)))
            .collect();
        let Some(target) = in_groups.choose(&mut self.rng).copied() else {
            return;
        };
        let (user, device) = (
            self.world.people[target.0].user(),
            self.world.people[target.0].device(),
        );
        let kind = match self.rng.random_range(0..10) {
            0..5 => CommandKind::RemoveUser { user },
            5..7 => CommandKind::SuspendUser { user },
            n => CommandKind::RevokeDevice {
                device,
                and_enrolled: n == 9,
            },
        };
        self.tell(|| format!("{by:?} orders {kind:?}"));
        // The leaver says something at that very moment.
        for group in self.groups.clone() {
            if self.is_awake(target) && self.holds(target, group) {
                self.say_in(target, group);
            }
        }
        self.command(by, kind);
    }
}
