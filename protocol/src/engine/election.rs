//! Who goes first, where any of several devices may: an order that all compute alike, without asking each other.

use crate::identity::{DeviceId, GroupId, hash};

/// What is to be done; each has an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// What every member owes the group: removals, statements, own devices.
    Duty,
    /// A restart.
    Restart,
    /// The answer to a device that asks to be let in anew.
    Resync,
}

impl Election {
    const fn label(self) -> &'static str {
        match self {
            Self::Duty => "election",
            Self::Restart => "restart turn",
            Self::Resync => "resync turn",
        }
    }

    /// How many of these devices stand before `me`, for this group and turn (an epoch, or an order's seq).
    pub(super) fn before(
        self,
        group: GroupId,
        turn: u64,
        me: DeviceId,
        devices: impl Iterator<Item = DeviceId>,
    ) -> usize {
        let place = |device: DeviceId| {
            let content = [&group.0[..], &turn.to_be_bytes(), &device.0].concat();
            hash(self.label(), &content)
        };
        let mine = place(me);
        devices.filter(|device| place(*device) < mine).count()
    }
}

/// A count of others as a factor of time, no more than `most`.
pub(super) fn turns(before: usize, most: u64) -> u64 {
    u64::try_from(before).unwrap_or(u64::MAX).min(most)
}
