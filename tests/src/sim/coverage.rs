//! What happened in simulated runs, and how often: a simulation in which something never happens
//! says nothing about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use roundel_core::{
    Command, ConnEnd, Deadline, DecodeError, Event, ExitClass, FixedField, FromWorker, Input,
    Output, Refusal, ReloadFailure, Signal, SpawnError, Time, Timer, ToWorker, Verdict, Violation,
};

use crate::sim::program::Saw;
use crate::sim::variants::{index, names};

/// What a fault of the surroundings led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Effect {
    AnswerAfterExit,
    BrokenPipe,
    ChannelFull,
    ClockJump,
    DiedWithSomethingUnread,
    DiedWithoutReading,
    ExitAfterChannel,
    ExitLost,
    FencedWithSomethingUnread,
    HandleLost,
    HeldBackAnswer,
    KilledInTheKernel,
    Lingers,
    MergedHandoffs,
    MergedRead,
    MessageSkipped,
    NotArrived,
    NothingToSend,
    PartOfABatchLost,
    ReadingHeld,
    Restored,
    ShortWriteToPrimary,
    ShortWriteToWorker,
    SplitFrame,
    TooManyRefs,
    TurnUsedUp,
    UnknownAndNotServed,
    UnknownAndServed,
    UnsentAcceptanceAtEnd,
    UserMessage,
}

/// Rows of one kind.
#[derive(Clone, Debug)]
struct Rows {
    kind: &'static str,
    names: &'static [&'static str],
    counts: Vec<u64>,
}

impl Rows {
    fn of<'de, T: Deserialize<'de>>(kind: &'static str) -> Rows {
        let names = names::<T>();
        Rows { kind, names, counts: vec![0; names.len()] }
    }

    fn add<T: Serialize>(&mut self, value: &T) {
        if let Some(count) = self.counts.get_mut(index(value)) {
            *count += 1;
        }
    }

    /// Adds one that goes by a name, which must be that of its variant.
    fn add_named<T: Serialize>(&mut self, value: &T, name: &str) {
        self.add(value);
        let variant = self.names.get(index(value)).copied().unwrap_or_default();
        // The wire and the event log keep Node's old word.
        let variant = if variant == "Failing" { "Suicide" } else { variant };
        debug_assert_eq!(name.replace('_', ""), variant.to_lowercase(), "the name of {variant}");
    }
}

macro_rules! coverage {
    ($($field:ident: $type:ty = $kind:literal;)*) => {
        /// Counts by kind and name.
        #[derive(Clone, Debug)]
        pub struct Coverage {
            $($field: Rows,)*
        }

        impl Default for Coverage {
            fn default() -> Self {
                Coverage { $($field: Rows::of::<$type>($kind),)* }
            }
        }

        impl Coverage {
            fn rows(&self) -> impl Iterator<Item = &Rows> {
                [$(&self.$field,)*].into_iter()
            }

            fn rows_mut(&mut self) -> impl Iterator<Item = &mut Rows> {
                [$(&mut self.$field,)*].into_iter()
            }
        }
    };
}

coverage! {
    inputs: Input = "input";
    outputs: Output = "output";
    native_said: FromWorker = "from a native worker";
    node_said: FromWorker = "from a Node worker";
    native_told: ToWorker = "to a native worker";
    node_told: ToWorker = "to a Node worker";
    events: Event = "event";
    timers: Timer = "timer";
    releases: Refusal = "refused";
    classes: ExitClass = "exit";
    violations: Violation = "violation";
    decoding: DecodeError = "decode error";
    commands: Command = "command";
    signals: Signal = "signal";
    spawning: SpawnError = "spawn error";
    verdicts: Verdict = "verdict";
    failures: ReloadFailure = "reload failed";
    fixed: FixedField = "can't change";
    effects: Effect = "effect";
}

/// What never happens, and why. An entry is taken out once it happens.
const NEVER: &[(&str, &str, &str)] = &[
    ("from a Node worker", "Pong", "Node has no such message"),
    ("to a Node worker", "Ping", "Node has no such message"),
    ("to a native worker", "Disconnect", "the primary says Drain to all"),
    (
        "to a Node worker",
        "Disconnect",
        "the primary says Drain to all; the codec writes a disconnect",
    ),
    ("to a native worker", "Shutdown", "is for Node programs"),
    ("to a native worker", "PassListener", "is for Node programs without cluster"),
    ("event", "Stalled", "is a fault of the core or of its embedder; a deliberate one shows it"),
];

impl Coverage {
    /// Something came of a fault.
    pub fn reached(&mut self, effect: Effect) {
        self.effects.add(&effect);
    }

    /// A message that was read.
    pub fn heard(&mut self, node: bool, msg: &FromWorker) {
        if node { &mut self.node_said } else { &mut self.native_said }.add(msg);
    }

    /// A message that was queued.
    pub fn sent(&mut self, node: bool, msg: &ToWorker) {
        if node { &mut self.node_told } else { &mut self.native_told }.add(msg);
    }

    /// What a program saw.
    pub fn saw(&mut self, saw: &Saw) {
        for (count, effect) in [
            (saw.lost_handles, Effect::HandleLost),
            (saw.short_batches, Effect::PartOfABatchLost),
            (saw.merged_reads, Effect::MergedRead),
            (saw.short_writes, Effect::ShortWriteToPrimary),
            (saw.unsent_at_end, Effect::UnsentAcceptanceAtEnd),
            (saw.held_back, Effect::HeldBackAnswer),
        ] {
            (0..count).for_each(|_| self.effects.add(&effect));
        }
    }

    /// A reload or a recycling failed.
    pub fn failed(&mut self, failure: &ReloadFailure) {
        self.failures.add(failure);
        if let ReloadFailure::Fixed { field } = failure {
            self.fixed.add(field);
        }
    }

    /// An input, and the deadline before it.
    pub fn input(&mut self, now: Time, input: &Input, deadline: Option<Deadline>) {
        self.inputs.add(input);
        match input {
            Input::Wake => {
                if let Some(first) = deadline.filter(|first| first.at <= now) {
                    self.timers.add(&first.timer);
                }
            }
            Input::SpawnFailed { cause, .. } => self.spawning.add(cause),
            Input::Command(command) => self.commands.add(command),
            Input::Violation { what: Violation::Decode(error), .. } => {
                self.decoding.add_named(error, error.name())
            }
            _ => {}
        }
    }

    /// An output.
    pub fn output(&mut self, output: &Output) {
        self.outputs.add(output);
        match output {
            Output::Event(event) => {
                self.events.add_named(event, event.name());
                match event {
                    Event::Exited { class, .. } => self.classes.add_named(class, class.name()),
                    Event::SpawnFailed { .. } => self.classes.add(&ExitClass::SpawnFailed),
                    // Goes by the name of the error.
                    Event::Killing { violation: Some(decode @ Violation::Decode(_)), .. } => {
                        self.violations.add(decode);
                    }
                    Event::Killing { violation: Some(violation), .. } => {
                        self.violations.add_named(violation, violation.name());
                    }
                    _ => {}
                }
            }
            Output::Release { end: ConnEnd::Refused(refusal), .. } => {
                self.releases.add_named(refusal, refusal.name())
            }
            Output::Kill { signal, .. } => self.signals.add(signal),
            Output::Stopped(verdict) => self.verdicts.add(verdict),
            _ => {}
        }
    }

    /// Adds what happened in other runs.
    pub fn join(&mut self, other: &Coverage) {
        for (mine, theirs) in self.rows_mut().zip(other.rows()) {
            for (mine, theirs) in mine.counts.iter_mut().zip(&theirs.counts) {
                *mine += theirs;
            }
        }
    }

    /// What is not as it is said to be: what should have happened and did not, and the reverse.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        for rows in self.rows() {
            for (name, count) in rows.names.iter().zip(&rows.counts) {
                let reason = reason(rows.kind, name);
                match (count, reason) {
                    (0, None) => gaps.push(format!("never: {} {name}", rows.kind)),
                    (1.., Some(why)) => {
                        gaps.push(format!("{} {name} happened, and should not: {why}", rows.kind));
                    }
                    _ => {}
                }
            }
        }
        gaps
    }
}

fn reason(kind: &str, name: &str) -> Option<&'static str> {
    NEVER.iter().find(|row| row.0 == kind && row.1 == name).map(|row| row.2)
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rows in self.rows() {
            writeln!(f, "{}", rows.kind)?;
            for (name, count) in rows.names.iter().zip(&rows.counts) {
                let why = reason(rows.kind, name).unwrap_or_default();
                writeln!(f, "  {name:<28}{count:>12}  {why}")?;
            }
        }
        Ok(())
    }
}
