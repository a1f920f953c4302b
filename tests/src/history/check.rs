//! The checker: one function from a history to what is wrong with it.

use super::value::History;
use super::{linear, reads, rules};

/// A promise that a history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A log is gapless, from its creation.
    Gapless,
    /// Nothing is appended twice.
    Once,
    /// One commit closes an epoch, and the next record is of the next one (compare-and-swap).
    OneCommitPerEpoch,
    /// Nothing but Restarts comes after a Restart.
    NothingAfterTheEnd,
    /// A log's fence never falls, and is an order's seq.
    FenceHolds,
    /// A record is based on a roster at least as new as its fence and as its epoch's opening commit.
    BasedOnFence,
    /// Who appends is admitted under the record's fence.
    SenderAdmitted,
    /// What is in a log or in the roster was sent by somebody.
    Sent,
    /// What was acknowledged is where the answer said, with that fence.
    AcknowledgedIsThere,
    /// What was refused is nowhere.
    RefusedIsNowhere,
    /// A refusal is true at some moment while the call lasts.
    RefusalIsTrue,
    /// Every call takes effect at one moment between its invocation and its answer, in one order with all others.
    Linearizable,
    /// Every device is shown the one log.
    OneLog,
    /// A removed device is served nothing of what came after its order.
    RemovedIsServedNothing,
    /// No honest device's message stands in an epoch whose tree holds a device that the message's fence has removed.
    NoMessageForTheRemoved,
    /// Honest receivers accept no message from such an epoch, whoever sent it.
    StaleIsRefused,
    /// Honest receivers decide alike.
    JudgedAlike,
}

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The promise.
    pub rule: Rule,
    /// Where.
    pub detail: String,
}

impl Fault {
    pub(super) fn new(rule: Rule, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { rule, detail }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

/// What a history that keeps every promise has covered: a check of nothing proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls.
    pub calls: usize,
    /// Calls without an answer.
    pub unanswered: usize,
    /// Records that were appended while somebody watched.
    pub appends: usize,
    /// Commits among them.
    pub commits: usize,
    /// Orders given meanwhile.
    pub orders: usize,
    /// Records that a device sent before it knew of the order and that were refused for it.
    pub refused_behind: usize,
    /// Commits and messages that lost a race for an epoch.
    pub refused_epoch: usize,
    /// Calls by removed devices that were refused.
    pub refused_removed: usize,
    /// Messages by devices that do not keep the rules, into epochs that a removed device reads.
    pub stale_by_liars: usize,
    /// Judgements of those, each a refusal.
    pub stale_judged: usize,
    /// Judgements of messages.
    pub judged: usize,
    /// Records that were delivered.
    pub delivered: usize,
}

/// Checks a history against everything that the relay and honest devices promise (REQ-055, REQ-060 to REQ-062,
/// REQ-083, REQ-091).
///
/// # Errors
/// The first [`Fault`].
pub fn check(history: &History) -> Result<Tally, Fault> {
    let mut tally = Tally {
        calls: history.calls.len(),
        unanswered: history
            .calls
            .iter()
            .filter(|c| c.returned.is_none())
            .count(),
        delivered: history.deliveries.len(),
        judged: history.judgements.len(),
        ..Tally::default()
    };
    rules::check_logs(history)?;
    rules::check_answers(history, &mut tally)?;
    reads::check_deliveries(history)?;
    linear::check_order(history, &mut tally)?;
    reads::check_trees(history, &mut tally)?;
    Ok(tally)
}
