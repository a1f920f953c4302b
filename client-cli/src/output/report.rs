//! Every result that a command can print. The names of fields and events are stable: scripts depend on them.

use serde::Serialize;

use super::history::{HistoryLine, PolicyChanged};
use super::proof::{CertificateShown, Plan};
use super::rows::{Device, GroupInfo, Person, Policy, User, Whoami};
use crate::error::CliError;

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
    OrgRecovered {
        org: String,
        user: String,
        device: String,
        name: String,
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
        pin: Option<String>,
    },
    Policy(Policy),
    User(User),
    Device(Device),
    Whoami(Whoami),
    SafetyNumber {
        user: String,
        name: Option<String>,
        number: String,
        compared_at_ms: Option<u64>,
        changed: bool,
    },
    NumberChanged {
        user: String,
        name: Option<String>,
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
    ProfileSet {
        user: String,
        name: String,
    },
    Ordered {
        measure: &'static str,
        seq: u64,
        user: Option<String>,
        name: Option<String>,
        device: Option<String>,
        and_devices: Vec<String>,
        already: bool,
    },
    OrderGroup {
        seq: u64,
        group: String,
        group_name: Option<String>,
        state: &'static str,
        attested_by: Vec<String>,
        at_ms: u64,
        rotated_at_ms: u64,
        confirmed_at_ms: u64,
    },
    OrderFenced {
        seq: u64,
        at_ms: u64,
        connections_closed: u32,
    },
    Plan(Plan),
    CertificateExported {
        file: String,
        bytes: usize,
        seq: u64,
        groups: usize,
        sealed: usize,
        receipts: usize,
        disclosed: bool,
    },
    Certificate(Box<CertificateShown>),
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
    GroupChanged {
        group: String,
        group_name: Option<String>,
        seq: Option<u64>,
        changes: Vec<PolicyChanged>,
    },
    GroupLeft {
        group: String,
        group_name: Option<String>,
        seq: Option<u64>,
        done: bool,
    },
    GroupContinued {
        group: String,
        group_name: Option<String>,
        successor: String,
    },
    GroupClosed {
        group: String,
        group_name: Option<String>,
    },
    ResyncAsked {
        group: String,
        group_name: Option<String>,
    },
    CatchingUp {
        group: String,
        group_name: Option<String>,
        done: u64,
        total: u64,
    },
    Appended {
        group: String,
        group_name: Option<String>,
        seq: u64,
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
        cause: Option<&'static str>,
    },
    Delayed {
        group: String,
        group_name: Option<String>,
    },
    /// A line of a group's history.
    #[serde(untagged)]
    History(HistoryLine),
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
            cause: error.cause().map(|cause| cause.exit().name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(report: &Report) -> serde_json::Value {
        serde_json::from_str(&report.json().expect("json")).expect("one line of JSON")
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
        assert_eq!(error["cause"], serde_json::Value::Null);
    }
}
