//! How what goes on ends: by its deadline, with a shutdown, or because a new worker failed.

use roundel_core::WorkerId;

use super::{Closed, ReloadModel};

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
        (self.waiting, self.scale_to) = (None, None);
        self.places.iter_mut().for_each(|place| place.successor = None);
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
}
