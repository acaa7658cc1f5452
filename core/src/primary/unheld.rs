//! Listeners that workers asked for and none has any more: they are kept for workers that come
//! back, make way for new ones, and are counted.

use super::Primary;
use super::output::{Event, Output, Refusal};
use super::state::{ListenerRecord, ListenerState, SlotRecord, SlotState, WorkerRecord};
use crate::timers::Due;
use crate::transitions::{Channel, Life};
use crate::{Errno, ListenKey, ListenerId, Slot, WorkerId};

/// How long after the last worker has become ready the operator's listeners may stay without a
/// query before that is reported.
const CLAIM_WITHIN: core::time::Duration = core::time::Duration::from_secs(1);

impl Primary {
    /// Finds the listeners that workers asked for and none holds. They are kept while a worker may
    /// come back for them.
    pub(super) fn review_unheld(&mut self) {
        if self.is_stopping() || self.listeners.len() == self.operator_count() {
            return;
        }
        let mut on_the_way = None;
        for id in self.listeners.keys_sorted() {
            let Some(record) = self.listeners.get(id) else { continue };
            let due = Due::Unheld(id);
            // Looked up once, and only if it matters: it walks over the workers.
            let kept = !record.is_unheld()
                || *on_the_way.get_or_insert_with(|| self.somebody_may_come())
                    && !self.all_came_back_without(record);
            if kept {
                self.timers.clear(due);
            } else if !self.timers.is_set(due) {
                self.timers.set(due, self.now + self.config.unheld_timeout);
            }
        }
    }

    /// Whether a worker is starting or leaving, a slot waits for one, or no worker lives. A worker
    /// that lives on without its channel would be leaving for ever, so its replacement counts
    /// instead.
    fn somebody_may_come(&self) -> bool {
        let on_the_way = |(id, worker): (WorkerId, &WorkerRecord)| {
            let lives_on = worker.channel == Channel::Closed && worker.replaced;
            !self.has_settled(id, worker) && !lives_on
        };
        self.workers.is_empty()
            || self.workers.iter().any(on_the_way)
            || self.slots.iter().any(|slot| match slot.state {
                SlotState::Waiting | SlotState::AwaitsProcessEnd { .. } => true,
                // A reload has ended its worker first, and starts the next one later.
                SlotState::Empty => slot.successor.is_none(),
                SlotState::Filled(_)
                | SlotState::GivenUp
                | SlotState::Ended
                | SlotState::Removed => false,
            })
    }

    /// Whether a worker has had its chance to ask for what it wants: it is ready, or has asked for
    /// something, or for nothing within the ready timeout.
    fn has_settled(&self, id: WorkerId, worker: &WorkerRecord) -> bool {
        match worker.life {
            Life::Ready => true,
            Life::Online => !self.timers.is_set(Due::Silent(id)),
            Life::Starting | Life::Draining | Life::Leaving | Life::Dead => false,
        }
    }

    /// Whether every slot whose workers had this listener has another worker now that does not want
    /// it.
    fn all_came_back_without(&self, record: &ListenerRecord) -> bool {
        !record.slots.is_empty() && record.slots.iter().all(|&slot| self.is_settled(slot))
    }

    fn is_settled(&self, slot: Slot) -> bool {
        let state = self.slots.get(slot.0 as usize).map(|record| record.state);
        let Some(SlotState::Filled(id)) = state else { return false };
        self.workers.get(id).is_some_and(|worker| self.has_settled(id, worker))
    }

    /// How many listeners a slot's workers have, asked for or left behind.
    fn listeners_of(&self, slot: Slot) -> u32 {
        // Usually there are too few to matter.
        if self.listeners.len() < self.config.max_listeners_per_worker as usize {
            return 0;
        }
        let ids = self.listeners.iter().map(|(id, _)| id);
        ids.filter(|&id| self.counts_for(id, slot)).count() as u32
    }

    /// Whether a listener would count for a slot whose worker asks for it, and does not yet.
    pub(super) fn would_count(&self, listener: ListenerId, slot: Slot) -> bool {
        let by_workers = self.listeners.get(listener).is_some_and(|record| !record.operator);
        by_workers && !self.counts_for(listener, slot)
    }

    /// Whether a listener is there because of this slot.
    fn counts_for(&self, listener: ListenerId, slot: Slot) -> bool {
        let Some(record) = self.listeners.get(listener) else { return false };
        let of_slot = |id: WorkerId| self.workers.get(id).is_some_and(|it| it.slot == slot);
        if record.operator || record.state == ListenerState::Closing {
            return false;
        }
        if record.askers.iter().any(|asker| of_slot(asker.worker)) {
            return true;
        }
        // If others hold a listener, and this slot's next worker did not ask for it, it is theirs.
        let left_behind = record.holders.is_empty() || !self.is_settled(slot);
        record.slots.contains(&slot)
            && (left_behind || record.holders.iter().any(|&id| of_slot(id)))
    }

    /// Whether a slot may have another listener. If it has as many as it may, this closes the
    /// oldest one that only former workers of the slot had, so that the present worker does not go
    /// without because of them.
    pub(super) fn make_room(&mut self, slot: Slot) -> bool {
        if self.listeners_of(slot) < self.config.max_listeners_per_worker {
            return true;
        }
        let left = |record: &ListenerRecord| {
            record.is_unheld() && record.slots.len() == 1 && record.slots.contains(&slot)
        };
        let oldest = self.listeners.iter().filter(|(_, it)| left(it)).map(|(id, _)| id).min();
        oldest.map(|id| self.close_unheld(id)).is_some()
    }

    /// Closes every listener that nobody holds and that is in the way of a new one. No worker would
    /// come for what waits there.
    pub(super) fn make_way_for(&mut self, key: &ListenKey) {
        for id in self.listeners.keys_sorted() {
            let Some(record) = self.listeners.get(id) else { continue };
            if record.is_unheld() && record.is_in_the_way_of(key) {
                self.close_unheld(id);
            }
        }
    }

    /// Binds a listener that waits for others to be closed, if they are.
    pub(super) fn bind_if_free(&mut self, id: ListenerId) {
        let Some(record) = self.listeners.get(id) else { return };
        let ListenerState::Waiting { backlog } = record.state else { return };
        if self.is_blocked(record) {
            return;
        }
        let key = record.boxed_key();
        if let Some(record) = self.listeners.get_mut(id) {
            record.state = ListenerState::Binding;
        }
        self.emit(Output::Bind { listener: id, key, backlog });
    }

    /// Whether a listener that is being closed is in the way of this one.
    pub(super) fn is_blocked(&self, waiting: &ListenerRecord) -> bool {
        self.listeners.iter().any(|(_, other)| {
            other.state == ListenerState::Closing && other.is_in_the_way_of(&waiting.key)
        })
    }

    pub(super) fn on_unheld_due(&mut self, id: ListenerId) {
        self.close_unheld(id);
    }

    pub(super) fn close_unheld(&mut self, id: ListenerId) {
        self.timers.clear(Due::Unheld(id));
        self.refuse_pending(id, Refusal::Closed);
        self.unbind(id);
    }

    /// Closes a listener at once, also one that is being emptied.
    pub(super) fn close(&mut self, id: ListenerId) {
        let Some(record) = self.listeners.get_mut(id) else { return };
        if matches!(record.state, ListenerState::Open | ListenerState::Closing) {
            record.state = ListenerState::Closing;
            record.accepting = false;
            self.emit(Output::Close { listener: id });
        } else {
            self.give_up_waiting(id);
        }
    }

    /// Empties and closes an open listener, or gives up one that waits to be bound.
    pub(super) fn unbind(&mut self, id: ListenerId) {
        let Some(record) = self.listeners.get_mut(id) else { return };
        if record.is_open() {
            record.state = ListenerState::Closing;
            record.accepting = false;
            self.emit(Output::Unbind { listener: id });
        } else {
            self.give_up_waiting(id);
        }
    }

    /// Gives up a listener that waits to be bound: a shutdown binds nothing more.
    fn give_up_waiting(&mut self, id: ListenerId) {
        let Some(record) = self.listeners.get_mut(id) else { return };
        if !matches!(record.state, ListenerState::Waiting { .. }) {
            return;
        }
        let askers = core::mem::take(&mut record.askers);
        self.listeners.remove(id);
        for asker in askers {
            self.forget_query(asker.worker);
            self.reply(asker.worker, asker.seq, Err(Errno::ECANCELED));
        }
    }

    pub(super) fn on_unbound(&mut self, id: ListenerId) {
        let stopping = self.is_stopping();
        let Some(record) = self.listeners.get_mut(id) else { return };
        if stopping {
            // Its queue must still be handed out.
            record.state = ListenerState::Closed;
        } else {
            self.listeners.remove(id);
        }
        self.event(Event::Unbound { listener: id });
        for waiting in self.listeners.keys_sorted() {
            self.bind_if_free(waiting);
        }
    }

    /// Whether to accept what waits at a listener before closing it. In a shutdown, yes, since
    /// workers still serve it; otherwise it would be accepted only to be closed, and the kernel
    /// tells its client sooner.
    pub fn is_emptied(&self, listener: ListenerId) -> bool {
        self.is_stopping() && !self.is_shared(listener)
    }

    /// Once all workers are ready, checks a while later whether the operator's listeners are what
    /// they want.
    pub(super) fn await_claims(&mut self) {
        let ready = |slot: &SlotRecord| {
            let SlotState::Filled(id) = slot.state else { return false };
            self.workers.get(id).is_some_and(|worker| worker.life == Life::Ready)
        };
        if self.unclaimed().next().is_some()
            && !self.timers.is_set(Due::Claims)
            && self.slots.iter().filter(|slot| slot.state != SlotState::Removed).all(ready)
        {
            self.timers.set(Due::Claims, self.now + CLAIM_WITHIN);
        }
    }

    /// The operator's listeners that no worker ever asked for, and that were not reported yet.
    fn unclaimed(&self) -> impl Iterator<Item = ListenerId> {
        // A program that knows no channel asks for none and serves all.
        let unseen = self.workers.iter().any(|(_, worker)| worker.assumed);
        self.operator_of(self.generation).iter().copied().filter(move |&id| {
            let record = self.listeners.get(id);
            !unseen && record.is_some_and(|record| record.slots.is_empty() && !record.told)
        })
    }

    pub(super) fn on_claims_due(&mut self) {
        for listener in self.unclaimed().collect::<alloc::vec::Vec<_>>() {
            let Some(record) = self.listeners.get_mut(listener) else { continue };
            record.told = true;
            let address = record.key.address.clone();
            self.event(Event::BindUnused { listener, address });
        }
    }
}
