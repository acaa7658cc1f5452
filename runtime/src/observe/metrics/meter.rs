//! The counters that the machine does not have.

use std::collections::BTreeMap;
use std::time::Duration;

use roundel_core::{Event, ExitClass, Refusal, ReloadFailure, Slot, Time, WorkerId};

use super::histogram::Histogram;

/// Series that exist from the start, so that their first increase is not missed: a rate needs a
/// value from before it.
const REFUSALS: [Refusal; 4] =
    [Refusal::Overflow, Refusal::Attempts, Refusal::Closed, Refusal::Shutdown];
const EXITS: [ExitClass; 9] = [
    ExitClass::Voluntary,
    ExitClass::Clean,
    ExitClass::Crashed,
    ExitClass::Killed,
    ExitClass::NeverReady,
    ExitClass::Unresponsive,
    ExitClass::Violations,
    ExitClass::Overdue,
    ExitClass::SpawnFailed,
];

/// Counts what passes through the driver. A connection allocates nothing here, and all times are
/// those of the turns, so no clock is read for it.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// Connections accepted from the kernel.
    pub(super) received: u64,
    /// Connections closed without having been served, by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Workers that ended, by class.
    pub(super) exits: BTreeMap<&'static str, u64>,
    /// Reloads by result. Empty as long as there is no reload: the family is then left out.
    pub(super) reloads: BTreeMap<&'static str, u64>,
    /// The newest generation that serves.
    pub(super) generation: u32,
    /// From the accept to the handoff that a worker accepted.
    pub(super) waits: Histogram,
    /// From that handoff to the worker's answer.
    pub(super) acks: Histogram,
    /// By the number of the slot.
    pub(super) slots: Vec<SlotMeter>,
    workers: BTreeMap<WorkerId, Slot>,
}

/// The counters of a slot, over all its workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotMeter {
    pub(super) handed_off: u64,
    pub(super) accepted: u64,
    pub(super) declined: u64,
    /// Workers whose process was started.
    pub(super) started: u64,
    pub(super) in_flight: u32,
    /// Since when something is in flight, while something is.
    busy_since: Time,
    /// How long something was in flight, up to the last time that nothing was.
    busy: Duration,
}

impl SlotMeter {
    /// How long at least one connection was in flight, up to now.
    pub(super) fn busy(&self, now: Time) -> Duration {
        match self.in_flight {
            0 => self.busy,
            _ => self.busy + now.since(self.busy_since),
        }
    }

    fn hand_off(&mut self, now: Time) {
        if self.in_flight == 0 {
            self.busy_since = now;
        }
        self.handed_off += 1;
        self.in_flight += 1;
    }

    fn take_back(&mut self, count: u32, now: Time) {
        let left = self.in_flight.saturating_sub(count);
        if left == 0 {
            self.busy = self.busy(now);
        }
        self.in_flight = left;
    }
}

impl Meter {
    pub(crate) fn new(slots: u32) -> Meter {
        Meter {
            received: 0,
            refused: REFUSALS.iter().map(|refusal| (refusal.name(), 0)).collect(),
            exits: EXITS.iter().map(|class| (class.name(), 0)).collect(),
            reloads: [("done", 0), ("failed", 0)].into(),
            generation: 1,
            waits: Histogram::default(),
            acks: Histogram::default(),
            slots: vec![SlotMeter::default(); slots as usize],
            workers: BTreeMap::new(),
        }
    }

    pub(crate) fn received(&mut self) {
        self.received += 1;
    }

    pub(crate) fn handed_off(&mut self, worker: WorkerId, now: Time) {
        if let Some(slot) = self.slot_of(worker) {
            slot.hand_off(now);
        }
    }

    pub(crate) fn accepted(&mut self, worker: WorkerId, received: Time, handed: Time, now: Time) {
        self.waits.observe(handed.since(received));
        self.acks.observe(now.since(handed));
        if let Some(slot) = self.slot_of(worker) {
            slot.accepted += 1;
            slot.take_back(1, now);
        }
    }

    pub(crate) fn refused(&mut self, why: Refusal) {
        // It is a case of its own: the worker may have served it.
        if why != Refusal::Unknown {
            *self.refused.entry(why.name()).or_default() += 1;
        }
    }

    /// An event of the machine.
    pub(crate) fn event(&mut self, event: &Event, now: Time) {
        match event {
            Event::Spawned { worker, slot, .. } => {
                self.workers.insert(*worker, *slot);
                let slots = self.slots.len().max(slot.0 as usize + 1);
                self.slots.resize(slots, SlotMeter::default());
                if let Some(slot) = self.slot_of(*worker) {
                    slot.started += 1;
                }
            }
            Event::Exited { class, .. } => self.exited(*class),
            Event::ReloadProgress { generation, .. } => self.generation = *generation,
            Event::ReloadDone { .. } => self.reload("done"),
            // The later one is counted.
            Event::ReloadFailed { failure: ReloadFailure::Superseded, .. } => {}
            Event::ReloadFailed { .. } => self.reload("failed"),
            // A start that is tried again is no end of a worker.
            Event::SpawnFailed { cause, .. } if !cause.is_want_of_resources() => {
                self.exited(ExitClass::SpawnFailed);
            }
            Event::Declined { worker, .. } => {
                if let Some(slot) = self.slot_of(*worker) {
                    slot.declined += 1;
                    slot.take_back(1, now);
                }
            }
            Event::HandoffFailed { worker, .. } => {
                if let Some(slot) = self.slot_of(*worker) {
                    slot.take_back(1, now);
                }
            }
            Event::ChannelClosed { worker, in_flight } => {
                if let Some(slot) = self.slot_of(*worker) {
                    slot.take_back(*in_flight, now);
                }
            }
            _ => {}
        }
    }

    /// A worker is gone.
    pub(crate) fn forget(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// Connections in flight, over all slots.
    pub(crate) fn in_flight(&self) -> u32 {
        self.slots.iter().map(|slot| slot.in_flight).sum()
    }

    /// A reload has ended like this.
    pub(crate) fn reload(&mut self, result: &'static str) {
        *self.reloads.entry(result).or_default() += 1;
    }

    fn exited(&mut self, class: ExitClass) {
        *self.exits.entry(class.name()).or_default() += 1;
    }

    fn slot_of(&mut self, worker: WorkerId) -> Option<&mut SlotMeter> {
        let slot = *self.workers.get(&worker)?;
        self.slots.get_mut(slot.0 as usize)
    }
}
