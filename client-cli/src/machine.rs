//! What the engine must not know and this crate supplies: the clock, the system's randomness, the process.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustix::process::{Resource, Rlimit, setrlimit};

/// The wall clock, ms since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A generator seeded by the operating system.
///
/// # Panics
/// On a machine whose operating system has no randomness to give.
#[must_use]
pub fn system_rng() -> StdRng {
    StdRng::from_os_rng()
}

/// Keeps secrets out of core dumps; call it first.
///
/// # Errors
/// What the operating system says.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_dumps_are_off() {
        forbid_core_dumps().expect("setrlimit");
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
