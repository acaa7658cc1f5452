//! The stall detector: a connection that waits although a worker is idle.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Primary;
use super::output::Event;
use super::state::ListenerRecord;
use crate::{ConnId, ListenerId, STALLED_AFTER, Time, WorkerId};

/// A listener at which a connection waits although a worker is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Stall {
    since: Time,
    /// The first pending connection then; `None` if only the kernel's queue held some.
    front: Option<ConnId>,
    reported: bool,
}

impl Stall {
    /// What it is apart from the clock and from names.
    #[cfg(feature = "inspect")]
    pub(super) fn facts(&self) -> (Time, bool, bool) {
        (self.since, self.front.is_some(), self.reported)
    }
}

impl Primary {
    /// Looks at a listener. It takes two looks to find a stall, so that a connection that arrived a
    /// moment ago is not one.
    #[cold]
    pub(super) fn on_queue(&mut self, id: ListenerId, waiting: bool) {
        let now = self.now;
        let before = self.stalls.remove(&id);
        let Some(record) = self.listeners.get(id) else { return };
        let (front, pending) = (record.pending.front(), record.pending.len() as u32);
        let front = front.map(|entry| entry.conn);
        let waits = front.is_some() || (record.accepting && waiting);
        let Some(worker) = self.idle_worker_of(id).filter(|_| waits) else { return };
        let new = Stall { since: now, front, reported: false };
        let mut stall = before.filter(|old| old.front == front).unwrap_or(new);
        if !stall.reported && now.since(stall.since) >= STALLED_AFTER {
            stall.reported = true;
            self.totals.stalled += 1;
            self.event(Event::Stalled { listener: id, worker, pending });
        }
        self.stalls.insert(id, stall);
    }

    /// The first worker that has nothing in flight and could take a connection of this listener.
    fn idle_worker_of(&self, listener: ListenerId) -> Option<WorkerId> {
        if !self.listeners.get(listener).is_some_and(ListenerRecord::is_handed_off) {
            return None;
        }
        let idle = self.workers.iter().filter(|(_, worker)| {
            worker.in_flight.is_empty() && worker.has_credit() && worker.takes(listener)
        });
        idle.map(|(id, _)| id).min()
    }

    /// The listeners that are worth a look with [`Input::Queue`](crate::Input::Queue) although the
    /// kernel's queue is empty: connections are pending there, or did wait at the last look.
    pub fn suspects(&self) -> Vec<ListenerId> {
        let pending = self.listeners.iter().filter(|(_, record)| !record.pending.is_empty());
        let mut found: Vec<ListenerId> = pending.map(|(id, _)| id).collect();
        found.extend(self.stalls.keys());
        found.sort_unstable();
        found.dedup();
        found
    }
}
