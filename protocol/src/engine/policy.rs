//! Changes of a group's policy that its admins ask for (REQ-120).

use super::outbound::Work;
use super::rows::{self, INTENTS};
use super::state::State;
use super::{CommandError, EngineError, Event, IntentId, PolicyChange};
use crate::group::validate::{self, CommitView, Leaf};
use crate::group::{Changes, GroupPolicy, MAX_GROUP_NAME_BYTES, MAX_TOPIC_BYTES, ReadKeyPackage};
use crate::store::Tx;

/// Why a change does not fit into any policy, if so.
pub(super) fn too_long(change: &PolicyChange) -> Option<CommandError> {
    let (length, limit) = match change {
        PolicyChange::Name(name) => (name.len(), MAX_GROUP_NAME_BYTES),
        PolicyChange::Topic(topic) => (topic.len(), MAX_TOPIC_BYTES),
        _ => return None,
    };
    (length > limit).then_some(CommandError::TooLong { length, limit })
}

impl State {
    /// Returns whether the intents after this one have to wait.
    pub(super) fn pursue_change(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        number: u64,
        change: &PolicyChange,
    ) -> Result<bool, EngineError> {
        let present = work.group.policy();
        let mut wanted = present.clone();
        wanted.apply(change);
        let refused = self.refuses_change(work, &wanted, change);
        if let Some(error) = refused {
            self.fail_intent(tx, work.id, number, error);
            return Ok(false);
        }
        if wanted == *present {
            tx.delete(INTENTS, rows::key(work.id, number));
            let id = IntentId(number);
            self.event(Event::Done { id });
            return Ok(false);
        }
        self.set_in_flight(tx, work.id, number, true)?;
        let changes = Changes {
            policy: Some(wanted),
            ..Changes::default()
        };
        self.commit(tx, work, Some(number), changes)?;
        Ok(true)
    }

    /// Completes a commit by the policy that its removals, leaves and additions call for (REQ-125).
    pub(super) fn settle_policy(
        &self,
        work: &Work<'_>,
        changes: &mut Changes,
    ) -> Result<(), EngineError> {
        let group = &*work.group;
        let me = group
            .own_leaf()
            .ok_or(EngineError::Bug("find its own leaf"))?;
        let leaves = group.leavers();
        let adds: Vec<_> = changes.adds.iter().map(ReadKeyPackage::leaf).collect();
        let removed = |leaf: &&Leaf| changes.removes.contains(&leaf.device);
        let by_value = group.leaves().iter().filter(removed);
        let view = CommitView {
            s: self.roster.head().seq,
            committer: me,
            committer_after: me,
            before: group.leaves(),
            adds: &adds,
            removes: &by_value.chain(&leaves).copied().collect::<Vec<_>>(),
            leaves: &leaves,
            resyncs: &[],
            policy: group.policy(),
            new_policy: None,
            other_proposals: false,
        };
        let wanted = changes.policy.as_ref().unwrap_or(view.policy);
        let settled = validate::settled_policy(&self.roster, &view, wanted);
        changes.policy = (settled != *view.policy).then_some(settled);
        Ok(())
    }

    /// Why this user may not have this policy here, if so: what others would refuse is not sent.
    fn refuses_change(
        &self,
        work: &Work<'_>,
        wanted: &GroupPolicy,
        change: &PolicyChange,
    ) -> Option<CommandError> {
        let is_in = |user| work.group.leaves().iter().any(|l| l.user == user);
        if !work.group.policy().is_admin(self.identity.user) {
            return Some(CommandError::NotGroupAdmin);
        }
        match change {
            PolicyChange::AddAdmin(user) if !is_in(*user) => Some(CommandError::NotInGroup),
            PolicyChange::RemoveAdmin(_) if !wanted.admins.iter().any(|u| is_in(*u)) => {
                Some(CommandError::LastAdmin)
            }
            _ => None,
        }
    }
}
