//! A batch of a reload: from the start of its new workers to the moment at which all of them count.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Look;
use crate::primary::Primary;
use crate::primary::invariants::{SLOT, broken};
use crate::primary::output::Event;
use crate::primary::state::{Reload, ReloadFailure, Replacement, SlotState};
use crate::timers::Due;
use crate::transitions::{Life, Process};
use crate::{Slot, WorkerId};

impl Primary {
    /// Takes the next slots, and starts their new workers, or ends as many old ones first as may be
    /// missing.
    pub(super) fn begin_batch(&mut self, reload: &mut Reload) {
        let ready = self.ready_count();
        let mut spare = ready - self.least_ready(ready);
        reload.ready_before = ready;
        reload.deadline = None;
        while let Some(slot) = reload.slots.pop_front() {
            let Some(record) = self.slots.get(slot.0 as usize) else { continue };
            if !record.is_replaced() {
                continue;
            }
            let mut replacement = Replacement {
                slot,
                ends_first: None,
                needs: BTreeSet::new(),
                says_ready: false,
                since: None,
            };
            self.note_needs(&mut replacement, reload.generation);
            if spare > 0
                && let Some(old) = self.ready_worker_of(slot)
            {
                spare -= 1;
                self.end_first(slot, old);
                replacement.ends_first = Some(old);
            }
            reload.batch.push(replacement);
            if reload.batch.len() >= self.config.reload_batch as usize {
                break;
            }
        }
    }

    /// How many workers a reload leaves ready, if so many were ready before.
    fn least_ready(&self, before: u32) -> u32 {
        self.config.min_ready.unwrap_or(self.wanted).min(self.wanted).min(before)
    }

    fn end_first(&mut self, slot: Slot, old: WorkerId) {
        if let Some(worker) = self.workers.get_mut(old) {
            worker.replaced = true;
        }
        self.note_listened(old);
        self.close_slot(slot, SlotState::Empty);
        let deadline = self.now + self.config.drain_timeout;
        self.drain(old, deadline);
    }

    pub(super) fn look_at_batch(&mut self, reload: &mut Reload) -> Look {
        self.drop_slots(reload);
        if reload.batch.is_empty() {
            return Look::GoesOn;
        }
        let mut batch = core::mem::take(&mut reload.batch);
        let mut failure = None;
        for replacement in &mut batch {
            if let Err(cause) = self.review(replacement, reload.generation) {
                failure.get_or_insert(cause);
            }
        }
        reload.batch = batch;
        if let Some(failure) = failure {
            return Look::Fails(failure);
        }
        if reload.batch.iter().any(|it| it.ends_first.is_some()) {
            return Look::Waits;
        }
        if let (None, Some(timeout)) = (reload.deadline, self.config.ready_timeout) {
            reload.deadline = Some(self.now + timeout);
        }
        let late = reload.deadline.is_some_and(|deadline| deadline <= self.now);
        let hold = self.config.ready_hold;
        let counts = |it: &Replacement| it.since.is_some_and(|at| at + hold <= self.now);
        if reload.batch.iter().all(counts) {
            if self.can_spare(reload) {
                self.replace(reload);
                return Look::GoesOn;
            }
            return if late { Look::Fails(ReloadFailure::TooFewReady) } else { Look::Waits };
        }
        match reload.batch.iter().find(|it| it.since.is_none()) {
            Some(slow) if late => {
                let missing = self.missing(slow);
                Look::Fails(ReloadFailure::NotReady { slot: slow.slot, missing })
            }
            _ => Look::Waits,
        }
    }

    /// Takes slots out of the batch that no longer want a new worker: they have ended, or the worker
    /// that was to be recycled is not there any more.
    fn drop_slots(&mut self, reload: &mut Reload) {
        let recycled = reload.recycled;
        let stale = |it: &Replacement| {
            let Some(record) = self.slots.get(it.slot.0 as usize) else { return true };
            let gone = it.ends_first.is_none()
                && record.state != SlotState::Empty
                && recycled.is_some_and(|(id, _)| !self.is_recyclable(id));
            !record.is_replaced() || gone
        };
        let (gone, rest): (Vec<_>, Vec<_>) =
            core::mem::take(&mut reload.batch).into_iter().partition(stale);
        reload.batch = rest;
        for replacement in gone {
            self.call_off(&replacement);
        }
    }

    /// Looks at one slot of the batch.
    fn review(&mut self, it: &mut Replacement, generation: u32) -> Result<(), ReloadFailure> {
        if let Some(old) = it.ends_first {
            let lives = |id| self.workers.get(id).is_some_and(|w| w.process != Process::Exited);
            if lives(old) {
                return Ok(());
            }
            it.ends_first = None;
        }
        self.note_needs(it, generation);
        let Some(record) = self.slots.get(it.slot.0 as usize) else {
            broken(SLOT);
            return Ok(());
        };
        let Some(id) = record.successor else {
            it.since = None;
            if !self.timers.is_set(Due::Successor(it.slot)) {
                self.start_successor(it.slot, generation);
            }
            return Ok(());
        };
        if self.has_left(id) {
            return Err(ReloadFailure::Left { slot: it.slot });
        }
        if self.is_as_ready(id, it) {
            it.since.get_or_insert(self.now);
        } else {
            it.since = None;
        }
        Ok(())
    }

    /// Whether the batch's old workers can go: as many are ready without them as must be.
    fn can_spare(&self, reload: &Reload) -> bool {
        let of_batch = |slot| self.ready_worker_of(slot).is_some();
        let old = reload.batch.iter().filter(|it| of_batch(it.slot)).count() as u32;
        // One that serves nobody, as the old one did, leaves nobody ready either.
        let is_ready = |id| self.workers.get(id).is_some_and(|it| it.life == Life::Ready);
        let successor = |it: &Replacement| self.slots.get(it.slot.0 as usize)?.successor;
        let new =
            reload.batch.iter().filter_map(successor).filter(|&id| is_ready(id)).count() as u32;
        self.ready_count() - old + new >= self.least_ready(reload.ready_before)
    }

    /// All new workers of the batch count: they take the places of the old ones, which leave.
    fn replace(&mut self, reload: &mut Reload) {
        let deadline = self.now + self.config.drain_timeout;
        let mut old = Vec::new();
        let batch = core::mem::take(&mut reload.batch);
        reload.done += batch.len() as u32;
        for it in &batch {
            old.extend(self.promote(it.slot, reload.generation));
        }
        // Told first, since the rest follows from it.
        let Reload { generation, done, total, .. } = *reload;
        self.event(match reload.recycled {
            None => Event::ReloadProgress { generation, done, slots: total },
            Some((worker, slot)) => Event::Recycled { worker, slot },
        });
        // First all new ones, then the old ones: nobody is missing in between.
        self.serve_all();
        for id in old {
            self.drain(id, deadline);
        }
    }

    /// Sets the timer for when the batch must be looked at again, although nothing has happened.
    pub(super) fn watch(&mut self, reload: &Reload) {
        let hold = self.config.ready_hold;
        let held = reload.batch.iter().filter_map(|it| it.since).map(|since| since + hold);
        let settled = reload.batch.iter().filter_map(|it| self.settles_at(it));
        let times = reload.deadline.into_iter().chain(held).chain(settled);
        // What has passed waits for something that is an input.
        match times.filter(|&at| at > self.now).min() {
            Some(at) => self.timers.set(Due::Reload, at),
            None => self.timers.clear(Due::Reload),
        }
    }
}
