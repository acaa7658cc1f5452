//! A run as a value: what went in, and when.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Config, Input, Misuse, Output, Primary, Time};

/// Everything that a [`Primary`] was told, so that its run can be had again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Journal {
    config: Config,
    entries: Vec<(Time, Input)>,
}

impl Journal {
    /// An empty journal of a primary with this configuration.
    pub const fn new(config: Config) -> Self {
        Journal { config, entries: Vec::new() }
    }

    /// Notes an input. Do so before it is handled; one that turns out to be misuse may stay in.
    pub fn record(&mut self, now: Time, input: Input) {
        self.entries.push((now, input));
    }

    /// What was noted, in order.
    pub fn entries(&self) -> &[(Time, Input)] {
        &self.entries
    }

    /// Runs it again from the start: the same state, and all outputs in order.
    pub fn replay(&self) -> (Primary, Vec<Output>) {
        let mut primary = Primary::new(self.config.clone());
        let mut outputs = Vec::new();
        for (now, input) in &self.entries {
            // Misuse changed nothing then, and changes nothing now.
            let _: Result<(), Misuse> = primary.handle_input(*now, input.clone());
            outputs.extend(core::iter::from_fn(|| primary.poll_output()));
        }
        outputs.extend(core::iter::from_fn(|| primary.poll_output()));
        (primary, outputs)
    }
}
