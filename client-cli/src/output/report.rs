//! Every result that a command can print. The names of fields and events are stable: scripts depend on them.

use mortise_protocol::engine::{HistoryKind, HistoryRecord};
use mortise_protocol::identity::{GroupId, UserId};
use serde::Serialize;

use crate::error::CliError;
use crate::names::Names;

/// A user; `name` is null while the organisation's names cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Person {
    /// The user's id, hex.
    pub user: String,
    /// The display name.
    pub name: Option<String>,
}

/// What every line of a group's history has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryLine {
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

/// A row of `mortise users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Who.
    #[serde(flatten)]
    pub person: Person,
    /// `owner`, `admin`, …; the last one, for a removed user.
    pub role: String,
    /// `active`, `invited` (no device yet), `suspended` or `removed`.
    pub status: &'static str,
    /// How many admitted devices.
    pub devices: usize,
    /// Whether it is the user of this device.
    pub me: bool,
}

/// A row of `mortise devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The device's id, hex.
    pub device: String,
    /// Whose.
    #[serde(flatten)]
    pub person: Person,
    /// `admitted` or `revoked`.
    pub status: &'static str,
    /// The roster entry that admitted it.
    pub added: u64,
    /// The order that revoked it.
    pub revoked: Option<u64>,
    /// Whether it is this device.
    pub this: bool,
}

/// `mortise whoami`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Whoami {
    /// The organisation's id, hex: the hash of its root key.
    pub org: String,
    /// Who.
    #[serde(flatten)]
    pub person: Person,
    /// Their role; null once removed.
    pub role: Option<String>,
    /// This device's id, hex.
    pub device: String,
    /// `host:port`.
    pub relay: String,
    /// SHA-256 of the relay's public key, hex.
    pub relay_key: String,
    /// The newest roster entry that is known here.
    pub roster_seq: u64,
    /// Whether this device was put out.
    pub expelled: bool,
}

/// A member of a group, with those of their devices that are in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Who.
    #[serde(flatten)]
    pub person: Person,
    /// Their devices in the group, hex.
    pub devices: Vec<String>,
    /// Whether they are an admin of the group.
    pub admin: bool,
}

/// `mortise group info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupInfo {
    /// The group's id, hex.
    pub group: String,
    /// Its name.
    pub group_name: String,
    /// `active`, `removed` or `stopped`.
    pub status: &'static str,
    /// Why it is stopped.
    pub reason: Option<String>,
    /// The MLS ciphersuite, as `0x004F`.
    pub suite: String,
    /// The MLS epoch.
    pub epoch: u64,
    /// The MLS epoch authenticator, hex: equal on all members' devices in the same epoch.
    pub epoch_authenticator: String,
    /// By user.
    pub members: Vec<Member>,
}

/// One result: one line of JSON, or what [`Report::text`] makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it, and the text form shows it")]
pub enum Report {
    OrgCreated {
        org: String,
        user: String,
        device: String,
        name: String,
        suite: String,
        root_key_file: String,
    },
    Joined {
        org: String,
        user: String,
        device: String,
    },
    Invited {
        user: String,
        name: Option<String>,
        invitation: String,
        expires_at_ms: Option<u64>,
        link: String,
    },
    User(User),
    Device(Device),
    Whoami(Whoami),
    SafetyNumber {
        user: String,
        name: Option<String>,
        number: String,
    },
    RosterEntry {
        seq: u64,
        hash: String,
        at_ms: u64,
        signer: String,
        changes: Vec<String>,
    },
    RosterVerified {
        org: String,
        entries: u64,
        head_hash: String,
    },
    RoleSet {
        user: String,
        name: Option<String>,
        role: String,
    },
    Ordered {
        seq: u64,
        user: Option<String>,
        name: Option<String>,
        device: Option<String>,
        already: bool,
    },
    OrderGroup {
        seq: u64,
        group: String,
        group_name: Option<String>,
        state: &'static str,
        attested_by: Vec<String>,
        at_ms: u64,
    },
    OrderResult {
        seq: u64,
        groups: usize,
        rotated: usize,
        clean: usize,
        sealed: usize,
        waited_ms: u64,
    },
    GroupCreated {
        group: String,
        group_name: String,
    },
    MembersAdded {
        group: String,
        group_name: Option<String>,
        users: Vec<Person>,
    },
    MemberRemoved {
        group: String,
        group_name: Option<String>,
        user: String,
        name: Option<String>,
    },
    Group {
        group: String,
        group_name: String,
        status: &'static str,
        epoch: u64,
        members: usize,
        devices: usize,
    },
    GroupInfo(GroupInfo),
    Appended {
        group: String,
        group_name: Option<String>,
        seq: u64,
    },

    Message {
        #[serde(flatten)]
        line: HistoryLine,
        text: String,
    },
    Unsupported {
        #[serde(flatten)]
        line: HistoryLine,
    },
    OwnUnknown {
        #[serde(flatten)]
        line: HistoryLine,
    },
    Opened {
        #[serde(flatten)]
        line: HistoryLine,
    },
    Added {
        #[serde(flatten)]
        line: HistoryLine,
        users: Vec<Person>,
    },
    Removed {
        #[serde(flatten)]
        line: HistoryLine,
        users: Vec<Person>,
    },
    Left {
        #[serde(flatten)]
        line: HistoryLine,
        users: Vec<Person>,
    },
    Changed {
        #[serde(flatten)]
        line: HistoryLine,
    },
    Rotated {
        #[serde(flatten)]
        line: HistoryLine,
        order: u64,
        users: Vec<Person>,
    },
    Refreshed {
        #[serde(flatten)]
        line: HistoryLine,
    },
    Refused {
        #[serde(flatten)]
        line: HistoryLine,
        reason: String,
    },
    Faulty {
        #[serde(flatten)]
        line: HistoryLine,
        device: String,
        reason: String,
    },
    Continued {
        #[serde(flatten)]
        line: HistoryLine,
        successor: String,
        reason: String,
    },
    Gap {
        #[serde(flatten)]
        line: HistoryLine,
        from: u64,
        to: u64,
        policy_changed: bool,
    },

    Listening,
    GroupJoined {
        group: String,
        group_name: Option<String>,
    },
    RosterChanged {
        seq: u64,
    },
    NamesOpened,
    Expelled,
    Alarm {
        kind: &'static str,
        group: Option<String>,
        seq: Option<u64>,
        device: Option<String>,
        message: String,
    },
    Error {
        code: &'static str,
        message: String,
        advice: &'static str,
        exit: u8,
        queued: bool,
    },
}

impl Report {
    /// What ended a command.
    #[must_use]
    pub fn error(error: &CliError) -> Self {
        Self::Error {
            code: error.exit().name(),
            message: error.to_string(),
            advice: error.advice(),
            exit: error.exit().number(),
            queued: error.is_queued(),
        }
    }

    /// A line of a group's history.
    #[must_use]
    pub fn history(group: GroupId, record: &HistoryRecord, names: &Names) -> Self {
        let line = HistoryLine {
            group: group.to_string(),
            group_name: names.group(group),
            seq: record.seq.0,
            user: record.user.map(|user| user.to_string()),
            name: record.user.and_then(|user| names.user(user)),
            epoch: record.epoch,
            at_ms: record.at_ms,
        };
        let people = |users: &[UserId]| users.iter().map(|user| names.person(*user)).collect();
        match &record.kind {
            HistoryKind::Text(text) => Self::Message {
                line,
                text: text.clone(),
            },
            HistoryKind::Unsupported => Self::Unsupported { line },
            HistoryKind::OwnUnknown => Self::OwnUnknown { line },
            HistoryKind::Opened => Self::Opened { line },
            HistoryKind::Added(users) => Self::Added {
                line,
                users: people(users),
            },
            HistoryKind::Removed(users) => Self::Removed {
                line,
                users: people(users),
            },
            HistoryKind::Left(users) => Self::Left {
                line,
                users: people(users),
            },
            HistoryKind::Changed(_) => Self::Changed { line },
            HistoryKind::Rotated { order, users, .. } => Self::Rotated {
                line,
                order: order.0,
                users: people(users),
            },
            HistoryKind::Refreshed => Self::Refreshed { line },
            HistoryKind::Refused(reason) => Self::Refused {
                line,
                reason: reason.clone(),
            },
            HistoryKind::Faulty { device, reason } => Self::Faulty {
                line,
                device: device.to_string(),
                reason: reason.clone(),
            },
            HistoryKind::Continued { successor, reason } => Self::Continued {
                line,
                successor: successor.to_string(),
                reason: reason.clone(),
            },
            HistoryKind::Gap {
                from,
                to,
                policy_changed,
            } => Self::Gap {
                line,
                from: from.0,
                to: to.0,
                policy_changed: *policy_changed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_protocol::identity::LogSeq;

    const USER: UserId = UserId([0xab; 16]);
    const GROUP: GroupId = GroupId([0xcd; 32]);

    fn json(report: &Report) -> serde_json::Value {
        serde_json::from_str(&report.json().expect("json")).expect("one line of JSON")
    }

    #[test]
    fn a_message_has_the_documented_shape() {
        let record = HistoryRecord {
            seq: LogSeq(7),
            at_ms: 1_000,
            device: None,
            user: Some(USER),
            epoch: 3,
            kind: HistoryKind::Text("hi\u{1b}[0m".into()),
        };
        let names = Names::of([(USER, Some("Ann"), true)], [(GROUP, "team")]);
        let expected = serde_json::json!({
            "event": "message", "group": GROUP.to_string(), "group_name": "team", "seq": 7,
            "user": USER.to_string(), "name": "Ann", "epoch": 3, "at_ms": 1000, "text": "hi\u{1b}[0m",
        });
        assert_eq!(json(&Report::history(GROUP, &record, &names)), expected);
    }

    #[test]
    fn other_events_have_the_documented_shapes() {
        let appended = Report::Appended {
            group: "aa".into(),
            group_name: None,
            seq: 1,
        };
        assert_eq!(
            json(&appended),
            serde_json::json!({"event": "appended", "group": "aa", "group_name": null, "seq": 1})
        );
        assert_eq!(
            json(&Report::Listening),
            serde_json::json!({"event": "listening"})
        );
        assert_eq!(
            json(&Report::Expelled),
            serde_json::json!({"event": "expelled"})
        );
        let user = Report::User(User {
            person: Person {
                user: "aa".into(),
                name: Some("Ann".into()),
            },
            role: "owner".into(),
            status: "active",
            devices: 1,
            me: true,
        });
        assert_eq!(
            json(&user),
            serde_json::json!({"event": "user", "user": "aa", "name": "Ann", "role": "owner",
                               "status": "active", "devices": 1, "me": true})
        );
        let error = json(&Report::error(&CliError::WrongPassphrase));
        assert_eq!(error["event"], "error");
        assert_eq!(error["code"], "passphrase");
        assert_eq!(error["exit"], 4);
        assert_eq!(error["queued"], false);
    }
}
