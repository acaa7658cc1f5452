//! The content of a journal, in a few lines.

use std::io::{self, Write};

use roundel_core::journal::{Replay, ReplayError, Step};
use roundel_core::{ConnEnd, Event, Input, Output, Time, ToWorker};

#[derive(Debug, Default)]
pub(super) struct Summary {
    version: String,
    primary: String,
    first: Option<Time>,
    last: Time,
    arrived: u64,
    handed_off: u64,
    accepted: u64,
    declined: u64,
    redispatched: u64,
    refused: u64,
    started: u64,
    ended: u64,
}

impl Summary {
    pub(super) fn count(&mut self, step: &Step) {
        match step {
            Step::Begun { version, config, outputs } => {
                self.version.clone_from(version);
                let (workers, policy) = (config.workers(), config.policy().name());
                self.primary = format!("{workers} workers, {policy}");
                self.count_outputs(outputs);
            }
            Step::Entry { now, input, outputs, .. } => {
                self.first.get_or_insert(*now);
                self.last = self.last.max(*now);
                self.arrived += u64::from(matches!(input, Input::Incoming { .. }));
                self.count_outputs(outputs);
            }
            _ => {}
        }
    }

    fn count_outputs(&mut self, outputs: &[Output]) {
        for output in outputs {
            let counter = match output {
                Output::Send { msg: ToWorker::NewConn { .. }, .. } => &mut self.handed_off,
                Output::Release { end: ConnEnd::AcceptedBy(_), .. } => &mut self.accepted,
                Output::Release { end: ConnEnd::Refused(_), .. } => &mut self.refused,
                Output::Event(Event::Declined { .. }) => &mut self.declined,
                Output::Event(Event::Redispatched { .. }) => &mut self.redispatched,
                Output::Event(Event::Spawned { .. }) => &mut self.started,
                Output::Event(Event::Exited { .. }) => &mut self.ended,
                _ => continue,
            };
            *counter += 1;
        }
    }

    pub(super) fn print(&self, replay: &Replay, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "recorded with version {}: {}", self.version, self.primary)?;
        let span = self.last.since(self.first.unwrap_or_default()).as_secs_f64();
        let (entries, outputs) = (replay.entries(), replay.outputs());
        writeln!(
            to,
            "replayed {entries} entries of {span:.3} s: all {outputs} outputs as recorded"
        )?;
        writeln!(
            to,
            "connections: {} arrived, {} handed off, {} accepted, {} declined, {} redispatched, {} \
             refused",
            self.arrived,
            self.handed_off,
            self.accepted,
            self.declined,
            self.redispatched,
            self.refused
        )?;
        writeln!(to, "workers: {} started, {} ended", self.started, self.ended)
    }

    /// Writes the outputs of this replay for the entry at which it differs from the recorded run.
    pub(super) fn difference(
        &self,
        error: &ReplayError,
        last: Option<&Step>,
        to: &mut impl Write,
    ) -> io::Result<()> {
        let (ReplayError::Differs { .. }, Some(Step::Entry { number, now, input, outputs })) =
            (error, last)
        else {
            return Ok(());
        };
        writeln!(to, "entry {number} at {now}: {input:?}")?;
        for output in outputs {
            writeln!(to, "now gives: {output:?}")?;
        }
        Ok(())
    }

    /// An addition to an error, if different versions may be the reason.
    pub(super) fn versions(&self) -> String {
        let own = env!("CARGO_PKG_VERSION");
        if self.version.is_empty() || self.version == own {
            return String::new();
        }
        format!(" (recorded with version {}, replayed with {own})", self.version)
    }
}
