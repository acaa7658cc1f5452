//! A reload: slot after slot gets a new worker, batch by batch. A batch is replaced as a whole, once
//! all its new workers count, or not at all. The recycling of one worker is a reload of one slot.

mod batch;
mod successor;

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::Primary;
use super::output::Event;
use super::state::{
    FixedField, NextReload, Reload, ReloadFailure, ReloadRecord, SlotRecord, SlotState,
};
use crate::timers::Due;
use crate::transitions::Life;
use crate::{Config, ExitClass, ListenerId, Slot, WorkerId};

/// How many reloads are remembered.
const REMEMBERED: usize = 10;

/// What a look at a reload found.
enum Look {
    /// It waits for something.
    Waits,
    /// It went on, and may go on at once.
    GoesOn,
    Fails(ReloadFailure),
    Done,
}

impl Primary {
    pub(super) fn on_reload(&mut self, config: Option<Box<Config>>) {
        let generation = self.next_generation();
        self.last_generation = generation;
        // One that is under way is kept, however many are refused meanwhile.
        while self.reloads.len() >= REMEMBERED
            && let Some(oldest) = self.reloads.iter().position(|record| record.ended.is_some())
        {
            self.reloads.remove(oldest);
        }
        let (began, ended, failure) = (self.now, None, None);
        self.reloads.push_back(ReloadRecord { generation, began, ended, failure });
        if self.stop.is_some() {
            return self.record_outcome(generation, Some(ReloadFailure::Stopped));
        }
        let fixed = config.as_ref().and_then(|config| {
            if config.policy != self.config.policy {
                return Some(FixedField::Policy);
            }
            let passes = config.pass_listeners != self.config.pass_listeners;
            passes.then_some(FixedField::PassListeners)
        });
        if let Some(field) = fixed {
            return self.record_outcome(generation, Some(ReloadFailure::Fixed { field }));
        }
        if let Some(earlier) =
            self.next_reload.replace(NextReload { generation, config, scaled: false })
        {
            // They are one, so the list has one.
            self.reloads.retain(|record| record.generation != earlier.generation);
            self.record_outcome(earlier.generation, Some(ReloadFailure::Superseded));
        }
    }

    /// Moves reloads on as far as they can go, and begins what waits for them.
    pub(super) fn advance_reload(&mut self) {
        self.note_start();
        while self.stop.is_none() {
            let Some(mut reload) = self.reload.take() else {
                if self.begin_next() {
                    continue;
                }
                break;
            };
            match self.look(&mut reload) {
                Look::Waits => {
                    self.watch(&reload);
                    self.reload = Some(reload);
                    break;
                }
                Look::GoesOn => self.reload = Some(reload),
                Look::Fails(failure) => self.fail(*reload, failure),
                Look::Done => self.finish(*reload),
            }
        }
        self.close_dropped();
    }

    /// Notes when every slot has had time for its first worker: what an operator wants waits until
    /// then.
    fn note_start(&mut self) {
        if self.started || self.stop.is_some() {
            return;
        }
        let busy = |slot: &SlotRecord| match slot.state {
            SlotState::Empty => true,
            SlotState::Filled(id) => self.workers.get(id).is_some_and(|worker| {
                let waits =
                    self.timers.is_set(Due::Silent(id)) || self.timers.is_set(Due::Ready(id));
                matches!(worker.life, Life::Starting | Life::Online) && waits
                    || worker.pid.is_none() && worker.life == Life::Starting
            }),
            SlotState::Waiting
            | SlotState::AwaitsProcessEnd { .. }
            | SlotState::GivenUp
            | SlotState::Ended
            | SlotState::Removed => false,
        };
        // Workers usually start in the order of the slots, so the last one is busy longest.
        self.started = !self.slots.iter().rev().any(busy);
    }

    /// Begins what waits: a reload, another number of workers, or the replacement of a worker.
    fn begin_next(&mut self) -> bool {
        if !self.started {
            return false;
        }
        if let Some(next) = self.next_reload.take() {
            self.begin_reload(next);
            return true;
        }
        if let Some(wanted) = self.scale_to.take() {
            self.scale(wanted);
        }
        self.begin_recycling()
    }

    fn begin_reload(&mut self, NextReload { generation, config, scaled }: NextReload) {
        let mut slots: Vec<Slot> = (0..)
            .map(Slot)
            .zip(&self.slots)
            .filter(|(_, it)| it.is_replaced())
            .map(|it| it.0)
            .collect();
        // Slots without a ready worker first: they have nothing to lose, and most to gain.
        slots.sort_by_key(|&slot| self.ready_worker_of(slot).is_some());
        let mut reload = Reload::new(generation, slots.into());
        reload.scaled = scaled;
        if let Some(record) = self.reloads.iter_mut().find(|it| it.generation == generation) {
            record.began = self.now;
        }
        self.event(Event::ReloadStarted { generation, slots: reload.total });
        if let Some(config) = config {
            reload.before = Some(Box::new(self.config.clone()));
            self.configure(*config);
        }
        // Without a configuration too: the present one may be that of a reload that failed half way.
        let new = self.open_listeners(generation);
        let unbound = |id: &ListenerId| self.listeners.get(*id).is_some_and(|it| !it.is_open());
        reload.binding = new.into_iter().filter(unbound).collect();
        self.limit_generations(&reload);
        self.reload = Some(Box::new(reload));
    }

    /// Takes over a configuration while workers run.
    fn configure(&mut self, config: Config) {
        self.config = config;
        for id in self.workers.keys_sorted() {
            let Some(worker) = self.workers.get_mut(id).filter(|worker| worker.may_end()) else {
                continue;
            };
            // A reminder for the old timeout may be too late for the new one.
            let owes = !worker.in_flight.is_empty();
            let due = self.config.ack_timeout.filter(|_| owes).map(|it| worker.owes_since + it);
            worker.ack_armed = due.is_some();
            match due {
                // What is too long ago by now is acted on at the next `Wake`.
                Some(due) => self.timers.set(Due::Ack(id), due),
                None => self.timers.clear(Due::Ack(id)),
            }
        }
    }

    fn look(&mut self, reload: &mut Reload) -> Look {
        if let Some(failure) = reload.failure.take() {
            return Look::Fails(failure);
        }
        if !reload.binding.is_empty() {
            return Look::Waits;
        }
        if !reload.batch.is_empty() {
            return self.look_at_batch(reload);
        }
        if reload.slots.is_empty() {
            return Look::Done;
        }
        // What must make room has its deadline.
        let begins = reload.recycled.is_none() && reload.done == 0;
        if begins && !self.too_old(reload.generation).is_empty() {
            return Look::Waits;
        }
        self.begin_batch(reload);
        Look::GoesOn
    }

    /// All slots were replaced.
    fn finish(&mut self, reload: Reload) {
        self.timers.clear(Due::Reload);
        let Reload { generation, recycled, before, done, scaled, .. } = reload;
        if let Some((worker, slot)) = recycled {
            // It has ended by itself, and its slot goes on without our help.
            if done == 0 {
                self.event(Event::Recycled { worker, slot });
            }
            return;
        }
        self.generation = generation;
        for slot in &mut self.slots {
            slot.generation = generation;
        }
        // A number that the operator has chosen meanwhile stands.
        let workers = self.config.workers;
        if before.is_some_and(|before| before.workers != workers) && !scaled {
            self.scale_to = Some(workers);
        }
        self.record_outcome(generation, None);
        self.stop_if_exhausted();
    }

    fn fail(&mut self, reload: Reload, failure: ReloadFailure) {
        self.timers.clear(Due::Reload);
        let Reload { generation, recycled, before, done, batch, .. } = reload;
        // Told first, since the rest follows from it.
        match recycled {
            Some((worker, slot)) => {
                self.put_off_recycling(worker);
                self.event(Event::RecycleFailed { worker, slot, failure });
            }
            None => {
                // Once workers of the new generation serve, its configuration holds.
                if done > 0 {
                    self.generation = generation;
                } else if let Some(before) = before {
                    self.configure(*before);
                }
                self.record_outcome(generation, Some(failure));
            }
        }
        for replacement in &batch {
            self.call_off(replacement);
        }
        self.stop_if_exhausted();
    }

    /// A shutdown ends everything that is under way, and kills what was not ready, except in a slot
    /// whose old worker was ended first: what comes until the listeners are closed is served.
    pub(super) fn end_reloads(&mut self) {
        self.timers.clear(Due::Reload);
        self.scale_to = None;
        self.recycle.clear();
        let serves_on = !self.is_stopping();
        if let Some(reload) = self.reload.take() {
            for replacement in &reload.batch {
                self.timers.clear(Due::Successor(replacement.slot));
                let slot = replacement.slot;
                let Some(record) = self.slot_mut(slot) else { continue };
                if record.state == SlotState::Empty && serves_on {
                    self.fill(slot, reload.generation);
                } else if let Some(id) = record.successor.take()
                    && self.workers.get(id).is_some_and(|worker| worker.life != Life::Ready)
                {
                    self.kill(id, ExitClass::NeverReady, None);
                }
            }
            if serves_on {
                self.serve_all();
            }
            if reload.recycled.is_none() {
                self.record_outcome(reload.generation, Some(ReloadFailure::Stopped));
            }
        }
        if let Some(next) = self.next_reload.take() {
            self.record_outcome(next.generation, Some(ReloadFailure::Stopped));
        }
    }

    /// Gives a slot without a worker its new one, or another of the old generation.
    fn fill(&mut self, slot: Slot, generation: u32) {
        self.promote(slot, generation);
        if self.slots.get(slot.0 as usize).is_some_and(|it| it.state == SlotState::Empty) {
            self.spawn_again(slot);
        }
    }

    /// The last reloads, the latest one last; the one that waits and the one that is under way are
    /// among them. Those whose place a later one took are not.
    pub fn reloads(&self) -> impl Iterator<Item = &ReloadRecord> {
        self.reloads.iter()
    }

    /// The ready worker in a slot.
    pub(super) fn ready_worker_of(&self, slot: Slot) -> Option<WorkerId> {
        let id = self.slots.get(slot.0 as usize)?.worker()?;
        let ready = |id: &WorkerId| self.workers.get(*id).is_some_and(|it| it.life == Life::Ready);
        Some(id).filter(ready)
    }

    /// How many slots have a ready worker.
    fn ready_count(&self) -> u32 {
        let slots = (0..self.slots.len() as u32).map(Slot);
        slots.filter(|&slot| self.ready_worker_of(slot).is_some()).count() as u32
    }
}

impl Reload {
    pub(super) fn new(generation: u32, slots: VecDeque<Slot>) -> Reload {
        Reload {
            generation,
            recycled: None,
            total: slots.len() as u32,
            slots,
            batch: Vec::new(),
            done: 0,
            deadline: None,
            ready_before: 0,
            failure: None,
            before: None,
            scaled: false,
            binding: BTreeSet::new(),
        }
    }
}

impl SlotRecord {
    /// Whether a reload gives it a new worker.
    fn is_replaced(&self) -> bool {
        !matches!(self.state, SlotState::Ended | SlotState::Removed)
    }
}
