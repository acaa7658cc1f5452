//! The clock: `CLOCK_MONOTONIC` of clock_gettime(2).

use nix::time::{ClockId, clock_gettime};
use roundel_core::Time;

/// The current time. The epoch is the start of the machine.
pub fn now() -> Time {
    // It fails only for clocks that do not exist; every Linux has this one.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Time::ZERO, |at| {
        let seconds = u64::try_from(at.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(at.tv_nsec()).unwrap_or(0);
        Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    })
}
