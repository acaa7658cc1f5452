//! When workers may be started, and when a slot is given up: the reference for guarantee 9.

use std::time::Duration;

use roundel_core::{Respawn, Slot, Time, Verdict, WorkerId};

use super::{LifeModel, Stage, WorkerModel};
use crate::faults::fault::Property;

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) newest: Option<WorkerId>,
    /// When its workers failed early.
    pub(super) failures: Vec<Time>,
    /// How many early failures since it last worked.
    pub(super) streak: u32,
    pub(super) not_before: Option<Time>,
    pub(super) given_up: bool,
    /// It ended and is not respawned.
    pub(super) ended: bool,
    /// That was looked at.
    pub(super) judged: bool,
    /// A failure was counted of a worker that has not ended: only then is the slot given up.
    pub(super) awaits_end: Option<WorkerId>,
    /// A reload told its worker to leave before there is a new one.
    pub(super) ended_first: bool,
    /// There is no such slot any more.
    pub(super) removed: bool,
    /// When it is tried again after it was given up, and how long that takes the next time.
    pub(super) retry_at: Option<Time>,
    pub(super) retry_delay: Option<Duration>,
}

impl Place {
    fn renew(&mut self) {
        (self.given_up, self.judged) = (false, false);
        (self.awaits_end, self.not_before) = (None, None);
        self.failures.clear();
    }
}

impl LifeModel {
    /// A shutdown serves as before until its delay is over.
    pub(super) fn look_at_delay(&mut self, what: &str) {
        if self.stopping && self.serves_until.is_some_and(|until| self.now < until) {
            self.fault(Property::Shutdown, format!("{what} although the shutdown has not begun"));
        }
    }

    pub(super) fn on_spawn(&mut self, worker: WorkerId, slot: Slot) {
        let stopping_fault = self.stopped;
        let successor = self.successors.contains(&worker);
        let Some(place) = self.places.get_mut(slot.0 as usize) else {
            return self.fault(Property::Restarts, format!("{slot} is no slot"));
        };
        if successor {
            self.members
                .insert(worker, WorkerModel { replaced: true, told_off: true, ..member(slot) });
            return;
        }
        let early = place.not_before.take().is_some_and(|at| self.now < at);
        let given_up = place.given_up;
        (place.newest, place.ended_first) = (Some(worker), false);
        if early {
            self.fault(Property::Restarts, format!("slot {slot} did not wait"));
        }
        if given_up {
            self.fault(Property::Restarts, format!("slot {slot} was given up and goes on"));
        }
        if stopping_fault {
            self.fault(Property::Shutdown, format!("{worker} was started after the end"));
        }
        for other in self.members.values_mut().filter(|m| m.slot == slot) {
            other.replaced = true;
        }
        self.members.insert(worker, member(slot));
    }

    pub(super) fn on_stopped(&mut self, verdict: &Verdict) {
        self.stopped = true;
        let over = self.places.iter().all(|it| it.given_up || it.ended || it.removed);
        let spent = over && self.places.iter().any(|place| place.given_up);
        if *verdict == Verdict::CrashLoop && (!spent || self.asked)
            || *verdict == Verdict::Stopped && spent && !self.asked
        {
            self.fault(Property::Restarts, format!("the verdict is {verdict}"));
        }
    }

    /// Where workers accept for themselves, one that fails early is replaced as long as the slot's
    /// budget lasts, and each time counts.
    pub(super) fn on_suicide(&mut self, worker: WorkerId) {
        let now = self.now;
        let barred = self.stopping || self.config.respawn() == Respawn::Never;
        let period = self.config.restart_period();
        let Some(member) = self.members.get_mut(&worker) else { return };
        let early = member.ready_at.is_some_and(|at| now.since(at) < Duration::from_secs(1));
        let counts = self.config.pass_listeners() && early && !member.replaced && !barred;
        if let Some(place) = self.places.get_mut(member.slot.0 as usize)
            && counts
            && member.stage != Stage::Leaving
        {
            place.failures.retain(|&at| now.since(at) < period);
            place.failures.push(now);
            place.awaits_end = Some(worker);
            // Its replacement may have to wait for a place, but not for a delay.
            member.replaced = place.failures.len() <= self.config.restart_intensity() as usize;
        }
    }

    pub(super) fn on_given_up(&mut self, slot: Slot) {
        let (first, most) = (self.config.retry_delay(), self.config.retry_delay_max());
        if let Some(place) = self.places.get_mut(slot.0 as usize) {
            place.given_up = true;
            if let Some(delay) = place.retry_delay.or(first) {
                place.retry_delay = Some((delay * 2).min(most));
                place.retry_at = Some(self.now + delay);
            }
        }
    }

    /// A slot that was given up is tried again, with a new budget.
    pub(super) fn on_retrying(&mut self, slot: Slot) {
        let Some(place) = self.places.get_mut(slot.0 as usize) else { return };
        let due = place.retry_at.take().is_some_and(|at| at <= self.now);
        place.renew();
        place.streak = 0;
        if !due {
            self.fault(Property::Restarts, format!("slot {slot} is tried again too soon"));
        }
    }

    pub(super) fn review_retries(&mut self) {
        let late = |it: &Place| it.retry_at.is_some_and(|at| at <= self.now);
        if self.is_wake && !self.stopping && self.places.iter().any(late) {
            self.fault(Property::Restarts, "a slot that was given up is not tried again");
        }
        let gone = |it: &Place| it.given_up || it.ended || it.removed;
        let over = self.places.iter().all(gone);
        if over && !self.stopping && !self.reloading {
            self.fault(Property::Restarts, "the primary goes on, and no slot does");
        }
    }

    /// A new worker takes its slot's place, with a new budget.
    pub(super) fn on_promoted(&mut self, slot: Slot, worker: WorkerId) {
        for (id, member) in self.members.iter_mut().filter(|(_, it)| it.slot == slot) {
            member.replaced = *id != worker;
            member.told_off = member.replaced;
        }
        self.successors.remove(&worker);
        if let Some(place) = self.places.get_mut(slot.0 as usize) {
            (place.newest, place.ended_first) = (Some(worker), false);
            place.renew();
            (place.streak, place.retry_delay, place.retry_at) = (0, None, None);
        }
    }

    pub(super) fn on_scaled(&mut self, to: usize) {
        self.peak = self.peak.max(to);
        for member in self.members.values_mut().filter(|it| it.slot.0 as usize >= to) {
            (member.replaced, member.told_off) = (true, true);
        }
        if self.places.len() < to {
            self.places.resize_with(to, Place::default);
        }
        for (at, place) in self.places.iter_mut().enumerate() {
            if at >= to {
                *place = Place { newest: place.newest, removed: true, ..Place::default() };
            } else if place.removed {
                *place = Place::default();
            }
        }
    }

    /// Nothing was to be had for a start: the slot waits for the first delay at least, and nothing
    /// is counted.
    pub(super) fn on_want(&mut self, worker: WorkerId) {
        let not_before = self.now + self.config.respawn_delay();
        let Some(member) = self.members.remove(&worker) else { return };
        if let Some(place) = self.places.get_mut(member.slot.0 as usize)
            && !member.replaced
            && !self.stopping
        {
            place.not_before = Some(not_before);
        }
    }

    /// A worker's process is gone: notes by when its slot may have another.
    pub(super) fn on_end(&mut self, worker: WorkerId) {
        let now = self.now;
        let period = self.config.restart_period();
        let (first, max) = (self.config.respawn_delay(), self.config.respawn_delay_max());
        let Some(member) = self.members.get_mut(&worker) else { return };
        let repeated = std::mem::replace(&mut member.exited, true);
        let (ready_at, accepted, slot) = (member.ready_at, member.accepted, member.slot);
        let replaced = member.replaced;
        if self.successors.contains(&worker) {
            return;
        }
        let Some(place) = self.places.get_mut(slot.0 as usize) else { return };
        place.awaits_end.take_if(|it| *it == worker);
        if ready_at.is_some_and(|at| now.since(at) >= period) {
            place.streak = 0;
            place.retry_delay = None;
        }
        let short = ready_at.is_none_or(|at| now.since(at) < Duration::from_secs(1) && !accepted);
        if repeated {
            return;
        }
        place.failures.retain(|&at| now.since(at) < period);
        // A slot that has ended needs nobody.
        if replaced || !short || self.stopping || place.ended {
            return;
        }
        place.failures.push(now);
        let mut delay = first;
        for _ in 0..place.streak {
            delay = (delay * 2).min(max);
        }
        place.streak += 1;
        place.not_before = Some(now + delay);
    }

    pub(super) fn review_budget(&mut self) {
        let intensity = self.config.restart_intensity() as usize;
        let now = self.now;
        let mut wrong = Vec::new();
        for (slot, place) in self.places.iter_mut().enumerate() {
            let spent = place.failures.len() > intensity;
            if place.given_up {
                place.not_before = None;
            }
            if place.given_up != spent && !place.judged && place.awaits_end.is_none() {
                wrong.push(format!("slot {slot} at {now}: {place:?}"));
            }
            place.judged |= place.given_up;
        }
        if !self.stopping {
            for what in wrong {
                self.fault(Property::Restarts, what);
            }
        }
    }
}

/// A worker that is started.
fn member(slot: Slot) -> WorkerModel {
    WorkerModel {
        slot,
        stage: Stage::Starting,
        ready_at: None,
        accepted: false,
        closed: false,
        exited: false,
        killed: false,
        replaced: false,
        told_off: false,
        spoke: false,
        native: false,
        had: false,
        leaves_by: Vec::new(),
        told_now: false,
        told: false,
        handles: None,
        counted_now: None,
        idle_since: None,
        asked: false,
    }
}
