//! Which entries of the roster a certificate shows: those that the authority of its signers rests on (REQ-177).

use std::collections::BTreeSet;

use super::ChainItem;
use crate::identity::{DeviceId, RosterSeq, UserId};
use crate::roster::authority::Role;
use crate::roster::{EntrySigner, Op, Roster, RosterError, SignedEntry};

/// The roster up to its head, with the entries shown that concern the order or one of these devices, or what let
/// them in.
///
/// # Errors
/// [`RosterError`] when an entry does not read.
pub(super) fn excerpt(
    roster: &Roster,
    entries: &[Vec<u8>],
    devices: &BTreeSet<DeviceId>,
    order: RosterSeq,
) -> Result<Vec<ChainItem>, RosterError> {
    let entries: Vec<SignedEntry> = entries
        .iter()
        .map(|bytes| SignedEntry::parse(bytes))
        .collect::<Result<_, _>>()?;
    let mut users: BTreeSet<UserId> = devices
        .iter()
        .filter_map(|device| Some(roster.device(*device)?.user))
        .collect();
    let view = View { roster, order };
    // What is shown names further users, whose own entries must then be shown.
    let mut known = usize::MAX;
    while known != users.len() {
        known = users.len();
        for entry in entries
            .iter()
            .filter(|entry| view.shows(entry, &users))
            .collect::<Vec<_>>()
        {
            view.note(entry, &mut users);
        }
    }
    let item = |entry: SignedEntry| {
        if view.shows(&entry, &users) {
            ChainItem::Shown(entry.into_bytes().into())
        } else {
            ChainItem::Hidden(entry.hash())
        }
    };
    Ok(entries.into_iter().map(item).collect())
}

struct View<'a> {
    roster: &'a Roster,
    order: RosterSeq,
}

impl View<'_> {
    fn shows(&self, entry: &SignedEntry, users: &BTreeSet<UserId>) -> bool {
        let tbs = entry.tbs();
        tbs.seq == self.order
            || tbs.ops.iter().any(|op| match op {
                Op::Genesis(_) | Op::Recover | Op::SetPolicy(_) => true,
                // A name changes nobody's authority.
                Op::SetProfile { .. } => false,
                op => self.subject(op).is_some_and(|user| users.contains(&user)),
            })
    }

    /// Everybody whom an entry that is shown is judged by.
    fn note(&self, entry: &SignedEntry, users: &mut BTreeSet<UserId>) {
        users.extend(entry.tbs().ops.iter().filter_map(|op| self.subject(op)));
        match entry.tbs().signer {
            EntrySigner::Root => {}
            EntrySigner::Device(device) => {
                users.extend(self.roster.device(device).map(|d| d.user));
            }
            EntrySigner::Invitation(id) => {
                let invitation = self.roster.invitation(id);
                users.extend(invitation.map(|i| i.issued_by_user));
            }
        }
        if entry.tbs().ops.iter().any(|op| self.takes_an_owner(op)) {
            // Whether one is left is judged by all of them.
            users.extend(self.owners());
        }
    }

    fn takes_an_owner(&self, op: &Op) -> bool {
        let takes = op.is_order() || matches!(op, Op::SetRole { .. });
        takes
            && self
                .subject(op)
                .is_some_and(|user| self.owners().any(|owner| owner == user))
    }

    /// Who is or was an owner.
    fn owners(&self) -> impl Iterator<Item = UserId> + '_ {
        self.roster
            .users()
            .filter(|(_, user)| user.roles.iter().any(|(_, role)| *role == Role::Owner))
            .map(|(id, _)| id)
    }

    /// Whom an operation is about.
    fn subject(&self, op: &Op) -> Option<UserId> {
        match op {
            Op::AddUser { user, .. }
            | Op::SetProfile { user, .. }
            | Op::SetRole { user, .. }
            | Op::SuspendUser { user }
            | Op::RemoveUser { user }
            | Op::NameSuccessor { user, .. }
            | Op::Invite { user, .. } => Some(*user),
            Op::AddDevice(add) => Some(add.user),
            Op::RevokeDevice { device } => Some(self.roster.device(*device)?.user),
            Op::CancelInvite { invitation } => Some(self.roster.invitation(*invitation)?.user),
            Op::Genesis(_)
            | Op::SetPolicy(_)
            | Op::RotateDirectoryKey(_)
            | Op::CloseGroup { .. }
            | Op::Recover => None,
        }
    }
}
