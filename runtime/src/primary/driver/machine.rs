//! The machine, and the journal of its inputs.

use std::ops::Deref;

use roundel_core::{Input, Output, Primary, Time};

use crate::observe::console::Console;
use crate::observe::journal::Journal;

/// A primary, recorded if a journal is wanted. Everything that changes the primary goes through
/// here.
#[derive(Debug)]
pub(super) struct Machine {
    core: Primary,
    journal: Option<Journal>,
    console: Console,
}

impl Deref for Machine {
    type Target = Primary;

    fn deref(&self) -> &Primary {
        &self.core
    }
}

impl Machine {
    pub(super) const fn new(core: Primary, journal: Option<Journal>, console: Console) -> Self {
        Machine { core, journal, console }
    }

    /// Gives the machine an input. If the machine refuses it, the driver is at fault: nothing
    /// changes, and the refusal is reported where tests see it.
    pub(super) fn input(&mut self, now: Time, input: Input) {
        let result = match &mut self.journal {
            None => self.core.handle_input(now, input),
            Some(journal) => journal.handle_input(&mut self.core, now, input),
        };
        if let Err(misuse) = result {
            debug_assert!(false, "misuse: {misuse}");
            self.console.say(&format!("internal error: {misuse}"));
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        match &mut self.journal {
            None => self.core.poll_output(),
            Some(journal) => journal.poll_output(&mut self.core),
        }
    }

    /// When the journal must be flushed at the latest.
    pub(super) fn journal_due(&self) -> Option<Time> {
        self.journal.as_ref().and_then(Journal::due)
    }

    /// Flushes the journal if there is enough to write. If the recording has ended, returns why,
    /// once.
    pub(super) fn flush_journal(&mut self, now: Time) -> Option<String> {
        self.journal.as_mut()?.flush(now).err()
    }

    /// Ends the recording. If not all of it was written, returns why.
    pub(super) fn end_journal(&mut self) -> Option<String> {
        self.journal.take()?.finish(&self.core).err()
    }
}
