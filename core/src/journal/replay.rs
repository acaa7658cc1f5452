//! Replays a run from its bytes.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use super::{Ending, MAX_FRAME, Record, Seen, Totals};
use crate::wire::Decoder;
use crate::{Config, ConfigError, DecodeError, Input, Output, Primary, Time};

/// Replays a journal: [`feed`](Replay::feed) it bytes, and let it [`step`](Replay::step) until it
/// wants more.
#[derive(Debug)]
pub struct Replay {
    decoder: Decoder<Record<'static>>,
    primary: Option<Primary>,
    now: Time,
    /// Outputs of this primary that had not been polled from the recorded one yet.
    waiting: VecDeque<Output>,
    totals: Totals,
    /// The first entry whose outputs were not all compared.
    in_doubt: u64,
    ended: Option<Ending>,
    error: Option<ReplayError>,
}

/// What one frame of a journal contained.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// The beginning.
    Begun {
        /// The version of this crate that recorded it.
        version: String,
        /// What the primary was made with.
        config: Box<Config>,
        /// The outputs of a new primary.
        outputs: Vec<Output>,
    },
    /// An input.
    Entry {
        /// Its number; the first one is 1.
        number: u64,
        /// When.
        now: Time,
        /// What.
        input: Input,
        /// Its outputs.
        outputs: Vec<Output>,
    },
    /// All outputs up to here are the recorded ones.
    Checked {
        /// Entries so far.
        entries: u64,
    },
    /// The end; all outputs are the recorded ones.
    Ended(Ending),
}

/// Why a replay can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// The bytes are not a journal, or not from here on.
    Damaged {
        /// The last good entry; 0 if there is none.
        entry: u64,
        /// What is wrong.
        cause: DecodeError,
    },
    /// The first frame is not the beginning, or a later one is another beginning, or something
    /// follows the end.
    Misplaced {
        /// The last good entry; 0 if there is none.
        entry: u64,
    },
    /// This crate does not allow the configuration.
    Config(ConfigError),
    /// The outputs are not the recorded ones.
    Differs {
        /// The entries that they belong to: more than one if the recorded primary was given several
        /// inputs before its outputs were polled. 0 stands for what comes before the first entry.
        entries: RangeInclusive<u64>,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Damaged { entry: 0, cause } => write!(f, "is not a journal: {cause}"),
            ReplayError::Damaged { entry, cause } => {
                write!(f, "is damaged after entry {entry}: {cause}")
            }
            ReplayError::Misplaced { entry } => {
                write!(f, "is damaged after entry {entry}: a record is out of place")
            }
            ReplayError::Config(error) => write!(f, "records an invalid configuration: {error}"),
            ReplayError::Differs { entries } if entries.start() == entries.end() => {
                write!(f, "entry {}: the outputs differ from the recorded ones", entries.start())
            }
            ReplayError::Differs { entries } => {
                let (first, last) = (entries.start(), entries.end());
                write!(f, "entries {first} to {last}: the outputs differ from the recorded ones")
            }
        }
    }
}

impl core::error::Error for ReplayError {}

impl Default for Replay {
    fn default() -> Self {
        Replay::new()
    }
}

impl Replay {
    /// A replay at the start of a journal.
    pub fn new() -> Self {
        Replay {
            decoder: Decoder::new(MAX_FRAME),
            primary: None,
            now: Time::ZERO,
            waiting: VecDeque::new(),
            totals: Totals::default(),
            in_doubt: 0,
            ended: None,
            error: None,
        }
    }

    /// Takes bytes in. Step until nothing comes before feeding more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
    }

    /// Replays one more frame; `None` if it is not complete yet.
    ///
    /// # Errors
    /// [`ReplayError`], which every later call returns again.
    pub fn step(&mut self) -> Result<Option<Step>, ReplayError> {
        match &self.error {
            Some(error) => Err(error.clone()),
            None => self.try_step().inspect_err(|error| self.error = Some(error.clone())),
        }
    }

    /// Whether the bytes end inside a frame.
    pub fn is_mid_frame(&self) -> bool {
        self.decoder.is_mid_frame()
    }

    /// Entries replayed so far.
    pub const fn entries(&self) -> u64 {
        self.totals.entries
    }

    /// Outputs compared so far.
    pub const fn outputs(&self) -> u64 {
        self.totals.outputs
    }

    /// How the journal ended, once its end was reached; a journal without an end was cut off.
    pub const fn ended(&self) -> Option<Ending> {
        self.ended
    }

    /// The primary as it is by now; `None` before the beginning was read.
    pub const fn primary(&self) -> Option<&Primary> {
        self.primary.as_ref()
    }

    fn try_step(&mut self) -> Result<Option<Step>, ReplayError> {
        let polled = self.decoder.poll();
        let damaged = |cause| ReplayError::Damaged { entry: self.totals.entries, cause };
        let Some((record, _)) = polled.map_err(damaged)? else { return Ok(None) };
        let misplaced = ReplayError::Misplaced { entry: self.totals.entries };
        if self.ended.is_some() || self.primary.is_some() == matches!(record, Record::Begin { .. })
        {
            return Err(misplaced);
        }
        Ok(Some(match record {
            Record::Begin { version, config } => {
                let config = config.build().map_err(ReplayError::Config)?;
                self.primary = Some(Primary::new(config.clone()));
                let outputs = self.poll();
                Step::Begun { version: version.into_owned(), config: Box::new(config), outputs }
            }
            Record::Entry { seen, after, input } => {
                self.compare(seen)?;
                self.now = Time::from_nanos(self.now.as_nanos().wrapping_add_signed(after));
                self.totals.entries += 1;
                let input = input.into_owned();
                if let Some(primary) = &mut self.primary {
                    // An input that was refused then is refused now, and changes nothing.
                    let _ = primary.handle_input(self.now, input.clone());
                }
                let (number, now, outputs) = (self.totals.entries, self.now, self.poll());
                Step::Entry { number, now, input, outputs }
            }
            Record::Check(totals) => {
                self.agree(self.totals == totals)?;
                Step::Checked { entries: totals.entries }
            }
            Record::End { seen, totals, why } => {
                self.compare(seen)?;
                self.agree(self.totals == totals)?;
                self.ended = Some(why);
                Step::Ended(why)
            }
        }))
    }

    /// Polls what the primary wants now.
    fn poll(&mut self) -> Vec<Output> {
        let Some(primary) = &mut self.primary else { return Vec::new() };
        let outputs: Vec<Output> = core::iter::from_fn(|| primary.poll_output()).collect();
        self.waiting.extend(outputs.iter().cloned());
        outputs
    }

    /// Compares with what was polled from the recorded primary before its next entry.
    fn compare(&mut self, seen: Seen) -> Result<(), ReplayError> {
        for _ in 0..seen.polled {
            let Some(output) = self.waiting.pop_front() else { return self.agree(false) };
            self.totals.polled(&output);
        }
        self.agree(self.totals.digest.print() == seen.print)?;
        self.agree(self.waiting.is_empty() == seen.drained)?;
        if seen.drained {
            self.in_doubt = self.totals.entries + 1;
        }
        Ok(())
    }

    fn agree(&self, agreed: bool) -> Result<(), ReplayError> {
        let last = self.totals.entries;
        let entries = self.in_doubt.min(last)..=last;
        if agreed { Ok(()) } else { Err(ReplayError::Differs { entries }) }
    }
}
