//! The order of service: the worker with the fewest in flight; among equals, the one that has had
//! that number longest.

use serde::{Deserialize, Serialize};

use crate::collections::linked_lists::LinkedLists;

/// Workers with credit left, by the table index of their record: one list for each number in
/// flight, each in the order in which workers came to that number.
///
/// With a window of 1 there is one list, and it rotates: Node's own algorithm. A worker that is
/// full, not ready or leaving is in no list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ReadyQueue {
    levels: LinkedLists,
}

impl ReadyQueue {
    /// Notes that a worker's number in flight is now `in_flight`: it enters that level last.
    #[inline(always)]
    pub(crate) fn enter(&mut self, worker: u32, in_flight: u32) {
        self.levels.push_back(in_flight, worker);
    }

    #[inline(always)]
    pub(crate) fn leave(&mut self, worker: u32) {
        self.levels.remove(worker);
    }

    pub(crate) fn contains(&self, worker: u32) -> bool {
        self.levels.list_of(worker).is_some()
    }

    /// The number in flight under which a worker is filed.
    #[cfg(feature = "inspect")]
    pub(crate) fn level_of(&self, worker: u32) -> Option<u32> {
        self.levels.list_of(worker)
    }

    /// The first worker, in the order of service, that `may` take a connection.
    ///
    /// Walks past those that may not, so the walk is short if all workers share all listeners.
    #[inline(always)]
    pub(crate) fn pick(&self, mut may: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut level = 0;
        while level < self.levels.count() {
            let mut next = self.levels.first(level);
            while let Some(worker) = next {
                if may(worker) {
                    return next;
                }
                next = self.levels.after(worker);
            }
            level += 1;
        }
        None
    }

    /// All workers in the order of service.
    #[cfg(feature = "inspect")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.levels.count()).flat_map(|level| self.levels.iter(level))
    }
}
