//! What a group agrees on about itself, inside its GroupContext.

use std::collections::BTreeSet;

use openmls::prelude::{
    Extension, ExtensionType, Extensions, GroupContext, RequiredCapabilitiesExtension,
    UnknownExtension,
};
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};

use crate::identity::{Epoch, GroupId, Hash, UserId, decode, encode};

/// The GroupContext extension type of the group policy, of the private-use range (RFC 9420 §17.3) (REQ-094).
pub const GROUP_POLICY_EXTENSION: u16 = 0xF0A1;
/// The longest group name, bytes of UTF-8 (REQ-094).
pub const MAX_GROUP_NAME_BYTES: usize = 256;
/// The longest topic, bytes of UTF-8 (REQ-094).
pub const MAX_TOPIC_BYTES: usize = 1_024;

/// Who may add members to a group; guests never may (REQ-121).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    TlsSerialize,
    TlsDeserialize,
    TlsSize,
    serde::Serialize,
    serde::Deserialize,
)]
#[repr(u8)]
pub enum WhoMayAdd {
    /// Group admins.
    Admins = 1,
    /// Every member.
    #[default]
    Members = 2,
}

/// A part of the policy that this version does not know; it is kept as it is (REQ-094).
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct PolicyExtension {
    /// What it is.
    pub kind: u16,
    /// What it says.
    pub data: VLByteVec,
}

/// One change of a group's policy, as an admin asks for it (REQ-120).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PolicyChange {
    /// Another name, at most [`MAX_GROUP_NAME_BYTES`].
    Name(String),
    /// Another topic, at most [`MAX_TOPIC_BYTES`].
    Topic(String),
    /// One more admin.
    AddAdmin(UserId),
    /// One admin less; the last one stays.
    RemoveAdmin(UserId),
    /// Who may add members.
    WhoMayAdd(WhoMayAdd),
    /// How long devices keep the group's history, days; `None` for ever.
    Retention(Option<u32>),
}

/// What members agree on about their group: in the transcript, and never seen by the relay (REQ-094).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Shown to members.
    pub name: String,
    /// What the group is about.
    pub topic: String,
    /// Users who may change the policy and remove members.
    pub admins: Vec<UserId>,
    /// Who may add members.
    pub who_may_add: WhoMayAdd,
    /// How long devices keep the history, days; `None` for ever (REQ-122).
    pub retention_days: Option<u32>,
    /// Users who left: only an admin adds them again (REQ-126).
    pub left: BTreeSet<UserId>,
    /// What later versions have put here.
    pub extensions: Vec<PolicyExtension>,
    /// What the group continues; never changes (REQ-153).
    pub predecessor: Option<Predecessor>,
}

/// The last good epoch of the group that a successor continues (REQ-153).
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Predecessor {
    /// The group.
    pub group: GroupId,
    /// Its last good epoch.
    pub epoch: Epoch,
    /// That epoch's opening entry.
    pub entry_hash: Hash,
}

#[derive(TlsSerialize, TlsDeserialize, TlsSize)]
struct PolicyBody {
    version: u8,
    name: VLByteVec,
    topic: VLByteVec,
    admins: Vec<UserId>,
    who_may_add: WhoMayAdd,
    retention_days: u32,
    left: Vec<UserId>,
    extensions: Vec<PolicyExtension>,
    /// At most one.
    predecessor: Vec<Predecessor>,
}

/// What every leaf of a group must understand.
fn required_capabilities() -> RequiredCapabilitiesExtension {
    let kind = ExtensionType::Unknown(GROUP_POLICY_EXTENSION);
    RequiredCapabilitiesExtension::new(&[kind], &[], &[])
}

impl GroupPolicy {
    /// The policy of a new group: everybody but guests may add, and history is kept for ever.
    #[must_use]
    pub fn new(name: String, admin: UserId) -> Self {
        Self {
            name,
            admins: vec![admin],
            ..Self::default()
        }
    }

    /// The extension's content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&PolicyBody {
            version: 1,
            name: self.name.as_bytes().to_vec().into(),
            topic: self.topic.as_bytes().to_vec().into(),
            admins: self.admins.clone(),
            who_may_add: self.who_may_add,
            retention_days: self.retention_days.unwrap_or(0),
            left: self.left.iter().copied().collect(),
            extensions: self.extensions.clone(),
            predecessor: self.predecessor.into_iter().collect(),
        })
    }

    /// Reads the extension's content; `None` when it is not of version 1, over a limit, or not canonical: admins are
    /// named once, users who left once and in ascending order.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let body: PolicyBody = decode(bytes).ok()?;
        let fits = body.name.as_slice().len() <= MAX_GROUP_NAME_BYTES
            && body.topic.as_slice().len() <= MAX_TOPIC_BYTES;
        let admins: BTreeSet<_> = body.admins.iter().collect();
        let canonical = admins.len() == body.admins.len() && body.left.is_sorted_by(|a, b| a < b);
        if body.version != 1 || !fits || !canonical || body.predecessor.len() > 1 {
            return None;
        }
        Some(Self {
            name: String::from_utf8(body.name.into()).ok()?,
            topic: String::from_utf8(body.topic.into()).ok()?,
            admins: body.admins,
            who_may_add: body.who_may_add,
            retention_days: Some(body.retention_days).filter(|days| *days > 0),
            left: body.left.into_iter().collect(),
            extensions: body.extensions,
            predecessor: body.predecessor.first().copied(),
        })
    }

    /// Whether this user is a group admin.
    #[must_use]
    pub fn is_admin(&self, user: UserId) -> bool {
        self.admins.contains(&user)
    }

    /// Makes a change; whether the result is allowed is for the rules to say.
    pub fn apply(&mut self, change: &PolicyChange) {
        match change {
            PolicyChange::Name(name) => self.name.clone_from(name),
            PolicyChange::Topic(topic) => self.topic.clone_from(topic),
            PolicyChange::AddAdmin(user) if self.is_admin(*user) => {}
            PolicyChange::AddAdmin(user) => self.admins.push(*user),
            PolicyChange::RemoveAdmin(user) => self.admins.retain(|admin| admin != user),
            PolicyChange::WhoMayAdd(who) => self.who_may_add = *who,
            PolicyChange::Retention(days) => self.retention_days = days.filter(|d| *d > 0),
        }
    }

    /// What was changed to come from `before` to this policy.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<PolicyChange> {
        let mut changes = Vec::new();
        if self.name != before.name {
            changes.push(PolicyChange::Name(self.name.clone()));
        }
        if self.topic != before.topic {
            changes.push(PolicyChange::Topic(self.topic.clone()));
        }
        let new = self.admins.iter().filter(|user| !before.is_admin(**user));
        changes.extend(new.copied().map(PolicyChange::AddAdmin));
        let gone = before.admins.iter().filter(|user| !self.is_admin(**user));
        changes.extend(gone.copied().map(PolicyChange::RemoveAdmin));
        if self.who_may_add != before.who_may_add {
            changes.push(PolicyChange::WhoMayAdd(self.who_may_add));
        }
        if self.retention_days != before.retention_days {
            changes.push(PolicyChange::Retention(self.retention_days));
        }
        changes
    }

    /// The policy in a GroupContext that holds it and what it calls for, and nothing else.
    pub(super) fn read(extensions: &Extensions<GroupContext>) -> Option<Self> {
        let policy = Self::from_bytes(&extensions.unknown(GROUP_POLICY_EXTENSION)?.0)?;
        let is_required = extensions.required_capabilities() == Some(&required_capabilities());
        (is_required && extensions.iter().count() == 2).then_some(policy)
    }

    pub(super) fn extensions(&self) -> Option<Extensions<GroupContext>> {
        Extensions::from_vec(vec![
            Extension::RequiredCapabilities(required_capabilities()),
            Extension::Unknown(GROUP_POLICY_EXTENSION, UnknownExtension(self.to_bytes())),
        ])
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> GroupPolicy {
        GroupPolicy {
            name: "Entwürfe".into(),
            topic: "What comes next".into(),
            admins: vec![UserId([1; 16])],
            who_may_add: WhoMayAdd::Admins,
            retention_days: Some(30),
            left: [UserId([2; 16]), UserId([3; 16])].into(),
            extensions: vec![PolicyExtension {
                kind: 7,
                data: vec![1, 2].into(),
            }],
            predecessor: Some(Predecessor {
                group: GroupId([4; 32]),
                epoch: Epoch(5),
                entry_hash: Hash([6; 32]),
            }),
        }
    }

    /// REQ-094: the policy reads back with what it does not know; a later version or a truncated one is not taken for it.
    #[test]
    fn a_policy_reads_back() {
        let bytes = policy().to_bytes();
        assert_eq!(GroupPolicy::from_bytes(&bytes), Some(policy()));
        assert_eq!(GroupPolicy::from_bytes(&bytes[..bytes.len() - 1]), None);
        let mut later = bytes;
        later[0] = 2;
        assert_eq!(GroupPolicy::from_bytes(&later), None);
    }

    /// REQ-094, REQ-093: a GroupContext holds the policy, what it requires of leaves, and nothing else.
    #[test]
    fn a_context_holds_nothing_else() {
        let unknown = |kind, data| Extension::Unknown(kind, UnknownExtension(data));
        let read = |extensions| GroupPolicy::read(&Extensions::from_vec(extensions).expect("some"));
        let ours = || unknown(GROUP_POLICY_EXTENSION, policy().to_bytes());
        let required = || Extension::RequiredCapabilities(required_capabilities());
        assert_eq!(read(vec![required(), ours()]), Some(policy()));
        assert_eq!(read(vec![ours(), required()]), Some(policy()));
        assert_eq!(read(vec![ours()]), None, "requires nothing");
        assert_eq!(read(vec![required()]), None, "no policy");
        let more = unknown(0xF0A9, vec![1]);
        assert_eq!(read(vec![required(), ours(), more]), None, "one more");
        let kinds = [
            ExtensionType::Unknown(GROUP_POLICY_EXTENSION),
            ExtensionType::Unknown(0xF0A9),
        ];
        let others = RequiredCapabilitiesExtension::new(&kinds, &[], &[]);
        let others = Extension::RequiredCapabilities(others);
        assert_eq!(read(vec![others, ours()]), None, "requires more");
    }

    /// REQ-094: names and topics at the limit are read, one byte more is refused.
    #[test]
    fn texts_have_limits() {
        let name = |n| {
            GroupPolicy::from_bytes(&GroupPolicy::new("n".repeat(n), UserId([1; 16])).to_bytes())
        };
        assert!(name(MAX_GROUP_NAME_BYTES).is_some());
        assert_eq!(name(MAX_GROUP_NAME_BYTES + 1), None);
        let topic = |n| {
            let mut policy = policy();
            policy.topic = "t".repeat(n);
            GroupPolicy::from_bytes(&policy.to_bytes())
        };
        assert!(topic(MAX_TOPIC_BYTES).is_some());
        assert_eq!(topic(MAX_TOPIC_BYTES + 1), None);
    }

    /// REQ-094: there is one encoding of one policy.
    #[test]
    fn lists_are_canonical() {
        let twice = GroupPolicy {
            admins: vec![UserId([1; 16]); 2],
            ..policy()
        };
        assert_eq!(GroupPolicy::from_bytes(&twice.to_bytes()), None);
        let mut body: PolicyBody = decode(&policy().to_bytes()).expect("a policy");
        body.left.reverse();
        assert_eq!(GroupPolicy::from_bytes(&encode(&body)), None);
    }

    /// REQ-120: every change is made, and is found again by comparing.
    #[test]
    fn changes_are_made_and_found() {
        let other = UserId([9; 16]);
        let changes = [
            PolicyChange::Name("Plans".into()),
            PolicyChange::Topic(String::new()),
            PolicyChange::AddAdmin(other),
            PolicyChange::RemoveAdmin(UserId([1; 16])),
            PolicyChange::WhoMayAdd(WhoMayAdd::Members),
            PolicyChange::Retention(None),
        ];
        for change in &changes {
            let mut changed = policy();
            changed.apply(change);
            assert_eq!(
                changed.changes_since(&policy()),
                std::slice::from_ref(change)
            );
        }
        let mut changed = policy();
        changes.iter().for_each(|change| changed.apply(change));
        assert_eq!(changed.changes_since(&policy()), changes);
        assert_eq!(changed.left, policy().left);
    }
}
