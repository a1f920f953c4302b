//! Who may do what to whom: data in one table, checked by one function (REQ-016).
//!
//! The relay and every client call [`check`]; nothing else in the project may decide by role.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize};

/// What a user is in the organisation.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    TlsSerialize,
    TlsDeserialize,
    TlsSize,
)]
#[repr(u8)]
pub enum Role {
    /// Everything, on everybody.
    Owner = 0x10,
    /// Everything, on everybody but owners.
    Admin = 0x20,
    /// Runs groups and handovers.
    Supervisor = 0x30,
    /// Reads the audit log and certificates.
    Auditor = 0x40,
    /// A person.
    Member = 0x50,
    /// A person from outside: only in groups that they were added to.
    Guest = 0x60,
    /// A program.
    Bot = 0x70,
}

impl Role {
    /// Every role, in the order of the table's columns.
    pub const ALL: [Self; 7] = [
        Self::Owner,
        Self::Admin,
        Self::Supervisor,
        Self::Auditor,
        Self::Member,
        Self::Guest,
        Self::Bot,
    ];

    /// Whether it is one of those who speak for the organisation's roster: owner or admin.
    #[must_use]
    pub const fn administers(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// The role's name in commands and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Supervisor => "supervisor",
            Self::Auditor => "auditor",
            Self::Member => "member",
            Self::Guest => "guest",
            Self::Bot => "bot",
        }
    }

    const fn column(self) -> usize {
        match self {
            Self::Owner => 0,
            Self::Admin => 1,
            Self::Supervisor => 2,
            Self::Auditor => 3,
            Self::Member => 4,
            Self::Guest => 5,
            Self::Bot => 6,
        }
    }

    /// How much a role is trusted with; going down is a demotion (REQ-023).
    pub(super) const fn rank(self) -> u8 {
        match self {
            Self::Owner => 4,
            Self::Admin => 3,
            Self::Supervisor | Self::Auditor => 2,
            Self::Member | Self::Bot => 1,
            Self::Guest => 0,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or("not a role: owner, admin, supervisor, auditor, member, guest or bot")
    }
}

/// What a device can ask of the roster on behalf of its user.
///
/// AddDevice is not among them: it takes an invitation, not a role (REQ-022).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Add a user of the target role.
    AddUser,
    /// Replace a sealed name.
    SetProfile,
    /// Change a role: both the present and the new one must be allowed targets.
    SetRole,
    /// Suspend.
    SuspendUser,
    /// Remove; on oneself: leave.
    RemoveUser,
    /// Invite a device of the target user; on oneself: a further device.
    Invite,
    /// Take back an invitation for the target user; on oneself: one issued by or for oneself.
    CancelInvite,
    /// Revoke a device of the target user.
    RevokeDevice,
    /// Replace the organisation's policy.
    SetPolicy,
    /// Name a new directory key: alone, or together with an order.
    RotateDirectoryKey,
    /// Close a group.
    CloseGroup,
}

impl Operation {
    /// Every operation, in the order of the table's rows.
    pub const ALL: [Self; 11] = [
        Self::AddUser,
        Self::SetProfile,
        Self::SetRole,
        Self::SuspendUser,
        Self::RemoveUser,
        Self::Invite,
        Self::CancelInvite,
        Self::RevokeDevice,
        Self::SetPolicy,
        Self::RotateDirectoryKey,
        Self::CloseGroup,
    ];

    /// The operation's name, as in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddUser => "AddUser",
            Self::SetProfile => "SetProfile",
            Self::SetRole => "SetRole",
            Self::SuspendUser => "SuspendUser",
            Self::RemoveUser => "RemoveUser",
            Self::Invite => "Invite",
            Self::CancelInvite => "CancelInvite",
            Self::RevokeDevice => "RevokeDevice",
            Self::SetPolicy => "SetPolicy",
            Self::RotateDirectoryKey => "RotateDirectoryKey",
            Self::CloseGroup => "CloseGroup",
        }
    }
}

impl Operation {
    /// What it does to `target`, in words.
    #[must_use]
    pub fn on(self, target: Target) -> String {
        let whom = match target {
            Target::Own => "themselves".to_owned(),
            Target::Role(role) => format!("a user who is {role}"),
            Target::Organisation | Target::WithOrder => "the organisation".to_owned(),
        };
        match self {
            Self::AddUser => format!("add {whom}"),
            Self::SetProfile => format!("rename {whom}"),
            Self::SetRole => format!("change the role of {whom}, or give it"),
            Self::SuspendUser => format!("suspend {whom}"),
            Self::RemoveUser => format!("remove {whom}"),
            Self::Invite => format!("invite a device of {whom}"),
            Self::CancelInvite => format!("withdraw invitations of {whom}"),
            Self::RevokeDevice => format!("revoke devices of {whom}"),
            Self::SetPolicy => "change the organisation's policy".to_owned(),
            Self::RotateDirectoryKey => "change the key that names are sealed under".to_owned(),
            Self::CloseGroup => "close groups".to_owned(),
        }
    }
}

/// On whom or what: the actor's own user, somebody else of a role, or the organisation as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The actor's own user.
    Own,
    /// Another user, of this role.
    Role(Role),
    /// The organisation, whatever else the entry says.
    Organisation,
    /// The organisation, in an entry that is an order too.
    WithOrder,
}

/// Whether a user of `actor`'s role may do `operation` to `target` (REQ-016).
#[must_use]
pub fn check(actor: Role, operation: Operation, target: Target) -> bool {
    let bit = match target {
        Target::Own => OWN.0,
        Target::Role(role) => 1 << role.column(),
        Target::Organisation => ALONE.0,
        Target::WithOrder => WITH_ORDER.0,
    };
    TABLE
        .iter()
        .find(|(row, _)| *row == operation)
        .is_some_and(|(_, cells)| cells[actor.column()].0 & bit != 0)
}

/// The table as Markdown, for the specification.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| operation |");
    Role::ALL
        .iter()
        .for_each(|role| text += &format!(" {role} |"));
    text += "\n|---|";
    text += &"---|".repeat(Role::ALL.len());
    for operation in Operation::ALL {
        text += &format!("\n| {} |", operation.name());
        for actor in Role::ALL {
            text += &format!(" {} |", cell(actor, operation));
        }
    }
    text.push('\n');
    text
}

fn cell(actor: Role, operation: Operation) -> String {
    let roles: Vec<_> = Role::ALL
        .into_iter()
        .filter(|role| check(actor, operation, Target::Role(*role)))
        .collect();
    let others = match roles.as_slice() {
        [] => String::new(),
        all if all == Role::ALL => "anybody".into(),
        all if all == &Role::ALL[1..] => "anybody but owners".into(),
        some => some.iter().map(|r| r.name()).collect::<Vec<_>>().join(", "),
    };
    let own = check(actor, operation, Target::Own).then_some("own");
    let whole = if check(actor, operation, Target::Organisation) {
        Some("yes")
    } else if check(actor, operation, Target::WithOrder) {
        Some("with an order")
    } else {
        None
    };
    let others = Some(others.as_str()).filter(|others| !others.is_empty());
    let parts: Vec<&str> = [others, own, whole].into_iter().flatten().collect();
    if parts.is_empty() {
        "-".into()
    } else {
        parts.join(", ")
    }
}

/// A set of targets: one bit per role's column, one for the actor's own user, two for the organisation.
#[derive(Clone, Copy)]
struct Targets(u16);

const NONE: Targets = Targets(0);
const OWN: Targets = Targets(0b1000_0000);
const ALONE: Targets = Targets(0b01_0000_0000);
const WITH_ORDER: Targets = Targets(0b10_0000_0000);
/// The organisation, with an order or without.
const ORG: Targets = Targets(ALONE.0 | WITH_ORDER.0);
/// New users of any role; nobody adds themselves.
const NEW: Targets = Targets(0b0111_1111);
const NEW_BUT_OWNERS: Targets = Targets(NEW.0 & !(1 << Role::Owner.column()));
const ALL: Targets = Targets(NEW.0 | OWN.0);
const ALL_BUT_OWNERS: Targets = Targets(NEW_BUT_OWNERS.0 | OWN.0);

/// Columns as in [`Role::ALL`]: owner, admin, supervisor, auditor, member, guest, bot.
#[rustfmt::skip]
const TABLE: [(Operation, [Targets; 7]); 11] = [
    (Operation::AddUser,      [NEW, NEW_BUT_OWNERS, NONE, NONE, NONE, NONE, NONE]),
    (Operation::SetProfile,   [ALL, ALL_BUT_OWNERS, OWN,  OWN,  OWN,  OWN,  OWN]),
    (Operation::SetRole,      [ALL, ALL_BUT_OWNERS, NONE, NONE, NONE, NONE, NONE]),
    (Operation::SuspendUser,  [ALL, ALL_BUT_OWNERS, NONE, NONE, NONE, NONE, NONE]),
    (Operation::RemoveUser,   [ALL, ALL_BUT_OWNERS, OWN,  OWN,  OWN,  OWN,  OWN]),
    (Operation::Invite,       [ALL, ALL_BUT_OWNERS, OWN,  OWN,  OWN,  NONE, OWN]),
    (Operation::CancelInvite, [ALL, ALL_BUT_OWNERS, OWN,  OWN,  OWN,  OWN,  OWN]),
    (Operation::RevokeDevice, [ALL, ALL_BUT_OWNERS, OWN,  OWN,  OWN,  OWN,  OWN]),
    (Operation::SetPolicy,    [ORG, NONE, NONE, NONE, NONE, NONE, NONE]),
    // Whoever may give an order may bring a new key with it.
    (Operation::RotateDirectoryKey, [ORG, ORG, WITH_ORDER, WITH_ORDER, WITH_ORDER, WITH_ORDER, WITH_ORDER]),
    (Operation::CloseGroup,   [ORG, ORG, NONE, NONE, NONE, NONE, NONE]),
];
