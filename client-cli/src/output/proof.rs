//! What a certificate shows, in plain words, and what an order would do.

use serde::Serialize;

use super::rows::Person;
use super::words::{counted, named, one_line, people, person, short, utc};

/// One group that an offboarding concerns, as far as this device knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedGroup {
    /// The group.
    pub group: String,
    /// Its name.
    pub group_name: String,
    /// Whether the user is its last admin.
    pub loses_last_admin: bool,
    /// Who becomes admin then: the member who has been in it longest.
    pub heir: Option<Person>,
}

/// What an offboarding would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Whom.
    #[serde(flatten)]
    pub person: Person,
    /// The role that falls.
    pub role: String,
    /// Admitted devices that are shut out.
    pub devices: Vec<String>,
    /// Open invitations that become void: the user's own, and those that they issued.
    pub invitations: Vec<String>,
    /// Bots that the user has let in: they stay.
    pub bots: Vec<Person>,
    /// Groups of this device that the user is in.
    pub groups: Vec<PlannedGroup>,
}

impl Plan {
    pub(super) fn text(&self) -> String {
        let mut lines = vec![
            format!("would remove {}, {}", person(&self.person), self.role),
            format!(
                "shuts out   {}: {}",
                counted(self.devices.len(), "device"),
                ids(&self.devices)
            ),
            format!(
                "voids       {}: {}",
                counted(self.invitations.len(), "invitation"),
                ids(&self.invitations)
            ),
        ];
        if !self.bots.is_empty() {
            lines.push(format!(
                "leaves      bots that they let in: {}",
                people(&self.bots)
            ));
        }
        for group in &self.groups {
            let name = named(&group.group, Some(&group.group_name));
            lines.push(match &group.heir {
                Some(heir) if group.loses_last_admin => format!(
                    "rotates     {name}: it loses its last admin, and {} becomes one",
                    person(heir)
                ),
                _ => format!("rotates     {name}"),
            });
        }
        lines.push("and every other group that they are in: the relay does not know which".into());
        lines.push("nothing was ordered".into());
        lines.join("\n")
    }
}

fn ids(all: &[String]) -> String {
    if all.is_empty() {
        return "none".into();
    }
    all.iter()
        .map(|id| short(id))
        .collect::<Vec<_>>()
        .join(", ")
}

/// One device's statement about a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownWitness {
    /// `attestation` or `receipt`.
    pub kind: &'static str,
    /// Who.
    pub device: String,
    /// Whose device.
    pub user: String,
    /// `rotated` or `clean`.
    pub verdict: &'static str,
    /// About which epoch.
    pub epoch: u64,
    /// When, ms since 1970.
    pub at_ms: u64,
}

/// One group of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownGroup {
    /// The group.
    pub group: String,
    /// `rotated`, `clean`, `sealed` or `ended`.
    pub state: &'static str,
    /// Whether devices of two users vouch for it.
    pub confirmed: bool,
    /// Who vouches.
    pub witnesses: Vec<ShownWitness>,
    /// Users in the disclosed tree; null when it is not disclosed.
    pub members: Option<Vec<String>>,
}

/// A certificate that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateShown {
    /// The fingerprint of the root key.
    pub root: String,
    /// The order's place on the roster.
    pub seq: u64,
    /// The user that it is against; null for a revocation of devices.
    pub user: Option<String>,
    /// The devices that it shuts out.
    pub devices: Vec<String>,
    /// Who signed the order.
    pub ordered_by: String,
    /// When, by the signer's clock, ms since 1970.
    pub ordered_at_ms: u64,
    /// When the relay has appended it: from then on it is the fence; ms since 1970.
    pub fenced_at_ms: u64,
    /// How many connections the relay closed with that.
    pub connections_closed: u32,
    /// When the relay has stated how the groups stand, ms since 1970.
    pub stated_at_ms: u64,
    /// The relay's statement key.
    pub statement_key: String,
    /// The device that made the certificate.
    pub maker: String,
    /// When, by its clock, ms since 1970.
    pub made_at_ms: u64,
    /// Entries of the roster of which only the hash is shown.
    pub hidden_entries: usize,
    /// Every group that the organisation had at the order.
    pub groups: Vec<ShownGroup>,
    /// What follows from it.
    pub follows: Vec<String>,
    /// What does not.
    pub does_not_follow: Vec<String>,
}

impl CertificateShown {
    pub(super) fn text(&self) -> String {
        let whom = match &self.user {
            Some(user) => format!("user {user}"),
            None => counted(self.devices.len(), "device"),
        };
        let mut lines = vec![
            format!("this certificate holds: order {} against {whom}", self.seq),
            "who stated what:".into(),
            format!("  the root key {} stands for the organisation", self.root),
            format!(
                "  {} signed the order, {}, against: {}",
                one_line(&self.ordered_by),
                utc(self.ordered_at_ms),
                ids(&self.devices)
            ),
            format!(
                "  the relay (statement key {}) appended it {}, closed {}, and stated {} how {} stood",
                short(&self.statement_key),
                utc(self.fenced_at_ms),
                counted(self.connections_closed as usize, "connection"),
                utc(self.stated_at_ms),
                counted(self.groups.len(), "group"),
            ),
            format!(
                "  device {} made the certificate, {}",
                self.maker,
                utc(self.made_at_ms)
            ),
        ];
        lines.extend(self.groups.iter().map(ShownGroup::text));
        lines.push("what follows:".into());
        lines.extend(self.follows.iter().map(|line| format!("  {line}")));
        lines.push("what does not follow:".into());
        lines.extend(self.does_not_follow.iter().map(|line| format!("  {line}")));
        lines.join("\n")
    }
}

impl ShownGroup {
    fn text(&self) -> String {
        let mut text = format!("  {:<8} {}", self.state, self.group);
        if self.confirmed {
            text += ", confirmed by a second user";
        }
        if let Some(members) = &self.members {
            text += &format!(", tree disclosed: {}", counted(members.len(), "user"));
        }
        for witness in &self.witnesses {
            text += &format!(
                "\n           {} of {}: {} in epoch {}, {}",
                witness.kind,
                witness.device,
                witness.verdict,
                witness.epoch,
                utc(witness.at_ms)
            );
        }
        text
    }
}
