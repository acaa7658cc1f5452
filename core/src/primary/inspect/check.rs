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
        self.check_listeners()?;
        self.check_generations()?;
        self.check_reload()
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
            ensure(
                worker.serves == (worker.life == Life::Ready && !worker.held && !self.paused),
                "a worker serves and should not, or does not and should",
            )?;
            ensure(!worker.held || worker.in_flight.is_empty(), "a new worker holds a connection")?;
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
            let retried = self.timers.is_set(Due::Retry(crate::Slot(at as u32)));
            let given_up = slot.state == SlotState::GivenUp;
            ensure(given_up || !retried, "a slot is tried again that was not given up")?;
            let removed = slot.state == SlotState::Removed;
            let surplus = at >= self.wanted as usize;
            ensure(removed == surplus, "there are more or fewer slots than wanted")?;
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
            ensure(!record.accepting || !self.paused, "accepting goes on during a pause")?;
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

    fn check_generations(&self) -> Result<(), Broken> {
        let workers = self.workers.iter().map(|(_, worker)| worker.generation);
        let slots = self.slots.iter().map(|slot| slot.generation);
        let next = self.next_reload.iter().map(|next| next.generation);
        let known = workers.chain(slots).chain(next).chain(self.operator.keys().copied());
        let most = known.chain([self.generation]).max();
        ensure(most <= Some(self.last_generation), "a generation was never asked for")?;
        ensure(self.operator.contains_key(&self.generation), "a generation has no listeners")?;
        let listed: BTreeSet<_> = self.operator.values().flatten().copied().collect();
        let own = self.listeners.iter().filter(|(_, record)| record.operator).map(|(id, _)| id);
        let closing = |id: &crate::ListenerId| {
            // In a shutdown listeners are gone before the operator's list of them.
            self.stop.is_some() && self.listeners.get(*id).is_none()
        };
        let there = listed.iter().copied().filter(|id| !closing(id)).collect::<BTreeSet<_>>();
        ensure(there == own.collect(), "a listener of the operator's is of no generation")
    }

    fn check_reload(&self) -> Result<(), Broken> {
        let pending = self.reload.is_some() || self.next_reload.is_some();
        let idle = !pending && self.scale_to.is_none() && self.recycle.is_empty();
        ensure(idle || self.stop.is_none(), "a reload outlives the beginning of a shutdown")?;
        let ahead: BTreeSet<WorkerId> = self.recycle.iter().copied().collect();
        ensure(ahead.len() == self.recycle.len(), "a worker is recycled twice")?;
        ensure(ahead.iter().all(|id| *id < self.next_worker), "nobody is recycled")?;
        let batch = self.reload.as_ref().map_or(&[][..], |reload| &reload.batch);
        let slots: Vec<crate::Slot> = batch.iter().map(|it| it.slot).collect();
        let later = self.reload.iter().flat_map(|reload| &reload.slots);
        let distinct: BTreeSet<_> = slots.iter().chain(later.clone()).collect();
        let count = slots.len() + later.count();
        ensure(distinct.len() == count, "a slot is replaced twice")?;
        for (at, slot) in self.slots.iter().enumerate() {
            let own = crate::Slot(at as u32);
            let Some(new) = slot.successor else { continue };
            ensure(slots.contains(&own), "a slot has a new worker and is in no batch")?;
            let Some(worker) = self.workers.get(new) else {
                return Err(Broken("a new worker is gone"));
            };
            let generation = self.reload.as_ref().map(|reload| reload.generation);
            let right = worker.held && worker.slot == own && Some(worker.generation) == generation;
            ensure(right, "a new worker is not of its slot and generation")?;
        }
        let lone = |id: WorkerId, worker: &WorkerRecord| {
            let slot = self.slots.get(worker.slot.0 as usize);
            let is_new = slot.is_some_and(|slot| slot.successor == Some(id));
            worker.held && worker.life.is_staying() && !is_new && self.stop.is_none()
        };
        let lost = self.workers.iter().any(|(id, worker)| lone(id, worker));
        ensure(!lost, "a worker is held for no reload")?;
        let binding = self.reload.iter().flat_map(|reload| &reload.binding);
        let bound = |id: &crate::ListenerId| {
            self.listeners.get(*id).is_none_or(|record| record.is_open() || !record.operator)
        };
        ensure(!binding.clone().any(bound), "a reload waits for a listener that is there")
    }
}
