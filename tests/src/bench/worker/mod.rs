//! A process with many devices: each a real engine on the client's own driver, with a store of its own.
//!
//! Inputs: one [`Ask`] per line of standard input. Outputs: one [`Reply`] per line of standard output, in order.
//! Whatever takes time goes on in the background and is seen by [`Ask::Look`]. This module must never do a
//! device's work for it.

mod device;
mod protocol;
mod store;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::Semaphore;

pub use device::SeenDevice;
pub use protocol::{Answer, Ask, DeviceSeed, FIXTURE, Fixture, Line, Reply, What};
pub(super) use store::open as open_store;

use device::Device;

/// Serves the devices `first` and the `count` from there on, until standard input ends.
///
/// # Errors
/// When the fixture cannot be read, or standard input or output fails.
pub fn serve(dir: &Path, first: usize, count: usize) -> anyhow::Result<()> {
    let path = dir.join(FIXTURE);
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let fixture: Arc<Fixture> = Arc::new(serde_json::from_slice(&text)?);
    let devices = (first..first + count)
        .map(|number| Arc::new(Device::new(number, dir, Arc::clone(&fixture))))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start a runtime")?;
    let done = runtime.block_on(answer_all(&Crowd { first, devices }));
    // Nobody is waited for: what a device has stored is stored.
    runtime.shutdown_background();
    done
}

struct Crowd {
    first: usize,
    devices: Vec<Arc<Device>>,
}

async fn answer_all(crowd: &Crowd) -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        let reply = match crowd.answer(serde_json::from_str(&line)?).await {
            Ok(reply) => reply,
            Err(error) => Reply::Failed {
                why: format!("{error:#}"),
            },
        };
        let text = format!("{}\n", serde_json::to_string(&reply)?);
        out.write_all(text.as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

impl Crowd {
    fn device(&self, number: usize) -> anyhow::Result<&Arc<Device>> {
        let at = number.checked_sub(self.first);
        at.and_then(|at| self.devices.get(at))
            .with_context(|| format!("device {number} is elsewhere"))
    }

    async fn answer(&self, ask: Ask) -> anyhow::Result<Reply> {
        match ask {
            Ask::Start { device } => self.device(device)?.start()?,
            Ask::StartAll { at_once } => self.start_all(at_once),
            Ask::Join { device, link } => {
                let device = Arc::clone(self.device(device)?);
                tokio::spawn(async move { device.join(&link).await });
            }
            Ask::Do { device, what } => {
                let device = Arc::clone(self.device(device)?);
                tokio::spawn(async move { device.carry_out(what).await });
            }
            Ask::Look { after } => {
                let devices = self.devices.iter().map(|d| d.look(after)).collect();
                return Ok(Reply::Look { devices });
            }
            Ask::Lines { device, after } => {
                let lines = self.device(device)?.lines(after).await?;
                return Ok(Reply::Lines { lines });
            }
            Ask::States => {
                let mut states = Vec::new();
                for device in &self.devices {
                    states.push(device.state().await?);
                }
                return Ok(Reply::States { states });
            }
            Ask::Traffic => {
                let mut traffic = Vec::new();
                for device in &self.devices {
                    traffic.push(device.traffic().await?);
                }
                return Ok(Reply::Traffic { traffic });
            }
        }
        Ok(Reply::Done)
    }

    /// Starts those that are not running, a few at a time: the next when one of them is up to date.
    fn start_all(&self, at_once: usize) {
        let room = Arc::new(Semaphore::new(at_once));
        for device in &self.devices {
            let (device, room) = (Arc::clone(device), Arc::clone(&room));
            tokio::spawn(async move {
                // The semaphore is never closed.
                let _held = room.acquire().await;
                device.start_and_settle().await;
            });
        }
    }
}
