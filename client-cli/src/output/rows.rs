//! What the listing verbs show: a row, or a table of one thing.

use serde::Serialize;

use super::words::{age, counted, one_line, person, short, span};

/// A user; `name` is null while the organisation's names cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Person {
    /// The user's id, hex.
    pub user: String,
    /// The display name.
    pub name: Option<String>,
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

impl User {
    pub(super) fn text(&self) -> String {
        format!(
            "{}  {}  {}, {}, {}{}",
            short(&self.person.user),
            one_line(self.person.name.as_deref().unwrap_or("?")),
            self.role,
            self.status,
            counted(self.devices, "device"),
            if self.me { "  (you)" } else { "" }
        )
    }
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

impl Device {
    pub(super) fn text(&self) -> String {
        let since = match self.revoked {
            Some(order) => format!("revoked by order {order}"),
            None => format!("admitted by entry {}", self.added),
        };
        format!(
            "{}  {}  {since}{}",
            short(&self.device),
            one_line(self.person.name.as_deref().unwrap_or("?")),
            if self.this { "  (this device)" } else { "" }
        )
    }
}

/// `mortise policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The MLS ciphersuite of new groups, as `0x004F`.
    pub suite: String,
    /// `required` or `optional`.
    pub pin: &'static str,
    /// `off`, `warn` or `block`.
    pub staleness: &'static str,
    /// How old the newest confirmation of the roster may be, ms.
    pub staleness_limit_ms: u64,
}

impl Policy {
    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.add("suite", format!("{} for new groups", self.suite));
        lines.add("pin", format!("{} for invitations", self.pin));
        let limit = span(self.staleness_limit_ms);
        lines.add("staleness", format!("{} after {limit}", self.staleness));
        lines.0
    }
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
    /// How long ago an owner or admin last confirmed the roster, ms; null if never.
    pub confirmed_ms_ago: Option<u64>,
    /// Whether this device was put out.
    pub expelled: bool,
}

impl Whoami {
    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.add("name", one_line(self.person.name.as_deref().unwrap_or("?")));
        lines.add("role", self.role.as_deref().unwrap_or("none"));
        lines.add("user", &self.person.user);
        lines.add("device", &self.device);
        lines.add("organisation", &self.org);
        lines.add("relay", one_line(&self.relay));
        lines.add("relay key", &self.relay_key);
        let confirmed = self.confirmed_ms_ago.map_or_else(
            || "not confirmed by an administrator yet".into(),
            |ago| format!("confirmed by an administrator {} ago", age(ago)),
        );
        lines.add("roster", format!("entry {}, {confirmed}", self.roster_seq));
        if self.expelled {
            lines
                .0
                .push_str("\nthis device was put out of the organisation");
        }
        lines.0
    }
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

/// `mortise group show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupInfo {
    /// The group's id, hex.
    pub group: String,
    /// Its name.
    pub group_name: String,
    /// What it is about; empty for nothing.
    pub topic: String,
    /// `active`, `removed`, `stopped`, `continued` or `closed`.
    pub status: &'static str,
    /// Why it is stopped.
    pub reason: Option<String>,
    /// `admins` or `members`.
    pub who_may_add: &'static str,
    /// How long devices keep the history, days; null for ever.
    pub retention_days: Option<u32>,
    /// The group that this one continues, hex.
    pub predecessor: Option<String>,
    /// The group that continues this one, hex.
    pub successor: Option<String>,
    /// The MLS ciphersuite, as `0x004F`.
    pub suite: String,
    /// The MLS epoch.
    pub epoch: u64,
    /// The MLS epoch authenticator, hex: equal on all members' devices in the same epoch.
    pub epoch_authenticator: String,
    /// By user.
    pub members: Vec<Member>,
}

impl GroupInfo {
    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.add("name", one_line(&self.group_name));
        lines.add("group", &self.group);
        let reason = self.reason.as_deref().map(one_line);
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        lines.add("status", format!("{}{reason}", self.status));
        if !self.topic.is_empty() {
            lines.add("topic", one_line(&self.topic));
        }
        if let Some(group) = &self.predecessor {
            lines.add("continues", short(group));
        }
        if let Some(group) = &self.successor {
            lines.add("goes on in", short(group));
        }
        lines.add("who may add", self.who_may_add);
        let kept = self.retention_days;
        lines.add(
            "messages kept",
            kept.map_or_else(|| "for ever".into(), days),
        );
        lines.add("suite", &self.suite);
        lines.add("epoch", self.epoch.to_string());
        lines.add("authenticator", &self.epoch_authenticator);
        for member in &self.members {
            let admin = if member.admin { ", admin" } else { "" };
            let devices = counted(member.devices.len(), "device");
            lines.add(
                "member",
                format!("{}{admin}, {devices}", person(&member.person)),
            );
        }
        lines.0
    }
}

pub(super) fn days(days: u32) -> String {
    format!("{days} day{}", if days == 1 { "" } else { "s" })
}

/// Lines of a name and a value.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl AsRef<str>) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0 += &format!("{name:<15}{}", value.as_ref());
    }
}
