//! How many connections a worker has open, and when the primary must be told.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::unix::clock;

/// How long after a change the primary is told, so that many changes cost one message.
const DELAY: Duration = Duration::from_millis(50);

/// Nothing has changed since the primary was told.
const NOTHING: u64 = 0;
/// The primary must be told now.
const OVERDUE: u64 = 1;
/// A thread is setting the timer.
const SETTING: u64 = u64::MAX - 1;
/// There is nobody to tell.
const NEVER: u64 = u64::MAX;

/// The number of open connections of a worker, which any thread may change. A change costs no
/// system call, except for the first one after a report, which sets a timer.
#[derive(Debug)]
pub(super) struct Load {
    open: AtomicU32,
    /// When the primary must be told, in nanoseconds of the clock, or one of the constants above.
    due: AtomicU64,
    timer: Option<Timer>,
}

#[derive(Debug)]
struct Timer {
    timer: TimerFd,
    /// A copy of the timer's descriptor, for event loops.
    fd: Arc<OwnedFd>,
}

impl Load {
    /// With a timer if there is a primary that must be told. Without one, also because descriptors
    /// ran out, nothing is told and the primary knows of no number.
    pub(super) fn new(is_told: bool) -> Arc<Load> {
        let timer = if is_told { Timer::new().ok() } else { None };
        let due = if timer.is_some() { OVERDUE } else { NEVER };
        Arc::new(Load { open: AtomicU32::new(0), due: AtomicU64::new(due), timer })
    }

    /// Becomes ready to read when [`is_due`](Load::is_due) must be called.
    pub(super) fn fd(&self) -> Option<&Arc<OwnedFd>> {
        self.timer.as_ref().map(|timer| &timer.fd)
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> u32 {
        self.open.load(SeqCst)
    }

    /// Counts one connection more, until the hold is dropped.
    pub(super) fn hold(self: &Arc<Load>) -> Hold {
        self.open.fetch_add(1, SeqCst);
        self.changed();
        Hold(Some(Arc::clone(self)))
    }

    /// Sees to it that the primary is told. Call it after the change: if a report is due already,
    /// it will read the new number, because [`take`](Load::take) reads it last.
    fn changed(&self) {
        if self.due.load(SeqCst) != NOTHING {
            return;
        }
        let Some(timer) = &self.timer else { return };
        if self.due.compare_exchange(NOTHING, SETTING, SeqCst, SeqCst).is_ok() {
            // Read before the timer is set: when that fires, the time has come.
            let at = clock::now() + DELAY;
            let after = Expiration::OneShot(TimeSpec::from_duration(DELAY));
            // It fails only for times that do not exist (timerfd_settime(2)).
            let _ = timer.timer.set(after, TimerSetTimeFlags::empty());
            self.due.store(at.as_nanos(), SeqCst);
        }
    }

    /// True if the primary must be told now. Only the driver calls it, and
    /// [`take`](Load::take).
    pub(super) fn is_due(&self) -> bool {
        match self.due.load(SeqCst) {
            OVERDUE => true,
            NOTHING | SETTING | NEVER => false,
            at if clock::now().as_nanos() < at => false,
            _ => {
                // The descriptor would stay ready, even if nothing can be sent for a long time.
                let _ = self.timer.as_ref().map(|timer| timer.timer.unset());
                self.due.store(OVERDUE, SeqCst);
                true
            }
        }
    }

    /// True if the timer is set for a change that was not told yet.
    pub(super) fn is_pending(&self) -> bool {
        !matches!(self.due.load(SeqCst), NOTHING | OVERDUE | NEVER)
    }

    /// The number to tell. Changes from here on are told later.
    pub(super) fn take(&self) -> u32 {
        self.due.store(NOTHING, SeqCst);
        self.open()
    }
}

impl Timer {
    fn new() -> std::io::Result<Timer> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let fd = Arc::new(timer.as_fd().try_clone_to_owned()?);
        Ok(Timer { timer, fd })
    }
}

/// Counts a connection as open until it is dropped, on any thread.
///
/// A [`Connection`](super::Connection) has one. A program that turns the connection into something
/// else takes it before, and keeps it as long as that is open; otherwise the connection counts as
/// closed from then on, and the primary shows and reports too few.
#[derive(Debug, Default)]
#[must_use = "when it is dropped, the connection counts as closed"]
pub struct Hold(Option<Arc<Load>>);

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(load) = &self.0 {
            load.open.fetch_sub(1, SeqCst);
            load.changed();
        }
    }
}
