//! Recycling: a worker that has served long enough, or grown too large, is replaced. One slot after
//! the other, each by a reload of that slot alone.

use core::time::Duration;

use super::Primary;
use super::output::Event;
use super::state::Reload;
use crate::timers::Due;
use crate::transitions::Life;
use crate::{Time, WorkerId};

/// How long a worker that could not be replaced is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Primary {
    /// Limits the life of a worker that has become ready.
    pub(super) fn limit_life(&mut self, id: WorkerId) {
        let (most, jitter) = (self.config.max_requests, self.config.max_requests_jitter);
        let age = self.config.max_age;
        let Some(worker) = self.workers.get_mut(id) else { return };
        if let Some(most) = most {
            let more = spread(id.get(), jitter);
            worker.recycle_at = worker.accepted.saturating_add(most.get()).saturating_add(more);
        }
        if let Some(age) = age {
            self.timers.set(Due::Age(id), self.now + age);
        }
    }

    /// A worker has accepted as many connections as it may.
    #[cold]
    pub(super) fn on_last_request(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.recycle_at = u64::MAX;
        }
        self.recycle(id);
        self.settle();
    }

    /// How much memory a worker has. One sample may be a moment's peak.
    pub(super) fn on_memory(&mut self, id: WorkerId, bytes: u64) {
        let Some(most) = self.config.max_memory else { return };
        let now = self.now;
        let Some(worker) = self.workers.get_mut(id) else { return };
        let is_large = bytes > most.get() && now >= worker.recycle_after;
        if core::mem::replace(&mut worker.is_large, is_large) && is_large {
            self.recycle(id);
        }
    }

    /// Has a worker replaced, after those that wait already. One whose successor has failed is left
    /// alone for a while.
    pub(super) fn recycle(&mut self, id: WorkerId) {
        if self.stop.is_some() || !self.is_recyclable(id) || self.recycle.contains(&id) {
            return;
        }
        let after = self.workers.get(id).map_or(Time::ZERO, |worker| worker.recycle_after);
        if after > self.now {
            return self.timers.set(Due::Age(id), after);
        }
        self.recycle.push_back(id);
    }

    /// Whether a worker is its slot's, and serves.
    pub(super) fn is_recyclable(&self, id: WorkerId) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let slot = self.slots.get(worker.slot.0 as usize);
        worker.life == Life::Ready && slot.is_some_and(|slot| slot.worker() == Some(id))
    }

    /// Begins to replace the next worker, unless too many processes are still leaving.
    pub(super) fn begin_recycling(&mut self) -> bool {
        while let Some(&worker) = self.recycle.front() {
            let record = self.workers.get(worker).filter(|_| self.is_recyclable(worker));
            let Some(slot) = record.map(|record| record.slot) else {
                self.recycle.pop_front();
                continue;
            };
            if self.processes() >= self.most_for_recycling() {
                return false;
            }
            self.recycle.pop_front();
            let generation = self.slots.get(slot.0 as usize).map_or(0, |slot| slot.generation);
            let mut reload = Reload::new(generation, [slot].into());
            reload.recycled = Some((worker, slot));
            self.reload = Some(reload.into());
            self.event(Event::Recycling { worker, slot });
            return true;
        }
        false
    }

    /// How many processes there may be for another worker to be recycled. With few workers these are
    /// as many leaving ones as reloads leave behind: their connections may last.
    fn most_for_recycling(&self) -> usize {
        let wanted = self.wanted as usize;
        self.most_processes().max(wanted + self.config.max_generations as usize - 1)
    }

    /// A worker could not be replaced: it serves on, and is replaced later.
    pub(super) fn put_off_recycling(&mut self, id: WorkerId) {
        let after = self.now + AGAIN_AFTER;
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.recycle_after = after;
        // It may wait for a second reason.
        self.recycle.retain(|waiting| *waiting != id);
        // Too much memory is seen again by itself.
        let has_served = self.config.max_requests.is_some() && worker.recycle_at == u64::MAX;
        let is_old = self.config.max_age.is_some() && !self.timers.is_set(Due::Age(id));
        if has_served || is_old {
            self.timers.set(Due::Age(id), after);
        }
    }
}

/// A number up to `most` that depends on the worker, so that workers that started together are not
/// all replaced together. It is not random: the same inputs lead to the same outputs.
fn spread(worker: u64, most: u64) -> u64 {
    // The finishing step of SplitMix64 (Steele, Lea and Flood, 2014).
    let mut mixed = worker.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    most.checked_add(1).map_or(mixed, |count| mixed % count)
}
