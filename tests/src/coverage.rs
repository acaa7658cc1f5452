//! What happened in simulated runs, and how often: a simulation in which something never happens
//! says nothing about it.

use std::collections::BTreeMap;
use std::fmt;

use roundel_core::{
    Config, ConnEnd, Event, ExitClass, FromWorker, Input, Output, Primary, Refusal, Time, Timer,
    ToWorker,
};

/// Counts by kind and name.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, String), u64>,
}

const TIMERS: [Timer; 11] = [
    Timer::Ack,
    Timer::Ready,
    Timer::Silent,
    Timer::Frame,
    Timer::Cooldown,
    Timer::Drain,
    Timer::Fence,
    Timer::Orphan,
    Timer::Respawn,
    Timer::Unheld,
    Timer::Shutdown,
];

const CLASSES: [ExitClass; 9] = [
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

const REFUSALS: [Refusal; 4] =
    [Refusal::Overflow, Refusal::Attempts, Refusal::Closed, Refusal::Shutdown];

impl Coverage {
    fn add(&mut self, kind: &'static str, name: impl Into<String>) {
        *self.counts.entry((kind, name.into())).or_default() += 1;
    }

    /// Adds a run, by its inputs: they lead to the same outputs once more.
    pub fn add_run(&mut self, config: &Config, transcript: &[(Time, Input)]) {
        let mut primary = Primary::new(config.clone());
        for (now, input) in transcript {
            self.add("input", name_of(input));
            if let Input::Message { msg, .. } = input {
                self.add("from worker", name_of(msg));
                if let FromWorker::Ack { accepted, .. } = msg {
                    self.add("answer", if *accepted { "accepted" } else { "declined" });
                }
            }
            let due = primary.poll_timeout().filter(|first| first.at <= *now);
            if let (Input::Wake, Some(first)) = (input, due) {
                self.add("timer", name_of(&first.timer));
            }
            // What can't be was counted as a fault when it happened.
            let _ = primary.handle_input(*now, input.clone());
            while let Some(output) = primary.poll_output() {
                self.add_output(&output);
            }
        }
        self.add("stray answers", if primary.totals().stray > 0 { "some" } else { "none" });
    }

    fn add_output(&mut self, output: &Output) {
        match output {
            Output::Event(event) => {
                self.add("event", event.name());
                if let Event::Exited { class, .. } = event {
                    self.add("exit", class.name());
                }
                if let Event::SpawnFailed { .. } = event {
                    self.add("exit", ExitClass::SpawnFailed.name());
                }
            }
            Output::Send { msg, .. } => self.add("to worker", name_of::<ToWorker>(msg)),
            Output::Release { end, .. } => {
                let reason = match end {
                    ConnEnd::AcceptedBy(_) => "accepted",
                    ConnEnd::Refused(refusal) => refusal.name(),
                };
                self.add("release", reason);
            }
            Output::Stopped(verdict) => self.add("verdict", name_of(verdict)),
            other => self.add("output", name_of(other)),
        }
    }

    /// What should have happened and did not.
    pub fn never(&self) -> Vec<String> {
        let timers = TIMERS.iter().map(|timer| ("timer", name_of(timer)));
        let classes = CLASSES.iter().map(|class| ("exit", class.name().to_owned()));
        let refusals = REFUSALS.iter().map(|refusal| ("release", refusal.name().to_owned()));
        let all = timers.chain(classes).chain(refusals);
        let missing = all.filter(|key| !self.counts.contains_key(key));
        missing.map(|(kind, name)| format!("{kind} {name}")).collect()
    }
}

/// The first word of how a value is written for debugging: the name of its variant.
fn name_of<T: fmt::Debug>(value: &T) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for ((kind, name), count) in &self.counts {
            if *kind != last {
                writeln!(f, "{kind}")?;
                last = kind;
            }
            writeln!(f, "  {name:<24}{count:>12}")?;
        }
        Ok(())
    }
}
