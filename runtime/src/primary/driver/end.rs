//! The end of a primary: what is still written, and the exit code.

use std::path::Path;
use std::time::Duration;

use roundel_core::Verdict;

use super::{PrimaryDriver, report};
use crate::exit::Exit;

impl PrimaryDriver {
    pub(super) fn end_if_stopped(&mut self) {
        // Processes left behind by ended workers have a second to end, but at most until the
        // deadline.
        if !self.groups.have_ended() {
            return;
        }
        let Some(verdict) = self.verdict.take() else { return };
        if let Some(why) = self.core.end_journal() {
            self.unrecorded(&why);
        }
        if let Some(events) = self.events.take() {
            events.finish(Duration::from_secs(1));
        }
        self.finish_output();
        self.control = None;
        self.metrics = None;
        self.exit = Some(match verdict {
            Verdict::Stopped => Exit::Stopped,
            Verdict::CrashLoop => {
                self.say("crash loop: every worker slot failed too often; giving up");
                Exit::CrashLoop
            }
            Verdict::CannotBind { .. } => Exit::CannotBind,
            Verdict::ProgramMissing => {
                let program = self.program_name();
                // If the file exists, something needed to load it does not.
                let there = Path::new(&program).exists();
                let why = if there {
                    "its interpreter or loader does not exist"
                } else {
                    "no such program"
                };
                self.say(&format!("{program}: {why}"));
                Exit::ProgramMissing
            }
            Verdict::NotExecutable { errno } => {
                let program = self.program_name();
                let why = report::explain(errno.0);
                self.say(&format!("{program}: cannot be executed: {why}"));
                Exit::NotExecutable
            }
            other => {
                self.say(&other.to_string());
                Exit::Failure
            }
        });
        self.console.flush();
    }
}
