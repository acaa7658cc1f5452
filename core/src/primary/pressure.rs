//! Back-pressure: when accepting stops, and when it goes on.

use super::Primary;
use super::output::{Event, Output};
use crate::ListenerId;

impl Primary {
    /// Goes on accepting from a listener that is half empty again: not at the first place that
    /// becomes free, or each one would cost a pause and a resume.
    pub(super) fn resume_if_allowed(&mut self, listener: ListenerId) {
        let Some(record) = self.listeners.get_mut(listener) else { return };
        let room = record.pending.len() <= self.config.max_pending as usize / 2;
        if room && record.is_open() && !record.shared && !record.accepting && !self.pressed {
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

    /// Stops accepting everywhere: as many are held as the limit on open files allows.
    pub(super) fn press(&mut self) {
        if !core::mem::replace(&mut self.pressed, true) {
            for listener in self.listeners.keys_sorted() {
                self.pause(listener);
            }
        }
    }

    /// Goes on accepting once an eighth of that limit is free again.
    pub(super) fn relax(&mut self) {
        let max = self.config.max_held;
        if !self.pressed || self.pending + self.flying > max - max.div_ceil(8) {
            return;
        }
        self.pressed = false;
        for listener in self.listeners.keys_sorted() {
            self.resume_if_allowed(listener);
        }
    }
}
