//! Bugs that are planted to see that the model catches them. None touches product code: a disk alters what is
//! written, or a relay lies between the core and the devices.

mod disks;
mod liars;

use crate::world::World;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The relay does not remember what was appended, and by whom.
    RelayForgetsDuplicates,
    /// The relay acknowledges, and its disk loses the newest batch when it dies.
    RelayLosesLastBatch,
    /// The relay does not keep Welcomes for those who are not connected.
    RelayForgetsInboxes,
    /// The relay stores records with the fence from before the newest order.
    RelayStampsOldFence,
    /// A client does not write down what it sends.
    ClientForgetsOutbox,
    /// A client does not write down what its user wants.
    ClientForgetsIntents,
    /// A client does not write down the hashes of its log.
    ClientForgetsLogHashes,
    /// A client forgets a text that it has acknowledged to itself.
    ClientForgetsHistory,
    /// A client does not write down what an order asks of it: it never attests.
    ClientsForgetOrders,
    /// A client claims that a group was rotated when it was clean all along.
    ClientsClaimRotation,
    /// The relay tells members that records carry the fence from before an order.
    LiarLowersFence,
    /// The relay delivers two records in another order to one member.
    LiarSwapsRecords,
    /// The relay withholds one message from one member and numbers the rest anew.
    LiarWithholdsMessage,
    /// The relay shows one member another text in place of somebody's message.
    LiarShowsTwoLogs,
    /// The relay goes on sending to a device that an order named.
    LiarServesRemoved,
    /// The relay drops every commit after an order: nobody can rotate.
    LiarDropsRemovals,
    /// The relay keeps an order from one member.
    LiarHidesOrder,
    /// The relay acknowledges messages that it has thrown away.
    LiarAcksUnstored,
    /// The relay swallows attestations, and acknowledges them.
    LiarSwallowsAttestations,
    /// The relay brings Welcomes again.
    LiarReplaysWelcomes,
    /// A byte of a message changes on its way to one member.
    LiarChangesBytes,
    /// The relay adds records that nobody has sent.
    LiarInventsRecords,
    /// A client's disk loses the newest batch when the process ends.
    ClientLosesLastBatch,
    /// A client does not write down how far it has read a group.
    ClientForgetsGroups,
    /// No client's timers go off.
    ClientsLoseTimers,
    /// A client does not write down that it wants to be let in anew.
    ClientsForgetResyncs,
    /// The relay swallows what repairs a group that a villain has broken, and acknowledges it.
    LiarSwallowsRepairs,
    /// The relay shows another organisation what is said in this one.
    LiarServesNeighbours,
}

impl Plant {
    /// Every planted bug.
    pub const ALL: [Self; 28] = [
        Self::RelayForgetsDuplicates,
        Self::RelayLosesLastBatch,
        Self::RelayForgetsInboxes,
        Self::RelayStampsOldFence,
        Self::ClientForgetsOutbox,
        Self::ClientForgetsIntents,
        Self::ClientForgetsLogHashes,
        Self::ClientForgetsHistory,
        Self::ClientsForgetOrders,
        Self::ClientsClaimRotation,
        Self::LiarLowersFence,
        Self::LiarSwapsRecords,
        Self::LiarWithholdsMessage,
        Self::LiarShowsTwoLogs,
        Self::LiarServesRemoved,
        Self::LiarDropsRemovals,
        Self::LiarHidesOrder,
        Self::LiarAcksUnstored,
        Self::LiarSwallowsAttestations,
        Self::LiarReplaysWelcomes,
        Self::LiarChangesBytes,
        Self::LiarInventsRecords,
        Self::ClientLosesLastBatch,
        Self::ClientForgetsGroups,
        Self::ClientsLoseTimers,
        Self::ClientsForgetResyncs,
        Self::LiarSwallowsRepairs,
        Self::LiarServesNeighbours,
    ];

    /// Whether the bug shows only where a member is malicious.
    pub(super) fn needs_villain(self) -> bool {
        self == Self::LiarSwallowsRepairs
    }

    /// Plants the bug.
    pub fn install(self, world: &mut World) {
        match self {
            Self::RelayForgetsDuplicates => disks::forget_duplicates(world),
            Self::RelayLosesLastBatch => world.disk.keep_before(),
            Self::RelayForgetsInboxes => disks::forget_inboxes(world),
            Self::RelayStampsOldFence => disks::stamp_old_fence(world),
            Self::ClientForgetsOutbox => disks::client_forgets(world, disks::OUTBOX),
            Self::ClientForgetsIntents => disks::client_forgets(world, disks::INTENTS),
            Self::ClientForgetsLogHashes => disks::client_forgets(world, disks::LOG_HASHES),
            Self::ClientForgetsHistory => disks::client_forgets(world, disks::HISTORY),
            Self::ClientsForgetOrders => disks::clients_forget_orders(world),
            Self::ClientsClaimRotation => disks::clients_claim_rotation(world),
            Self::LiarLowersFence => world.liar = Some(Box::new(liars::LowersFence)),
            Self::LiarSwapsRecords => world.liar = Some(Box::new(liars::Swaps::default())),
            Self::LiarWithholdsMessage => {
                world.liar = Some(Box::new(liars::Withholds::default()));
            }
            Self::LiarShowsTwoLogs => world.liar = Some(Box::new(liars::TwoLogs::default())),
            Self::LiarServesRemoved => world.liar = Some(Box::new(liars::ServesRemoved::default())),
            Self::LiarDropsRemovals => world.liar = Some(Box::new(liars::DropsRemovals::default())),
            Self::LiarHidesOrder => world.liar = Some(Box::new(liars::HidesOrder)),
            Self::LiarAcksUnstored => world.liar = Some(Box::new(liars::AcksUnstored::default())),
            Self::LiarSwallowsAttestations => {
                world.liar = Some(Box::new(liars::Swallows::attestations()));
            }
            Self::LiarReplaysWelcomes => {
                world.liar = Some(Box::new(liars::ReplaysWelcomes::default()));
            }
            Self::LiarChangesBytes => world.liar = Some(Box::new(liars::ChangesBytes)),
            Self::LiarInventsRecords => world.liar = Some(Box::new(liars::InventsRecords)),
            Self::ClientLosesLastBatch => disks::clients_lose_last_batch(world),
            Self::ClientForgetsGroups => disks::client_forgets(world, disks::GROUPS),
            Self::ClientsLoseTimers => world.loses_timers = true,
            Self::ClientsForgetResyncs => disks::clients_forget_resyncs(world),
            Self::LiarSwallowsRepairs => world.liar = Some(Box::new(liars::Swallows::repairs())),
            Self::LiarServesNeighbours => liars::serve_neighbours(world),
        }
    }
}
