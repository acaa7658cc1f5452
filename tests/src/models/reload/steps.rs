//! What goes on, step by step: which worker is whose, and which step may follow.

use std::collections::BTreeSet;

use roundel_core::{ListenerId, Slot, WorkerId};

use super::{Active, Closed, Member, News, Place, ReloadModel};
use crate::faults::fault::Property;

impl ReloadModel {
    /// Whether a worker that is started in a slot is to take another one's place.
    fn is_new(&self, slot: Slot, generation: u32) -> bool {
        let (Some(place), Some(active)) = (self.place(slot), &self.active) else { return false };
        if !active.order.contains(&slot) || active.passed.contains(&slot) {
            return false;
        }
        let Some(recycled) = active.recycled else { return generation == active.generation };
        let serves = place.current == Some(recycled) && self.is_ready(recycled);
        !active.lost && (serves || place.ends_first == Some(recycled))
    }

    pub(super) fn on_spawn(&mut self, worker: WorkerId, slot: Slot, generation: u32) {
        let is_new = self.is_new(slot, generation);
        let Some(place) = self.place(slot).cloned() else {
            return self.fault(format!("{slot} is no slot"));
        };
        if !is_new && generation != place.generation {
            let what = format!(
                "{worker} of generation {generation} in slot {slot}, which is of {}",
                place.generation
            );
            self.fault(what);
        }
        if matches!(place.closed, Closed::Ended | Closed::Removed) {
            self.fault(format!("{worker} is started in slot {slot}: {:?}", place.closed));
        }
        if is_new {
            if place.successor.is_some() {
                self.fault(format!("slot {slot} has two new workers"));
            }
            let begins = self.active.as_ref().is_some_and(|it| {
                it.recycled.is_none() && it.done == 0 && it.ready_before.is_none()
            });
            if begins && !self.too_old(generation).is_empty() {
                self.fault(format!("{worker} is started beside too many generations"));
            }
            self.begin_batch();
            self.news.push(News::Successor(worker));
        }
        if let Some(place) = self.place_mut(slot) {
            if is_new {
                (place.successor, place.wants) = (Some(worker), false);
            } else {
                place.current = Some(worker);
                place.ends_first = None;
            }
        }
        let member = Member {
            slot,
            stays: true,
            killed: false,
            exited: false,
            online_at: None,
            ready_at: None,
            shares: Default::default(),
            queries: 0,
            since: None,
            accepted: 0,
            large: 0,
            spared: None,
            gone_by: None,
            generation,
        };
        self.members.insert(worker, member);
    }

    /// The first thing of a batch happens.
    fn begin_batch(&mut self) {
        let ready = self.ready_count();
        if let Some(active) = &mut self.active {
            active.ready_before.get_or_insert(ready);
        }
    }

    /// Nothing was to be had for a start: it is tried again.
    pub(super) fn on_want(&mut self, worker: WorkerId) {
        let Some(member) = self.members.remove(&worker) else { return };
        if let Some(place) = self.place_mut(member.slot) {
            place.wants |= place.successor.take_if(|it| *it == worker).is_some();
            place.current.take_if(|it| *it == worker);
        }
    }

    pub(super) fn on_gone(&mut self, worker: WorkerId) {
        self.judge_taken();
        self.leaves(worker);
        let Some(member) = self.members.get_mut(&worker) else { return };
        member.exited = true;
        let slot = member.slot;
        if let Some(place) = self.place_mut(slot) {
            place.current.take_if(|it| *it == worker);
        }
    }

    /// A worker must leave. If it is its slot's, there must be a reason.
    pub(super) fn on_settling(&mut self, worker: WorkerId) {
        let was_ready = self.is_ready(worker);
        let Some(slot) = self.members.get(&worker).map(|member| member.slot) else { return };
        let Some(place) = self.place(slot).cloned() else { return };
        let may = self
            .active
            .as_ref()
            .is_some_and(|it| it.order.contains(&slot) && !it.passed.contains(&slot));
        if place.successor == Some(worker) {
            self.called_off.push((worker, slot));
            if let Some(place) = self.place_mut(slot) {
                place.successor = None;
            }
        } else if place.current == Some(worker) && !self.stopping && place.closed != Closed::Removed
        {
            self.begin_batch();
            if !may || !was_ready {
                self.fault(format!("{worker} is told to leave for nothing"));
            }
            self.taken += u32::from(was_ready);
            if let Some(place) = self.place_mut(slot) {
                place.ends_first = place.current.take();
            }
        }
        self.leaves(worker);
    }

    pub(super) fn on_unbind(&mut self, listener: ListenerId) {
        if let Some(record) = self.operator.remove(&listener) {
            if !self.stopping && !self.is_dropped(&record.key) {
                let what = format!("{listener} of the operator was closed");
                self.faults.push((Property::Listeners, what));
            }
            self.news.push(News::Dropped(listener));
        }
    }

    pub(super) fn on_started(&mut self, generation: u32, slots: u32) {
        let waited = self.waiting.take();
        let Some((_, config, scaled)) = waited.filter(|it| it.0 == generation) else {
            return self.fault(format!("reload {generation} begins, and does not wait"));
        };
        if self.active.is_some() {
            self.fault("a reload begins while another one is under way");
        }
        let replaced = |place: &Place| !matches!(place.closed, Closed::Ended | Closed::Removed);
        let ready = |place: &Place| place.current.is_some_and(|id| self.is_ready(id));
        let slots_of = |wanted: bool| {
            let all = (0..).map(Slot).zip(&self.places);
            let some = all.filter(move |(_, it)| replaced(it) && ready(it) == wanted);
            some.map(|it| it.0).collect::<Vec<_>>()
        };
        // Those with nothing to lose come first.
        let order = [slots_of(false), slots_of(true)].concat();
        if order.len() != slots as usize {
            self.fault(format!("a reload of {slots} slots, and there are {order:?}"));
        }
        self.begin(generation, None, order, slots);
        self.news.push(News::Reloading(true));
        if let Some(active) = &mut self.active {
            active.scaled = scaled;
        }
        if let Some(config) = config {
            let same = |key: &_| self.operator.values().any(|it| it.key == *key);
            self.binds = config.listeners().iter().filter(|key| !same(key)).cloned().collect();
            self.set_config(config);
        }
        self.keys.insert(generation, self.config.listeners().to_vec());
        self.limit_generations(generation);
    }

    fn begin(&mut self, generation: u32, recycled: Option<WorkerId>, order: Vec<Slot>, total: u32) {
        self.active = Some(Active {
            generation,
            recycled,
            before: self.config.clone(),
            done: 0,
            total,
            order,
            passed: BTreeSet::new(),
            ready_before: None,
            deadline: None,
            scaled: false,
            lost: false,
        });
        self.note_needs();
    }

    /// The workers of the oldest generations must end if there are too many.
    fn limit_generations(&mut self, generation: u32) {
        let by = self.now + std::time::Duration::from_secs(2);
        for id in self.too_old(generation) {
            if let Some(member) = self.members.get_mut(&id) {
                member.gone_by.get_or_insert(by);
            }
            self.news.push(News::Hastened(id, by));
        }
    }

    /// The leaving workers of generations that are too many beside a new one.
    fn too_old(&self, generation: u32) -> Vec<WorkerId> {
        let lives = |it: &Member| !it.exited && !it.killed;
        let mut living: BTreeSet<u32> =
            self.members.values().filter(|it| lives(it)).map(|it| it.generation).collect();
        living.insert(generation);
        let mut surplus = BTreeSet::new();
        while living.len() > self.config.max_generations() as usize {
            surplus.extend(living.pop_first());
        }
        let goes = |it: &Member| lives(it) && !it.stays && surplus.contains(&it.generation);
        self.members.iter().filter(|(_, it)| goes(it)).map(|(id, _)| *id).collect()
    }

    pub(super) fn on_progress(&mut self, generation: u32, done: u32, slots: u32) {
        let Some(active) = self.active.clone().filter(|it| it.generation == generation) else {
            return self.fault(format!("reload {generation} goes on, and is not under way"));
        };
        let new = |slot: &&Slot| self.place(**slot).is_some_and(|it| it.successor.is_some());
        let batch: Vec<Slot> = active.order.iter().filter(new).copied().collect();
        if done != active.done + batch.len() as u32 || slots != active.total {
            self.fault(format!("{done} of {slots} replaced, and it is {batch:?} of {active:?}"));
        }
        self.pass(&batch);
        if let Some(active) = &mut self.active {
            active.done = done;
        }
    }

    /// A batch takes the places of the old workers.
    fn pass(&mut self, batch: &[Slot]) {
        if batch.len() > self.config.reload_batch() as usize {
            self.fault(format!("a batch of {}", batch.len()));
        }
        self.begin_batch();
        let Some(active) = self.active.clone() else { return };
        for &slot in batch {
            self.judge_new(slot);
            let Some(place) = self.place_mut(slot) else { continue };
            let Some(new) = place.successor.take() else { continue };
            let old = place.current.replace(new);
            (place.generation, place.closed) = (active.generation, Closed::No);
            let now = self.now;
            if let Some(member) = self.members.get_mut(&new) {
                member.ready_at = member.ready_at.map(|_| now);
            }
            let Some(place) = self.place_mut(slot) else { continue };
            (place.ends_first, place.last) = (None, BTreeSet::new());
            self.news.push(News::Promoted(slot, new));
            self.taken += u32::from(old.is_some_and(|old| self.is_ready(old)));
            if let Some(old) = old {
                self.hasten(old);
                self.retired.push(old);
            }
        }
        // With all of them: nobody is missing in between.
        self.judge_taken();
        if let Some(active) = &mut self.active {
            active.passed.extend(batch);
            (active.ready_before, active.deadline) = (None, None);
        }
    }

    /// One that is leaving already, and must leave: by then.
    pub(super) fn hasten(&mut self, worker: WorkerId) {
        let by = self.now + self.config.drain_timeout();
        if self.members.get(&worker).is_some_and(|it| !it.stays) {
            self.news.push(News::Hastened(worker, by));
        }
    }

    pub(super) fn on_done(&mut self, generation: u32) {
        self.open.remove(&generation);
        let Some(active) = self.active.take_if(|it| it.generation == generation) else {
            return self.fault(format!("reload {generation} is done, and is not under way"));
        };
        let missed = (0..).map(Slot).zip(&self.places).find(|(slot, place)| {
            let wants = matches!(place.closed, Closed::No | Closed::GivenUp);
            wants && !active.passed.contains(slot)
        });
        if let Some((slot, _)) = missed {
            self.fault(format!("reload {generation} is done without slot {slot}"));
        }
        self.generation = generation;
        self.news.push(News::Reloading(false));
        for place in &mut self.places {
            place.generation = generation;
        }
        if active.before.workers() != self.config.workers() && !active.scaled {
            self.scale_to = Some(self.config.workers());
        }
    }

    pub(super) fn on_recycling(&mut self, worker: WorkerId, slot: Slot) {
        if self.active.is_some() {
            self.fault(format!("{worker} is recycled while another one is replaced"));
        }
        let current = self.place(slot).is_some_and(|place| place.current == Some(worker));
        if !current || !self.is_ready(worker) || !self.is_ripe(worker) {
            self.fault(format!("{worker} is recycled for nothing"));
        }
        if self.is_spared(worker) {
            self.fault(format!("{worker} is recycled again too soon"));
        }
        if self.processes() >= self.most_for_recycling() {
            self.fault(format!("{worker} is recycled while too many leave"));
        }
        let generation = self.place(slot).map_or(0, |place| place.generation);
        self.begin(generation, Some(worker), vec![slot], 1);
    }

    pub(super) fn on_recycled(&mut self, worker: WorkerId, slot: Slot) {
        if self.active.as_ref().is_none_or(|it| it.recycled != Some(worker)) {
            return self.fault(format!("{worker} is recycled, and was not to be"));
        }
        let new = self.place(slot).and_then(|place| place.successor);
        if new.is_some_and(|id| self.members.get(&id).is_some_and(|it| it.stays)) {
            self.pass(&[slot]);
        }
        self.fail();
        self.active = None;
    }

    pub(super) fn on_scaled(&mut self, from: u32, to: u32) {
        if self.active.is_some() {
            self.fault("the number of workers changes during a reload");
        }
        if from != self.wanted || self.scale_to.take() != Some(to) {
            self.fault(format!("from {from} to {to} workers, and nobody wants that"));
        }
        self.wanted = to;
        let fresh = Place {
            generation: self.generation,
            current: None,
            successor: None,
            ends_first: None,
            wants: false,
            closed: Closed::No,
            last: BTreeSet::new(),
            needs: BTreeSet::new(),
        };
        let count = self.places.len().max(to as usize);
        self.places.resize(count, fresh.clone());
        let surplus: Vec<_> =
            self.places.iter().skip(to as usize).filter_map(|it| it.current).collect();
        surplus.into_iter().for_each(|id| self.hasten(id));
        for (at, place) in self.places.iter_mut().enumerate() {
            if at >= to as usize {
                place.closed = Closed::Removed;
            } else if place.closed == Closed::Removed {
                *place = fresh.clone();
            }
        }
    }
}
