//! What the workers are told: an organisation on the relay, and who of it is where.

use std::path::Path;

use anyhow::Context as _;
use mortise_protocol::identity::{ClaimLink, UserId};

use super::Options;
use crate::bench::Progress;
use crate::bench::organisation::{Founded, found};
use crate::bench::worker::{DeviceSeed, FIXTURE, Fixture};
use crate::demo::relay::RelayProcess;

/// An organisation on the relay.
#[derive(Debug)]
pub(super) struct Organisation {
    /// For the workers.
    pub(super) fixture: Fixture,
}

impl Organisation {
    /// Founds it, and admits everybody but the last device of each process.
    ///
    /// # Errors
    /// When the relay refuses an entry, or is gone.
    pub(super) fn make(
        options: &Options,
        relay: &RelayProcess,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")?;
        let claim = ClaimLink::parse(&relay.claim_link)?;
        let admitted = options.members - options.processes;
        let Founded {
            org,
            directory,
            devices,
            ..
        } = runtime.block_on(found(&claim, options.suite, admitted, progress))?;
        let fixture = Fixture {
            org,
            relay: claim.relay.clone(),
            relay_key: claim.relay_key,
            directory,
            devices: place(devices, options),
        };
        Ok(Self { fixture })
    }

    /// Writes what the workers need.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec(&self.fixture)?;
        std::fs::write(dir.join(FIXTURE), text).context("write the fixture")
    }

    /// The user of each device, by number.
    pub(super) fn user(&self, number: usize) -> anyhow::Result<UserId> {
        let seed = self.fixture.devices.get(number);
        Ok(seed.context("no such device")?.user)
    }
}

/// Gives each process its devices: those that were admitted, and as its last one a newcomer, whose user is not known yet.
fn place(admitted: Vec<DeviceSeed>, options: &Options) -> Vec<DeviceSeed> {
    let mut admitted = admitted.into_iter();
    let mut placed = Vec::new();
    for process in 0..options.processes {
        placed.extend(
            admitted
                .by_ref()
                .take(super::crowd::size_of(options, process) - 1),
        );
        placed.push(DeviceSeed {
            user: UserId([0; 16]),
            keys: None,
        });
    }
    placed
}
