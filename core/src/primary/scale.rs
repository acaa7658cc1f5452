//! How many workers there are: scaling up and down.

use super::Primary;
use super::output::Event;
use super::state::{SlotRecord, SlotState};
use crate::Slot;
use crate::config::limits;
use crate::timers::Due;

impl Primary {
    /// How many workers are kept.
    pub fn wanted(&self) -> u32 {
        self.wanted
    }

    /// How many workers will be kept, once no reload is under way.
    pub fn scaling_to(&self) -> Option<u32> {
        self.scale_to
    }

    pub(super) fn on_scale(&mut self, workers: u32) {
        let (least, most) = limits::workers().into_inner();
        if self.stop.is_none() {
            self.scale_to = Some(workers.clamp(least, most));
            if let Some(reload) = &mut self.reload {
                reload.scaled = true;
            }
            if let Some(next) = &mut self.next_reload {
                next.scaled = true;
            }
        }
    }

    pub(super) fn scale(&mut self, wanted: u32) {
        let from = core::mem::replace(&mut self.wanted, wanted);
        if from == wanted {
            return;
        }
        self.event(Event::Scaled { from, to: wanted });
        for slot in (from..wanted).map(Slot) {
            let fresh = SlotRecord::new(&self.config, self.generation);
            match self.slot_mut(slot) {
                Some(record) => *record = SlotRecord { restarts: record.restarts, ..fresh },
                None => self.slots.push(fresh),
            }
            self.spawn(slot);
        }
        // The highest slots end.
        for slot in (wanted..from).map(Slot) {
            self.remove_slot(slot);
        }
        self.stop_if_exhausted();
    }

    fn remove_slot(&mut self, slot: Slot) {
        self.timers.clear(Due::Respawn(slot));
        self.timers.clear(Due::Retry(slot));
        let Some(record) = self.slot_mut(slot) else { return };
        match core::mem::replace(&mut record.state, SlotState::Removed) {
            SlotState::Filled(id) => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.replaced = true;
                }
                let deadline = self.now + self.config.drain_timeout;
                self.drain(id, deadline);
            }
            SlotState::AwaitsProcessEnd { failing, suicide } => self.confirm(failing, suicide),
            SlotState::Empty
            | SlotState::Waiting
            | SlotState::GivenUp
            | SlotState::Ended
            | SlotState::Removed => {}
        }
    }
}
