//! Time as the core sees it: an integer that only the embedder moves.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since an epoch that the embedder chooses.
///
/// The clock behind it must not go back. If a `now` does, it is read as the latest one seen, so
/// only precision suffers. Adapters use `CLOCK_MONOTONIC` (clock_gettime(2)).
///
/// `+` and `-` add and subtract spans, and saturate:
///
/// ```
/// use core::time::Duration;
/// use roundel_core::Time;
///
/// assert_eq!(Time::ZERO + Duration::from_secs(2), Time::from_millis(2_000));
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(u64);

impl Time {
    /// The epoch.
    pub const ZERO: Time = Time(0);

    /// The time `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// The time `millis` milliseconds after the epoch. Saturates after 584 years.
    pub const fn from_millis(millis: u64) -> Self {
        Time(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long it is from `earlier` to `self`; zero if `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

const fn nanos(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1_000_000_000).saturating_add(span.subsec_nanos() as u64)
}

impl Add<Duration> for Time {
    type Output = Time;

    /// The time that much later. Saturates at the end of time instead of wrapping.
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(nanos(span)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    /// The time that much earlier. Saturates at the beginning of time.
    fn sub(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(nanos(span)))
    }
}

impl fmt::Display for Time {
    /// Seconds with six digits after the point, for traces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, (self.0 / 1_000) % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_added_and_taken_away() {
        let at = Time::from_millis(1_000);
        let mut later = at + Duration::from_millis(500);
        assert_eq!(later, Time::from_millis(1_500));
        assert_eq!(later - Duration::from_millis(500), at);
        later += Duration::from_nanos(1);
        assert_eq!(later.since(at), Duration::from_nanos(500_000_001));
        // Time has two ends.
        assert_eq!(at + Duration::MAX, Time::from_nanos(u64::MAX));
        assert_eq!(at - Duration::MAX, Time::ZERO);
    }

    #[test]
    fn milliseconds_are_whole_ones() {
        assert_eq!(Time::from_millis(1_500).as_millis(), 1_500);
        assert_eq!(Time::from_nanos(1_999_999).as_millis(), 1);
    }
}
