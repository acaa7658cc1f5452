//! The shutdown: empty the listeners, hand out what is pending, drain the workers, kill what is
//! left.

use serde::{Deserialize, Serialize};

use super::Primary;
use super::invariants::broken;
use super::output::{Event, Output, Refusal, Verdict};
use super::state::ListenerState;
use crate::timers::Due;
use crate::{ExitClass, Slot, Time};

/// A shutdown that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Stop {
    deadline: Time,
    phase: Phase,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Phase {
    /// Serving as before, for those that notice only later that the primary ends.
    Delaying,
    /// Accepting what is left, handing it out, waiting for the answers.
    Emptying,
    /// The workers were told to leave.
    Draining,
    /// The deadline passed: held connections are refused, living workers are killed.
    Killing,
    /// Nothing more will happen.
    Over,
}

impl Stop {
    pub(super) fn is_past_deadline(&self) -> bool {
        self.phase >= Phase::Killing
    }

    /// Whether listeners are being closed.
    pub(super) fn has_begun(&self) -> bool {
        self.phase >= Phase::Emptying
    }

    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    /// What it is apart from its deadline.
    #[cfg(feature = "inspect")]
    pub(super) fn without_time(&self) -> impl core::hash::Hash {
        (self.phase, &self.verdict)
    }
}

impl Primary {
    /// Whether a shutdown closes the listeners, or will soon.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::has_begun)
    }

    /// Whether workers are no longer started, only ended.
    pub(super) fn is_draining(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.phase >= Phase::Draining)
    }

    /// A second request to stop means at once: the operator does not want to wait.
    pub(super) fn begin_stop(&mut self) {
        if self.stop.is_some() {
            return self.enter_killing();
        }
        let begins = self.now + self.config.shutdown_delay;
        let deadline = begins + self.config.drain_timeout;
        self.stop = Some(Stop { deadline, phase: Phase::Delaying, verdict: Verdict::Stopped });
        self.event(Event::Stopping { deadline });
        self.end_reloads();
        self.set_paused(false);
        if begins > self.now {
            self.timers.set(Due::StopWaiting, begins);
        } else {
            self.enter_emptying();
        }
    }

    fn enter_emptying(&mut self) {
        let Some(stop) = &mut self.stop else { return broken("a shutdown has begun") };
        stop.phase = Phase::Emptying;
        self.timers.set(Due::StopWaiting, self.now + self.config.drain_timeout / 2);
        self.unbind_all();
    }

    /// Skips to the deadline. The first verdict stands.
    pub(super) fn stop_now(&mut self, verdict: Verdict) {
        if self.stop.is_none() {
            let deadline = self.now;
            self.stop = Some(Stop { deadline, phase: Phase::Emptying, verdict });
            self.event(Event::Stopping { deadline });
        }
        self.end_reloads();
        self.enter_killing();
    }

    fn unbind_all(&mut self) {
        for id in self.listeners.keys_sorted() {
            self.timers.clear(Due::Unheld(id));
            self.unbind(id);
        }
    }

    /// From here on nothing is handed off. A listener that could not be emptied by now, for want of
    /// descriptors or because more clients come than are served, must not delay the end.
    fn close_all(&mut self) {
        for id in self.listeners.keys_sorted() {
            self.timers.clear(Due::Unheld(id));
            self.close(id);
        }
    }

    pub(super) fn on_stop_due(&mut self) {
        let Some(stop) = &self.stop else { return };
        match stop.phase {
            Phase::Delaying => self.enter_emptying(),
            Phase::Emptying => self.enter_draining(),
            Phase::Draining => self.enter_killing(),
            Phase::Killing | Phase::Over => {}
        }
    }

    fn enter_draining(&mut self) {
        let Some(stop) = &mut self.stop else { return broken("a shutdown has begun") };
        stop.phase = Phase::Draining;
        let deadline = stop.deadline;
        self.timers.set(Due::StopWaiting, deadline);
        self.cancel_respawns();
        self.close_all();
        for id in self.workers.keys_sorted() {
            self.drain(id, deadline);
        }
    }

    fn enter_killing(&mut self) {
        let Some(stop) = &mut self.stop else { return broken("a shutdown has begun") };
        if stop.phase >= Phase::Killing {
            return;
        }
        stop.phase = Phase::Killing;
        self.timers.clear(Due::StopWaiting);
        self.cancel_respawns();
        self.close_all();
        for listener in self.listeners.keys_sorted() {
            self.refuse_pending(listener, Refusal::Shutdown);
        }
        for id in self.workers.keys_sorted() {
            self.kill(id, ExitClass::Overdue, None);
        }
    }

    fn cancel_respawns(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            self.timers.clear(Due::Respawn(Slot(slot)));
            self.timers.clear(Due::Retry(Slot(slot)));
        }
    }

    /// Moves the shutdown to its next phase if it can go on.
    pub(super) fn advance_stop(&mut self) {
        let Some(stop) = &self.stop else { return };
        let closed = |state: &ListenerState| matches!(state, ListenerState::Closed);
        let unbound = self.listeners.iter().all(|(_, record)| closed(&record.state));
        if stop.phase == Phase::Emptying && unbound && self.pending == 0 && self.in_flight == 0 {
            self.enter_draining();
        }
        if self.is_draining() && unbound && self.workers.is_empty() {
            self.finish_stop();
        }
    }

    fn finish_stop(&mut self) {
        let Some(stop) = &mut self.stop else { return broken("a shutdown has begun") };
        if stop.phase == Phase::Over {
            return;
        }
        stop.phase = Phase::Over;
        let verdict = stop.verdict.clone();
        self.timers.clear(Due::StopWaiting);
        // What is pending was declined while the workers were leaving: no worker is left to take
        // it.
        for listener in self.listeners.keys_sorted() {
            self.refuse_pending(listener, Refusal::Shutdown);
        }
        self.emit(Output::Stopped(verdict));
    }
}
