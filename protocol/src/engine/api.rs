//! What goes into the engine and what comes out of it.

use crate::certificate::Evidence;
pub use crate::group::{PolicyChange, WhoMayAdd};
use crate::identity::{
    DeviceId, GroupId, InvitationId, JoinLink, LogSeq, Pin, PublicKey, RosterSeq, UserId,
};
use crate::roster::{OrgPolicy, Role, Roster};
use crate::wire::{ClientToRelay, ConnectionBinding, GroupState, Refusal, RelayToClient};

/// Names one thing that the user asked for, for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(pub u64);

/// What happens to an engine.
#[derive(Debug)]
pub enum Input {
    /// A connection to the relay is up, with this TLS exporter value.
    Connected(ConnectionBinding),
    /// It is gone.
    Disconnected,
    /// A frame came in.
    Frame(RelayToClient),
    /// Time has passed; also after the deadline of [`Output::Wake`].
    Tick,
    /// The user wants something; the answer is an event that carries the same id.
    Command(Command),
}

/// What the user can ask for. Ids come from `Engine::next_intent`.
#[derive(Debug)]
pub struct Command {
    /// Comes back in the events.
    pub id: IntentId,
    /// What is wanted.
    pub kind: CommandKind,
}

/// Whether an invitation has a PIN beside its link (REQ-104).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinChoice {
    /// If the organisation's policy asks for it.
    #[default]
    Policy,
    /// Whatever the policy says.
    Always,
    /// Refused where the policy asks for one.
    Never,
}

/// Everything that changes something.
#[derive(Debug)]
pub enum CommandKind {
    /// A new group with its creator and these users, all of whose admitted devices are added.
    CreateGroup {
        /// Shown to members; never reaches the relay.
        name: String,
        /// Whom to add; may be empty.
        members: Vec<UserId>,
    },
    /// Adds all admitted devices of these users.
    AddMembers {
        /// The group.
        group: GroupId,
        /// Whom.
        users: Vec<UserId>,
    },
    /// Removes all devices of this user from one group.
    RemoveMember {
        /// The group.
        group: GroupId,
        /// Whom.
        user: UserId,
    },
    /// Continues a conversation in a new group of the organisation's present suite; only a group admin's device may.
    /// Answered by [`Event::GroupContinued`].
    RestartGroup {
        /// The group.
        group: GroupId,
    },
    /// Asks the other members to let this device in anew, because what it holds of the group leads nowhere.
    ResyncGroup {
        /// The group.
        group: GroupId,
    },
    /// Leaves one group with all devices of this user; [`Event::Appended`] once that is in the log, and the line
    /// [`HistoryKind::Left`] once a member has carried it out.
    LeaveGroup {
        /// The group.
        group: GroupId,
    },
    /// Changes the policy of a group, as one of its admins; answered by [`Event::Appended`].
    ChangeGroup {
        /// The group.
        group: GroupId,
        /// What.
        change: PolicyChange,
    },
    /// Sends a text message.
    SendText {
        /// The group.
        group: GroupId,
        /// UTF-8, as typed.
        text: String,
    },
    /// Adds a user and makes an invitation; answered by [`Event::Invited`].
    InviteUser {
        /// Shown to colleagues; sealed before it leaves this device.
        name: String,
        /// Their role.
        role: Role,
        /// Until when, ms since 1970.
        expires_at_ms: u64,
        /// Whether there is a PIN besides.
        pin: PinChoice,
    },
    /// Makes an invitation for a further device of this user; answered by [`Event::Invited`].
    InviteDevice {
        /// Until when, ms since 1970.
        expires_at_ms: u64,
        /// Whether there is a PIN besides.
        pin: PinChoice,
    },
    /// Orders a user's removal from the organisation; answered by [`Event::Ordered`].
    RemoveUser {
        /// Whom.
        user: UserId,
    },
    /// The same, and says who inherits the groups that lose their last admin (REQ-391).
    RemoveUserFor {
        /// Whom.
        user: UserId,
        /// Who inherits, where they are a member.
        successor: UserId,
    },
    /// Orders a user's suspension; answered by [`Event::Ordered`]. The way back is [`CommandKind::ReinviteUser`].
    SuspendUser {
        /// Whom.
        user: UserId,
    },
    /// Makes an invitation for a user who exists: the way back, or a lost link; answered by [`Event::Invited`].
    ReinviteUser {
        /// Whom.
        user: UserId,
        /// Until when, ms since 1970.
        expires_at_ms: u64,
        /// Whether there is a PIN besides.
        pin: PinChoice,
    },
    /// Orders a device's removal; answered by [`Event::Ordered`].
    RevokeDevice {
        /// Which.
        device: DeviceId,
        /// Whether the devices of the same user go with it that it let in, directly or not (`Engine::enrolled_by`).
        and_enrolled: bool,
    },
    /// Changes a name; answered by [`Event::Done`].
    SetProfile {
        /// Whose.
        user: UserId,
        /// Shown to colleagues; sealed before it leaves this device.
        name: String,
    },
    /// Replaces the organisation's policy; answered by [`Event::Done`].
    SetPolicy {
        /// All of it.
        policy: OrgPolicy,
    },
    /// Names a new directory key; answered by [`Event::Done`].
    RotateDirectoryKey,
    /// Closes a group for ever, whoever is in it; answered by [`Event::Done`].
    CloseGroup {
        /// Which.
        group: GroupId,
    },
    /// Changes a role; answered by [`Event::Done`].
    SetRole {
        /// Whose.
        user: UserId,
        /// To what.
        role: Role,
    },
    /// Withdraws an invitation; answered by [`Event::Done`].
    CancelInvite {
        /// Which.
        invitation: InvitationId,
    },
    /// Remembers that the present safety number was compared with a user; answered by [`Event::Done`].
    MarkCompared {
        /// With whom.
        user: UserId,
    },
    /// Asks the relay how every group stands with regard to an order; answered by [`Event::OrderStatus`].
    OrderStatus {
        /// The order.
        order: RosterSeq,
    },
    /// Collects what a certificate of an order is made of; answered by [`Event::Evidence`].
    CollectEvidence {
        /// The order.
        order: RosterSeq,
    },
}

/// What an engine wants done or known, in order. Nothing of it happens before its step is committed.
#[derive(Debug)]
pub enum Output {
    /// Send this on the connection.
    Send(ClientToRelay),
    /// Close the connection and open another after a while.
    Reconnect,
    /// Give a [`Input::Tick`] at this time at the latest, ms since 1970. The last one said counts.
    Wake(u64),
    /// Tell the user.
    Event(Event),
}

/// What the user can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The relay knows this device; the roster is being fetched.
    Online,
    /// Everything that the relay had for this device has been dealt with, and nothing waits to be sent.
    Synced,
    /// This device is not admitted any more: removed, suspended or revoked.
    Expelled,
    /// The roster has moved on.
    RosterChanged {
        /// Its head.
        head: RosterSeq,
    },
    /// The organisation's names can be read now, or again.
    DirectoryOpened,
    /// The safety number that was compared with a user is another one now (REQ-018).
    NumberChanged {
        /// With whom.
        user: UserId,
    },
    /// This device is in a new group.
    Joined {
        /// The group.
        group: GroupId,
    },
    /// Something was written to a group's history; read it with `Engine::messages`.
    Message {
        /// The group.
        group: GroupId,
        /// Where in its log.
        seq: LogSeq,
    },
    /// What was asked for is done and durable.
    Done {
        /// The command.
        id: IntentId,
    },
    /// A message or a change is in the group's log.
    Appended {
        /// The command.
        id: IntentId,
        /// The group.
        group: GroupId,
        /// Where in its log.
        seq: LogSeq,
    },
    /// The group exists; members follow.
    GroupCreated {
        /// The command.
        id: IntentId,
        /// The group.
        group: GroupId,
    },
    /// A conversation goes on in another group.
    GroupContinued {
        /// The command, if it was this device's user who wanted it.
        id: Option<IntentId>,
        /// The group that ends.
        group: GroupId,
        /// The group that continues it.
        successor: GroupId,
    },
    /// A log is being read that is far ahead of this device; at most once per page.
    CatchingUp {
        /// The group.
        group: GroupId,
        /// The record that was reached.
        done: LogSeq,
        /// The newest record that is known of.
        total: LogSeq,
    },
    /// The invitation is on the roster.
    Invited {
        /// The command.
        id: IntentId,
        /// Whom it is for.
        user: UserId,
        /// The capability, to be handed over; the relay's address is the driver's to fill in.
        link: InviteLink,
        /// The PIN, to be told over another channel; by policy.
        pin: Option<Pin>,
    },
    /// The order is on the roster: from now on the fence holds.
    Ordered {
        /// The command.
        id: IntentId,
        /// The order.
        order: RosterSeq,
    },
    /// The answer to [`CommandKind::OrderStatus`].
    OrderStatus {
        /// The command.
        id: IntentId,
        /// When the relay appended the order, relay's clock, ms since 1970: from then on it is the fence.
        appended_at_ms: u64,
        /// How many connections of the order's devices the relay closed with that.
        closed: u32,
        /// A row per group that existed when the order was given.
        groups: Vec<OrderGroup>,
    },
    /// The answer to [`CommandKind::CollectEvidence`].
    Evidence {
        /// The command.
        id: IntentId,
        /// What the relay and the members have stated.
        evidence: Box<Evidence>,
    },
    /// The relay has no room for it now: it is kept, and done as soon as there is room. Said once for each command.
    Delayed {
        /// The command.
        id: IntentId,
        /// The group.
        group: GroupId,
    },
    /// The relay refuses to talk to this device, whatever it wants; it is asked again with every connection.
    TurnedAway {
        /// Why.
        refusal: Refusal,
    },
    /// What was asked for cannot be done.
    Failed {
        /// The command.
        id: IntentId,
        /// Why, and what to do.
        error: CommandError,
    },
    /// Something that must not happen did; the evidence is named.
    Alarm(Alarm),
}

/// The parts of a [`JoinLink`] that the engine knows.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteLink {
    make: std::sync::Arc<JoinLink>,
}

impl std::fmt::Debug for InviteLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InviteLink(secret)")
    }
}

impl InviteLink {
    pub(crate) fn new(link: JoinLink) -> Self {
        Self {
            make: std::sync::Arc::new(link),
        }
    }

    /// The link as text, with what the driver knows about the relay: `host:port` and the hash of its certificate's key.
    #[must_use]
    pub fn to_text(
        &self,
        relay: &str,
        relay_key: crate::identity::Hash,
    ) -> zeroize::Zeroizing<String> {
        self.make.at(relay, relay_key)
    }

    /// The invitation.
    #[must_use]
    pub fn invitation(&self) -> InvitationId {
        self.make.invitation
    }
}

/// One group's row in an order's status, with what this device knows of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderGroup {
    /// The group.
    pub group: GroupId,
    /// Its name, if this device is in it.
    pub name: Option<String>,
    /// How it stands.
    pub state: GroupState,
    /// Who attested.
    pub attested_by: Vec<DeviceId>,
    /// When the first attestation was appended, relay's clock, ms since 1970; 0 for none.
    pub at_ms: u64,
    /// When the first epoch that was attested as rotated was opened, relay's clock, ms since 1970; 0 for none.
    pub rotated_at_ms: u64,
    /// When a device of a second user attested, relay's clock, ms since 1970; 0 for not yet.
    pub confirmed_at_ms: u64,
}

/// Why a command cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// No such group here.
    #[error("this device is in no such group; `mortise group list` shows those it is in")]
    UnknownGroup,
    /// This device was removed from the group.
    #[error("this device was removed from the group; its history can still be read")]
    NotAMember,
    /// The group cannot go on: a commit that honest members refuse is its head.
    #[error("the group is stopped: {reason}; a group admin can restart it")]
    Stopped {
        /// The named violation.
        reason: String,
    },
    /// An administrator has closed the group.
    #[error("an administrator has closed the group; its history can still be read")]
    GroupClosed,
    /// The policy forbids to send without a fresh statement of an owner or admin.
    #[error(
        "no administrator has confirmed the list of members for {} min; the policy allows {} min, and nothing is sent until one is online",
        age_ms / 60_000, limit_ms / 60_000
    )]
    Stale {
        /// How old the newest statement is, ms.
        age_ms: u64,
        /// How old it may be, ms.
        limit_ms: u64,
    },
    /// No such user.
    #[error("there is no such user; `mortise users` shows who there is")]
    UnknownUser,
    /// The users have no device that could be added.
    #[error(
        "{users} of the users to add have no device with a KeyPackage yet; ask them to come online once"
    )]
    NoKeyPackages {
        /// How many users.
        users: usize,
    },
    /// Only group admins may.
    #[error("only an admin of the group may do that")]
    NotGroupAdmin,
    /// This device is on its way out of the group.
    #[error("this device is leaving the group")]
    Leaving,
    /// The change would leave the group without an admin.
    #[error("the group's only admin cannot be taken away; name another admin first")]
    LastAdmin,
    /// A group admin must be in the group.
    #[error("only a member of the group can be its admin")]
    NotInGroup,
    /// Users who left the group are not added again but by a group admin.
    #[error(
        "{users} of the users to add have left the group; only one of its admins can add them again"
    )]
    HasLeft {
        /// How many users.
        users: usize,
    },
    /// Nobody removes themselves; they leave.
    #[error("to be out of the group yourself, leave it")]
    LeaveInstead,
    /// The text is too long.
    #[error("the text is {length} bytes long; the limit is {limit}")]
    TooLong {
        /// Its length, bytes.
        length: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The relay refused.
    #[error("the relay refused: {0}")]
    Refused(crate::wire::Refusal),
    /// The roster's rules forbid it.
    #[error("the organisation's rules do not allow that: {0}")]
    Roster(String),
    /// Every invitation has a PIN, by the organisation's policy.
    #[error("the organisation's policy asks for a PIN with every invitation")]
    PinRequired,
    /// The names cannot be sealed yet.
    #[error("the directory key has not arrived yet; a colleague's device must come online once")]
    NoDirectoryKey,
    /// This device is not admitted any more.
    #[error("this device is not admitted to the organisation any more")]
    Expelled,
    /// The conversation goes on in a group that this device was not taken into.
    #[error(
        "the conversation goes on in another group, without this device; ask one of its members to add you"
    )]
    ContinuedWithout,
}

/// Something that must not happen (DESIGN 3, 4): shown to the user, with who or what is convicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Alarm {
    /// A record was refused: what rule, and by whom.
    #[error("a record of the group was refused: {violation}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Where in its log.
        seq: LogSeq,
        /// Who sent it, if known.
        device: Option<DeviceId>,
        /// The named rule.
        violation: crate::group::Violation,
    },
    /// The relay showed a roster that is not the one that was pinned or that somebody else was shown.
    #[error(
        "the relay has shown two different rosters: stop using it and compare with a colleague"
    )]
    RosterFork {
        /// At which entry.
        seq: RosterSeq,
    },
    /// A roster entry that breaks the rules was served.
    #[error("the relay served a roster entry that breaks the rules, at {seq}: {reason}")]
    BadRosterEntry {
        /// The place that it claims; the next one, if it does not decode.
        seq: RosterSeq,
        /// The named rule.
        reason: String,
    },
    /// The device's clock and the relay's differ: by more than ten minutes it is said, by more than a day nothing is made
    /// that would carry a wrong time.
    #[error("this device's clock and the relay's differ by {} minutes: set the clock", device_ms.abs_diff(*relay_ms) / 60_000)]
    Clock {
        /// The device's clock, ms since 1970.
        device_ms: u64,
        /// The relay's clock, ms since 1970.
        relay_ms: u64,
    },
    /// No owner or admin has stated the roster's newest entry for too long: the relay may withhold entries, or they are away.
    #[error(
        "no administrator has confirmed the list of members for {} min; the policy allows {} min",
        age_ms / 60_000, limit_ms / 60_000
    )]
    Stale {
        /// How old the newest statement is, ms.
        age_ms: u64,
        /// How old it may be, ms.
        limit_ms: u64,
    },
    /// The relay's signed list of an order's groups leaves one out that this device knows (REQ-172).
    #[error("the relay left one of your groups out of its statement about an order")]
    OmittedGroup {
        /// The group.
        group: GroupId,
        /// The order.
        order: RosterSeq,
    },
    /// The relay has signed two different lists of an order's groups: one of them is false (REQ-172).
    #[error("the relay has made two different statements about the groups of one order")]
    TwoSets {
        /// The order.
        order: RosterSeq,
    },
    /// A device attested what this device knows to be false.
    #[error("a device made a false statement about an order")]
    FalseAttestation {
        /// The group.
        group: GroupId,
        /// Who.
        device: DeviceId,
        /// The order.
        order: RosterSeq,
    },
}

/// What a line of a group's history is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HistoryKind {
    /// A text message.
    Text(String),
    /// A message whose content this version does not show.
    Unsupported,
    /// A message of this device that was sent from a state that is lost.
    OwnUnknown,
    /// The group was created or joined here.
    Opened,
    /// Users were added.
    Added(Vec<UserId>),
    /// Users' devices were removed by a member of the group.
    Removed(Vec<UserId>),
    /// Users left the group.
    Left(Vec<UserId>),
    /// The group's policy was changed.
    Changed(Vec<PolicyChange>),
    /// Keys were rotated because of an order against these users or their devices.
    Rotated {
        /// The order.
        order: RosterSeq,
        /// Against whom.
        users: Vec<UserId>,
        /// Users who left the group with the same commit.
        left: Vec<UserId>,
    },
    /// Keys were refreshed.
    Refreshed,
    /// A record was refused; why.
    Refused(String),
    /// A commit that nobody follows ended the group; its members continue in another one.
    Faulty {
        /// Who sent it.
        device: DeviceId,
        /// The named rule that it breaks.
        reason: String,
    },
    /// The conversation goes on in another group.
    Continued {
        /// Which.
        successor: GroupId,
        /// Why, by name.
        reason: String,
    },
    /// This device missed what was said in between, and was let in anew.
    Gap {
        /// The first record that it missed.
        from: LogSeq,
        /// The record that let it in anew.
        to: LogSeq,
        /// Whether the group's policy has changed meanwhile.
        policy_changed: bool,
    },
}

/// A line of a group's history.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HistoryRecord {
    /// Where in the log.
    pub seq: LogSeq,
    /// The relay's clock, ms since 1970.
    pub at_ms: u64,
    /// Who, if known.
    pub device: Option<DeviceId>,
    /// Whose device, if known.
    pub user: Option<UserId>,
    /// The epoch that it was sent in.
    pub epoch: u64,
    /// What.
    pub kind: HistoryKind,
}

/// A group as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// The group.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// The MLS ciphersuite.
    pub suite: u16,
    /// The MLS epoch.
    pub epoch: u64,
    /// Whether this device can read and send.
    pub status: GroupStatusView,
    /// Members' devices, by leaf.
    pub members: Vec<MemberView>,
    /// Group admins.
    pub admins: Vec<UserId>,
    /// What the group is about.
    pub topic: String,
    /// Who may add members.
    pub who_may_add: WhoMayAdd,
    /// How long devices keep the group's history, days; `None` for ever.
    pub retention_days: Option<u32>,
    /// The MLS epoch authenticator (RFC 9420 §8.7), to compare states.
    pub epoch_authenticator: Vec<u8>,
    /// The group that this one continues.
    pub predecessor: Option<GroupId>,
    /// The group that continues this one.
    pub successor: Option<GroupId>,
}

impl GroupView {
    /// Whether nobody is left to administer the group without this user.
    #[must_use]
    pub fn loses_last_admin(&self, user: UserId) -> bool {
        let stays = |admin: &UserId| self.members.iter().any(|leaf| leaf.user == *admin);
        let others = self.admins.iter().filter(|admin| **admin != user);
        self.admins.contains(&user) && !others.into_iter().any(stays)
    }

    /// Who becomes admin when this user was the last one: the successor, if one is named who can; else the longest-standing
    /// member, guests last (REQ-125).
    #[must_use]
    pub fn heir_of(
        &self,
        roster: &Roster,
        user: UserId,
        successor: Option<UserId>,
    ) -> Option<UserId> {
        let kept = || self.members.iter().map(|leaf| leaf.user);
        let kept = || kept().filter(|member| *member != user);
        let is_full = |member: &UserId| roster.role(*member) != Some(Role::Guest);
        let named = kept().find(|member| Some(*member) == successor && is_full(member));
        named
            .or_else(|| kept().find(is_full))
            .or_else(|| kept().next())
    }
}

/// Whether this device can read and send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupStatusView {
    /// Yes.
    Active,
    /// It was removed.
    Removed,
    /// The group cannot go on.
    Stopped(String),
    /// The conversation goes on in another group.
    Continued {
        /// Which.
        successor: GroupId,
    },
    /// An administrator has closed it.
    Closed,
}

/// One leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The leaf's device.
    pub device: DeviceId,
    /// Whose.
    pub user: UserId,
    /// Its MLS signature key.
    pub key: PublicKey,
}
