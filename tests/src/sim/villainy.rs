//! A malicious member among the others: what its keys let it break, and what may come of that.
//!
//! Alarms and repairs that name it are allowed; honest members lose nothing, agree, and stay in one conversation.

use std::collections::BTreeSet;

use mortise_protocol::engine::Alarm;
use mortise_protocol::group::GroupPolicy;
use mortise_protocol::identity::{DeviceId, GroupId, Hash, LogSeq, SigningKey, encode, sha256};
use mortise_protocol::wire::log::Verdict;
use mortise_protocol::wire::restart::RestartCause;
use rand::seq::IndexedRandom;

use super::Broken;
use super::model::Model;
use super::scenario::Scenario;
use crate::villain::{Crafted, Line, Package, Plan, Twist, Villain};
use crate::world::PersonId;

/// The villain of a seed, and what it has put into logs.
pub(super) struct Villainy {
    pub(super) who: PersonId,
    pub(super) device: DeviceId,
    records: BTreeSet<Hash>,
}

/// What it does to one group.
#[derive(Clone, Copy, Debug)]
enum Crime {
    /// Removes somebody.
    Removes,
    /// Makes itself the only admin.
    TakesOver,
    /// Adds somebody whom the roster does not know.
    AddsStranger,
    /// Ends the group in favour of one that there is not.
    EndsGroup,
    /// Sends what nobody can read.
    Noise,
    /// Makes a commit that nobody can confirm.
    BadTag,
    /// Announces an access key that is nobody's.
    WrongAccessKey,
    /// States about an order what it does not know.
    FalseStatement,
}

const CRIMES: [Crime; 8] = [
    Crime::Removes,
    Crime::TakesOver,
    Crime::AddsStranger,
    Crime::EndsGroup,
    Crime::Noise,
    Crime::BadTag,
    Crime::WrongAccessKey,
    Crime::FalseStatement,
];

impl Scenario {
    /// Somebody turns: their device does one thing to each of its groups that no honest one would, and is never heard of
    /// again.
    pub(super) fn villainy(&mut self) -> Result<(), Broken> {
        // Somebody with one device, neither owner nor admin.
        let able = self.everybody(|s, p| {
            let device = s.world.people[p.0].device();
            (4..=6).contains(&p.0) && s.model.roster.is_admitted(device)
        });
        let Some(who) = able.choose(&mut self.rng).copied() else {
            return Ok(());
        };
        self.world.wake(who);
        self.run_for(3_000)?;
        let device = self.world.people[who.0].device();
        self.model.villainy = Some(Villainy {
            who,
            device,
            records: BTreeSet::new(),
        });
        self.world.put_to_sleep(who);
        for group in self.groups.clone() {
            let held = self.model.held.get(&(who, group));
            let head = self.model.head_epoch(group).0;
            if held.is_some_and(|held| held.active && held.epoch == head) {
                self.commit_crime(who, group);
            }
        }
        Ok(())
    }

    fn commit_crime(&mut self, who: PersonId, group: GroupId) {
        let Some(crime) = CRIMES.choose(&mut self.rng).copied() else {
            return;
        };
        let mut villain = Villain::copy(&mut self.world, who, group);
        let Some(made) = self.craft(&mut villain, crime) else {
            return;
        };
        if self.world.relay.is_none() {
            return;
        }
        self.tell(|| format!("{who:?} does {crime:?} in {group:?}"));
        let id = sha256(&encode(&made.body));
        if let Some(villainy) = &mut self.model.villainy {
            villainy.records.insert(id);
        }
        let line = Line::open(&mut self.world, &villain);
        match line.submit(&mut self.world, &villain, &made) {
            Ok(_) => self.world.count("crimes"),
            Err(_) => self.world.count("crimes that came to nothing"),
        }
    }

    fn craft(&mut self, villain: &mut Villain, crime: Crime) -> Option<Crafted> {
        let held = self.model.held.get(&(villain.who, villain.group))?.clone();
        let mut plan = Plan {
            // Nobody can commit their own leave.
            forgets_leaves: villain.has_asked_to_leave(),
            ..Plan::default()
        };
        let world = &self.world;
        match crime {
            Crime::Removes => {
                let others = held.members.iter().filter(|d| **d != villain.device);
                let others: Vec<_> = others.copied().collect();
                plan.removes = vec![*others.choose(&mut self.rng)?];
            }
            Crime::TakesOver => {
                plan.policy = Some(GroupPolicy::new("mine".into(), villain.user));
            }
            Crime::AddsStranger => {
                let key = SigningKey::from_seed(&[77; 32]);
                plan.adds = vec![Package::stranger(world, villain, &key)];
            }
            Crime::BadTag => {
                plan.twist = Twist::bad_confirmation_tag();
            }
            Crime::WrongAccessKey => {
                plan.access_key = Some(SigningKey::from_seed(&[3; 32]).public());
            }
            // A group admin may end a group as they like.
            Crime::EndsGroup if held.admins.contains(&villain.user) => return None,
            Crime::EndsGroup => {
                let nowhere = GroupId([9; 32]);
                return Some(villain.restart(world, RestartCause::Requested, nowhere));
            }
            Crime::Noise => return Some(villain.noise(world)),
            Crime::FalseStatement if self.model.roster.orders().is_empty() => return None,
            Crime::FalseStatement => {
                let statement = villain.statement(world, Verdict::Rotated);
                return Some(villain.attest(statement));
            }
        }
        Some(villain.commit(world, plan))
    }
}

impl Model {
    /// Whether somebody is the villain.
    pub(super) fn is_villain(&self, who: PersonId) -> bool {
        self.villainy.as_ref().is_some_and(|v| v.who == who)
    }

    /// Whether the villain has put this record there.
    pub(super) fn is_crime(&self, group: GroupId, seq: LogSeq) -> bool {
        let Some(villainy) = &self.villainy else {
            return false;
        };
        let index = usize::try_from(seq.0).ok().and_then(|n| n.checked_sub(1));
        let logged = index.and_then(|index| self.logs.get(&group)?.get(index));
        logged.is_some_and(|logged| villainy.records.contains(&logged.id))
    }

    /// Whether an alarm names the villain, or what it has done.
    pub(super) fn is_deserved(&self, alarm: &Alarm) -> bool {
        let Some(villainy) = &self.villainy else {
            return false;
        };
        match alarm {
            Alarm::Refused {
                group, seq, device, ..
            } => *device == Some(villainy.device) || self.is_crime(*group, *seq),
            Alarm::FalseAttestation { device, .. } => *device == villainy.device,
            _ => false,
        }
    }
}
