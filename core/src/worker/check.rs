//! What must hold after every input, for tests and for reading snapshots.

use alloc::vec::Vec;

use super::conns::{MAX_UNTAKEN, Unsent};
use super::{Phase, Worker};
use crate::{Broken, ConnId};

fn ensure(holds: bool, what: &'static str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what)) }
}

impl Worker {
    /// Checks every invariant of the state.
    ///
    /// # Errors
    /// The first one that does not hold: then there is a fault in this crate, or the state was
    /// read from a damaged snapshot.
    pub fn check(&self) -> Result<(), Broken> {
        let held = self.held();
        ensure(held.is_sorted_by(|a, b| a < b), "a connection is in two places")?;
        ensure(
            held.last().is_none_or(|last| last.get() <= self.last_conn),
            "a connection is held that was never given in",
        )?;
        let waiting: usize = self.listeners.iter().map(|record| record.untaken.len()).sum();
        ensure(waiting == self.untaken as usize, "the count of untaken is wrong")?;
        ensure(self.untaken <= MAX_UNTAKEN, "too many wait")?;
        for record in &self.listeners {
            let sorted = record.untaken.iter().is_sorted_by(|a, b| a.conn < b.conn);
            ensure(sorted, "a queue is not in the order of arrival")?;
        }
        let takes = self.phase <= Phase::Draining;
        ensure(takes || self.untaken == 0, "a worker that leaves keeps what it can't take")?;
        let gone = self.phase == Phase::Gone;
        ensure(
            !gone || (self.unsent.is_empty() && self.asks.is_empty()),
            "a worker that has left keeps unsent messages or asks",
        )?;
        ensure(self.polled <= self.unsent.len(), "more was polled than is unsent")
    }

    /// Every connection that is neither delivered nor discarded, in the order of the ids, twice
    /// if it is held twice.
    pub fn held(&self) -> Vec<ConnId> {
        let accepted = self.unsent.iter().filter_map(|unsent| match unsent {
            Unsent::Acceptance { conn, .. } => Some(*conn),
            Unsent::Plain => None,
        });
        let untaken = self.listeners.iter().flat_map(|r| r.untaken.iter().map(|e| e.conn));
        let mut held: Vec<ConnId> = accepted.chain(untaken).collect();
        held.sort_unstable();
        held
    }
}
