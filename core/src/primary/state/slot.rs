//! What the primary knows about a slot: which worker is in it, and how its workers ended.

use alloc::collections::{BTreeSet, VecDeque};
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Config, ExitClass, ExitStatus, ListenerId, Seq, Time, WorkerId};

/// A place for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    pub(crate) state: SlotState,
    pub(crate) restarts: u64,
    /// When its workers failed early, within the period that counts.
    pub(crate) failures: VecDeque<Time>,
    /// The delay before the next respawn after an early failure.
    pub(crate) delay: Duration,
    /// Set if its last start failed for want of resources: how long it waits after the next such
    /// failure.
    pub(crate) wanting: Option<Duration>,
    pub(crate) last_exit: Option<LastExit>,
    /// The generation of its next worker.
    pub(crate) generation: u32,
    /// The new worker of a reload or recycling, until it counts.
    pub(crate) successor: Option<WorkerId>,
    /// What its last worker that served listened on, until the next one serves: a new worker of a
    /// reload must have the same.
    pub(crate) listened: BTreeSet<ListenerId>,
    /// How long after it is given up it is tried again.
    pub(crate) retry_delay: Option<Duration>,
}

impl SlotRecord {
    pub(crate) fn new(config: &Config, generation: u32) -> Self {
        SlotRecord {
            state: SlotState::Empty,
            restarts: 0,
            failures: VecDeque::new(),
            delay: config.respawn_delay,
            wanting: None,
            last_exit: None,
            generation,
            successor: None,
            listened: BTreeSet::new(),
            retry_delay: config.retry_delay,
        }
    }

    /// Forgets the failures of its former workers.
    pub(crate) fn renew(&mut self, delay: Duration) {
        self.failures.clear();
        self.wanting = None;
        self.delay = delay;
    }

    /// The worker in it, if there is one.
    pub(crate) fn worker(&self) -> Option<WorkerId> {
        let SlotState::Filled(id) = self.state else { return None };
        Some(id)
    }

    /// Whether it has a worker, or may have one again without a reload.
    pub(crate) fn may_start(&self) -> bool {
        let again = self.state == SlotState::GivenUp && self.retry_delay.is_some();
        !self.is_closed() || again
    }

    /// Whether it gets no worker by itself, unless it is tried again after a long while.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, SlotState::GivenUp | SlotState::Ended | SlotState::Removed)
    }
}

/// The worker that is, or will be, in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum SlotState {
    /// No worker yet: the listeners are being bound, or a reload has ended its worker first.
    Empty,
    /// This worker.
    Filled(WorkerId),
    /// The next worker, after a delay.
    Waiting,
    /// The next worker, once a process has ended: there are twice as many processes as wanted.
    /// Until then the failing worker's suicide is not confirmed, so that it waits for its
    /// replacement.
    AwaitsProcessEnd { failing: WorkerId, suicide: Option<Seq> },
    /// No worker any more: its workers failed too often.
    GivenUp,
    /// No worker any more: it ended and is not respawned.
    Ended,
    /// No worker: fewer are wanted.
    Removed,
}

/// How the last worker of a slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastExit {
    /// How the process ended; `None` if it was never started, or is stuck in the kernel.
    pub status: Option<ExitStatus>,
    /// What that means.
    pub class: ExitClass,
}
