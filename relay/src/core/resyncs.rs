//! Devices that ask to be let in anew: the newest question of each, kept until a commit answers it (REQ-156).

use mortise_protocol::identity::{DeviceId, GroupId, OrgId};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::{Push, Refusal, Response, limits};
use tls_codec::VLByteVec;

use super::ConnId;
use super::append::check_size;
use super::layout::{
    self, GroupRecord, RESYNC_GROUPS, RESYNCS, of_device, of_resync, of_resync_group,
};
use super::turn::{Answer, Caller, Turn};

impl Turn<'_> {
    /// Keeps the question and gives it to those who read the newest epoch.
    pub(super) fn ask_resync(
        &mut self,
        caller: &Caller,
        group: GroupId,
        key_package: &VLByteVec,
    ) -> Answer {
        check_size(key_package.as_slice().len(), limits::MAX_KEY_PACKAGE_BYTES)?;
        let head = self.group_of(caller, group)?.ok_or(Refusal::UnknownGroup)?;
        let key = of_resync(group, caller.device);
        if self.tx.get(RESYNCS, &key)?.is_none() {
            let waiting = self.tx.scan(RESYNCS, &group.0)?.len();
            check_size(waiting + 1, limits::MAX_RESYNCS)?;
        }
        layout::save_bytes(self.tx, RESYNCS, key, key_package.as_slice());
        let mark = of_resync_group(caller.org, caller.device, group);
        layout::save_bytes(self.tx, RESYNC_GROUPS, mark, &[]);
        self.push_resync_asked(group, &head, caller.device, Some(caller.conn), key_package);
        Ok(Response::Done)
    }

    /// Gives a question to all who read the newest epoch, but not to who has asked it.
    pub(super) fn push_resync_asked(
        &mut self,
        group: GroupId,
        head: &GroupRecord,
        device: DeviceId,
        asker: Option<ConnId>,
        key_package: &VLByteVec,
    ) {
        for (conn, subscription) in self.connections.subscribers(group).to_vec() {
            if subscription.epoch == head.head_epoch && Some(conn) != asker {
                self.push(conn, resync_asked(group, device, key_package.clone()));
            }
        }
    }

    /// Gives every open question of a group to somebody who has subscribed to its newest epoch.
    pub(super) fn push_resyncs(&mut self, conn: ConnId, group: GroupId) -> Result<(), StoreError> {
        for (key, row) in self.tx.scan(RESYNCS, &group.0)? {
            let device = DeviceId(layout::key_tail(&key)?);
            let key_package = layout::read_bytes(&row)?.to_vec();
            self.push(conn, resync_asked(group, device, key_package.into()));
        }
        Ok(())
    }

    /// A commit has let the device in.
    pub(super) fn delete_resync(&mut self, org: OrgId, device: DeviceId, group: GroupId) {
        self.tx.delete(RESYNCS, of_resync(group, device));
        self.tx
            .delete(RESYNC_GROUPS, of_resync_group(org, device, group));
    }

    /// Deletes every question of a device that an order named (REQ-062).
    pub(super) fn delete_resyncs(
        &mut self,
        org: OrgId,
        device: DeviceId,
    ) -> Result<(), StoreError> {
        for (key, _) in self.tx.scan(RESYNC_GROUPS, &of_device(org, device))? {
            self.delete_resync(org, device, GroupId(layout::key_tail(&key)?));
        }
        Ok(())
    }
}

fn resync_asked(group: GroupId, device: DeviceId, key_package: VLByteVec) -> Push {
    Push::ResyncAsked {
        group,
        device,
        key_package,
    }
}
