//! Deadlines: which, when, and which comes first.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{ListenerId, Slot, Time, WorkerId};

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Timer {
    /// A worker has connections in flight and must answer one.
    Ack,
    /// A worker was granted a listener and must become ready.
    Ready,
    /// A worker that has sent nothing yet, or has not asked to listen, is reported.
    Silent,
    /// A begun frame must complete.
    Frame,
    /// A worker that declined is asked again.
    Cooldown,
    /// A leaving worker is killed.
    Drain,
    /// A leaving worker is told to leave.
    Settle,
    /// A leaving worker whose deadline is near gets SIGTERM.
    Terminate,
    /// The connections of leaving workers are counted.
    Count,
    /// The read side of a killed worker's channel is shut down.
    ShutdownRead,
    /// A worker that lost its channel, but lives, is replaced.
    Orphan,
    /// A slot gets its next worker.
    Respawn,
    /// A listener that nobody holds is closed.
    Unheld,
    /// A shutdown stops waiting for answers, or for workers.
    Shutdown,
    /// Listeners of the operator that no worker has asked for are reported.
    Claims,
    /// A reload looks at its batch.
    Reload,
    /// The start of a reload's new worker is tried again.
    Successor,
    /// A slot that was given up is tried again.
    Retry,
    /// A worker is asked for a sign of life.
    Heartbeat,
    /// A worker is replaced for its age.
    Age,
}

/// When the machine next wants a `Wake`, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deadline {
    /// When.
    pub at: Time,
    /// Why: for traces only.
    pub timer: Timer,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.timer, self.at)
    }
}

/// One deadline, and the worker, listener or slot that it is about.
///
/// An ack deadline is set once and looked at when it has passed: each answer only notes a later
/// time in the worker's record. So it may be early, and the path of a connection sets no timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Due {
    Ack(WorkerId),
    Ready(WorkerId),
    Silent(WorkerId),
    Frame(WorkerId),
    Cooldown(WorkerId, ListenerId),
    Drain(WorkerId),
    Settle(WorkerId),
    Terminate(WorkerId),
    Count,
    ShutdownRead(WorkerId),
    Orphan(WorkerId),
    Respawn(Slot),
    Unheld(ListenerId),
    StopWaiting,
    Claims,
    Reload,
    Successor(Slot),
    Retry(Slot),
    Heartbeat(WorkerId),
    Age(WorkerId),
}

impl Due {
    pub(crate) const fn timer(self) -> Timer {
        match self {
            Due::Ack(_) => Timer::Ack,
            Due::Ready(_) => Timer::Ready,
            Due::Silent(_) => Timer::Silent,
            Due::Frame(_) => Timer::Frame,
            Due::Cooldown(..) => Timer::Cooldown,
            Due::Drain(_) => Timer::Drain,
            Due::Settle(_) => Timer::Settle,
            Due::Count => Timer::Count,
            Due::Terminate(_) => Timer::Terminate,
            Due::ShutdownRead(_) => Timer::ShutdownRead,
            Due::Orphan(_) => Timer::Orphan,
            Due::Respawn(_) => Timer::Respawn,
            Due::Unheld(_) => Timer::Unheld,
            Due::StopWaiting => Timer::Shutdown,
            Due::Claims => Timer::Claims,
            Due::Reload => Timer::Reload,
            Due::Successor(_) => Timer::Successor,
            Due::Retry(_) => Timer::Retry,
            Due::Heartbeat(_) => Timer::Heartbeat,
            Due::Age(_) => Timer::Age,
        }
    }
}

/// The deadlines that are set.
///
/// Stored as a list, which any format can hold: JSON has no maps with [`Due`] as key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<(Time, Due)>", into = "Vec<(Time, Due)>")]
pub(crate) struct Timers {
    order: BTreeSet<(Time, Due)>,
    at: BTreeMap<Due, Time>,
    /// The first of `order`, so that asking after each step costs nothing.
    first: Option<(Time, Due)>,
}

impl Timers {
    /// Sets a deadline, replacing the one that was set for the same thing.
    pub(crate) fn set(&mut self, due: Due, at: Time) {
        if let Some(before) = self.at.insert(due, at) {
            self.order.remove(&(before, due));
        }
        self.order.insert((at, due));
        self.first = self.order.first().copied();
    }

    pub(crate) fn clear(&mut self, due: Due) {
        if let Some(before) = self.at.remove(&due) {
            self.order.remove(&(before, due));
            self.first = self.order.first().copied();
        }
    }

    pub(crate) fn clear_worker(&mut self, worker: WorkerId) {
        for due in [
            Due::Ack(worker),
            Due::Ready(worker),
            Due::Silent(worker),
            Due::Frame(worker),
            Due::Drain(worker),
            Due::Settle(worker),
            Due::Terminate(worker),
            Due::ShutdownRead(worker),
            Due::Orphan(worker),
            Due::Heartbeat(worker),
            Due::Age(worker),
        ] {
            self.clear(due);
        }
    }

    pub(crate) fn is_set(&self, due: Due) -> bool {
        self.at.contains_key(&due)
    }

    /// When something is due, if a deadline for it is set.
    pub(crate) fn when(&self, due: Due) -> Option<Time> {
        self.at.get(&due).copied()
    }

    pub(crate) fn first(&self) -> Option<(Time, Due)> {
        self.first
    }

    /// Takes the first deadline if it is due.
    pub(crate) fn pop(&mut self, now: Time) -> Option<Due> {
        let (at, due) = self.first?;
        if at > now {
            return None;
        }
        self.clear(due);
        Some(due)
    }

    /// Every deadline, the first one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Time, Due)> {
        self.order.iter().copied()
    }
}

impl From<Vec<(Time, Due)>> for Timers {
    fn from(list: Vec<(Time, Due)>) -> Self {
        let mut timers = Timers::default();
        for (at, due) in list {
            timers.set(due, at);
        }
        timers
    }
}

impl From<Timers> for Vec<(Time, Due)> {
    fn from(timers: Timers) -> Self {
        timers.order.into_iter().collect()
    }
}
