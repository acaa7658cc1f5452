//! A worker's channel and its socket.

use roundel_core::WorkerChannel;
use std::os::fd::OwnedFd;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) channel: WorkerChannel,
    /// Whether the adapter was asked to watch for readiness to write.
    pub(super) watched_for_write: bool,
    pub(super) skips: Skips,
}

/// How many skipped messages of a worker are reported in a second. Even an empty line is one, and
/// its event is a hundred times as long.
const SKIPS_A_SECOND: u32 = 10;

/// Decides which skipped messages are reported, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Skips {
    /// The current second, counted from the start of the primary.
    second: u64,
    told: u32,
    untold: u64,
}

impl Skips {
    /// Counts a skipped message: returns how many before it were not reported, or `None` if this
    /// one is not reported either.
    pub(super) fn next(&mut self, at_ms: u64) -> Option<u64> {
        let second = at_ms / 1_000;
        if second != self.second {
            (self.second, self.told) = (second, 0);
        }
        if self.told == SKIPS_A_SECOND {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::Skips;

    #[test]
    fn ten_a_second_are_told() {
        let mut skips = Skips::default();
        for at in 0..10 {
            assert_eq!(skips.next(at), Some(0));
        }
        assert_eq!((0..1_000).filter_map(|_| skips.next(999)).count(), 0);
        assert_eq!(skips.next(1_000), Some(1_000));
        assert_eq!(skips.next(1_001), Some(0));
    }
}
