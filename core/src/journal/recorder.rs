//! Records a run as bytes.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{CHECK_EVERY, Ending, MAX_FRAME, Record, Seen, Totals};
use crate::wire;
use crate::{Config, Input, Misuse, Output, Primary, Time};

/// What a check and the end take at most, in bytes.
pub(super) const END: u64 = 96;

/// Records a primary. Give it all inputs, and poll all outputs, through
/// [`handle_input`](Recorder::handle_input) and [`poll_output`](Recorder::poll_output), from the
/// primary's first moment; store what [`take`](Recorder::take) gives.
#[derive(Clone, Debug)]
pub struct Recorder {
    bytes: Vec<u8>,
    /// Bytes that were taken.
    taken: u64,
    limit: u64,
    last: Time,
    totals: Totals,
    polled: u32,
    ended: Option<Ending>,
}

impl Recorder {
    /// Begins a journal of a primary with this configuration, which has not been used yet.
    /// It gets no longer than `limit` bytes, except for the beginning itself.
    pub fn new(config: &Config, limit: u64) -> Self {
        let mut recorder = Recorder {
            bytes: Vec::new(),
            taken: 0,
            limit,
            last: Time::ZERO,
            totals: Totals::default(),
            polled: 0,
            ended: None,
        };
        wire::hello::<Record<'_>>(&mut recorder.bytes);
        let config = Box::new(config.clone().into());
        recorder.put(&Record::Begin { version: super::own_version().into(), config });
        recorder
    }

    /// [`Primary::handle_input`], recorded.
    ///
    /// # Errors
    /// Those of that method; a refused input is in the journal too, and a replay refuses it again.
    #[inline]
    pub fn handle_input(
        &mut self,
        primary: &mut Primary,
        now: Time,
        input: Input,
    ) -> Result<(), Misuse> {
        if self.ended.is_none() {
            self.record(!primary.has_output(), now, &input);
        }
        primary.handle_input(now, input)
    }

    /// [`Primary::poll_output`], recorded.
    #[inline]
    pub fn poll_output(&mut self, primary: &mut Primary) -> Option<Output> {
        let output = primary.poll_output()?;
        if self.ended.is_none() {
            self.totals.polled(&output);
            self.polled += 1;
        }
        Some(output)
    }

    /// Ends the journal. What happens from now on is not recorded.
    pub fn end(&mut self, primary: &Primary) {
        self.end_for(Ending::Complete, !primary.has_output());
    }

    /// Why the journal has ended, if it has.
    pub const fn ended(&self) -> Option<Ending> {
        self.ended
    }

    /// How many bytes wait to be taken.
    pub const fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the bytes recorded since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = core::mem::take(&mut self.bytes);
        self.taken += bytes.len() as u64;
        bytes
    }

    fn record(&mut self, drained: bool, now: Time, input: &Input) {
        let after = now.as_nanos().wrapping_sub(self.last.as_nanos()).cast_signed();
        let (start, seen) = (self.bytes.len(), self.seen(drained));
        if !self.put(&Record::Entry { seen, after, input: Cow::Borrowed(input) }) {
            return self.end_for(Ending::TooLong, drained);
        }
        if self.taken + self.bytes.len() as u64 + END > self.limit {
            self.bytes.truncate(start);
            return self.end_for(Ending::Limit, drained);
        }
        self.last = now;
        self.polled = 0;
        self.totals.entries += 1;
        if self.totals.entries.is_multiple_of(CHECK_EVERY) {
            self.put(&Record::Check(self.totals));
        }
    }

    fn seen(&self, drained: bool) -> Seen {
        Seen { polled: self.polled, drained, print: self.totals.digest.print() }
    }

    fn end_for(&mut self, why: Ending, drained: bool) {
        if self.ended.is_none() {
            let end = Record::End { seen: self.seen(drained), totals: self.totals, why };
            self.put(&end);
            self.ended = Some(why);
        }
    }

    fn put(&mut self, record: &Record<'_>) -> bool {
        wire::encode_frame(record, MAX_FRAME, &mut self.bytes).is_ok()
    }
}
