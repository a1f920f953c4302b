//! Numbers from many: median and worst; and what a process has used, from the kernel.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};

/// Microseconds since 1970: one clock for all processes of a machine.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Durations of which the middle and the end count.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    us: Vec<u64>,
}

impl Durations {
    /// From differences of [`now_us`].
    #[must_use]
    pub fn of(us: impl IntoIterator<Item = u64>) -> Self {
        let mut us: Vec<u64> = us.into_iter().collect();
        us.sort_unstable();
        Self { us }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.us.len()
    }

    /// The one below which this share of them is, µs; not a number when there is none.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    pub fn quantile_us(&self, share: f64) -> f64 {
        let at = (self.us.len() as f64 * share) as usize;
        let at = at.min(self.us.len().saturating_sub(1));
        self.us.get(at).map_or(f64::NAN, |us| *us as f64)
    }

    /// The middle one, ms; null when there is none.
    #[must_use]
    pub fn median_ms(&self) -> Value {
        ms(self.us.get(self.us.len() / 2))
    }

    /// The longest, ms; null when there is none.
    #[must_use]
    pub fn worst_ms(&self) -> Value {
        ms(self.us.last())
    }
}

#[allow(clippy::cast_precision_loss)]
fn ms(us: Option<&u64>) -> Value {
    match us {
        None => Value::Null,
        Some(us) if *us < 10_000 => json!((*us as f64 / 10.0).round() / 100.0),
        Some(us) => json!(us / 1_000),
    }
}

/// What processes have used since they began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time in user and system mode, ms.
    pub cpu_ms: u64,
    /// The most memory that was resident at once, summed over the processes, MiB.
    pub peak_mib: u64,
}

impl Usage {
    /// Of one process that runs.
    ///
    /// # Errors
    /// When the kernel has no such process.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let stat = read("stat")?;
        let status = read("status")?;
        Ok(Self {
            cpu_ms: cpu_ms(&stat).context("read a process's times")?,
            peak_mib: peak_kib(&status).context("read a process's memory")? / 1_024,
        })
    }

    /// Of several processes together.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn of_all(pids: impl IntoIterator<Item = u32>) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::of(pid)?;
            sum.cpu_ms += one.cpu_ms;
            sum.peak_mib += one.peak_mib;
        }
        Ok(sum)
    }
}

/// What a process has resident now, KiB.
///
/// # Errors
/// When the kernel has no such process.
pub fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    kib_of(&status, "VmRSS:").context("read a process's memory")
}

/// Fields 14 and 15 of `/proc/PID/stat`, in hundredths of a second; the name before them may hold anything.
fn cpu_ms(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 10)
}

fn peak_kib(status: &str) -> Option<u64> {
    kib_of(status, "VmHWM:")
}

fn kib_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    #[test]
    fn the_middle_and_the_end_of_many() {
        let durations = Durations::of([30_000, 1_230, 10_000]);
        assert_eq!(durations.count(), 3);
        assert_eq!(durations.median_ms(), json!(10));
        assert_eq!(durations.worst_ms(), json!(30));
        assert_eq!(
            durations.quantile_us(0.5).total_cmp(&10_000.0),
            Ordering::Equal
        );
        assert_eq!(
            durations.quantile_us(1.0).total_cmp(&30_000.0),
            Ordering::Equal
        );
        assert!(Durations::default().quantile_us(0.5).is_nan());
        assert_eq!(Durations::of([1_230]).median_ms(), json!(1.23));
        assert_eq!(Durations::default().worst_ms(), Value::Null);
    }

    #[test]
    fn a_process_knows_what_it_has_used() {
        assert_eq!(
            cpu_ms("7 (a) b) S 1 1 1 0 -1 4 0 0 0 0 12 34 0 0"),
            Some(460)
        );
        let usage = Usage::of(std::process::id()).expect("this process");
        assert!(usage.peak_mib > 0);
        assert!(resident_kib(std::process::id()).expect("this process") > 0);
        assert!(Usage::of(0).is_err());
    }
}
