//! Back-pressure: when accepting stops, and when it goes on.

use super::Primary;
use super::invariants::{POSITION, broken};
use super::output::{Event, Output};
use crate::ListenerId;

impl Primary {
    /// Resumes accepting from a listener once it is half empty again. If it resumed at the first
    /// free place, each place would cost a pause and a resume.
    pub(super) fn resume_if_allowed(&mut self, listener: ListenerId) {
        let Some(record) = self.listeners.get_mut(listener) else { return };
        let room = record.pending.len() <= self.config.max_pending as usize / 2;
        let may = !self.accept_paused && !self.paused;
        if room && record.is_open() && !record.shared && !record.accepting && may {
            record.accepting = true;
            self.emit(Output::ResumeAccept { listener });
            self.event(Event::AcceptResumed { listener });
        }
    }

    pub(super) fn pause(&mut self, listener: ListenerId) {
        let Some(record) = self.listeners.get_mut(listener) else { return };
        if record.accepting {
            record.accepting = false;
            self.emit(Output::PauseAccept { listener });
            self.event(Event::AcceptPaused { listener });
        }
    }

    /// Stops accepting everywhere: as many connections are held as the limit on open files allows.
    pub(super) fn pause_all(&mut self) {
        if !core::mem::replace(&mut self.accept_paused, true) {
            for listener in self.listeners.keys_sorted() {
                self.pause(listener);
            }
        }
    }

    /// Begins or ends a pause: nothing is accepted and nothing is handed out. Workers that accept by
    /// themselves go on.
    pub(super) fn set_paused(&mut self, paused: bool) {
        if self.paused == paused || (paused && self.stop.is_some()) {
            return;
        }
        self.paused = paused;
        self.event(if paused { Event::Paused } else { Event::Resumed });
        for id in self.workers.keys_sorted() {
            let Some(index) = self.workers.position(id) else { return broken(POSITION) };
            if let Some(worker) = self.workers.at_mut(index) {
                worker.refresh(paused);
            }
            self.requeue(index);
        }
        for listener in self.listeners.keys_sorted() {
            if paused {
                self.pause(listener);
            } else {
                self.resume_if_allowed(listener);
            }
        }
        self.serve_all();
    }

    /// How many connections may be held beside the listeners that workers asked for.
    pub(super) fn room_now(&self) -> u32 {
        let asked = self.listeners.len().saturating_sub(self.operator_count());
        self.config.max_held.saturating_sub(asked as u32).max(1)
    }

    /// Adjusts the room to the number of listeners.
    pub(super) fn fit_room(&mut self) {
        let room = self.room_now();
        if core::mem::replace(&mut self.room, room) == room {
            return;
        }
        if self.pending + self.in_flight >= room {
            self.pause_all();
        } else {
            self.resume_all();
        }
    }

    /// Whether as many connections are held as the limit on open files allows. Listeners are then
    /// not accepted from, nor emptied any further.
    pub fn is_full(&self) -> bool {
        self.accept_paused
    }

    /// Resumes accepting once an eighth of that limit is free again.
    pub(super) fn resume_all(&mut self) {
        let max = self.room;
        if !self.accept_paused || self.pending + self.in_flight > max - max.div_ceil(8) {
            return;
        }
        self.accept_paused = false;
        for listener in self.listeners.keys_sorted() {
            self.resume_if_allowed(listener);
        }
    }
}
