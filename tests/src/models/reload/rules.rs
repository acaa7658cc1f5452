//! What is looked at after each step, and whether what was said is true.

use std::time::Duration;

use roundel_core::{ListenKey, ReloadFailure, Slot, WorkerId};

use super::{Closed, Member, ReloadModel};
use crate::faults::fault::Property;

impl ReloadModel {
    /// Whether no generation that serves, or may serve, has this listener of the operator's.
    pub(super) fn is_dropped(&self, key: &ListenKey) -> bool {
        let retries = self.config.retry_delay().is_some();
        let lives = |place: &&super::Place| match place.closed {
            Closed::No => true,
            Closed::GivenUp => retries,
            Closed::Ended | Closed::Removed => false,
        };
        let own = self.places.iter().filter(lives).map(|place| place.generation);
        let active = self.active.as_ref().filter(|it| it.recycled.is_none());
        let mut wanted = own.chain(active.map(|it| it.generation)).chain([self.generation]);
        !wanted.any(|it| self.keys.get(&it).is_some_and(|keys| keys.contains(key)))
    }

    /// What the new workers must listen on: what the old ones do, as long as they serve.
    pub(super) fn note_needs(&mut self) {
        for at in 0..self.places.len() {
            let current = self.places[at].current.filter(|&id| self.is_ready(id));
            if let Some(member) = current.and_then(|id| self.members.get(&id)) {
                self.places[at].last =
                    member.shares.iter().filter(|it| *it.1).map(|it| *it.0).collect();
            }
        }
        let Some(active) = self.active.clone() else { return };
        for slot in active.order.into_iter().filter(|slot| !active.passed.contains(slot)) {
            let Some(place) = self.place(slot) else { continue };
            let mut needs = place.last.clone();
            let keys = self.keys.get(&active.generation);
            needs.retain(|id| match self.operator.get(id) {
                Some(record) => record.open && keys.is_none_or(|keys| keys.contains(&record.key)),
                None => self.bound.contains(id),
            });
            if let Some(place) = self.place_mut(slot) {
                place.needs = needs;
            }
        }
    }

    /// Whether the new worker of a slot is as ready as it must be.
    fn is_as_ready(&self, slot: Slot) -> bool {
        let Some(place) = self.place(slot) else { return false };
        let Some(new) = place.successor.and_then(|id| self.members.get(&id)) else { return false };
        let listens = place.needs.iter().all(|id| new.shares.get(id) == Some(&true));
        let quiet = new.online_at.is_some_and(|at| {
            let asks = new.queries > 0 || !new.shares.is_empty();
            !asks && place.needs.is_empty() && self.now.since(at) >= Duration::from_secs(1)
        });
        new.stays && listens && (new.ready_at.is_some() || quiet)
    }

    /// A new worker takes an old one's place: it must have been as ready for as long as it must.
    pub(super) fn judge_new(&mut self, slot: Slot) {
        self.note_needs();
        let hold = self.config.ready_hold();
        let as_ready = self.is_as_ready(slot);
        let new = self.place(slot).and_then(|place| place.successor);
        let since = new.and_then(|id| self.members.get(&id)).and_then(|it| it.since);
        let held = hold.is_zero() || since.is_some_and(|at| self.now.since(at) >= hold);
        if !as_ready || !held {
            self.fault(format!(
                "the new worker of slot {slot} does not count: {:?}",
                self.place(slot)
            ));
        }
    }

    /// Ready workers were told to leave: enough must be left.
    pub(super) fn judge_taken(&mut self) {
        let before = self.active.as_ref().and_then(|it| it.ready_before).unwrap_or(0);
        let (ready, least) = (self.ready_count(), self.least_ready(before));
        if std::mem::take(&mut self.taken) > 0 && ready < least && !self.stopping {
            self.fault(format!("{ready} workers are left ready, and at least {least} should be"));
        }
    }

    pub(super) fn judge_failure(&mut self, generation: u32, failure: &ReloadFailure) {
        let active = self.active.as_ref().filter(|it| it.generation == generation);
        let late = active.and_then(|it| it.deadline).is_some_and(|at| at <= self.now);
        let new = |slot: &Slot| {
            let id = self.place(*slot).and_then(|place| place.successor);
            id.and_then(|id| self.members.get(&id))
        };
        let is_true = match failure {
            // A process that could not be started is forgotten at once.
            ReloadFailure::Ended { slot, .. } => new(slot).is_none_or(|it| it.exited),
            ReloadFailure::NotStarted { slot, .. } => new(slot).is_none(),
            ReloadFailure::Left { slot } => new(slot).is_some_and(|it| !it.stays),
            ReloadFailure::NotReady { .. } | ReloadFailure::TooFewReady => late,
            ReloadFailure::Stopped => self.stopping,
            ReloadFailure::Superseded => generation < self.last_generation,
            ReloadFailure::Fixed { .. } => active.is_none(),
            _ => active.is_some(),
        };
        if !is_true {
            self.fault(format!("reload {generation} failed, it says: {failure}"));
        }
    }

    /// Whether there is a reason to replace a worker.
    pub(super) fn is_ripe(&self, worker: WorkerId) -> bool {
        let large = self.members.get(&worker).is_some_and(|it| it.large >= 2);
        large || self.is_worn(worker)
    }

    /// Whether it is left alone, because its replacement has failed.
    pub(super) fn is_spared(&self, worker: WorkerId) -> bool {
        let until = self.members.get(&worker).and_then(|it| it.spared);
        until.is_some_and(|until| self.now < until)
    }

    /// Whether it has served as much, or as long, as it may.
    fn is_worn(&self, worker: WorkerId) -> bool {
        let Some(member) = self.members.get(&worker) else { return false };
        let served = self.config.max_requests().is_some_and(|most| member.accepted >= most.get());
        let age = member.ready_at.zip(self.config.max_age());
        let old = age.is_some_and(|(at, age)| self.now.since(at) >= age);
        served || old
    }

    /// All outputs of the input were seen.
    pub fn end_step(&mut self) {
        self.note_needs();
        self.judge_taken();
        self.review_new();
        self.review_ends();
        self.review_waiting();
        self.review_counts();
        self.review_recycling();
        self.forget_ended();
    }

    /// Notes since when the new workers are as ready as they must be, and whether the batch should
    /// have passed.
    fn review_new(&mut self) {
        let (now, hold) = (self.now, self.config.ready_hold());
        let Some(active) = self.active.clone() else { return };
        let (mut all, mut some) = (true, false);
        for &slot in active.order.iter().filter(|slot| !active.passed.contains(slot)) {
            let as_ready = self.is_as_ready(slot);
            let Some(place) = self.place(slot) else { continue };
            let gone = |id| self.members.get(&id).is_none_or(|it| it.exited);
            some |= place.successor.is_some();
            all &= place.ends_first.is_none_or(gone);
            let Some(new) = place.successor else { continue };
            let Some(member) = self.members.get_mut(&new) else { continue };
            if as_ready {
                all &= now.since(*member.since.get_or_insert(now)) >= hold;
            } else {
                (member.since, all) = (None, false);
            }
        }
        let ready = active.ready_before.unwrap_or(0);
        let is_ready = |id: &WorkerId| self.is_ready(*id);
        let batch = || self.places.iter().filter(|it| it.successor.is_some());
        let old = batch().filter_map(|it| it.current).filter(is_ready).count() as u32;
        let new = batch().filter_map(|it| it.successor).filter(is_ready).count() as u32;
        let spare = self.ready_count() - old + new >= self.least_ready(ready);
        let news = self.places.iter().filter(|it| it.successor.is_some()).count();
        let whole = news == self.config.reload_batch() as usize;
        // What its program must have said, its predecessor shows.
        let known = !self.config.wait_ready();
        if all && some && spare && whole && known && self.is_wake && !self.stopping {
            self.fault("a batch counts and does not take its places");
        }
    }

    /// What the operator wants begins as soon as it can.
    fn review_waiting(&mut self) {
        let settled = |it: &super::Place| {
            it.closed != Closed::No || it.current.is_some_and(|id| self.is_ready(id))
        };
        self.started |= !self.places.is_empty() && self.places.iter().all(settled);
        if self.stopping || !self.started || self.active.is_some() {
            return;
        }
        if self.waiting.is_some() {
            self.fault("a reload waits for nothing");
        }
        match self.scale_to {
            Some(wanted) if wanted == self.wanted => self.scale_to = None,
            Some(wanted) => self.fault(format!("{wanted} workers are wanted, and nobody cares")),
            None => {}
        }
    }

    /// There are never more processes than wanted, one for each slot of a batch, and those that
    /// leave.
    fn review_counts(&mut self) {
        let news = self.places.iter().filter(|it| it.successor.is_some()).count();
        let most = match &self.active {
            None => 0,
            Some(active) if active.recycled.is_some() => 1,
            Some(_) => self.config.reload_batch() as usize,
        };
        if news > most && !self.failed_now && !self.stopping {
            self.fault(format!("{news} new workers at once"));
        }
        let stay = self.members.values().filter(|it| it.stays && !it.exited).count();
        if stay > self.wanted as usize + most && !self.stopping {
            self.fault(format!("{stay} workers that do not leave, and {} are wanted", self.wanted));
        }
        let over =
            |it: &Member| it.gone_by.is_some_and(|by| self.now >= by) && !it.exited && !it.killed;
        if self.is_wake && !self.late && !self.stopping && self.members.values().any(over) {
            self.fault("a worker of a generation too many lives on");
        }
        let open = self.operator.iter().find(|(_, it)| it.open && self.is_dropped(&it.key));
        if let Some((id, _)) = open
            && !self.stopping
        {
            let what = format!("{id} is kept, and no generation has it");
            self.faults.push((Property::Listeners, what));
        }
    }

    /// How many processes have not ended.
    pub(super) fn processes(&self) -> usize {
        self.members.values().filter(|it| !it.exited).count()
    }

    /// Another worker is recycled only while there are fewer: those that leave may take long.
    pub(super) fn most_for_recycling(&self) -> usize {
        let wanted = self.wanted as usize;
        (2 * wanted).max(wanted + self.config.max_generations() as usize - 1)
    }

    /// A worker that should be replaced is, one after the other.
    fn review_recycling(&mut self) {
        let free = self.active.is_none() && self.started && !self.stopping;
        // Slots that wait for a worker have a place as well.
        let waiting = self.places.iter().filter(|it| it.current.is_none()).count();
        let room = self.processes() + waiting < self.most_for_recycling();
        if !free || !room || !self.is_wake {
            return;
        }
        // A sample of its memory counts only at its time.
        let ripe = |id: &WorkerId| self.is_ready(*id) && self.is_worn(*id) && !self.is_spared(*id);
        if let Some(id) = self.places.iter().filter_map(|it| it.current).find(ripe) {
            self.fault(format!("{id} should be replaced, and is not"));
        }
    }
}
