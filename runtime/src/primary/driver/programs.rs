//! What the workers of each generation run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use roundel_core::Slot;

use super::PrimaryDriver;
use crate::unix::process::{PerSlot, Program};

/// The programs by generation. A generation without an entry runs what the one before it does.
#[derive(Debug)]
pub(super) struct Programs {
    first: (Program, PerSlot),
    later: BTreeMap<u32, (Program, PerSlot)>,
}

impl Programs {
    pub(super) fn new(program: Program, per_slot: PerSlot) -> Programs {
        Programs { first: (program, per_slot), later: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, generation: u32, program: Program, per_slot: PerSlot) {
        self.later.insert(generation, (program, per_slot));
    }

    /// The program for a worker in this slot.
    pub(super) fn of(&self, generation: u32, slot: Slot) -> Cow<'_, Program> {
        let (program, per_slot) =
            self.later.range(..=generation).next_back().map_or(&self.first, |(_, it)| it);
        per_slot.program(program, slot)
    }

    /// Forgets the programs of generations that start nothing any more.
    pub(super) fn retain(&mut self, mut is_needed: impl FnMut(u32) -> bool) {
        if self.later.len() > 1 {
            self.later.retain(|generation, _| is_needed(*generation));
        }
    }
}

impl PrimaryDriver {
    /// The program that the slots' workers run, for messages.
    pub(super) fn program_name(&self) -> String {
        let generation = self.core.slots().next().map_or(0, |slot| slot.generation);
        self.programs.of(generation, Slot(0)).path.to_string_lossy().into_owned()
    }
}
