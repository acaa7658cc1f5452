//! A view in which states that behave alike are equal, for search and comparison.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Primary;
use crate::primary::state::{ListenerRecord, SlotRecord, SlotState, WorkerRecord};
use crate::timers::Due;
use crate::transitions::{Life, Process};
use crate::{ConnId, Deadline, ListenerId, STALLED_AFTER, Signal, Slot, Time, WorkerId};

/// A [`Primary`] with its ids renamed in order, its times relative to now, and its counters left
/// out; what can make no difference any more is left out as well.
///
/// Two primaries with the same configuration and equal views answer equal inputs (renamed alike)
/// with equal outputs, but for the counters: totals, restarts, the last exit of a slot, stray
/// messages and failed queries short of their limits. Both must have been woken in time, since they
/// may have timers without effect at different times. Outputs that were not polled are not part of
/// it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Canonical(Vec<u8>);

/// The facts of a [`Canonical`], not written down but fed to a hasher.
///
/// Takes time in the square of the number of workers: it is meant for small states.
#[derive(Debug)]
pub struct CanonicalView<'a> {
    primary: &'a Primary,
    workers: Vec<WorkerId>,
    listeners: Vec<ListenerId>,
    conns: Vec<ConnId>,
    /// Slots, and what only they look at, do not matter any more.
    draining: bool,
}

/// A hasher that keeps what it is fed.
struct Recorder(Vec<u8>);

impl Hasher for Recorder {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl Primary {
    /// The view of this state.
    pub fn canonical(&self) -> Canonical {
        let mut facts = Recorder(Vec::new());
        self.view().hash(&mut facts);
        Canonical(facts.0)
    }

    /// The same view, to be hashed whole or in parts.
    pub fn view(&self) -> CanonicalView<'_> {
        CanonicalView {
            primary: self,
            workers: self.workers.keys_sorted(),
            listeners: self.listeners.keys_sorted(),
            conns: self.held(),
            draining: self.is_draining(),
        }
    }

    /// The next deadline that matters. [`poll_timeout`](Primary::poll_timeout) may name an earlier
    /// one, at which a `Wake` changes nothing but the clock.
    pub fn deadline(&self) -> Option<Deadline> {
        let matters = |(at, due): (Time, Due)| {
            let at = if let Due::Ack(id) = due {
                let worker = self.workers.get(id).filter(|w| !w.in_flight.is_empty())?;
                (worker.owes_since + self.config.ack_timeout?).max(at)
            } else {
                at
            };
            Some(Deadline { at, timer: due.timer() })
        };
        self.timers.iter().filter_map(matters).min_by_key(|deadline| (deadline.at, deadline.timer))
    }
}

impl Hash for CanonicalView<'_> {
    fn hash<H: Hasher>(&self, out: &mut H) {
        self.hash_rest(out);
        for slot in 0..self.primary.slots.len() as u32 {
            self.hash_slot(Slot(slot), out);
        }
        self.hash_order(out);
    }
}

/// Flags in one number, the first one lowest.
fn flags<const N: usize>(flags: [bool; N]) -> u32 {
    flags.iter().rev().fold(0, |all, &flag| all << 1 | u32::from(flag))
}

/// The part of the state that a deadline is about.
enum About {
    Worker(WorkerId, Option<ListenerId>),
    Slot(Slot),
    Rest(Option<ListenerId>),
    /// An ack timer is only a reminder of what the record holds.
    Nobody,
}

fn about(due: Due) -> About {
    match due {
        Due::Ack(_) => About::Nobody,
        Due::Ready(w)
        | Due::Silent(w)
        | Due::Frame(w)
        | Due::Drain(w)
        | Due::Settle(w)
        | Due::Terminate(w)
        | Due::ShutdownRead(w)
        | Due::Orphan(w)
        | Due::Heartbeat(w)
        | Due::Age(w) => About::Worker(w, None),
        Due::Cooldown(w, l) => About::Worker(w, Some(l)),
        Due::Respawn(slot) | Due::Successor(slot) | Due::Retry(slot) => About::Slot(slot),
        Due::Unheld(l) => About::Rest(Some(l)),
        Due::StopWaiting | Due::Count | Due::Claims | Due::Reload => About::Rest(None),
    }
}

/// One more than the place in the order; 0 for what is gone.
fn rank<T: Ord>(order: &[T], what: &T) -> u32 {
    order.binary_search(what).map_or(0, |at| at as u32 + 1)
}

impl CanonicalView<'_> {
    /// What concerns the listeners and the whole.
    pub fn hash_rest<H: Hasher>(&self, out: &mut H) {
        let primary = self.primary;
        for &id in &self.listeners {
            if let Some(record) = primary.listeners.get(id) {
                self.listener(record, out);
            }
        }
        for id in &primary.backlog {
            out.write_u32(rank(&self.listeners, id));
        }
        for (id, stall) in &primary.stalls {
            let (since, pending, reported) = stall.facts();
            out.write_u32(rank(&self.listeners, id));
            self.age(since, STALLED_AFTER, out);
            (pending, reported).hash(out);
        }
        out.write_u32(flags([
            primary.accept_paused,
            primary.ever_online,
            primary.stop.is_some(),
            primary.started,
            primary.paused,
        ]));
        if let Some(stop) = &primary.stop {
            stop.without_time().hash(out);
            self.time(stop.deadline(), out);
        }
        self.reload(out);
        for (at, due) in primary.timers.iter() {
            if let About::Rest(which) = about(due) {
                self.timer(at, due, which, out);
            }
        }
        out.write_u8(b'.');
    }

    /// A generation by its place among those that there are: only their order matters.
    fn generation(&self, generation: u32) -> u32 {
        let primary = self.primary;
        let own = primary.slots.iter().map(|slot| slot.generation);
        let workers = primary.workers.iter().map(|(_, worker)| worker.generation);
        let reload = primary.reload.iter().map(|reload| reload.generation);
        let all: BTreeSet<u32> =
            own.chain(workers).chain(reload).chain(primary.operator.keys().copied()).collect();
        all.range(..generation).count() as u32
    }

    fn reload<H: Hasher>(&self, out: &mut H) {
        let primary = self.primary;
        (primary.wanted, primary.scale_to, self.generation(primary.generation)).hash(out);
        for (generation, ids) in &primary.operator {
            self.generation(*generation).hash(out);
            ids.iter().for_each(|id| out.write_u32(rank(&self.listeners, id)));
        }
        for id in &primary.recycle {
            out.write_u32(rank(&self.workers, id));
        }
        primary.next_reload.as_ref().map(|next| (&next.config, next.scaled)).hash(out);
        let Some(reload) = &primary.reload else { return };
        self.generation(reload.generation).hash(out);
        reload.recycled.map(|(id, slot)| (rank(&self.workers, &id), slot)).hash(out);
        (&reload.slots, reload.done > 0, reload.ready_before).hash(out);
        (&reload.failure, &reload.before, reload.scaled).hash(out);
        reload.deadline.is_some().hash(out);
        if let Some(deadline) = reload.deadline {
            self.time(deadline, out);
        }
        for id in &reload.binding {
            out.write_u32(rank(&self.listeners, id));
        }
        for it in &reload.batch {
            (it.slot, it.says_ready, it.since.is_some()).hash(out);
            it.ends_first.map(|id| rank(&self.workers, &id)).hash(out);
            it.needs.iter().for_each(|id| out.write_u32(rank(&self.listeners, id)));
            if let Some(since) = it.since {
                self.age(since, primary.config.ready_hold, out);
            }
        }
    }

    /// What concerns a slot and its workers, whichever slot it is and wherever they stand among the
    /// other slots' workers.
    ///
    /// Slots that have equal hashes are interchangeable, but for ties that the primary breaks by
    /// id: see [`hash_order`](CanonicalView::hash_order).
    pub fn hash_slot<H: Hasher>(&self, slot: Slot, out: &mut H) {
        let primary = self.primary;
        if let Some(record) = primary.slots.get(slot.0 as usize).filter(|_| !self.draining) {
            self.slot(slot, record, out);
        }
        for (at, due) in primary.timers.iter() {
            if matches!(about(due), About::Slot(other) if other == slot) {
                self.timer(at, due, None, out);
            }
        }
        for (id, worker) in self.workers_of(slot) {
            self.worker(id, worker, out);
        }
        out.write_u8(b'.');
    }

    /// The workers of a slot, the oldest one first.
    fn workers_of(&self, slot: Slot) -> impl Iterator<Item = (WorkerId, &WorkerRecord)> {
        let known = |&id: &WorkerId| self.primary.workers.get(id).map(|worker| (id, worker));
        self.workers.iter().filter_map(known).filter(move |(_, worker)| worker.slot == slot)
    }

    /// The slot of each worker, in the order of the workers' ids.
    ///
    /// It makes a difference only where the primary breaks a tie by id: between workers that cool
    /// down at the same time, or that wait for the place of the same process.
    pub fn hash_order<H: Hasher>(&self, out: &mut H) {
        for &id in &self.workers {
            let slot = self.primary.workers.get(id).map(|worker| worker.slot);
            slot.hash(out);
        }
    }

    fn time<H: Hasher>(&self, at: Time, out: &mut H) {
        out.write_u64(at.as_nanos().wrapping_sub(self.primary.now.as_nanos()));
    }

    /// An age, which matters only up to `matters`.
    fn age<H: Hasher>(&self, at: Time, matters: Duration, out: &mut H) {
        let age = self.primary.now.since(at).min(matters);
        out.write_u64(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
    }

    fn timer<H: Hasher>(&self, at: Time, due: Due, which: Option<ListenerId>, out: &mut H) {
        self.time(at, out);
        out.write_u8(due.timer() as u8);
        out.write_u32(which.map_or(0, |id| rank(&self.listeners, &id)));
    }

    fn worker<H: Hasher>(&self, id: WorkerId, worker: &WorkerRecord, out: &mut H) {
        let ended = worker.process == Process::Exited;
        let killed = worker.intent.is_killed();
        (self.generation(worker.generation), worker.kind, worker.life).hash(out);
        (worker.channel, worker.process).hash(out);
        // The intent was looked at when the process ended.
        Some(worker.intent).filter(|_| !ended).hash(out);
        out.write_u32(flags([
            worker.replaced && !self.draining,
            worker.said_ready,
            worker.mid_frame,
            worker.held,
            worker.is_large,
            worker.assumed,
        ]));
        (worker.window, worker.queries, worker.pings.len(), worker.missed).hash(out);
        if !self.draining && !ended {
            self.career(worker, out);
        }
        if !ended && !killed {
            self.leave(id, worker, out);
        }
        self.in_flight(worker, out);
        if !worker.in_flight.is_empty() && !ended && !killed {
            self.time(worker.owes_since, out);
        }
        self.shares(id, worker, out);
        let own = |index| self.primary.workers.key_at(index) == Some(id);
        self.primary.ready_queue.iter().position(own).hash(out);
        for (at, due) in self.primary.timers.iter() {
            if let About::Worker(other, which) = about(due)
                && other == id
            {
                self.timer(at, due, which, out);
            }
        }
        out.write_u8(b';');
    }

    /// What decides which worker follows this one, and when.
    fn career<H: Hasher>(&self, worker: &WorkerRecord, out: &mut H) {
        let primary = self.primary;
        let second = Duration::from_secs(1);
        if let Some(at) = worker.ready_at {
            self.age(at, primary.config.restart_period.max(second), out);
            let early = primary.now.since(at) < second && !worker.replaced;
            out.write_u8(u8::from(early && worker.accepted > 0));
        }
        if worker.life == Life::Leaving {
            let leaves = |w: &WorkerRecord| w.life == Life::Leaving && w.process != Process::Exited;
            let earlier = primary
                .workers
                .iter()
                .filter(|(_, other)| leaves(other) && other.leaving_since < worker.leaving_since);
            out.write_u32(earlier.count() as u32);
        }
    }

    /// What decides when it is signalled.
    fn leave<H: Hasher>(&self, id: WorkerId, worker: &WorkerRecord, out: &mut H) {
        let config = &self.primary.config;
        let had = worker.had_connections();
        let leave = worker.leave;
        let counted = config.linger.is_some() || config.pass_listeners;
        let signalled = self.primary.timers.is_set(Due::Terminate(id)) || counted;
        out.write_u32(flags([
            leave.told && counted,
            had && config.linger.is_some(),
            leave.terminated && signalled,
            leave.disconnected,
            worker.stop_signal == Some(Signal::Term),
            worker.stop_signal == Some(Signal::Interrupt),
        ]));
        if let (Some(since), Some(linger)) = (leave.idle_since, config.linger) {
            self.age(since, linger, out);
        }
        // It settles from its last answer on.
        if !config.drain_settle.is_zero() && had && worker.life <= Life::Draining {
            self.age(worker.owes_since, config.drain_settle, out);
        }
    }

    fn in_flight<H: Hasher>(&self, worker: &WorkerRecord, out: &mut H) {
        out.write_u32(worker.in_flight_count());
        for entry in worker.in_flight.iter() {
            out.write_u32(rank(&self.conns, &entry.conn));
            out.write_u32(rank(&self.listeners, &entry.listener));
            (entry.attempts, entry.in_doubt).hash(out);
        }
    }

    fn shares<H: Hasher>(&self, id: WorkerId, worker: &WorkerRecord, out: &mut H) {
        out.write_usize(worker.shares.len());
        for share in &worker.shares {
            out.write_u32(rank(&self.listeners, &share.listener));
            share.listening.hash(out);
            // A worker that leaves gets nothing more.
            let cool = share.cool.filter(|_| worker.life <= Life::Ready);
            cool.map(|cool| cool.until.is_some()).hash(out);
            if let Some(cool) = cool {
                cool.next.hash(out);
            }
            if let Some(until) = cool.and_then(|cool| cool.until) {
                self.time(until, out);
            }
        }
        for listener in &self.listeners {
            let record = self.primary.listeners.get(*listener);
            record.is_some_and(|record| record.holders.contains(&id)).hash(out);
        }
    }

    fn listener<H: Hasher>(&self, record: &ListenerRecord, out: &mut H) {
        (&record.key, &record.sockname, &record.data, record.state).hash(out);
        let told = record.operator && record.told;
        let unused = !record.operator && !record.used;
        out.write_u32(flags([record.operator, record.shared, record.accepting, told, unused]));
        out.write_usize(record.askers.len());
        for asker in &record.askers {
            out.write_u32(rank(&self.workers, &asker.worker));
            asker.seq.hash(out);
        }
        out.write_usize(record.pending.len());
        for entry in &record.pending {
            out.write_u32(rank(&self.conns, &entry.conn));
            out.write_u8(entry.attempts);
        }
    }

    fn slot<H: Hasher>(&self, slot: Slot, record: &SlotRecord, out: &mut H) {
        match record.state {
            SlotState::Empty => out.write_u8(0),
            SlotState::Filled(_) => out.write_u8(1),
            SlotState::Waiting => out.write_u8(2),
            SlotState::GivenUp => out.write_u8(3),
            SlotState::Ended => out.write_u8(4),
            SlotState::Removed => out.write_u8(6),
            SlotState::AwaitsProcessEnd { failing, suicide } => {
                out.write_u8(5);
                let at = self.workers_of(slot).position(|(id, _)| id == failing);
                (at, suicide).hash(out);
            }
        }
        for listener in &self.listeners {
            let listener = self.primary.listeners.get(*listener);
            listener.is_some_and(|listener| listener.slots.contains(&slot)).hash(out);
        }
        self.workers_of(slot).position(|(id, _)| Some(id) == record.successor).hash(out);
        self.generation(record.generation).hash(out);
        (record.delay, record.wanting, record.retry_delay).hash(out);
        // It matters only while nobody serves there.
        if self.primary.ready_worker_of(slot).is_none() {
            for id in &record.listened {
                out.write_u32(rank(&self.listeners, id));
            }
        }
        let period = self.primary.config.restart_period;
        for &at in record.failures.iter().filter(|&&at| self.primary.now.since(at) < period) {
            self.age(at, period, out);
        }
        out.write_u8(b',');
    }
}
