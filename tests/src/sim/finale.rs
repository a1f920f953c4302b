//! The end of a seed: everything is healed, everybody comes back, and all must agree.

use std::collections::BTreeSet;

use mortise_protocol::engine::{CommandKind, HistoryKind};
use mortise_protocol::identity::{GroupId, LogSeq, RosterSeq};
use mortise_protocol::wire::GroupState;

use super::Broken;
use super::mischief::Mischief;
use super::model::RecordKind;
use super::scenario::Scenario;
use crate::world::PersonId;

impl Scenario {
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        self.of_each(|this| {
            this.welcome_the_invited();
            Ok(())
        })?;
        self.world.heal();
        self.end_mischief();
        if self.model.villainy.is_some() {
            // What a villain has broken is mended by those who may, and they may be asleep.
            self.wake_everybody();
        }
        self.settle("with sleepers")?;
        self.model.is_over = true;
        self.of_each(Self::check_converged)?;
        self.wake_everybody();
        self.settle("with everybody")?;
        self.of_each(Self::check_end)
    }

    /// Holds of each organisation.
    fn of_each(&mut self, check: impl Fn(&mut Self) -> Result<(), Broken>) -> Result<(), Broken> {
        check(self)?;
        if self.turn_to_neighbours() {
            check(self)?;
            self.turn_to_neighbours();
        }
        Ok(())
    }

    fn check_end(&mut self) -> Result<(), Broken> {
        self.look_again()?;
        self.check_converged()?;
        self.model.check_fences()?;
        self.model.check_reads()?;
        self.check_everything_arrived()?;
        self.model
            .answers
            .check(&self.world, |who| self.is_awake(who))?;
        self.check_histories()?;
        self.check_order_status()?;
        self.try_departed()
    }

    /// An honest relay again, and new connections: what was withheld comes to light.
    pub(super) fn end_mischief(&mut self) {
        if self.options.plant.is_some() || self.world.liar.take().is_none() {
            return;
        }
        for who in (0..self.world.people.len()).map(PersonId) {
            if Mischief::plays_with(who) {
                self.world.disconnect(who);
            }
        }
    }

    fn look_again(&mut self) -> Result<(), Broken> {
        for who in self.everybody(|s, p| s.world.people[p.0].is_in()) {
            self.model.look_at_groups(&mut self.world, who)?;
        }
        Ok(())
    }

    /// Whoever is online is at the head of every group it is in, and no departed device is in such a group.
    fn check_converged(&mut self) -> Result<(), Broken> {
        let rule = "every quiet network converges";
        let online = self.everybody(Self::is_awake);
        for who in &online {
            let person = &self.world.people[who.0];
            if person.conn.is_none() || !person.engine().is_synced() {
                return Err(Broken::new(rule, format!("{} is not synced", person.name)));
            }
            self.model.look_at_groups(&mut self.world, *who)?;
        }
        self.check_successors(&online)?;
        for group in self.groups.clone() {
            let head = self.model.head_epoch(group).0;
            let name = |p: &PersonId| self.world.people[p.0].name.clone();
            let holders = online
                .iter()
                .filter(|p| self.model.held.get(&(**p, group)).is_some_and(|h| h.active));
            for who in holders {
                let Some(held) = self.model.held.get(&(*who, group)) else {
                    continue;
                };
                if held.epoch != head {
                    let detail =
                        format!("{} is at {} of {head} in {group:?}", name(who), held.epoch);
                    return Err(Broken::new(rule, detail));
                }
                if let Some(gone) = held
                    .members
                    .iter()
                    .find(|d| self.model.departed.contains_key(d))
                {
                    let detail = format!("{gone:?} is in {group:?} as {} sees it", name(who));
                    return Err(Broken::new("departed devices are in no tree", detail));
                }
            }
            let Some(tree) = self.model.tree(group, head) else {
                continue;
            };
            // Where all have asked to leave nobody is left to commit it: each has ended it for itself; so does who is the
            // only one left, and need not ask (REQ-123).
            let log = self.model.logs.get(&group).map_or(&[][..], Vec::as_slice);
            let asked = log
                .iter()
                .filter(|logged| logged.kind == RecordKind::Leave && logged.record.epoch.0 == head);
            let admitted = tree.iter().filter(|d| !self.model.departed.contains_key(d));
            if asked.count().max(1) >= admitted.count() {
                continue;
            }
            // Nor is anybody needed where the log has ended: who was taken on reads the next one.
            let is_held = |p: &PersonId| self.holds(*p, group);
            let has_ended = log.iter().any(|l| l.kind == RecordKind::Restart);
            if has_ended && !online.iter().any(is_held) {
                continue;
            }
            if self.model.has_lost_its_race(group) {
                continue;
            }
            let outside = online.iter().find(|p| {
                let member = tree.contains(&self.world.people[p.0].device());
                let held = self.model.held.get(&(**p, group));
                member && !held.is_some_and(|h| h.active || h.ended)
            });
            if let Some(who) = outside {
                let detail = format!(
                    "{} is in the tree of {group:?} and not in the group",
                    name(who)
                );
                return Err(Broken::new(rule, detail));
            }
        }
        Ok(())
    }

    /// A conversation goes on in one group, and whoever is in that one knows of it.
    fn check_successors(&self, online: &[PersonId]) -> Result<(), Broken> {
        for group in &self.groups {
            let held = online.iter().filter_map(|p| {
                let held = self.model.held.get(&(*p, *group))?;
                Some((*p, held.successor.filter(|_| held.ended)?))
            });
            let held: Vec<_> = held.collect();
            if let Some(pair) = held.windows(2).find(|pair| pair[0].1 != pair[1].1) {
                let detail = format!("{group:?}: {pair:?}");
                return Err(Broken::new("a conversation has one successor", detail));
            }
        }
        Ok(())
    }

    /// A text whose author is well and was not told otherwise is in the log.
    fn check_everything_arrived(&self) -> Result<(), Broken> {
        for (token, sent) in &self.model.texts {
            let author = &self.world.people[sent.who.0];
            let gone = self.model.departed.contains_key(&author.device());
            let is_out = gone || self.model.is_villain(sent.who);
            if sent.place.is_none() && !sent.failed && !is_out {
                let detail = format!("{token} of {} in {:?}", author.name, sent.group);
                return Err(Broken::new("nothing is lost", detail));
            }
        }
        Ok(())
    }

    /// Every device has every message of the epochs that it has been in without a break until now.
    fn check_histories(&self) -> Result<(), Broken> {
        for who in self.everybody(Self::is_awake) {
            for group in &self.groups {
                if self
                    .model
                    .held
                    .get(&(who, *group))
                    .is_some_and(|h| h.active)
                {
                    self.check_history(who, *group)?;
                }
            }
        }
        Ok(())
    }

    fn check_history(&self, who: PersonId, group: GroupId) -> Result<(), Broken> {
        let person = &self.world.people[who.0];
        let lines = person
            .engine()
            .messages(group, LogSeq(0), usize::MAX)
            .map_err(|e| Broken::new("an engine names its own defect", e.to_string()))?;
        let texts: BTreeSet<LogSeq> = lines
            .iter()
            .filter(|line| matches!(line.kind, HistoryKind::Text(_)))
            .map(|line| line.seq)
            .collect();
        // What a resync has made it miss is said (REQ-158).
        let gaps = lines.iter().filter_map(|line| match line.kind {
            HistoryKind::Gap { from, to, .. } => Some(from..=to),
            _ => None,
        });
        let gaps: Vec<_> = gaps.collect();
        let mut since = self.model.head_epoch(group).0;
        let in_tree = |epoch| {
            let tree = self.model.tree(group, epoch);
            tree.is_some_and(|tree| tree.contains(&person.device()))
        };
        while since > 0 && in_tree(since - 1) {
            since -= 1;
        }
        let log = self.model.logs.get(&group).into_iter().flatten();
        for logged in log.filter(|l| l.kind == RecordKind::Message && l.record.epoch.0 >= since) {
            let seq = logged.record.seq;
            if self.model.is_crime(group, seq) {
                continue;
            }
            if !texts.contains(&seq) && !gaps.iter().any(|gap| gap.contains(&seq)) {
                let said = self.model.contents.get(&(group, logged.record.seq));
                let detail = format!(
                    "{} has no {} of {group:?}: {said:?}",
                    person.name, logged.record.seq
                );
                return Err(Broken::new("nothing is lost", detail));
            }
        }
        Ok(())
    }

    /// What the owner is told: no group with a member online is sealed.
    fn check_order_status(&mut self) -> Result<(), Broken> {
        let owner = self.model.owner;
        let orders: Vec<_> = self.model.roster.orders().iter().map(|o| o.seq).collect();
        for order in orders {
            let id = self.command(owner, CommandKind::OrderStatus { order });
            self.settle("while the owner asks")?;
            let Some(groups) = self.model.statuses.get(&(owner, id)) else {
                return Err(Broken::new(
                    "the owner is told",
                    format!("nothing about {order}"),
                ));
            };
            for row in groups {
                let members = self.everybody(|s, p| {
                    s.is_awake(p) && s.model.held.get(&(p, row.group)).is_some_and(|h| h.active)
                });
                let told = match row.state {
                    GroupState::Sealed => "groups sealed",
                    GroupState::Rotated => "groups rotated",
                    GroupState::Clean => "groups clean",
                    GroupState::Ended => "groups ended",
                };
                *self.model.counts.entry(told).or_default() += 1;
                let villain = self.model.villainy.as_ref().map(|v| v.device);
                let is_word_of_villain = villain.is_some_and(|d| row.attested_by.contains(&d));
                if row.state == GroupState::Rotated
                    && !is_word_of_villain
                    && !self.was_rotated(row.group, order)
                {
                    let detail = format!("{:?} was not rotated for {order}", row.group);
                    return Err(Broken::new("who attests tells the truth", detail));
                }
                if row.state == GroupState::Sealed && !members.is_empty() {
                    let detail = format!("{:?} is sealed for {order}", row.group);
                    return Err(Broken::new("the owner is told", detail));
                }
            }
        }
        Ok(())
    }

    /// Whether a commit has taken a device of the order out of the group's tree.
    fn was_rotated(&self, group: GroupId, order: RosterSeq) -> bool {
        let Some(order) = self.model.roster.order(order) else {
            return false;
        };
        let head = self.model.head_epoch(group).0;
        (0..head).any(|epoch| {
            let (before, after) = (
                self.model.tree(group, epoch),
                self.model.tree(group, epoch + 1),
            );
            match (before, after) {
                (Some(before), Some(after)) => order
                    .devices
                    .iter()
                    .any(|d| before.contains(d) && !after.contains(d)),
                // Nobody who is left has seen one of the two.
                _ => true,
            }
        })
    }
}
