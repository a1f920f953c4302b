//! Resync: a device whose state leads nowhere is let in anew (REQ-156).

use super::rows::GroupRow;
use super::state::State;
use super::{CommandError, EngineError, IntentId};
use crate::identity::{DeviceId, GroupId};
use crate::store::Tx;

impl State {
    pub(super) fn command_resync(
        &mut self,
        _: &Tx<'_>,
        _: IntentId,
        _: GroupId,
    ) -> Result<Result<(), CommandError>, EngineError> {
        Ok(Err(CommandError::NotAMember))
    }

    pub(super) fn ask_resync(
        &mut self,
        _: &Tx<'_>,
        _: GroupId,
        _: &mut GroupRow,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    pub(super) fn handle_resync_asked(&mut self, _: GroupId, _: DeviceId, _: &[u8]) {}
}
