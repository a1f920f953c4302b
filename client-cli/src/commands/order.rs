//! Giving an order, and watching it take effect, group by group.

use std::collections::BTreeMap;
use std::time::Duration;

use mortise_protocol::engine::{CommandKind, Event, OrderGroup};
use mortise_protocol::identity::{GroupId, RosterSeq, UserId};
use mortise_protocol::roster::UserStatus;
use mortise_protocol::wire::{GroupState, Refusal};
use tokio::time::Instant;

use super::Context;
use crate::error::CliError;
use crate::names::Names;
use crate::output::Report;

/// How often the relay is asked.
const POLL: Duration = Duration::from_millis(200);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What an order does to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure<'a> {
    /// For good.
    Removal {
        /// Who inherits the groups that lose their last admin, as it was typed.
        successor: Option<&'a str>,
    },
    /// Until they are invited again.
    Suspension,
}

impl Measure<'_> {
    fn word(self) -> &'static str {
        match self {
            Self::Removal { .. } => "removal",
            Self::Suspension => "suspension",
        }
    }

    fn command(self, names: &Names, user: UserId) -> Result<CommandKind, CliError> {
        Ok(match self {
            Self::Removal { successor: None } => CommandKind::RemoveUser { user },
            Self::Removal {
                successor: Some(given),
            } => {
                let successor = names.find_user(given)?;
                CommandKind::RemoveUserFor { user, successor }
            }
            Self::Suspension => CommandKind::SuspendUser { user },
        })
    }

    /// The order that has done it already.
    fn earlier(self, status: UserStatus) -> Result<Option<RosterSeq>, CliError> {
        match (self, status) {
            (Self::Removal { .. }, UserStatus::Removed { at })
            | (Self::Suspension, UserStatus::Suspended { at }) => Ok(Some(at)),
            (Self::Suspension, UserStatus::Removed { .. }) => Err(CliError::NotNow {
                what: "the user was removed from the organisation already".into(),
                advice: "nothing needs doing; `mortise users --all` shows it",
            }),
            _ => Ok(None),
        }
    }
}

/// Orders something against a user, and shows how it takes effect.
///
/// # Errors
/// Why it could not be given; [`CliError::Sealed`].
pub(super) async fn against(
    cx: &Context,
    given: &str,
    measure: Measure<'_>,
    wait: Duration,
) -> Result<(), CliError> {
    cx.sync().await?;
    let names = cx.names().await?;
    let user = names.find_user(given)?;
    let (myself, status) = cx
        .session
        .query(move |engine| {
            let status = engine.roster().user(user).map(|record| record.status);
            (engine.user() == user, status)
        })
        .await?;
    let earlier = status.map_or(Ok(None), |status| measure.earlier(status))?;
    let seq = give(cx, earlier, measure.command(&names, user)?).await?;
    let report = Report::Ordered {
        measure: measure.word(),
        seq: seq.0,
        user: Some(user.to_string()),
        name: names.user(user),
        device: None,
        and_devices: Vec::new(),
        already: earlier.is_some(),
    };
    cx.out.report(&report).await?;
    if myself {
        return without_this_device(cx).await;
    }
    follow(cx, seq, wait).await
}

/// The order was against this device, too: it cannot look how the groups stand.
pub(super) async fn without_this_device(cx: &Context) -> Result<(), CliError> {
    cx.out
        .note("this device is out, too; the others finish the groups")
        .await;
    Ok(())
}

/// Gives an order, unless it was given `earlier`; returns where it is on the roster.
///
/// # Errors
/// Why it could not be given.
pub(super) async fn give(
    cx: &Context,
    earlier: Option<RosterSeq>,
    kind: CommandKind,
) -> Result<RosterSeq, CliError> {
    if let Some(seq) = earlier {
        return Ok(seq);
    }
    cx.carry_out("the order", kind, |event| match event {
        Event::Ordered { order, .. } => Some(order),
        _ => None,
    })
    .await
}

/// Shows how every group stands with regard to the order, until none is sealed or `wait` has passed.
///
/// # Errors
/// [`CliError::Sealed`] if some still are; the order stands whatever this returns.
pub(super) async fn follow(cx: &Context, order: RosterSeq, wait: Duration) -> Result<(), CliError> {
    let began = Instant::now();
    let mut shown = BTreeMap::new();
    let mut fenced = false;
    let groups = loop {
        let answer = ask(cx, order, wait.saturating_sub(began.elapsed()).max(ANSWER)).await;
        match answer {
            Ok(Standing {
                appended_at_ms,
                closed,
                groups,
            }) => {
                if !std::mem::replace(&mut fenced, true) {
                    let report = Report::OrderFenced {
                        seq: order.0,
                        at_ms: appended_at_ms,
                        connections_closed: closed,
                    };
                    cx.out.report(&report).await?;
                }
                show_changes(cx, &mut shown, &groups).await;
                if began.elapsed() >= wait || count(&groups, GroupState::Sealed) == 0 {
                    break groups;
                }
            }
            Err(error) if began.elapsed() >= wait || !is_passing(&error) => {
                cx.out
                    .note("the order stands; how the groups stand is not known")
                    .await;
                return Err(error);
            }
            Err(_) => {}
        }
        tokio::time::sleep(POLL.min(wait.saturating_sub(began.elapsed()))).await;
    };
    summarise(cx, order, &groups, began.elapsed()).await
}

/// How an order stands.
struct Standing {
    appended_at_ms: u64,
    closed: u32,
    groups: Vec<OrderGroup>,
}

async fn ask(cx: &Context, order: RosterSeq, within: Duration) -> Result<Standing, CliError> {
    let kind = CommandKind::OrderStatus { order };
    let mut pending = cx.session.command(kind).await?;
    loop {
        if let Event::OrderStatus {
            appended_at_ms,
            closed,
            groups,
            ..
        } = pending.next("the order's status", within).await?
        {
            return Ok(Standing {
                appended_at_ms,
                closed,
                groups,
            });
        }
    }
}

fn is_passing(error: &CliError) -> bool {
    matches!(
        error,
        CliError::Unreachable { .. }
            | CliError::TimedOut { .. }
            | CliError::Refused(Refusal::HelloFirst)
    )
}

/// Progress, on stderr: groups whose state is news.
async fn show_changes(
    cx: &Context,
    shown: &mut BTreeMap<GroupId, GroupState>,
    groups: &[OrderGroup],
) {
    for group in groups {
        if shown.insert(group.group, group.state) != Some(group.state) {
            let id = group.group.to_string();
            let name = group.name.as_deref().unwrap_or(&id[..8]);
            cx.out.note(&format!("{name}: {}", word(group.state))).await;
        }
    }
}

async fn summarise(
    cx: &Context,
    order: RosterSeq,
    groups: &[OrderGroup],
    waited: Duration,
) -> Result<(), CliError> {
    for group in groups {
        let report = Report::OrderGroup {
            seq: order.0,
            group: group.group.to_string(),
            group_name: group.name.clone(),
            state: word(group.state),
            attested_by: group.attested_by.iter().map(ToString::to_string).collect(),
            at_ms: group.at_ms,
            rotated_at_ms: group.rotated_at_ms,
            confirmed_at_ms: group.confirmed_at_ms,
        };
        cx.out.report(&report).await?;
    }
    let sealed = count(groups, GroupState::Sealed);
    let report = Report::OrderResult {
        seq: order.0,
        groups: groups.len(),
        rotated: count(groups, GroupState::Rotated),
        clean: count(groups, GroupState::Clean),
        sealed,
        waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
    };
    cx.out.report(&report).await?;
    if sealed == 0 {
        return Ok(());
    }
    Err(CliError::Sealed {
        sealed,
        groups: groups.len(),
    })
}

fn count(groups: &[OrderGroup], state: GroupState) -> usize {
    groups.iter().filter(|group| group.state == state).count()
}

pub(super) fn word(state: GroupState) -> &'static str {
    match state {
        GroupState::Sealed => "sealed",
        GroupState::Rotated => "rotated",
        GroupState::Clean => "clean",
        GroupState::Ended => "ended",
    }
}
