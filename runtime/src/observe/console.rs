//! The primary's messages to people, on standard error. Standard error may be a terminal that
//! somebody has stopped, a pipe that nobody reads, or a pipe that a worker has made non-blocking
//! for every process that shares it. So a thread of its own writes, and no message holds up
//! serving.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::observe::lines::{Lines, Progress, Sink, count_lines, write_lines};
use crate::text::{cut, printable};

/// Bytes that may wait for standard error before further lines are dropped.
const CAPACITY: usize = 256 * 1024;

/// The longest line, so that a pipe takes it whole.
const MAX_LINE: usize = 3_500;

/// How long the flush at the end waits while standard error takes nothing at all.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long that flush waits in any case.
const LIMIT: Duration = Duration::from_secs(5);

/// Standard error, for lines that begin with the name of a binary. Copies share one queue.
#[derive(Clone, Debug)]
pub struct Console {
    name: &'static str,
    lines: Option<Arc<Lines>>,
}

impl Console {
    /// A console on which each line begins with this name.
    ///
    /// # Errors
    /// If the thread that writes can't be started.
    pub fn open(name: &'static str) -> io::Result<Console> {
        let sink = Words { name, output: io::stderr(), lost: 0 };
        let lines = Lines::start("console", CAPACITY, sink)?;
        Ok(Console { name, lines: Some(Arc::new(lines)) })
    }

    /// What each line begins with.
    #[cfg(feature = "primary")]
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// A console that prints nothing.
    pub const fn silent() -> Console {
        Console { name: "", lines: None }
    }

    /// Prints one line, whatever the message holds: line breaks and other control characters are
    /// escaped, and a very long message is cut.
    pub fn say(&self, words: &str) {
        if let Some(lines) = &self.lines {
            lines.push(&[self.name, ": ", &cut(printable(words), MAX_LINE), "\n"]);
        }
    }

    /// Prints lines as they are, each with its line end.
    #[cfg(feature = "primary")]
    pub(crate) fn show(&self, text: &str) {
        if let Some(lines) = &self.lines {
            lines.push(&[text]);
        }
    }

    /// Waits until everything is written: half a second for a standard error that takes nothing,
    /// and 5 s in any case.
    pub fn flush(&self) {
        if let Some(lines) = &self.lines {
            lines.flush(PATIENCE, LIMIT);
        }
    }
}

struct Words<O> {
    name: &'static str,
    output: O,
    /// Lines that were not written and not yet reported as missing.
    lost: u64,
}

impl<O: AsFd> Words<O> {
    fn write(&self, lines: &[u8], progress: &Progress) -> Result<usize, (usize, io::Error)> {
        // This avoids the lock of `io::stderr`: others may need it, and would wait.
        write_lines(self.output.as_fd(), lines, progress)
    }

    /// Reports what is missing; false if that can't be written either.
    fn report_gap(&mut self, progress: &Progress) -> bool {
        if self.lost > 0 {
            let (name, lost) = (self.name, self.lost);
            let note = format!("{name}: {lost} lines are missing here: standard error was full\n");
            if self.write(note.as_bytes(), progress).is_err() {
                return false;
            }
            self.lost = 0;
        }
        true
    }
}

impl<O: AsFd + Send + 'static> Sink for Words<O> {
    /// Errors are not fatal: a terminal that is gone is no reason to stop serving, and a full disk
    /// may have room again.
    fn put(&mut self, lines: &[u8], progress: &Progress) {
        let written = match self.report_gap(progress) {
            false => 0,
            true => match self.write(lines, progress) {
                Ok(_) => return,
                Err((written, _)) => written,
            },
        };
        self.lost += count_lines(lines.get(written..).unwrap_or_default());
    }

    fn dropped(&mut self, count: u64, progress: &Progress) {
        self.lost += count;
        self.report_gap(progress);
    }

    fn reopen(&mut self, _: &Progress) {}
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn lost_lines_are_reported_in_a_gap_note() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut words = Words { name: "x", output: full, lost: 0 };
        let progress = Progress::default();
        words.put(b"x: 1\nx: 2\n", &progress);
        words.put(b"x: 3\n", &progress);
        words.dropped(2, &progress);
        words.output = writer.into();
        words.put(b"x: 6\n", &progress);
        words.dropped(1, &progress);
        words.put(b"x: 8\n", &progress);
        drop(words);
        let mut said = String::new();
        File::from(reader).read_to_string(&mut said).unwrap();
        let missing =
            |count| format!("x: {count} lines are missing here: standard error was full\n");
        assert_eq!(said, missing(5) + "x: 6\n" + &missing(1) + "x: 8\n");
    }
}
