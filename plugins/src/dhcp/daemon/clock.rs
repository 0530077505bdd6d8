//! The time since the machine was started. It goes on while the machine sleeps, as leases do, and nobody sets it.

use nix::time::{ClockId, clock_gettime};

use super::super::machine::Millis;

/// Now.
pub(super) fn now() -> Millis {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    time.map_or(0, |time| {
        Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
    })
}
