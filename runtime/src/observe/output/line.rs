//! One line of a worker's output, and the forms in which it is written.

use std::borrow::Cow;
use std::io::Write;
#[cfg(feature = "primary")]
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How lines of workers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// As they are.
    #[default]
    Raw,
    /// With the slot and the process id before each line: `[0 pid 4711] line`.
    Prefix,
    /// As JSON objects, one a line: see [`LogLine`].
    Json,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 3] = [Format::Raw, Format::Prefix, Format::Json];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Prefix => "prefix",
            Format::Json => "json",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One of a worker's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a worker's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine<'a> {
    /// When the primary read it, in UTC (RFC 3339).
    pub time: Cow<'a, str>,
    /// The worker's slot, from 0.
    pub slot: u32,
    /// The worker's id.
    pub worker: u64,
    /// Its process id.
    pub pid: i32,
    /// Where it wrote the line.
    pub stream: Stream,
    /// The line, without its line end. What is not UTF-8 is replaced by U+FFFD.
    pub line: Cow<'a, str>,
    /// Whether this is a piece of a line of more than 64 KiB, which goes on in the next one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// Lines that are missing at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// How many lines found no room, because the reader or the disk was too slow.
    pub dropped: u64,
}

/// What follows a piece of a line that goes on, where the form has no field for that.
const CUT: &[u8] = b" [cut]";

/// The worker that lines come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) slot: u32,
    pub(crate) worker: u64,
    pub(crate) pid: i32,
    pub(crate) stream: Stream,
}

impl Format {
    /// Appends a line in this form, with its line end.
    pub(crate) fn write(self, to: &mut Vec<u8>, time: &str, from: Origin, line: &[u8], cut: bool) {
        match self {
            Format::Raw => to.extend_from_slice(line),
            Format::Prefix => {
                // Writing to memory can't fail, here and below.
                let _ = write!(to, "[{} pid {}] ", from.slot, from.pid);
                to.extend_from_slice(line);
            }
            Format::Json => {
                let Origin { slot, worker, pid, stream } = from;
                let (time, line) = (time.into(), String::from_utf8_lossy(line));
                let line = LogLine { time, slot, worker, pid, stream, line, cut };
                let _ = serde_json::to_writer(&mut *to, &line);
            }
        }
        if cut && self != Format::Json {
            to.extend_from_slice(CUT);
        }
        to.push(b'\n');
    }

    /// A line that says how many are missing. `name` is that of the binary.
    #[cfg(feature = "primary")]
    pub(crate) fn missing(self, name: &str, dropped: u64) -> String {
        match self {
            Format::Json => serde_json::to_string(&Missing { dropped }).unwrap_or_default() + "\n",
            Format::Raw | Format::Prefix => format!("{name}: {dropped} lines dropped\n"),
        }
    }
}

impl LogLine<'_> {
    /// The line in the form [`Prefix`](Format::Prefix), with its line end.
    pub fn prefixed(&self) -> Vec<u8> {
        let LogLine { slot, worker, pid, stream, .. } = *self;
        let from = Origin { slot, worker, pid, stream };
        let mut line = Vec::new();
        Format::Prefix.write(&mut line, &self.time, from, self.line.as_bytes(), self.cut);
        line
    }
}

/// The time of day, as [`LogLine::time`] has it.
#[cfg(feature = "primary")]
pub(crate) fn time_of_day() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    shown(i64::try_from(since.as_millis()).unwrap_or(0))
}

#[cfg(feature = "primary")]
fn shown(millis: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, line: &[u8], cut: bool) -> String {
        let from = Origin { slot: 3, worker: 7, pid: 4711, stream: Stream::Stderr };
        let mut to = Vec::new();
        format.write(&mut to, "then", from, line, cut);
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn the_forms() {
        assert_eq!(written(Format::Raw, b"a", false), "a\n");
        assert_eq!(written(Format::Raw, b"a", true), "a [cut]\n");
        assert_eq!(written(Format::Prefix, b"a", false), "[3 pid 4711] a\n");
        assert_eq!(written(Format::Prefix, b"a", true), "[3 pid 4711] a [cut]\n");
        let json = r#"{"time":"then","slot":3,"worker":7,"pid":4711,"stream":"stderr","line""#;
        assert_eq!(written(Format::Json, b"a\"", false), format!("{json}:\"a\\\"\"}}\n"));
        assert_eq!(written(Format::Json, b"a", true), format!("{json}:\"a\",\"cut\":true}}\n"));
        assert_eq!(written(Format::Json, b"a\xffb", false), format!("{json}:\"a\u{fffd}b\"}}\n"));
    }

    #[test]
    fn they_go_there_and_back() {
        let line = written(Format::Json, "\u{20ac}\t\u{1}".as_bytes(), true);
        let read: LogLine<'_> = serde_json::from_str(&line).unwrap();
        assert!(read.cut && read.line == "\u{20ac}\t\u{1}");
        assert_eq!(read.prefixed(), "[3 pid 4711] \u{20ac}\t\u{1} [cut]\n".as_bytes());
    }

    #[test]
    fn times() {
        assert_eq!(shown(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(time_of_day().len(), shown(0).len());
    }
}
