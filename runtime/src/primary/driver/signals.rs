//! What the primary does on each signal.

use roundel_core::{Command, Input};

use super::reload::Asker;
use super::{PrimaryDriver, Source};
use crate::unix::signals::Signal;

/// How many signals are read in a turn before other work.
const SIGNALS_PER_TURN: u32 = 64;

impl PrimaryDriver {
    pub(super) fn on_signals(&mut self) {
        for _ in 0..SIGNALS_PER_TURN {
            let Some(signal) = self.signals.read() else { return };
            match signal {
                Signal::Child => self.reap(),
                Signal::Terminate | Signal::Interrupt => {
                    self.stop_asked = true;
                    self.input(Input::Command(Command::Stop));
                }
                Signal::ReopenLogs => {
                    if let Some(events) = &mut self.events {
                        events.reopen();
                    }
                    if let Some(output) = &self.output {
                        output.reopen();
                    }
                }
                Signal::Quit => {
                    self.stop_asked = true;
                    self.input(Input::Command(Command::StopNow));
                }
                Signal::Upgrade => self.say("upgrade is not available yet; SIGUSR2 is ignored"),
                Signal::CpuTime => self.say(
                    "SIGXCPU: the soft limit on CPU time is reached; the hard one ends the primary",
                ),
                Signal::Other => {}
                Signal::Hangup => self.reload(Asker::Signal),
                Signal::MoreWorkers => self.scale_by_signal(1),
                Signal::FewerWorkers => self.scale_by_signal(-1),
            }
        }
        // The descriptor is still ready, and the event loop will not report that again.
        self.ready.insert(Source::Signals);
    }

    fn scale_by_signal(&mut self, by: i32) {
        let planned = self.core.scaling_to().unwrap_or(self.core.wanted());
        let scaled = super::waiting::changed(planned, by).and_then(|to| self.scale(to));
        if let Err(cause) = scaled {
            self.say(&format!("cannot scale: {cause}"));
        }
    }
}
