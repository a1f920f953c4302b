//! What the user asks of the roster, turned into operations.

use super::roster_jobs::{Invite, RosterJob, Rotation};
use super::state::State;
use super::{CommandError, CommandKind, EngineError, IntentId, PinChoice};
use crate::identity::{
    DeviceId, InvitationId, InvitationSecret, Pin, UserId, derive_invitation_key,
};
use crate::roster::{MAX_OPS, Op};
use crate::store::Tx;

/// Devices that one entry revokes: the rotation has a place beside them.
const MAX_REVOKED: usize = MAX_OPS - 1;

impl State {
    /// Takes a command that changes the roster; what is refused here has changed nothing.
    pub(super) fn roster_command(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        kind: CommandKind,
    ) -> Result<Result<(), CommandError>, EngineError> {
        let (ops, rotation, invite) = match kind {
            CommandKind::InviteUser {
                name,
                role,
                expires_at_ms,
                pin,
            } => {
                if let Some(error) = self.refused_choice(pin) {
                    return Ok(Err(error));
                }
                let user = UserId::random(&mut self.rng);
                let Some(profile) = self.seal_name(user, &name) else {
                    return Ok(Err(CommandError::NoDirectoryKey));
                };
                let add = Op::AddUser {
                    user,
                    role,
                    profile,
                };
                let (op, invite) = self.invitation(user, expires_at_ms, pin);
                (vec![add, op], Rotation::IfStale, Some(invite))
            }
            CommandKind::InviteDevice { expires_at_ms, pin } => {
                if let Some(error) = self.refused_choice(pin) {
                    return Ok(Err(error));
                }
                let (op, invite) = self.invitation(self.identity.user, expires_at_ms, pin);
                (vec![op], Rotation::No, Some(invite))
            }
            CommandKind::ReinviteUser {
                user,
                expires_at_ms,
                pin,
            } => {
                if let Some(error) = self.refused_choice(pin) {
                    return Ok(Err(error));
                }
                let (op, invite) = self.invitation(user, expires_at_ms, pin);
                (vec![op], Rotation::No, Some(invite))
            }
            CommandKind::SetProfile { user, name } => {
                let Some(profile) = self.seal_name(user, &name) else {
                    return Ok(Err(CommandError::NoDirectoryKey));
                };
                let op = Op::SetProfile { user, profile };
                (vec![op], Rotation::IfStale, None)
            }
            CommandKind::RemoveUser { user } => {
                (vec![Op::RemoveUser { user }], Rotation::IfHeld, None)
            }
            CommandKind::RemoveUserFor { user, successor } => {
                let named = Op::NameSuccessor { user, successor };
                let ops = vec![named, Op::RemoveUser { user }];
                (ops, Rotation::IfHeld, None)
            }
            CommandKind::SuspendUser { user } => {
                (vec![Op::SuspendUser { user }], Rotation::IfHeld, None)
            }
            CommandKind::RevokeDevice {
                device,
                and_enrolled,
            } => {
                let mut devices = vec![device];
                if and_enrolled {
                    devices.extend(self.enrolled_for_same_user(device));
                }
                return self.revoke(tx, id, &devices).map(Ok);
            }
            CommandKind::SetRole { user, role } => {
                (vec![Op::SetRole { user, role }], Rotation::No, None)
            }
            CommandKind::CancelInvite { invitation } => {
                (vec![Op::CancelInvite { invitation }], Rotation::No, None)
            }
            CommandKind::SetPolicy { policy } => (vec![Op::SetPolicy(policy)], Rotation::No, None),
            CommandKind::RotateDirectoryKey => {
                if self.newest_directory_key().is_none() {
                    return Ok(Err(CommandError::NoDirectoryKey));
                }
                (Vec::new(), Rotation::Always, None)
            }
            CommandKind::CloseGroup { group } => {
                (vec![Op::CloseGroup { group }], Rotation::No, None)
            }
            _ => {
                return Err(EngineError::Bug(
                    "take a group command for a roster command",
                ));
            }
        };
        self.add_job(tx, RosterJob::new(id, ops, rotation, invite))?;
        Ok(Ok(()))
    }

    /// Orders that devices go, in one entry if they fit; the rest follows in further ones, which nobody asked for by an id.
    fn revoke(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        devices: &[DeviceId],
    ) -> Result<(), EngineError> {
        for (n, devices) in devices.chunks(MAX_REVOKED).enumerate() {
            let ops = devices.iter().map(|d| Op::RevokeDevice { device: *d });
            let job = RosterJob::new(id, ops.collect(), Rotation::IfHeld, None);
            let job = if n == 0 { job } else { self.own_job(job) };
            self.add_job(tx, job)?;
        }
        Ok(())
    }

    /// The admitted devices of `device`'s own user that it let in, directly or not (REQ-109).
    ///
    /// Other people's devices are left alone: an administrator's lost laptop may have let in everybody.
    pub(super) fn enrolled_for_same_user(&self, device: DeviceId) -> Vec<DeviceId> {
        let user = self.roster.device(device).map(|d| d.user);
        let mut enrolled = self.roster.enrolled_transitively(device);
        enrolled.retain(|id| {
            let record = self.roster.device(*id);
            record.is_some_and(|d| d.is_admitted() && Some(d.user) == user)
        });
        enrolled
    }

    fn requires_pin(&self) -> bool {
        let policy = self.roster.policy();
        policy.is_some_and(|policy| policy.pin_required.into())
    }

    /// Why there cannot be an invitation without a PIN, if one was asked for.
    fn refused_choice(&self, pin: PinChoice) -> Option<CommandError> {
        (pin == PinChoice::Never && self.requires_pin()).then_some(CommandError::PinRequired)
    }

    fn invitation(&mut self, user: UserId, expires_at_ms: u64, pin: PinChoice) -> (Op, Invite) {
        let invitation = InvitationId::random(&mut self.rng);
        let secret = InvitationSecret::random(&mut self.rng);
        let has_pin = pin == PinChoice::Always || self.requires_pin();
        let pin = has_pin.then(|| Pin::random(&mut self.rng));
        let op = Op::Invite {
            invitation,
            user,
            key: derive_invitation_key(&secret, pin.as_ref(), invitation).public(),
            expires_at_ms,
        };
        let invite = Invite {
            user,
            invitation,
            secret,
            pin,
        };
        (op, invite)
    }
}
