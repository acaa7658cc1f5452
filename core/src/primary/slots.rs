//! Slots: which worker follows which, how soon, and when to give up.

use super::Primary;
use super::input::SpawnError;
use super::invariants::{SLOT, broken};
use super::output::{Event, Output, Verdict};
use super::state::{LastExit, ReloadFailure, SlotRecord, SlotState, WorkerKind, WorkerRecord};
use crate::timers::Due;
use crate::transitions::{Life, Process};
use crate::{ExitClass, Respawn, Seq, Slot, WorkerId};

/// The longest delay before a start that failed for want of resources is tried again. It is shorter
/// than after a failure of the program, since a try costs only a few system calls.
const LONGEST_WANT: core::time::Duration = core::time::Duration::from_secs(1);

impl Primary {
    /// Starts the first worker of every slot.
    pub(super) fn start_workers(&mut self) {
        for slot in 0..self.wanted {
            self.spawn(Slot(slot));
        }
    }

    pub(super) fn spawn(&mut self, slot: Slot) {
        let Some(record) = self.slots.get(slot.0 as usize) else { return broken(SLOT) };
        let worker = self.start_worker(slot, record.generation);
        if let Some(record) = self.slot_mut(slot) {
            record.state = SlotState::Filled(worker);
        }
    }

    /// Starts a worker that is not in its slot yet.
    pub(super) fn start_worker(&mut self, slot: Slot, generation: u32) -> WorkerId {
        let worker = self.next_worker;
        self.next_worker = worker.next();
        self.workers.insert(worker, WorkerRecord::new(slot, generation, self.now));
        self.emit(Output::Spawn { worker, slot, generation });
        worker
    }

    pub(super) fn spawn_again(&mut self, slot: Slot) {
        if self.is_draining() {
            return;
        }
        // Retrying a start that has not succeeded is not a restart.
        if let Some(record) = self.slot_mut(slot)
            && record.wanting.is_none()
        {
            record.restarts += 1;
        }
        self.spawn(slot);
    }

    pub(super) fn on_spawn_failed(&mut self, id: WorkerId, cause: SpawnError) {
        let Some(worker) = self.workers.get(id) else { return };
        let slot = worker.slot;
        if cause.is_want_of_resources() {
            return self.put_off(id, slot, cause);
        }
        self.end_want(slot);
        self.event(Event::SpawnFailed { worker: id, slot, cause });
        if self.is_successor(id) {
            self.timers.clear_worker(id);
            self.workers.remove(id);
            return self.lose_successor(slot, ReloadFailure::NotStarted { slot, cause });
        }
        let hopeless = match cause {
            SpawnError::NotFound => Some(Verdict::ProgramMissing),
            SpawnError::NotExecutable(errno) => Some(Verdict::NotExecutable { errno }),
            SpawnError::Other(_) => None,
        };
        if let Some(verdict) = hopeless.filter(|_| !self.ever_online) {
            // Trying again would not help. If the program was there once, it may have been replaced
            // badly, and that is a failure like others.
            self.workers.remove(id);
            return self.stop_now(verdict);
        }
        self.vacate(id, LastExit { status: None, class: ExitClass::SpawnFailed });
        self.timers.clear_worker(id);
        self.workers.remove(id);
    }

    /// What a start needs was not available. That shows nothing about the program, so it does not
    /// count: the slot tries again until it succeeds, each time after a longer delay.
    fn put_off(&mut self, id: WorkerId, slot: Slot, cause: SpawnError) {
        let now = self.now;
        let first = self.config.respawn_delay;
        let most = self.config.respawn_delay_max.min(LONGEST_WANT).max(first);
        let replaced = self.workers.get(id).is_some_and(|worker| worker.replaced);
        let successor = self.is_successor(id);
        self.timers.clear_worker(id);
        self.workers.remove(id);
        let stays_empty = replaced || self.is_draining();
        let Some(record) = self.slot_mut(slot) else { return broken(SLOT) };
        let delay = record.wanting.unwrap_or(first);
        let is_news = record.wanting.replace(delay.saturating_mul(2).min(most)).is_none();
        if successor {
            record.successor = None;
            self.timers.set(Due::Successor(slot), now + delay);
        } else if !stays_empty {
            record.state = SlotState::Waiting;
            self.timers.set(Due::Respawn(slot), now + delay);
        }
        if is_news {
            self.event(Event::SpawnFailed { worker: id, slot, cause });
        }
    }

    /// Resources for a start are available again.
    pub(super) fn end_want(&mut self, slot: Slot) {
        if let Some(record) = self.slot_mut(slot) {
            record.wanting = None;
        }
    }

    /// A worker's process is gone: decides what follows it in its slot.
    pub(super) fn vacate(&mut self, id: WorkerId, last_exit: LastExit) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(id) else { return };
        let early = worker.failed_early(now) && !worker.replaced;
        let replaced = core::mem::replace(&mut worker.replaced, true);
        let slot = worker.slot;
        // A worker that stayed ready for a whole `restart_period` resets the back-off.
        let long = |at| now.since(at) >= self.config.restart_period;
        let held = worker.held;
        let proven = worker.ready_at.is_some_and(long) && !held;
        let (delay, retry_delay) = (self.config.respawn_delay, self.config.retry_delay);
        let successor = self.is_successor(id);
        let Some(record) = self.slot_mut(slot) else { return broken(SLOT) };
        // One that never took the slot was not its worker.
        if !held {
            record.last_exit = Some(last_exit);
        }
        if proven {
            record.delay = delay;
            record.retry_delay = retry_delay;
        }
        if successor {
            let LastExit { status, class } = last_exit;
            self.lose_successor(slot, ReloadFailure::Ended { slot, status, class });
        }
        if replaced || self.is_draining() {
            return;
        }
        let ends = match self.config.respawn {
            Respawn::Always => false,
            Respawn::OnFailure => {
                matches!(last_exit.class, ExitClass::Voluntary | ExitClass::Clean)
            }
            Respawn::Never => true,
        };
        if ends {
            self.close_slot(slot, SlotState::Ended);
            self.event(Event::Ended { slot });
        } else if early {
            self.delay_respawn(slot);
        } else {
            // One that failed early may have taken its time to end.
            let failures = self.recent_failures(slot);
            if failures > self.config.restart_intensity {
                self.give_up(slot, failures);
            } else {
                self.spawn_again(slot);
            }
        }
        self.stop_if_exhausted();
    }

    /// How many early failures there were within the period.
    fn recent_failures(&mut self, slot: Slot) -> u32 {
        let (now, period) = (self.now, self.config.restart_period);
        let Some(record) = self.slot_mut(slot) else { return 0 };
        while record.failures.front().is_some_and(|&at| now.since(at) >= period) {
            record.failures.pop_front();
        }
        record.failures.len() as u32
    }

    /// Counts an early failure; returns how many there were within the period.
    fn count_failure(&mut self, slot: Slot) -> u32 {
        let now = self.now;
        let before = self.recent_failures(slot);
        if let Some(record) = self.slot_mut(slot) {
            record.failures.push_back(now);
        }
        before + 1
    }

    fn give_up(&mut self, slot: Slot, failures: u32) {
        let (now, most) = (self.now, self.config.retry_delay_max);
        self.close_slot(slot, SlotState::GivenUp);
        self.event(Event::GivenUp { slot, failures });
        let Some(record) = self.slot_mut(slot) else { return broken(SLOT) };
        if let Some(delay) = record.retry_delay {
            record.retry_delay = Some(delay.saturating_mul(2).min(most));
            self.timers.set(Due::Retry(slot), now + delay);
        }
    }

    /// Tries a slot again that was given up long ago.
    pub(super) fn on_retry_due(&mut self, slot: Slot) {
        let delay = self.config.respawn_delay;
        let Some(record) = self.slot_mut(slot) else { return broken(SLOT) };
        if record.state == SlotState::GivenUp {
            record.renew(delay);
            self.event(Event::Retrying { slot });
            self.spawn_again(slot);
        }
    }

    /// After an early failure: the slot waits longer each time, and is given up after too many.
    fn delay_respawn(&mut self, slot: Slot) {
        let now = self.now;
        let max = self.config.respawn_delay_max;
        let failures = self.count_failure(slot);
        if failures > self.config.restart_intensity {
            return self.give_up(slot, failures);
        }
        let Some(record) = self.slot_mut(slot) else { return broken(SLOT) };
        let delay = record.delay;
        record.delay = delay.saturating_mul(2).min(max);
        record.state = SlotState::Waiting;
        self.timers.set(Due::Respawn(slot), now + delay);
        self.event(Event::RespawnDelayed { slot, delay });
    }

    pub(super) fn close_slot(&mut self, slot: Slot, state: SlotState) {
        if let Some(record) = self.slot_mut(slot) {
            record.state = state;
        }
    }

    /// Starts a failing worker's replacement while it still lives, if it may have one, and confirms
    /// the suicide that asked for it.
    pub(super) fn replace_early(&mut self, id: WorkerId, suicide: Option<Seq>) {
        let now = self.now;
        let barred = self.is_draining() || self.config.respawn == Respawn::Never;
        let Some(worker) = self.workers.get(id) else { return };
        let (slot, kind, ready) = (worker.slot, worker.kind, worker.ready_at.is_some());
        let (replaced, early) = (worker.replaced, worker.failed_early(now));
        if barred || replaced {
            return self.confirm(id, suicide);
        }
        // Otherwise a worker that fails at once would be replaced at once, again and again. If
        // workers accept for themselves, nobody knows whether one has served: its word is taken for
        // it as long as the slot's budget lasts.
        let unseen = kind == Some(WorkerKind::NodeChild) && ready && suicide.is_some();
        if early && !(unseen && self.count_failure(slot) <= self.config.restart_intensity) {
            return self.confirm(id, suicide);
        }
        // It failed early and takes its time to end: then the slot is given up.
        if self.recent_failures(slot) > self.config.restart_intensity {
            return self.confirm(id, suicide);
        }
        if let Some(worker) = self.workers.get_mut(id) {
            worker.replaced = true;
        }
        if self.processes() < self.most_processes() {
            self.spawn_again(slot);
            return self.confirm(id, suicide);
        }
        if let Some(record) = self.slot_mut(slot) {
            record.state = SlotState::AwaitsProcessEnd { failing: id, suicide };
        }
        // Prefer a worker that has been replaced to one that waits for its replacement.
        let waits = |other: WorkerId| {
            let awaits_its_end = |slot: &SlotRecord| matches!(slot.state, SlotState::AwaitsProcessEnd { failing, .. } if failing == other);
            self.slots.iter().any(awaits_its_end)
        };
        let leaving = self.workers.iter().filter(|(other, worker)| {
            *other != id && worker.life == Life::Leaving && worker.may_end()
        });
        let oldest = leaving
            .map(|(other, worker)| (waits(other), worker.leaving_since, other))
            .min()
            .map(|(.., other)| other);
        if let Some(oldest) = oldest {
            self.kill(oldest, ExitClass::Overdue, None);
        }
    }

    /// Starts the replacement of a worker that leaves by itself, if there is room for one more.
    pub(super) fn replace_leaving(&mut self, id: WorkerId) {
        let wanted = self.config.respawn == Respawn::Always;
        if wanted && self.processes() < self.most_processes() {
            self.replace_early(id, None);
        }
    }

    /// After a process has ended, starts the worker that waited for its place.
    pub(super) fn fill_awaiting_slots(&mut self) {
        loop {
            let mut slots = (0..).map(Slot).zip(&self.slots);
            let awaiting = slots.find_map(|(at, slot)| {
                let SlotState::AwaitsProcessEnd { failing, suicide } = slot.state else {
                    return None;
                };
                Some((at, failing, suicide))
            });
            let Some((slot, failing, suicide)) = awaiting else { return };
            if self.processes() >= self.most_processes() {
                return;
            }
            self.close_slot(slot, SlotState::Empty);
            self.spawn_again(slot);
            self.confirm(failing, suicide);
        }
    }

    /// How many processes there may be because workers fail.
    pub(super) fn most_processes(&self) -> usize {
        self.wanted as usize * 2
    }

    /// Counts worker processes that have not ended, and those that a slot will start after its
    /// delay: each takes a place.
    pub(super) fn processes(&self) -> usize {
        let waiting = self.slots.iter().filter(|slot| slot.state == SlotState::Waiting).count();
        self.workers.iter().filter(|(_, worker)| worker.process != Process::Exited).count()
            + waiting
    }

    /// Ends the primary when no slot will have a worker again.
    pub(super) fn stop_if_exhausted(&mut self) {
        // A reload under way may bring a slot back.
        let hopes = self.reload.as_ref().is_some_and(|reload| reload.recycled.is_none());
        if self.is_stopping() || hopes || !self.slots.iter().all(SlotRecord::is_closed) {
            return;
        }
        let given_up = self.slots.iter().any(|slot| slot.state == SlotState::GivenUp);
        self.stop_now(if given_up { Verdict::CrashLoop } else { Verdict::Stopped });
    }
}
