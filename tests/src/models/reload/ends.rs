//! How what goes on ends: by its deadline, with a shutdown, or because a new worker failed.

use roundel_core::{Config, ExitClass, ReloadFailure, Slot, WorkerId};

use super::{Closed, News, Place, ReloadModel};

impl ReloadModel {
    /// Looks whether what should have ended has.
    pub(super) fn review_ends(&mut self) {
        if self.stopping {
            return self.review_stop();
        }
        let lost = self
            .places
            .iter()
            .filter_map(|place| place.successor)
            .find(|id| self.members.get(id).is_none_or(|it| it.exited));
        if let (Some(id), true) = (lost, self.active.is_some()) {
            self.fault(format!("{id} has ended, and its reload goes on"));
        }
        let off = self.called_off.iter().find(|(_, slot)| {
            let closed = self.place(*slot).map(|place| place.closed);
            !matches!(closed, Some(Closed::Ended | Closed::Removed))
        });
        if let Some((id, _)) = off
            && !self.failed_now
        {
            self.fault(format!("{id} is called off for nothing"));
        }
        self.review_deadline();
    }

    fn review_deadline(&mut self) {
        let (now, timeout) = (self.now, self.config.ready_timeout());
        let gone = |id| self.members.get(&id).is_none_or(|it| it.exited);
        let waits = self.places.iter().any(|it| it.ends_first.is_some_and(|id| !gone(id)));
        let (late, is_wake) = (self.late, self.is_wake);
        let slow = self
            .places
            .iter()
            .filter_map(|place| place.successor)
            .any(|id| self.members.get(&id).is_some_and(|it| it.since.is_none()));
        let Some(active) = &mut self.active else { return };
        // The clock starts once the old workers that end first are gone.
        if active.ready_before.is_none() || waits {
            return;
        }
        if late && active.deadline.is_some() {
            active.deadline = timeout.map(|timeout| now + timeout);
        }
        if active.deadline.is_none() {
            active.deadline = timeout.map(|timeout| now + timeout);
        }
        if is_wake && slow && active.deadline.is_some_and(|at| at <= now) {
            self.fault("a reload goes on after its deadline");
        }
    }

    /// A shutdown ends everything at once.
    fn review_stop(&mut self) {
        if !self.stopped_now {
            return;
        }
        if self.active.take().is_some_and(|it| it.recycled.is_none()) || !self.open.is_empty() {
            self.fault("a reload outlives the primary's service");
        }
        let unready = self.places.iter().filter_map(|place| place.successor).find(|id| {
            let member = self.members.get(id);
            member.is_some_and(|it| it.ready_at.is_none() && !it.exited && !it.killed)
        });
        if let Some(id) = unready {
            self.fault(format!("{id} is not ready, and not killed"));
        }
        if let Some(place) = self.places.iter().find(|it| it.ends_first.is_some()) {
            self.fault(format!("nobody follows {:?}, which was ended first", place.ends_first));
        }
        (self.waiting, self.scale_to) = (None, None);
        self.places.iter_mut().for_each(|place| place.successor = None);
    }

    /// Before a shutdown closes the listeners it serves on: a slot whose old worker was ended first
    /// has its new one, ready or not, or gets another.
    pub(super) fn fill_places(&mut self) {
        let Some(active) = &mut self.active else { return };
        let generation = active.generation;
        // What is started now is not to take another one's place.
        active.lost = true;
        let now = self.now;
        for (slot, place) in (0..).map(Slot).zip(&mut self.places) {
            let Some(new) = place.successor.take_if(|_| place.ends_first.is_some()) else {
                continue;
            };
            (place.current, place.ends_first) = (Some(new), None);
            (place.generation, place.closed) = (generation, Closed::No);
            place.last.clear();
            if let Some(member) = self.members.get_mut(&new) {
                member.ready_at = member.ready_at.map(|_| now);
            }
            self.news.push(News::Promoted(slot, new));
        }
    }

    /// After a failure no new worker stays; the old ones do.
    pub(super) fn forget_ended(&mut self) {
        let stays = |id: &WorkerId| self.members.get(id).is_some_and(|it| it.stays && !it.exited);
        let retired = std::mem::take(&mut self.retired).into_iter().find(stays);
        let failed = std::mem::take(&mut self.failed).into_iter().find(stays);
        if let Some(id) = retired {
            self.fault(format!("{id} stays beside the one that has its place"));
        }
        if let Some(id) = failed {
            self.fault(format!("{id} stays after its reload"));
        }
    }

    pub(super) fn close(&mut self, slot: Slot, closed: Closed) {
        if let Some(place) = self.place_mut(slot) {
            place.closed = closed;
        }
        if closed == Closed::Ended {
            self.drop_slot(slot);
        }
    }

    /// A slot ends: it is in no batch any more.
    pub(super) fn drop_slot(&mut self, slot: Slot) {
        let waits = |it: &Place| it.successor.is_some() || it.ends_first.is_some() || it.wants;
        let was_in = self.place(slot).is_some_and(waits);
        let Some(place) = self.place_mut(slot) else { return };
        let new = place.successor.take();
        (place.ends_first, place.wants) = (None, false);
        new.into_iter().for_each(|id| self.hasten(id));
        self.failed.extend(new);
        let rest = self.places.iter().any(waits);
        if let Some(active) = self.active.as_mut().filter(|_| was_in && !rest) {
            (active.ready_before, active.deadline) = (None, None);
        }
    }

    pub(super) fn leaves(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        member.stays = false;
        let slot = member.slot;
        let is_new = self.place(slot).is_some_and(|place| place.successor == Some(worker));
        if let Some(active) = &mut self.active {
            active.lost |= is_new;
        }
    }

    pub(super) fn on_killing(&mut self, worker: WorkerId, _: ExitClass) {
        // The reload does not answer for workers that others take away after that.
        self.judge_taken();
        self.leaves(worker);
        if let Some(member) = self.members.get_mut(&worker) {
            member.killed = true;
        }
    }

    pub(super) fn on_failed(&mut self, generation: u32, failure: &ReloadFailure) {
        if !self.open.remove(&generation) {
            self.fault(format!("reload {generation} fails, and is not under way"));
        }
        if let Some((waiting, ..)) = &self.waiting
            && *waiting == generation
        {
            // A later one has taken its place if it is not the last one.
            self.waiting = None;
        }
        self.judge_failure(generation, failure);
        let Some(active) = self.active.take_if(|it| it.generation == generation) else { return };
        self.news.push(News::Reloading(false));
        let stopped = matches!(failure, ReloadFailure::Stopped);
        if active.done > 0 {
            self.generation = generation;
        } else if !stopped {
            self.set_config(active.before);
        }
        self.fail();
    }

    /// What goes on has ended, and its new workers with it.
    pub(super) fn fail(&mut self) {
        self.failed_now = true;
        self.places.iter_mut().for_each(|place| place.wants = false);
        if !self.stopping {
            let new: Vec<_> = self.places.iter_mut().filter_map(|it| it.successor.take()).collect();
            new.iter().for_each(|id| self.hasten(*id));
            self.failed.extend(new);
        }
    }

    pub(super) fn set_config(&mut self, config: Config) {
        self.config = config.clone();
        self.news.push(News::Config(Box::new(config)));
    }
}
