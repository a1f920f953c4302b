//! One line of somebody's history, held against everybody else's.

use mortise_protocol::engine::{HistoryKind, HistoryRecord};
use mortise_protocol::identity::{GroupId, LogSeq, RosterSeq};

use super::Broken;
use super::model::Model;
use crate::world::{PersonId, World};

impl Model {
    /// Checks a line that somebody was just told of; returns whether the group's members may have changed.
    pub(super) fn watch_line(
        &mut self,
        world: &World,
        who: PersonId,
        group: GroupId,
        seq: LogSeq,
    ) -> Result<bool, Broken> {
        let person = &world.people[who.0];
        let place = format!("{}, {group:?} at {seq}", person.name);
        let is_new = self.lines.insert((who, group, seq));
        let lines = person
            .engine()
            .messages(group, LogSeq(seq.0.saturating_sub(1)), 1)
            .map_err(|e| Broken::new("an engine names its own defect", e.to_string()))?;
        let Some(line) = lines.into_iter().find(|line| line.seq == seq) else {
            return Err(Broken::new(
                "nothing is lost",
                format!("{place}: announced and not stored"),
            ));
        };
        // What a resync made it miss may end with a commit that it has read; so may what took it out and let it in anew.
        let begins_anew = matches!(line.kind, HistoryKind::Gap { .. } | HistoryKind::Opened);
        if !is_new && !begins_anew {
            return Err(Broken::new("nothing twice", format!("{place}: told twice")));
        }
        let said = match self.is_crime(group, seq) {
            // Some may see what is wrong with it, and others not.
            true => None,
            false => self.check_line(world, who, group, &line, &place)?,
        };
        if let Some(said) = said {
            if said.starts_with("rotated") && !self.contents.contains_key(&(group, seq)) {
                self.count("rotations");
            }
            let known = self
                .contents
                .entry((group, seq))
                .or_insert_with(|| said.clone());
            if *known != said {
                return Err(Broken::new(
                    "one order everywhere",
                    format!("{place}: {said}, others {known}"),
                ));
            }
        }
        Ok(!matches!(line.kind, HistoryKind::Text(_)))
    }

    /// What the line says, comparable between devices; `None` for what only its owner sees.
    pub(super) fn check_line(
        &mut self,
        world: &World,
        who: PersonId,
        group: GroupId,
        line: &HistoryRecord,
        place: &str,
    ) -> Result<Option<String>, Broken> {
        match &line.kind {
            HistoryKind::Text(token) => {
                self.check_text(world, who, group, line, token, place)?;
                Ok(Some(format!("text {token}")))
            }
            HistoryKind::OwnUnknown | HistoryKind::Unsupported => Err(Broken::new(
                "nothing is lost",
                format!("{place}: {:?}", line.kind),
            )),
            HistoryKind::Refused(why) => Err(Broken::new(
                "no alarm when nobody lies",
                format!("{place}: {why}"),
            )),
            HistoryKind::Opened | HistoryKind::Gap { .. } => Ok(None),
            HistoryKind::Rotated { order, .. } => Ok(Some(format!("rotated for {order}"))),
            other => Ok(Some(format!("{other:?}"))),
        }
    }

    fn check_text(
        &mut self,
        world: &World,
        who: PersonId,
        group: GroupId,
        line: &HistoryRecord,
        token: &str,
        place: &str,
    ) -> Result<(), Broken> {
        self.place(token, (group, line.seq))?;
        let author = self.texts.get(token).map(|sent| sent.who);
        let device = author.map(|author| world.people[author.0].device());
        if line.device != device {
            return Err(Broken::new(
                "a text is its author's",
                format!("{place}: {token}"),
            ));
        }
        let me = world.people[who.0].device();
        if let Some(gone) = self.departed.get(&me)
            && self.fence_of(group, line.seq) >= Some(gone.order)
        {
            return Err(Broken::new(
                "a removed device reads nothing that came after the order",
                format!("{place}: {token}"),
            ));
        }
        if let Some(tree) = self.tree(group, line.epoch)
            && !tree.contains(&me)
        {
            return Err(Broken::new(
                "nobody reads what they must not",
                format!("{place}: {token}, epoch {}", line.epoch),
            ));
        }
        self.reads.insert((group, line.epoch, me));
        Ok(())
    }

    /// The fence of a record in the relay's log.
    pub(super) fn fence_of(&self, group: GroupId, seq: LogSeq) -> Option<RosterSeq> {
        let index = usize::try_from(seq.0).ok()?.checked_sub(1)?;
        Some(self.logs.get(&group)?.get(index)?.record.fence)
    }
}
