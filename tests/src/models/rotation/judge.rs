//! What must hold after each step, and why a worker may be killed.

use roundel_core::{ExitClass, WorkerId};

use super::{Model, WorkerModel};
use crate::faults::fault::Property;

impl Model {
    pub(super) fn on_killing(&mut self, worker: WorkerId, class: ExitClass) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&worker) else { return };
        member.out = true;
        member.killed = true;
        let waited = now.since(member.silent_since);
        let owes = !member.in_flight.is_empty();
        let timeout = self.config.ack_timeout();
        let deaf = self.config.heartbeat().is_some() && member.missed >= 2;
        if class == ExitClass::Unresponsive
            && !deaf
            && (!owes || timeout.is_none_or(|max| waited < max))
        {
            self.fault(Property::Stuck, format!("{worker} was killed after only {waited:?}"));
        }
    }

    /// All outputs of the input were seen.
    pub fn end_step(&mut self) {
        loop {
            if let Some((listener, worker, conn)) = self.next() {
                let what = format!("{conn} of {listener} waits although {worker} is eligible");
                self.fault(Property::WorkConservation, what);
                break;
            }
            if !self.warm_one() {
                break;
            }
        }
        self.cooled.clear();
        if let Some(conn) = self.worn_out.pop_first() {
            self.worn_out.clear();
            self.fault(Property::NoLoss, format!("{conn} was not refused for its attempts"));
        }
        if let Some(conn) = self.unknown.pop_first() {
            self.unknown.clear();
            self.fault(Property::NoDouble, format!("{conn} may have been served and goes on"));
        }
        if !self.is_wake {
            return;
        }
        let deaf = |m: &&WorkerModel| {
            let asked = m.asked_at.filter(|_| m.native && !m.out && !m.killed && !m.exited);
            asked
                .zip(self.config.heartbeat())
                .is_some_and(|(at, every)| self.now.since(at) >= every)
        };
        if self.members.values().any(|m| deaf(&m)) {
            self.fault(Property::Stuck, "a worker is not asked for a sign of life".into());
        }
        let Some(max) = self.config.ack_timeout() else { return };
        let overdue = |m: &&WorkerModel| !m.in_flight.is_empty() && !m.killed && !m.exited;
        let late = self.members.values().filter(overdue).any(|m| {
            let waited = self.now.since(m.silent_since);
            waited >= max
        });
        if late {
            self.fault(Property::Stuck, "a worker that does not answer lives on".into());
        }
    }
}
