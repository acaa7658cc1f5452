//! The new worker of a slot, from its start until it counts.

use alloc::collections::BTreeSet;
use core::time::Duration;

use crate::primary::Primary;
use crate::primary::invariants::{SLOT, broken};
use crate::primary::state::{ReloadFailure, Replacement, SlotState};
use crate::timers::Due;
use crate::transitions::{Channel, Life, Process};
use crate::{Address, ListenerId, Slot, Time, WorkerId};

/// How long after it is online a worker that asks for nothing counts, if its predecessor has no
/// listener either.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

impl Primary {
    /// Whether this is a new worker that does not count yet. Its end is not that of its slot's
    /// worker.
    pub(in crate::primary) fn is_successor(&self, id: WorkerId) -> bool {
        let slot = self.workers.get(id).and_then(|worker| self.slots.get(worker.slot.0 as usize));
        slot.is_some_and(|slot| slot.successor == Some(id))
    }

    pub(super) fn start_successor(&mut self, slot: Slot, generation: u32) {
        let id = self.start_worker(slot, generation);
        if let Some(worker) = self.workers.get_mut(id) {
            worker.held = true;
            // Nobody follows it if it ends.
            worker.replaced = true;
        }
        let Some(record) = self.slot_mut(slot) else { return broken(SLOT) };
        record.successor = Some(id);
    }

    /// A new worker has ended, or could not be started.
    pub(in crate::primary) fn lose_successor(&mut self, slot: Slot, failure: ReloadFailure) {
        if let Some(record) = self.slot_mut(slot) {
            record.successor = None;
        }
        if let Some(reload) = &mut self.reload {
            reload.failure.get_or_insert(failure);
        }
    }

    /// Ends the new worker of a slot. If the old one was ended first, another one of the old
    /// generation follows it.
    pub(super) fn call_off(&mut self, it: &Replacement) {
        self.timers.clear(Due::Successor(it.slot));
        let Some(record) = self.slot_mut(it.slot) else { return broken(SLOT) };
        let is_empty = record.state == SlotState::Empty;
        if let Some(id) = record.successor.take() {
            let deadline = self.now + self.config.drain_timeout;
            self.drain(id, deadline);
        }
        if is_empty {
            self.spawn_again(it.slot);
        }
    }

    /// Puts the new worker of a slot into its place. Returns the old one.
    pub(super) fn promote(&mut self, slot: Slot, generation: u32) -> Option<WorkerId> {
        let (delay, retry_delay) = (self.config.respawn_delay, self.config.retry_delay);
        let paused = self.paused;
        let record = self.slot_mut(slot)?;
        let new = record.successor.take()?;
        let (old, before) = (record.worker(), record.state);
        record.state = SlotState::Filled(new);
        record.generation = generation;
        record.listened.clear();
        record.retry_delay = retry_delay;
        record.renew(delay);
        self.timers.clear(Due::Respawn(slot));
        self.timers.clear(Due::Retry(slot));
        if let SlotState::AwaitsProcessEnd { failing, suicide } = before {
            self.confirm(failing, suicide);
        }
        if let Some(worker) = self.workers.get_mut(new) {
            worker.held = false;
            worker.replaced = false;
            worker.refresh(paused);
        }
        if let Some(index) = self.workers.position(new) {
            self.requeue(index);
        }
        // It may have been ready for long; now it serves.
        if self.ready_worker_of(slot) == Some(new) {
            self.limit_life(new);
        }
        if let Some(worker) = old.and_then(|id| self.workers.get_mut(id)) {
            worker.replaced = true;
        }
        old
    }

    /// Notes what a slot's worker listens on, which has just ceased to serve.
    pub(in crate::primary) fn note_listened(&mut self, id: WorkerId) {
        let listened = self.listening_of(id);
        let slot = self.workers.get(id).map(|worker| worker.slot);
        let record = slot.and_then(|slot| self.slot_mut(slot));
        if let Some(record) = record.filter(|record| record.worker() == Some(id)) {
            record.listened = listened;
        }
    }

    /// What a worker listens on for clients.
    fn listening_of(&self, id: WorkerId) -> BTreeSet<ListenerId> {
        let shares = self.workers.get(id).map_or(&[][..], |worker| &worker.shares);
        let listening = shares.iter().filter(|share| share.listening).map(|share| share.listener);
        listening.filter(|&listener| !self.is_private(id, listener)).collect()
    }

    /// Notes what the slot's worker has, as long as it serves: a new one must have the same. What
    /// the new configuration drops, or what was closed since, does not count.
    pub(super) fn note_needs(&self, it: &mut Replacement, generation: u32) {
        let old = self.ready_worker_of(it.slot);
        if let Some((id, worker)) = old.and_then(|id| Some((id, self.workers.get(id)?))) {
            it.says_ready = worker.said_ready;
            it.needs = self.listening_of(id);
        } else if let Some(slot) = self.slots.get(it.slot.0 as usize) {
            it.needs.clone_from(&slot.listened);
        }
        let operator = self.operator_of(generation);
        it.needs.retain(|id| {
            let record = self.listeners.get(*id).filter(|record| record.is_open());
            record.is_some_and(|record| !record.operator || operator.contains(id))
        });
    }

    /// Whether a new worker is as ready as the old one is or was.
    pub(super) fn is_as_ready(&self, id: WorkerId, it: &Replacement) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let says_ready = worker.said_ready || !it.says_ready || !self.config.wait_ready;
        if !worker.life.is_staying() || worker.channel != Channel::Open || !says_ready {
            return false;
        }
        let listens =
            |listener: &ListenerId| worker.share(*listener).is_some_and(|it| it.listening);
        if !it.needs.iter().all(listens) {
            return false;
        }
        worker.life == Life::Ready || self.settles_at(it).is_some_and(|at| at <= self.now)
    }

    /// When the new worker of a slot counts although it asks for nothing.
    pub(super) fn settles_at(&self, it: &Replacement) -> Option<Time> {
        let id = self.slots.get(it.slot.0 as usize)?.successor?;
        let worker = self.workers.get(id)?;
        let asks = !worker.shares.is_empty() || worker.queries > 0;
        if worker.life != Life::Online || asks || !it.needs.is_empty() {
            return None;
        }
        worker.online_at.map(|at| at + SETTLED_AFTER)
    }

    /// Whether a new worker said that it leaves, or that it fails. If it was killed or its channel
    /// ended, its exit follows and tells more.
    pub(super) fn has_left(&self, id: WorkerId) -> bool {
        self.workers.get(id).is_some_and(|worker| {
            !worker.life.is_staying()
                && worker.channel == Channel::Open
                && worker.process != Process::Exited
                && !worker.intent.is_killed()
        })
    }

    /// The first listener that a new worker lacks.
    pub(super) fn missing(&self, it: &Replacement) -> Option<Address> {
        let id = self.slots.get(it.slot.0 as usize)?.successor?;
        let worker = self.workers.get(id)?;
        let lacks = |id: &&ListenerId| !worker.share(**id).is_some_and(|share| share.listening);
        let listener = it.needs.iter().find(lacks)?;
        Some(self.listeners.get(*listener)?.effective_address())
    }

    /// The primary could not read what new workers may have sent long ago, so their time starts
    /// again.
    pub(in crate::primary) fn renew_reload(&mut self) {
        let due = self.config.ready_timeout.map(|timeout| self.now + timeout);
        if let Some(reload) = &mut self.reload
            && reload.deadline.is_some()
        {
            reload.deadline = due;
        }
    }
}
