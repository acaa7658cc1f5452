//! The slots, as they are shown to the outside.

use crate::primary::Primary;
use crate::primary::state::{LastExit, SlotState};
use crate::timers::Due;
use crate::{Slot, Time, WorkerId};

/// A slot, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotStatus {
    /// Its number.
    pub slot: Slot,
    /// What it has, or waits for.
    pub stage: SlotStage,
    /// The generation of its workers.
    pub generation: u32,
    /// How many workers were started in it after the first one.
    pub restarts: u64,
    /// How its last worker ended.
    pub last_exit: Option<LastExit>,
    /// When the next worker is started, if that is known.
    pub next_at: Option<Time>,
}

/// What a slot has, or waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotStage {
    /// This worker.
    Filled(WorkerId),
    /// A listener that is being bound, or a new worker of a reload.
    Empty,
    /// The delay before its next worker.
    Waiting,
    /// The end of some process: there are twice as many as wanted.
    AwaitsProcessEnd,
    /// Nothing for long: its workers failed too often.
    GivenUp,
    /// Nothing: its worker ended, and is not respawned.
    Ended,
}

impl SlotStage {
    /// Its name in the operator's view.
    pub fn name(self) -> &'static str {
        match self {
            SlotStage::Filled(_) => "filled",
            SlotStage::Empty => "empty",
            SlotStage::Waiting => "waiting",
            SlotStage::AwaitsProcessEnd => "awaits_process_end",
            SlotStage::GivenUp => "given_up",
            SlotStage::Ended => "ended",
        }
    }
}

impl Primary {
    /// The slots for the workers that are kept, in their order.
    pub fn slots(&self) -> impl Iterator<Item = SlotStatus> {
        (0..).map(Slot).zip(&self.slots).filter_map(|(slot, record)| {
            let stage = match record.state {
                SlotState::Filled(id) => SlotStage::Filled(id),
                SlotState::Empty => SlotStage::Empty,
                SlotState::Waiting => SlotStage::Waiting,
                SlotState::AwaitsProcessEnd { .. } => SlotStage::AwaitsProcessEnd,
                SlotState::GivenUp => SlotStage::GivenUp,
                SlotState::Ended => SlotStage::Ended,
                SlotState::Removed => return None,
            };
            Some(SlotStatus {
                slot,
                stage,
                generation: record.generation,
                restarts: record.restarts,
                last_exit: record.last_exit,
                next_at: self.timers.iter().find_map(|(at, due)| {
                    matches!(due, Due::Respawn(of) | Due::Retry(of) if of == slot).then_some(at)
                }),
            })
        })
    }

    /// The generation of the last reload that was done.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the operator has paused the cluster.
    pub fn is_paused(&self) -> bool {
        self.paused
    }
}
