//! The device's clock beside the relay's (REQ-159): what a wrong one would spoil is not made, everything else goes on.

use super::Alarm;
use super::state::State;

/// From this difference on the user is told, ms.
const TELL_MS: u64 = 10 * 60 * 1_000;
/// From this difference on no KeyPackages are made, ms: the others would refuse their lifetimes.
const TOO_FAR_MS: u64 = 24 * 3_600 * 1_000;

impl State {
    /// Compares the clocks, once on each connection.
    pub(super) fn check_clock(&mut self, relay_ms: u64) {
        let device_ms = self.now_ms;
        if device_ms.abs_diff(relay_ms) > TELL_MS {
            self.alarm(Alarm::Clock {
                device_ms,
                relay_ms,
            });
        }
        if let Some(link) = &mut self.link {
            link.clock_is_off = device_ms.abs_diff(relay_ms) > TOO_FAR_MS;
        }
    }
}
