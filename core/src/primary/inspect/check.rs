//! What must hold after every input. For tests and for reading snapshots; costs a walk over the
//! whole state.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use crate::Primary;
use crate::primary::state::{ListenerState, SlotState, WorkerRecord};
use crate::timers::Due;
use crate::transitions::{Channel, Life, Process};
use crate::{ConnId, WorkerId};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Broken {}

fn ensure(holds: bool, what: &'static str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what)) }
}

impl Primary {
    /// Checks every invariant of the state.
    ///
    /// # Errors
    /// The first one that does not hold: then there is a fault in this crate, or the state was
    /// read from a damaged snapshot.
    pub fn check(&self) -> Result<(), Broken> {
        self.check_connections()?;
        self.check_workers()?;
        self.check_ring()?;
        self.check_work_conservation()?;
        self.check_slots()?;
        self.check_listeners()
    }

    /// Every connection that is held, in the order of the ids, twice if it is held twice.
    pub fn held(&self) -> Vec<ConnId> {
        let in_flight = self.workers.iter().flat_map(|(_, w)| w.in_flight.iter().map(|e| e.conn));
        let pending = self.listeners.iter().flat_map(|(_, l)| l.pending.iter().map(|p| p.conn));
        let mut held: Vec<ConnId> = in_flight.chain(pending).collect();
        held.sort_unstable();
        held
    }

    fn check_connections(&self) -> Result<(), Broken> {
        let held = self.held();
        let distinct: BTreeSet<ConnId> = held.iter().copied().collect();
        ensure(distinct.len() == held.len(), "a connection is in two places")?;
        ensure(
            held.last().is_none_or(|last| last.get() <= self.last_conn),
            "a connection is held that was never given in",
        )?;
        let in_flight: usize = self.workers.iter().map(|(_, worker)| worker.in_flight.len()).sum();
        ensure(in_flight == self.in_flight as usize, "the count in flight is wrong")?;
        let pending: usize = self.listeners.iter().map(|(_, record)| record.pending.len()).sum();
        ensure(pending == self.pending as usize, "the count of pending is wrong")?;
        for (_, record) in self.listeners.iter() {
            let sorted = record.pending.iter().is_sorted_by(|a, b| a.conn < b.conn);
            ensure(sorted, "a queue is not in the order of the ids")?;
        }
        Ok(())
    }

    fn check_workers(&self) -> Result<(), Broken> {
        for (id, worker) in self.workers.iter() {
            ensure(id < self.next_worker, "a worker id was never minted")?;
            ensure(worker.life != Life::Dead, "a dead worker is kept")?;
            ensure(worker.in_flight_count() <= worker.window, "a worker has more than its window")?;
            let sorted = worker.in_flight.iter().is_sorted_by(|a, b| a.seq < b.seq);
            ensure(sorted, "a worker's numbers are not in order")?;
            let numbered = worker.in_flight.iter().last().is_none_or(|e| e.seq < worker.next_seq);
            ensure(numbered, "a number in flight was never given out")?;
            ensure(
                worker.channel != Channel::Closed
                    || (worker.in_flight.is_empty() && worker.shares.is_empty()),
                "a worker without a channel holds something",
            )?;
            ensure(
                !(worker.channel == Channel::Closed && worker.process == Process::Exited),
                "a worker that has ended is kept",
            )?;
            let gone = worker.process == Process::Exited || worker.channel == Channel::Closed;
            // A program that knows no channel may close it and go on.
            let mute = self.config.listen_fds && worker.kind.is_none();
            let lives = mute && worker.process != Process::Exited;
            ensure(
                !gone || lives || worker.life == Life::Leaving,
                "a worker that is gone is not leaving",
            )?;
            self.check_ack_timer(id, worker)?;
        }
        Ok(())
    }

    fn check_ack_timer(&self, id: WorkerId, worker: &WorkerRecord) -> Result<(), Broken> {
        let set = self.timers.is_set(Due::Ack(id));
        let ended = !worker.may_end();
        ensure(ended || set == worker.ack_armed, "an ack timer is set against the record")?;
        let wanted = !worker.in_flight.is_empty() && !ended && self.config.ack_timeout.is_some();
        ensure(set || !wanted, "connections are in flight without an ack timer")?;
        let frame = self.timers.is_set(Due::Frame(id));
        ensure(!frame || worker.mid_frame, "a frame timer is set against the record")
    }

    fn check_ring(&self) -> Result<(), Broken> {
        let mut filed = BTreeMap::new();
        for index in self.ready_queue.iter() {
            let twice = filed.insert(index, self.ready_queue.level_of(index)).is_some();
            ensure(!twice, "a worker is in the ready queue twice")?;
            ensure(self.workers.at(index).is_some(), "the ready queue has no worker at an index")?;
        }
        for (id, worker) in self.workers.iter() {
            let index = self.workers.position(id);
            let level = index.and_then(|index| filed.get(&index).copied().flatten());
            let wanted = worker.has_credit().then(|| worker.in_flight_count());
            ensure(level == wanted, "a worker is at a wrong place in the ready queue")?;
        }
        Ok(())
    }

    /// Guarantee 5: no connection is pending that an eligible worker could have.
    fn check_work_conservation(&self) -> Result<(), Broken> {
        let turns: BTreeSet<_> = self.backlog.iter().copied().collect();
        ensure(turns.len() == self.backlog.len(), "a listener has two turns")?;
        for (id, record) in self.listeners.iter() {
            let waits = !record.pending.is_empty();
            ensure(waits == turns.contains(&id), "a listener's turn is missing or needless")?;
            if !waits {
                continue;
            }
            let idle = self.workers.iter().any(|(_, w)| w.has_credit() && w.takes(id));
            ensure(!idle, "a connection waits although a worker is eligible")?;
        }
        Ok(())
    }

    fn check_slots(&self) -> Result<(), Broken> {
        for (at, slot) in self.slots.iter().enumerate() {
            let timed = self.timers.is_set(Due::Respawn(crate::Slot(at as u32)));
            let waits = slot.state == SlotState::Waiting && !self.is_draining();
            ensure(waits == timed, "a slot waits without a timer, or has one")?;
            if let SlotState::Filled(id) = slot.state
                && let Some(worker) = self.workers.get(id)
            {
                ensure(worker.slot.0 as usize == at, "a worker is in another's slot")?;
            }
        }
        Ok(())
    }

    fn check_listeners(&self) -> Result<(), Broken> {
        ensure(self.room == self.room_now(), "the room for connections is not what is left")?;
        for (id, record) in self.listeners.iter() {
            ensure(id < self.next_listener, "a listener id was never minted")?;
            ensure(!record.accepting || record.is_open(), "a closed listener accepts")?;
            let waits = matches!(record.state, ListenerState::Waiting { .. });
            ensure(!waits || self.is_blocked(record), "a listener waits for nothing")?;
            ensure(!record.accepting || !record.shared, "a shared listener is accepted from")?;
            ensure(!record.accepting || !self.accept_paused, "accepting goes on under pressure")?;
            for holder in &record.holders {
                let shares = self.workers.get(*holder).is_some_and(|w| w.share(id).is_some());
                ensure(shares, "a holder does not share its listener")?;
            }
        }
        for (id, worker) in self.workers.iter() {
            let held = |share: &crate::primary::state::Share| {
                let record = self.listeners.get(share.listener);
                record.is_none_or(|record| record.holders.contains(&id))
            };
            ensure(worker.shares.iter().all(held), "a share is not held")?;
        }
        Ok(())
    }
}
