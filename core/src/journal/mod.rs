//! Record and replay a run. A journal has every input and its time, and enough about the outputs to
//! check that a replay gives the same ones.
//!
//! A [`Recorder`] stands between an embedder and its [`Primary`](crate::Primary) and makes the
//! bytes; a [`Replay`] takes them, runs a new primary through the same inputs, and compares.
//! Neither does IO.
//!
//! A journal is a hello (`FF 52 4E 44 4A`, `\xFFRNDJ`, [`VERSION`] as u16 little-endian, one zero),
//! then frames like those of the native [codec](crate::wire): a beginning with the version of this
//! crate and the [`Config`](crate::Config), an entry for each input, a check each [`CHECK_EVERY`]
//! entries, and the end. A journal without an end was cut off.
//!
//! Outputs are not stored. Each entry holds how many were polled since the one before, and 16 bits
//! of a digest over all of them, so that a replay names the entry at which the outputs differ; the
//! checks carry the whole digest, which is FNV-1a with 64 bits over their encoding.

mod recorder;
mod replay;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::wire::{self, framed::Framed};
use crate::{ConfigBuilder, Input, Output};

pub use recorder::Recorder;
pub use replay::{Replay, ReplayError, Step};

/// The version of the format.
pub const VERSION: u16 = 1;
/// A check comes after so many entries.
pub const CHECK_EVERY: u64 = 1_000;

/// The longest frame, in bytes: the longest message of a worker, and what is around it.
const MAX_FRAME: u32 = 1 << 25;

/// Why a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ending {
    /// The recording was ended, usually because the primary has stopped.
    Complete,
    /// The journal is as long as it may be; the run went on.
    Limit,
    /// An input was too long to be recorded; the run went on.
    TooLong,
}

/// A frame of a journal.
#[derive(Debug, Serialize, Deserialize)]
enum Record<'a> {
    Begin {
        version: Cow<'a, str>,
        /// Unchecked, so that a replay can report an impossible configuration.
        config: Box<ConfigBuilder>,
    },
    Entry {
        seen: Seen,
        /// Nanoseconds since the previous entry, or since the epoch. The clock may go back.
        after: i64,
        input: Cow<'a, Input>,
    },
    Check(Totals),
    End {
        seen: Seen,
        totals: Totals,
        why: Ending,
    },
}

impl Framed for Record<'_> {
    const MAGIC: [u8; 5] = *b"\xFFRNDJ";
    const VERSION: u16 = VERSION;
    const SKEW: u16 = 0;
}

/// The outputs since the previous entry.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    polled: u32,
    /// No output was left to be polled.
    drained: bool,
    /// The digest of all outputs so far, folded.
    print: u16,
}

/// Totals of everything so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Totals {
    entries: u64,
    outputs: u64,
    digest: Digest,
}

impl Totals {
    fn polled(&mut self, output: &Output) {
        self.outputs += 1;
        self.digest.add(output);
    }
}

/// FNV-1a with 64 bits (draft-eastlake-fnv).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, output: &Output) {
        wire::encoding(output, |bytes| {
            for &byte in bytes {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        });
    }

    const fn print(self) -> u16 {
        (self.0 ^ (self.0 >> 16) ^ (self.0 >> 32) ^ (self.0 >> 48)) as u16
    }
}

/// The version of this crate, as the beginning of a journal names it.
fn own_version() -> String {
    String::from(env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests;
