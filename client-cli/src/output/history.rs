//! Lines of a group's history, as JSON and as text.

use mortise_protocol::engine::{HistoryKind, HistoryRecord, PolicyChange, WhoMayAdd};
use mortise_protocol::identity::{GroupId, UserId};
use serde::Serialize;

use super::Person;
use super::rows::days;
use super::words::{indented, named, one_line, people, person, short, utc};
use crate::names::Names;

/// What every line of a group's history has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryLine {
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// The group's id, hex.
    pub group: String,
    /// Its name.
    pub group_name: Option<String>,
    /// Position in the group's log.
    pub seq: u64,
    /// Who, hex; null if unknown.
    pub user: Option<String>,
    /// Their name.
    pub name: Option<String>,
    /// The MLS epoch.
    pub epoch: u64,
    /// The relay's clock, ms since 1970.
    pub at_ms: u64,
}

/// What happened in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it, and the text form shows it")]
pub enum What {
    Message {
        text: String,
    },
    Unsupported,
    OwnUnknown,
    Opened,
    Added {
        users: Vec<Person>,
    },
    Removed {
        users: Vec<Person>,
    },
    Left {
        users: Vec<Person>,
    },
    Changed {
        changes: Vec<PolicyChanged>,
    },
    Rotated {
        order: u64,
        users: Vec<Person>,
        left: Vec<Person>,
    },
    Refreshed,
    Refused {
        reason: String,
    },
    Faulty {
        device: String,
        reason: String,
    },
    Continued {
        successor: String,
        reason: String,
    },
    Gap {
        from: u64,
        to: u64,
        policy_changed: bool,
    },
}

/// A change of a group's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it, and the text form shows it")]
pub enum PolicyChanged {
    Name { to: String },
    Topic { to: String },
    AdminAdded(Person),
    AdminRemoved(Person),
    WhoMayAdd { to: &'static str },
    Retention { days: Option<u32> },
}

/// Changes of a group's policy, with the names of who is meant.
#[must_use]
pub fn policy_changes(changes: &[PolicyChange], names: &Names) -> Vec<PolicyChanged> {
    let changed = |change: &PolicyChange| match change {
        PolicyChange::Name(name) => PolicyChanged::Name { to: name.clone() },
        PolicyChange::Topic(topic) => PolicyChanged::Topic { to: topic.clone() },
        PolicyChange::AddAdmin(user) => PolicyChanged::AdminAdded(names.person(*user)),
        PolicyChange::RemoveAdmin(user) => PolicyChanged::AdminRemoved(names.person(*user)),
        PolicyChange::WhoMayAdd(who) => PolicyChanged::WhoMayAdd {
            to: who_may_add(*who),
        },
        PolicyChange::Retention(days) => PolicyChanged::Retention { days: *days },
    };
    changes.iter().map(changed).collect()
}

/// The word for who may add members to a group.
#[must_use]
pub fn who_may_add(who: WhoMayAdd) -> &'static str {
    match who {
        WhoMayAdd::Admins => "admins",
        WhoMayAdd::Members => "members",
    }
}

impl PolicyChanged {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Name { to } => format!("renamed to {}", one_line(to)),
            Self::Topic { to } if to.is_empty() => "no topic any more".into(),
            Self::Topic { to } => format!("the topic is {}", one_line(to)),
            Self::AdminAdded(user) => format!("{} is an admin", person(user)),
            Self::AdminRemoved(user) => format!("{} is no admin any more", person(user)),
            Self::WhoMayAdd { to } => format!("{to} may add"),
            Self::Retention { days: None } => "messages are kept for ever".into(),
            Self::Retention { days: Some(n) } => format!("messages are kept for {}", days(*n)),
        }
    }
}

impl HistoryLine {
    /// A line as it is stored.
    #[must_use]
    pub fn new(group: GroupId, record: &HistoryRecord, names: &Names) -> Self {
        Self {
            what: What::new(&record.kind, names),
            group: group.to_string(),
            group_name: names.group(group),
            seq: record.seq.0,
            user: record.user.map(|user| user.to_string()),
            name: record.user.and_then(|user| names.user(user)),
            epoch: record.epoch,
            at_ms: record.at_ms,
        }
    }

    /// The line as people read it.
    pub(super) fn text(&self) -> String {
        let group = named(&self.group, self.group_name.as_deref());
        let prefix = format!("[{group} {}] {}", self.seq, utc(self.at_ms));
        let by = self
            .user
            .as_deref()
            .map(|user| named(user, self.name.as_deref()));
        match (&self.what, by) {
            (What::Message { text }, by) => {
                let by = by.unwrap_or_else(|| "?".into());
                format!("{prefix} {by}: {}", indented(text))
            }
            (what, Some(by)) => format!("{prefix} * {} (by {by})", what.text()),
            (what, None) => format!("{prefix} * {}", what.text()),
        }
    }
}

impl What {
    fn new(kind: &HistoryKind, names: &Names) -> Self {
        let people = |users: &[UserId]| users.iter().map(|user| names.person(*user)).collect();
        match kind {
            HistoryKind::Text(text) => Self::Message { text: text.clone() },
            HistoryKind::Unsupported => Self::Unsupported,
            HistoryKind::OwnUnknown => Self::OwnUnknown,
            HistoryKind::Opened => Self::Opened,
            HistoryKind::Added(users) => Self::Added {
                users: people(users),
            },
            HistoryKind::Removed(users) => Self::Removed {
                users: people(users),
            },
            HistoryKind::Left(users) => Self::Left {
                users: people(users),
            },
            HistoryKind::Changed(changes) => Self::Changed {
                changes: policy_changes(changes, names),
            },
            HistoryKind::Rotated { order, users, left } => Self::Rotated {
                order: order.0,
                users: people(users),
                left: people(left),
            },
            HistoryKind::Refreshed => Self::Refreshed,
            HistoryKind::Refused(reason) => Self::Refused {
                reason: reason.clone(),
            },
            HistoryKind::Faulty { device, reason } => Self::Faulty {
                device: device.to_string(),
                reason: reason.clone(),
            },
            HistoryKind::Continued { successor, reason } => Self::Continued {
                successor: successor.to_string(),
                reason: reason.clone(),
            },
            HistoryKind::Gap {
                from,
                to,
                policy_changed,
            } => Self::Gap {
                from: from.0,
                to: to.0,
                policy_changed: *policy_changed,
            },
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Message { text } => one_line(text),
            Self::Unsupported => "a message that this version cannot show".into(),
            Self::OwnUnknown => "a message of this device from a state that is lost".into(),
            Self::Opened => "the group is open on this device".into(),
            Self::Added { users } => format!("added {}", people(users)),
            Self::Removed { users } => format!("removed {}", people(users)),
            Self::Left { users } => format!("{} left", people(users)),
            Self::Changed { changes } => {
                let changes: Vec<_> = changes.iter().map(PolicyChanged::text).collect();
                format!("changed: {}", changes.join("; "))
            }
            Self::Rotated { order, users, left } => {
                let rotated = format!("keys rotated by order {order} against {}", people(users));
                match left.as_slice() {
                    [] => rotated,
                    left => format!("{rotated}; {} left", people(left)),
                }
            }
            Self::Refreshed => "keys refreshed".into(),
            Self::Refused { reason } => format!("a record was refused: {}", one_line(reason)),
            Self::Faulty { device, reason } => format!(
                "device {} sent a commit that nobody follows: {}",
                short(device),
                one_line(reason)
            ),
            Self::Continued { successor, reason } => format!(
                "the conversation goes on in group {}: {}",
                short(successor),
                one_line(reason)
            ),
            Self::Gap {
                from,
                to,
                policy_changed,
            } => format!(
                "this device missed {}{}",
                if from == to {
                    format!("record {from}")
                } else {
                    format!("records {from} to {to}")
                },
                if *policy_changed {
                    "; the group's policy has changed"
                } else {
                    ""
                }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Report;
    use mortise_protocol::identity::LogSeq;

    const USER: UserId = UserId([0xab; 16]);
    const GROUP: GroupId = GroupId([0xcd; 32]);

    fn message(text: &str, name: &str) -> Report {
        let record = HistoryRecord {
            seq: LogSeq(12),
            at_ms: 0,
            device: None,
            user: Some(USER),
            epoch: 1,
            kind: HistoryKind::Text(text.into()),
        };
        let names = Names::of([(USER, Some(name), true)], [(GROUP, "team")]);
        Report::History(HistoryLine::new(GROUP, &record, &names))
    }

    #[test]
    fn a_message_has_the_documented_shape() {
        let json: serde_json::Value =
            serde_json::from_str(&message("hi\u{1b}[0m", "Ann").json().expect("json"))
                .expect("one line of JSON");
        let expected = serde_json::json!({
            "event": "message", "group": GROUP.to_string(), "group_name": "team", "seq": 12,
            "user": USER.to_string(), "name": "Ann", "epoch": 1, "at_ms": 0, "text": "hi\u{1b}[0m",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn nobody_can_write_a_line_that_looks_like_another_s() {
        assert_eq!(
            message("hi", "Ann").text(),
            "[team 12] 1970-01-01 00:00:00Z Ann: hi"
        );
        let forged = message("x\n[team 13] 1970-01-01 00:00:00Z Bob: y\u{1b}[1A", "An\nn");
        assert_eq!(
            forged.text(),
            "[team 12] 1970-01-01 00:00:00Z An\u{FFFD}n: x\n    | [team 13] 1970-01-01 00:00:00Z Bob: y\u{FFFD}[1A"
        );
    }
}
